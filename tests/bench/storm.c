/* SPDX-License-Identifier: MIT */
/*
 * storm PIN SOCKET UPSTREAM SECONDS RATE PICKS: RATE changes a second over the control socket, of
 * weights and of states up and down, against PICKERS processes that pick and finish all the while,
 * for SECONDS and until they have made PICKS picks, but for PATIENCE times SECONDS at most.
 *
 * A state of the upstream is known to be whole by what it says of itself: the weights of the peers
 * that are up sum to what the tier says, their number is that of the members, and the addresses of
 * one name have one weight. Each picker reads it whole every CHECK_EVERY picks; one that no
 * publication overtook and that does not add up was torn.
 *
 * A pick is invalid if its peer is not the upstream's, or if the peer was known to be down before
 * the pick began: the sender notes when a "down" was answered, and takes the note back before it
 * sends "up".
 *
 * Every SAMPLE_EVERY-th pick is timed by CLOCK_MONOTONIC: what it takes to read the clock, and
 * whatever the scheduler gave the CPU to meanwhile, is in the figure.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

#define PICKERS 2
#define CONNECTIONS 8 /* to the control socket: so many changes are under way at once */
#define SAMPLE_EVERY 64
#define CHECK_EVERY 256
#define WEIGHT_MAX 10
#define SERVERS_MAX 1024
#define NS 1000000000ULL
#define PATIENCE 4
#define HISTOGRAM_NS 100000 /* the last field: this long and longer */

static const enum durpina_algorithm algorithms[] = {DURPINA_ROUND_ROBIN, DURPINA_HASH,
                                                    DURPINA_LEAST_CONN, DURPINA_RANDOM_TWO};
#define N_ALGORITHMS (sizeof(algorithms) / sizeof(algorithms[0]))

struct picker {
    uint64_t picks;
    uint64_t no_peer;
    uint64_t wrong_peer; /* not the upstream's */
    uint64_t down_peer;  /* known to be down */
    uint64_t checked;
    uint64_t torn;
    uint64_t overtaken;
    uint32_t histogram[HISTOGRAM_NS];
} __attribute__((aligned(64)));

struct shared {
    uint32_t stop;
    uint64_t answered __attribute__((aligned(64))); /* changes so far */
    /* By place among the servers: how many changes had been answered when it was known to be down,
     * or 0. */
    uint64_t down_since[SERVERS_MAX] __attribute__((aligned(64)));
    struct picker pickers[PICKERS];
};

struct storm {
    struct durpina_maps maps;
    struct bench_upstream upstream;
    uint32_t *peers;
    uint32_t *place_of; /* of the server of a peer, by peer id; DURPINA_NONE: not of the upstream */
    uint32_t n_servers;
    uint32_t servers[SERVERS_MAX];
    struct shared *shared;
};

/* --- picking --- */

/* 1: a whole state, 0: a torn one, -1: overtaken. */
static int is_whole(const struct storm *storm)
{
    const struct durpina_maps *maps = &storm->maps;
    const struct durpina_upstream *u = &maps->upstreams[storm->upstream.id];
    uint64_t word = durpina_seq_begin(&u->publish);
    const struct durpina_view *view = &u->view[word & 1];
    uint64_t weight = 0, tier_weight = DURPINA_LOAD(&view->tier[0].weight);
    uint32_t members = DURPINA_LOAD(&view->tier[0].members.length), up = 0, uneven = 0;
    uint32_t name_weight = 0, name_server = DURPINA_NONE;

    for (uint32_t i = 0; i < storm->upstream.n_peers; i++) {
        const struct durpina_peer *peer = &maps->peers[storm->peers[i]];
        const struct durpina_peer_settings *settings = durpina_settings(peer, word);
        uint32_t of_peer = DURPINA_LOAD(&settings->weight);
        uint32_t server = DURPINA_LOAD(&peer->server);

        uneven += server == name_server && of_peer != name_weight;
        name_server = server;
        name_weight = of_peer;
        if (DURPINA_LOAD(&settings->state) == DURPINA_PEER_UP) {
            weight += of_peer;
            up++;
        }
    }
    if (durpina_seq_retry(&u->publish, word))
        return -1;
    return weight == tier_weight && up == members && uneven == 0;
}

