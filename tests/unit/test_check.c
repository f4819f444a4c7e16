/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "check.h"

#include <cmocka.h> /* last: its macro fail() hides the function of failure.h */

/* NULL and *failure filled if refused. */
static struct check *parse(const char *name, const char *options, struct failure *failure)
{
    json_t *json =
        options != NULL ? json_loads(options, JSON_ALLOW_NUL | JSON_DECODE_ANY, NULL) : NULL;
    struct check *check = NULL;
    int err;

    assert_true(options == NULL || json != NULL);
    err = check_parse(name, json, &check, failure);
    json_decref(json);
    if (err == 0) {
        assert_non_null(check);
    } else {
        assert_int_equal(err, -EINVAL);
        assert_null(check);
        assert_int_equal(failure->status, 400);
        assert_string_equal(failure->code, "MonitorBadOptions");
    }
    return check;
}

static struct check *parse_ok(const char *name, const char *options)
{
    struct failure failure = {0};
    struct check *check = parse(name, options, &failure);

    if (check == NULL)
        fail_msg("%s %s: %s", name, options, failure.text);
    return check;
}

static void assert_refused(const char *name, const char *options, const char *culprit)
{
    struct failure failure = {0};

    if (parse(name, options, &failure) != NULL)
        fail_msg("%s %s was accepted", name, options);
    if (strstr(failure.text, culprit) == NULL)
        fail_msg("%s %s: \"%s\" does not say %s", name, options, failure.text, culprit);
}

static void no_options_mean_the_documented_defaults(void **state)
{
    static const char *const none[] = {NULL, "{}"};

    (void) state;
    for (size_t i = 0; i < 2; i++) {
        struct check *check = parse_ok("http", none[i]);

        assert_int_equal(check->type, CHECK_HTTP);
        assert_int_equal(check->interval_ms, 5000);
        assert_int_equal(check->timeout_ms, 5000);
        assert_int_equal(check->jitter_ms, 0);
        assert_int_equal(check->port, 0);
        assert_int_equal(check->fall, 1);
        assert_int_equal(check->rise, 1);
        assert_string_equal(check->peers, "all");
        assert_string_equal(check->http.url, "/");
        assert_string_equal(check->http.method, "GET");
        assert_null(check->http.body);
        assert_null(check->http.host);
        assert_int_equal(check->http.n_headers, 0);
        check_free(check);
    }

    struct check *check = parse_ok("tcp", NULL);

    assert_int_equal(check->type, CHECK_TCP);
    assert_null(check->tcp.send);
    assert_null(check->tcp.expect);
    check_free(check);
}

static void times_are_numbers_numeric_strings_or_nginx_times(void **state)
{
    static const struct {
        const char *options;
        uint32_t interval_ms, timeout_ms, jitter_ms;
    } cases[] = {
        {"{\"interval\": 2}", 2000, 2000, 0},
        {"{\"interval\": 0.01}", 10, 10, 0},
        {"{\"interval\": \"0.5\"}", 500, 500, 0},
        {"{\"interval\": \"5m\"}", 300000, 5000, 0},
        {"{\"interval\": \"500ms\"}", 500, 500, 0},
        {"{\"interval\": 86400}", 86400000, 5000, 0},
        {"{\"interval\": \"1d\"}", 86400000, 5000, 0},
        {"{\"timeout\": 750}", 5000, 750, 0},
        {"{\"timeout\": \"750\"}", 5000, 750, 0},
        {"{\"timeout\": \"2s\"}", 5000, 2000, 0},
        {"{\"timeout\": 1}", 5000, 1, 0},
        {"{\"timeout\": \"1h\"}", 5000, 3600000, 0},
        {"{\"jitter\": 0.25}", 5000, 5000, 250},
        {"{\"jitter\": \"1s\", \"interval\": 0.29}", 290, 290, 1000},
    };

    (void) state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct check *check = parse_ok("tcp", cases[i].options);

        assert_int_equal(check->interval_ms, cases[i].interval_ms);
        assert_int_equal(check->timeout_ms, cases[i].timeout_ms);
        assert_int_equal(check->jitter_ms, cases[i].jitter_ms);
        check_free(check);
    }
}

