/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server_line.h"

#include <cmocka.h> /* last: its macro fail() hides the function of failure.h */

static struct server_spec parse(const char *line)
{
    struct server_spec spec = {0};
    struct failure failure;
    int err = server_line_parse(line, 80, &spec, &failure);

    if (err < 0)
        print_error("%s: %s\n", line, failure.text);
    assert_int_equal(err, 0);
    return spec;
}

static void every_parameter_is_taken_in_any_order(void **state)
{
    struct server_spec spec = parse("[::1]:8080 slow_start=1m30s backup drain weight=7 "
                                    "max_fails=0 fail_timeout=500ms max_conns=3");

    (void) state;
    assert_string_equal(spec.name, "[::1]:8080");
    assert_string_equal(spec.host, "::1");
    assert_int_equal(spec.port, 8080);
    assert_true(spec.backup);
    assert_int_equal(spec.settings.weight, 7);
    assert_int_equal(spec.settings.max_fails, 0);
    assert_int_equal(spec.settings.max_conns, 3);
    assert_int_equal(spec.settings.fail_timeout_ms, 500);
    assert_int_equal(spec.settings.slow_start_ms, 90000);
    assert_int_equal(spec.settings.admin, DURPINA_ADMIN_DRAIN);
    assert_int_equal(spec.set, SERVER_SET_WEIGHT | SERVER_SET_MAX_CONNS | SERVER_SET_MAX_FAILS |
                                   SERVER_SET_FAIL_TIMEOUT | SERVER_SET_SLOW_START |
                                   SERVER_SET_ADMIN | SERVER_SET_BACKUP | SERVER_SET_NAME);
}

static void what_is_not_given_is_as_in_nginx(void **state)
{
    struct server_spec spec = parse("localhost");

    (void) state;
    assert_string_equal(spec.name, "localhost:80");
    assert_string_equal(spec.host, "localhost");
    assert_true(spec.portless);
    assert_true(parse("[::1]").portless);
    assert_false(parse("localhost:80").portless);
    assert_false(parse("unix:/run/x").portless);
    assert_int_equal(spec.set, SERVER_SET_NAME);
    assert_int_equal(spec.settings.weight, 1);
    assert_int_equal(spec.settings.max_fails, 1);
    assert_int_equal(spec.settings.fail_timeout_ms, 10000);
    assert_int_equal(spec.settings.max_conns, 0);
    assert_int_equal(spec.settings.admin, DURPINA_ADMIN_UP);
    assert_false(spec.backup);
}

/* Defect 1 of the old Lua parser: this was a peer called "l". */
static void whole_name_and_all_settings_of_a_string_peer_are_read(void **state)
{
    struct server_spec spec = parse("localhost:8080 fail_timeout=15 weight=7");

    (void) state;
    assert_string_equal(spec.name, "localhost:8080");
    assert_int_equal(spec.settings.weight, 7);
    assert_int_equal(spec.settings.fail_timeout_ms, 15000);
}

/* Defect 2 of the old Lua parser: a port in the name was lost, a literal address had none. */
static void port_of_the_name_wins_over_the_default(void **state)
{
    struct server_spec spec = {0};
    struct failure failure;

    (void) state;
    assert_int_equal(server_name_parse("h:19183", 80, &spec, &failure), 0);
    assert_string_equal(spec.name, "h:19183");
    assert_int_equal(spec.port, 19183);
    assert_int_equal(server_name_parse("10.0.0.2", 8090, &spec, &failure), 0);
    assert_string_equal(spec.name, "10.0.0.2:8090");
    assert_int_equal(spec.set, SERVER_SET_NAME);
}

static void unix_socket_has_its_path_as_name_and_no_port(void **state)
{
    struct server_spec spec = parse("unix:/run/app.sock down");

    (void) state;
    assert_string_equal(spec.name, "unix:/run/app.sock");
    assert_string_equal(spec.host, "unix:/run/app.sock");
    assert_int_equal(spec.port, 0);
    assert_int_equal(spec.settings.admin, DURPINA_ADMIN_DOWN);
}

static void quotes_comments_and_a_semicolon_are_as_in_nginx(void **state)
{
    (void) state;
    assert_int_equal(parse("'a:1' \"weight=2\";").settings.weight, 2);
    assert_int_equal(parse("a:1 weight=3; # heavy").settings.weight, 3);
    assert_int_equal(parse("\ta:1\n  weight=4 \n").settings.weight, 4);
}

