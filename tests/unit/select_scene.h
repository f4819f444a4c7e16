/* SPDX-License-Identifier: MIT */
/*
 * One upstream in plain memory, as durpinad would publish it, for tests of durpina_select.h.
 *
 *     struct scene *s = scene_create(n, weights);    weights NULL: 1 each; everybody is up
 *     s->want[i].state = DURPINA_PEER_DOWN;          what is to be published of peer i ...
 *     scene_publish(s);                              ... from now on
 *     scene_destroy(s);
 *
 * Publications follow the protocol of durpina_seq.h: other processes may pick meanwhile, unless
 * tier has changed, which is identity. No peer has an endpoint, and nothing observes, until the
 * test says so in peers[].endpoint, endpoints and meta.observing.
 * Peer i has the id SCENE_FIRST + i, so that an id is not taken for an index. The memory is shared
 * with children. Random numbers come from DURPINA_SEED in the environment, which is printed.
 */
#ifndef DURPINA_TESTS_SELECT_SCENE_H
#define DURPINA_TESTS_SELECT_SCENE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "durpina_select.h"
#include "maglev.h"
#include "schedule.h"

#define SCENE_UPSTREAM 1 /* its id */
#define SCENE_UPSTREAMS 2
#define SCENE_GENERATION 7
#define SCENE_FIRST 3
#define SCENE_PEERS 300
#define SCENE_SLOTS 262144 /* for each of two publications */
#define SCENE_PAGES 8
#define SCENE_ENDPOINTS 16
#define SCENE_FAIL_TIMEOUT_MS 10000
#define SCENE_NOW_MS 1000000ULL
#define SCENE_POINTS 20 /* of each peer on the ring, times its weight, at most this many weights */
#define SCENE_POINTS_WEIGHT_MAX 4

#define SCENE_HASH 1 /* scene.tables: the hash is laid out */
#define SCENE_RING 2

struct scene {
    struct durpina_maps maps;
    uint32_t n;
    uint32_t tables; /* SCENE_HASH and SCENE_RING; before the first scene_publish() */
    struct durpina_peer_settings want[SCENE_PEERS];
    enum durpina_tier_id tier[SCENE_PEERS];
    uint32_t turns[SCENE_PEERS]; /* in the schedule of its tier */
    struct durpina_meta meta;
    struct durpina_upstream upstreams[SCENE_UPSTREAMS];
    struct durpina_peer peers[SCENE_FIRST + SCENE_PEERS];
    struct durpina_counters counters[SCENE_FIRST + SCENE_PEERS];
    struct durpina_cursor cursors[SCENE_UPSTREAMS];
    struct durpina_inflight inflight[SCENE_PAGES];
    struct durpina_endpoint endpoints[SCENE_ENDPOINTS];
    uint32_t slots[2 * SCENE_SLOTS];
    /* What the processes of a test share besides: */
    uint32_t found[8];
    uint32_t holders[SCENE_PEERS];
    uint32_t history[4096];
};

