/* SPDX-License-Identifier: MIT */
/* What dead workers had in flight is given back; of all others nothing is touched. */
#include "inflight_memory.h"

static void tries_of_the_dead_are_given_back(void **state)
{
    (void) state;
    own_by_the_dead(0);
    own_by_the_dead(3);
    own_by_the_living(1);
    for (uint32_t i = 0; i < DURPINA_TRIES_PER_PAGE; i++)
        pick(0, i);
    pick(3, 5);
    pick(1, 7);
    inflight_check(inflight);
    assert_active(shared, 0, 1);
    assert_true(is_free(&shared->inflight[0]));
    assert_true(is_free(&shared->inflight[3]));
    assert_false(is_free(&shared->inflight[1]));
}

static void finished_tries_of_the_dead_are_not_given_back_again(void **state)
{
    struct durpina_pick one;

    (void) state;
    own_by_the_dead(0);
    own_by_the_living(1);
    one = pick(0, 0);
    durpina_finish(&maps, &one, DURPINA_OUTCOME_SUCCESS, NULL, 1000);
    pick(1, 0);
    inflight_check(inflight);
    assert_active(shared, 0, 1);
    assert_true(is_free(&shared->inflight[0]));
}

static void other_process_with_the_same_pid_is_not_the_owner(void **state)
{
    uint32_t started;

    (void) state;
    assert_int_equal(process_started(getpid(), &started), 0);
    scene_own(&shared->inflight[0], getpid(), started - 1);
    pick(0, 0);
    inflight_check(inflight);
    assert_active(shared, 0, 0);
    assert_true(is_free(&shared->inflight[0]));
}

static void worker_of_another_pid_namespace_is_left_alone(void **state)
{
    (void) state;
    own_by_the_dead(0);
    shared->inflight[0].pid_namespace++;
    pick(0, 0);
    inflight_check(inflight);
    inflight_check(inflight);
    assert_active(shared, 0, 1);
    assert_int_equal(shared->inflight[0].owner.pid, dead);
}

static void page_whose_owner_died_claiming_it_is_free_again(void **state)
{
    (void) state;
    own_by_the_dead(0);
    shared->inflight[0].pid_namespace = 0;
    inflight_check(inflight);
    assert_true(is_free(&shared->inflight[0]));
}

static void pages_of_pids_that_cannot_be_are_free_again(void **state)
{
    static const uint32_t pids[PAGES] = {UINT32_MAX, 1U << 31, INT32_MAX, (uint32_t) -2};

    (void) state;
    for (uint32_t page = 0; page < PAGES; page++)
        shared->inflight[page].owner.pid = pids[page];
    inflight_check(inflight);
    for (uint32_t page = 0; page < PAGES; page++)
        assert_true(is_free(&shared->inflight[page]));
}

static void nonsense_in_pages_of_the_dead_is_cleared(void **state)
{
    struct memory was;

    (void) state;
    own_by_the_dead(0);
    shared->peers[5].upstream = SCENE_UPSTREAMS;
    memcpy(&was, shared, sizeof(was));
    for (uint32_t i = 0; i < DURPINA_TRIES_PER_PAGE; i++)
        shared->inflight[0].tries[i] = (struct durpina_try){.peer = i % 4 == 0   ? SCENE_PEERS + i
                                                                    : i % 4 == 1 ? UINT32_MAX
                                                                                 : 5,
                                                            .step = (enum durpina_try_step)(i * 5),
                                                            .turn = (uint16_t) i};
    inflight_check(inflight);
    assert_true(is_free(&shared->inflight[0]));
    assert_memory_equal(shared->counters, was.counters, sizeof(was.counters));
    assert_memory_equal(shared->cursors, was.cursors, sizeof(was.cursors));
    assert_memory_equal(shared->peers, was.peers, sizeof(was.peers));
}

static void write_nonsense(void)
{
    shared->inflight[0].tries[0].peer = UINT32_MAX / 4;
}

static void nonsense_that_comes_before_a_recount_is_cleared(void **state)
{
    (void) state;
    own_by_the_dead(0);
    shared->inflight[0].tries[0] = (struct durpina_try){.step = DURPINA_TRY_TAKING};
    at_clock = write_nonsense;
    inflight_check(inflight);
    at_clock = NULL;
    assert_true(is_free(&shared->inflight[0]));
}

