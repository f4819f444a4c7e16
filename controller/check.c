/* SPDX-License-Identifier: MIT */
#include "check.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server_line.h"

#define HEADER_PREFIX "header_"
#define OK_CODES_DEFAULT "101 102 2xx 3xx"
#define SHOWN_VALUE_SIZE 48 /* of a refused value in the failure's text */

struct option {
    const char *name; /* HEADER_PREFIX: any name that begins so */
    /* 0, -EINVAL (the value is not what help says), -EEXIST (given before), -ENOMEM. */
    int (*parse)(const struct option *option, const char *name, const json_t *value,
                 struct check *check);
    size_t field; /* its offset in struct check */
    uint32_t min, max;
    const char *help; /* "must be ..." */
};

static void *field_of(const struct option *option, struct check *check)
{
    return (char *) check + option->field;
}

/* A JSON number, or a string that is nothing but one. */
static int number_parse(const json_t *value, double *ret)
{
    const char *text = json_string_value(value);
    char *end;

    if (json_is_number(value)) {
        *ret = json_number_value(value);
        return 0;
    }
    if (text == NULL || *text == '\0' || text[strspn(text, "0123456789.")] != '\0')
        return -EINVAL;

    double number = strtod(text, &end);

    if (*end != '\0')
        return -EINVAL;
    *ret = number;
    return 0;
}

/* Whole numbers only. */
static int bounded_store(const struct option *option, double number, struct check *check)
{
    if (!(number >= option->min && number <= option->max) || (uint32_t) number != number)
        return -EINVAL;
    *(uint32_t *) field_of(option, check) = (uint32_t) number;
    return 0;
}

static int integer_parse(const struct option *option, const char *name, const json_t *value,
                         struct check *check)
{
    double number;

    (void) name;
    if (number_parse(value, &number) < 0)
        return -EINVAL;
    return bounded_store(option, number, check);
}

/* A bare number counts units of unit_ms, cut to whole ms; else nginx's time syntax. */
static int time_option_parse(const struct option *option, const json_t *value, double unit_ms,
                             struct check *check)
{
    double number;
    uint32_t ms;

    if (number_parse(value, &number) == 0) {
        number *= unit_ms;
        if (!(number >= 0 && number <= option->max))
            return -EINVAL;
        /* Half of a millionth makes 0.01 s the 10 ms it says, which binary fractions are not. */
        ms = (uint32_t) (number + 5e-7);
    } else if (!json_is_string(value) || time_parse_ms(json_string_value(value), &ms) < 0) {
        return -EINVAL;
    }
    return bounded_store(option, ms, check);
}

static int seconds_parse(const struct option *option, const char *name, const json_t *value,
                         struct check *check)
{
    (void) name;
    return time_option_parse(option, value, 1000, check);
}

static int milliseconds_parse(const struct option *option, const char *name, const json_t *value,
                              struct check *check)
{
    (void) name;
    return time_option_parse(option, value, 1, check);
}

static int selector_parse(const struct option *option, const char *name, const json_t *value,
                          struct check *check)
{
    static const char *const selectors[] = {
        "all", "up", "failing", "down", "temporary_down", "permanent_down"};
    const char *text = json_string_value(value);

    (void) name;
    for (size_t i = 0; text != NULL && i < sizeof(selectors) / sizeof(selectors[0]); i++) {
        if (strcmp(selectors[i], text) == 0) {
            strcpy(field_of(option, check), text);
            return 0;
        }
    }
    return -EINVAL;
}

/* Bytes of any kind; JSON strings have no NUL inside (jansson refuses them). */
static int bytes_parse(const struct option *option, const char *name, const json_t *value,
                       struct check *check)
{
    char **field = field_of(option, check);
    size_t length = json_string_length(value);

    (void) name;
    if (!json_is_string(value) || length < option->min || length > option->max ||
        strlen(json_string_value(value)) != length)
        return -EINVAL;
    if (*field != NULL)
        return -EEXIST;
    *field = strdup(json_string_value(value));
    return *field == NULL ? -ENOMEM : 0;
}

/* A word that goes into the request as it is: visible ASCII only. */
static int word_parse(const struct option *option, const char *name, const json_t *value,
                      struct check *check)
{
    for (const char *p = json_string_value(value); p != NULL && *p != '\0'; p++) {
        if (*p <= ' ' || *p >= 0x7f)
            return -EINVAL;
    }
    return bytes_parse(option, name, value, check);
}

static int url_parse(const struct option *option, const char *name, const json_t *value,
                     struct check *check)
{
    if (!json_is_string(value) || json_string_value(value)[0] != '/')
        return -EINVAL;
    return word_parse(option, name, value, check);
}

/* CONNECT has no path; it would turn the connection into a tunnel. */
static int method_parse(const struct option *option, const char *name, const json_t *value,
                        struct check *check)
{
    const char *text = json_string_value(value);

