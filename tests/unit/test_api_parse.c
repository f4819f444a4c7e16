/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <string.h>

#include "api_parse.h"

#include <cmocka.h> /* last: its macro fail() hides the function of failure.h */

static struct failure failure;
static struct server_spec spec;

static int parse_as(enum api_server_form form, const struct server *current, const char *text)
{
    json_t *object = json_loads(text, JSON_DECODE_ANY, NULL);
    int err;

    assert_non_null(object);
    server_spec_clear(&spec);
    memset(&failure, 0, sizeof(failure));
    err = api_parse_server(object, form, current, &spec, &failure);
    json_decref(object);
    return err;
}

static void refuses(enum api_server_form form, const char *text, const char *code,
                    const char *culprit)
{
    assert_int_equal(parse_as(form, NULL, text), -EINVAL);
    assert_int_equal(failure.status, 400);
    assert_string_equal(failure.code, code);
    if (strstr(failure.text, culprit) == NULL)
        fail_msg("%s: \"%s\" does not name %s", text, failure.text, culprit);
}

static int clear(void **state)
{
    (void) state;
    server_spec_clear(&spec);
    return 0;
}

static void a_new_server_has_nginx_defaults(void **state)
{
    (void) state;
    assert_int_equal(parse_as(API_SERVER_ADD, NULL, "{\"server\":\"localhost\"}"), 0);
    assert_string_equal(spec.name, "localhost:80");
    assert_int_equal(spec.settings.weight, 1);
    assert_int_equal(spec.settings.max_fails, 1);
    assert_int_equal(spec.settings.fail_timeout_ms, 10000);
    assert_int_equal(spec.set, SERVER_SET_NAME);
    assert_false(spec.backup);
}

static void all_settings_are_taken(void **state)
{
    (void) state;
    assert_int_equal(parse_as(API_SERVER_ADD, NULL,
                              "{\"server\":\"[::1]:81\",\"weight\":5,\"max_conns\":6,"
                              "\"max_fails\":7,\"fail_timeout\":\"1m30s\",\"slow_start\":\"500ms\","
                              "\"route\":\"\",\"service\":\"\",\"backup\":true,\"drain\":true}"),
                     0);
    assert_string_equal(spec.name, "[::1]:81");
    assert_int_equal(spec.settings.weight, 5);
    assert_int_equal(spec.settings.max_conns, 6);
    assert_int_equal(spec.settings.max_fails, 7);
    assert_int_equal(spec.settings.fail_timeout_ms, 90000);
    assert_int_equal(spec.settings.slow_start_ms, 500);
    assert_int_equal(spec.settings.admin, DURPINA_ADMIN_DRAIN);
    assert_true(spec.backup);
    assert_int_equal(spec.set, (SERVER_SET_NAME << 1) - 1);
}

static void service_names_where_its_records_are(void **state)
{
    (void) state;
    assert_int_equal(parse_as(API_SERVER_ADD, NULL,
                              "{\"service\":\"http\",\"server\":\"example.com\"}"),
                     0);
    assert_string_equal(spec.name, "_http._tcp.example.com");
    assert_string_equal(spec.service, "http");
    assert_int_equal(spec.set, SERVER_SET_NAME | SERVER_SET_SERVICE);
    refuses(API_SERVER_ADD, "{\"server\":\"a:80\",\"service\":\"http\"}", "UpstreamBadAddress",
            "a:80");
    refuses(API_SERVER_ADD, "{\"server\":\"a\",\"service\":\"a b\"}", "UpstreamConfFormatError",
            "a b");
    refuses(API_SERVER_ADD, "{\"server\":\"a\",\"service\":5}", "UpstreamConfFormatError",
            "service");
    refuses(API_SERVER_FILE, "{\"server\":\"a\",\"service\":\"http\"}", "UpstreamServerImmutable",
            "service");
}

static void numbers_may_come_as_strings_and_times_as_seconds(void **state)
{
    (void) state;
    assert_int_equal(parse_as(API_SERVER_CHANGE, NULL,
                              "{\"weight\":\"65535\",\"max_fails\":\"0\",\"fail_timeout\":15}"),
                     0);
    assert_int_equal(spec.settings.weight, 65535);
    assert_int_equal(spec.settings.max_fails, 0);
    assert_int_equal(spec.settings.fail_timeout_ms, 15000);
    assert_int_equal(spec.set, SERVER_SET_WEIGHT | SERVER_SET_MAX_FAILS | SERVER_SET_FAIL_TIMEOUT);
}

static void weight_zero_is_a_weight(void **state)
{
    (void) state;
    assert_int_equal(parse_as(API_SERVER_CHANGE, NULL, "{\"weight\":0}"), 0);
    assert_int_equal(spec.settings.weight, 0);
    assert_int_equal(spec.set, SERVER_SET_WEIGHT);
}

static void bad_weights_are_named(void **state)
{
    static const struct {
        const char *object, *culprit;
    } bad[] = {
        {"{\"weight\":-1}", "-1"},         {"{\"weight\":65536}", "65536"},
        {"{\"weight\":\"abc\"}", "abc"},   {"{\"weight\":1.5}", "1.5"},
        {"{\"weight\":5.0}", "5.0"},       {"{\"weight\":true}", "true"},
        {"{\"weight\":null}", "null"},     {"{\"weight\":\"\"}", "\"\""},
        {"{\"weight\":\" 5\"}", " 5"},     {"{\"weight\":\"-5\"}", "-5"},
        {"{\"weight\":[5]}", "[5]"},       {"{\"weight\":{}}", "{}"},
        {"{\"weight\":\"0x10\"}", "0x10"}, {"{\"weight\":\"99999999999999999999\"}", "9999"},
    };

    (void) state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        refuses(API_SERVER_CHANGE, bad[i].object, "UpstreamBadWeight", bad[i].culprit);
        refuses(API_SERVER_CHANGE, bad[i].object, "UpstreamBadWeight", "weight");
    }
}

static void each_setting_has_its_own_code(void **state)
{
    (void) state;
    refuses(API_SERVER_CHANGE, "{\"max_conns\":-1}", "UpstreamBadMaxConns", "-1");
    refuses(API_SERVER_CHANGE, "{\"max_conns\":2147483648}", "UpstreamBadMaxConns", "2147483648");
    refuses(API_SERVER_CHANGE, "{\"max_fails\":\"x\"}", "UpstreamBadMaxFails", "x");
    refuses(API_SERVER_CHANGE, "{\"fail_timeout\":\"soon\"}", "UpstreamBadFailTimeout", "soon");
    refuses(API_SERVER_CHANGE, "{\"fail_timeout\":-1}", "UpstreamBadFailTimeout", "-1");
    refuses(API_SERVER_CHANGE, "{\"fail_timeout\":2147484}", "UpstreamBadFailTimeout", "2147484");
    refuses(API_SERVER_CHANGE, "{\"slow_start\":true}", "UpstreamBadSlowStart", "true");
    refuses(API_SERVER_CHANGE, "{\"state\":\"sideways\"}", "BadState", "sideways");
    refuses(API_SERVER_CHANGE, "{\"state\":null}", "BadState", "null");
    refuses(API_SERVER_CHANGE, "{\"down\":1}", "UpstreamConfFormatError", "down");
    refuses(API_SERVER_CHANGE, "{\"route\":\"a\"}", "UpstreamConfFormatError", "route");
    refuses(API_SERVER_CHANGE, "{\"server\":\"a b\"}", "UpstreamBadAddress", "a b");
    refuses(API_SERVER_CHANGE, "{\"server\":5}", "UpstreamBadAddress", "5");
    refuses(API_SERVER_ADD, "{\"weight\":1}", "UpstreamBadAddress", "server");
    refuses(API_SERVER_ADD, "[]", "UpstreamConfFormatError", "object");
}

