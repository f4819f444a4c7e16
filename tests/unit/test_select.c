/* SPDX-License-Identifier: MIT */
/* durpina_select.h over maps in plain memory; the numbers are its invariants. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "durpina_select.h"

#define UPSTREAMS 2
#define PEERS 300
#define SLOTS 8192
#define GENERATION 7
#define FAIL_TIMEOUT_MS 10000
#define NOW_MS 1000000ULL

struct world {
    struct durpina_meta meta;
    struct durpina_upstream upstreams[UPSTREAMS];
    struct durpina_peer peers[PEERS];
    uint32_t slots[SLOTS];
    struct durpina_counters counters[PEERS];
    struct durpina_cursor cursors[UPSTREAMS];
    struct durpina_maps maps;
    uint32_t used; /* slots */
};

static const struct durpina_tried nobody;

static struct durpina_table add_table(struct world *w, const uint32_t *slots, uint32_t n)
{
    struct durpina_table table = {w->used, n};

    assert_true(w->used + n <= SLOTS);
    memcpy(w->slots + w->used, slots, n * sizeof(*slots));
    w->used += n;
    return table;
}

/* Upstream 0 with n peers, all up; the schedule repeats peer i weights[i] times (NULL: once). */
static struct world *world_create(uint32_t n, const uint32_t *weights)
{
    struct world *w = calloc(1, sizeof(*w));
    uint32_t slots[SLOTS], length = 0;

    assert_non_null(w);
    w->maps = (struct durpina_maps){&w->meta,   w->upstreams, w->peers, w->slots, w->counters,
                                    w->cursors, UPSTREAMS,    PEERS,    SLOTS};
    for (uint32_t i = 0; i < n; i++) {
        w->peers[i].generation = w->counters[i].generation = 100 + i;
        for (int copy = 0; copy < 2; copy++)
            w->peers[i].settings[copy] =
                (struct durpina_peer_settings){.state = DURPINA_PEER_UP,
                                               .weight = weights ? weights[i] : 1,
                                               .max_fails = 1,
                                               .fail_timeout_ms = FAIL_TIMEOUT_MS};
    }

    struct durpina_upstream *u = &w->upstreams[0];

    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < (weights ? weights[i] : 1); k++)
            slots[length++] = i;
    u->view[0].tier[0].schedule = add_table(w, slots, length);
    u->view[0].tier[0].hash = u->view[0].tier[0].schedule;
    for (uint32_t i = 0; i < n; i++)
        slots[i] = i;
    u->view[0].peers = u->view[0].tier[0].members = add_table(w, slots, n);
    u->view[1] = u->view[0];
    u->generation = GENERATION;
    u->publish = 2;
    return w;
}

static void set_state(struct world *w, uint32_t peer, enum durpina_peer_state state)
{
    w->peers[peer].settings[0].state = w->peers[peer].settings[1].state = state;
}

static enum durpina_pick_error pick(struct world *w, enum durpina_algorithm algorithm,
                                    uint64_t hash, uint64_t now_ms, struct durpina_pick *ret)
{
    return durpina_pick(&w->maps, 0, GENERATION, algorithm, hash, &nobody, now_ms, ret);
}

/* Picks by round robin and finishes; returns the peer, or DURPINA_NONE. */
static uint32_t serve(struct world *w, enum durpina_outcome outcome, uint64_t now_ms)
{
    struct durpina_pick p;

    if (pick(w, DURPINA_ROUND_ROBIN, 0, now_ms, &p) != DURPINA_PICK_OK)
        return DURPINA_NONE;
    durpina_finish(&w->maps, &p, outcome, now_ms);
    return p.peer;
}

static void any_run_of_s_picks_holds_each_weight(void **state) /* S3 */
{
    const uint32_t weights[] = {5, 3, 2};
    struct world *w = world_create(3, weights);
    uint32_t got[50];

    (void) state;
    for (int i = 0; i < 50; i++)
        got[i] = serve(w, DURPINA_OUTCOME_SUCCESS, NOW_MS);
    for (int from = 0; from + 10 <= 50; from++) {
        uint32_t n[3] = {0};

        for (int i = from; i < from + 10; i++)
            n[got[i]]++;
        assert_memory_equal(n, weights, sizeof(n));
    }
    free(w);
}

