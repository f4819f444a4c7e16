/* SPDX-License-Identifier: MIT */
/* durpina_select.h: what holds for every pick and finish; the numbers are its invariants. */
#include "select_scene.h"

#define NOW_MS SCENE_NOW_MS

static enum durpina_pick_error pick(struct scene *s, enum durpina_algorithm algorithm,
                                    uint64_t hash, uint64_t now_ms, struct durpina_pick *ret)
{
    struct durpina_request request = scene_request(algorithm, hash, now_ms);

    return scene_pick(s, &request, ret);
}

static void overtaken_pick_keeps_its_ticket(void **state) /* S1, S3 */
{
    struct scene *s = scene_create(3, NULL);
    struct durpina_request request = scene_request(DURPINA_ROUND_ROBIN, 0, NOW_MS);
    struct durpina_picking p = {.maps = &s->maps,
                                .request = &request,
                                .upstream = &s->upstreams[SCENE_UPSTREAM],
                                .cursor = &s->cursors[SCENE_UPSTREAM],
                                .upstream_id = SCENE_UPSTREAM,
                                .word = s->upstreams[SCENE_UPSTREAM].publish - 1};
    struct durpina_pick taken;

    (void) state;
    assert_int_equal(durpina_try_peer(&p, SCENE_FIRST, &taken), DURPINA_OVERTAKEN);
    assert_int_equal(scene_counters(s, 0)->active, 0);
    assert_int_equal(durpina_requests(scene_counters(s, 0)), 0);
    for (uint32_t i = 0; i < 6; i++)
        assert_int_equal(scene_serve(s, DURPINA_ROUND_ROBIN, 0, DURPINA_OUTCOME_SUCCESS, NOW_MS),
                         i % 3);
    assert_int_equal(scene_cursor(s)->round_robin[0], 6);
    scene_destroy(s);
}

static void active_counts_picks_that_are_not_finished(void **state) /* S4 */
{
    struct scene *s = scene_create(1, NULL);
    struct durpina_pick p[3];

    (void) state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(pick(s, DURPINA_ROUND_ROBIN, 0, NOW_MS, &p[i]), DURPINA_PICK_OK);
    assert_int_equal(scene_counters(s, 0)->active, 3);
    assert_int_equal(durpina_requests(scene_counters(s, 0)), 0);
    assert_int_equal(scene_cursor(s)->active, 3);
    assert_int_equal(scene_cursor(s)->untracked, 3);
    for (int i = 0; i < 3; i++)
        durpina_finish(&s->maps, &p[i], (enum durpina_outcome) i, NULL, NOW_MS);
    assert_int_equal(scene_counters(s, 0)->active, 0);
    assert_int_equal(durpina_requests(scene_counters(s, 0)), 3);
    assert_int_equal(scene_cursor(s)->active, 0);
    assert_int_equal(scene_cursor(s)->untracked, 0);
    scene_destroy(s);
}

static void finish_leaves_the_next_owner_of_a_record_alone(void **state) /* S4 */
{
    struct scene *s = scene_create(1, NULL);
    struct durpina_counters before;
    struct durpina_sample sample = {.status = 200, .received = 10};
    struct durpina_pick p;

    (void) state;
    assert_int_equal(pick(s, DURPINA_ROUND_ROBIN, 0, NOW_MS, &p), DURPINA_PICK_OK);
    scene_counters(s, 0)->generation++;
    before = *scene_counters(s, 0);
    durpina_finish(&s->maps, &p, DURPINA_OUTCOME_FAILURE, &sample, NOW_MS);
    assert_memory_equal(&before, scene_counters(s, 0), sizeof(before));
    assert_int_equal(scene_cursor(s)->active, 0);
    scene_destroy(s);
}

static void pick_of_a_record_that_gets_another_owner_takes_nothing(void **state) /* S4 */
{
    struct scene *s = scene_create(1, NULL);
    struct durpina_request request = scene_request(DURPINA_ROUND_ROBIN, 0, NOW_MS);
    struct durpina_picking p = {.maps = &s->maps,
                                .request = &request,
                                .upstream = &s->upstreams[SCENE_UPSTREAM],
                                .cursor = &s->cursors[SCENE_UPSTREAM],
                                .upstream_id = SCENE_UPSTREAM,
                                .word = s->upstreams[SCENE_UPSTREAM].publish};
    struct durpina_candidate candidate;
    struct durpina_pick taken;

    (void) state;
    assert_int_equal(durpina_look(&p, SCENE_FIRST, &candidate), DURPINA_AVAILABLE);
    scene_counters(s, 0)->generation++;
    assert_int_equal(durpina_take(&p, &candidate, &taken), DURPINA_SKIPPED);
    assert_int_equal(scene_counters(s, 0)->active, 0);
    assert_int_equal(scene_cursor(s)->active, 0);
    assert_int_equal(scene_cursor(s)->untracked, 0);
    scene_destroy(s);
}

