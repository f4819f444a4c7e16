/* SPDX-License-Identifier: MIT */
/*
 * The prober: runs checks against addresses, each once per interval, spread over the interval from
 * the start, and reports each verdict that follows from fall and rise. It knows nothing of upstreams.
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
 * May cancel the probe.
 */
typedef void (*probe_verdict_cb)(void *user, struct probe *probe, bool passed, const char *reason);

int prober_create(uv_loop_t *loop, struct prober **ret);
/* Cancels what runs; returns at once, closing its handles on the loop. NULL is fine. */
void prober_destroy(struct prober *prober);

/*
 * Starts to check addr (its port replaced by check->port if that is not 0). check is borrowed until
 * probe_cancel(). host: the peer's "host:port", for the Host header. Sockets carry SO_MARK if
 * the process may set it.
 */
int probe_start(struct prober *prober, const struct check *check, const struct addr *addr,
                const char *host, probe_verdict_cb cb, void *user, struct probe **ret);
/* No callback after it. NULL is fine. */
void probe_cancel(struct probe *probe);

const struct probe_stats *probe_stats(const struct probe *probe);

#endif