static void pick_until_stopped(const struct storm *storm, struct picker *picker, uint64_t key)
{
    static const struct durpina_tried nobody;
    struct shared *shared = storm->shared;
    struct durpina_request request = {.tried = &nobody};
    struct durpina_pick pick;

    bench_entries(&storm->maps, &request.entry, 1);
    for (uint64_t i = 0; !DURPINA_LOAD(&shared->stop); i++) {
        uint64_t answered = __atomic_load_n(&shared->answered, __ATOMIC_ACQUIRE), start = 0;
        enum durpina_pick_error err;

        if (i % SAMPLE_EVERY == 0) {
            start = bench_ns();
            request.now_ms = start / 1000000;
        }
        /* Else those that are timed would all be of one algorithm. */
        request.algorithm = algorithms[(i + i / SAMPLE_EVERY) % N_ALGORITHMS];
        request.hash = durpina_mix(key + i);
        err = durpina_pick(&storm->maps, storm->upstream.id, storm->upstream.generation, &request,
                           &pick);
        if (i % SAMPLE_EVERY == 0) {
            uint64_t took = bench_ns() - start;

            picker->histogram[took < HISTOGRAM_NS ? took : HISTOGRAM_NS - 1]++;
        }
        picker->picks++;
        if (err != DURPINA_PICK_OK) {
            picker->no_peer++;
            continue;
        }

        uint32_t place = storm->place_of[pick.peer];

        if (place == DURPINA_NONE) {
            picker->wrong_peer++;
        } else {
            uint64_t since = __atomic_load_n(&shared->down_since[place], __ATOMIC_ACQUIRE);

            picker->down_peer += since != 0 && since <= answered;
        }
        durpina_finish(&storm->maps, &pick, DURPINA_OUTCOME_SUCCESS, NULL, request.now_ms);
        if (i % CHECK_EVERY == 0) {
            int whole = is_whole(storm);

            picker->checked++;
            picker->torn += whole == 0;
            picker->overtaken += whole < 0;
        }
    }
    bench_release(&storm->maps);
}

/* --- changing --- */

struct change {
    uint32_t place;
    enum { WEIGHT, DOWN, UP } kind;
};

/* The i-th change: two of three are weights, the third one takes a server out or back. Changes that
 * are under way together are of different servers, since they may overtake each other. */
static struct change send_change(const struct storm *storm, int fd, uint64_t i, int *downs)
{
    uint64_t random = durpina_mix(i), batch = durpina_mix(i / CONNECTIONS);
    struct change change = {.place = (uint32_t) ((batch + i) % storm->n_servers), .kind = WEIGHT};
    char body[64];

    if (random % 3 != 0) {
        snprintf(body, sizeof(body), "{\"weight\": %d}", (int) (1 + random / 3 % WEIGHT_MAX));
    } else {
        change.kind = downs[change.place] ? UP : DOWN;
        downs[change.place] = !downs[change.place];
        if (change.kind == UP)
            __atomic_store_n(&storm->shared->down_since[change.place], 0, __ATOMIC_SEQ_CST);
        snprintf(body, sizeof(body), "{\"state\": \"%s\"}", change.kind == UP ? "up" : "down");
    }
    bench_patch(fd, storm->upstream.name, storm->servers[change.place], body);
    return change;
}

static uint64_t picks_so_far(const struct shared *shared)
{
    uint64_t picks = 0;

    for (int p = 0; p < PICKERS; p++)
        picks += DURPINA_LOAD(&shared->pickers[p].picks);
    return picks;
}

/* Returns the changes made. */
static uint64_t change_for(const struct storm *storm, const char *socket_path, uint64_t seconds,
                           uint64_t rate, uint64_t picks)
{
    static int downs[SERVERS_MAX]; /* as sent last */
    int fds[CONNECTIONS];
    uint64_t start = bench_ns(), made = 0;

    for (int c = 0; c < CONNECTIONS; c++)
        fds[c] = bench_connect(socket_path);
    while (bench_ns() - start < seconds * NS ||
           (picks_so_far(storm->shared) < picks && bench_ns() - start < PATIENCE * seconds * NS)) {
        struct change changes[CONNECTIONS];

        bench_sleep_until(start + made * NS / rate);
        for (int c = 0; c < CONNECTIONS; c++)
            changes[c] = send_change(storm, fds[c], made + (uint64_t) c, downs);
        for (int c = 0; c < CONNECTIONS; c++) {
            bench_answer(fds[c]);

            uint64_t answered = __atomic_add_fetch(&storm->shared->answered, 1, __ATOMIC_ACQ_REL);

            if (changes[c].kind == DOWN)
                __atomic_store_n(&storm->shared->down_since[changes[c].place], answered,
                                 __ATOMIC_RELEASE);
        }
        made += CONNECTIONS;
    }
    for (int c = 0; c < CONNECTIONS; c++)
        close(fds[c]);
    return made;
}

