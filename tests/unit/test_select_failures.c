/* SPDX-License-Identifier: MIT */
/* durpina_select.h: passive failures, max_fails and fail_timeout. */
#include "select_scene.h"

#define NOW_MS SCENE_NOW_MS
#define FAIL_TIMEOUT_MS SCENE_FAIL_TIMEOUT_MS

static enum durpina_pick_error pick(struct scene *s, enum durpina_algorithm algorithm,
                                    uint64_t hash, uint64_t now_ms, struct durpina_pick *ret)
{
    struct durpina_request request = scene_request(algorithm, hash, now_ms);

    return scene_pick(s, &request, ret);
}

static uint32_t add_fail(struct scene *s, uint32_t i, uint64_t now_ms)
{
    return durpina_fail(&s->maps, SCENE_FIRST + i, DURPINA_WORKER, now_ms);
}

static uint32_t serve(struct scene *s, enum durpina_outcome outcome, uint64_t now_ms)
{
    return scene_serve(s, DURPINA_ROUND_ROBIN, 0, outcome, now_ms);
}

static void max_fails_failures_take_a_peer_out_and_not_one_less(void **state)
{
    (void) state;
    for (uint32_t max_fails = 1; max_fails <= 4; max_fails++) {
        struct scene *s = scene_create(2, NULL);

        s->want[0].max_fails = max_fails;
        scene_publish(s);
        for (uint32_t i = 1; i <= max_fails; i++) {
            assert_false(durpina_is_temp_down(scene_counters(s, 0), NOW_MS));
            assert_int_equal(add_fail(s, 0, NOW_MS), i);
        }
        assert_true(durpina_is_temp_down(scene_counters(s, 0), NOW_MS));
        assert_int_equal(scene_counters(s, 0)->unavail, 1);
        for (int i = 0; i < 10; i++)
            assert_int_equal(serve(s, DURPINA_OUTCOME_SUCCESS, NOW_MS + FAIL_TIMEOUT_MS - 1), 1);
        scene_destroy(s);
    }
}

static void max_fails_zero_never_takes_out(void **state)
{
    struct scene *s = scene_create(2, NULL);

    (void) state;
    s->want[0].max_fails = 0;
    scene_publish(s);
    for (int i = 0; i < 10; i++)
        assert_int_equal(add_fail(s, 0, NOW_MS), 0);
    assert_false(durpina_is_temp_down(scene_counters(s, 0), NOW_MS));
    assert_int_equal(scene_counters(s, 0)->failed, 10);
    scene_destroy(s);
}

static void failures_further_apart_than_fail_timeout_do_not_add_up(void **state)
{
    struct scene *s = scene_create(2, NULL);
    uint64_t now_ms = UINT32_MAX - 5000ULL; /* the 32 bit clock wraps meanwhile */

    (void) state;
    s->want[0].max_fails = 2;
    scene_publish(s);
    assert_int_equal(add_fail(s, 0, now_ms), 1);
    now_ms += FAIL_TIMEOUT_MS + 1;
    assert_int_equal(durpina_fails(scene_counters(s, 0), FAIL_TIMEOUT_MS, now_ms), 0);
    assert_int_equal(add_fail(s, 0, now_ms), 1);
    now_ms += FAIL_TIMEOUT_MS;
    assert_int_equal(add_fail(s, 0, now_ms), 2);
    assert_true(durpina_is_temp_down(scene_counters(s, 0), now_ms));
    scene_destroy(s);
}

static void old_failure_is_over_for_as_long_as_the_clock_can_tell(void **state)
{
    struct scene *s = scene_create(2, NULL);
    struct durpina_counters *c = scene_counters(s, 0);
    const uint64_t day_ms = 24 * 3600 * 1000;

    (void) state;
    add_fail(s, 0, NOW_MS);
    for (uint64_t day = 1; day < 49; day++)
        assert_int_equal(durpina_fails(c, FAIL_TIMEOUT_MS, NOW_MS + day * day_ms), 0);
    /* Another worker's clock is a moment behind the one that counted. */
    assert_int_equal(durpina_fails(c, FAIL_TIMEOUT_MS, NOW_MS - 100), 1);
    scene_destroy(s);
}

