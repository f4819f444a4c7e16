/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "schedule.h"

#include <cmocka.h>

#define N_MAX 64

struct layout {
    uint32_t turns[N_MAX];
    uint32_t *slots;
    size_t length;
};

static struct layout lay_out(const uint32_t *weights, size_t n)
{
    struct layout l = {0};
    int64_t length = schedule_turns(weights, n, l.turns);

    assert_true(length >= 0);
    l.length = (size_t) length;
    l.slots = malloc((l.length + 1) * sizeof(*l.slots));
    assert_non_null(l.slots);
    assert_int_equal(schedule_layout(l.turns, n, l.slots, l.length), 0);
    return l;
}

static void assert_order(const uint32_t *weights, size_t n, const char *expected)
{
    struct layout l = lay_out(weights, n);
    char order[N_MAX] = "";

    for (size_t i = 0; i < l.length; i++)
        order[i] = (char) ('a' + l.slots[i]);
    assert_string_equal(order, expected);
    free(l.slots);
}

static void order_is_smooth(void **state)
{
    (void) state;
    assert_order((uint32_t[]){5, 3, 2}, 3, "abacababac");
    assert_order((uint32_t[]){5, 1, 1, 1, 1, 1}, 6, "abacadaeaf");
    assert_order((uint32_t[]){4, 4}, 2, "ab");
    assert_order((uint32_t[]){0, 7, 0}, 3, "b");
    assert_order((uint32_t[]){0, 0}, 2, "");
}

/* A period holds each peer exactly, hence so does any window of S slots of the repeated period, which
 * is a rotation of it; and at any point a peer is less than one turn away from its share. */
static void random_weights_are_met_exactly_and_evenly(void **state)
{
    (void) state;
    srand(1);
    for (int round = 0; round < 300; round++) {
        size_t n = 1 + (size_t) rand() % N_MAX;
        uint32_t weights[N_MAX], max = round % 3 == 0 ? 3 : round % 3 == 1 ? 40 : 1000;
        uint32_t counts[N_MAX] = {0};
        uint64_t sum = 0;

        for (size_t i = 0; i < n; i++) {
            weights[i] = (uint32_t) rand() % max;
            sum += weights[i];
        }

        struct layout l = lay_out(weights, n);

        for (size_t i = 0; i < n && sum > 0; i++) /* shares are those of the weights */
            assert_int_equal(l.turns[i] * sum, weights[i] * (uint64_t) l.length);
        for (size_t slot = 0; slot < l.length; slot++) {
            assert_in_range(l.slots[slot], 0, n - 1);
            counts[l.slots[slot]]++;
            for (size_t i = 0; i < n; i++) {
                int64_t error = (int64_t) (counts[i] * l.length) -
                                (int64_t) (l.turns[i] * (uint64_t) (slot + 1));

                assert_true(llabs(error) < (int64_t) l.length);
            }
        }
        assert_memory_equal(counts, l.turns, n * sizeof(*counts));
        free(l.slots);
    }
}

static void long_schedule_is_quantised_with_an_error_below_one_in_65536(void **state)
{
    enum { N = 60 };
    uint32_t weights[N], turns[N];
    uint64_t sum = 0, slots = 0;

    (void) state;
    srand(2);
    for (size_t i = 0; i < N; i++) {
        weights[i] = 60000 + (uint32_t) rand() % 5000;
        sum += weights[i];
    }
    assert_int_equal(schedule_turns(weights, N, turns), SCHEDULE_LENGTH_MAX);
    for (size_t i = 0; i < N; i++) {
        double share = (double) turns[i] / SCHEDULE_LENGTH_MAX, exact = (double) weights[i] / sum;

        assert_true(share - exact < 1.0 / 65536 && exact - share < 1.0 / 65536);
        slots += turns[i];
    }
    assert_int_equal(slots, SCHEDULE_LENGTH_MAX);
}

static void every_weight_gets_a_slot_however_small_its_share(void **state)
{
    enum { N = 2 * SCHEDULE_LENGTH_MAX };
    uint32_t *weights = malloc(N * sizeof(*weights)), *turns = malloc(N * sizeof(*turns));
    uint64_t slots = 0;

    (void) state;
    assert_true(weights != NULL && turns != NULL);
    for (size_t i = 0; i < N; i++)
        weights[i] = i == 7 ? 65535 : i % 1000 == 0 ? 0 : 1 + i % 2;
    assert_int_equal(schedule_turns(weights, N, turns), N);
    for (size_t i = 0; i < N; i++) {
        assert_int_equal(turns[i] != 0, weights[i] != 0);
        slots += turns[i];
    }
    assert_int_equal(slots, N);
    free(weights);
    free(turns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_is_smooth),
        cmocka_unit_test(random_weights_are_met_exactly_and_evenly),
        cmocka_unit_test(long_schedule_is_quantised_with_an_error_below_one_in_65536),
        cmocka_unit_test(every_weight_gets_a_slot_however_small_its_share),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