static void bad_line_is_refused_with_the_code_of_its_culprit(void **state)
{
    static const struct {
        const char *line, *code, *culprit;
    } bad[] = {
        {"", "UpstreamConfFormatError", ""},
        {";", "UpstreamConfFormatError", ""},
        {"a; b", "UpstreamConfFormatError", "';'"},
        {"a {", "UpstreamConfFormatError", "'{'"},
        {"'a", "UpstreamConfFormatError", "quote"},
        {"a wieght=1", "UpstreamConfFormatError", "wieght=1"},
        {"a weight", "UpstreamConfFormatError", "\"weight\""},
        {"a backup=1", "UpstreamConfFormatError", "backup=1"},
        {"a resolved", "UpstreamConfFormatError", "resolved"},
        {"a weight=1 weight=1", "UpstreamConfFormatError", "twice"},
        {"a down drain", "UpstreamConfFormatError", "drain"},
        {"a b", "UpstreamConfFormatError", "\"b\""},
        {"a weight=0", "UpstreamBadWeight", "weight=0"},
        {"a weight=-1", "UpstreamBadWeight", "weight=-1"},
        {"a weight=65536", "UpstreamBadWeight", "weight=65536"},
        {"a weight=abc", "UpstreamBadWeight", "weight=abc"},
        {"a weight=1.5", "UpstreamBadWeight", "weight=1.5"},
        {"a weight=", "UpstreamBadWeight", "weight="},
        {"a weight=0x10", "UpstreamBadWeight", "0x10"},
        {"a weight=99999999999999999999", "UpstreamBadWeight", "9999"},
        {"a max_conns=-1", "UpstreamBadMaxConns", "max_conns=-1"},
        {"a max_conns=2147483648", "UpstreamBadMaxConns", "2147483648"},
        {"a max_fails=x", "UpstreamBadMaxFails", "max_fails=x"},
        {"a fail_timeout=", "UpstreamBadFailTimeout", "fail_timeout="},
        {"a fail_timeout=10x", "UpstreamBadFailTimeout", "10x"},
        {"a fail_timeout=99999999d", "UpstreamBadFailTimeout", "99999999d"},
        {"a slow_start=-1", "UpstreamBadSlowStart", "slow_start=-1"},
        {":80", "UpstreamBadAddress", ":80"},
        {"a:", "UpstreamBadAddress", "a:"},
        {"a:0", "UpstreamBadAddress", "a:0"},
        {"a:65536", "UpstreamBadAddress", "a:65536"},
        {"a:b", "UpstreamBadAddress", "a:b"},
        {"a:80:90", "UpstreamBadAddress", "a:80:90"},
        {"::1", "UpstreamBadAddress", "brackets"},
        {"[::1", "UpstreamBadAddress", "]"},
        {"[a]:80", "UpstreamBadAddress", "IPv6"},
        {"[::1]80", "UpstreamBadAddress", "port"},
        {"1.2.3", "UpstreamBadAddress", "IPv4"},
        {"010.1.1.1", "UpstreamBadAddress", "IPv4"},
        {"1.2.3.256:80", "UpstreamBadAddress", "IPv4"},
        {"a/b", "UpstreamBadAddress", "a/b"},
        {"'a b'", "UpstreamBadAddress", "a b"},
        {"-a", "UpstreamBadAddress", "-a"},
        {"a_\x01", "UpstreamBadAddress", "\\x01"},
        {"unix:", "UpstreamBadAddress", "unix:"},
        {"unix:relative", "UpstreamBadAddress", "unix:relative"},
        {"'unix:/a b'", "UpstreamBadAddress", "path"},
    };

    (void) state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct server_spec spec = {.port = 7};
        struct failure failure;

        assert_int_equal(server_line_parse(bad[i].line, 80, &spec, &failure), -EINVAL);
        assert_string_equal(failure.code, bad[i].code);
        assert_int_equal(failure.status, 400);
        if (strstr(failure.text, bad[i].culprit) == NULL)
            fail_msg("%s: \"%s\" does not name %s", bad[i].line, failure.text, bad[i].culprit);
        assert_int_equal(spec.port, 7);
    }
}

static void name_that_does_not_fit_is_refused_not_cut(void **state)
{
    struct server_spec spec = {0};
    struct failure failure;
    char name[300];

    (void) state;
    memset(name, 'a', sizeof(name));
    name[DURPINA_NAME_SIZE - 1 - 3] = '\0'; /* ":80" fits just so */
    assert_int_equal(server_name_parse(name, 80, &spec, &failure), 0);
    assert_int_equal(strlen(spec.name), DURPINA_NAME_SIZE - 1);
    for (size_t len = DURPINA_NAME_SIZE - 3; len < sizeof(name); len += 17) {
        memset(name, 'a', sizeof(name));
        name[len] = '\0';
        assert_int_equal(server_name_parse(name, 80, &spec, &failure), -EINVAL);
    }
}

