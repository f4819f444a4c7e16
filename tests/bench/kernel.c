/* SPDX-License-Identifier: MIT */
/*
 * kernel serve PORT
 *     Closes TCP connections to PORT, of whatever address, and sends UDP datagrams back.
 * kernel programs PIN
 *     What the verifier and the compiler made of each program with a link below PIN.
 * kernel cost PIN CGROUP N NAME=ADDRESS[/udp]...
 *     Mean run time of each program in N connects from within CGROUP to each of the addresses. UDP:
 *     a question and its answer by an unconnected socket.
 * kernel rate CGROUP OTHER ROUNDS MS NAME=ADDRESS...
 *     connect() and close(), as many as there can be in MS, from within CGROUP and OTHER by turns.
 * kernel failure PIN CGROUP UPSTREAM ROUNDS
 *     From a connect() to the first peer of UPSTREAM, which must be refused, until the peer is
 *     temporarily down: the refusal itself is in the figure.
 *
 * All print lines of JSON.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "harness.h"

#define ROUNDS_MAX 10000
#define PROGRAMS_MAX 16
#define LINK_PREFIX "link_"
#define WARM_UP 100 /* connects that are not measured */
#define BATCH 16    /* connects between two looks at the clock */
#define PATIENCE_NS (10 * 1000000000ULL)

struct target {
    const char *name;
    struct sockaddr_storage address;
    socklen_t len;
    int type;
};

/* "127.0.0.1:80", "[::1]:80" */
static void parse_address(const char *text, struct sockaddr_storage *ret, socklen_t *ret_len)
{
    const char *colon = strrchr(text, ':');
    struct sockaddr_in *in = (struct sockaddr_in *) ret;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *) ret;
    char host[INET6_ADDRSTRLEN + 2];
    size_t n = colon ? (size_t) (colon - text) : 0;

    if (n < 2 || n >= sizeof(host))
        bench_die("%s is no address", text);
    memcpy(host, text, n);
    host[n] = '\0';
    *ret = (struct sockaddr_storage){0};
    if (host[0] == '[') {
        host[n - 1] = '\0';
        ret->ss_family = AF_INET6;
        in6->sin6_port = htons((uint16_t) atoi(colon + 1));
        *ret_len = sizeof(*in6);
        if (inet_pton(AF_INET6, host + 1, &in6->sin6_addr) == 1)
            return;
    } else {
        ret->ss_family = AF_INET;
        in->sin_port = htons((uint16_t) atoi(colon + 1));
        *ret_len = sizeof(*in);
        if (inet_pton(AF_INET, host, &in->sin_addr) == 1)
            return;
    }
    bench_die("%s is no address", text);
}

/* Splits NAME=ADDRESS[/udp] in place. */
static struct target parse_target(char *text)
{
    struct target t = {.name = text, .type = SOCK_STREAM};
    char *address = strchr(text, '=');

    if (!address)
        bench_die("%s is not NAME=ADDRESS", text);
    *address++ = '\0';

    char *protocol = strchr(address, '/');

    if (protocol) {
        t.type = SOCK_DGRAM;
        *protocol = '\0';
    }
    parse_address(address, &t.address, &t.len);
    return t;
}

static void join_cgroup(const char *cgroup)
{
    char path[512];
    int fd;

    snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "0", 1) != 1)
        bench_die("%s: %s", path, strerror(errno));
    close(fd);
}

static int new_socket(int family, int type)
{
    int fd = socket(family, type | SOCK_CLOEXEC, 0);

    if (fd < 0)
        bench_die("a socket: %s", strerror(errno));
    return fd;
}

/* --- the other side --- */

static void serve(uint16_t port)
{
    const struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    int type = fork() == 0 ? SOCK_DGRAM : SOCK_STREAM;
    int server = new_socket(AF_INET6, type);
    const int no = 0;

    if (setsockopt(server, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof(no)) != 0 ||
        bind(server, (const struct sockaddr *) &any, sizeof(any)) != 0 ||
        (type == SOCK_STREAM && listen(server, 4096) != 0))
        bench_die("port %d: %s", port, strerror(errno));
    for (;;) {
        struct sockaddr_storage from;
        socklen_t len = sizeof(from);
        char byte;

        if (type == SOCK_STREAM)
            close(accept(server, NULL, NULL));
        else if (recvfrom(server, &byte, 1, 0, (struct sockaddr *) &from, &len) == 1)
            sendto(server, &byte, 1, 0, (const struct sockaddr *) &from, len);
    }
}

/* --- the client --- */

