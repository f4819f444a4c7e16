/* SPDX-License-Identifier: MIT */
/* The options of the checks that make an HTTP request. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "body_match.h"
#include "check.h"
#include "check_option.h"
#include "grpc_health.h"

static int url_parse(const struct check_option *option, const char *name, const json_t *value,
                     struct check *check)
{
    if (!json_is_string(value) || json_string_value(value)[0] != '/')
        return -EINVAL;
    return check_word_parse(option, name, value, check);
}

/* CONNECT has no path; it would turn the connection into a tunnel. */
static int method_parse(const struct check_option *option, const char *name, const json_t *value,
                        struct check *check)
{
    const char *text = json_string_value(value);

    if (text == NULL || text[strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-")] != '\0' ||
        strcmp(text, "CONNECT") == 0)
        return -EINVAL;
    return check_bytes_parse(option, name, value, check);
}

/* RFC 9110, 5.6.2 */
static bool is_token(const char *text)
{
    return *text != '\0' && text[strspn(text, "!#$%&'*+-.^_`|~0123456789"
                                              "abcdefghijklmnopqrstuvwxyz"
                                              "ABCDEFGHIJKLMNOPQRSTUVWXYZ")] == '\0';
}

static bool is_header_value(const char *text)
{
    for (const char *p = text; *p != '\0'; p++) {
        if (((unsigned char) *p < ' ' && *p != '\t') || *p == 0x7f)
            return false;
    }
    return text[strspn(text, " \t")] != '\0';
}

static int header_parse(const struct check_option *option, const char *name, const json_t *value,
                        struct check *check)
{
    /* These frame the message: not the user's. */
    static const char *const framing[] = {"Content-Length", "Transfer-Encoding", "Expect", "TE",
                                          "Upgrade"};
    const char *text = json_string_value(value);
    struct check_http *http = &check->http;
    char line[CHECK_HEADER_MAX], **headers;
    int n;

    if (text == NULL || strlen(text) != json_string_length(value) || !is_header_value(text))
        return -EINVAL;

    n = snprintf(line, sizeof(line), "%s", name + strlen(CHECK_HEADER_PREFIX));
    if (n >= (int) sizeof(line) || !is_token(line))
        return -EINVAL;
    for (char *p = line; *p != '\0'; p++) {
        if (*p == '_')
            *p = '-';
    }
    for (size_t i = 0; i < sizeof(framing) / sizeof(framing[0]); i++) {
        if (strcasecmp(framing[i], line) == 0)
            return -EINVAL;
    }
    if (strcasecmp(line, "Host") == 0) {
        const struct check_option host = {.field = offsetof(struct check, http.host),
                                          .min = 1,
                                          .max = CHECK_HOST_MAX};

        return check_word_parse(&host, name, value, check);
    }

    n += snprintf(line + n, sizeof(line) - (size_t) n, ": %s", text);
    if (n >= (int) sizeof(line) || http->n_headers == option->max)
        return -EINVAL;
    headers = reallocarray(http->headers, http->n_headers + 1, sizeof(*headers));
    if (headers == NULL)
        return -ENOMEM;
    http->headers = headers;
    headers[http->n_headers] = strdup(line);
    if (headers[http->n_headers] == NULL)
        return -ENOMEM;
    http->n_headers++;
    return 0;
}

static void code_set(struct check_http *http, unsigned first, unsigned n)
{
    for (unsigned bit = first - CHECK_HTTP_CODE_MIN; n > 0; bit++, n--)
        http->ok_codes[bit / 32] |= 1U << (bit % 32);
}

static int codes_parse_text(const char *text, struct check_http *http)
{
    const char *p = text;
    bool any = false;

    for (;;) {
        p += strspn(p, " ,");
        if (*p == '\0')
            return any ? 0 : -EINVAL;
        if (strcspn(p, " ,") != 3 || *p < '1' || *p > '5')
            return -EINVAL;

        unsigned class = (unsigned) (*p - '0') * 100;

        if (strncasecmp(p + 1, "xx", 2) == 0)
            code_set(http, class, 100);
        else if (strspn(p, "0123456789") == 3)
            code_set(http, class + (unsigned) (p[1] - '0') * 10 + (unsigned) (p[2] - '0'), 1);
        else
            return -EINVAL;
        any = true;
        p += 3;
    }
}

static int codes_parse(const struct check_option *option, const char *name, const json_t *value,
                       struct check *check)
{
    char number[32];

