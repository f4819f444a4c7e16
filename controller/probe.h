/* SPDX-License-Identifier: MIT */
/*
 * The prober: runs checks against addresses, each once per interval, spread over the interval from
 * the start, and reports each verdict that follows from fall and rise. It knows nothing of
 * upstreams.
 *
 *  1. A check begins at its slot: phase + n * interval on the monotonic clock, however long checks
 *     and callbacks take, plus the random jitter. A slot that is over when the check before ends is
 *     left out.
 *  2. The phases of any number of probes divide the interval about evenly.
 *  3. A check ends by its timeout. No check waits for another.
 *  4. A check that this host is too short of resources for (descriptors, local ports, memory) says
 *     nothing about the peer: it changes no verdict and no count; it is logged once a minute.
 */
#ifndef DURPINAD_PROBE_H
#define DURPINAD_PROBE_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "addr.h"
#include "check.h"

struct prober;
struct probe;

struct probe_stats {
    uint64_t checks;
    uint64_t fails;
    uint64_t unhealthy; /* times it became unhealthy */
    bool last_passed;
};

/*
 * Called on each change of the verdict, and once for the first one. passed: the verdict;
 * reason: "HTTP 503", "connection refused", "no answer in 1000 ms"; printable, valid in the call.
 * May cancel any probe. Never called from inside probe_start().
 */
typedef void (*probe_verdict_cb)(void *user, struct probe *probe, bool passed, const char *reason);

/* 0 or -errno. *ret is to be given to prober_destroy(). */
int prober_create(uv_loop_t *loop, struct prober **ret);
/*
 * Cancels all probes, which are gone then; returns at once, closing its handles on the loop, whose
 * next run frees the memory. Not to be called from a verdict callback. NULL is fine.
 */
void prober_destroy(struct prober *prober);

/*
 * Starts to check addr (its port replaced by check->port if that is not 0). check is borrowed until
 * probe_cancel(). host: the peer's "host:port", for the Host header, copied. Sockets carry SO_MARK
 * if the process may set it. 0 or -ENOMEM.
 */
int probe_start(struct prober *prober, const struct check *check, const struct addr *addr,
                const char *host, probe_verdict_cb cb, void *user, struct probe **ret);
/* No callback after it. NULL is fine. */
void probe_cancel(struct probe *probe);

const struct probe_stats *probe_stats(const struct probe *probe);

#endif