static void what_cannot_be_set_is_told_from_what_does_not_exist(void **state)
{
    (void) state;
    refuses(API_SERVER_CHANGE, "{\"id\":1}", "UpstreamServerImmutable", "id");
    refuses(API_SERVER_CHANGE, "{\"backup\":true}", "UpstreamServerImmutable", "backup");
    refuses(API_SERVER_CHANGE, "{\"service\":\"x\"}", "UpstreamServerImmutable", "service");
    refuses(API_SERVER_CHANGE, "{\"parent\":1}", "UpstreamServerImmutable", "parent");
    refuses(API_SERVER_CHANGE, "{\"wieght\":1}", "UpstreamConfFormatError", "wieght");
    refuses(API_SERVER_ADD, "{\"server\":\"a\",\"state\":\"up\"}", "UpstreamConfFormatError",
            "state");
    refuses(API_SERVER_ADD, "{\"server\":\"a\",\"addresses\":[]}", "UpstreamConfFormatError",
            "addresses");
}

static void a_long_value_is_cut_in_the_text(void **state)
{
    char object[4096] = "{\"weight\":\"";

    (void) state;
    memset(object + strlen(object), 'x', 4000);
    strcpy(object + 4000, "\"}");
    refuses(API_SERVER_CHANGE, object, "UpstreamBadWeight", "xxx... is not an integer");
}

/* The admin word that results from a change, or -1 if it is not touched. */
static int admin_after(enum durpina_admin before, const char *change)
{
    struct server server = {.now.admin = before};

    assert_int_equal(parse_as(API_SERVER_CHANGE, &server, change), 0);
    return spec.set & SERVER_SET_ADMIN ? (int) spec.settings.admin : -1;
}

static void lifting_drain_does_not_lift_down(void **state)
{
    (void) state;
    assert_int_equal(admin_after(DURPINA_ADMIN_DOWN, "{\"drain\":false}"), -1);
    assert_int_equal(admin_after(DURPINA_ADMIN_DRAIN, "{\"down\":false}"), -1);
    assert_int_equal(admin_after(DURPINA_ADMIN_DRAIN, "{\"drain\":false}"), DURPINA_ADMIN_UP);
    assert_int_equal(admin_after(DURPINA_ADMIN_DOWN, "{\"down\":false,\"drain\":false}"),
                     DURPINA_ADMIN_UP);
    assert_int_equal(admin_after(DURPINA_ADMIN_UP, "{\"down\":false}"), -1);
    assert_int_equal(admin_after(DURPINA_ADMIN_DRAIN, "{\"drain\":false,\"down\":true}"),
                     DURPINA_ADMIN_DOWN);
    assert_int_equal(admin_after(DURPINA_ADMIN_DOWN, "{\"drain\":true,\"down\":false}"),
                     DURPINA_ADMIN_DRAIN);
    assert_int_equal(admin_after(DURPINA_ADMIN_DOWN, "{\"state\":\"up\"}"), DURPINA_ADMIN_UP);
    assert_int_equal(admin_after(DURPINA_ADMIN_UP, "{\"state\":\"drain\"}"), DURPINA_ADMIN_DRAIN);
    assert_int_equal(admin_after(DURPINA_ADMIN_UP, "{\"state\":\"maint\"}"), DURPINA_ADMIN_MAINT);
    /* It is shown as down. */
    assert_int_equal(admin_after(DURPINA_ADMIN_MAINT, "{\"down\":false}"), DURPINA_ADMIN_UP);
    assert_int_equal(admin_after(DURPINA_ADMIN_MAINT, "{\"drain\":false}"), -1);
}

static void contradicting_words_are_refused(void **state)
{
    (void) state;
    refuses(API_SERVER_CHANGE, "{\"down\":true,\"drain\":true}", "UpstreamConfFormatError", "down");
    refuses(API_SERVER_CHANGE, "{\"state\":\"up\",\"down\":true}", "UpstreamConfFormatError",
            "state");
}

