/* SPDX-License-Identifier: MIT */
/*
 * What the benchmark programs share: the maps as an nginx worker has them, a client of the control
 * socket, clocks and percentiles. All of them end the process with a line on stderr if something
 * is not as it should be: a benchmark has nobody to report to.
 */
#ifndef BENCH_HARNESS_H
#define BENCH_HARNESS_H

#include <stddef.h>
#include <stdint.h>

#include "durpina_select.h"

/* Prints the text and ends the process. */
void bench_die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* The maps pinned below pin. */
struct durpina_maps bench_maps(const char *pin);

struct bench_upstream {
    const char *name;
    uint32_t id;
    uint32_t generation;
    uint32_t n_peers;
};

struct bench_upstream bench_upstream(const struct durpina_maps *maps, const char *name);

/* Ids of the upstream's peers, in the order of `server` lines; to be freed. */
uint32_t *bench_peers(const struct durpina_maps *maps, const struct bench_upstream *upstream);

/* Claims pages of inflight for this process and sets ret[0..n) to entries in them. */
void bench_entries(const struct durpina_maps *maps, struct durpina_try **ret, size_t n);
/* Gives back what this process has claimed. */
void bench_release(const struct durpina_maps *maps);

uint64_t bench_ns(void);     /* CLOCK_MONOTONIC */
uint64_t bench_cpu_ns(void); /* of the calling thread */
void bench_sleep_until(uint64_t ns);
/* Run time of all threads of a process, from the scheduler. */
uint64_t bench_process_cpu_ns(int pid);

/* Sorts n values, at least one, and returns the one that a share of them does not exceed. */
double bench_percentile(double *values, size_t n, double share);

/* A connection to the control socket that is kept open. One request at a time. */
int bench_connect(const char *socket_path);
/* PATCH of a server with this body. */
void bench_patch(int fd, const char *upstream, uint32_t server, const char *body);
/* Reads the answer, which must have status 200. */
void bench_answer(int fd);

#endif