static void unweighted_takes_each_member_in_turn(void **state)
{
    const uint32_t weights[] = {5, 3, 2};
    struct world *w = world_create(3, weights);
    struct durpina_pick p;

    (void) state;
    for (uint32_t i = 0; i < 9; i++) {
        assert_int_equal(pick(w, DURPINA_UNWEIGHTED_ROUND_ROBIN, 0, NOW_MS, &p), DURPINA_PICK_OK);
        assert_int_equal(p.peer, i % 3);
    }
    free(w);
}

static void overtaken_pick_keeps_its_ticket(void **state) /* S3 */
{
    struct world *w = world_create(3, NULL);
    struct durpina_picking p = {.maps = &w->maps,
                                .upstream = w->upstreams,
                                .word = w->upstreams[0].publish - 1, /* an older one */
                                .tried = &nobody,
                                .now_ms = NOW_MS};
    struct durpina_pick taken;

    (void) state;
    assert_int_equal(durpina_take(&p, 0, &taken), DURPINA_OVERTAKEN);
    assert_int_equal(w->counters[0].active, 0);
    assert_int_equal(w->counters[0].requests, 0);
    for (uint32_t i = 0; i < 6; i++)
        assert_int_equal(serve(w, DURPINA_OUTCOME_SUCCESS, NOW_MS), i % 3);
    assert_int_equal(w->cursors[0].round_robin[0], 6);
    free(w);
}

static void active_counts_picks_that_are_not_finished(void **state) /* S4 */
{
    struct world *w = world_create(1, NULL);
    struct durpina_pick p[3];

    (void) state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(pick(w, DURPINA_ROUND_ROBIN, 0, NOW_MS, &p[i]), DURPINA_PICK_OK);
    assert_int_equal(w->counters[0].active, 3);
    assert_int_equal(w->counters[0].requests, 3);
    for (int i = 0; i < 3; i++)
        durpina_finish(&w->maps, &p[i], (enum durpina_outcome) i, NOW_MS);
    assert_int_equal(w->counters[0].active, 0);
    free(w);
}

static void finish_of_an_older_generation_changes_nothing(void **state) /* S4 */
{
    struct world *w = world_create(1, NULL);
    struct durpina_counters before;
    struct durpina_pick p;

    (void) state;
    assert_int_equal(pick(w, DURPINA_ROUND_ROBIN, 0, NOW_MS, &p), DURPINA_PICK_OK);
    w->counters[0].generation++;
    before = w->counters[0];
    durpina_finish(&w->maps, &p, DURPINA_OUTCOME_FAILURE, NOW_MS);
    assert_memory_equal(&before, &w->counters[0], sizeof(before));
    free(w);
}

static void tried_peers_are_not_picked_again(void **state)
{
    const uint32_t weights[] = {4000, 1, 1};
    struct world *w = world_create(3, weights);
    struct durpina_tried tried = {0};
    struct durpina_pick p;
    uint32_t seen = 0;

    (void) state;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(durpina_pick(&w->maps, 0, GENERATION, DURPINA_ROUND_ROBIN, 0, &tried,
                                      NOW_MS, &p),
                         DURPINA_PICK_OK);
        tried.peers[tried.n++] = p.peer;
        seen |= 1U << p.peer;
    }
    assert_int_equal(seen, 7);
    assert_int_equal(durpina_pick(&w->maps, 0, GENERATION, DURPINA_ROUND_ROBIN, 0, &tried, NOW_MS,
                                  &p),
                     DURPINA_PICK_NO_PEER);
    free(w);
}

