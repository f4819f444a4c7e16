/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "failure.h"

/* cmocka has a macro of this name. */
static int refuse(struct failure *failure, const char *text)
{
    return fail(failure, EINVAL, 400, "UpstreamBadName", "name \"%s\"", text);
}

#include <cmocka.h>

static void failure_holds_status_code_and_text(void **state)
{
    struct failure failure;

    (void) state;
    assert_int_equal(refuse(&failure, "foo"), -EINVAL);
    assert_int_equal(failure.status, 400);
    assert_string_equal(failure.code, "UpstreamBadName");
    assert_string_equal(failure.text, "name \"foo\"");
}

static void text_is_one_line_of_printable_ascii(void **state)
{
    struct failure failure;

    (void) state;
    refuse(&failure, "a\nb\x1b[0m\xff\x7f");
    assert_string_equal(failure.text, "name \"a\\x0ab\\x1b[0m\\xff\\x7f\"");
}

static void long_text_is_cut_between_characters(void **state)
{
    struct failure failure;
    char name[400];

    (void) state;
    memset(name, '\n', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    refuse(&failure, name);
    assert_in_range(strlen(failure.text), sizeof(failure.text) - 5, sizeof(failure.text) - 1);
    assert_string_equal(failure.text + strlen(failure.text) - 4, "\\x0a");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failure_holds_status_code_and_text),
        cmocka_unit_test(text_is_one_line_of_printable_ascii),
        cmocka_unit_test(long_text_is_cut_between_characters),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
