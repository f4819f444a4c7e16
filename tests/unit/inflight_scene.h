/* SPDX-License-Identifier: MIT */
/*
 * Two upstreams laid out in any memory, and workers: processes that pick and finish as nginx does,
 * each noting its tries in a page of its own.
 */
#ifndef DURPINA_TEST_INFLIGHT_SCENE_H
#define DURPINA_TEST_INFLIGHT_SCENE_H

#include <stdbool.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "durpina_select.h"
#include "process.h"

#define SCENE_UPSTREAMS 2
#define SCENE_PEERS 6 /* three of each upstream */
#define SCENE_SLOTS DURPINA_SLOTS_PER_ROW
#define SCENE_GENERATION 7

/* Peers of weight 1 that are up; max_conns goes for those of the first upstream. */
static inline void scene_lay_out(const struct durpina_maps *maps, uint32_t max_conns)
{
    const uint32_t n = SCENE_PEERS / SCENE_UPSTREAMS;
    struct durpina_upstream *upstreams = (struct durpina_upstream *) maps->upstreams;
    struct durpina_peer *peers = (struct durpina_peer *) maps->peers;
    uint32_t *slots = (uint32_t *) maps->slots;

    for (uint32_t id = 0; id < SCENE_PEERS; id++) {
        slots[id] = id;
        peers[id] = (struct durpina_peer){.generation = SCENE_GENERATION, .upstream = id / n};
        for (int copy = 0; copy < 2; copy++)
            peers[id].settings[copy] =
                (struct durpina_peer_settings){.state = DURPINA_PEER_UP,
                                               .weight = 1,
                                               .max_conns = id < n ? max_conns : 0};
        maps->counters[id] = (struct durpina_counters){.generation = SCENE_GENERATION};
    }
    for (uint32_t id = 0; id < SCENE_UPSTREAMS; id++) {
        const struct durpina_table all = {.offset = id * n, .length = n};
        const struct durpina_view view = {
            .peers = all, .tier[0] = {.schedule = all, .members = all, .weight = n}};

        upstreams[id] = (struct durpina_upstream){.publish = 2,
                                                  .generation = SCENE_GENERATION,
                                                  .view = {view, view}};
        maps->cursors[id] = (struct durpina_cursor){.asked = DURPINA_ASKED_BOUND};
    }
}

static inline uint64_t scene_pid_namespace(void)
{
    struct stat st;

    return stat("/proc/self/ns/pid", &st) == 0 ? st.st_ino : 0;
}

static inline void scene_own(struct durpina_inflight *page, pid_t pid, uint32_t started)
{
    page->pid_namespace = scene_pid_namespace();
    page->owner = (struct durpina_worker){.pid = (uint32_t) pid, .started = started};
}

/* Claims a page for this process. */
static inline struct durpina_inflight *scene_claim(const struct durpina_maps *maps)
{
    union {
        struct durpina_worker worker;
        uint64_t word;
    } self = {.worker.pid = (uint32_t) getpid()};

    if (process_started(getpid(), &self.worker.started) < 0)
        abort();
    for (uint32_t page = 0; page < maps->n_inflight; page++) {
        uint64_t nobody = 0;

        if (__atomic_compare_exchange_n(durpina_alias(&maps->inflight[page].owner), &nobody,
                                        self.word, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
            DURPINA_STORE(&maps->inflight[page].pid_namespace, scene_pid_namespace());
            return &maps->inflight[page];
        }
    }
    abort();
}

static inline enum durpina_pick_error scene_pick(const struct durpina_maps *maps, uint32_t upstream,
                                                 enum durpina_algorithm algorithm,
                                                 struct durpina_try *entry,
                                                 struct durpina_pick *ret_pick)
{
    const struct durpina_tried tried = {0};
    const struct durpina_request request = {.algorithm = algorithm,
                                            .hash = durpina_mix((uintptr_t) entry + rand()),
                                            .tried = &tried,
                                            .entry = entry,
                                            .now_ms = 1000};

    return durpina_pick(maps, upstream, SCENE_GENERATION, &request, ret_pick);
}

/* Picks and finishes for ever, with up to `most` tries in flight. */
static inline void scene_work(const struct durpina_maps *maps, unsigned seed, uint32_t most)
{
    static const enum durpina_algorithm algorithms[] = {DURPINA_ROUND_ROBIN,
                                                        DURPINA_UNWEIGHTED_ROUND_ROBIN,
                                                        DURPINA_LEAST_CONN, DURPINA_RANDOM_TWO};
    struct durpina_inflight *page = scene_claim(maps);
    struct durpina_pick picks[DURPINA_TRIES_PER_PAGE];
    bool taken[DURPINA_TRIES_PER_PAGE] = {false};

    srand(seed);
    for (;;) {
        uint32_t i = (uint32_t) rand() % most;

        if (taken[i]) {
            durpina_finish(maps, &picks[i], DURPINA_OUTCOME_SUCCESS, NULL, 1000);
            taken[i] = false;
        } else {
            taken[i] = scene_pick(maps, (uint32_t) rand() % SCENE_UPSTREAMS, algorithms[rand() % 4],
                                  &page->tries[i], &picks[i]) == 0;
        }
    }
}

#endif