static void temp_down_peer_gets_one_request_per_fail_timeout(void **state) /* S5 */
{
    (void) state;
    for (int algorithm = 0; algorithm < DURPINA_ALGORITHMS; algorithm++) {
        const enum durpina_algorithm a = (enum durpina_algorithm) algorithm;
        struct scene *s = scene_create(2, NULL);
        struct durpina_pick probe, p;
        uint64_t now_ms = NOW_MS + FAIL_TIMEOUT_MS, key = 0;

        add_fail(s, 0, NOW_MS);
        while (pick(s, a, durpina_mix(++key), now_ms, &probe) == DURPINA_PICK_OK && !probe.probing)
            durpina_finish(&s->maps, &probe, DURPINA_OUTCOME_SUCCESS, NULL, now_ms);
        assert_int_equal(probe.peer, SCENE_FIRST);
        for (int i = 0; i < 10; i++) {
            assert_int_equal(pick(s, a, durpina_mix(++key), now_ms, &p), DURPINA_PICK_OK);
            assert_int_equal(p.peer, SCENE_FIRST + 1);
            durpina_finish(&s->maps, &p, DURPINA_OUTCOME_SUCCESS, NULL, now_ms);
        }

        /* It fails: out again at once. It passes: back for everybody. */
        durpina_finish(&s->maps, &probe, DURPINA_OUTCOME_FAILURE, NULL, now_ms + 1);
        assert_true(durpina_is_temp_down(scene_counters(s, 0), now_ms + FAIL_TIMEOUT_MS));
        now_ms += 1 + FAIL_TIMEOUT_MS;
        while (pick(s, a, durpina_mix(++key), now_ms, &probe) == DURPINA_PICK_OK && !probe.probing)
            durpina_finish(&s->maps, &probe, DURPINA_OUTCOME_SUCCESS, NULL, now_ms);
        assert_int_equal(probe.peer, SCENE_FIRST);
        durpina_finish(&s->maps, &probe, DURPINA_OUTCOME_SUCCESS, NULL, now_ms);
        assert_int_equal(scene_counters(s, 0)->down_until_ms, 0);
        assert_int_equal(durpina_fails(scene_counters(s, 0), FAIL_TIMEOUT_MS, now_ms), 0);
        scene_destroy(s);
    }
}

static void success_of_an_older_request_does_not_bring_a_peer_back(void **state)
{
    struct scene *s = scene_create(2, NULL);
    struct durpina_pick old;

    (void) state;
    assert_int_equal(pick(s, DURPINA_ROUND_ROBIN, 0, NOW_MS, &old), DURPINA_PICK_OK);
    assert_int_equal(old.peer, SCENE_FIRST);
    add_fail(s, 0, NOW_MS);
    durpina_finish(&s->maps, &old, DURPINA_OUTCOME_SUCCESS, NULL, NOW_MS);
    assert_true(durpina_is_temp_down(scene_counters(s, 0), NOW_MS));
    scene_destroy(s);
}

static void only_peer_is_never_taken_out_by_failures(void **state)
{
    struct scene *s = scene_create(1, NULL);

    (void) state;
    for (int i = 0; i < 5; i++)
        assert_int_equal(serve(s, DURPINA_OUTCOME_FAILURE, NOW_MS), 0);
    durpina_set_temp_down(scene_counters(s, 0), FAIL_TIMEOUT_MS, NOW_MS);
    assert_int_equal(serve(s, DURPINA_OUTCOME_SUCCESS, NOW_MS), 0);
    scene_destroy(s);
}

/* --- one failure, told by the worker and by the kernel --- */

static uint32_t tell(struct scene *s, enum durpina_witness witness, uint64_t now_ms)
{
    return durpina_fail(&s->maps, SCENE_FIRST, witness, now_ms);
}

