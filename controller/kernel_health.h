/* SPDX-License-Identifier: MIT */
/*
 * What the kernel's counts say of peers even when all their answers are good:
 *
 *     lossy    more than KERNEL_HEALTH_LOSSY of the segments sent to the address were sent again
 *     slow     its round trips take more than KERNEL_HEALTH_SLOW times the median of the other
 *              peers of its upstream, and more than KERNEL_HEALTH_SLOW_US
 *     drift    requests that nginx counts as in flight and that no connection carries
 *
 * Shown and logged, never acted upon. Each endpoint is looked at once in KERNEL_HEALTH_MS, a share
 * of them with each tick; what has had no traffic costs a look at one line of memory.
 */
#ifndef DURPINAD_KERNEL_HEALTH_H
#define DURPINAD_KERNEL_HEALTH_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "durpina_select.h"
#include "endpoints.h"

#define KERNEL_HEALTH_MS 1000
#define KERNEL_HEALTH_TICKS 10 /* in that time */
/* A second's segments count for that much less in the next one: means of some 10 s. */
#define KERNEL_HEALTH_FADE 0.9
/* What is below is not judged: too few segments. */
#define KERNEL_HEALTH_SEGMENTS 100
#define KERNEL_HEALTH_LOSSY 0.01
#define KERNEL_HEALTH_NOT_LOSSY 0.005 /* below, it is not any more */
#define KERNEL_HEALTH_SLOW 3
#define KERNEL_HEALTH_NOT_SLOW 2
#define KERNEL_HEALTH_SLOW_US 5000
#define KERNEL_HEALTH_NOT_SLOW_US 3000
/* Who had no round trip for so long is not judged, nor are others by it. */
#define KERNEL_HEALTH_FRESH_MS 60000
/* The median is that of so many peers, spread evenly over the upstream. */
#define KERNEL_HEALTH_PEERS 1024
/* Looks in a row that have to agree on a drift. */
#define KERNEL_HEALTH_DRIFTS 3

struct kernel_health;

/* Of a peer. */
struct kernel_verdict {
    double retransmit_rate; /* of the segments of the last 10 s or so, 0..1 */
    bool lossy;
    bool slow;
    uint32_t drift;
};

/* maps and endpoints are borrowed. 0 or -ENOMEM. */
int kernel_health_create(const struct durpina_maps *maps, struct endpoints *endpoints,
                         struct kernel_health **ret);
/* Looks from now on; endpoints that are needed no more are freed with it. */
void kernel_health_start(struct kernel_health *health, uv_loop_t *loop);
/* Looks at a share of the endpoints: KERNEL_HEALTH_TICKS calls look at all. */
void kernel_health_tick(struct kernel_health *health, uint64_t now_ms);
/* Closes its handle on the loop, whose next run frees the memory. NULL is fine. */
void kernel_health_destroy(struct kernel_health *health);

/* Of the peer of this id; all zero for one that has no endpoint. */
struct kernel_verdict kernel_health_verdict(const struct kernel_health *health, uint32_t peer_id);

/* --- pure: the rules --- */

/* Retransmitted and sent segments, each second's worth less than the next one's. */
struct kernel_loss {
    double retransmits;
    double segments;
};
void kernel_loss_add(struct kernel_loss *loss, uint64_t retransmits, uint64_t segments);
double kernel_loss_rate(const struct kernel_loss *loss);
bool kernel_loss_is_lossy(const struct kernel_loss *loss, bool was_lossy);

/* Is a peer of this round trip time slow, among n sorted ones, its own included? In microseconds;
 * alone it never is. */
bool kernel_is_slow(uint32_t us, const uint32_t *sorted_us, size_t n, bool was_slow);

/* The row of looks that found more requests than connections; 0 as long as it is too short, else
 * the least difference in it. */
struct kernel_drift {
    uint32_t looks;
    uint32_t least;
};
uint32_t kernel_drift_add(struct kernel_drift *drift, uint64_t requests, uint64_t connections);

#endif