static void tried_peers_are_not_picked_again(void **state)
{
    const uint32_t weights[] = {DURPINA_WEIGHT_MAX, 1, 1};
    struct scene *s = scene_create(3, weights);
    struct durpina_tried tried = {0};
    struct durpina_request request = scene_request(DURPINA_ROUND_ROBIN, 0, NOW_MS);
    struct durpina_pick p;

    (void) state;
    for (int algorithm = 0; algorithm < DURPINA_ALGORITHMS; algorithm++) {
        uint32_t seen = 0;

        request.algorithm = (enum durpina_algorithm) algorithm;
        request.tried = &tried;
        tried.n = 0;
        for (int i = 0; i < 3; i++) {
            assert_int_equal(scene_pick(s, &request, &p), DURPINA_PICK_OK);
            tried.peers[tried.n++] = p.peer;
            seen |= 1U << (p.peer - SCENE_FIRST);
            durpina_finish(&s->maps, &p, DURPINA_OUTCOME_SUCCESS, NULL, NOW_MS);
        }
        assert_int_equal(seen, 7);
        assert_int_equal(scene_pick(s, &request, &p), DURPINA_PICK_NO_PEER);
        assert_int_equal(scene_cursor(s)->active, 0);
    }
    scene_destroy(s);
}

static void no_available_peer_ends_at_once(void **state)
{
    struct scene *s = scene_create(SCENE_PEERS, NULL);
    struct durpina_pick p;

    (void) state;
    for (uint32_t i = 0; i < s->n; i++)
        s->want[i].state = i % 2 ? DURPINA_PEER_DOWN : DURPINA_PEER_UNHEALTHY;
    scene_publish(s);
    for (int algorithm = 0; algorithm < DURPINA_ALGORITHMS; algorithm++)
        assert_int_equal(pick(s, (enum durpina_algorithm) algorithm, 5, NOW_MS, &p),
                         DURPINA_PICK_NO_PEER);
    assert_int_equal(scene_cursor(s)->active, 0);
    scene_destroy(s);
}

static void last_available_of_64_is_found_from_everywhere(void **state) /* S2 */
{
    struct scene *s = scene_create(DURPINA_MEMBER_TRIES, NULL);

    (void) state;
    s->tables = SCENE_HASH | SCENE_RING;
    scene_publish(s);
    for (uint32_t i = 0; i < s->n; i++)
        if (i != 41)
            durpina_set_temp_down(scene_counters(s, i), SCENE_FAIL_TIMEOUT_MS, NOW_MS);
    for (uint64_t i = 0; i < 500; i++)
        for (int algorithm = 0; algorithm < DURPINA_ALGORITHMS; algorithm++)
            assert_int_equal(scene_serve(s, (enum durpina_algorithm) algorithm, durpina_mix(i),
                                         DURPINA_OUTCOME_SUCCESS, NOW_MS),
                             41);
    scene_destroy(s);
}

static void backups_serve_only_without_primaries(void **state)
{
    struct scene *s = scene_create(3, NULL);

    (void) state;
    s->tier[2] = DURPINA_TIER_BACKUP;
    s->tables = SCENE_HASH | SCENE_RING;
    scene_publish(s);
    for (int algorithm = 0; algorithm < DURPINA_ALGORITHMS; algorithm++)
        for (uint64_t i = 0; i < 10; i++)
            assert_true(scene_serve(s, (enum durpina_algorithm) algorithm, durpina_mix(i),
                                    DURPINA_OUTCOME_SUCCESS, NOW_MS) < 2);
    for (uint32_t i = 0; i < 2; i++)
        durpina_fail(&s->maps, SCENE_FIRST + i, DURPINA_WORKER, NOW_MS);
    for (int algorithm = 0; algorithm < DURPINA_ALGORITHMS; algorithm++)
        for (uint64_t i = 0; i < 10; i++)
            assert_int_equal(scene_serve(s, (enum durpina_algorithm) algorithm, durpina_mix(i),
                                         DURPINA_OUTCOME_SUCCESS, NOW_MS),
                             2);
    scene_destroy(s);
}