static void max_fails_failures_take_a_peer_out_and_not_one_less(void **state)
{
    (void) state;
    for (uint32_t max_fails = 1; max_fails <= 4; max_fails++) {
        struct world *w = world_create(2, NULL);

        w->peers[0].settings[0].max_fails = w->peers[0].settings[1].max_fails = max_fails;
        for (uint32_t i = 1; i <= max_fails; i++) {
            assert_false(durpina_is_temp_down(&w->counters[0], NOW_MS));
            assert_int_equal(durpina_fail(&w->maps, 0, NOW_MS), i);
        }
        assert_true(durpina_is_temp_down(&w->counters[0], NOW_MS));
        assert_int_equal(w->counters[0].unavail, 1);
        for (int i = 0; i < 10; i++)
            assert_int_equal(serve(w, DURPINA_OUTCOME_SUCCESS, NOW_MS + FAIL_TIMEOUT_MS - 1), 1);
        free(w);
    }
}

static void max_fails_zero_never_takes_out(void **state)
{
    struct world *w = world_create(2, NULL);

    (void) state;
    w->peers[0].settings[0].max_fails = w->peers[0].settings[1].max_fails = 0;
    for (int i = 0; i < 10; i++)
        assert_int_equal(durpina_fail(&w->maps, 0, NOW_MS), 0);
    assert_false(durpina_is_temp_down(&w->counters[0], NOW_MS));
    assert_int_equal(w->counters[0].failed, 10);
    free(w);
}

static void failures_further_apart_than_fail_timeout_do_not_add_up(void **state)
{
    struct world *w = world_create(2, NULL);
    uint64_t now_ms = UINT32_MAX - 5000ULL; /* the 32 bit clock wraps meanwhile */

    (void) state;
    w->peers[0].settings[0].max_fails = w->peers[0].settings[1].max_fails = 2;
    assert_int_equal(durpina_fail(&w->maps, 0, now_ms), 1);
    now_ms += FAIL_TIMEOUT_MS + 1;
    assert_int_equal(durpina_fails(&w->counters[0], FAIL_TIMEOUT_MS, now_ms), 0);
    assert_int_equal(durpina_fail(&w->maps, 0, now_ms), 1);
    now_ms += FAIL_TIMEOUT_MS;
    assert_int_equal(durpina_fail(&w->maps, 0, now_ms), 2);
    assert_true(durpina_is_temp_down(&w->counters[0], now_ms));
    free(w);
}

static void old_failure_is_over_for_as_long_as_the_clock_can_tell(void **state)
{
    struct world *w = world_create(2, NULL);
    const uint64_t day_ms = 24 * 3600 * 1000;

    (void) state;
    durpina_fail(&w->maps, 0, NOW_MS);
    for (uint64_t day = 1; day < 49; day++)
        assert_int_equal(durpina_fails(&w->counters[0], FAIL_TIMEOUT_MS, NOW_MS + day * day_ms), 0);
    /* Another worker's clock is a moment behind the one that counted. */
    assert_int_equal(durpina_fails(&w->counters[0], FAIL_TIMEOUT_MS, NOW_MS - 100), 1);
    free(w);
}

static void temp_down_peer_gets_one_request_per_fail_timeout(void **state) /* S5 */
{
    struct world *w = world_create(2, NULL);
    struct durpina_pick probe, p;
    uint64_t now_ms = NOW_MS + FAIL_TIMEOUT_MS;

    (void) state;
    durpina_fail(&w->maps, 0, NOW_MS);
    assert_int_equal(pick(w, DURPINA_ROUND_ROBIN, 0, now_ms, &probe), DURPINA_PICK_OK);
    assert_int_equal(probe.peer, 0);
    assert_true(probe.probing);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(pick(w, DURPINA_ROUND_ROBIN, 0, now_ms, &p), DURPINA_PICK_OK);
        assert_int_equal(p.peer, 1);
    }

    /* It fails: out again at once. It passes: back for everybody. */
    durpina_finish(&w->maps, &probe, DURPINA_OUTCOME_FAILURE, now_ms + 1);
    assert_true(durpina_is_temp_down(&w->counters[0], now_ms + FAIL_TIMEOUT_MS));
    now_ms += 1 + FAIL_TIMEOUT_MS;
    while (pick(w, DURPINA_ROUND_ROBIN, 0, now_ms, &probe) == DURPINA_PICK_OK && probe.peer != 0)
        ;
    assert_int_equal(probe.peer, 0);
    durpina_finish(&w->maps, &probe, DURPINA_OUTCOME_SUCCESS, now_ms);
    assert_int_equal(w->counters[0].down_until_ms, 0);
    assert_int_equal(durpina_fails(&w->counters[0], FAIL_TIMEOUT_MS, now_ms), 0);
    free(w);
}

