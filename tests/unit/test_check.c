/* SPDX-License-Identifier: MIT */
#include "check_scene.h"

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

static void fast_and_down_intervals_default_to_the_interval(void **state)
{
    static const struct {
        const char *options;
        uint32_t fastinter_ms, downinter_ms;
    } cases[] = {
        {"{}", 5000, 5000},
        {"{\"interval\": 2}", 2000, 2000},
        {"{\"fastinter\": 0.5}", 500, 5000},
        {"{\"fastinter\": 0.01, \"downinter\": \"1d\", \"interval\": 1}", 10, 86400000},
    };

    (void) state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct check *check = parse_ok("tcp", cases[i].options);

        assert_int_equal(check->fastinter_ms, cases[i].fastinter_ms);
        assert_int_equal(check->downinter_ms, cases[i].downinter_ms);
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

static void mandatory_and_persistent_are_true_or_false(void **state)
{
    static const char *const values[] = {"1", "\"yes\"", "null", "[]"};
    struct check *check = parse_ok("tcp", "{\"persistent\": true, \"mandatory\": true}");
    char options[64];

    (void) state;
    assert_true(check->mandatory);
    assert_true(check->persistent);
    check_free(check);
    check = parse_ok("tcp", "{\"mandatory\": \"true\", \"persistent\": \"false\"}");
    assert_true(check->mandatory);
    assert_false(check->persistent);
    check_free(check);
    check = parse_ok("tcp", "{\"mandatory\": false, \"persistent\": false}");
    assert_false(check->mandatory);
    check_free(check);
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        snprintf(options, sizeof(options), "{\"mandatory\": %s}", values[i]);
        assert_refused("tcp", options, "true or false");
    }
    assert_refused("tcp", "{\"persistent\": true}", "\"mandatory\" only");
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
    assert_refused(
        "http", "{\"intervall\": 5}",
        "interval fastinter downinter timeout jitter port fall rise peers mandatory persistent");
    assert_refused("http", "{\"intervall\": 5}", "url uri ok_codes method body host header_NAME");
    assert_refused("tcp", "{\"url\": \"/\"}", "send expect");
    assert_refused("tcp", "{\"header_X\": \"y\"}", "\"header_X\"");
    assert_refused("http", "[]", "object");
    assert_refused("http", "\"x\"", "object");
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

static void checks_are_the_same_if_what_they_do_is(void **state)
{
    static const struct {
        const char *type, *options;
        bool same;
    } cases[] = {
        {"tcp", "{\"expect\": \"x\", \"interval\": 2}", true},
        {"tcp", "{\"expect\": \"x\", \"interval\": \"2s\", \"rise\": \"1\"}", true},
        {"tcp", "{\"expect\": \"x\", \"interval\": 2, \"peers\": \"up\", \"port\": 81}", true},
        {"tcp", "{\"expect\": \"x\", \"interval\": 2, \"mandatory\": true}", true},
        {"tcp", "{\"expect\": \"y\", \"interval\": 2}", false},
        {"tcp", "{\"expect\": \"x\", \"interval\": 2, \"send\": \"x\"}", false},
        {"tcp", "{\"expect\": \"x\", \"interval\": 3}", false},
        {"tcp", "{\"expect\": \"x\", \"interval\": 2, \"timeout\": 9}", false},
        {"tcp", "{\"expect\": \"x\", \"interval\": 2, \"jitter\": 1}", false},
        {"tcp", "{\"expect\": \"x\", \"interval\": 2, \"fall\": 2}", false},
        {"tcp", "{\"expect\": \"x\", \"interval\": 2, \"rise\": 2}", false},
        {"tcp", "{\"expect\": \"x\", \"interval\": 2, \"fastinter\": 1}", false},
        {"tcp", "{\"expect\": \"x\", \"interval\": 2, \"downinter\": 1}", false},
        {"http", "{\"interval\": 2}", false},
    };
    struct check *first = parse_ok("tcp", cases[0].options);

    (void) state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct check *check = parse_ok(cases[i].type, cases[i].options);

        assert_int_equal(check_is_same(first, check), cases[i].same);
        assert_int_equal(check_is_same(check, first), cases[i].same);
        check_free(check);
    }
    check_free(first);
}

