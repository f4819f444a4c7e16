/* SPDX-License-Identifier: MIT */
/*
 * publish latency PIN SOCKET UPSTREAM SECONDS
 *     Changes weights over the control socket, one after the other, and reads the maps until the
 *     new weight is in force: from the first byte sent to then, and to the end of the answer.
 * publish load PIN SOCKET UPSTREAM SECONDS RATE CONTROLLER-PID
 *     Picks for SECONDS while nothing changes, then as long while RATE weights a second change: CPU
 *     time per pick and finish in both, and what share of a core the controller took.
 *
 * Prints one JSON object. Latencies are wall clock; the reader is the sender itself, which spins.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

#define CHANGES_MAX 100000
#define WEIGHT_MAX 10
#define NS 1000000000ULL
#define BATCH 64

/* The next change: of which peer, and to what weight, never the one it has. */
static void next_change(const struct durpina_maps *maps, const uint32_t *peers, uint32_t n,
                        uint32_t *ret_peer, uint32_t *ret_weight)
{
    static uint64_t seed;
    uint64_t random = durpina_mix(++seed);

    *ret_peer = peers[durpina_place(random, n)];
    *ret_weight = 1 + random % WEIGHT_MAX;
    if (*ret_weight == durpina_read_settings(maps, *ret_peer).weight)
        *ret_weight = *ret_weight % WEIGHT_MAX + 1;
}

static void send_change(int fd, const struct durpina_maps *maps,
                        const struct bench_upstream *upstream, uint32_t peer, uint32_t weight)
{
    char body[64];

    snprintf(body, sizeof(body), "{\"weight\": %" PRIu32 "}", weight);
    bench_patch(fd, upstream->name, DURPINA_LOAD(&maps->peers[peer].server), body);
}

static void measure_latency(const struct durpina_maps *maps, const struct bench_upstream *upstream,
                            const uint32_t *peers, int fd, uint64_t seconds)
{
    static double seen[CHANGES_MAX], answered[CHANGES_MAX];
    const struct durpina_upstream *u = &maps->upstreams[upstream->id];
    uint64_t deadline = bench_ns() + seconds * NS;
    size_t n = 0;

    while (n < CHANGES_MAX && bench_ns() < deadline) {
        uint32_t peer, weight;

        next_change(maps, peers, upstream->n_peers, &peer, &weight);

        uint64_t start = bench_ns();
        const struct durpina_peer_settings *settings;

        send_change(fd, maps, upstream, peer, weight);
        do
            settings = durpina_settings(&maps->peers[peer], durpina_seq_begin(&u->publish));
        while (DURPINA_LOAD(&settings->weight) != weight && bench_ns() - start < 10 * NS);
        seen[n] = (double) (bench_ns() - start) / 1000;
        bench_answer(fd);
        answered[n++] = (double) (bench_ns() - start) / 1000;
    }
    /* Sorted first: the order in which arguments are evaluated is not defined. */
    double in_force_p50 = bench_percentile(seen, n, 0.5);
    double answer_p50 = bench_percentile(answered, n, 0.5);

    printf("{\"peers\": %" PRIu32 ", \"changes\": %zu, \"in_force_p50_us\": %.1f, "
           "\"in_force_p99_us\": %.1f, \"in_force_max_us\": %.1f, \"answer_p50_us\": %.1f, "
           "\"answer_p99_us\": %.1f}\n",
           upstream->n_peers, n, in_force_p50, bench_percentile(seen, n, 0.99), seen[n - 1],
           answer_p50, bench_percentile(answered, n, 0.99));
}

/* --- load --- */

/* What the picking child tells. */
struct picking {
    uint64_t picks;
    uint64_t cpu_ns;
    int stop;
};

