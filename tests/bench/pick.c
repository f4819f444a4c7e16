/* SPDX-License-Identifier: MIT */
/*
 * pick PIN UPSTREAM...: CPU time per pick, and per pick and finish, over the maps of a running
 * controller, by every algorithm. The upstreams are called WEIGHTS_PEERS. Prints a JSON array with
 * one object for each upstream and algorithm.
 *
 * Upstreams and algorithms take turns, ROUNDS times, and the median is reported: a slow moment of
 * the machine hits them alike. Nothing warms the caches between turns but the turn itself.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "harness.h"

#define ROUNDS_DEFAULT 15
#define ROUNDS_MAX 1000
#define BATCH 496 /* picks in flight when picks are timed alone: 8 pages */
#define BATCHES 100
#define UPSTREAMS_MAX 32
#define TABLE_DEADLINE_NS 60000000000ULL
#define STATUS_OK 200

static const struct {
    const char *name;
    enum durpina_algorithm id;
    uint32_t bound;
} algorithms[] = {
    {"round-robin", DURPINA_ROUND_ROBIN, 0},
    {"unweighted-round-robin", DURPINA_UNWEIGHTED_ROUND_ROBIN, 0},
    {"consistent-hash", DURPINA_HASH, 0},
    {"consistent-hash bounded", DURPINA_HASH, DURPINA_BOUND_DEFAULT},
    {"consistent-hash ketama", DURPINA_RING, 0},
    {"least-conn", DURPINA_LEAST_CONN, 0},
    {"random-two", DURPINA_RANDOM_TWO, 0},
    {"peak-ewma", DURPINA_PEAK_EWMA, 0},
    {"least-time header", DURPINA_LEAST_TIME_HEADER, 0},
    {"least-time last_byte", DURPINA_LEAST_TIME_LAST_BYTE, 0},
};
#define N_ALGORITHMS (sizeof(algorithms) / sizeof(algorithms[0]))

struct cell {
    double pick[ROUNDS_MAX];
    double whole[ROUNDS_MAX];
};

static const struct durpina_tried nobody;

/* Times that vary: a sample like all others would change no mean. */
static struct durpina_sample sample_of(size_t i)
{
    return (struct durpina_sample){.status = STATUS_OK,
                                   .connect_ms = DURPINA_NO_TIME,
                                   .header_ms = i & 1,
                                   .response_ms = 1 + (i & 1),
                                   .sent = 200,
                                   .received = 1000};
}

static uint64_t now_ms(void)
{
    return bench_ns() / 1000000;
}

static struct durpina_request request_for(size_t algorithm, struct durpina_try *entry)
{
    return (struct durpina_request){.algorithm = algorithms[algorithm].id,
                                    .bound = algorithms[algorithm].bound,
                                    .tried = &nobody,
                                    .entry = entry,
                                    .now_ms = now_ms()};
}

static void pick_once(const struct durpina_maps *maps, const struct bench_upstream *upstream,
                      struct durpina_request *request, struct durpina_pick *ret_pick)
{
    if (durpina_pick(maps, upstream->id, upstream->generation, request, ret_pick) !=
        DURPINA_PICK_OK)
        bench_die("a pick of %s failed", upstream->name);
}

/* Nanoseconds per pick; BATCH of them are in flight before they are finished, untimed. */
static double measure_picks(const struct durpina_maps *maps, const struct bench_upstream *upstream,
                            size_t algorithm, struct durpina_try **entries)
{
    static struct durpina_pick picks[BATCH];
    static uint64_t key;
    uint64_t spent = 0;

    for (int batch = 0; batch < BATCHES; batch++) {
        struct durpina_request request = request_for(algorithm, NULL);
        uint64_t start = bench_cpu_ns();

        for (size_t i = 0; i < BATCH; i++) {
            request.entry = entries[i];
            request.hash = durpina_mix(++key);
            pick_once(maps, upstream, &request, &picks[i]);
        }
        spent += bench_cpu_ns() - start;
        for (size_t i = 0; i < BATCH; i++) {
            const struct durpina_sample sample = sample_of(i);

            durpina_finish(maps, &picks[i], DURPINA_OUTCOME_SUCCESS, &sample, request.now_ms);
        }
    }
    return (double) spent / (BATCHES * BATCH);
}

/* Nanoseconds per pick and finish, one at a time. */
static double measure_whole(const struct durpina_maps *maps, const struct bench_upstream *upstream,
                            size_t algorithm, struct durpina_try *entry)
{
    static uint64_t key;
    struct durpina_pick pick;
    uint64_t start = bench_cpu_ns();

    for (int batch = 0; batch < BATCHES; batch++) {
        struct durpina_request request = request_for(algorithm, entry);

        for (size_t i = 0; i < BATCH; i++) {
            const struct durpina_sample sample = sample_of(i);

            request.hash = durpina_mix(++key);
            pick_once(maps, upstream, &request, &pick);
            durpina_finish(maps, &pick, DURPINA_OUTCOME_SUCCESS, &sample, request.now_ms);
        }
    }
    return (double) (bench_cpu_ns() - start) / (BATCHES * BATCH);
}

