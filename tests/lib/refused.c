/* SPDX-License-Identifier: MIT */
/*
 * refused PORT N [PIN]: N times connect() to 127.0.0.1:PORT, where nobody listens. With the pins of
 * a durpinad it makes all peers of that address available before each, waits after it until all are
 * temporarily down, and prints how long both took in microseconds: median, 99th percentile, most.
 * Exits with 1 if a connect() was not refused, or if a peer was not down within a second.
 */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "durpina_counters.h"

#define PEERS_MAX 16
#define PATIENCE_NS 1000000000ULL

static struct durpina_counters *watched[PEERS_MAX];
static size_t n_watched;

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t) now.tv_sec * 1000000000 + (uint64_t) now.tv_nsec;
}

static void *map_pin(const char *pin, const char *name, int prot, uint32_t *ret_n)
{
    struct bpf_map_info info = {0};
    uint32_t len = sizeof(info);
    char path[4096];
    void *map;
    int fd;

    snprintf(path, sizeof(path), "%s/%s", pin, name);
    fd = bpf_obj_get(path);
    if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &len) < 0) {
        perror(path);
        exit(1);
    }
    map = mmap(NULL, (size_t) info.value_size * info.max_entries, prot, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        perror(path);
        exit(1);
    }
    *ret_n = info.max_entries;
    return map;
}

static void find_peers(const char *pin, uint16_t port_be)
{
    uint32_t n;
    struct durpina_counters *counters = map_pin(pin, "counters", PROT_READ | PROT_WRITE, &n);
    const struct durpina_peer *peers = map_pin(pin, "peers", PROT_READ, &n);

    for (uint32_t id = 0; id < n && n_watched < PEERS_MAX; id++)
        if (peers[id].settings[0].state == DURPINA_PEER_UP && peers[id].port_be == port_be)
            watched[n_watched++] = &counters[id];
    if (n_watched == 0) {
        fprintf(stderr, "no peer has this address\n");
        exit(1);
    }
}

static void connect_once(const struct sockaddr_in *to)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || connect(fd, (const struct sockaddr *) to, sizeof(*to)) == 0 ||
        errno != ECONNREFUSED) {
        perror("connect");
        exit(1);
    }
    close(fd);
}

/* Nanoseconds from the call of connect(), which fails, until no worker picks any of the peers. */
static uint64_t time_once(const struct sockaddr_in *to)
{
    uint64_t began;

    for (size_t i = 0; i < n_watched; i++)
        durpina_clear_fails(watched[i]);
    began = now_ns();
    connect_once(to);
    for (size_t i = 0; i < n_watched; i++)
        while (!durpina_is_temp_down(watched[i], now_ns() / 1000000))
            if (now_ns() - began > PATIENCE_NS) {
                fprintf(stderr, "still available after a second\n");
                exit(1);
            }
    return now_ns() - began;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *) a, y = *(const uint64_t *) b;

    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    size_t n = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
    uint64_t *times = calloc(n, sizeof(*times));

    if (n == 0 || times == NULL) {
        fprintf(stderr, "Usage: refused PORT N [PIN]\n");
        return 2;
    }
    to.sin_port = htons((uint16_t) strtoul(argv[1], NULL, 10));
    if (argc == 3) {
        for (size_t i = 0; i < n; i++)
            connect_once(&to);
        return 0;
    }
    find_peers(argv[3], to.sin_port);
    for (size_t i = 0; i < n; i++)
        times[i] = time_once(&to);
    qsort(times, n, sizeof(*times), compare);
    printf("%llu %llu %llu\n", (unsigned long long) times[n / 2] / 1000,
           (unsigned long long) times[n * 99 / 100] / 1000,
           (unsigned long long) times[n - 1] / 1000);
    return 0;
}
