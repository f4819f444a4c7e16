/* SPDX-License-Identifier: MIT */
/* What a check asks for, told to libcurl. */
#include <errno.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grpc_health.h"
#include "pem_file.h"
#include "probe_http.h"

#define READ_SIZE 4096 /* bytes that libcurl reads at once */
#define USER_AGENT "User-Agent: durpinad"

/* Seconds for which the system's certificates are kept: to parse them takes 10 ms and more. */
#define CA_CACHE_S 300

static int list_append(struct curl_slist **list, const char *line)
{
    struct curl_slist *longer = curl_slist_append(*list, line);

    if (longer == NULL)
        return -ENOMEM;
    *list = longer;
    return 0;
}

/* "Host: " and the name as the URL would have it: with the port unless it is the scheme's own. */
static void host_header(const struct probe_target *target, char *buffer, size_t size)
{
    const struct check_http *options = &target->check->http;
    const char *name = target->host;
    unsigned port = addr_port(&target->addr);
    int length = (int) check_host_length(name);

    if (options->host != NULL) {
        snprintf(buffer, size, "Host: %s", options->host);
        return;
    }
    if (target->addr.sa.sa_family == AF_UNIX) {
        snprintf(buffer, size, "Host: localhost");
        return;
    }
    if (port == (options->tls.on ? 443 : 80))
        snprintf(buffer, size, "Host: %.*s", length, name);
    else
        snprintf(buffer, size, "Host: %.*s:%u", length, name, port);
}

/* The options' headers come last but win: curl sends its own ones, and ours, only if not given. */
static int http_headers(const struct check_http *options, struct curl_slist **ret)
{
    /* "Name:" keeps curl from sending its own. HTTP/2 has no header Connection: curl drops it. */
    static const char *const ours[] = {"Connection: close", USER_AGENT, "Content-Type:"};

    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
        size_t n = strcspn(ours[i], ":") + 1;
        bool given = false;

        for (size_t j = 0; j < options->n_headers; j++)
            given |= strncasecmp(ours[i], options->headers[j], n) == 0;
        if (!given && list_append(ret, ours[i]) < 0)
            return -ENOMEM;
    }
    for (size_t j = 0; j < options->n_headers; j++) {
        if (list_append(ret, options->headers[j]) < 0)
            return -ENOMEM;
    }
    return 0;
}

static int grpc_headers(const struct check *check, struct curl_slist **ret)
{
    char timeout[32];
    const char *const lines[] = {"Content-Type: application/grpc", "TE: trailers", timeout,
                                 USER_AGENT, "Accept:"};

    snprintf(timeout, sizeof(timeout), "grpc-timeout: %um", check->timeout_ms);
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        if (list_append(ret, lines[i]) < 0)
            return -ENOMEM;
    }
    return 0;
}

static int headers_make(const struct probe_target *target, struct curl_slist **ret)
{
    char host[CHECK_HOST_MAX + sizeof("Host: :65535")];

    host_header(target, host, sizeof(host));
    if (list_append(ret, host) < 0)
        return -ENOMEM;
    return target->check->type == CHECK_GRPC ? grpc_headers(target->check, ret)
                                             : http_headers(&target->check->http, ret);
}

/*
 * The URL holds the address, so that nothing is looked up; for TLS the name, which libcurl puts
 * into SNI and looks for in the certificate, and the address goes beside it.
 */
static bool set_target(const struct probe_target *target, struct http_request *request)
{
    const struct check_http *options = &target->check->http;
    const bool is_unix = target->addr.sa.sa_family == AF_UNIX;
    const char *scheme = options->tls.on ? "https" : "http";
    char address[DURPINA_NAME_SIZE], connect_to[sizeof(address) + 2], name[CHECK_HOST_MAX + 1];
    char url[sizeof(address) + sizeof(name) + sizeof("https://:65535/")];

    addr_format(&target->addr, address, sizeof(address));
    snprintf(url, sizeof(url), "%s://%s/", scheme, is_unix ? "localhost" : address);
    if (is_unix && curl_easy_setopt(request->easy, CURLOPT_UNIX_SOCKET_PATH,
                                    target->addr.un.sun_path) != CURLE_OK)
        return false;
    if (options->tls.on && check_tls_name(options, target->host, name, sizeof(name))) {
        snprintf(url, sizeof(url), "https://%s:%u/", name,
                 is_unix ? 443U : addr_port(&target->addr));
        snprintf(connect_to, sizeof(connect_to), "::%s", address);
        if (!is_unix && list_append(&request->connect_to, connect_to) < 0)
            return false;
        curl_easy_setopt(request->easy, CURLOPT_CONNECT_TO, request->connect_to);
    }
    return curl_easy_setopt(request->easy, CURLOPT_URL, url) == CURLE_OK;
}

static bool set_body(CURL *easy, const char *body, size_t length)
{
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, (long) length);
    return curl_easy_setopt(easy, CURLOPT_COPYPOSTFIELDS, body) == CURLE_OK;
}

