/* SPDX-License-Identifier: MIT */
/*
 * All maps in one piece of memory that is shared with workers and can be copied, an inflight over
 * them, and the pid of a process that has ended: for tests of inflight.c.
 */
#ifndef DURPINA_TEST_INFLIGHT_MEMORY_H
#define DURPINA_TEST_INFLIGHT_MEMORY_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "inflight.h"
#include "inflight_scene.h"
#include "log.h"

#include <cmocka.h>

#define PAGES 4

/* All maps in one piece, to be copied as a whole. */
struct memory {
    struct durpina_upstream upstreams[SCENE_UPSTREAMS];
    struct durpina_peer peers[SCENE_PEERS];
    uint32_t slots[SCENE_SLOTS];
    struct durpina_counters counters[SCENE_PEERS];
    struct durpina_cursor cursors[SCENE_UPSTREAMS];
    struct durpina_inflight inflight[PAGES];
    bool done;
};

/* In place of libuv's, to let no time pass where each instruction takes long. */
static bool time_stands;
static void (*at_clock)(void); /* or NULL: what others do whenever the clock is read */

uint64_t uv_hrtime(void)
{
    struct timespec now = {0};

    if (at_clock != NULL)
        at_clock();
    if (!time_stands)
        clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t) now.tv_sec * 1000000000U + (uint64_t) now.tv_nsec;
}

static struct memory *shared; /* with the workers */
static struct durpina_maps maps;
static struct inflight *inflight;
static pid_t dead;

static inline struct durpina_maps maps_of(struct memory *m)
{
    return (struct durpina_maps){
        .upstreams = m->upstreams,
        .peers = m->peers,
        .slots = m->slots,
        .counters = m->counters,
        .cursors = m->cursors,
        .inflight = m->inflight,
        .n_upstreams = SCENE_UPSTREAMS,
        .n_peers = SCENE_PEERS,
        .n_slots = SCENE_SLOTS,
        .n_inflight = PAGES,
    };
}

static inline int set_up(void **state)
{
    (void) state;
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return -1;
    maps = maps_of(shared);
    scene_lay_out(&maps, 0);
    return inflight_create(&maps, &inflight);
}

static inline int tear_down(void **state)
{
    (void) state;
    inflight_destroy(inflight);
    return munmap(shared, sizeof(*shared));
}

/* A pid that had a process. */
static inline int end_a_process(void **state)
{
    (void) state;
    dead = fork();
    if (dead == 0)
        _exit(0);
    return waitpid(dead, NULL, 0) == dead ? 0 : -1;
}

static inline void own_by_the_dead(uint32_t page)
{
    scene_own(&shared->inflight[page], dead, 1);
}

static inline void own_by_the_living(uint32_t page)
{
    uint32_t started = 0;

    assert_int_equal(process_started(getpid(), &started), 0);
    scene_own(&shared->inflight[page], getpid(), started);
}

static inline struct durpina_pick pick(uint32_t page, uint32_t entry)
{
    struct durpina_pick ret;

    assert_int_equal(scene_pick(&maps, 0, DURPINA_ROUND_ROBIN, &shared->inflight[page].tries[entry],
                                &ret),
                     0);
    return ret;
}

static inline bool is_free(const struct durpina_inflight *page)
{
    for (int i = 0; i < DURPINA_TRIES_PER_PAGE; i++)
        if (page->tries[i].step != DURPINA_TRY_FREE)
            return false;
    return page->owner.pid == 0 && page->owner.started == 0 && page->pid_namespace == 0;
}

static inline void assert_active(const struct memory *m, uint32_t upstream, uint32_t wanted)
{
    uint32_t sum = 0;

    for (int peer = 0; peer < SCENE_PEERS; peer++)
        if (m->peers[peer].upstream == upstream)
            sum += m->counters[peer].active;
    assert_int_equal(sum, wanted);
    assert_int_equal(m->cursors[upstream].active, wanted);
}

static inline pid_t start_worker(uint32_t most)
{
    pid_t pid = fork();

    if (pid == 0)
        scene_work(&maps, (unsigned) getpid(), most);
    assert_true(pid > 0);
    return pid;
}

static inline void end_worker(pid_t pid)
{
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif
