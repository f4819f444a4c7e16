/* SPDX-License-Identifier: MIT */
/*
 * What the kernel tells of connections that could not be made: each counts as a passive failure of
 * every peer that has the address, by max_fails and fail_timeout of that peer's own upstream.
 *
 * An event says where to look, no more. How many failures are due is the difference of what the
 * endpoint has counted and what has been passed on: so none is lost when the ring is full, and none
 * counts twice. Failures of before events_start() are not passed on.
 */
#ifndef DURPINAD_EVENTS_H
#define DURPINAD_EVENTS_H

#include <stdint.h>
#include <uv.h>

#include "durpina_select.h"
#include "endpoints.h"

/* Failures that one turn of the loop passes on, each to all peers of its endpoint ... */
#define EVENTS_FAILS_PER_TURN 2048
/* ... records that it takes out of the ring ... */
#define EVENTS_PER_TURN 8192
/* ... and endpoints that it looks at, one after the other, when the ring was full. */
#define EVENTS_LOOKS_PER_TURN 4096
/* Of one endpoint at most so many wait to be passed on: the count of a peer ends there. */
#define EVENTS_DUE_MAX UINT16_MAX
/* Whether the ring was full is looked at this often, and with each event. */
#define EVENTS_CHECK_MS 1000

struct events;

/*
 * Takes the endpoints' counts as they are for passed on, and listens to the ring from now on.
 * maps, endpoints and kernel, whose events_dropped tells that the ring was full, are borrowed.
 * 0, -ENOMEM, or what bpf(2) and mmap(2) say of the ring.
 */
int events_start(uv_loop_t *loop, const struct durpina_maps *maps, struct endpoints *endpoints,
                 const struct durpina_kernel *kernel, int ring_fd, struct events **ret);
/* Closes its handles on the loop, whose next run frees the memory. NULL is fine. */
void events_stop(struct events *events);

struct events_stats {
    uint64_t passed; /* failures, each counted once for all peers of its endpoint */
    uint64_t downs;  /* peers that became temporarily down by one */
};
struct events_stats events_stats(const struct events *events);

#endif