static void numbers_outside_their_bounds_are_refused_by_name(void **state)
{
    static const struct {
        const char *option;
        const char *values[12];
    } cases[] = {
        {"interval",
         {"0", "0.009", "\"9ms\"", "86401", "\"2d\"", "-1", "1e300", "\"\"", "\"x\"", "true",
          "null"}},
        {"timeout", {"0", "0.5", "3600001", "\"61m\"", "-5", "\"1.5.2\"", "[]", "{}"}},
        {"jitter", {"-1", "86401", "\"later\"", "false"}},
        {"port", {"0", "65536", "80.5", "-80", "\"http\"", "\" 80\"", "\"0x50\"", "null"}},
        {"fall", {"0", "1.5", "1001", "-1", "\"two\"", "\"inf\"", "\"nan\""}},
        {"rise", {"0", "1.5", "1001", "\"\"", "\".\""}},
    };
    char options[64];

    (void) state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (size_t j = 0; j < 12 && cases[i].values[j] != NULL; j++) {
            snprintf(options, sizeof(options), "{\"%s\": %s}", cases[i].option, cases[i].values[j]);
            assert_refused("http", options, cases[i].option);
            assert_refused("tcp", options, cases[i].option);
        }
    }
}

static void counts_and_port_are_taken_as_number_or_text(void **state)
{
    struct check *check = parse_ok("http", "{\"port\": 65535, \"fall\": \"3\", \"rise\": 2.0}");

    (void) state;
    assert_int_equal(check->port, 65535);
    assert_int_equal(check->fall, 3);
    assert_int_equal(check->rise, 2);
    check_free(check);
}

static void peers_is_one_of_the_selectors(void **state)
{
    static const char *const words[] = {"all",           "up", "failing", "down", "temporary_down",
                                        "permanent_down"};
    char options[64];

    (void) state;
    for (size_t i = 0; i < 6; i++) {
        struct check *check;

        snprintf(options, sizeof(options), "{\"peers\": \"%s\"}", words[i]);
        check = parse_ok("tcp", options);
        assert_string_equal(check->peers, words[i]);
        check_free(check);
    }
    assert_refused("tcp", "{\"peers\": \"some\"}", "permanent_down");
    assert_refused("tcp", "{\"peers\": 1}", "peers");
    assert_refused("tcp", "{\"peers\": \"\"}", "peers");
}

static void ok_codes_are_codes_and_classes(void **state)
{
    static const struct {
        const char *options;
        const char *ok; /* the least and the greatest of each run */
    } cases[] = {
        {"{}", "101 102 200 399"},
        {"{\"ok_codes\": \"2xx\"}", "200 299"},
        {"{\"ok_codes\": \"200 204\"}", "200 204"},
        {"{\"ok_codes\": \" 200,  301 ,5XX, \"}", "200 301 500 599"},
        {"{\"ok_codes\": 404}", "404"},
        {"{\"ok_codes\": \"100 599\"}", "100 599"},
    };

    (void) state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct check *check = parse_ok("http", cases[i].options);
        char ok[256] = "";
        size_t n = 0;

        for (long code = 0; code < 1000; code++) {
            bool here = check_http_code_ok(&check->http, code);
            bool between = here && check_http_code_ok(&check->http, code - 1) &&
                           check_http_code_ok(&check->http, code + 1);

            if (here && !between)
                n += (size_t) snprintf(ok + n, sizeof(ok) - n, n > 0 ? " %ld" : "%ld", code);
        }
        assert_string_equal(ok, cases[i].ok);
        assert_false(check_http_code_ok(&check->http, -1));
        check_free(check);
    }
}

static void malformed_ok_codes_are_refused(void **state)
{
    static const char *const values[] = {"\"\"",     "\" , \"", "\"20x\"",  "\"600\"",    "\"099\"",
                                         "\"2000\"", "\"xx\"",  "\"2xx;\"", "\"200\\n\"", "20",
                                         "200.5",    "true",    "null",     "[200]",      "-200"};
    char options[64];

    (void) state;
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        snprintf(options, sizeof(options), "{\"ok_codes\": %s}", values[i]);
        assert_refused("http", options, "ok_codes");
    }
}

static void http_request_options_are_kept_as_given(void **state)
{
    struct check *check =
        parse_ok("http",
                 "{\"uri\": \"/a?b=c&d=%20\", \"method\": \"POST\", \"body\": \"x=1\\r\\ny\","
                 " \"host\": \"example.org:8080\", \"header_X_Foo\": \"bar baz\","
                 " \"header_Accept\": \"*/*\"}");

    (void) state;
    assert_string_equal(check->http.url, "/a?b=c&d=%20");
    assert_string_equal(check->http.method, "POST");
    assert_string_equal(check->http.body, "x=1\r\ny");
    assert_string_equal(check->http.host, "example.org:8080");
    assert_int_equal(check->http.n_headers, 2);
    assert_string_equal(check->http.headers[0], "X-Foo: bar baz");
    assert_string_equal(check->http.headers[1], "Accept: */*");
    check_free(check);
}

