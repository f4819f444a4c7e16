/* SPDX-License-Identifier: MIT */
/*
 * durpina_select.h: picks that go by what the kernel counts, and picks for a connect() in the
 * kernel. That the best one is picked is shown by test_select_least.c.
 */
#include "select_scene.h"

#define NOW_MS SCENE_NOW_MS

/* Each peer has an endpoint of its own, and all are observed. */
static struct scene *observed(uint32_t n, const uint32_t *weights)
{
    struct scene *s = scene_create(n, weights);

    s->meta.observing = 1;
    for (uint32_t i = 0; i < n; i++)
        s->peers[SCENE_FIRST + i].endpoint = i;
    return s;
}

static uint32_t serve(struct scene *s, enum durpina_algorithm algorithm)
{
    return scene_serve(s, algorithm, 0, DURPINA_OUTCOME_SUCCESS, NOW_MS);
}

static void assert_shares(struct scene *s, enum durpina_algorithm algorithm, const uint32_t *shares)
{
    uint32_t picks = 0, seen[SCENE_PEERS] = {0};

    for (uint32_t i = 0; i < s->n; i++)
        picks += shares[i];
    for (uint32_t k = 0; k < picks; k++)
        seen[serve(s, algorithm)]++;
    for (uint32_t i = 0; i < s->n; i++)
        assert_int_equal(seen[i], shares[i]);
}

static void connections_of_others_count_those_being_made_included(void **state)
{
    struct scene *s = observed(3, NULL);

    (void) state;
    s->endpoints[0].open = 2;
    s->endpoints[1].open = 1;
    s->endpoints[1].connecting = 2;
    s->endpoints[2].connecting = 3;
    assert_int_equal(serve(s, DURPINA_LEAST_CONN_KERNEL), 0);
    s->endpoints[0].connecting = 2;
    s->endpoints[1].connecting = 1;
    assert_int_equal(serve(s, DURPINA_LEAST_CONN_KERNEL), 1);
    scene_destroy(s);
}

static void tries_in_flight_of_nginx_do_not_count(void **state)
{
    struct scene *s = observed(2, NULL);

    (void) state;
    scene_counters(s, 0)->active = 9;
    s->endpoints[1].open = 1;
    assert_int_equal(serve(s, DURPINA_LEAST_CONN_KERNEL), 0);
    assert_int_equal(serve(s, DURPINA_LEAST_CONN), 1);
    scene_destroy(s);
}

static void equals_have_their_turns_by_weight(void **state)
{
    static const uint32_t weights[] = {5, 3, 2};
    struct scene *s = observed(3, weights);

    (void) state;
    assert_shares(s, DURPINA_LEAST_CONN_KERNEL, weights);
    for (uint32_t i = 0; i < 3; i++)
        s->endpoints[i].open = 7 * weights[i];
    assert_shares(s, DURPINA_LEAST_CONN_KERNEL, weights);
    scene_destroy(s);
}

static void peers_of_one_address_share_its_connections(void **state)
{
    struct scene *s = observed(3, NULL);

    (void) state;
    s->peers[SCENE_FIRST + 1].endpoint = 0;
    s->endpoints[0].open = 10;
    s->endpoints[2].open = 11;
    for (int k = 0; k < 6; k++)
        assert_in_range(serve(s, DURPINA_LEAST_CONN_KERNEL), 0, 1);
    s->endpoints[2].open = 9;
    assert_int_equal(serve(s, DURPINA_LEAST_CONN_KERNEL), 2);
    scene_destroy(s);
}

static void nearest_by_round_trip_time_takes_the_request(void **state)
{
    struct scene *s = observed(2, NULL);

    (void) state;
    durpina_add_sample(&s->endpoints[0].rtt, 300 * DURPINA_EWMA_US, 0, NOW_MS);
    durpina_add_sample(&s->endpoints[1].rtt, 100 * DURPINA_EWMA_US, 0, NOW_MS);
    assert_int_equal(serve(s, DURPINA_LEAST_TIME_KERNEL), 1);
    s->endpoints[1].open = 1; /* 2 * 100 */
    assert_int_equal(serve(s, DURPINA_LEAST_TIME_KERNEL), 1);
    s->endpoints[1].open = 3; /* 4 * 100 */
    assert_int_equal(serve(s, DURPINA_LEAST_TIME_KERNEL), 0);
    scene_destroy(s);
}