static bool set_request(CURL *easy, const struct check *check)
{
    const struct check_http *options = &check->http;

    if (check->type == CHECK_GRPC) {
        unsigned char frame[GRPC_REQUEST_MAX];
        size_t length = grpc_health_request(options->grpc_service, frame);

        if (!set_body(easy, (const char *) frame, length))
            return false;
    } else if (options->body != NULL) {
        if (!set_body(easy, options->body, strlen(options->body)))
            return false;
    } else if (strcmp(options->method, "HEAD") == 0) {
        curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    }
    /* Over TLS too: the other values let the server choose HTTP/1.1. */
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION,
                     options->http2 ? (long) CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE
                                    : (long) CURL_HTTP_VERSION_1_1);
    /* The path byte for byte, without curl's idea of its normal form. */
    return curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, options->method) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_REQUEST_TARGET, options->url) == CURLE_OK;
}

static CURLcode use_authorities(CURL *easy, void *context, void *user)
{
    (void) easy;
    SSL_CTX_set1_cert_store(context, user);
    return CURLE_OK;
}

/* 0; -EINVAL with request->error. */
static int read_file(struct http_request *request, const char *option, const char *path,
                     char **ret_text, size_t *ret_size)
{
    const char *fault = pem_file_read(path, ret_text, ret_size);

    if (fault == NULL)
        return 0;
    snprintf(request->error, sizeof(request->error), "%s %.160s: %s", option, path, fault);
    return -EINVAL;
}

/* Returns as http_request_make() does. */
static int set_authorities(const char *path, struct trust *trust, struct http_request *request)
{
    char *text;
    size_t size;
    int err = read_file(request, "tls_ca", path, &text, &size);

    if (err < 0)
        return err;
    err = trust_get(trust, text, size, &request->authorities);
    free(text);
    if (err == -EINVAL)
        snprintf(request->error, sizeof(request->error), "tls_ca %.160s: no certificate", path);
    if (err < 0)
        return err;
    curl_easy_setopt(request->easy, CURLOPT_CAINFO, NULL);
    curl_easy_setopt(request->easy, CURLOPT_SSL_CTX_DATA, request->authorities);
    return curl_easy_setopt(request->easy, CURLOPT_SSL_CTX_FUNCTION, use_authorities) == CURLE_OK
               ? 0
               : -ENOMEM;
}

/* The text of a file as that option of libcurl. */
static int set_file(struct http_request *request, const char *name, const char *path,
                    CURLoption option)
{
    struct curl_blob blob = {.flags = CURL_BLOB_COPY};
    char *text;
    int err = read_file(request, name, path, &text, &blob.len);

    if (err < 0)
        return err;
    blob.data = text;
    if (curl_easy_setopt(request->easy, option, &blob) != CURLE_OK)
        err = -ENOMEM;
    free(text);
    return err;
}

static int set_tls(const struct check_tls *tls, struct trust *trust, struct http_request *request)
{
    CURL *easy = request->easy;
    int err = 0;

    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, tls->verify ? 1L : 0L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, tls->verify ? 2L : 0L);
    /* A resumed session shows no certificate, which may have expired since. */
    curl_easy_setopt(easy, CURLOPT_SSL_SESSIONID_CACHE, 0L);
    /* Of the system's authorities only CAINFO is kept between checks. */
    curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
    curl_easy_setopt(easy, CURLOPT_CA_CACHE_TIMEOUT, tls->ca != NULL ? 0L : (long) CA_CACHE_S);
    if (tls->ca != NULL && tls->verify)
        err = set_authorities(tls->ca, trust, request);
    if (err < 0 || tls->cert == NULL)
        return err;
    /* Any passphrase: without one OpenSSL asks on the terminal. */
    if (curl_easy_setopt(easy, CURLOPT_KEYPASSWD, "") != CURLE_OK)
        return -ENOMEM;
    err = set_file(request, "tls_cert", tls->cert, CURLOPT_SSLCERT_BLOB);
    if (err < 0)
        return err;
    return set_file(request, "tls_key", tls->key != NULL ? tls->key : tls->cert,
                    CURLOPT_SSLKEY_BLOB);
}

static bool set_limits(CURL *easy, const struct check *check)
{
    /* Each check that waits for an answer holds one. */
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, (long) READ_SIZE);
    curl_easy_setopt(easy, CURLOPT_HTTP09_ALLOWED, 0L);
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
    curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L);
    /* The target's timer ends the check; curl's own 300 s must not come before. */
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long) check->timeout_ms + 1000);
    /* Addresses need no cache, whose entries would be walked at each check. */
    curl_easy_setopt(easy, CURLOPT_DNS_CACHE_TIMEOUT, 0L);
    return curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_NOPROXY, "*") == CURLE_OK;
}

int http_request_make(const struct probe_target *target, struct trust *trust,
                      struct http_request *ret)
{
    const struct check *check = target->check;

    ret->easy = curl_easy_init();
    if (ret->easy == NULL || headers_make(target, &ret->headers) < 0)
        return -ENOMEM;
    curl_easy_setopt(ret->easy, CURLOPT_HTTPHEADER, ret->headers);
    curl_easy_setopt(ret->easy, CURLOPT_ERRORBUFFER, ret->error);
    /* What fails here is memory. */
    if (!set_target(target, ret) || !set_request(ret->easy, check) || !set_limits(ret->easy, check))
        return -ENOMEM;
    return check->http.tls.on ? set_tls(&check->http.tls, trust, ret) : 0;
}

void http_request_free(struct http_request *request)
{
    curl_easy_cleanup(request->easy);
    curl_slist_free_all(request->headers);
    curl_slist_free_all(request->connect_to);
    X509_STORE_free(request->authorities);
}
