/* SPDX-License-Identifier: MIT */
#include "body_match.h"
#include "grpc_health.h"

#include "check_scene.h"

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

static void tls_is_off_and_if_on_verifies(void **state)
{
    struct check *check = parse_ok("http", "{}");

    (void) state;
    assert_false(check->http.tls.on);
    assert_false(check->http.http2);
    check_free(check);

    check = parse_ok("http", "{\"tls\": true}");
    assert_true(check->http.tls.on);
    assert_true(check->http.tls.verify);
    assert_null(check->http.tls.sni);
    assert_null(check->http.tls.ca);
    check_free(check);

    check = parse_ok("grpc", "{\"tls\": true, \"tls_verify\": false, \"sni\": \"a.example\","
                             " \"tls_ca\": \"/ca\", \"tls_cert\": \"/cert\", \"tls_key\": "
                             "\"/key\"}");
    assert_false(check->http.tls.verify);
    assert_string_equal(check->http.tls.sni, "a.example");
    assert_string_equal(check->http.tls.ca, "/ca");
    assert_string_equal(check->http.tls.cert, "/cert");
    assert_string_equal(check->http.tls.key, "/key");
    check_free(check);
}

static void options_of_tls_need_tls(void **state)
{
    static const char *const values[][2] = {{"sni", "\"a\""},       {"tls_verify", "false"},
                                            {"tls_verify", "true"}, {"tls_ca", "\"/a\""},
                                            {"tls_cert", "\"/a\""}, {"tls_key", "\"/a\""}};
    static const char *const types[] = {"http", "grpc", "http-haproxy-agent-check"};
    char options[64];

    (void) state;
    for (size_t i = 0; i < 6; i++) {
        for (size_t j = 0; j < 3; j++) {
            snprintf(options, sizeof(options), "{\"%s\": %s}", values[i][0], values[i][1]);
            assert_refused(types[j], options, values[i][0]);
            assert_refused(types[j], options, "needs \"tls\": true");
            snprintf(options, sizeof(options), "{\"tls\": false, \"%s\": %s}", values[i][0],
                     values[i][1]);
            assert_refused(types[j], options, "needs \"tls\": true");
        }
    }
    assert_refused("http", "{\"tls\": true, \"tls_key\": \"/a\"}", "tls_cert");
}

static void malformed_tls_options_are_refused(void **state)
{
    static const struct {
        const char *options, *culprit;
    } cases[] = {
        {"{\"tls\": \"yes\"}", "\"tls\" must be true or false"},
        {"{\"tls\": 1}", "\"tls\" must be true or false"},
        {"{\"tls\": true, \"tls_verify\": \"no\"}", "\"tls_verify\" must be true or false"},
        {"{\"tls\": true, \"sni\": \"\"}", "sni"},
        {"{\"tls\": true, \"sni\": \"a:443\"}", "sni"},
        {"{\"tls\": true, \"sni\": \"a/b\"}", "sni"},
        {"{\"tls\": true, \"sni\": \"a@b\"}", "sni"},
        {"{\"tls\": true, \"sni\": \"a\\r\\nb\"}", "sni"},
        {"{\"tls\": true, \"sni\": \"a\\u0000b\"}", "sni"},
        {"{\"tls\": true, \"sni\": \"[::1]\"}", "sni"},
        {"{\"tls\": true, \"sni\": 5}", "sni"},
        {"{\"tls\": true, \"host\": \"a/b\"}", "give \"sni\" too"},
        {"{\"tls\": true, \"host\": \"user@a\"}", "give \"sni\" too"},
        {"{\"tls\": true, \"host\": \"[x]\"}", "give \"sni\" too"},
        {"{\"tls\": true, \"tls_ca\": \"ca.pem\"}", "absolute path"},
        {"{\"tls\": true, \"tls_ca\": \"\"}", "absolute path"},
        {"{\"tls\": true, \"tls_cert\": \"/a\\u0000b\"}", "tls_cert"},
        {"{\"tls\": true, \"tls_cert\": true}", "tls_cert"},
        {"{\"http_version\": \"3\"}", "http_version"},
        {"{\"http_version\": \"1.0\"}", "http_version"},
        {"{\"http_version\": 2.1}", "http_version"},
        {"{\"http_version\": true}", "http_version"},
    };

    (void) state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_refused("http", cases[i].options, cases[i].culprit);
}