/* SplitMix64. */
static inline uint64_t scene_random(uint64_t *seed)
{
    uint64_t x = *seed += 0x9e3779b97f4a7c15ULL;

    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

/* 0..n-1 */
static inline uint32_t scene_below(uint64_t *seed, uint32_t n)
{
    return (uint32_t) (scene_random(seed) % n);
}

static inline uint64_t scene_seed(void)
{
    const char *text = getenv("DURPINA_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 0) : 1;

    print_message("# DURPINA_SEED=%llu\n", (unsigned long long) seed);
    return seed;
}

static inline struct durpina_counters *scene_counters(struct scene *s, uint32_t i)
{
    return &s->counters[SCENE_FIRST + i];
}

static inline struct durpina_cursor *scene_cursor(struct scene *s)
{
    return &s->cursors[SCENE_UPSTREAM];
}

static inline const struct durpina_view *scene_view(const struct scene *s)
{
    const struct durpina_upstream *u = &s->upstreams[SCENE_UPSTREAM];

    return &u->view[u->publish & 1];
}

static inline int scene_by_point(const void *first, const void *second)
{
    const uint64_t *a = first, *b = second;

    return (*a > *b) - (*a < *b);
}

/* The points of peer i are random, but always the same. */
static inline struct durpina_table scene_lay_ring(struct scene *s, enum durpina_tier_id tier,
                                                  uint32_t at)
{
    uint64_t *points =
        malloc(SCENE_PEERS * SCENE_POINTS * SCENE_POINTS_WEIGHT_MAX * sizeof(*points));
    uint32_t n = 0, kept = 0, bits = 1;

    assert_non_null(points);
    for (uint32_t i = 0; i < s->n; i++)
        for (uint32_t k = 0; s->tier[i] == tier && k < SCENE_POINTS * s->want[i].weight &&
                             k < SCENE_POINTS * SCENE_POINTS_WEIGHT_MAX;
             k++) {
            uint64_t seed = ((uint64_t) i << 32) + k;

            points[n++] = (scene_random(&seed) & 0xffffffff00000000ULL) | (SCENE_FIRST + i);
        }
    qsort(points, n, sizeof(*points), scene_by_point);
    for (uint32_t i = 0; i < n; i++)
        if (kept == 0 || points[i] >> 32 != points[kept - 1] >> 32)
            points[kept++] = points[i];
    while (1U << bits < kept)
        bits++;

    uint32_t *slots = &s->slots[at], *index = slots + DURPINA_RING_HEADER;
    uint32_t *hashes = index + (1U << bits), *ids = hashes + kept;

    slots[0] = bits;
    slots[1] = kept;
    for (uint32_t i = 0, point = 0; i < 1U << bits; i++) {
        while (point < kept && points[point] >> 32 < (uint64_t) i << (32 - bits))
            point++;
        index[i] = point;
    }
    for (uint32_t i = 0; i < kept; i++) {
        hashes[i] = (uint32_t) (points[i] >> 32);
        ids[i] = (uint32_t) points[i];
    }
    free(points);
    return (struct durpina_table){at,
                                  kept == 0 ? 0 : DURPINA_RING_HEADER + (1U << bits) + 2 * kept};
}

static inline struct durpina_tier scene_lay_tier(struct scene *s, enum durpina_tier_id tier,
                                                 uint32_t *at)
{
    struct durpina_tier t = {.members.offset = *at};
    struct maglev_peer keys[SCENE_PEERS];
    uint32_t weights[SCENE_PEERS], turns[SCENE_PEERS], n_keys = 0;

    for (uint32_t i = 0; i < s->n; i++) {
        bool mine = s->tier[i] == tier;

        weights[i] = mine && s->want[i].state == DURPINA_PEER_UP ? s->want[i].weight : 0;
        t.weight += weights[i];
        if (weights[i] != 0)
            s->slots[*at + t.members.length++] = SCENE_FIRST + i;
        if (mine && s->want[i].weight != 0)
            keys[n_keys++] =
                (struct maglev_peer){durpina_mix(i + 1), s->want[i].weight, SCENE_FIRST + i};
    }
    *at += t.members.length;

    int64_t length = schedule_turns(weights, s->n, turns);

    assert_true(length >= 0);
    t.schedule = (struct durpina_table){*at, (uint32_t) length};
    assert_int_equal(schedule_layout(turns, s->n, &s->slots[*at], (size_t) length), 0);
    for (uint32_t i = 0; i < t.schedule.length; i++)
        s->slots[*at + i] += SCENE_FIRST;
    for (uint32_t i = 0; i < s->n; i++)
        if (s->tier[i] == tier)
            s->turns[i] = turns[i];
    *at += t.schedule.length;

    if (s->tables & SCENE_HASH && n_keys != 0) {
        t.hash = (struct durpina_table){*at, maglev_size(n_keys, 0)};
        assert_int_equal(maglev_build(keys, n_keys, &s->slots[*at], t.hash.length), 0);
        *at += t.hash.length;
    }
    if (s->tables & SCENE_RING) {
        t.ring = scene_lay_ring(s, tier, *at);
        *at += t.ring.length;
    }
    return t;
}

/* Writes the copy that is not in force. */
static inline void scene_write_copy(struct scene *s, const struct durpina_view *view)
{
    struct durpina_upstream *u = &s->upstreams[SCENE_UPSTREAM];
    uint64_t copy = (u->publish + 1) & 1;

    durpina_seq_open();
    u->view[copy] = *view;
    for (uint32_t i = 0; i < s->n; i++)
        s->peers[SCENE_FIRST + i].settings[copy] = s->want[i];
}

/* The first half of a publication: what is wanted of the n peers is in force. */
static inline struct durpina_view scene_put_in_force(struct scene *s)
{
    struct durpina_upstream *u = &s->upstreams[SCENE_UPSTREAM];
    uint64_t word = u->publish + 1;
    uint32_t at = (word & 1) * SCENE_SLOTS;
    struct durpina_view view = {.peers = {at, s->n}};

    durpina_seq_open();
    for (uint32_t i = 0; i < s->n; i++) {
        s->slots[at++] = SCENE_FIRST + i;
        s->peers[SCENE_FIRST + i].tier = s->tier[i];
    }
    for (int tier = 0; tier < DURPINA_TIERS; tier++)
        view.tier[tier] = scene_lay_tier(s, (enum durpina_tier_id) tier, &at);
    assert_true(at <= ((word & 1) + 1) * SCENE_SLOTS);
    scene_write_copy(s, &view);
    durpina_seq_publish(&u->publish, word);
    return view;
}

/* All of it: both copies are equal afterwards. */
static inline void scene_publish(struct scene *s)
{
    struct durpina_view view = scene_put_in_force(s);

    scene_write_copy(s, &view);
}

/* Everybody is up, with max_fails 1. */
static inline struct scene *scene_create(uint32_t n, const uint32_t *weights)
{
    struct scene *s =
        mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    assert_true(s != MAP_FAILED);
    assert_in_range(n, 1, SCENE_PEERS);
    s->maps = (struct durpina_maps){.meta = &s->meta,
                                    .upstreams = s->upstreams,
                                    .peers = s->peers,
                                    .slots = s->slots,
                                    .counters = s->counters,
                                    .cursors = s->cursors,
                                    .inflight = s->inflight,
                                    .endpoints = s->endpoints,
                                    .n_upstreams = SCENE_UPSTREAMS,
                                    .n_peers = SCENE_FIRST + SCENE_PEERS,
                                    .n_slots = 2 * SCENE_SLOTS,
                                    .n_inflight = SCENE_PAGES,
                                    .n_endpoints = SCENE_ENDPOINTS};
    s->n = n;
    s->tables = SCENE_HASH;
    s->cursors[SCENE_UPSTREAM].asked = DURPINA_ASKED_BOUND; /* so it counts its tries */
    s->upstreams[SCENE_UPSTREAM].generation = SCENE_GENERATION;
    for (uint32_t i = 0; i < SCENE_PEERS; i++) {
        s->peers[SCENE_FIRST + i].generation = scene_counters(s, i)->generation = 100 + i;
        s->peers[SCENE_FIRST + i].upstream = SCENE_UPSTREAM;
        s->peers[SCENE_FIRST + i].endpoint = DURPINA_NONE;
        s->want[i] = (struct durpina_peer_settings){.state = DURPINA_PEER_UP,
                                                    .weight = weights && i < n ? weights[i] : 1,
                                                    .max_fails = 1,
                                                    .fail_timeout_ms = SCENE_FAIL_TIMEOUT_MS};
    }
    scene_publish(s);
    return s;
}

static inline void scene_destroy(struct scene *s)
{
    munmap(s, sizeof(*s));
}

/* Nobody was tried, and the try is noted nowhere. */
static inline struct durpina_request scene_request(enum durpina_algorithm algorithm, uint64_t hash,
                                                   uint64_t now_ms)
{
    static const struct durpina_tried nobody;

    return (struct durpina_request){.algorithm = algorithm,
                                    .hash = hash,
                                    .tried = &nobody,
                                    .now_ms = now_ms};
}

static inline enum durpina_pick_error
scene_pick(struct scene *s, const struct durpina_request *request, struct durpina_pick *ret)
{
    return durpina_pick(&s->maps, SCENE_UPSTREAM, SCENE_GENERATION, request, ret);
}

/* Picks and finishes; returns the index of the peer, or DURPINA_NONE. */
static inline uint32_t scene_serve(struct scene *s, enum durpina_algorithm algorithm, uint64_t hash,
                                   enum durpina_outcome outcome, uint64_t now_ms)
{
    struct durpina_request request = scene_request(algorithm, hash, now_ms);
    struct durpina_pick pick;

    if (scene_pick(s, &request, &pick) != DURPINA_PICK_OK)
        return DURPINA_NONE;
    durpina_finish(&s->maps, &pick, outcome, NULL, now_ms);
    return pick.peer - SCENE_FIRST;
}

#endif