/* And a try that began before is not given back to it. */
static void upstream_counts_its_tries_once_a_bound_is_asked_for(void **state)
{
    struct scene *s = scene_create(2, NULL);
    struct durpina_request request = scene_request(DURPINA_HASH, 1, NOW_MS);
    struct durpina_pick before, bounded, after;

    (void) state;
    scene_cursor(s)->asked = DURPINA_ASKED_NONE;
    assert_int_equal(scene_pick(s, &request, &before), DURPINA_PICK_OK);
    assert_int_equal(scene_cursor(s)->active, 0);
    request.bound = DURPINA_BOUND_DEFAULT;
    assert_int_equal(scene_pick(s, &request, &bounded), DURPINA_PICK_OK);
    request.bound = 0;
    assert_int_equal(scene_pick(s, &request, &after), DURPINA_PICK_OK);
    assert_int_equal(scene_cursor(s)->active, 2);
    durpina_finish(&s->maps, &before, DURPINA_OUTCOME_SUCCESS, NULL, NOW_MS);
    assert_int_equal(scene_cursor(s)->active, 2);
    durpina_finish(&s->maps, &bounded, DURPINA_OUTCOME_SUCCESS, NULL, NOW_MS);
    durpina_finish(&s->maps, &after, DURPINA_OUTCOME_SUCCESS, NULL, NOW_MS);
    assert_int_equal(scene_cursor(s)->active, 0);
    scene_destroy(s);
}

static void table_that_is_not_laid_out_is_asked_for_and_stood_in_for(void **state)
{
    struct scene *s = scene_create(5, NULL);
    uint32_t seen = 0;

    (void) state;
    s->tables = 0;
    scene_publish(s);
    scene_serve(s, DURPINA_LEAST_CONN, 0, DURPINA_OUTCOME_SUCCESS, NOW_MS);
    assert_int_equal(scene_cursor(s)->asked, DURPINA_ASKED_BOUND | DURPINA_ASKED_NO_TABLE);
    for (uint64_t key = 0; key < 100; key++) {
        uint32_t i =
            scene_serve(s, DURPINA_HASH, durpina_mix(key), DURPINA_OUTCOME_SUCCESS, NOW_MS);

        assert_in_range(i, 0, 4);
        assert_int_equal(scene_serve(s, DURPINA_HASH, durpina_mix(key), DURPINA_OUTCOME_SUCCESS,
                                     NOW_MS + 1),
                         i);
        seen |= 1U << i;
    }
    assert_int_equal(seen, 31);
    assert_int_equal(scene_cursor(s)->asked,
                     DURPINA_ASKED_BOUND | DURPINA_ASKED_NO_TABLE | DURPINA_ASKED_HASH);
    assert_in_range(scene_serve(s, DURPINA_RING, 1, DURPINA_OUTCOME_SUCCESS, NOW_MS), 0, 4);
    assert_int_equal(scene_cursor(s)->asked, DURPINA_ASKED_BOUND | DURPINA_ASKED_NO_TABLE |
                                                 DURPINA_ASKED_HASH | DURPINA_ASKED_RING);
    scene_destroy(s);
}

/* Hash and ring may lag behind the peers: one of them has become somebody else. */
static void table_that_lags_never_picks_who_is_elsewhere_by_now(void **state)
{
    (void) state;
    for (int moved = 0; moved < 2; moved++) {
        struct scene *s = scene_create(6, NULL);

        s->tables = SCENE_HASH | SCENE_RING;
        scene_publish(s);
        if (moved == 0)
            s->peers[SCENE_FIRST + 2].upstream = 0;
        else
            s->peers[SCENE_FIRST + 2].tier = DURPINA_TIER_BACKUP;
        for (uint64_t key = 0; key < 1000; key++) {
            assert_int_not_equal(scene_serve(s, DURPINA_HASH, durpina_mix(key),
                                             DURPINA_OUTCOME_SUCCESS, NOW_MS),
                                 2);
            assert_int_not_equal(scene_serve(s, DURPINA_RING, durpina_mix(key),
                                             DURPINA_OUTCOME_SUCCESS, NOW_MS),
                                 2);
        }
        scene_destroy(s);
    }
}