/* What the kernel counted before is still there when nothing observes any more. */
static void while_nothing_observes_tries_in_flight_decide(void **state)
{
    struct scene *s = observed(3, NULL);

    (void) state;
    s->meta.observing = 0;
    s->endpoints[2].open = 5;
    durpina_add_sample(&s->endpoints[2].rtt, 1 << 20, 0, NOW_MS);
    durpina_add_sample(&s->endpoints[0].rtt, 1, 0, NOW_MS);
    scene_counters(s, 0)->active = 2;
    scene_counters(s, 1)->active = 1;
    for (int k = 0; k < 3; k++) {
        assert_int_equal(serve(s, DURPINA_LEAST_CONN_KERNEL), 2);
        assert_int_equal(serve(s, DURPINA_LEAST_TIME_KERNEL), 2);
    }
    scene_destroy(s);
}

static void peer_without_an_endpoint_counts_by_its_tries(void **state)
{
    static const uint32_t ids[] = {DURPINA_NONE, DURPINA_NONE - 1, SCENE_ENDPOINTS};
    struct scene *s = observed(2, NULL);

    (void) state;
    for (uint32_t k = 0; k < sizeof(ids) / sizeof(ids[0]); k++) {
        s->peers[SCENE_FIRST].endpoint = ids[k];
        scene_counters(s, 0)->active = 2;
        s->endpoints[1].open = 3;
        assert_int_equal(serve(s, DURPINA_LEAST_CONN_KERNEL), 0);
        s->endpoints[1].open = 1;
        assert_int_equal(serve(s, DURPINA_LEAST_CONN_KERNEL), 1);
    }
    s->peers[SCENE_FIRST].endpoint = SCENE_ENDPOINTS - 1;
    assert_int_equal(serve(s, DURPINA_LEAST_CONN_KERNEL), 0);
    scene_destroy(s);
}

/* --- a connect() in the kernel --- */

static struct durpina_request connecting(enum durpina_algorithm algorithm, uint32_t family)
{
    return (struct durpina_request){.algorithm = algorithm,
                                    .now_ms = NOW_MS,
                                    .family = family,
                                    .uncounted = 1};
}

/* Index of the peer, or DURPINA_NONE. */
static uint32_t pick(struct scene *s, const struct durpina_request *request)
{
    struct durpina_pick p;

    return scene_pick(s, request, &p) == DURPINA_PICK_OK ? p.peer - SCENE_FIRST : DURPINA_NONE;
}

static void peers_of_another_family_are_stepped_over(void **state)
{
    static const enum durpina_algorithm algorithms[] = {DURPINA_ROUND_ROBIN,
                                                        DURPINA_UNWEIGHTED_ROUND_ROBIN,
                                                        DURPINA_HASH};
    struct scene *s = observed(6, NULL);

    (void) state;
    for (uint32_t i = 0; i < 6; i++)
        s->peers[SCENE_FIRST + i].family = i % 2 ? DURPINA_FAMILY_INET6 : DURPINA_FAMILY_INET;
    for (uint32_t k = 0; k < 60; k++) {
        struct durpina_request request = connecting(algorithms[k % 3], DURPINA_FAMILY_INET6);

        request.hash = durpina_mix(k);
        assert_int_equal(pick(s, &request) % 2, 1);
        request.family = DURPINA_FAMILY_INET;
        assert_int_equal(pick(s, &request) % 2, 0);
        request.family = DURPINA_FAMILY_UNIX;
        assert_int_equal(pick(s, &request), DURPINA_NONE);
        request.family = DURPINA_FAMILY_NONE;
        assert_in_range(pick(s, &request), 0, 5);
    }
    scene_destroy(s);
}