static void a_registration_carries_addresses(void **state)
{
    static const char text[] =
        "{\"name\":\"foo\",\"durpina\":false,\"servers\":["
        "{\"server\":\"localhost:8080\",\"addresses\":[\"127.0.0.1:8080\",\"[::1]:8080\"],"
        "\"weight\":5,\"max_conns\":0,\"max_fails\":1,\"fail_timeout_ms\":1500,\"slow_start_ms\":0,"
        "\"down\":true,\"backup\":false}]}";
    json_t *object = json_loads(text, 0, NULL);
    struct registration registration;

    (void) state;
    assert_int_equal(api_parse_registration(object, NULL, &registration, &failure), 0);
    assert_string_equal(registration.upstream, "foo");
    assert_false(registration.durpina);
    assert_int_equal(registration.n_specs, 1);
    assert_int_equal(registration.specs[0].n_addresses, 2);
    assert_int_equal(addr_port(&registration.specs[0].addresses[1]), 8080);
    assert_int_equal(registration.specs[0].settings.fail_timeout_ms, 1500);
    assert_int_equal(registration.specs[0].settings.admin, DURPINA_ADMIN_DOWN);
    api_registration_clear(&registration);
    json_decref(object);
}

static void a_registration_may_say_its_algorithm(void **state)
{
    static const char *const words[] = {"round-robin", "unweighted-round-robin",
                                        "ip-hash",     "consistent-hash",
                                        "least-conn",  "random-two",
                                        "peak-ewma",   "least-time"};
    struct registration registration;
    json_t *object;

    (void) state;
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        object = json_pack("{ss ss s[]}", "name", "foo", "algorithm", words[i], "servers");
        assert_int_equal(api_parse_registration(object, NULL, &registration, &failure), 0);
        assert_string_equal(registration.algorithm->word, words[i]);
        assert_int_equal(registration.algorithm->table,
                         strstr(words[i], "hash") ? DURPINA_ASKED_HASH : DURPINA_ASKED_NO_TABLE);
        api_registration_clear(&registration);
        json_decref(object);
    }
    object = json_pack("{ss ss sb s[]}", "name", "foo", "algorithm", "consistent-hash", "ketama", 1,
                       "servers");
    assert_int_equal(api_parse_registration(object, NULL, &registration, &failure), 0);
    assert_int_equal(registration.algorithm->table, DURPINA_ASKED_RING);
    api_registration_clear(&registration);
    json_object_del(object, "algorithm");
    json_object_del(object, "ketama");
    assert_int_equal(api_parse_registration(object, NULL, &registration, &failure), 0);
    assert_null(registration.algorithm);
    api_registration_clear(&registration);
    json_decref(object);
}

static void a_bad_registration_names_upstream_and_culprit(void **state)
{
    static const struct {
        const char *object, *code, *culprit;
    } bad[] = {
        {"{\"name\":\"foo\",\"servers\":[{\"server\":\"a\"},{\"server\":\"b\",\"weight\":-1}]}",
         "UpstreamBadWeight", "upstream \"foo\": weight -1"},
        {"{\"name\":\"foo\",\"servers\":[{\"server\":\"a\",\"addresses\":[\"nowhere\"]}]}",
         "UpstreamBadAddress", "upstream \"foo\": \"nowhere\""},
        {"{\"name\":\"foo\",\"servers\":{}}", "UpstreamConfFormatError", "servers"},
        {"{\"servers\":[]}", "UpstreamConfFormatError", "name"},
        {"{\"name\":5,\"servers\":[]}", "UpstreamConfFormatError", "name"},
        {"{\"name\":\"foo\",\"durpina\":1,\"servers\":[]}", "UpstreamConfFormatError", "durpina"},
        {"{\"name\":\"foo\",\"algorithm\":\"best\",\"servers\":[]}", "UpstreamConfFormatError",
         "upstream \"foo\": there is no algorithm \"best\""},
        {"{\"name\":\"foo\",\"algorithm\":\"ip-hash\",\"ketama\":true,\"servers\":[]}",
         "UpstreamConfFormatError", "\"ip-hash\" with ketama"},
        {"{\"name\":\"foo\",\"ketama\":true,\"servers\":[]}", "UpstreamConfFormatError",
         "\"algorithm\" is missing"},
        {"{\"name\":\"foo\",\"algorithm\":\"ip-hash\",\"ketama\":1,\"servers\":[]}",
         "UpstreamConfFormatError", "ketama"},
        {"{\"name\":\"foo\",\"servers\":[7]}", "UpstreamConfFormatError", "upstream \"foo\""},
    };
    struct registration registration;

    (void) state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        json_t *object = json_loads(bad[i].object, 0, NULL);

        assert_int_equal(api_parse_registration(object, NULL, &registration, &failure), -EINVAL);
        assert_string_equal(failure.code, bad[i].code);
        if (strstr(failure.text, bad[i].culprit) == NULL)
            fail_msg("\"%s\" does not name %s", failure.text, bad[i].culprit);
        json_decref(object);
    }
}