    (void) option;
    (void) name;
    if (json_is_string(value))
        return codes_parse_text(json_string_value(value), &check->http);
    snprintf(number, sizeof(number), "%.17g", json_number_value(value));
    return codes_parse_text(number, &check->http);
}

bool check_http_code_ok(const struct check_http *http, long code)
{
    long bit = code - CHECK_HTTP_CODE_MIN;

    return bit >= 0 && code <= CHECK_HTTP_CODE_MAX && (http->ok_codes[bit / 32] >> bit % 32 & 1);
}

/* What can stand between "https://" and the port without being anything else there. */
static bool is_server_name(const char *text, size_t length)
{
    static const char name[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";

    if (length > 2 && text[0] == '[' && text[length - 1] == ']')
        return strspn(text + 1, "0123456789abcdefABCDEF:.") == length - 2;
    return length > 0 && strspn(text, name) >= length;
}

static int sni_parse(const struct check_option *option, const char *name, const json_t *value,
                     struct check *check)
{
    const char *text = json_string_value(value);

    if (text == NULL || *text == '[' || !is_server_name(text, strlen(text)))
        return -EINVAL;
    return check_bytes_parse(option, name, value, check);
}

static int path_parse(const struct check_option *option, const char *name, const json_t *value,
                      struct check *check)
{
    if (!json_is_string(value) || json_string_value(value)[0] != '/')
        return -EINVAL;
    return check_bytes_parse(option, name, value, check);
}

/* In Lua and JSON it is well written without quotes. */
static int version_parse(const struct check_option *option, const char *name, const json_t *value,
                         struct check *check)
{
    char text[32] = "";

    (void) option;
    (void) name;
    if (json_is_number(value))
        snprintf(text, sizeof(text), "%g", json_number_value(value));
    else if (json_is_string(value))
        snprintf(text, sizeof(text), "%s", json_string_value(value));
    if (strcmp(text, "1.1") != 0 && strcmp(text, "2") != 0)
        return -EINVAL;
    check->http.http2 = text[0] == '2';
    return 0;
}

#define FIELD(name) CHECK_FIELD(http.name)
#define URL_HELP "a path from \"/\" on, without space, control or non-ASCII characters"
#define PATH_HELP "the absolute path of a PEM file"

/* Rows that several tables have. */
/* clang-format off */
#define HOST_ROW \
    {"host", check_word_parse, FIELD(host), 1, CHECK_HOST_MAX, \
     "a host, without space or control characters"}

#define REQUEST_ROWS \
    {"url", url_parse, FIELD(url), 1, CHECK_URL_MAX, URL_HELP}, \
    {"uri", url_parse, FIELD(url), 1, CHECK_URL_MAX, URL_HELP}, \
    {"ok_codes", codes_parse, 0, 0, 0, "codes like \"200 204 3xx\", 100 to 599"}, \
    {"method", method_parse, FIELD(method), 1, CHECK_METHOD_MAX, \
     "an HTTP method in capitals, not CONNECT"}, \
    {"body", check_bytes_parse, FIELD(body), 0, CHECK_BODY_MAX, "a string of at most 64 KiB"}, \
    HOST_ROW, \
    {CHECK_HEADER_PREFIX, header_parse, 0, 0, CHECK_HEADERS_MAX, \
     "one of at most 32 headers, a name and a value without control characters, no framing"}, \
    {"http_version", version_parse, 0, 0, 0, "\"1.1\" or \"2\""}

#define TLS_ROWS \
    {"tls", check_bool_parse, FIELD(tls.on), 0, 0, "true or false"}, \
    {"sni", sni_parse, FIELD(tls.sni), 1, CHECK_HOST_MAX, "the name of a server, no port"}, \
    {"tls_verify", check_bool_parse, FIELD(tls.verify), 0, 0, "true or false"}, \
    {"tls_ca", path_parse, FIELD(tls.ca), 1, CHECK_PATH_MAX, PATH_HELP}, \
    {"tls_cert", path_parse, FIELD(tls.cert), 1, CHECK_PATH_MAX, PATH_HELP}, \
    {"tls_key", path_parse, FIELD(tls.key), 1, CHECK_PATH_MAX, PATH_HELP}
/* clang-format on */

static const struct check_option http_options[] = {
    REQUEST_ROWS,
    {"match_body", check_bytes_parse, FIELD(match_body), 1, BODY_MATCH_PATTERN_MAX,
     "a regular expression of at most 1024 bytes"},
    TLS_ROWS,
    {0},
};

static const struct check_option http_agent_options[] = {REQUEST_ROWS, TLS_ROWS, {0}};

static const struct check_option grpc_options[] = {
    {"grpc_service", check_word_parse, FIELD(grpc_service), 1, GRPC_SERVICE_MAX,
     "the name of a service"},
    {"grpc_status", check_integer_parse, FIELD(grpc_status), 0, CHECK_GRPC_STATUS_MAX,
     "a status of gRPC, 0 to 16"},
    HOST_ROW,
    TLS_ROWS,
    {0},
};

bool check_tls_name(const struct check_http *http, const char *peer, char *buffer, size_t size)
{
    const char *name = http->tls.sni != NULL ? http->tls.sni : http->host;
    size_t length;

    if (name == NULL)
        name = strncmp(peer, "unix:", 5) == 0 ? "localhost" : peer;
    length = check_host_length(name);
    if (length >= size || !is_server_name(name, length))
        return false;
    snprintf(buffer, size, "%.*s", (int) length, name);
    return true;
}

static int refuse(const struct check_kind *kind, struct failure *failure, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int refuse(const struct check_kind *kind, struct failure *failure, const char *format, ...)
{
    char text[sizeof(failure->text)];
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    return fail(failure, EINVAL, 400, "MonitorBadOptions", "monitor %s: %s", kind->name, text);
}

static int tls_complete(const struct check_kind *kind, struct check *check, struct failure *failure)
{
    static const char *const needing[] = {"sni", "tls_verify", "tls_ca", "tls_cert", "tls_key"};
    struct check_tls *tls = &check->http.tls;
    char name[CHECK_HOST_MAX + 1];

    for (size_t i = 0; i < sizeof(needing) / sizeof(needing[0]) && !tls->on; i++) {
        if (json_object_get(check->specific, needing[i]) != NULL)
            return refuse(kind, failure, "option \"%s\" needs \"tls\": true", needing[i]);
    }
    if (json_object_get(check->specific, "tls_verify") == NULL)
        tls->verify = true;
    if (tls->key != NULL && tls->cert == NULL)
        return refuse(kind, failure, "option \"tls_key\" needs \"tls_cert\"");
    if (tls->on && check->http.host != NULL &&
        !check_tls_name(&check->http, "", name, sizeof(name)))
        return refuse(kind, failure, "option \"host\" is no name of a server; give \"sni\" too");
    return 0;
}

static int match_complete(const struct check_kind *kind, struct check_http *http,
                          struct failure *failure)
{
    char error[192];
    int err;

    if (http->match_body == NULL)
        return 0;
    err = body_match_compile(http->match_body, &http->match, error, sizeof(error));
    return err == -EINVAL ? refuse(kind, failure, "option \"match_body\": %s", error) : err;
}

static int string_default(char **field, const char *value)
{
    if (*field == NULL)
        *field = strdup(value);
    return *field == NULL ? -ENOMEM : 0;
}

static int request_complete(const struct check_kind *kind, struct check *check, const char *url,
                            const char *method, struct failure *failure)
{
    struct check_http *http = &check->http;
    int err;

    if (string_default(&http->url, url) < 0 || string_default(&http->method, method) < 0)
        return fail_memory(failure);
    if (strcmp(http->method, "HEAD") == 0 && (http->body != NULL || http->match_body != NULL))
        return refuse(kind, failure, "option \"%s\" does not go with method HEAD",
                      http->body != NULL ? "body" : "match_body");
    err = tls_complete(kind, check, failure);
    if (err == 0)
        err = match_complete(kind, http, failure);
    return err == -ENOMEM ? fail_memory(failure) : err;
}

static void codes_default(struct check *check, const char *codes)
{
    if (json_object_get(check->specific, "ok_codes") == NULL)
        codes_parse_text(codes, &check->http);
}

static int http_complete(struct check *check, struct failure *failure)
{
    codes_default(check, "101 102 2xx 3xx");
    return request_complete(&check_http_kind, check, "/", "GET", failure);
}

static int http_agent_complete(struct check *check, struct failure *failure)
{
    codes_default(check, "200");
    return request_complete(&check_http_agent_kind, check, "/", "GET", failure);
}

static int grpc_complete(struct check *check, struct failure *failure)
{
    codes_default(check, "200");
    check->http.http2 = true;
    return request_complete(&check_grpc_kind, check, "/grpc.health.v1.Health/Check", "POST",
                            failure);
}

static void http_clear(struct check *check)
{
    struct check_http *http = &check->http;
    char *const strings[] = {http->url,        http->method,      http->body,     http->host,
                             http->tls.sni,    http->tls.ca,      http->tls.cert, http->tls.key,
                             http->match_body, http->grpc_service};

    for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++)
        free(strings[i]);
    for (size_t i = 0; i < http->n_headers; i++)
        free(http->headers[i]);
    free(http->headers);
    body_match_free(http->match);
}

static bool http_sends_host(const struct check *check)
{
    return check->http.host == NULL;
}

const struct check_kind check_http_kind = {
    .name = "http",
    .options = http_options,
    .complete = http_complete,
    .clear = http_clear,
    .sends_host = http_sends_host,
};

const struct check_kind check_http_agent_kind = {
    .name = "http-haproxy-agent-check",
    .options = http_agent_options,
    .interval_ms = CHECK_AGENT_INTERVAL_DEFAULT_MS,
    .complete = http_agent_complete,
    .clear = http_clear,
    .sends_host = http_sends_host,
};

const struct check_kind check_grpc_kind = {
    .name = "grpc",
    .options = grpc_options,
    .complete = grpc_complete,
    .clear = http_clear,
    .sends_host = http_sends_host,
};