static void success_of_an_older_request_does_not_bring_a_peer_back(void **state)
{
    struct world *w = world_create(2, NULL);
    struct durpina_pick old;

    (void) state;
    assert_int_equal(pick(w, DURPINA_ROUND_ROBIN, 0, NOW_MS, &old), DURPINA_PICK_OK);
    assert_int_equal(old.peer, 0);
    durpina_fail(&w->maps, 0, NOW_MS);
    durpina_finish(&w->maps, &old, DURPINA_OUTCOME_SUCCESS, NOW_MS);
    assert_true(durpina_is_temp_down(&w->counters[0], NOW_MS));
    free(w);
}

static void only_peer_is_never_taken_out_by_failures(void **state)
{
    struct world *w = world_create(1, NULL);

    (void) state;
    for (int i = 0; i < 5; i++)
        assert_int_equal(serve(w, DURPINA_OUTCOME_FAILURE, NOW_MS), 0);
    durpina_set_temp_down(&w->counters[0], FAIL_TIMEOUT_MS, NOW_MS);
    assert_int_equal(serve(w, DURPINA_OUTCOME_SUCCESS, NOW_MS), 0);
    free(w);
}

static void no_available_peer_ends_at_once(void **state)
{
    struct world *w = world_create(PEERS, NULL);
    struct durpina_pick p;

    (void) state;
    for (uint32_t i = 0; i < PEERS; i++)
        set_state(w, i, i % 2 ? DURPINA_PEER_DOWN : DURPINA_PEER_UNHEALTHY);
    for (int algorithm = DURPINA_ROUND_ROBIN; algorithm <= DURPINA_HASH; algorithm++)
        assert_int_equal(pick(w, (enum durpina_algorithm) algorithm, 5, NOW_MS, &p),
                         DURPINA_PICK_NO_PEER);
    free(w);
}

static void last_available_of_64_is_found_from_everywhere(void **state) /* S2 */
{
    struct world *w = world_create(DURPINA_MEMBER_TRIES, NULL);
    struct durpina_pick p;

    (void) state;
    for (uint32_t i = 0; i < DURPINA_MEMBER_TRIES; i++)
        if (i != 41)
            durpina_set_temp_down(&w->counters[i], FAIL_TIMEOUT_MS, NOW_MS);
    for (uint64_t i = 0; i < 500; i++)
        for (int algorithm = DURPINA_ROUND_ROBIN; algorithm <= DURPINA_HASH; algorithm++) {
            assert_int_equal(pick(w, (enum durpina_algorithm) algorithm, i * 0x9e3779b9, NOW_MS,
                                  &p),
                             DURPINA_PICK_OK);
            assert_int_equal(p.peer, 41);
        }
    free(w);
}

static void peer_that_goes_down_moves_only_its_own_keys(void **state)
{
    struct world *w = world_create(50, NULL);
    struct durpina_pick before[1000], p;

    (void) state;
    for (uint64_t key = 0; key < 1000; key++)
        assert_int_equal(pick(w, DURPINA_HASH, durpina_mix(key + 1), NOW_MS, &before[key]),
                         DURPINA_PICK_OK);
    set_state(w, 13, DURPINA_PEER_DOWN);
    for (uint64_t key = 0; key < 1000; key++) {
        assert_int_equal(pick(w, DURPINA_HASH, durpina_mix(key + 1), NOW_MS, &p), DURPINA_PICK_OK);
        assert_int_not_equal(p.peer, 13);
        if (before[key].peer != 13)
            assert_int_equal(p.peer, before[key].peer);
    }
    set_state(w, 13, DURPINA_PEER_UP);
    for (uint64_t key = 0; key < 1000; key++) {
        assert_int_equal(pick(w, DURPINA_HASH, durpina_mix(key + 1), NOW_MS, &p), DURPINA_PICK_OK);
        assert_int_equal(p.peer, before[key].peer);
    }
    free(w);
}

