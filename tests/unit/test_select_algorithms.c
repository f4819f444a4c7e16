/* SPDX-License-Identifier: MIT */
/* durpina_select.h: the algorithms that turns and keys decide, against references. */
#include "select_walk.h"

/* The slot at place, else the first available one of those that the hashes of the seed name. */
static void expect_slot(struct walk *w, struct durpina_table table, uint64_t place, uint64_t seed,
                        uint32_t i)
{
    for (int n = 0; n < DURPINA_SLOT_TRIES; n++) {
        uint32_t wanted = slot(w, table, place);

        if (w->available[wanted]) {
            w->first_choices += n == 0;
            assert_int_equal(i, wanted);
            return;
        }
        seed = durpina_mix(seed + 1);
        place = ((seed >> 32) * table.length) >> 32;
    }
}

static void expect_turn(struct walk *w, const struct durpina_tier *tier, uint32_t i)
{
    uint64_t *cursors = w->request.algorithm == DURPINA_ROUND_ROBIN
                            ? scene_cursor(w->s)->round_robin
                            : scene_cursor(w->s)->unweighted;
    struct durpina_table table =
        w->request.algorithm == DURPINA_ROUND_ROBIN ? tier->schedule : tier->members;
    uint64_t ticket = w->ticket[tier_of(w, tier)];

    assert_int_equal(cursors[tier_of(w, tier)], ticket + 1);
    expect_slot(w, table, ticket % table.length, ticket, i);
}

/* The most that peer i may have in flight, or UINT64_MAX without a bound. */
static uint64_t bound_of(const struct walk *w, const struct durpina_tier *tier, uint32_t i)
{
    unsigned __int128 share =
        (unsigned __int128) w->request.bound * (w->n_held + 1) * w->s->want[i].weight;
    uint64_t all = tier->weight * DURPINA_BOUND_ONE;

    return w->request.bound == 0 ? UINT64_MAX : (uint64_t) ((share + all - 1) / all);
}

/* Leaves only those available that are below the bound, if there are any, and i has to be one. */
static void keep_bound(struct walk *w, const struct durpina_tier *tier, uint32_t i)
{
    uint32_t below = 0;

    for (uint32_t k = 0; k < w->s->n; k++)
        below += w->s->tier[k] == tier_of(w, tier) && w->available[k] &&
                 w->active[k] < bound_of(w, tier, k);
    if (below == 0)
        return;
    for (uint32_t k = 0; k < w->s->n; k++)
        w->available[k] = w->available[k] && w->active[k] < bound_of(w, tier, k);
    assert_true(w->available[i]);
}

static void expect_hashed(struct walk *w, const struct durpina_tier *tier, uint32_t i)
{
    uint64_t hash = w->request.hash;

    keep_bound(w, tier, i);
    expect_slot(w, tier->hash, ((hash >> 32) * tier->hash.length) >> 32, hash, i);
}

/* nginx's rule: the first point at or behind the hash, and round the circle. */
static void expect_point(struct walk *w, const struct durpina_tier *tier, uint32_t i)
{
    const uint32_t *at = &w->s->slots[tier->ring.offset];
    uint32_t n = at[1], first = 0;
    const uint32_t *hashes = at + DURPINA_RING_HEADER + (1U << at[0]);

    keep_bound(w, tier, i);
    for (uint32_t half = n; half > 0; half /= 2)
        while (first + half <= n && hashes[first + half - 1] < (uint32_t) w->request.hash)
            first += half;
    assert_true(first == n || hashes[first] >= (uint32_t) w->request.hash);
    assert_true(first == 0 || hashes[first - 1] < (uint32_t) w->request.hash);
    for (uint32_t k = 0; k < DURPINA_SLOT_TRIES; k++) {
        uint32_t wanted = hashes[n + (first + k) % n] - SCENE_FIRST;

        if (w->available[wanted]) {
            w->first_choices += k == 0;
            assert_int_equal(i, wanted);
            return;
        }
    }
}

static void round_robin_takes_the_slot_whose_turn_it_is(void **state)
{
    (void) state;
    walk(DURPINA_ROUND_ROBIN, 0, 64, expect_turn);
}

static void unweighted_takes_the_member_whose_turn_it_is(void **state)
{
    (void) state;
    walk(DURPINA_UNWEIGHTED_ROUND_ROBIN, 0, 64, expect_turn);
}

static void hash_takes_the_owner_of_the_slot_or_steps_on(void **state)
{
    (void) state;
    walk(DURPINA_HASH, 0, 16, expect_hashed);
}

static void ring_takes_the_next_point_or_walks_on(void **state)
{
    (void) state;
    walk(DURPINA_RING, 0, 64, expect_point);
}

static void bounded_hash_keeps_everybody_below_c_times_the_mean(void **state)
{
    (void) state;
    walk(DURPINA_HASH, DURPINA_BOUND_DEFAULT, 16, expect_hashed);
}

static void bounded_ring_keeps_everybody_below_c_times_the_mean(void **state)
{
    (void) state;
    walk(DURPINA_RING, DURPINA_BOUND_ONE, 64, expect_point);
    walk(DURPINA_RING, 2 * DURPINA_BOUND_ONE, 64, expect_point);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_robin_takes_the_slot_whose_turn_it_is),
        cmocka_unit_test(unweighted_takes_the_member_whose_turn_it_is),
        cmocka_unit_test(hash_takes_the_owner_of_the_slot_or_steps_on),
        cmocka_unit_test(ring_takes_the_next_point_or_walks_on),
        cmocka_unit_test(bounded_hash_keeps_everybody_below_c_times_the_mean),
        cmocka_unit_test(bounded_ring_keeps_everybody_below_c_times_the_mean),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