static void url_and_uri_are_one_option(void **state)
{
    struct check *check = parse_ok("http", "{\"url\": \"/x\"}");

    (void) state;
    assert_string_equal(check->http.url, "/x");
    check_free(check);
    assert_refused("http", "{\"url\": \"/x\", \"uri\": \"/y\"}", "uri");
}

static void header_host_is_the_host_option(void **state)
{
    struct check *check = parse_ok("http", "{\"header_hOST\": \"example.org\"}");

    (void) state;
    assert_string_equal(check->http.host, "example.org");
    assert_int_equal(check->http.n_headers, 0);
    check_free(check);
    assert_refused("http", "{\"host\": \"a\", \"header_Host\": \"b\"}", "header_Host");
}

static void nothing_can_smuggle_in_a_header_or_a_request(void **state)
{
    static const struct {
        const char *options, *culprit;
    } cases[] = {
        {"{\"url\": \"/ HTTP/1.1\\r\\nX: y\"}", "url"},
        {"{\"url\": \"/\\nX\"}", "url"},
        {"{\"url\": \"/a b\"}", "url"},
        {"{\"url\": \"/\\u0000\"}", "url"},
        {"{\"url\": \"/\\u007f\"}", "url"},
        {"{\"url\": \"/\\u00e9\"}", "url"},
        {"{\"uri\": \"http://elsewhere/\"}", "uri"},
        {"{\"uri\": \"\"}", "uri"},
        {"{\"uri\": 5}", "uri"},
        {"{\"method\": \"GET / HTTP/1.1\\r\\n\"}", "method"},
        {"{\"method\": \"get\"}", "method"},
        {"{\"method\": \"CONNECT\"}", "method"},
        {"{\"method\": \"\"}", "method"},
        {"{\"method\": \"AAAAAAAAAAAAAAAAA\"}", "method"},
        {"{\"body\": \"a\\u0000b\"}", "body"},
        {"{\"method\": \"HEAD\", \"body\": \"x\"}", "body"},
        {"{\"host\": \"a\\r\\nX: y\"}", "host"},
        {"{\"host\": \"a b\"}", "host"},
        {"{\"host\": \"\"}", "host"},
        {"{\"header_X\": \"a\\r\\nY: b\"}", "header_X"},
        {"{\"header_X\": \"a\\nY: b\"}", "header_X"},
        {"{\"header_X\": \"a\\u0000\"}", "header_X"},
        {"{\"header_X\": \"\"}", "header_X"},
        {"{\"header_X\": \"  \"}", "header_X"},
        {"{\"header_X\": 5}", "header_X"},
        {"{\"header_\": \"a\"}", "header_"},
        {"{\"header_X: y\\r\\nZ\": \"a\"}", "header_X"},
        {"{\"header_X Y\": \"a\"}", "header_X Y"},
        {"{\"header_Host\": \"a\\nb\"}", "header_Host"},
        {"{\"header_Content_Length\": \"5\"}", "header_Content_Length"},
        {"{\"header_transfer-encoding\": \"chunked\"}", "header_transfer-encoding"},
        {"{\"header_Expect\": \"100-continue\"}", "header_Expect"},
    };

    (void) state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_refused("http", cases[i].options, cases[i].culprit);
}

static void long_values_are_refused(void **state)
{
    static const struct {
        const char *type, *option, *start;
        size_t max;
    } cases[] = {
        {"http", "url", "/", CHECK_URL_MAX},
        {"http", "host", "", CHECK_HOST_MAX},
        {"http", "body", "", CHECK_BODY_MAX},
        {"tcp", "send", "", CHECK_TCP_MAX},
        {"tcp", "expect", "", CHECK_TCP_MAX},
        {"http", "header_X", "", CHECK_HEADER_MAX - sizeof("X: ")},
    };
    static char options[CHECK_BODY_MAX + 64];

    (void) state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (size_t extra = 0; extra < 2; extra++) {
            int head = snprintf(options, sizeof(options), "{\"%s\": \"%s", cases[i].option,
                                cases[i].start);
            size_t n = cases[i].max - strlen(cases[i].start) + extra;

            memset(options + head, 'a', n);
            strcpy(options + head + n, "\"}");
            if (extra == 0)
                check_free(parse_ok(cases[i].type, options));
            else
                assert_refused(cases[i].type, options, cases[i].option);
        }
    }
}