/* Peer 0 is not taken out before there are more failures than any of these tests has. */
static struct scene *scene_of_many_fails(void)
{
    struct scene *s = scene_create(2, NULL);

    s->want[0].max_fails = UINT32_MAX;
    scene_publish(s);
    return s;
}

static void failure_that_both_tell_of_counts_once_whoever_is_first(void **state)
{
    (void) state;
    for (int kernel_first = 0; kernel_first < 2; kernel_first++) {
        struct scene *s = scene_of_many_fails();
        const enum durpina_witness first = kernel_first ? DURPINA_KERNEL : DURPINA_WORKER_CONNECT;
        const enum durpina_witness second = kernel_first ? DURPINA_WORKER_CONNECT : DURPINA_KERNEL;

        for (uint32_t i = 1; i <= 5; i++) {
            assert_int_equal(tell(s, first, NOW_MS), i);
            assert_int_equal(tell(s, second, NOW_MS + DURPINA_AHEAD_MS), i);
        }
        assert_int_equal(scene_counters(s, 0)->ahead, 0);
        /* The kernel's word is no try of nginx. */
        assert_int_equal(scene_counters(s, 0)->failed, 5);

        /* Or all of one, then all of the other. */
        for (uint32_t i = 6; i <= 10; i++)
            assert_int_equal(tell(s, first, NOW_MS + DURPINA_AHEAD_MS), i);
        for (uint32_t i = 6; i <= 10; i++)
            assert_int_equal(tell(s, second, NOW_MS + DURPINA_AHEAD_MS), 10);
        assert_int_equal(scene_counters(s, 0)->ahead, 0);
        scene_destroy(s);
    }
}

static void failures_that_one_alone_tells_of_all_count(void **state)
{
    struct scene *s = scene_of_many_fails();

    (void) state;
    for (uint32_t i = 1; i <= 5; i++)
        assert_int_equal(tell(s, DURPINA_KERNEL, NOW_MS), i); /* of curl */
    scene_destroy(s);
    s = scene_of_many_fails();
    for (uint32_t i = 1; i <= 5; i++)
        assert_int_equal(tell(s, DURPINA_WORKER, NOW_MS), i); /* a 502 */
    assert_int_equal(scene_counters(s, 0)->ahead, 0);
    scene_destroy(s);
}

/* A worker fails to connect, and curl: whichever the kernel tells of first, there are two. */
static void failure_of_another_process_in_between_counts_too(void **state)
{
    static const enum durpina_witness orders[][3] = {
        {DURPINA_WORKER_CONNECT, DURPINA_KERNEL, DURPINA_KERNEL},
        {DURPINA_KERNEL, DURPINA_WORKER_CONNECT, DURPINA_KERNEL},
        {DURPINA_KERNEL, DURPINA_KERNEL, DURPINA_WORKER_CONNECT},
    };

    (void) state;
    for (size_t i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
        struct scene *s = scene_of_many_fails();
        uint32_t fails = 0;

        for (int told = 0; told < 3; told++)
            fails = tell(s, orders[i][told], NOW_MS);
        assert_int_equal(fails, 2);
        scene_destroy(s);
    }
}

static void witness_who_has_gone_hides_no_failure(void **state)
{
    const uint64_t later_ms = NOW_MS + DURPINA_AHEAD_MS + 1;
    struct scene *s = scene_of_many_fails();

    (void) state;
    /* durpinad has stopped: workers count on, however many failures they have told of. */
    for (uint32_t i = 1; i <= 100; i++)
        assert_int_equal(tell(s, DURPINA_WORKER_CONNECT, NOW_MS), i);
    /* It is back: what it did not hear of is not what it hears of now. */
    assert_int_equal(tell(s, DURPINA_KERNEL, later_ms), 101);
    assert_int_equal(scene_counters(s, 0)->ahead, 1);
    scene_destroy(s);

    /* nginx has stopped: likewise. */
    s = scene_of_many_fails();
    for (uint32_t i = 1; i <= 100; i++)
        assert_int_equal(tell(s, DURPINA_KERNEL, NOW_MS), i);
    assert_int_equal(tell(s, DURPINA_WORKER_CONNECT, later_ms), 101);
    assert_int_equal(scene_counters(s, 0)->ahead, -1);
    scene_destroy(s);
}

