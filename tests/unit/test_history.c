/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "history.h"

#include <cmocka.h>

static void add_numbered(struct history **history, unsigned n)
{
    char cause[16];

    snprintf(cause, sizeof(cause), "cause %u", n);
    assert_int_equal(history_add(history, n, DURPINA_PEER_UP, DURPINA_PEER_DOWN, cause), 0);
    memset(cause, 'x', sizeof(cause)); /* it was copied */
}

static void nothing_is_there_before_the_first(void **state)
{
    (void) state;
    assert_int_equal(history_count(NULL), 0);
    assert_null(history_copy(NULL));
    history_free(NULL);
}

static void newest_comes_first(void **state)
{
    struct history *history = NULL;

    (void) state;
    assert_int_equal(history_add(&history, 7, DURPINA_PEER_UP, DURPINA_PEER_UNHEALTHY,
                                 "monitor m: HTTP 503"),
                     0);
    assert_int_equal(history_add(&history, 9, DURPINA_PEER_UNHEALTHY, DURPINA_PEER_UP,
                                 "monitors pass"),
                     0);
    assert_int_equal(history_count(history), 2);
    assert_int_equal(history_at(history, 0)->at_ms, 9);
    assert_string_equal(history_at(history, 0)->cause, "monitors pass");
    assert_int_equal(history_at(history, 1)->at_ms, 7);
    assert_int_equal(history_at(history, 1)->from, DURPINA_PEER_UP);
    assert_int_equal(history_at(history, 1)->to, DURPINA_PEER_UNHEALTHY);
    assert_string_equal(history_at(history, 1)->cause, "monitor m: HTTP 503");
    history_free(history);
}

static void oldest_goes_once_it_is_full(void **state)
{
    struct history *history = NULL;

    (void) state;
    for (unsigned n = 1; n <= HISTORY_SIZE; n++)
        add_numbered(&history, n);
    assert_int_equal(history_count(history), HISTORY_SIZE);
    assert_int_equal(history_at(history, HISTORY_SIZE - 1)->at_ms, 1);
    for (unsigned n = HISTORY_SIZE + 1; n <= 3 * HISTORY_SIZE + 5; n++)
        add_numbered(&history, n);
    assert_int_equal(history_count(history), HISTORY_SIZE);
    for (unsigned age = 0; age < HISTORY_SIZE; age++)
        assert_int_equal(history_at(history, age)->at_ms, 3 * HISTORY_SIZE + 5 - age);
    history_free(history);
}

static void copy_lives_on_its_own(void **state)
{
    struct history *history = NULL, *copy;

    (void) state;
    for (unsigned n = 1; n <= HISTORY_SIZE + 3; n++)
        add_numbered(&history, n);
    copy = history_copy(history);
    assert_non_null(copy);
    history_free(history);
    assert_int_equal(history_count(copy), HISTORY_SIZE);
    assert_int_equal(history_at(copy, 0)->at_ms, HISTORY_SIZE + 3);
    assert_string_equal(history_at(copy, HISTORY_SIZE - 1)->cause, "cause 4");
    history_free(copy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_there_before_the_first),
        cmocka_unit_test(newest_comes_first),
        cmocka_unit_test(oldest_goes_once_it_is_full),
        cmocka_unit_test(copy_lives_on_its_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