static void backups_serve_only_without_primaries(void **state)
{
    struct world *w = world_create(3, NULL);
    const uint32_t primaries[] = {0, 1}, backups[] = {2};

    (void) state;
    for (int copy = 0; copy < 2; copy++) {
        struct durpina_view *view = &w->upstreams[0].view[copy];

        view->tier[0].schedule = view->tier[0].members = add_table(w, primaries, 2);
        view->tier[1].schedule = view->tier[1].members = add_table(w, backups, 1);
    }
    for (int i = 0; i < 10; i++)
        assert_true(serve(w, DURPINA_OUTCOME_SUCCESS, NOW_MS) < 2);
    durpina_fail(&w->maps, 0, NOW_MS);
    durpina_fail(&w->maps, 1, NOW_MS);
    for (int i = 0; i < 10; i++)
        assert_int_equal(serve(w, DURPINA_OUTCOME_SUCCESS, NOW_MS), 2);
    free(w);
}

struct racer {
    pthread_t thread;
    struct world *world;
    uint32_t most; /* active seen by a holder of a pick */
    uint32_t picks;
};

#define MAX_CONNS 3

static void *race(void *arg)
{
    struct racer *racer = arg;
    struct durpina_pick held[4];

    for (int round = 0; round < 20000; round++) {
        int n = 0;

        while (n < 4 &&
               pick(racer->world, DURPINA_ROUND_ROBIN, 0, NOW_MS, &held[n]) == DURPINA_PICK_OK)
            n++;
        racer->picks += (uint32_t) n;
        for (int i = 0; i < n; i++) {
            uint32_t *holders = &racer->world->slots[SLOTS - 1]; /* a word to count in */
            uint32_t now = __atomic_add_fetch(holders, 1, __ATOMIC_SEQ_CST);

            if (now > racer->most)
                racer->most = now;
        }
        for (int i = 0; i < n; i++) {
            __atomic_sub_fetch(&racer->world->slots[SLOTS - 1], 1, __ATOMIC_SEQ_CST);
            durpina_finish(&racer->world->maps, &held[i], DURPINA_OUTCOME_SUCCESS, NOW_MS);
        }
    }
    return NULL;
}