static void free_or_other_upstream_is_told(void **state)
{
    struct scene *s = scene_create(2, NULL);
    struct durpina_request request = scene_request(DURPINA_ROUND_ROBIN, 0, NOW_MS);
    struct durpina_pick p;

    (void) state;
    assert_int_equal(durpina_pick(&s->maps, SCENE_UPSTREAM, SCENE_GENERATION + 1, &request, &p),
                     DURPINA_PICK_NO_UPSTREAM);
    assert_int_equal(durpina_pick(&s->maps, 0, 0, &request, &p), DURPINA_PICK_NO_UPSTREAM);
    assert_int_equal(durpina_pick(&s->maps, DURPINA_NONE, 0, &request, &p),
                     DURPINA_PICK_NO_UPSTREAM);
    scene_destroy(s);
}

static void peer_picked_by_id_is_taken_only_if_it_may_be(void **state)
{
    struct scene *s = scene_create(3, NULL);
    struct durpina_request request = scene_request(DURPINA_ROUND_ROBIN, 0, NOW_MS);
    struct durpina_pick p;

    (void) state;
    s->want[0].max_conns = 1;
    s->want[1].state = DURPINA_PEER_DRAINING;
    s->tier[2] = DURPINA_TIER_BACKUP;
    scene_publish(s);
    assert_int_equal(durpina_pick_peer(&s->maps, SCENE_FIRST + 2, 102, &request, &p),
                     DURPINA_PICK_OK);
    durpina_finish(&s->maps, &p, DURPINA_OUTCOME_SUCCESS, NULL, NOW_MS);
    assert_int_equal(durpina_pick_peer(&s->maps, SCENE_FIRST, 100, &request, &p), DURPINA_PICK_OK);
    assert_int_equal(p.upstream, SCENE_UPSTREAM);
    assert_int_equal(durpina_pick_peer(&s->maps, SCENE_FIRST, 100, &request, &p),
                     DURPINA_PICK_NO_PEER);
    durpina_finish(&s->maps, &p, DURPINA_OUTCOME_SUCCESS, NULL, NOW_MS);
    assert_int_equal(durpina_pick_peer(&s->maps, SCENE_FIRST, 99, &request, &p),
                     DURPINA_PICK_NO_PEER);
    assert_int_equal(durpina_pick_peer(&s->maps, SCENE_FIRST + 1, 101, &request, &p),
                     DURPINA_PICK_NO_PEER);
    assert_int_equal(durpina_pick_peer(&s->maps, s->maps.n_peers, 0, &request, &p),
                     DURPINA_PICK_NO_PEER);
    assert_int_equal(scene_cursor(s)->round_robin[0], 0);
    assert_int_equal(scene_cursor(s)->active, 0);
    scene_destroy(s);
}

#define FUZZ_PEERS 8
#define FUZZ_SLOTS 64
#define FUZZ_ENDPOINTS 4
#define FUZZ_MAPS 7

/* Tables of plausible places, or hardly anything gets past the first check. */
static void tidy(uint64_t *seed, struct durpina_upstream *upstream, uint32_t *slots)
{
    struct durpina_view *view = &upstream->view[upstream->publish & 1];

    for (int i = 0; i < FUZZ_SLOTS; i++)
        slots[i] %= FUZZ_PEERS + 2;
    for (int t = 0; t < DURPINA_TIERS; t++) {
        struct durpina_table table = {scene_below(seed, 70), 1 + scene_below(seed, 70)};

        view->tier[t].schedule = view->tier[t].members = table;
        view->tier[t].hash = view->tier[t].ring = table;
        if (table.offset + 2 < FUZZ_SLOTS) {
            slots[table.offset] = scene_below(seed, 6);
            slots[table.offset + 1] = scene_below(seed, 20);
        }
    }
}