    if (text == NULL || text[strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-")] != '\0' ||
        strcmp(text, "CONNECT") == 0)
        return -EINVAL;
    return bytes_parse(option, name, value, check);
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

static int header_parse(const struct option *option, const char *name, const json_t *value,
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

    n = snprintf(line, sizeof(line), "%s", name + strlen(HEADER_PREFIX));
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
        const struct option host = {.field = offsetof(struct check, http.host),
                                    .min = 1,
                                    .max = CHECK_HOST_MAX};

        return word_parse(&host, name, value, check);
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

static int codes_parse(const struct option *option, const char *name, const json_t *value,
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

#define FIELD(name) offsetof(struct check, name)

static const struct option common_options[] = {
    {"interval", seconds_parse, FIELD(interval_ms), CHECK_INTERVAL_MIN_MS, CHECK_INTERVAL_MAX_MS,
     "seconds (5, 0.5) or a time (\"5m\", \"500ms\") of 10 ms to 1 day"},
    {"timeout", milliseconds_parse, FIELD(timeout_ms), CHECK_TIMEOUT_MIN_MS, CHECK_TIMEOUT_MAX_MS,
     "milliseconds (500) or a time (\"2s\", \"500ms\") of 1 ms to 1 hour"},
    {"jitter", seconds_parse, FIELD(jitter_ms), 0, CHECK_INTERVAL_MAX_MS,
     "seconds (1, 0.5) or a time (\"500ms\") of at most 1 day"},
    {"port", integer_parse, FIELD(port), 1, 65535, "a port, 1 to 65535"},
    {"fall", integer_parse, FIELD(fall), 1, CHECK_COUNT_MAX, "a number, 1 to 1000"},
    {"rise", integer_parse, FIELD(rise), 1, CHECK_COUNT_MAX, "a number, 1 to 1000"},
    {"peers", selector_parse, FIELD(peers), 0, 0,
     "all, up, failing, down, temporary_down or permanent_down"},
    {0},
};

/* An option without a parser is known and not there yet. */
static const struct option http_options[] = {
    {"url", url_parse, FIELD(http.url), 1, CHECK_URL_MAX,
     "a path from \"/\" on, without space, control or non-ASCII characters"},
    {"uri", url_parse, FIELD(http.url), 1, CHECK_URL_MAX,
     "a path from \"/\" on, without space, control or non-ASCII characters"},
    {"ok_codes", codes_parse, 0, 0, 0, "codes like \"200 204 3xx\", 100 to 599"},
    {"method", method_parse, FIELD(http.method), 1, CHECK_METHOD_MAX,
     "an HTTP method in capitals, not CONNECT"},
    {"body", bytes_parse, FIELD(http.body), 0, CHECK_BODY_MAX, "a string of at most 64 KiB"},
    {"host", word_parse, FIELD(http.host), 1, CHECK_HOST_MAX,
     "a host, without space or control characters"},
    {HEADER_PREFIX, header_parse, 0, 0, CHECK_HEADERS_MAX,
     "one of at most 32 headers, a name and a value without control characters, no framing"},
    {"match_body", NULL, 0, 0, 0, NULL},
    {"tls", NULL, 0, 0, 0, NULL},
    {"sni", NULL, 0, 0, 0, NULL},
    {"tls_verify", NULL, 0, 0, 0, NULL},
    {0},
};

static const struct option tcp_options[] = {
    {"send", bytes_parse, FIELD(tcp.send), 1, CHECK_TCP_MAX, "a string of 1 to 1024 bytes"},
    {"expect", bytes_parse, FIELD(tcp.expect), 1, CHECK_TCP_MAX, "a string of 1 to 1024 bytes"},
    {0},
};

static const struct {
    const char *name;
    const struct option *options;
} types[CHECK_TYPES] = {
    [CHECK_HTTP] = {"http", http_options},
    [CHECK_TCP] = {"tcp", tcp_options},
};

/* An enum check_type or -EINVAL. */
static int type_parse(const char *name, struct failure *failure)
{
    static const char *const later[] = {"grpc", "haproxy-agent-check", "http-haproxy-agent-check"};

    for (size_t i = 0; i < CHECK_TYPES; i++) {
        if (strcmp(types[i].name, name) == 0)
            return (int) i;
    }
    for (size_t i = 0; i < sizeof(later) / sizeof(later[0]); i++) {
        if (strcmp(later[i], name) == 0)
            return fail(failure, EINVAL, 400, "MonitorBadOptions",
                        "monitor \"%s\" is not available in this version; there are http and tcp",
                        name);
    }
    return fail(failure, EINVAL, 400, "MonitorBadOptions",
                "unknown monitor \"%.64s\"; there are http and tcp", name);
}

static const struct option *option_find(const struct option *options, const char *name)
{
    for (; options->name != NULL; options++) {
        if (strcmp(options->name, HEADER_PREFIX) == 0
                ? strncmp(options->name, name, strlen(HEADER_PREFIX)) == 0
                : strcmp(options->name, name) == 0)
            return options;
    }
    return NULL;
}

static size_t names_append(const struct option *options, char *buffer, size_t size, size_t n)
{
    for (; options->name != NULL; options++) {
        if (options->parse != NULL && n < size)
            n += (size_t) snprintf(buffer + n, size - n, " %s%s", options->name,
                                   strcmp(options->name, HEADER_PREFIX) == 0 ? "NAME" : "");
    }
    return n;
}

static int option_unknown(enum check_type type, const char *name, struct failure *failure)
{
    char valid[192];
    size_t n = names_append(types[type].options, valid, sizeof(valid), 0);

    names_append(common_options, valid, sizeof(valid), n);
    return fail(failure, EINVAL, 400, "MonitorBadOptions",
                "monitor %s: unknown option \"%.40s\"; there are%s", types[type].name, name, valid);
}

static int option_parse(const char *name, const json_t *value, struct check *check,
                        struct failure *failure)
{
    const char *type = types[check->type].name;
    const struct option *option = option_find(types[check->type].options, name);
    int err;

    if (option == NULL)
        option = option_find(common_options, name);
    if (option == NULL)
        return option_unknown(check->type, name, failure);
    if (option->parse == NULL)
        return fail(failure, EINVAL, 400, "MonitorBadOptions",
                    "monitor %s: option \"%s\" is not available in this version", type, name);

    err = option->parse(option, name, value, check);
    if (err == -ENOMEM)
        return fail(failure, ENOMEM, 500, "UpstreamOutOfMemory", "out of memory");
    if (err == -EEXIST)
        return fail(failure, EINVAL, 400, "MonitorBadOptions",
                    "monitor %s: option \"%.40s\" is given under two names", type, name);
    if (err < 0) {
        char *shown = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII);

        fail(failure, EINVAL, 400, "MonitorBadOptions",
             "monitor %s: option \"%.40s\" must be %s; not %.*s", type, name, option->help,
             SHOWN_VALUE_SIZE, shown != NULL ? shown : "this");
        free(shown);
        return err;
    }
    return 0;
}

static int string_default(char **field, const char *value)
{
    if (*field == NULL)
        *field = strdup(value);
    return *field == NULL ? -ENOMEM : 0;
}

static int http_complete(struct check_http *http, struct failure *failure)
{
    static const uint32_t none[sizeof(http->ok_codes) / sizeof(http->ok_codes[0])];

    if (memcmp(http->ok_codes, none, sizeof(none)) == 0)
        codes_parse_text(OK_CODES_DEFAULT, http);
    if (string_default(&http->url, "/") < 0 || string_default(&http->method, "GET") < 0)
        return fail(failure, ENOMEM, 500, "UpstreamOutOfMemory", "out of memory");
    if (http->body != NULL && strcmp(http->method, "HEAD") == 0)
        return fail(failure, EINVAL, 400, "MonitorBadOptions",
                    "monitor http: option \"body\" does not go with method HEAD");
    return 0;
}

/* No option's least valid value is 0 but jitter's, whose default it is: 0 means not given. */
static int complete(struct check *check, struct failure *failure)
{
    if (check->interval_ms == 0)
        check->interval_ms = CHECK_INTERVAL_DEFAULT_MS;
    if (check->timeout_ms == 0)
        check->timeout_ms = check->interval_ms < CHECK_TIMEOUT_DEFAULT_MS
                                ? check->interval_ms
                                : CHECK_TIMEOUT_DEFAULT_MS;
    if (check->fall == 0)
        check->fall = 1;
    if (check->rise == 0)
        check->rise = 1;
    if (check->peers[0] == '\0')
        strcpy(check->peers, "all");
    return check->type == CHECK_HTTP ? http_complete(&check->http, failure) : 0;
}

int check_parse(const char *name, const json_t *options, struct check **ret,
                struct failure *failure)
{
    struct check *check;
    const char *key;
    json_t *value;
    int type = type_parse(name, failure), err = 0;

    if (type < 0)
        return type;
    if (options != NULL && !json_is_object(options))
        return fail(failure, EINVAL, 400, "MonitorBadOptions",
                    "monitor %s: options must be an object", name);

    check = calloc(1, sizeof(*check));
    if (check == NULL)
        return fail(failure, ENOMEM, 500, "UpstreamOutOfMemory", "out of memory");
    check->type = (enum check_type) type;

    /* The macro wants it writable only to hand out the iterator. */
    json_object_foreach((json_t *) options, key, value)
    {
        err = option_parse(key, value, check, failure);
        if (err < 0)
            break;
    }
    if (err == 0)
        err = complete(check, failure);
    if (err < 0) {
        check_free(check);
        return err;
    }
    *ret = check;
    return 0;
}

static void http_clear(struct check_http *http)
{
    for (size_t i = 0; i < http->n_headers; i++)
        free(http->headers[i]);
    free(http->headers);
    free(http->url);
    free(http->method);
    free(http->body);
    free(http->host);
}

void check_free(struct check *check)
{
    if (check == NULL)
        return;
    if (check->type == CHECK_HTTP) {
        http_clear(&check->http);
    } else {
        free(check->tcp.send);
        free(check->tcp.expect);
    }
    free(check);
}
