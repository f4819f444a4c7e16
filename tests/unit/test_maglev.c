/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "maglev.h"

#include <cmocka.h>

#define N 50

struct table {
    uint32_t size;
    uint32_t slots[16381];
};

/* Peers n_from..n_to with these weights (NULL: 1 each); values are their numbers. */
static struct table *build(size_t from, size_t to, const uint32_t *weights)
{
    struct maglev_peer peers[N];
    struct table *table = calloc(1, sizeof(*table));
    size_t n = 0;

    assert_non_null(table);
    for (size_t i = from; i < to; i++) {
        char name[32];

        snprintf(name, sizeof(name), "10.0.0.%zu:80", i);
        peers[n++] = (struct maglev_peer){.hash = maglev_hash(name, name),
                                          .weight = weights == NULL ? 1 : weights[i],
                                          .value = (uint32_t) i};
    }
    table->size = 8191;
    assert_int_equal(maglev_build(peers, n, table->slots, table->size), 0);
    return table;
}

static void count(const struct table *table, uint32_t counts[N])
{
    memset(counts, 0, N * sizeof(*counts));
    for (uint32_t i = 0; i < table->size; i++) {
        assert_in_range(table->slots[i], 0, N - 1);
        counts[table->slots[i]]++;
    }
}

static void equal_weights_get_equal_shares(void **state)
{
    struct table *table = build(0, N, NULL);
    uint32_t counts[N];

    (void) state;
    count(table, counts);
    for (size_t i = 0; i < N; i++)
        assert_in_range(counts[i], 8191 / N, 8191 / N + 1);
    free(table);
}

static void shares_follow_weights(void **state)
{
    uint32_t weights[N], counts[N], sum = 0;
    struct table *table;

    (void) state;
    for (uint32_t i = 0; i < N; i++)
        sum += weights[i] = 1 + i % 7;
    table = build(0, N, weights);
    count(table, counts);
    for (size_t i = 0; i < N; i++) {
        double exact = 8191.0 * weights[i] / sum;

        assert_true(counts[i] > exact - 2 && counts[i] < exact + 2);
    }
    free(table);
}

static void smallest_weight_has_a_slot_beside_the_largest(void **state)
{
    uint32_t weights[N], counts[N];
    struct table *table;

    (void) state;
    for (uint32_t i = 0; i < N; i++)
        weights[i] = i == 0 ? 65535 : 1;
    table = build(0, N, weights);
    count(table, counts);
    for (size_t i = 1; i < N; i++)
        assert_int_equal(counts[i], 1);
    free(table);
}

static void peer_that_goes_moves_few_keys_of_others(void **state)
{
    struct table *all = build(0, N, NULL), *without_last = build(0, N - 1, NULL);
    uint32_t moved = 0;

    (void) state;
    for (uint32_t i = 0; i < all->size; i++)
        moved += all->slots[i] != N - 1 && all->slots[i] != without_last->slots[i];
    /* 164 slots have to move; the paper finds about as many others. */
    assert_in_range(moved, 0, all->size / 20);
    free(all);
    free(without_last);
}

static void table_depends_on_names_and_not_on_order_or_ids(void **state)
{
    struct maglev_peer first[N], second[N];
    uint32_t slots_first[8191], slots_second[8191];

    (void) state;
    for (uint32_t i = 0; i < N; i++) {
        char name[32];

        snprintf(name, sizeof(name), "peer%u:80", i);
        first[i] = (struct maglev_peer){maglev_hash(name, "1.2.3.4:80"), 1 + i % 5, i};
        second[N - 1 - i] = first[i];
        second[N - 1 - i].value = 1000 + i;
    }
    assert_int_equal(maglev_build(first, N, slots_first, 8191), 0);
    assert_int_equal(maglev_build(second, N, slots_second, 8191), 0);
    for (size_t i = 0; i < 8191; i++)
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

static void more_peers_than_a_table_favours_still_fill_it(void **state)
{
    struct maglev_peer *peers = calloc(2000, sizeof(*peers));
    uint32_t slots[2039];

    (void) state;
    assert_non_null(peers);
    for (uint32_t i = 0; i < 2000; i++) /* all with the same hash: every claim collides */
        peers[i] = (struct maglev_peer){.hash = 42, .weight = 1 + i % 65535, .value = i};
    assert_int_equal(maglev_build(peers, 2000, slots, 2039), 0);
    for (size_t i = 0; i < 2039; i++)
        assert_in_range(slots[i], 0, 1999);
    free(peers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_weights_get_equal_shares),
        cmocka_unit_test(shares_follow_weights),
        cmocka_unit_test(smallest_weight_has_a_slot_beside_the_largest),
        cmocka_unit_test(peer_that_goes_moves_few_keys_of_others),
        cmocka_unit_test(table_depends_on_names_and_not_on_order_or_ids),
        cmocka_unit_test(name_and_address_both_count_and_do_not_run_together),
        cmocka_unit_test(size_is_a_prime_with_room_for_each_peer),
        cmocka_unit_test(size_grows_with_the_17th_peer_and_never_shrinks),
        cmocka_unit_test(more_peers_than_a_table_favours_still_fill_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
