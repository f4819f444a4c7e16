/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "maglev.h"

#include <cmocka.h>

#define N 100
#define SIZE 16381 /* of a table for N peers */

static uint32_t weights_of_all[N];

/* Names of another set of peers for each seed. */
static struct maglev_peer make_peer(uint32_t seed, uint32_t i)
{
    char name[32];

    snprintf(name, sizeof(name), "10.0.%u.%u:80", seed, i);
    return (struct maglev_peer){.hash = maglev_hash(name, name),
                                .weight = weights_of_all[i],
                                .value = i};
}

/* A table of the N peers but for one (N: of all). */
static void build(uint32_t seed, uint32_t missing, uint32_t *slots)
{
    struct maglev_peer peers[N];
    size_t n = 0;

    for (uint32_t i = 0; i < N; i++)
        if (i != missing)
            peers[n++] = make_peer(seed, i);
    assert_int_equal(maglev_build(peers, n, slots, SIZE), 0);
}

static void set_weights(uint32_t most)
{
    srand(most);
    for (size_t i = 0; i < N; i++)
        weights_of_all[i] = 1 + (uint32_t) rand() % most;
}

static void count(const uint32_t *slots, uint32_t counts[N])
{
    memset(counts, 0, N * sizeof(*counts));
    for (size_t i = 0; i < SIZE; i++) {
        assert_in_range(slots[i], 0, N - 1);
        counts[slots[i]]++;
    }
}

static void largest_of_equal_shares_is_within_two_percent_of_the_mean(void **state)
{
    uint32_t slots[SIZE], counts[N];

    (void) state;
    set_weights(1);
    assert_int_equal(maglev_size(N, 0), SIZE);
    for (uint32_t seed = 0; seed < 5; seed++) {
        build(seed, N, slots);
        count(slots, counts);
        for (size_t i = 0; i < N; i++) {
            assert_in_range(counts[i], SIZE / N, SIZE / N + 1);
            assert_true(counts[i] * (double) N / SIZE <= 1.02);
        }
    }
}

static void shares_follow_weights_but_for_one_slot(void **state)
{
    static const uint32_t most[] = {2, 10, 1000, 65535};
    uint32_t slots[SIZE], counts[N];

    (void) state;
    for (size_t m = 0; m < sizeof(most) / sizeof(most[0]); m++) {
        uint64_t sum = 0;

        set_weights(most[m]);
        weights_of_all[0] = most[m];
        for (size_t i = 0; i < N; i++)
            sum += weights_of_all[i];
        build(0, N, slots);
        count(slots, counts);
        for (size_t i = 0; i < N; i++) {
            double exact = (double) SIZE * weights_of_all[i] / (double) sum;

            assert_true(counts[i] > 0);
            assert_true(counts[i] < exact + 1.05 && counts[i] > exact - 1.05);
        }
    }
}

static void smallest_weight_has_a_slot_beside_the_largest(void **state)
{
    uint32_t slots[SIZE], counts[N];

    (void) state;
    set_weights(1);
    weights_of_all[0] = 65535;
    build(0, N, slots);
    count(slots, counts);
    assert_int_equal(counts[0], SIZE - (N - 1));
    for (size_t i = 1; i < N; i++)
        assert_int_equal(counts[i], 1);
}

/* Keys that move from one peer to another when a third one goes, over all keys: the mean over the
 * peers, and the most. */
static void measure_moves(uint32_t seed, double *ret_mean, double *ret_most)
{
    static uint32_t all[SIZE], rest[SIZE];
    double sum = 0, most = 0;

    build(seed, N, all);
    for (uint32_t missing = 0; missing < N; missing++) {
        uint32_t moved = 0;

        build(seed, missing, rest);
        for (size_t i = 0; i < SIZE; i++)
            moved += all[i] != missing && all[i] != rest[i];
        sum += (double) moved / SIZE;
        if ((double) moved / SIZE > most)
            most = (double) moved / SIZE;
    }
    *ret_mean = sum / N;
    *ret_most = most;
}

static void one_of_100_peers_that_goes_moves_few_keys_of_others(void **state)
{
    double mean, most;

    (void) state;
    set_weights(1);
    for (uint32_t seed = 0; seed < 3; seed++) {
        measure_moves(seed, &mean, &most);
        assert_true(mean < 0.008);
        assert_true(most < 0.015);
    }
    set_weights(10);
    measure_moves(0, &mean, &most);
    assert_true(mean < 0.008);
    assert_true(most < 0.015);
}

/* Half of all keys are the first one's. */
static void heavy_peer_that_goes_moves_few_keys_of_others(void **state)
{
    double mean, most;

    (void) state;
    set_weights(1);
    weights_of_all[0] = N - 1;
    measure_moves(0, &mean, &most);
    assert_true(mean < 0.008);
    assert_true(most < 0.025);
}

