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

/* A period holds each peer exactly, hence so does any window of S slots of the repeated period,
 * which is a rotation of it; and at any point a peer is less than one turn away from its share. */
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

/* Each turn lies in its window, as schedule.h gives it. */
static void assert_windows(const uint32_t *weights, size_t n)
{
    uint32_t *turns = malloc(n * sizeof(*turns)), *seen = calloc(n, sizeof(*seen));
    uint32_t *slots;
    int64_t length;

    assert_true(turns != NULL && seen != NULL);
    length = schedule_turns(weights, n, turns);
    assert_true(length > 0);
    slots = malloc((size_t) length * sizeof(*slots));
    assert_non_null(slots);
    assert_int_equal(schedule_layout(turns, n, slots, (size_t) length), 0);
    for (uint64_t slot = 0; slot < (uint64_t) length; slot++) {
        uint32_t i = slots[slot];
        uint64_t k, w, all = (uint64_t) length;

        assert_in_range(i, 0, n - 1);
        k = seen[i]++;
        w = turns[i];
        assert_true(k < w);
        assert_true(slot >= k * all / w);
        assert_true(slot < ((k + 1) * all + w - 1) / w);
    }
    assert_memory_equal(seen, turns, n * sizeof(*seen));
    free(slots);
    free(seen);
    free(turns);
}

static void turns_of_large_schedules_lie_in_their_windows(void **state)
{
    enum { N = 400000 };
    uint32_t *weights = malloc(N * sizeof(*weights));

    (void) state;
    assert_non_null(weights);
    srand(3);
    for (size_t i = 0; i < 1000; i++) /* about 50,000 slots */
        weights[i] = 1 + (uint32_t) rand() % 99;
    assert_windows(weights, 1000);
    for (size_t i = 0; i < 1000; i++) /* quantised */
        weights[i] = 1 + (uint32_t) rand() % 65535;
    assert_windows(weights, 1000);
    for (size_t i = 0; i < 100000; i++)
        weights[i] = i == 777 ? 2 : 1;
    assert_windows(weights, 100000);
    assert_windows((uint32_t[]){65535, 1, 1}, 3);
    assert_windows((uint32_t[]){65535, 65534}, 2);
    for (size_t i = 0; i < N; i++)
        weights[i] = i % 4 == 0 ? 0 : i % 1000 == 1 ? 50 : 1;
    assert_windows(weights, N);
    free(weights);
}

static void same_weights_make_the_same_schedule(void **state)
{
    uint32_t weights[N_MAX];
    struct layout first, second;

    (void) state;
    srand(4);
    for (size_t i = 0; i < N_MAX; i++)
        weights[i] = (uint32_t) rand() % 1000;
    first = lay_out(weights, N_MAX);
    second = lay_out(weights, N_MAX);
    assert_int_equal(first.length, second.length);
    assert_memory_equal(first.slots, second.slots, first.length * sizeof(*first.slots));
    free(first.slots);
    free(second.slots);
}

static void shares_are_those_of_the_largest_remainder(void **state)
{
    uint32_t shares[4];

    (void) state;
    /* 4.6, 3.2, 2.2 */
    assert_int_equal(schedule_shares((uint32_t[]){46, 0, 32, 22}, 4, 10, shares), 0);
    assert_memory_equal(shares, ((uint32_t[]){5, 0, 3, 2}), sizeof(shares));
    /* Of equal remainders the first; none is left for the last. */
    assert_int_equal(schedule_shares((uint32_t[]){1, 1, 1, 1}, 4, 6, shares), 0);
    assert_memory_equal(shares, ((uint32_t[]){2, 2, 1, 1}), sizeof(shares));
    /* One slot each for the first two; what is left makes 1.5 and 4.5. */
    assert_int_equal(schedule_shares((uint32_t[]){1, 1, 1000, 3000}, 4, 8, shares), 0);
    assert_memory_equal(shares, ((uint32_t[]){1, 1, 2, 4}), sizeof(shares));
    assert_int_equal(schedule_shares((uint32_t[]){0, 0, 0, 0}, 4, 8, shares), 0);
    assert_memory_equal(shares, ((uint32_t[]){0, 0, 0, 0}), sizeof(shares));
}

static void shares_need_a_slot_for_each_weight(void **state)
{
    uint32_t shares[3];

    (void) state;
    assert_int_equal(schedule_shares((uint32_t[]){1, 65535, 7}, 3, 3, shares), 0);
    assert_memory_equal(shares, ((uint32_t[]){1, 1, 1}), sizeof(shares));
    assert_int_equal(schedule_shares((uint32_t[]){1, 65535, 7}, 3, 2, shares), -EINVAL);
}

/* The definition at its word: one slot at a time. */
static void share_out_slowly(const uint32_t *weights, size_t n, uint64_t left, uint32_t *shares)
{
    uint64_t remainders[N_MAX] = {0}, sum = 0;

    memset(shares, 0, n * sizeof(*shares));
    for (size_t i = 0; i < n; i++)
        sum += weights[i];
    for (size_t i = 0; i < n; i++) {
        if (shares[i] == 0 && weights[i] != 0 && weights[i] * left < sum) {
            shares[i] = 1;
            sum -= weights[i];
            left--;
            i = (size_t) -1; /* from the first one again */
        }
    }

    uint64_t rest = left;

    for (size_t i = 0; i < n; i++) {
        if (shares[i] == 0 && weights[i] != 0) {
            shares[i] = (uint32_t) (weights[i] * left / sum);
            remainders[i] = weights[i] * left % sum;
            rest -= shares[i];
        }
    }
    for (; rest > 0; rest--) {
        size_t best = 0;

        for (size_t i = 1; i < n; i++)
            if (remainders[i] > remainders[best])
                best = i;
        assert_true(remainders[best] > 0);
        shares[best]++;
        remainders[best] = 0;
    }
}

static void random_shares_are_those_of_the_definition(void **state)
{
    (void) state;
    srand(5);
    for (int round = 0; round < 1000; round++) {
        size_t n = 1 + (size_t) rand() % N_MAX, length = n + (size_t) rand() % 1000;
        uint32_t weights[N_MAX], shares[N_MAX], expected[N_MAX];

        weights[0] = 1;
        for (size_t i = 1; i < n; i++)
            weights[i] = (uint32_t) rand() % (round % 2 == 0 && i % 3 == 0 ? 65536 : 20);
        share_out_slowly(weights, n, length, expected);
        assert_int_equal(schedule_shares(weights, n, length, shares), 0);
        assert_memory_equal(shares, expected, n * sizeof(*shares));
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
        cmocka_unit_test(turns_of_large_schedules_lie_in_their_windows),
        cmocka_unit_test(same_weights_make_the_same_schedule),
        cmocka_unit_test(shares_are_those_of_the_largest_remainder),
        cmocka_unit_test(shares_need_a_slot_for_each_weight),
        cmocka_unit_test(random_shares_are_those_of_the_definition),
        cmocka_unit_test(long_schedule_is_quantised_with_an_error_below_one_in_65536),
        cmocka_unit_test(every_weight_gets_a_slot_however_small_its_share),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