static void there_are_at_most_32_headers(void **state)
{
    char options[1024];
    size_t n = 0;

    (void) state;
    for (int i = 0; i < CHECK_HEADERS_MAX; i++)
        n += (size_t) snprintf(options + n, sizeof(options) - n, "%c\"header_X%d\": \"a\"",
                               i == 0 ? '{' : ',', i);
    snprintf(options + n, sizeof(options) - n, "}");
    check_free(parse_ok("http", options));
    snprintf(options + n, sizeof(options) - n, ",\"header_Last\": \"a\"}");
    assert_refused("http", options, "header_Last");
}

static void tcp_bytes_are_the_users_own(void **state)
{
    struct check *check = parse_ok("tcp", "{\"send\": \"PING\\r\\n\", \"expect\": \"+PONG\"}");

    (void) state;
    assert_string_equal(check->tcp.send, "PING\r\n");
    assert_string_equal(check->tcp.expect, "+PONG");
    check_free(check);
    assert_refused("tcp", "{\"send\": \"\"}", "send");
    assert_refused("tcp", "{\"send\": \"a\\u0000b\"}", "send");
    assert_refused("tcp", "{\"expect\": 1}", "expect");
}

static void unknown_options_are_refused_with_the_valid_ones(void **state)
{
    (void) state;
    assert_refused("http", "{\"intervall\": 5}", "\"intervall\"");
    assert_refused("http", "{\"intervall\": 5}", "interval timeout jitter port fall rise peers");
    assert_refused("http", "{\"intervall\": 5}", "url uri ok_codes method body host header_NAME");
    assert_refused("tcp", "{\"url\": \"/\"}", "send expect");
    assert_refused("tcp", "{\"header_X\": \"y\"}", "\"header_X\"");
    assert_refused("http", "[]", "object");
    assert_refused("http", "\"x\"", "object");
}

static void options_of_later_versions_are_refused_by_name(void **state)
{
    static const char *const later[] = {"match_body", "tls", "sni", "tls_verify"};
    char options[64];

    (void) state;
    for (size_t i = 0; i < 4; i++) {
        snprintf(options, sizeof(options), "{\"%s\": \"x\"}", later[i]);
        assert_refused("http", options, later[i]);
        assert_refused("http", options, "not available in this version");
    }
}

static void monitors_of_later_versions_and_unknown_ones_are_refused_by_name(void **state)
{
    (void) state;
    assert_refused("grpc", NULL, "\"grpc\" is not available in this version");
    assert_refused("haproxy-agent-check", NULL, "not available in this version");
    assert_refused("http-haproxy-agent-check", NULL, "not available in this version");
    assert_refused("ping", NULL, "unknown monitor \"ping\"; there are http and tcp");
    assert_refused("", NULL, "http and tcp");
}

static void refused_values_are_shown_escaped_and_cut(void **state)
{
    struct failure failure = {0};
    char options[512];

    (void) state;
    snprintf(options, sizeof(options), "{\"port\": \"\\n%0300d\"}", 7);
    assert_null(parse("http", options, &failure));
    assert_null(strchr(failure.text, '\n'));
    assert_non_null(strstr(failure.text, "\\n000"));
    assert_true(strlen(failure.text) < 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_options_mean_the_documented_defaults),
        cmocka_unit_test(times_are_numbers_numeric_strings_or_nginx_times),
        cmocka_unit_test(numbers_outside_their_bounds_are_refused_by_name),
        cmocka_unit_test(counts_and_port_are_taken_as_number_or_text),
        cmocka_unit_test(peers_is_one_of_the_selectors),
        cmocka_unit_test(ok_codes_are_codes_and_classes),
        cmocka_unit_test(malformed_ok_codes_are_refused),
        cmocka_unit_test(http_request_options_are_kept_as_given),
        cmocka_unit_test(url_and_uri_are_one_option),
        cmocka_unit_test(header_host_is_the_host_option),
        cmocka_unit_test(nothing_can_smuggle_in_a_header_or_a_request),
        cmocka_unit_test(long_values_are_refused),
        cmocka_unit_test(there_are_at_most_32_headers),
        cmocka_unit_test(tcp_bytes_are_the_users_own),
        cmocka_unit_test(unknown_options_are_refused_with_the_valid_ones),
        cmocka_unit_test(options_of_later_versions_are_refused_by_name),
        cmocka_unit_test(monitors_of_later_versions_and_unknown_ones_are_refused_by_name),
        cmocka_unit_test(refused_values_are_shown_escaped_and_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