static void connects_and_requests_share_one_round_robin(void **state)
{
    static const uint32_t weights[] = {5, 3, 2};
    struct scene *s = observed(3, weights);
    uint32_t seen[3] = {0};

    (void) state;
    for (uint32_t k = 0; k < 1000; k++) {
        struct durpina_request request = connecting(DURPINA_ROUND_ROBIN, DURPINA_FAMILY_NONE);

        seen[k % 3 ? pick(s, &request) : serve(s, DURPINA_ROUND_ROBIN)]++;
    }
    assert_int_equal(seen[0], 500);
    assert_int_equal(seen[1], 300);
    assert_int_equal(seen[2], 200);
    scene_destroy(s);
}

static void connect_takes_nothing_that_had_to_be_given_back(void **state)
{
    struct durpina_request request = connecting(DURPINA_ROUND_ROBIN, DURPINA_FAMILY_NONE);
    struct scene *s = observed(2, NULL);
    uint32_t i = pick(s, &request);

    (void) state;
    assert_in_range(i, 0, 1);
    assert_int_equal(scene_counters(s, i)->active, 0);
    assert_int_equal(scene_counters(s, i)->selected_ms, NOW_MS);
    assert_int_equal(scene_cursor(s)->active, 0);
    assert_int_equal(scene_cursor(s)->untracked, 0);
    scene_destroy(s);
}

static void max_conns_of_a_connect_goes_by_the_kernels_count(void **state)
{
    struct durpina_request request = connecting(DURPINA_ROUND_ROBIN, DURPINA_FAMILY_NONE);
    struct scene *s = observed(2, NULL);

    (void) state;
    s->want[0].max_conns = s->want[1].max_conns = 3;
    scene_publish(s);
    scene_counters(s, 0)->active = scene_counters(s, 1)->active = 9;
    s->endpoints[0].open = 2;
    s->endpoints[0].connecting = 1;
    s->endpoints[1].open = 2;
    for (int k = 0; k < 4; k++)
        assert_int_equal(pick(s, &request), 1);
    s->endpoints[1].open = 3;
    assert_int_equal(pick(s, &request), DURPINA_NONE);
    s->endpoints[0].open = 1;
    assert_int_equal(pick(s, &request), 0);
    scene_destroy(s);
}

static void one_connect_probes_a_peer_that_was_temporarily_down(void **state) /* S5 */
{
    struct durpina_request request = connecting(DURPINA_ROUND_ROBIN, DURPINA_FAMILY_NONE);
    struct scene *s = observed(2, NULL);
    uint32_t probes = 0;

    (void) state;
    durpina_fail(&s->maps, SCENE_FIRST, DURPINA_KERNEL, NOW_MS);
    for (int k = 0; k < 4; k++)
        assert_int_equal(pick(s, &request), 1);
    request.now_ms += SCENE_FAIL_TIMEOUT_MS;
    for (int k = 0; k < 8; k++) {
        struct durpina_pick p;

        assert_int_equal(scene_pick(s, &request, &p), DURPINA_PICK_OK);
        assert_int_equal(p.probing, p.peer == SCENE_FIRST);
        probes += p.probing;
    }
    assert_int_equal(probes, 1);
    scene_destroy(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connections_of_others_count_those_being_made_included),
        cmocka_unit_test(tries_in_flight_of_nginx_do_not_count),
        cmocka_unit_test(equals_have_their_turns_by_weight),
        cmocka_unit_test(peers_of_one_address_share_its_connections),
        cmocka_unit_test(nearest_by_round_trip_time_takes_the_request),
        cmocka_unit_test(while_nothing_observes_tries_in_flight_decide),
        cmocka_unit_test(peer_without_an_endpoint_counts_by_its_tries),
        cmocka_unit_test(peers_of_another_family_are_stepped_over),
        cmocka_unit_test(connects_and_requests_share_one_round_robin),
        cmocka_unit_test(connect_takes_nothing_that_had_to_be_given_back),
        cmocka_unit_test(max_conns_of_a_connect_goes_by_the_kernels_count),
        cmocka_unit_test(one_connect_probes_a_peer_that_was_temporarily_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
