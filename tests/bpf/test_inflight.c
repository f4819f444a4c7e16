/* SPDX-License-Identifier: MIT */
/* Workers with the real maps are killed while they pick and finish: the counts stay right. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "../unit/inflight_scene.h"
#include "bpf_state.h"
#include "inflight.h"
#include "log.h"
#include "pins.h"

#include <cmocka.h> /* last: its macro fail() hides the function of failure.h */

#define WORKERS 4
#define KILLS 200
#define MAX_CONNS 5
#define MOST_IN_FLIGHT 20
#define NOBODY 65534

static struct pins pins;
static struct bpf_state state;
static struct durpina_maps maps;
static struct inflight *inflight;

static void open_maps(void)
{
    const struct bpf_state_options options = {.pin = pins.dir,
                                              .n_upstreams = SCENE_UPSTREAMS,
                                              .n_peers = SCENE_PEERS,
                                              .n_slots = SCENE_SLOTS,
                                              .n_inflight = 2 * WORKERS * DURPINA_TRIES_PER_PAGE};
    struct failure failure;

    assert_int_equal(bpf_state_open(&options, &state, &failure), 0);
    maps = bpf_state_maps(&state);
    assert_int_equal(inflight_create(&maps, &inflight), 0);
}

static void close_maps(void)
{
    inflight_destroy(inflight);
    bpf_state_close(&state);
}

static int set_up(void **unused)
{
    (void) unused;
    pins = pins_choose("inflight");
    open_maps();
    scene_lay_out(&maps, MAX_CONNS);
    return 0;
}

static int tear_down(void **unused)
{
    (void) unused;
    close_maps();
    pins_remove(&pins);
    return 0;
}

static uint64_t requests(void)
{
    uint64_t sum = 0;

    for (int peer = 0; peer < SCENE_PEERS; peer++)
        sum += durpina_requests(&maps.counters[peer]);
    return sum;
}

static pid_t start_worker(unsigned seed)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        scene_work(&maps, seed, MOST_IN_FLIGHT);
    }
    return pid;
}

static void kill_worker(pid_t pid)
{
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void stop_worker(pid_t pid)
{
    assert_int_equal(kill(pid, SIGSTOP), 0);
    assert_int_equal(waitpid(pid, NULL, WUNTRACED), pid);
}

/* Checks as often as durpinad does in a second. */
static void check_for_a_second(void)
{
    for (int i = 0; i < 1000 / INFLIGHT_CHECK_MS; i++) {
        inflight_check(inflight);
        usleep(1000); /* a worker that waits for a CPU in the middle of a pick goes on */
    }
}

static bool owns_a_page(pid_t pid)
{
    for (uint32_t page = 0; page < maps.n_inflight; page++)
        if (maps.inflight[page].owner.pid == (uint32_t) pid)
            return true;
    return false;
}

struct truth {
    uint32_t of_peer[SCENE_PEERS];
    uint32_t of_upstream[SCENE_UPSTREAMS];
    uint32_t between;
};

/* Nobody runs. */
static struct truth read_truth(void)
{
    struct truth truth = {.between = 0};

    for (uint32_t page = 0; page < maps.n_inflight; page++)
        for (int i = 0; i < DURPINA_TRIES_PER_PAGE; i++) {
            const struct durpina_try *try = &maps.inflight[page].tries[i];

            if (try->step == DURPINA_TRY_TAKEN) {
                truth.of_peer[try->peer]++;
                truth.of_upstream[maps.peers[try->peer].upstream]++;
            } else if (try->step != DURPINA_TRY_FREE) {
                truth.between++;
            }
        }
    return truth;
}

static void assert_active_is(const struct truth *truth)
{
    for (int peer = 0; peer < SCENE_PEERS; peer++) {
        assert_int_equal(maps.counters[peer].active, truth->of_peer[peer]);
        if (maps.peers[peer].settings[0].max_conns != 0)
            assert_true(truth->of_peer[peer] <= MAX_CONNS);
    }
    for (int upstream = 0; upstream < SCENE_UPSTREAMS; upstream++)
        assert_int_equal(maps.cursors[upstream].active, truth->of_upstream[upstream]);
}

static void active_equals_the_truth_after_each_of_many_kills(void **unused)
{
    pid_t workers[WORKERS];
    unsigned seed = 1, undecided = 0;

    (void) unused;
    for (int w = 0; w < WORKERS; w++)
        workers[w] = start_worker(seed++);
    for (int n = 0; n < KILLS; n++) {
        uint64_t go_on = requests() + (uint64_t) (rand() % 20000);
        struct truth truth = {.between = 1};
        pid_t victim = workers[n % WORKERS];

        while (requests() < go_on || !owns_a_page(victim))
            sched_yield();
        kill_worker(victim);
        check_for_a_second();
        undecided += owns_a_page(victim);

        /* Until all of them happen to stop outside of picks. */
        while (truth.between > 0) {
            for (int w = 0; w < WORKERS; w++)
                if (workers[w] != victim)
                    stop_worker(workers[w]);
            inflight_check(inflight);
            truth = read_truth();
            if (truth.between == 0)
                assert_active_is(&truth);
            for (int w = 0; w < WORKERS; w++)
                if (workers[w] != victim)
                    assert_int_equal(kill(workers[w], SIGCONT), 0);
        }
        workers[n % WORKERS] = start_worker(seed++);
    }
    /* A try in doubt may wait for the load to ease off for a moment; hardly ever here. */
    assert_true(undecided <= KILLS / 50);

    for (int w = 0; w < WORKERS; w++)
        kill_worker(workers[w]);
    check_for_a_second();
    for (uint32_t page = 0; page < maps.n_inflight; page++)
        assert_int_equal(maps.inflight[page].owner.pid, 0);
    assert_active_is(&(struct truth){.between = 0});
}

static void peers_at_max_conns_take_requests_again(void **unused)
{
    struct durpina_inflight *page = scene_claim(&maps);
    struct durpina_pick pick;
    pid_t pid;

    (void) unused;
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct durpina_inflight *own = scene_claim(&maps);
        int n = 0;

        while (scene_pick(&maps, 0, DURPINA_LEAST_CONN, &own->tries[n], &pick) == 0)
            n++;
        _exit(n);
    }
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(maps.cursors[0].active, 3 * MAX_CONNS);
    assert_int_equal(scene_pick(&maps, 0, DURPINA_LEAST_CONN, &page->tries[0], &pick),
                     DURPINA_PICK_NO_PEER);
    inflight_check(inflight);
    assert_int_equal(scene_pick(&maps, 0, DURPINA_LEAST_CONN, &page->tries[0], &pick), 0);
    assert_int_equal(maps.cursors[0].active, 1);
}

