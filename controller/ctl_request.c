/* SPDX-License-Identifier: MIT */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl.h"

#define TIMEOUT_S 30L

struct text {
    char *data;
    size_t len;
};

static size_t receive(char *data, size_t size, size_t n, void *user)
{
    struct text *text = user;
    char *grown = realloc(text->data, text->len + size * n);

    if (grown == NULL)
        return 0;
    memcpy(grown + text->len, data, size * n);
    text->data = grown;
    text->len += size * n;
    return size * n;
}

static int report_unreachable(CURL *curl, CURLcode code, const char *socket)
{
    long os_error = 0;

    curl_easy_getinfo(curl, CURLINFO_OS_ERRNO, &os_error);
    if (code == CURLE_COULDNT_CONNECT)
        fprintf(stderr,
                "durpinactl: no controller answers on %s%s%s: start it with durpinad, or name its "
                "socket with --socket\n",
                socket, os_error != 0 ? ": " : "", os_error != 0 ? strerror((int) os_error) : "");
    else
        fprintf(stderr, "durpinactl: %s: %s\n", socket, curl_easy_strerror(code));
    return CTL_UNREACHABLE;
}

static int report_refused(long status, const json_t *answer)
{
    const json_t *error = json_object_get(answer, "error");
    const char *text = json_string_value(json_object_get(error, "text"));
    const char *code = json_string_value(json_object_get(error, "code"));

    if (text != NULL && code != NULL)
        fprintf(stderr, "durpinactl: %s (%s)\n", text, code);
    else
        fprintf(stderr, "durpinactl: the controller answers with status %ld\n", status);
    return CTL_REFUSED;
}

/* /metrics, or HEAD. */
static int report_foreign(const char *method, const char *path)
{
    fprintf(stderr, "durpinactl: the answer to %s %s is no JSON: ask with curl\n", method, path);
    return CTL_REFUSED;
}

int ctl_request(const char *socket, const char *method, const char *path, const char *body,
                json_t **ret_answer)
{
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    CURL *curl = curl_easy_init();
    char url[CTL_PATH_SIZE + 32];
    struct text text = {NULL, 0};
    json_t *answer = NULL;
    long status = 0;
    CURLcode code;
    int result;

    if (curl == NULL || headers == NULL)
        abort();
    snprintf(url, sizeof(url), "http://durpinad%s", path);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, socket);
    curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, TIMEOUT_S);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, receive);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &text);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    if (strcmp(method, "HEAD") == 0)
        curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
    else if (strcmp(method, "GET") != 0)
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body != NULL ? body : "");
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);

    code = curl_easy_perform(curl);
    if (code != CURLE_OK) {
        result = report_unreachable(curl, code, socket);
    } else {
        curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
        if (text.len > 0)
            answer = json_loadb(text.data, text.len, JSON_DECODE_ANY, NULL);
        if (status < 200 || status >= 300)
            result = report_refused(status, answer);
        else
            result = answer != NULL ? 0 : report_foreign(method, path);
    }
    if (result == 0)
        *ret_answer = answer;
    else
        json_decref(answer);
    free(text.data);
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    return result;
}
