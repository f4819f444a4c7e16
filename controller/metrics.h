/* SPDX-License-Identifier: MIT */
/*
 * Metrics as Prometheus reads them (text format 0.0.4), made in parts while they are sent: a part
 * is METRICS_PART bytes at most, and METRICS_LOOKS looks at peers, however many there are.
 *
 *     metrics_create(&source, totals, n_totals, &metrics);
 *     while ((n = metrics_read(metrics, buffer, size)) > 0)
 *         ... send ...
 *     metrics_destroy(metrics);
 *
 * All of a family stands together, so peers are gone through once for each. Peers that come
 * meanwhile are left out, those that go are left out from then on. Peers that share an address show
 * the same durpina_peer_kernel_*, which count for the address.
 */
#ifndef DURPINAD_METRICS_H
#define DURPINAD_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "durpina_select.h"
#include "kernel_health.h"

#define METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"
#define METRICS_PART 32768
#define METRICS_LOOKS 2048    /* at peers, for one part */
#define METRICS_LINE_MAX 1024 /* a line with the longest names, each byte of them escaped */

struct metrics;

/* Where peers are read. Borrowed until metrics_destroy(). */
struct metrics_source {
    struct durpina_maps maps;
    const struct kernel_health *health; /* NULL: nothing is said of it */
};

/* A value that belongs to no peer. Those of one family stand together. */
struct metrics_total {
    const char *name; /* of the family, below METRICS_LINE_MAX / 4 bytes, as help */
    const char *type; /* "counter", "gauge" */
    const char *help;
    const char *label; /* one label, or NULL; borrowed until metrics_create() returns */
    const char *word;  /* its value, cut at DURPINA_NAME_SIZE */
    double value;
};

/* Totals are copied. 0 or -ENOMEM. */
int metrics_create(const struct metrics_source *source, const struct metrics_total *totals,
                   size_t n_totals, struct metrics **ret);
/* Writes up to size bytes, at least one; 0: that was all. */
size_t metrics_read(struct metrics *metrics, char *buffer, size_t size);
/* NULL is fine. */
void metrics_destroy(struct metrics *metrics);

#endif