/* Under ASan each map is an allocation of its own: a read beyond its end is an error. */
static void random_bytes_in_every_map_are_read_within_bounds(void **state)
{
    uint64_t seed = scene_seed();
    struct durpina_tried nobody = {0}, tried = {.n = UINT32_MAX};
    struct durpina_try entry = {0};

    (void) state;
    for (int round = 0; round < 4000; round++) {
        const struct {
            size_t size;
            uint32_t n;
        } sizes[] = {{sizeof(struct durpina_upstream), 2},
                     {sizeof(struct durpina_peer), FUZZ_PEERS},
                     {sizeof(uint32_t), FUZZ_SLOTS},
                     {sizeof(struct durpina_counters), FUZZ_PEERS},
                     {sizeof(struct durpina_cursor), 2},
                     {sizeof(struct durpina_meta), 1},
                     {sizeof(struct durpina_endpoint), FUZZ_ENDPOINTS}};
        unsigned char *parts[FUZZ_MAPS];

        for (int i = 0; i < FUZZ_MAPS; i++) {
            parts[i] = malloc(sizes[i].size * sizes[i].n);
            assert_non_null(parts[i]);
            for (size_t b = 0; b < sizes[i].size * sizes[i].n; b++)
                parts[i][b] = (unsigned char) scene_random(&seed);
        }

        struct durpina_upstream *upstreams = (void *) parts[0];
        struct durpina_peer *peers = (void *) parts[1];
        struct durpina_maps maps = {.upstreams = upstreams,
                                    .peers = peers,
                                    .slots = (void *) parts[2],
                                    .counters = (void *) parts[3],
                                    .cursors = (void *) parts[4],
                                    .meta = (void *) parts[5],
                                    .endpoints = (void *) parts[6],
                                    .n_endpoints = FUZZ_ENDPOINTS,
                                    .n_upstreams = 2,
                                    .n_peers = FUZZ_PEERS,
                                    .n_slots = FUZZ_SLOTS};
        struct durpina_pick p;

        for (int i = 0; i < FUZZ_PEERS && round % 4; i++)
            for (int copy = 0; copy < 2; copy++) {
                peers[i].settings[copy].state = DURPINA_PEER_UP;
                peers[i].upstream = scene_below(&seed, 3);
                peers[i].endpoint = scene_below(&seed, FUZZ_ENDPOINTS + 1);
            }
        for (int i = 0; i < FUZZ_PEERS && round % 4; i++)
            maps.counters[i].generation = peers[i].generation;
        for (uint32_t i = 0; i < 2; i++) {
            if (round % 2)
                tidy(&seed, &upstreams[i], (void *) parts[2]);
            for (int algorithm = 0; algorithm < DURPINA_ALGORITHMS; algorithm++) {
                struct durpina_request request = {.algorithm = (enum durpina_algorithm) algorithm,
                                                  .bound = (uint32_t) (scene_random(&seed) >> 40),
                                                  .hash = scene_random(&seed),
                                                  .tried = round % 3 ? &nobody : &tried,
                                                  .entry = round % 5 ? &entry : NULL,
                                                  .now_ms = scene_random(&seed)};
                struct durpina_sample sample = {.status = scene_below(&seed, 1000),
                                                .response_ms = scene_below(&seed, UINT32_MAX)};

                if (durpina_pick(&maps, i, upstreams[i].generation, &request, &p) ==
                    DURPINA_PICK_OK)
                    durpina_finish(&maps, &p, DURPINA_OUTCOME_FAILURE, &sample, NOW_MS);
                request.uncounted = 1;
                request.entry = NULL;
                request.tried = NULL;
                request.family = scene_below(&seed, 5);
                durpina_pick(&maps, i, upstreams[i].generation, &request, &p);
            }
        }
        for (uint32_t i = 0; i < FUZZ_PEERS + 2; i++) {
            struct durpina_request request = scene_request(DURPINA_ROUND_ROBIN, 0, NOW_MS);

            durpina_pick_peer(&maps, i, i < FUZZ_PEERS ? peers[i].generation : 0, &request, &p);
        }
        for (int i = 0; i < FUZZ_MAPS; i++)
            free(parts[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(overtaken_pick_keeps_its_ticket),
        cmocka_unit_test(active_counts_picks_that_are_not_finished),
        cmocka_unit_test(finish_leaves_the_next_owner_of_a_record_alone),
        cmocka_unit_test(pick_of_a_record_that_gets_another_owner_takes_nothing),
        cmocka_unit_test(tried_peers_are_not_picked_again),
        cmocka_unit_test(no_available_peer_ends_at_once),
        cmocka_unit_test(last_available_of_64_is_found_from_everywhere),
        cmocka_unit_test(backups_serve_only_without_primaries),
        cmocka_unit_test(upstream_counts_its_tries_once_a_bound_is_asked_for),
        cmocka_unit_test(table_that_is_not_laid_out_is_asked_for_and_stood_in_for),
        cmocka_unit_test(table_that_lags_never_picks_who_is_elsewhere_by_now),
        cmocka_unit_test(free_or_other_upstream_is_told),
        cmocka_unit_test(peer_picked_by_id_is_taken_only_if_it_may_be),
        cmocka_unit_test(random_bytes_in_every_map_are_read_within_bounds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