static void max_conns_is_never_exceeded_by_racing_workers(void **state) /* S4 */
{
    struct world *w = world_create(1, NULL);
    struct racer racers[4] = {0};
    uint64_t picks = 0;

    (void) state;
    for (int copy = 0; copy < 2; copy++)
        w->peers[0].settings[copy].max_conns = MAX_CONNS;
    for (int i = 0; i < 4; i++) {
        racers[i].world = w;
        assert_int_equal(pthread_create(&racers[i].thread, NULL, race, &racers[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(racers[i].thread, NULL);
        assert_true(racers[i].most <= MAX_CONNS);
        picks += racers[i].picks;
    }
    assert_true(picks > 0); /* of one racer at least: who is scheduled badly may get none */
    assert_int_equal(w->counters[0].active, 0);
    free(w);
}

static void free_or_other_upstream_is_told(void **state)
{
    struct world *w = world_create(2, NULL);
    struct durpina_pick p;

    (void) state;
    assert_int_equal(durpina_pick(&w->maps, 0, GENERATION + 1, DURPINA_ROUND_ROBIN, 0, &nobody,
                                  NOW_MS, &p),
                     DURPINA_PICK_NO_UPSTREAM);
    assert_int_equal(durpina_pick(&w->maps, 1, 0, DURPINA_ROUND_ROBIN, 0, &nobody, NOW_MS, &p),
                     DURPINA_PICK_NO_UPSTREAM);
    assert_int_equal(durpina_pick(&w->maps, DURPINA_NONE, 0, DURPINA_ROUND_ROBIN, 0, &nobody,
                                  NOW_MS, &p),
                     DURPINA_PICK_NO_UPSTREAM);
    free(w);
}

/* Under ASan each map is an allocation of its own: a read beyond its end is an error. */
static void random_bytes_in_every_map_are_read_within_bounds(void **state)
{
    struct durpina_tried tried = {.n = UINT32_MAX};
    struct durpina_pick p;

    (void) state;
    srand(1);
    for (int round = 0; round < 2000; round++) {
        struct durpina_meta *meta = malloc(sizeof(*meta));
        struct durpina_upstream *upstreams = malloc(UPSTREAMS * sizeof(*upstreams));
        struct durpina_peer *peers = malloc(8 * sizeof(*peers));
        uint32_t *slots = malloc(64 * sizeof(*slots));
        struct durpina_counters *counters = malloc(8 * sizeof(*counters));
        struct durpina_cursor *cursors = malloc(UPSTREAMS * sizeof(*cursors));
        struct durpina_maps maps = {meta,    upstreams, peers, slots, counters,
                                    cursors, UPSTREAMS, 8,     64};
        struct {
            void *at;
            size_t size;
        } parts[] = {{meta, sizeof(*meta)},
                     {upstreams, UPSTREAMS * sizeof(*upstreams)},
                     {peers, 8 * sizeof(*peers)},
                     {slots, 64 * sizeof(*slots)},
                     {counters, 8 * sizeof(*counters)},
                     {cursors, UPSTREAMS * sizeof(*cursors)}};

        for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++)
            for (size_t b = 0; b < parts[i].size; b++)
                ((unsigned char *) parts[i].at)[b] = (unsigned char) rand();
        for (int i = 0; i < 64; i++) /* or hardly anything gets past the first check */
            if (round % 2)
                slots[i] %= 10;
        for (int i = 0; i < UPSTREAMS; i++)
            for (int t = 0; t < DURPINA_TIERS && round % 2; t++) {
                struct durpina_tier *tier = &upstreams[i].view[upstreams[i].publish & 1].tier[t];

                tier->members =
                    (struct durpina_table){(uint32_t) rand() % 70, 1 + (uint32_t) rand() % 70};
                tier->schedule = tier->hash = tier->members;
            }
        for (uint32_t i = 0; i < UPSTREAMS; i++)
            for (int algorithm = DURPINA_ROUND_ROBIN; algorithm <= DURPINA_HASH; algorithm++)
                if (durpina_pick(&maps, i, upstreams[i].generation,
                                 (enum durpina_algorithm) algorithm, (uint64_t) rand(),
                                 round % 3 ? &nobody : &tried, NOW_MS, &p) == DURPINA_PICK_OK)
                    durpina_finish(&maps, &p, DURPINA_OUTCOME_FAILURE, NOW_MS);
        for (uint32_t i = 0; i < 10; i++)
            durpina_pick_peer(&maps, i, i < 8 ? peers[i].generation : 0, &nobody, NOW_MS, &p);
        for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++)
            free(parts[i].at);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_run_of_s_picks_holds_each_weight),
        cmocka_unit_test(unweighted_takes_each_member_in_turn),
        cmocka_unit_test(overtaken_pick_keeps_its_ticket),
        cmocka_unit_test(active_counts_picks_that_are_not_finished),
        cmocka_unit_test(finish_of_an_older_generation_changes_nothing),
        cmocka_unit_test(tried_peers_are_not_picked_again),
        cmocka_unit_test(max_fails_failures_take_a_peer_out_and_not_one_less),
        cmocka_unit_test(max_fails_zero_never_takes_out),
        cmocka_unit_test(failures_further_apart_than_fail_timeout_do_not_add_up),
        cmocka_unit_test(old_failure_is_over_for_as_long_as_the_clock_can_tell),
        cmocka_unit_test(temp_down_peer_gets_one_request_per_fail_timeout),
        cmocka_unit_test(success_of_an_older_request_does_not_bring_a_peer_back),
        cmocka_unit_test(only_peer_is_never_taken_out_by_failures),
        cmocka_unit_test(no_available_peer_ends_at_once),
        cmocka_unit_test(last_available_of_64_is_found_from_everywhere),
        cmocka_unit_test(peer_that_goes_down_moves_only_its_own_keys),
        cmocka_unit_test(backups_serve_only_without_primaries),
        cmocka_unit_test(max_conns_is_never_exceeded_by_racing_workers),
        cmocka_unit_test(free_or_other_upstream_is_told),
        cmocka_unit_test(random_bytes_in_every_map_are_read_within_bounds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