static void table_depends_on_names_and_not_on_order_or_ids(void **state)
{
    struct maglev_peer first[N], second[N];
    uint32_t slots_first[SIZE], slots_second[SIZE];

    (void) state;
    set_weights(5);
    for (uint32_t i = 0; i < N; i++) {
        first[i] = second[N - 1 - i] = make_peer(0, i);
        second[N - 1 - i].value = 1000 + i;
    }
    assert_int_equal(maglev_build(first, N, slots_first, SIZE), 0);
    assert_int_equal(maglev_build(second, N, slots_second, SIZE), 0);
    for (size_t i = 0; i < SIZE; i++)
        assert_int_equal(slots_first[i] + 1000, slots_second[i]);
}

static void name_and_address_both_count_and_do_not_run_together(void **state)
{
    (void) state;
    assert_true(maglev_hash("a", "b") != maglev_hash("a", "c"));
    assert_true(maglev_hash("a", "b") != maglev_hash("c", "b"));
    assert_true(maglev_hash("ab", "c") != maglev_hash("a", "bc"));
}

static int is_prime(uint32_t n)
{
    for (uint32_t i = 2; i * i <= n; i++)
        if (n % i == 0)
            return 0;
    return n > 1;
}

static void size_is_a_prime_with_room_for_each_peer(void **state)
{
    (void) state;
    assert_int_equal(maglev_size(0, 0), 0);
    assert_int_equal(maglev_size(1, 0), MAGLEV_SIZE_MIN);
    assert_int_equal(maglev_size(17, 0), 16381);
    assert_int_equal(maglev_size(128, 0), 16381);
    assert_int_equal(maglev_size(129, 0), 131071);
    assert_int_equal(maglev_size(1032, 0), 131071);
    assert_int_equal(maglev_size(1033, 0), MAGLEV_SIZE_MAX);
    assert_int_equal(maglev_size(MAGLEV_SIZE_MAX, 0), MAGLEV_SIZE_MAX);
    assert_int_equal(maglev_size(MAGLEV_SIZE_MAX + 1U, 0), 0);
    for (size_t n = 1; n < 10000; n += 7) {
        uint32_t size = maglev_size(n, 0);

        assert_true(is_prime(size));
        assert_true(size >= n * MAGLEV_SLOTS_PER_PEER || size == MAGLEV_SIZE_MAX);
    }
}

static void size_grows_with_the_17th_peer_and_never_shrinks(void **state)
{
    uint32_t size = 0;

    (void) state;
    for (size_t n = 1; n <= 16; n++)
        assert_int_equal(size = maglev_size(n, size), MAGLEV_SIZE_MIN);
    assert_int_equal(size = maglev_size(17, size), 16381);
    for (size_t n = 17; n >= 1; n--)
        assert_int_equal(size = maglev_size(n, size), 16381);
}

static void colliding_peers_fill_a_table_up_to_its_last_slot(void **state)
{
    enum { SMALL = 2039 };
    struct maglev_peer *peers = calloc(SMALL + 1, sizeof(*peers));
    uint32_t slots[SMALL];

    (void) state;
    assert_non_null(peers);
    for (uint32_t i = 0; i <= SMALL; i++) /* all have one permutation: every bid collides */
        peers[i] = (struct maglev_peer){.hash = 42, .weight = 1 + i * 31 % 65535, .value = i};
    assert_int_equal(maglev_build(peers, SMALL + 1, slots, SMALL), -EINVAL);
    for (size_t n = SMALL - 500; n <= SMALL; n += 250) {
        uint32_t counts[SMALL + 1] = {0};

        assert_int_equal(maglev_build(peers, n, slots, SMALL), 0);
        for (size_t i = 0; i < SMALL; i++) {
            assert_in_range(slots[i], 0, n - 1);
            counts[slots[i]]++;
        }
        for (size_t i = 0; i < n; i++)
            assert_true(counts[i] > 0);
    }
    free(peers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(largest_of_equal_shares_is_within_two_percent_of_the_mean),
        cmocka_unit_test(shares_follow_weights_but_for_one_slot),
        cmocka_unit_test(smallest_weight_has_a_slot_beside_the_largest),
        cmocka_unit_test(one_of_100_peers_that_goes_moves_few_keys_of_others),
        cmocka_unit_test(heavy_peer_that_goes_moves_few_keys_of_others),
        cmocka_unit_test(table_depends_on_names_and_not_on_order_or_ids),
        cmocka_unit_test(name_and_address_both_count_and_do_not_run_together),
        cmocka_unit_test(size_is_a_prime_with_room_for_each_peer),
        cmocka_unit_test(size_grows_with_the_17th_peer_and_never_shrinks),
        cmocka_unit_test(colliding_peers_fill_a_table_up_to_its_last_slot),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
