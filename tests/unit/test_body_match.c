/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <string.h>

#include "body_match.h"
#include "clock.h"

#include <cmocka.h>

#define BODY_SIZE (256 * 1024)
/* Far above the limit, far below what the searches would take: a busy machine. */
#define SOON_MS 500

static int run(const char *pattern, const char *body, size_t length)
{
    struct body_match *match = NULL;
    char error[128];
    int result;

    assert_int_equal(body_match_compile(pattern, &match, error, sizeof(error)), 0);
    result = body_match_run(match, body, length);
    body_match_free(match);
    return result;
}

static void any_part_of_the_body_may_match(void **state)
{
    static const struct {
        const char *pattern, *body;
        int result;
    } cases[] = {
        {"ok", "all is ok here", 1},
        {"^ok$", "ok\n", 1},
        {"^ok$", "not ok", 0},
        {"(?i)status:\\s*UP", "Status:\n  up", 1},
        {"\"db\":\\s*\"(up|degraded)\"", "{\"db\": \"degraded\"}", 1},
        {"(?s)a.*z", "a\nz", 1},
        {"a.*z", "a\nz", 0},
        {"", "", 1},
        {".", "", 0},
        {"\\xff\\x00", "\xff", 0},
    };

    (void) state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(run(cases[i].pattern, cases[i].body, strlen(cases[i].body)),
                         cases[i].result);
    assert_int_equal(run("x", NULL, 0), 0);
}

static void body_is_bytes_with_nul_and_invalid_utf8(void **state)
{
    static const char body[] = "\xff\xfe\0after";

    (void) state;
    assert_int_equal(run("after", body, sizeof(body) - 1), 1);
    assert_int_equal(run("\\xfe\\x00a", body, sizeof(body) - 1), 1);
    assert_int_equal(run("after", body, 4), 0);
}

static void malformed_patterns_are_refused_with_the_place(void **state)
{
    static const struct {
        const char *pattern, *error;
    } cases[] = {
        {"(ok", "missing closing parenthesis at offset 3"},
        {"[a-", "missing terminating ] for character class at offset 3"},
        {"*", "quantifier does not follow a repeatable item at offset 0"},
        {"((((a{1,999}){1,999}){1,999}){1,999})", "regular expression is too large at offset 37"},
        {"(*UTF)a", "using UTF is disabled by the application at offset 6"},
    };

    (void) state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct body_match *match = NULL;
        char error[128] = "";

        assert_int_equal(body_match_compile(cases[i].pattern, &match, error, sizeof(error)),
                         -EINVAL);
        assert_null(match);
        assert_string_equal(error, cases[i].error);
    }
    body_match_free(NULL);
}

/* Each would take minutes and more, or gigabytes: they back off from each byte of the body. */
static void search_ends_early_whatever_pattern_and_body_are(void **state)
{
    static const char *const patterns[] = {
        "(x+)+y",        "x*z.*y",    "(?:.|\n)*y",
        "[a-w]++X|x++X", "(x)\\1*+y", "(?:x|xx|xxx)*y",
        "(?:x+x+)+y",    "(?R)?x+y",  "(*LIMIT_MATCH=4000000000)(x+)+y",
    };
    static char body[BODY_SIZE];

    (void) state;
    memset(body, 'x', sizeof(body));
    /* The end keeps PCRE2 from seeing at once that a needed byte is missing. */
    memcpy(body + sizeof(body) - 4, "-X-y", 4);
    for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
        uint64_t begin_ms = clock_monotonic_ms();

        assert_int_equal(run(patterns[i], body, sizeof(body)), -EOVERFLOW);
        assert_in_range(clock_monotonic_ms() - begin_ms, 0, SOON_MS);
    }
}

static void usual_patterns_get_through_a_whole_body(void **state)
{
    static char body[BODY_SIZE];

    (void) state;
    memset(body, 'x', sizeof(body));
    memcpy(body + sizeof(body) - 3, " ok", 3);
    assert_int_equal(run("ok", body, sizeof(body)), 1);
    assert_int_equal(run("[0-9]+ errors", body, sizeof(body)), 0);
    assert_int_equal(run("^x.*ok$", body, sizeof(body)), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_part_of_the_body_may_match),
        cmocka_unit_test(body_is_bytes_with_nul_and_invalid_utf8),
        cmocka_unit_test(malformed_patterns_are_refused_with_the_place),
        cmocka_unit_test(search_ends_early_whatever_pattern_and_body_are),
        cmocka_unit_test(usual_patterns_get_through_a_whole_body),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
