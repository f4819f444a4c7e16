/* SPDX-License-Identifier: MIT */
/*
 * pick PIN N...: nanoseconds per pick and finish over real maps, pinned at PIN, for upstreams of N
 * peers with weights 5, 3, 2, 5, ... Prints a JSON array with one object for each N and algorithm.
 *
 * Sizes and algorithms take turns, ROUNDS times, and the median is reported: a slow moment of the
 * machine hits them alike.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bpf_state.h"
#include "maglev.h"
#include "schedule.h"

#define ROUNDS 15
#define PICKS 200000
#define GENERATION 1
#define WORD 2 /* the publish word of what is laid out here: copy 0 */
#define SIZES_MAX 16

static const struct {
    enum durpina_algorithm id;
    const char *name;
} algorithms[] = {
    {DURPINA_ROUND_ROBIN, "round-robin"},
    {DURPINA_UNWEIGHTED_ROUND_ROBIN, "unweighted-round-robin"},
    {DURPINA_HASH, "consistent-hash"},
};
#define N_ALGORITHMS (sizeof(algorithms) / sizeof(algorithms[0]))

static uint32_t weight_of(size_t i)
{
    static const uint32_t weights[] = {5, 3, 2};

    return weights[i % 3];
}

/* Takes n slots of the map. */
static struct durpina_table take(uint32_t *slots_used, size_t n)
{
    struct durpina_table table = {.offset = *slots_used, .length = (uint32_t) n};

    *slots_used += (uint32_t) n;
    return table;
}

/* Lays out upstream `id` with n peers, the first of which has the id first. 0 or -errno. */
static int lay_out(struct bpf_state *maps, uint32_t id, uint32_t first, uint32_t n,
                   uint32_t *slots_used)
{
    struct durpina_upstream *upstream = &maps->upstreams[id];
    struct durpina_tier *tier = &upstream->view[0].tier[DURPINA_TIER_PRIMARY];
    struct maglev_peer *keys = calloc(n, sizeof(*keys));
    uint32_t *weights = calloc(n, sizeof(*weights));
    uint32_t *turns = calloc(n, sizeof(*turns));
    int64_t length = -ENOMEM;
    int err = -ENOMEM;

    if (!keys || !weights || !turns)
        goto out;
    for (uint32_t i = 0; i < n; i++) {
        struct durpina_peer *peer = &maps->peers[first + i];

        weights[i] = weight_of(i);
        snprintf(peer->name, sizeof(peer->name), "127.0.0.1:%" PRIu32, 1 + i);
        snprintf(peer->address, sizeof(peer->address), "127.0.0.1:%" PRIu32, 1 + i);
        peer->generation = GENERATION;
        peer->upstream = id;
        peer->settings[0] = (struct durpina_peer_settings){.state = DURPINA_PEER_UP,
                                                           .weight = weights[i],
                                                           .max_fails = 1,
                                                           .fail_timeout_ms = 10000};
        maps->counters[first + i].generation = GENERATION;
        keys[i] =
            (struct maglev_peer){maglev_hash(peer->name, peer->address), weights[i], first + i};
    }

    length = schedule_turns(weights, n, turns);
    if (length < 0) {
        err = (int) length;
        goto out;
    }
    tier->schedule = take(slots_used, (size_t) length);
    tier->members = take(slots_used, n);
    tier->hash = take(slots_used, maglev_size(n, 0));
    upstream->view[0].peers = tier->members;
    if (*slots_used > maps->n_slots) {
        err = -ENOSPC;
        goto out;
    }
    err = schedule_layout(turns, n, maps->slots + tier->schedule.offset, (size_t) length);
    for (uint32_t i = 0; i < tier->schedule.length; i++)
        maps->slots[tier->schedule.offset + i] += first;
    for (uint32_t i = 0; i < n; i++)
        maps->slots[tier->members.offset + i] = first + i;
    if (err == 0)
        err = maglev_build(keys, n, maps->slots + tier->hash.offset, tier->hash.length);
    upstream->generation = GENERATION;
    durpina_seq_publish(&upstream->publish, WORD);

out:
    free(keys);
    free(weights);
    free(turns);
    return err;
}

static double nanoseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double) now.tv_sec * 1e9 + (double) now.tv_nsec;
}

/* Nanoseconds per pick and finish; negative if a pick failed. */
static double measure(const struct durpina_maps *maps, uint32_t upstream,
                      enum durpina_algorithm algorithm)
{
    static const struct durpina_tried tried = {0};
    double start = nanoseconds();

    for (uint32_t i = 0; i < PICKS; i++) {
        struct durpina_pick pick;

        if (durpina_pick(maps, upstream, GENERATION, algorithm, durpina_mix(i), &tried, i, &pick) !=
            DURPINA_PICK_OK)
            return -1;
        durpina_finish(maps, &pick, DURPINA_OUTCOME_SUCCESS, i);
    }
    return (nanoseconds() - start) / PICKS;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *) a, y = *(const double *) b;

    return (x > y) - (x < y);
}

static int bench(struct bpf_state *state, const uint32_t *sizes, uint32_t n_sizes)
{
    static double results[SIZES_MAX][N_ALGORITHMS][ROUNDS];
    struct durpina_maps maps = bpf_state_maps(state);

    for (int round = 0; round < ROUNDS; round++)
        for (uint32_t size = 0; size < n_sizes; size++)
            for (size_t a = 0; a < N_ALGORITHMS; a++) {
                results[size][a][round] = measure(&maps, size, algorithms[a].id);
                if (results[size][a][round] < 0)
                    return -ENOENT;
            }

    for (uint32_t size = 0; size < n_sizes; size++)
        for (size_t a = 0; a < N_ALGORITHMS; a++) {
            double *r = results[size][a];

            qsort(r, ROUNDS, sizeof(*r), compare);
            printf("%s{\"peers\": %" PRIu32 ", \"algorithm\": \"%s\", \"ns\": %.1f, "
                   "\"ns_min\": %.1f, \"ns_max\": %.1f}",
                   size + a == 0 ? "[" : ",\n ", sizes[size], algorithms[a].name, r[ROUNDS / 2],
                   r[0], r[ROUNDS - 1]);
        }
    puts("]");
    return 0;
}

int main(int argc, char **argv)
{
    struct bpf_state_options options = {.n_upstreams = SIZES_MAX, .n_slots = DURPINA_SLOTS_DEFAULT};
    struct bpf_state state;
    struct failure failure;
    uint32_t sizes[SIZES_MAX];
    uint32_t n_sizes = (uint32_t) argc - 2, used_peers = 0, used_slots = 0;
    int err;

    if (argc < 3 || argc - 2 > SIZES_MAX) {
        fprintf(stderr, "usage: pick PIN N... (at most %d)\n", SIZES_MAX);
        return 2;
    }
    options.pin = argv[1];
    for (uint32_t i = 0; i < n_sizes; i++) {
        sizes[i] = (uint32_t) strtoul(argv[i + 2], NULL, 10);
        options.n_peers += sizes[i];
    }

    err = bpf_state_open(&options, &state, &failure);
    if (err != 0) {
        fprintf(stderr, "pick: %s\n", failure.text);
        return 1;
    }
    for (uint32_t i = 0; i < n_sizes && err == 0; i++) {
        err = lay_out(&state, i, used_peers, sizes[i], &used_slots);
        used_peers += sizes[i];
    }
    if (err == 0)
        err = bench(&state, sizes, n_sizes);
    if (err != 0)
        fprintf(stderr, "pick: %s\n", strerror(-err));
    bpf_state_close(&state);
    return err != 0;
}