static void certificate_is_for_sni_else_the_host_else_the_peer(void **state)
{
    static const struct {
        const char *options, *peer, *name; /* NULL: none */
    } cases[] = {
        {"{\"tls\": true}", "a.example:8443", "a.example"},
        {"{\"tls\": true}", "10.0.0.1:443", "10.0.0.1"},
        {"{\"tls\": true}", "[::1]:443", "[::1]"},
        {"{\"tls\": true}", "unix:/a/b", "localhost"},
        {"{\"tls\": true, \"host\": \"b.example:81\"}", "a.example:443", "b.example"},
        {"{\"tls\": true, \"host\": \"[::2]:81\"}", "a.example:443", "[::2]"},
        {"{\"tls\": true, \"host\": \"b.example\", \"sni\": \"c_1.example\"}", "a:1",
         "c_1.example"},
        {"{\"tls\": true, \"host\": \"b/x\", \"sni\": \"c\"}", "a:1", "c"},
        {"{\"tls\": true}", "a/b:1", NULL},
        {"{\"tls\": true}", ":1", NULL},
    };

    (void) state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct check *check = parse_ok("http", cases[i].options);
        char name[CHECK_HOST_MAX + 1];
        bool found = check_tls_name(&check->http, cases[i].peer, name, sizeof(name));

        assert_int_equal(found, cases[i].name != NULL);
        if (found)
            assert_string_equal(name, cases[i].name);
        check_free(check);
    }
}

static void http_version_is_1_1_or_2(void **state)
{
    static const struct {
        const char *options;
        bool http2;
    } cases[] = {
        {"{\"http_version\": \"1.1\"}", false}, {"{\"http_version\": 1.1}", false},
        {"{\"http_version\": \"2\"}", true},    {"{\"http_version\": 2}", true},
        {"{\"http_version\": 2.0}", true},
    };

    (void) state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct check *check = parse_ok("http", cases[i].options);

        assert_int_equal(check->http.http2, cases[i].http2);
        check_free(check);
    }
}

static void match_body_is_compiled_or_refused_with_the_place(void **state)
{
    struct check *check = parse_ok("http", "{\"match_body\": \"^ok\"}");
    char options[BODY_MATCH_PATTERN_MAX + 64];

    (void) state;
    assert_non_null(check->http.match);
    check_free(check);
    assert_refused("http", "{\"match_body\": \"(ok\"}",
                   "monitor http: option \"match_body\": missing closing parenthesis at offset 3");
    assert_refused("http", "{\"match_body\": \"\"}", "match_body");
    assert_refused("http", "{\"match_body\": \"a\\u0000b\"}", "match_body");
    assert_refused("http", "{\"match_body\": \"ok\", \"method\": \"HEAD\"}", "match_body");
    assert_refused("http-haproxy-agent-check", "{\"match_body\": \"ok\"}", "unknown option");

    snprintf(options, sizeof(options), "{\"match_body\": \"%0*d\"}", BODY_MATCH_PATTERN_MAX, 1);
    check_free(parse_ok("http", options));
    snprintf(options, sizeof(options), "{\"match_body\": \"%0*d\"}", BODY_MATCH_PATTERN_MAX + 1, 1);
    assert_refused("http", options, "at most 1024 bytes");
}