static void measure(const struct durpina_maps *maps, const struct bench_upstream *upstream,
                    size_t algorithm, struct durpina_try **entries, struct cell *cell, size_t round)
{
    cell->pick[round] = measure_picks(maps, upstream, algorithm, entries);
    cell->whole[round] = measure_whole(maps, upstream, algorithm, entries[0]);
}

/* A ring of so many points is measured where all weights are equal only. */
static int is_measured(const struct bench_upstream *upstream, size_t algorithm)
{
    return algorithms[algorithm].id != DURPINA_RING || strncmp(upstream->name, "equal_", 6) == 0;
}

/* Asks for the table that the algorithm looks into by picking, and waits until it is there. */
static void wait_for_table(const struct durpina_maps *maps, const struct bench_upstream *upstream,
                           size_t algorithm, struct durpina_try *entry)
{
    const struct durpina_upstream *u = &maps->upstreams[upstream->id];
    uint64_t deadline = bench_ns() + TABLE_DEADLINE_NS;
    struct durpina_request request = request_for(algorithm, entry);
    struct durpina_pick pick;
    uint32_t length;

    pick_once(maps, upstream, &request, &pick);
    durpina_finish(maps, &pick, DURPINA_OUTCOME_NEUTRAL, NULL, request.now_ms);
    do {
        const struct durpina_tier *tier = &u->view[durpina_seq_begin(&u->publish) & 1].tier[0];

        length = algorithms[algorithm].id == DURPINA_HASH   ? DURPINA_LOAD(&tier->hash.length)
                 : algorithms[algorithm].id == DURPINA_RING ? DURPINA_LOAD(&tier->ring.length)
                                                            : 1;
        if (length == 0 && bench_ns() > deadline)
            bench_die("%s: no table for %s", upstream->name, algorithms[algorithm].name);
        if (length == 0)
            bench_sleep_until(bench_ns() + 1000000);
    } while (length == 0);
}

static void print_cell(const struct bench_upstream *upstream, size_t algorithm, struct cell *cell,
                       size_t rounds)
{
    static const char *separator = "[";
    double pick = bench_percentile(cell->pick, rounds, 0.5);
    double whole = bench_percentile(cell->whole, rounds, 0.5);

    printf("%s{\"peers\": %" PRIu32 ", \"weights\": \"%.*s\", \"algorithm\": \"%s\", "
           "\"pick_ns\": %.1f, \"pick_ns_min\": %.1f, \"pick_ns_max\": %.1f, "
           "\"whole_ns\": %.1f, \"whole_ns_min\": %.1f, \"whole_ns_max\": %.1f}",
           separator, upstream->n_peers, (int) strcspn(upstream->name, "_"), upstream->name,
           algorithms[algorithm].name, pick, cell->pick[0], cell->pick[rounds - 1], whole,
           cell->whole[0], cell->whole[rounds - 1]);
    separator = ",\n ";
}

int main(int argc, char **argv)
{
    static struct cell cells[UPSTREAMS_MAX][N_ALGORITHMS];
    struct bench_upstream upstreams[UPSTREAMS_MAX];
    struct durpina_try *entries[BATCH];
    const char *wanted = getenv("ROUNDS");
    size_t rounds = wanted ? strtoul(wanted, NULL, 10) : ROUNDS_DEFAULT;
    size_t n = (size_t) argc - 2;

    if (argc < 3 || n > UPSTREAMS_MAX || rounds == 0 || rounds > ROUNDS_MAX)
        bench_die("usage: pick PIN UPSTREAM... (at most %d), ROUNDS at most %d", UPSTREAMS_MAX,
                  ROUNDS_MAX);

    struct durpina_maps maps = bench_maps(argv[1]);

    bench_entries(&maps, entries, BATCH);
    for (size_t u = 0; u < n; u++)
        upstreams[u] = bench_upstream(&maps, argv[u + 2]);
    for (size_t a = 0; a < N_ALGORITHMS; a++)
        for (size_t u = 0; u < n; u++)
            if (algorithms[a].bound == 0 && is_measured(&upstreams[u], a))
                wait_for_table(&maps, &upstreams[u], a, entries[0]);

    /* Once a pick has asked for a bound, all picks of the upstream do more. */
    for (int bounded = 0; bounded < 2; bounded++)
        for (size_t round = 0; round < rounds; round++)
            for (size_t u = 0; u < n; u++)
                for (size_t a = 0; a < N_ALGORITHMS; a++)
                    if ((algorithms[a].bound != 0) == bounded && is_measured(&upstreams[u], a))
                        measure(&maps, &upstreams[u], a, entries, &cells[u][a], round);

    for (size_t u = 0; u < n; u++)
        for (size_t a = 0; a < N_ALGORITHMS; a++)
            if (is_measured(&upstreams[u], a))
                print_cell(&upstreams[u], a, &cells[u][a], rounds);
    puts("]");
    bench_release(&maps);
    return 0;
}
