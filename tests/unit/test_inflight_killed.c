/* SPDX-License-Identifier: MIT */
/* inflight.h, I2 and I3: workers and the controller, stopped after each instruction. */
#include <sys/ptrace.h>

#include "inflight_memory.h"

/* The child calls this where the steps begin. */
static void begin(void)
{
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    raise(SIGSTOP);
}

/* Runs the child; calls at_step() after each instruction from begin() on. */
static void single_step(void (*child)(void), void (*at_step)(void), pid_t *ret_pid)
{
    int status;
    unsigned steps = 0;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        child();
        shared->done = true;
        for (;;)
            pause();
    }
    *ret_pid = pid;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSTOPPED(status));
    for (; !shared->done; steps++) {
        assert_int_equal(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
        at_step();
    }
    end_worker(pid);
    assert_true(steps > 100);
}

static struct memory copy, before;
static struct inflight *copy_inflight;
static pid_t stepped;
static uint32_t others; /* tries in flight of others */

/* The worker is killed here: what comes of a copy of the maps? */
static void kill_in_a_copy(void)
{
    if (memcmp(&before, shared, sizeof(before)) == 0)
        return; /* most instructions change no map */
    memcpy(&before, shared, sizeof(before));
    memcpy(&copy, shared, sizeof(copy));
    for (uint32_t page = 0; page < PAGES; page++)
        if (copy.inflight[page].owner.pid == (uint32_t) stepped)
            copy.inflight[page].owner.pid = (uint32_t) dead;
    /* Once does, unless this process has to wait for a CPU during a recount. */
    for (int i = 0; i < 10 && !(is_free(&copy.inflight[1]) && is_free(&copy.inflight[2])); i++)
        inflight_check(copy_inflight);
    assert_active(&copy, 0, others);
    assert_true(is_free(&copy.inflight[1]));
}

static void step_through(void (*child)(void), void (*at_step)(void))
{
    const struct durpina_maps of_copy = maps_of(&copy);

    assert_int_equal(inflight_create(&of_copy, &copy_inflight), 0);
    single_step(child, at_step, &stepped);
    inflight_destroy(copy_inflight);
}

static void pick_and_finish(void)
{
    struct durpina_inflight *page = scene_claim(&maps);
    struct durpina_pick one;

    begin();
    if (scene_pick(&maps, 0, DURPINA_ROUND_ROBIN, &page->tries[0], &one) == 0)
        durpina_finish(&maps, &one, DURPINA_OUTCOME_SUCCESS, NULL, 1000);
}

static void worker_killed_at_any_instruction_leaves_the_right_counts(void **state)
{
    (void) state;
    own_by_the_living(0);
    pick(0, 0);
    others = 1;
    step_through(pick_and_finish, kill_in_a_copy);
    assert_int_equal(durpina_requests(&shared->counters[0]) +
                         durpina_requests(&shared->counters[1]) +
                         durpina_requests(&shared->counters[2]),
                     1);
}

/* The peers are full, but the worker that is stepped through did not see that when it looked. */
static void take_the_last_place_first(void)
{
    if (shared->inflight[1].tries[0].step == DURPINA_TRY_TAKING && others == 0)
        for (uint32_t peer = 0; peer < 3; peer++) {
            shared->inflight[0].tries[peer] =
                (struct durpina_try){.peer = peer, .step = DURPINA_TRY_TAKEN, .in_upstream = 1};
            shared->counters[peer].active++;
            shared->cursors[0].active++;
            others++;
        }
    kill_in_a_copy();
}

static void worker_killed_when_another_was_faster_leaves_the_right_counts(void **state)
{
    (void) state;
    scene_lay_out(&maps, 1);
    own_by_the_living(0);
    others = 0;
    step_through(pick_and_finish, take_the_last_place_first);
    assert_int_equal(others, 3);
    assert_int_equal(durpina_requests(&shared->counters[0]), 0);
}

static void check(void)
{
    time_stands = true;
    begin();
    inflight_check(inflight);
}

static void controller_killed_at_any_instruction_leaves_the_rest_to_the_next(void **state)
{
    (void) state;
    own_by_the_living(0);
    own_by_the_dead(1);
    own_by_the_dead(2);
    for (uint32_t i = 0; i < 3; i++) {
        pick(0, i);
        pick(1, i);
    }
    pick(2, 0);
    shared->inflight[2].tries[0].step = DURPINA_TRY_GIVING;
    others = 3;
    step_through(check, kill_in_a_copy);
    assert_true(is_free(&shared->inflight[2]));
    assert_active(shared, 0, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(worker_killed_at_any_instruction_leaves_the_right_counts),
        TEST(worker_killed_when_another_was_faster_leaves_the_right_counts),
        TEST(controller_killed_at_any_instruction_leaves_the_rest_to_the_next),
    };

    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, end_a_process, NULL);
}