static void pick_until_stopped(const struct durpina_maps *maps,
                               const struct bench_upstream *upstream, struct picking *shared)
{
    static const struct durpina_tried nobody;
    struct durpina_try *entry;
    uint64_t picks = 0, start = bench_cpu_ns();

    bench_entries(maps, &entry, 1);
    while (!__atomic_load_n(&shared->stop, __ATOMIC_RELAXED)) {
        struct durpina_request request = {.algorithm = DURPINA_ROUND_ROBIN,
                                          .tried = &nobody,
                                          .entry = entry,
                                          .now_ms = bench_ns() / 1000000};
        struct durpina_pick pick;

        for (int i = 0; i < BATCH; i++) {
            if (durpina_pick(maps, upstream->id, upstream->generation, &request, &pick) !=
                DURPINA_PICK_OK)
                bench_die("a pick failed");
            durpina_finish(maps, &pick, DURPINA_OUTCOME_SUCCESS, NULL, request.now_ms);
        }
        picks += BATCH;
    }
    shared->cpu_ns = bench_cpu_ns() - start;
    shared->picks = picks;
    bench_release(maps);
}

static pid_t start_picking(const struct durpina_maps *maps, const struct bench_upstream *upstream,
                           struct picking *shared)
{
    memset(shared, 0, sizeof(*shared));

    pid_t pid = fork();

    if (pid < 0)
        bench_die("fork failed");
    if (pid == 0) {
        pick_until_stopped(maps, upstream, shared);
        _exit(0);
    }
    return pid;
}

/* CPU nanoseconds per pick and finish. */
static double stop_picking(pid_t pid, struct picking *shared)
{
    int status;

    __atomic_store_n(&shared->stop, 1, __ATOMIC_RELAXED);
    if (waitpid(pid, &status, 0) != pid || status != 0)
        bench_die("the picking process failed");
    return (double) shared->cpu_ns / (double) shared->picks;
}

static void measure_load(const struct durpina_maps *maps, const struct bench_upstream *upstream,
                         const uint32_t *peers, int fd, uint64_t seconds, uint64_t rate,
                         int controller)
{
    struct picking *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t changes = seconds * rate, late = 0;

    if (shared == MAP_FAILED)
        bench_die("out of memory");

    pid_t pid = start_picking(maps, upstream, shared);

    bench_sleep_until(bench_ns() + seconds * NS);

    double quiet_ns = stop_picking(pid, shared);

    pid = start_picking(maps, upstream, shared);

    uint64_t start = bench_ns(), cpu_ns = bench_process_cpu_ns(controller);

    for (uint64_t i = 0; i < changes; i++) {
        uint32_t peer, weight;
        uint64_t due = start + i * NS / rate;

        if (bench_ns() > due + NS / rate)
            late++;
        bench_sleep_until(due);
        next_change(maps, peers, upstream->n_peers, &peer, &weight);
        send_change(fd, maps, upstream, peer, weight);
        bench_answer(fd);
    }

    double elapsed = (double) (bench_ns() - start);
    double cores = (double) (bench_process_cpu_ns(controller) - cpu_ns) / elapsed;
    double busy_ns = stop_picking(pid, shared);

    printf("{\"peers\": %" PRIu32 ", \"changes\": %" PRIu64 ", \"changes_per_s\": %.0f, "
           "\"late\": %" PRIu64 ", \"controller_cores\": %.3f, \"pick_quiet_ns\": %.1f, "
           "\"pick_busy_ns\": %.1f, \"pick_busy_to_quiet\": %.2f}\n",
           upstream->n_peers, changes, (double) changes * NS / elapsed, late, cores, quiet_ns,
           busy_ns, busy_ns / quiet_ns);
}

int main(int argc, char **argv)
{
    int is_latency = argc == 6 && strcmp(argv[1], "latency") == 0;

    if (!is_latency && (argc != 8 || strcmp(argv[1], "load") != 0))
        bench_die("usage: publish latency PIN SOCKET UPSTREAM SECONDS, or "
                  "publish load PIN SOCKET UPSTREAM SECONDS RATE CONTROLLER-PID");

    struct durpina_maps maps = bench_maps(argv[2]);
    struct bench_upstream upstream = bench_upstream(&maps, argv[4]);
    uint32_t *peers = bench_peers(&maps, &upstream);
    uint64_t seconds = strtoull(argv[5], NULL, 10);
    int fd = bench_connect(argv[3]);

    if (is_latency)
        measure_latency(&maps, &upstream, peers, fd, seconds);
    else
        measure_load(&maps, &upstream, peers, fd, seconds, strtoull(argv[6], NULL, 10),
                     atoi(argv[7]));
    free(peers);
    close(fd);
    return 0;
}