/* --- both --- */

static void report(const struct shared *shared, uint64_t changes, double seconds)
{
    static uint64_t histogram[HISTOGRAM_NS];
    struct picker sum = {0};
    uint64_t samples = 0, below = 0;
    int p50 = -1, p99 = -1, p999 = -1;

    for (int p = 0; p < PICKERS; p++) {
        const struct picker *picker = &shared->pickers[p];

        sum.picks += picker->picks;
        sum.no_peer += picker->no_peer;
        sum.wrong_peer += picker->wrong_peer;
        sum.down_peer += picker->down_peer;
        sum.checked += picker->checked;
        sum.torn += picker->torn;
        sum.overtaken += picker->overtaken;
        for (int ns = 0; ns < HISTOGRAM_NS; ns++) {
            histogram[ns] += picker->histogram[ns];
            samples += picker->histogram[ns];
        }
    }
    for (int ns = 0; ns < HISTOGRAM_NS; ns++) {
        below += histogram[ns];
        if (p50 < 0 && below * 2 >= samples)
            p50 = ns;
        if (p99 < 0 && below * 100 >= samples * 99)
            p99 = ns;
        if (p999 < 0 && below * 1000 >= samples * 999)
            p999 = ns;
    }
    printf("{\"seconds\": %.1f, \"changes_per_s\": %.0f, \"picks\": %" PRIu64
           ", \"pickers\": %d, \"states_checked\": %" PRIu64 ", \"torn\": %" PRIu64
           ", \"overtaken\": %" PRIu64 ", \"invalid\": %" PRIu64 ", \"no_peer\": %" PRIu64
           ", \"samples\": %" PRIu64 ", \"p50_ns\": %d, \"p99_ns\": %d, \"p999_ns\": %d}\n",
           seconds, (double) changes / seconds, sum.picks, PICKERS, sum.checked, sum.torn,
           sum.overtaken, sum.wrong_peer + sum.down_peer, sum.no_peer, samples, p50, p99, p999);
}

/* The addresses of one name follow each other. */
static void list_servers(struct storm *storm)
{
    for (uint32_t i = 0; i < storm->upstream.n_peers; i++) {
        uint32_t server = DURPINA_LOAD(&storm->maps.peers[storm->peers[i]].server);

        if (i == 0 || server != storm->servers[storm->n_servers - 1]) {
            if (storm->n_servers == SERVERS_MAX)
                bench_die("%s has too many servers", storm->upstream.name);
            storm->servers[storm->n_servers++] = server;
        }
        storm->place_of[storm->peers[i]] = storm->n_servers - 1;
    }
    if (storm->n_servers < CONNECTIONS)
        bench_die("%s has too few servers", storm->upstream.name);
}

int main(int argc, char **argv)
{
    pid_t pids[PICKERS];

    if (argc != 7)
        bench_die("usage: storm PIN SOCKET UPSTREAM SECONDS RATE PICKS");

    struct storm storm = {.maps = bench_maps(argv[1])};

    storm.upstream = bench_upstream(&storm.maps, argv[3]);
    storm.peers = bench_peers(&storm.maps, &storm.upstream);
    storm.place_of = malloc(storm.maps.n_peers * sizeof(*storm.place_of));
    storm.shared = mmap(NULL, sizeof(*storm.shared), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!storm.place_of || storm.shared == MAP_FAILED)
        bench_die("out of memory");
    for (uint32_t i = 0; i < storm.maps.n_peers; i++)
        storm.place_of[i] = DURPINA_NONE;
    list_servers(&storm);

    for (int p = 0; p < PICKERS; p++) {
        pids[p] = fork();
        if (pids[p] < 0)
            bench_die("fork failed");
        if (pids[p] == 0) {
            pick_until_stopped(&storm, &storm.shared->pickers[p], (uint64_t) p << 32);
            _exit(0);
        }
    }

    uint64_t start = bench_ns();
    uint64_t changes = change_for(&storm, argv[2], strtoull(argv[4], NULL, 10),
                                  strtoull(argv[5], NULL, 10), strtoull(argv[6], NULL, 10));
    double seconds = (double) (bench_ns() - start) / 1e9;

    DURPINA_STORE(&storm.shared->stop, 1);
    for (int p = 0; p < PICKERS; p++) {
        int status;

        if (waitpid(pids[p], &status, 0) != pids[p] || status != 0)
            bench_die("a picking process failed");
    }
    report(storm.shared, changes, seconds);
    free(storm.peers);
    free(storm.place_of);
    return 0;
}