static void times_are_as_in_nginx(void **state)
{
    static const struct {
        const char *text;
        uint32_t ms;
    } good[] = {{"10", 10000},      {"10s", 10000},  {"0", 0},          {"1m30s", 90000},
                {"1m 30s", 90000},  {"500ms", 500},  {"1h", 3600000},   {"1d1h", 90000000},
                {"1m500ms", 60500}, {"1m30", 90000}, {"1w", 604800000}, {"2147483s", 2147483000}};
    static const char *const bad[] = {"",     "s",  "1x",  "-1",    "1.5", " 1", "30s1m",
                                      "1s1s", "1 ", "1,5", "1s 1m", "ms",  "1S"};
    static const char *const large[] = {"2147484", "1y", "99999999999999999999999", "25d"};
    uint32_t ms;

    (void) state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_int_equal(time_parse_ms(good[i].text, &ms), 0);
        assert_int_equal(ms, good[i].ms);
    }
    ms = 7;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(time_parse_ms(bad[i], &ms), -EINVAL);
    for (size_t i = 0; i < sizeof(large) / sizeof(large[0]); i++)
        assert_int_equal(time_parse_ms(large[i], &ms), -ERANGE);
    assert_int_equal(ms, 7);
}

static void service_is_the_name_of_its_srv_records(void **state)
{
    static const struct {
        const char *line, *name;
    } good[] = {
        {"example.com service=http", "_http._tcp.example.com"},
        {"example.com service=_sip._udp weight=3", "_sip._udp.example.com"},
        {"example.com resolve service=server1.backend", "server1.backend.example.com"},
    };

    (void) state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct server_spec spec, back;

        spec = parse(good[i].line);
        assert_string_equal(spec.name, good[i].name);
        assert_string_equal(spec.host, "example.com");
        assert_int_equal(spec.port, 0);
        assert_false(spec.portless);
        assert_int_equal(server_service_name_parse(spec.name, spec.service, &back), 0);
        assert_string_equal(back.name, spec.name);
        assert_string_equal(back.host, "example.com");
        assert_string_equal(back.service, spec.service);
        assert_int_equal(server_service_name_parse(spec.name, "", &back), 0);
        assert_string_equal(back.name, spec.name);
    }
}

static void service_needs_a_host_name_without_a_port(void **state)
{
    static const char *const bad[] = {
        "example.com:80 service=http", "127.0.0.1 service=http", "[::1] service=http",
        "unix:/run/x service=http",    "example.com service=",   "example.com service=a..b",
        "example.com service=.a",      "example.com service=a.", "example.com service=a/b",
        "example.com service=-a",      "example.com service",    "example.com service=a service=b",
        "example.com resolve resolve", "example.com resolve=1",
    };
    char line[200];
    struct server_spec spec;
    struct failure failure;

    (void) state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(server_line_parse(bad[i], 80, &spec, &failure), -EINVAL);
    /* At the edges of the service's size and the name's. */
    for (int len = SERVER_SERVICE_SIZE - 1; len <= SERVER_SERVICE_SIZE; len++) {
        snprintf(line, sizeof(line), "a.b service=%0*d", len, 1);
        assert_int_equal(server_line_parse(line, 80, &spec, &failure),
                         len < SERVER_SERVICE_SIZE ? 0 : -EINVAL);
    }
    for (int len = DURPINA_NAME_SIZE - 1; len <= DURPINA_NAME_SIZE; len++) {
        snprintf(line, sizeof(line), "h%0*d service=x.y", len - 5, 1);
        assert_int_equal(server_line_parse(line, 80, &spec, &failure),
                         len < DURPINA_NAME_SIZE ? 0 : -EINVAL);
    }
}

static void names_that_are_of_no_service_are_told(void **state)
{
    static const struct {
        const char *name, *service;
    } bad[] = {{"_http._tcp.example.com", "https"},
               {"_http._tcp", ""},
               {"example.com", "http"},
               {"", ""},
               {"a.b", ""},
               {"_http._tcp.", "http"},
               {"a.b.127.0.0.1", ""},
               {"a.b.c:80", ""}};
    struct server_spec spec;

    (void) state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(server_service_name_parse(bad[i].name, bad[i].service, &spec), -EINVAL);
}

static void cleared_spec_owns_nothing(void **state)
{
    struct server_spec spec = {.addresses = calloc(2, sizeof(struct addr)), .n_addresses = 2};

    (void) state;
    server_spec_clear(&spec);
    assert_null(spec.addresses);
    assert_int_equal(spec.n_addresses, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_parameter_is_taken_in_any_order),
        cmocka_unit_test(what_is_not_given_is_as_in_nginx),
        cmocka_unit_test(whole_name_and_all_settings_of_a_string_peer_are_read),
        cmocka_unit_test(port_of_the_name_wins_over_the_default),
        cmocka_unit_test(unix_socket_has_its_path_as_name_and_no_port),
        cmocka_unit_test(quotes_comments_and_a_semicolon_are_as_in_nginx),
        cmocka_unit_test(bad_line_is_refused_with_the_code_of_its_culprit),
        cmocka_unit_test(name_that_does_not_fit_is_refused_not_cut),
        cmocka_unit_test(times_are_as_in_nginx),
        cmocka_unit_test(service_is_the_name_of_its_srv_records),
        cmocka_unit_test(service_needs_a_host_name_without_a_port),
        cmocka_unit_test(names_that_are_of_no_service_are_told),
        cmocka_unit_test(cleared_spec_owns_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