static void connect_once(const struct target *t)
{
    int fd = new_socket(t->address.ss_family, SOCK_STREAM);

    if (connect(fd, (const struct sockaddr *) &t->address, t->len) != 0)
        bench_die("connect to %s: %s", t->name, strerror(errno));
    close(fd);
}

static void exchange(const struct target *t)
{
    int fd = new_socket(t->address.ss_family, t->type);
    struct sockaddr_storage peer;
    socklen_t len = sizeof(peer);
    char byte = 0;

    if (t->type == SOCK_DGRAM) {
        if (sendto(fd, &byte, 1, 0, (const struct sockaddr *) &t->address, t->len) != 1 ||
            recvfrom(fd, &byte, 1, 0, (struct sockaddr *) &peer, &len) != 1)
            bench_die("a datagram to %s and back: %s", t->name, strerror(errno));
    } else if (connect(fd, (const struct sockaddr *) &t->address, t->len) != 0 ||
               getpeername(fd, (struct sockaddr *) &peer, &len) != 0) {
        bench_die("connect to %s: %s", t->name, strerror(errno));
    }
    close(fd);
}

/* --- programs --- */

struct program {
    char name[64];
    int fd;
    struct bpf_prog_info info;
};

static void look(struct program *p)
{
    uint32_t len = sizeof(p->info);

    p->info = (struct bpf_prog_info){0};
    if (bpf_obj_get_info_by_fd(p->fd, &p->info, &len) != 0)
        bench_die("%s: %s", p->name, strerror(errno));
}

static size_t open_programs(const char *pin, struct program *ret)
{
    DIR *dir = opendir(pin);
    struct dirent *entry;
    size_t n = 0;

    if (!dir)
        bench_die("%s: %s", pin, strerror(errno));
    while ((entry = readdir(dir)) && n < PROGRAMS_MAX) {
        struct bpf_link_info info = {0};
        uint32_t len = sizeof(info);
        char path[512];

        if (strncmp(entry->d_name, LINK_PREFIX, strlen(LINK_PREFIX)) != 0)
            continue;
        snprintf(path, sizeof(path), "%s/%s", pin, entry->d_name);
        snprintf(ret[n].name, sizeof(ret[n].name), "%.63s", entry->d_name + strlen(LINK_PREFIX));

        int link = bpf_obj_get(path);

        if (link < 0 || bpf_obj_get_info_by_fd(link, &info, &len) != 0)
            bench_die("%s: %s", path, strerror(errno));
        close(link);
        ret[n].fd = bpf_prog_get_fd_by_id(info.prog_id);
        if (ret[n].fd < 0)
            bench_die("the program of %s: %s", path, strerror(errno));
        look(&ret[n++]);
    }
    closedir(dir);
    if (n == 0)
        bench_die("%s has no link", pin);
    return n;
}

static void print_programs(const char *pin)
{
    struct program programs[PROGRAMS_MAX];
    size_t n = open_programs(pin, programs);

    for (size_t i = 0; i < n; i++)
        printf("{\"program\": \"%s\", \"verified_insns\": %" PRIu32 ", \"jited_bytes\": %" PRIu32
               "}\n",
               programs[i].name, programs[i].info.verified_insns, programs[i].info.jited_prog_len);
}

static void measure_cost(const char *pin, const struct target *t, size_t times)
{
    struct program programs[PROGRAMS_MAX];
    size_t n = open_programs(pin, programs);
    /* The kernel takes run times for as long as this is open. */
    int stats = bpf_enable_stats(BPF_STATS_RUN_TIME);

    if (stats < 0)
        bench_die("run times of programs: %s", strerror(errno));
    for (size_t i = 0; i < WARM_UP; i++)
        exchange(t);
    for (size_t i = 0; i < n; i++)
        look(&programs[i]);
    for (size_t i = 0; i < times; i++)
        exchange(t);
    for (size_t i = 0; i < n; i++) {
        uint64_t runs = programs[i].info.run_cnt, ns = programs[i].info.run_time_ns;

        look(&programs[i]);
        runs = programs[i].info.run_cnt - runs;
        ns = programs[i].info.run_time_ns - ns;
        if (runs > 0)
            printf("{\"to\": \"%s\", \"program\": \"%s\", \"runs\": %" PRIu64
                   ", \"run_ns\": %.1f}\n",
                   t->name, programs[i].name, runs, (double) ns / (double) runs);
        close(programs[i].fd);
    }
    close(stats);
}

/* --- what a process notices --- */