static void active_is_never_below_zero(void **state)
{
    (void) state;
    own_by_the_dead(0);
    pick(0, 0);
    pick(0, 1);
    memset(shared->counters, 0, sizeof(shared->counters));
    shared->cursors[0].active = 1;
    inflight_check(inflight);
    assert_active(shared, 0, 0);
}

/* --- tries in doubt --------------------------------------------------------------------------- */

static void tries_in_doubt_are_recounted_whatever_they_had_counted(void **state)
{
    static const struct {
        enum durpina_try_step step;
        uint32_t peer, upstream;
    } left[] = {
        {DURPINA_TRY_TAKING, 0, 0}, {DURPINA_TRY_TAKING, 1, 0}, {DURPINA_TRY_TAKING, 1, 1},
        {DURPINA_TRY_GIVING, 1, 1}, {DURPINA_TRY_GIVING, 0, 1}, {DURPINA_TRY_GIVING, 0, 0},
    };
    const size_t n = sizeof(left) / sizeof(left[0]);

    (void) state;
    own_by_the_living(2);
    for (uint32_t i = 0; i < 20; i++)
        pick(2, i);
    /* One of them, two of the same peer, two of two peers. */
    for (size_t a = 0; a < n; a++)
        for (size_t b = 0; b < n; b++)
            for (uint32_t peer = 0; peer < 2; peer++) {
                own_by_the_dead(0);
                own_by_the_dead(1);
                shared->inflight[0].tries[3] =
                    (struct durpina_try){.step = left[a].step, .in_upstream = 1};
                shared->inflight[1].tries[4] =
                    (struct durpina_try){.peer = peer, .step = left[b].step, .in_upstream = 1};
                shared->counters[0].active += left[a].peer;
                shared->counters[peer].active += left[b].peer;
                shared->cursors[0].active += left[a].upstream + left[b].upstream;
                inflight_check(inflight);
                assert_true(is_free(&shared->inflight[0]));
                assert_true(is_free(&shared->inflight[1]));
                assert_active(shared, 0, 20);
            }
}

static void no_more_is_taken_off_than_the_dead_can_have_left(void **state)
{
    (void) state;
    own_by_the_dead(0);
    shared->inflight[0].tries[0] =
        (struct durpina_try){.step = DURPINA_TRY_TAKING, .in_upstream = 1};
    shared->counters[0].active = shared->cursors[0].active = 10;
    inflight_check(inflight);
    assert_true(is_free(&shared->inflight[0]));
    assert_active(shared, 0, 9);
}

static void untracked_tries_are_not_taken_for_a_surplus(void **state)
{
    struct durpina_pick one;

    (void) state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(scene_pick(&maps, 0, DURPINA_ROUND_ROBIN, NULL, &one), 0);
    own_by_the_dead(0);
    shared->inflight[0].tries[0] =
        (struct durpina_try){.peer = one.peer, .step = DURPINA_TRY_TAKING, .in_upstream = 1};
    inflight_check(inflight);
    assert_active(shared, 0, 3);
    /* Only now it can be known. */
    for (uint32_t peer = 0; peer < 3; peer++) {
        one.peer = peer;
        durpina_finish(&maps, &one, DURPINA_OUTCOME_SUCCESS, NULL, 1000);
    }
    inflight_check(inflight);
    assert_true(is_free(&shared->inflight[0]));
    assert_active(shared, 0, 0);
}