static void grpc_asks_the_health_service_over_http_2(void **state)
{
    struct check *check = parse_ok("grpc", NULL);
    char options[GRPC_SERVICE_MAX + 64];

    (void) state;
    assert_int_equal(check->type, CHECK_GRPC);
    assert_true(check->http.http2);
    assert_string_equal(check->http.method, "POST");
    assert_string_equal(check->http.url, "/grpc.health.v1.Health/Check");
    assert_null(check->http.grpc_service);
    assert_int_equal(check->http.grpc_status, 0);
    check_free(check);

    check = parse_ok("grpc", "{\"grpc_service\": \"my.Service\", \"grpc_status\": \"12\","
                             " \"host\": \"a.example\"}");
    assert_string_equal(check->http.grpc_service, "my.Service");
    assert_int_equal(check->http.grpc_status, 12);
    assert_string_equal(check->http.host, "a.example");
    check_free(check);

    check_free(parse_ok("grpc", "{\"grpc_status\": 16}"));
    assert_refused("grpc", "{\"grpc_status\": 17}", "grpc_status");
    assert_refused("grpc", "{\"grpc_status\": -1}", "grpc_status");
    assert_refused("grpc", "{\"grpc_status\": \"ok\"}", "grpc_status");
    assert_refused("grpc", "{\"grpc_service\": \"\"}", "grpc_service");
    assert_refused("grpc", "{\"grpc_service\": \"a\\r\\nb\"}", "grpc_service");
    assert_refused("grpc", "{\"url\": \"/\"}", "grpc_service grpc_status host tls sni tls_verify");
    snprintf(options, sizeof(options), "{\"grpc_service\": \"%0*d\"}", GRPC_SERVICE_MAX, 1);
    check_free(parse_ok("grpc", options));
    snprintf(options, sizeof(options), "{\"grpc_service\": \"%0*d\"}", GRPC_SERVICE_MAX + 1, 1);
    assert_refused("grpc", options, "grpc_service");
}

static void http_agent_passes_by_200_alone(void **state)
{
    struct check *check = parse_ok("http-haproxy-agent-check", "{\"url\": \"/agent\"}");

    (void) state;
    assert_int_equal(check->interval_ms, 2000);
    assert_string_equal(check->http.url, "/agent");
    assert_true(check_http_code_ok(&check->http, 200));
    assert_false(check_http_code_ok(&check->http, 201));
    assert_false(check_http_code_ok(&check->http, 302));
    check_free(check);
}

static void agent_with_a_url_is_asked_by_http(void **state)
{
    struct check *check = parse_ok("haproxy-agent-check", "{\"url\": \"/agent\", \"tls\": true}");

    (void) state;
    assert_int_equal(check->type, CHECK_HTTP_AGENT);
    assert_string_equal(check->http.url, "/agent");
    check_free(check);
    assert_refused("haproxy-agent-check", "{\"url\": \"/agent\", \"send\": \"x\"}", "\"send\"");
    assert_refused("haproxy-agent-check", "{\"tls\": true}", "\"tls\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ok_codes_are_codes_and_classes),
        cmocka_unit_test(malformed_ok_codes_are_refused),
        cmocka_unit_test(http_request_options_are_kept_as_given),
        cmocka_unit_test(url_and_uri_are_one_option),
        cmocka_unit_test(header_host_is_the_host_option),
        cmocka_unit_test(nothing_can_smuggle_in_a_header_or_a_request),
        cmocka_unit_test(there_are_at_most_32_headers),
        cmocka_unit_test(tls_is_off_and_if_on_verifies),
        cmocka_unit_test(options_of_tls_need_tls),
        cmocka_unit_test(malformed_tls_options_are_refused),
        cmocka_unit_test(certificate_is_for_sni_else_the_host_else_the_peer),
        cmocka_unit_test(http_version_is_1_1_or_2),
        cmocka_unit_test(match_body_is_compiled_or_refused_with_the_place),
        cmocka_unit_test(grpc_asks_the_health_service_over_http_2),
        cmocka_unit_test(http_agent_passes_by_200_alone),
        cmocka_unit_test(agent_with_a_url_is_asked_by_http),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