static void unknown_members_are_named(void **state)
{
    static const char *const names[] = {"a", "b", NULL};
    json_t *good = json_loads("{\"b\":1,\"a\":2}", 0, NULL);
    json_t *bad = json_loads("{\"b\":1,\"c\":2}", 0, NULL);

    (void) state;
    assert_int_equal(api_check_fields(good, names, &failure), 0);
    assert_int_equal(api_check_fields(bad, names, &failure), -EINVAL);
    assert_non_null(strstr(failure.text, "\"c\""));
    json_decref(good);
    json_decref(bad);
}

static void members_have_one_type(void **state)
{
    json_t *object = json_loads("{\"s\":\"x\",\"n\":5,\"m\":\"6\",\"b\":true,\"a\":[]}", 0, NULL);
    const json_t *array;
    const char *text;
    uint64_t number;
    bool flag;

    (void) state;
    assert_int_equal(api_get_string(object, "s", &text, &failure), 0);
    assert_int_equal(api_get_string(object, "n", &text, &failure), -EINVAL);
    assert_non_null(strstr(failure.text, "\"n\" is 5, not a string"));
    assert_int_equal(api_get_string(object, "z", &text, &failure), -EINVAL);
    assert_non_null(strstr(failure.text, "\"z\" is missing"));
    assert_int_equal(api_get_uint(object, "n", 5, &number, &failure), 0);
    assert_int_equal(number, 5);
    assert_int_equal(api_get_uint(object, "m", 6, &number, &failure), 0);
    assert_int_equal(number, 6);
    assert_int_equal(api_get_uint(object, "n", 4, &number, &failure), -EINVAL);
    assert_int_equal(number, 6);
    assert_int_equal(api_get_uint(object, "z", 4, &number, &failure), -EINVAL);
    assert_non_null(strstr(failure.text, "\"z\" is missing"));
    assert_int_equal(api_get_bool(object, "b", &flag, &failure), 0);
    assert_int_equal(api_get_bool(object, "n", &flag, &failure), -EINVAL);
    assert_int_equal(api_get_array(object, "a", &array, &failure), 0);
    assert_int_equal(api_get_array(object, "s", &array, &failure), -EINVAL);
    json_decref(object);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_server_has_nginx_defaults),
        cmocka_unit_test(all_settings_are_taken),
        cmocka_unit_test(service_names_where_its_records_are),
        cmocka_unit_test(numbers_may_come_as_strings_and_times_as_seconds),
        cmocka_unit_test(weight_zero_is_a_weight),
        cmocka_unit_test(bad_weights_are_named),
        cmocka_unit_test(each_setting_has_its_own_code),
        cmocka_unit_test(what_cannot_be_set_is_told_from_what_does_not_exist),
        cmocka_unit_test(a_long_value_is_cut_in_the_text),
        cmocka_unit_test(lifting_drain_does_not_lift_down),
        cmocka_unit_test(contradicting_words_are_refused),
        cmocka_unit_test(a_registration_carries_addresses),
        cmocka_unit_test(a_registration_may_say_its_algorithm),
        cmocka_unit_test(a_bad_registration_names_upstream_and_culprit),
        cmocka_unit_test(unknown_members_are_named),
        cmocka_unit_test(members_have_one_type),
    };

    return cmocka_run_group_tests(tests, NULL, clear);
}
