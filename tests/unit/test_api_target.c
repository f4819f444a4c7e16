/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdlib.h>
#include <string.h>

#include "api_target.h"

#include <cmocka.h>

static struct api_part parts[API_PARTS_MAX];
static char args[API_ARGS_MAX][API_ARG_SIZE];

static bool matches(const char *pattern, const char *target)
{
    int n = api_split_path(target, parts);

    return n >= 0 && api_path_matches(pattern, parts, n, args);
}

static void a_path_is_cut_at_its_slashes(void **state)
{
    (void) state;
    assert_int_equal(api_split_path("/", parts), 0);
    assert_int_equal(api_split_path("/a/bc", parts), 2);
    assert_true(api_part_is(&parts[0], "a"));
    assert_true(api_part_is(&parts[1], "bc"));
    assert_false(api_part_is(&parts[1], "b"));
    assert_int_equal(api_split_path("/a/", parts), 1);
    assert_int_equal(api_split_path("/a//b", parts), 3);
    assert_int_equal(api_split_path("/a?b/c/d", parts), 1);
    assert_int_equal(api_split_path("/a/?b", parts), 1);
    assert_int_equal(api_split_path("", parts), -1);
    assert_int_equal(api_split_path("a", parts), -1);
    assert_int_equal(api_split_path("*", parts), -1);
    assert_int_equal(api_split_path("/1/2/3/4/5/6/7/8", parts), API_PARTS_MAX);
    assert_int_equal(api_split_path("/1/2/3/4/5/6/7/8/9", parts), -1);
}

static void patterns_match_whole_paths(void **state)
{
    (void) state;
    assert_true(matches("", "/"));
    assert_true(matches("http/upstreams", "/http/upstreams/"));
    assert_false(matches("http/upstreams", "/http"));
    assert_false(matches("http", "/http/upstreams"));
    assert_false(matches("http", "/https"));
    assert_false(matches("https", "/http"));
    assert_false(matches("", "/http"));
    assert_true(matches("up/*/servers/*", "/up/foo/servers/7"));
    assert_string_equal(args[0], "foo");
    assert_string_equal(args[1], "7");
    assert_false(matches("up/*/servers/*", "/up/foo/servers"));
    assert_false(matches("up/*", "/up//"));
}

static void arguments_are_decoded(void **state)
{
    (void) state;
    assert_true(matches("*", "/a%20b%2Fc%c3%a9"));
    assert_string_equal(args[0], "a b/c\xc3\xa9");
    assert_true(matches("*", "/a+b"));
    assert_string_equal(args[0], "a+b");
}

static void bad_escapes_match_nothing(void **state)
{
    (void) state;
    assert_false(matches("*", "/a%"));
    assert_false(matches("*", "/a%2"));
    assert_false(matches("*", "/a%zz"));
    assert_false(matches("*", "/a%00b"));
    assert_false(matches("*", "/a%2?20"));
}

static void encoding_is_undone_by_decoding(void **state)
{
    static const char text[] = "a%b?c#d e\xc3\xa9+;-._~Z9";
    char target[128] = "/";

    (void) state;
    api_encode(text, target + 1, sizeof(target) - 1);
    assert_string_equal(target, "/a%25b%3Fc%23d%20e%C3%A9%2B%3B-._~Z9");
    assert_true(matches("*", target));
    assert_string_equal(args[0], text);
    api_encode("abcde", target, 6);
    assert_string_equal(target, "abc");
}

static void an_argument_has_a_greatest_length(void **state)
{
    char target[API_ARG_SIZE + 2] = "/";

    (void) state;
    memset(target + 1, 'x', API_ARG_SIZE - 1);
    assert_true(matches("*", target));
    assert_int_equal(strlen(args[0]), API_ARG_SIZE - 1);
    strcat(target, "x");
    assert_false(matches("*", target));
}

static void fields_are_split_at_commas(void **state)
{
    const char *fields[API_FIELDS_MAX];
    char buffer[64];

    (void) state;
    assert_int_equal(api_parse_fields("/a", buffer, sizeof(buffer), fields), -1);
    assert_int_equal(api_parse_fields("/a?x=1", buffer, sizeof(buffer), fields), -1);
    assert_int_equal(api_parse_fields("/a?fields=", buffer, sizeof(buffer), fields), 0);
    assert_int_equal(api_parse_fields("/a?x=1&fields=id,we%69ght&y", buffer, sizeof(buffer),
                                      fields),
                     2);
    assert_string_equal(fields[0], "id");
    assert_string_equal(fields[1], "weight");
    assert_int_equal(api_parse_fields("/a?fields=%zz", buffer, sizeof(buffer), fields), -1);
}

static void other_members_are_taken_out(void **state)
{
    static const char *const fields[] = {"a", "c"};
    json_t *value = json_loads("[{\"a\":1,\"b\":2},{\"b\":3},{\"c\":{\"b\":4},\"a\":5}]", 0, NULL);
    char *text;

    (void) state;
    api_keep_fields(value, fields, 2);
    text = json_dumps(value, JSON_COMPACT);
    assert_string_equal(text, "[{\"a\":1},{},{\"c\":{\"b\":4},\"a\":5}]");
    free(text);
    json_decref(value);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_path_is_cut_at_its_slashes),
        cmocka_unit_test(patterns_match_whole_paths),
        cmocka_unit_test(arguments_are_decoded),
        cmocka_unit_test(bad_escapes_match_nothing),
        cmocka_unit_test(encoding_is_undone_by_decoding),
        cmocka_unit_test(an_argument_has_a_greatest_length),
        cmocka_unit_test(fields_are_split_at_commas),
        cmocka_unit_test(other_members_are_taken_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