/* A worker that was stopped between TAKING and TAKEN may have counted its try, or not. */
static void worker_stopped_in_between_delays_a_recount_only(void **state)
{
    (void) state;
    own_by_the_living(0);
    own_by_the_dead(1);
    own_by_the_dead(2);
    shared->inflight[0].tries[0] =
        (struct durpina_try){.peer = 1, .step = DURPINA_TRY_TAKING, .in_upstream = 1};
    shared->inflight[1].tries[0] =
        (struct durpina_try){.peer = 1, .step = DURPINA_TRY_TAKING, .in_upstream = 1};
    shared->inflight[2].tries[0] =
        (struct durpina_try){.peer = 4, .step = DURPINA_TRY_TAKING, .in_upstream = 1};
    shared->counters[1].active = shared->cursors[0].active = 1; /* whose? */
    shared->counters[4].active = shared->cursors[1].active = 1; /* of the dead for sure */
    for (int i = 0; i < PAGES; i++)
        inflight_check(inflight);
    assert_active(shared, 0, 1);
    assert_active(shared, 1, 0);
    assert_int_equal(shared->inflight[1].owner.pid, dead);
    shared->inflight[0].tries[0].step = DURPINA_TRY_TAKEN;
    inflight_check(inflight);
    assert_true(is_free(&shared->inflight[1]));
    assert_active(shared, 0, 1);
}

static void recount_ends_while_others_pick_and_finish_without_pause(void **state)
{
    pid_t workers[2];

    (void) state;
    for (int w = 0; w < 2; w++)
        workers[w] = start_worker(1 + 20 * (uint32_t) w);
    while (durpina_requests(&shared->counters[0]) < 1000)
        ;
    for (uint32_t surplus = 0; surplus < 2; surplus++) {
        uint32_t *active = &shared->counters[1].active;
        int checks = 0;

        __atomic_fetch_add(active, surplus, __ATOMIC_RELAXED);
        own_by_the_dead(3);
        shared->inflight[3].tries[0] =
            (struct durpina_try){.peer = 1, .step = DURPINA_TRY_TAKING, .in_upstream = 1};
        do {
            inflight_check(inflight);
            usleep(1000); /* who was stopped in a pick goes on */
        } while (!is_free(&shared->inflight[3]) && ++checks < 500);
        assert_true(checks < 500);
    }
    for (int w = 0; w < 2; w++)
        end_worker(workers[w]);
    inflight_check(inflight);
    assert_active(shared, 0, 0);
    assert_active(shared, 1, 0);
}

static void usage_counts_whole_pages(void **state)
{
    struct durpina_pick one;
    struct inflight_usage usage;

    (void) state;
    own_by_the_living(1);
    pick(1, 0);
    pick(1, 9);
    assert_int_equal(scene_pick(&maps, 1, DURPINA_ROUND_ROBIN, NULL, &one), 0);
    usage = inflight_usage(&maps);
    assert_int_equal(usage.capacity, PAGES * DURPINA_TRIES_PER_PAGE);
    assert_int_equal(usage.claimed, DURPINA_TRIES_PER_PAGE);
    assert_int_equal(usage.untracked, 1);
}

static void started_it_looks_at_once_and_again(void **state)
{
    uv_loop_t loop;

    (void) state;
    assert_int_equal(uv_loop_init(&loop), 0);
    own_by_the_dead(0);
    pick(0, 0);
    inflight_start(inflight, &loop);
    assert_true(is_free(&shared->inflight[0]));
    own_by_the_dead(0);
    pick(0, 0);
    assert_int_equal(uv_run(&loop, UV_RUN_ONCE), 1);
    assert_true(is_free(&shared->inflight[0]));
    inflight_destroy(inflight);
    inflight = NULL;
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(tries_of_the_dead_are_given_back),
        TEST(finished_tries_of_the_dead_are_not_given_back_again),
        TEST(other_process_with_the_same_pid_is_not_the_owner),
        TEST(worker_of_another_pid_namespace_is_left_alone),
        TEST(page_whose_owner_died_claiming_it_is_free_again),
        TEST(pages_of_pids_that_cannot_be_are_free_again),
        TEST(nonsense_in_pages_of_the_dead_is_cleared),
        TEST(nonsense_that_comes_before_a_recount_is_cleared),
        TEST(active_is_never_below_zero),
        TEST(tries_in_doubt_are_recounted_whatever_they_had_counted),
        TEST(no_more_is_taken_off_than_the_dead_can_have_left),
        TEST(untracked_tries_are_not_taken_for_a_surplus),
        TEST(worker_stopped_in_between_delays_a_recount_only),
        TEST(recount_ends_while_others_pick_and_finish_without_pause),
        TEST(usage_counts_whole_pages),
        TEST(started_it_looks_at_once_and_again),
    };

    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, end_a_process, NULL);
}