/* Connections a second. */
static double rate_of(const struct target *t, const char *cgroup, uint64_t ns)
{
    uint64_t start, now, n = 0;

    join_cgroup(cgroup);
    for (size_t i = 0; i < WARM_UP; i++)
        connect_once(t);
    start = bench_ns();
    do {
        for (int i = 0; i < BATCH; i++)
            connect_once(t);
        n += BATCH;
        now = bench_ns();
    } while (now - start < ns);
    return (double) n * 1e9 / (double) (now - start);
}

static void measure_rate(const char *cgroup, const char *other, size_t rounds, uint64_t ns,
                         const struct target *t)
{
    static double with[ROUNDS_MAX], without[ROUNDS_MAX], ratio[ROUNDS_MAX];

    for (size_t i = 0; i < rounds; i++) {
        /* Who comes first changes, so that neither gains by it. */
        if (i % 2 == 0)
            with[i] = rate_of(t, cgroup, ns);
        without[i] = rate_of(t, other, ns);
        if (i % 2 == 1)
            with[i] = rate_of(t, cgroup, ns);
        ratio[i] = with[i] / without[i];
    }
    printf("{\"to\": \"%s\", \"rounds\": %zu, \"connects_per_s\": %.0f, \"without\": %.0f, "
           "\"to_without\": %.3f}\n",
           t->name, rounds, bench_percentile(with, rounds, 0.5),
           bench_percentile(without, rounds, 0.5), bench_percentile(ratio, rounds, 0.5));
}

static void measure_failure(const char *pin, const char *upstream_name, size_t rounds)
{
    static double took[ROUNDS_MAX];
    struct durpina_maps maps = bench_maps(pin);
    struct bench_upstream upstream = bench_upstream(&maps, upstream_name);
    uint32_t *peers = bench_peers(&maps, &upstream);
    struct durpina_counters *c = &maps.counters[peers[0]];
    struct target t;

    parse_address(maps.peers[peers[0]].address, &t.address, &t.len);
    for (size_t i = 0; i < rounds; i++) {
        /* At another moment of durpinad's each time, and never while it is still at work. */
        bench_sleep_until(bench_ns() + 1000000 + durpina_mix(i) % 2000000);
        durpina_clear_fails(c);

        int fd = new_socket(t.address.ss_family, SOCK_STREAM);
        uint64_t start = bench_ns();

        if (connect(fd, (const struct sockaddr *) &t.address, t.len) == 0 || errno != ECONNREFUSED)
            bench_die("the first peer of %s was to refuse", upstream_name);
        while (DURPINA_LOAD(&c->down_until_ms) == 0)
            if (bench_ns() - start > PATIENCE_NS)
                bench_die("nobody marks the first peer of %s", upstream_name);
        took[i] = (double) (bench_ns() - start) / 1000;
        close(fd);
    }
    durpina_clear_fails(c);
    free(peers);

    double p50 = bench_percentile(took, rounds, 0.5);

    printf("{\"rounds\": %zu, \"down_p50_us\": %.1f, \"down_p99_us\": %.1f, "
           "\"down_max_us\": %.1f}\n",
           rounds, p50, bench_percentile(took, rounds, 0.99), bench_percentile(took, rounds, 1));
}

static size_t parse_rounds(const char *text)
{
    long n = atol(text);

    if (n < 1 || n > ROUNDS_MAX)
        bench_die("1 to %d rounds", ROUNDS_MAX);
    return (size_t) n;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";

    if (strcmp(what, "serve") == 0 && argc == 3) {
        serve((uint16_t) atoi(argv[2]));
    } else if (strcmp(what, "programs") == 0 && argc == 3) {
        print_programs(argv[2]);
    } else if (strcmp(what, "cost") == 0 && argc > 5) {
        join_cgroup(argv[3]);
        for (int i = 5; i < argc; i++) {
            const struct target t = parse_target(argv[i]);

            measure_cost(argv[2], &t, (size_t) atol(argv[4]));
        }
    } else if (strcmp(what, "rate") == 0 && argc > 6) {
        for (int i = 6; i < argc; i++) {
            const struct target t = parse_target(argv[i]);

            measure_rate(argv[2], argv[3], parse_rounds(argv[4]),
                         (uint64_t) atol(argv[5]) * 1000000, &t);
        }
    } else if (strcmp(what, "failure") == 0 && argc == 6) {
        join_cgroup(argv[3]);
        measure_failure(argv[2], argv[4], parse_rounds(argv[5]));
    } else {
        bench_die("usage: see the top of tests/bench/kernel.c");
    }
    return 0;
}