static void stopped_worker_keeps_its_tries(void **unused)
{
    pid_t pid = start_worker(1);
    struct truth before, after;

    (void) unused;
    while (requests() < 1000)
        sched_yield();
    do {
        kill(pid, SIGCONT);
        sched_yield();
        stop_worker(pid);
        before = read_truth();
    } while (before.between > 0 || before.of_upstream[0] == 0);
    check_for_a_second();
    after = read_truth();
    assert_memory_equal(&before, &after, sizeof(before));
    assert_active_is(&before);
    assert_true(owns_a_page(pid));
    kill_worker(pid);
    inflight_check(inflight);
    assert_active_is(&(struct truth){.between = 0});
}

static void workers_that_died_while_no_controller_ran_are_found(void **unused)
{
    pid_t pid = start_worker(1);

    (void) unused;
    while (requests() < 1000)
        sched_yield();
    close_maps();
    kill_worker(pid);
    open_maps();
    assert_true(state.adopted);
    assert_true(owns_a_page(pid));
    inflight_check(inflight);
    assert_false(owns_a_page(pid));
    assert_active_is(&(struct truth){.between = 0});
}

/* As root, in a namespace of mounts of its own, then as somebody else. */
static int judge_without_proc(pid_t living, uint32_t started, pid_t dead)
{
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/proc", NULL, MS_PRIVATE, NULL) < 0 ||
        mount("proc", "/proc", "proc", 0, "hidepid=2") < 0 || setgid(NOBODY) < 0 ||
        setuid(NOBODY) < 0)
        return 10;
    if (process_started(living, &started) == 0)
        return 11; /* not hidden: this shows nothing */
    if (process_is_gone(living, started))
        return 12;
    return process_is_gone(dead, 1) ? 0 : 13;
}

static void process_that_proc_hides_is_not_taken_for_dead(void **unused)
{
    pid_t dead = fork(), judge;
    uint32_t started;
    int status;

    (void) unused;
    if (dead == 0)
        _exit(0);
    assert_int_equal(waitpid(dead, NULL, 0), dead);
    assert_int_equal(process_started(getpid(), &started), 0);
    judge = fork();
    if (judge == 0)
        _exit(judge_without_proc(getppid(), started, dead));
    assert_int_equal(waitpid(judge, &status, 0), judge);
    assert_int_equal(status, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(active_equals_the_truth_after_each_of_many_kills),
        TEST(peers_at_max_conns_take_requests_again),
        TEST(stopped_worker_keeps_its_tries),
        TEST(workers_that_died_while_no_controller_ran_are_found),
        cmocka_unit_test(process_that_proc_hides_is_not_taken_for_dead),
    };

    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
