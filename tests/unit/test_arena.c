/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"

#include <cmocka.h>

static struct arena *create(uint32_t n)
{
    struct arena *arena = NULL;

    assert_int_equal(arena_create(n, &arena), 0);
    return arena;
}

static void shortest_run_that_fits_is_taken(void **state)
{
    struct arena *arena = create(100);
    uint32_t offset = 7;

    (void) state;
    assert_int_equal(arena_reserve(arena, 10, 20), 0); /* free: 0-9, 30-99 */
    assert_int_equal(arena_alloc(arena, 10, &offset), 0);
    assert_int_equal(offset, 0);
    assert_int_equal(arena_alloc(arena, 70, &offset), 0);
    assert_int_equal(offset, 30);
    assert_int_equal(arena_used(arena), 100);
    offset = 7;
    assert_int_equal(arena_alloc(arena, 1, &offset), -ENOSPC);
    assert_int_equal(offset, 7);
    arena_destroy(arena);
}

static void run_that_is_used_or_outside_is_not_reserved(void **state)
{
    struct arena *arena = create(100);

    (void) state;
    assert_int_equal(arena_reserve(arena, 10, 20), 0);
    assert_int_equal(arena_reserve(arena, 29, 1), -EBUSY);
    assert_int_equal(arena_reserve(arena, 0, 11), -EBUSY);
    assert_int_equal(arena_reserve(arena, 0, 100), -EBUSY);
    assert_int_equal(arena_reserve(arena, 90, 11), -EBUSY);
    assert_int_equal(arena_reserve(arena, UINT32_MAX, 2), -EBUSY);
    assert_int_equal(arena_used(arena), 20);
    assert_int_equal(arena_reserve(arena, 30, 70), 0);
    arena_destroy(arena);
}

/* Against a map of the slots; runs never overlap, and once all is given back it is one run. */
static void random_use_never_overlaps_and_leaves_one_run(void **state)
{
    enum { SLOTS = 2000, RUNS = 400 };
    struct arena *arena = create(SLOTS);
    struct {
        uint32_t offset, length;
    } runs[RUNS] = {0};
    unsigned char used[SLOTS] = {0};
    uint32_t offset;

    (void) state;
    srand(3);
    for (int i = 0; i < 50000; i++) {
        int r = rand() % RUNS;
        uint32_t length = 1 + (uint32_t) rand() % 8;

        if (runs[r].length > length && rand() % 3 == 0) {
            arena_shrink(arena, runs[r].offset, runs[r].length, length);
            memset(used + runs[r].offset + length, 0, runs[r].length - length);
            runs[r].length = length;
        } else if (runs[r].length > 0) {
            arena_free(arena, runs[r].offset, runs[r].length);
            memset(used + runs[r].offset, 0, runs[r].length);
            runs[r].length = 0;
        } else if (arena_alloc(arena, length, &offset) == 0) {
            assert_true(offset + length <= SLOTS);
            for (uint32_t s = 0; s < length; s++)
                assert_int_equal(used[offset + s]++, 0);
            runs[r].offset = offset;
            runs[r].length = length;
        }
    }
    for (int r = 0; r < RUNS; r++)
        arena_free(arena, runs[r].offset, runs[r].length);
    assert_int_equal(arena_used(arena), 0);
    assert_int_equal(arena_alloc(arena, SLOTS, &offset), 0);
    arena_destroy(arena);
}

static void run_gives_back_its_end(void **state)
{
    struct arena *arena = create(10);
    uint32_t offset;

    (void) state;
    assert_int_equal(arena_alloc(arena, 10, &offset), 0);
    arena_shrink(arena, 0, 10, 10);
    assert_int_equal(arena_alloc(arena, 1, &offset), -ENOSPC);
    arena_shrink(arena, 0, 10, 1);
    assert_int_equal(arena_used(arena), 1);
    assert_int_equal(arena_alloc(arena, 9, &offset), 0);
    assert_int_equal(offset, 1);
    arena_free(arena, 0, 1);
    arena_free(arena, 1, 9);
    assert_int_equal(arena_alloc(arena, 10, &offset), 0);
    arena_destroy(arena);
}

/* Giving back must not need memory: room for the most scattered case is there before. */
static void every_other_run_can_be_given_back(void **state)
{
    enum { SLOTS = 1000 };
    struct arena *arena = create(SLOTS);
    uint32_t offset;

    (void) state;
    for (int i = 0; i < SLOTS; i++)
        assert_int_equal(arena_alloc(arena, 1, &offset), 0);
    for (uint32_t i = 0; i < SLOTS; i += 2)
        arena_free(arena, i, 1);
    assert_int_equal(arena_used(arena), SLOTS / 2);
    assert_int_equal(arena_alloc(arena, 2, &offset), -ENOSPC);
    for (uint32_t i = 1; i < SLOTS; i += 2)
        arena_free(arena, i, 1);
    assert_int_equal(arena_alloc(arena, SLOTS, &offset), 0);
    arena_destroy(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shortest_run_that_fits_is_taken),
        cmocka_unit_test(run_that_is_used_or_outside_is_not_reserved),
        cmocka_unit_test(random_use_never_overlaps_and_leaves_one_run),
        cmocka_unit_test(run_gives_back_its_end),
        cmocka_unit_test(every_other_run_can_be_given_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