static struct check *parse_lua(const char *name, const char *upstream, const char *id,
                               const char *options)
{
    json_t *json = json_loads(options, 0, NULL);
    struct failure failure = {0};
    struct check *check = NULL;

    assert_int_equal(check_parse_lua(name, upstream, id, json, &check, &failure), 0);
    json_decref(json);
    return check;
}

static void lua_monitor_keeps_options_of_its_own_and_is_nobody_elses(void **state)
{
    static const char options[] = "{\"interval\": 1, \"uri\": [1, {}], \"colour\": null}";
    struct check *a = parse_lua("mine", "up", "mine", options);
    struct check *b = parse_lua("mine", "up", "mine", options);
    struct check *other_upstream = parse_lua("mine", "up2", "mine", options);
    struct check *other_id = parse_lua("mine", "up", "mine2", options);
    json_t *expected = json_loads("{\"uri\": [1, {}], \"colour\": null}", 0, NULL);

    (void) state;
    assert_int_equal(a->type, CHECK_LUA);
    assert_int_equal(a->interval_ms, 1000);
    assert_true(json_equal(a->specific, expected));
    assert_true(check_is_same(a, b));
    assert_false(check_is_same(a, other_upstream));
    assert_false(check_is_same(a, other_id));
    assert_true(check_sends_host(a));
    json_decref(expected);
    check_free(a);
    check_free(b);
    check_free(other_upstream);
    check_free(other_id);
}

static void name_of_the_peer_matters_where_it_is_sent(void **state)
{
    static const struct {
        const char *type, *options;
        bool sends;
    } cases[] = {
        {"tcp", "{}", false},
        {"http", "{}", true},
        {"http", "{\"host\": \"a\"}", false},
        {"http", "{\"header_Host\": \"a\"}", false},
    };

    (void) state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct check *check = parse_ok(cases[i].type, cases[i].options);

        assert_int_equal(check_sends_host(check), cases[i].sends);
        check_free(check);
    }
}

static void last_reference_frees_a_check(void **state)
{
    struct check *check = parse_ok("tcp", "{\"expect\": \"x\"}");

    (void) state;
    assert_ptr_equal(check_ref(check), check);
    check_free(check);
    assert_string_equal(check->tcp.expect, "x");
    check_free(check);
    check_free(NULL);
}

static void unknown_monitors_are_refused_with_the_valid_ones(void **state)
{
    (void) state;
    assert_refused("ping", NULL, "unknown monitor \"ping\"; there are http tcp");
    assert_refused("", NULL, "http tcp");
    assert_refused("lua", NULL, "unknown monitor");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_options_mean_the_documented_defaults),
        cmocka_unit_test(times_are_numbers_numeric_strings_or_nginx_times),
        cmocka_unit_test(fast_and_down_intervals_default_to_the_interval),
        cmocka_unit_test(numbers_outside_their_bounds_are_refused_by_name),
        cmocka_unit_test(counts_and_port_are_taken_as_number_or_text),
        cmocka_unit_test(peers_is_one_of_the_selectors),
        cmocka_unit_test(mandatory_and_persistent_are_true_or_false),
        cmocka_unit_test(long_values_are_refused),
        cmocka_unit_test(tcp_bytes_are_the_users_own),
        cmocka_unit_test(unknown_options_are_refused_with_the_valid_ones),
        cmocka_unit_test(refused_values_are_shown_escaped_and_cut),
        cmocka_unit_test(checks_are_the_same_if_what_they_do_is),
        cmocka_unit_test(lua_monitor_keeps_options_of_its_own_and_is_nobody_elses),
        cmocka_unit_test(name_of_the_peer_matters_where_it_is_sent),
        cmocka_unit_test(last_reference_frees_a_check),
        cmocka_unit_test(unknown_monitors_are_refused_with_the_valid_ones),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