static void other_witness_is_waited_for_to_the_last_millisecond(void **state)
{
    struct scene *s = scene_of_many_fails();

    (void) state;
    assert_int_equal(tell(s, DURPINA_KERNEL, NOW_MS), 1);
    assert_int_equal(tell(s, DURPINA_WORKER_CONNECT, NOW_MS + DURPINA_AHEAD_MS), 1);
    assert_int_equal(tell(s, DURPINA_KERNEL, NOW_MS), 2);
    assert_int_equal(tell(s, DURPINA_WORKER_CONNECT, NOW_MS + DURPINA_AHEAD_MS + 1), 3);
    scene_destroy(s);
}

static void second_word_on_a_failure_takes_nobody_out_again(void **state)
{
    struct scene *s = scene_create(2, NULL);

    (void) state;
    assert_int_equal(tell(s, DURPINA_KERNEL, NOW_MS), 1);
    assert_true(durpina_is_temp_down(scene_counters(s, 0), NOW_MS));
    assert_int_equal(tell(s, DURPINA_WORKER_CONNECT, NOW_MS + 500), 1);
    assert_int_equal(scene_counters(s, 0)->down_until_ms, NOW_MS + FAIL_TIMEOUT_MS);
    assert_int_equal(scene_counters(s, 0)->unavail, 1);
    scene_destroy(s);
}

static void counts_of_failures_saturate(void **state)
{
    struct scene *s = scene_of_many_fails();
    struct durpina_counters *c = scene_counters(s, 0);

    (void) state;
    c->fails = UINT16_MAX - 1;
    c->fails_at_ms = (uint32_t) NOW_MS;
    assert_false(durpina_is_temp_down(c, NOW_MS));
    assert_int_equal(tell(s, DURPINA_WORKER, NOW_MS), UINT16_MAX);
    assert_true(durpina_is_temp_down(c, NOW_MS)); /* a larger max_fails is as good as this */
    assert_int_equal(tell(s, DURPINA_WORKER, NOW_MS), UINT16_MAX);

    c->ahead = INT16_MAX;
    tell(s, DURPINA_KERNEL, NOW_MS);
    assert_int_equal(c->ahead, INT16_MAX);
    c->ahead = INT16_MIN;
    tell(s, DURPINA_WORKER_CONNECT, NOW_MS);
    assert_int_equal(c->ahead, INT16_MIN);
    assert_int_equal(c->fails, UINT16_MAX);
    scene_destroy(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(max_fails_failures_take_a_peer_out_and_not_one_less),
        cmocka_unit_test(max_fails_zero_never_takes_out),
        cmocka_unit_test(failures_further_apart_than_fail_timeout_do_not_add_up),
        cmocka_unit_test(old_failure_is_over_for_as_long_as_the_clock_can_tell),
        cmocka_unit_test(temp_down_peer_gets_one_request_per_fail_timeout),
        cmocka_unit_test(success_of_an_older_request_does_not_bring_a_peer_back),
        cmocka_unit_test(only_peer_is_never_taken_out_by_failures),
        cmocka_unit_test(failure_that_both_tell_of_counts_once_whoever_is_first),
        cmocka_unit_test(failures_that_one_alone_tells_of_all_count),
        cmocka_unit_test(failure_of_another_process_in_between_counts_too),
        cmocka_unit_test(witness_who_has_gone_hides_no_failure),
        cmocka_unit_test(other_witness_is_waited_for_to_the_last_millisecond),
        cmocka_unit_test(second_word_on_a_failure_takes_nobody_out_again),
        cmocka_unit_test(counts_of_failures_saturate),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
