/* SPDX-License-Identifier: MIT */
/*
 * Gives back what workers had in flight when they were killed.
 *
 * A worker notes each try in a page of the map `inflight` that bears its name (durpina_select.h,
 * S6). Every INFLIGHT_CHECK_MS the owners of pages are looked up; of one that has ended,
 *  - tries that were counted for certain are taken off `active` of the peer and of its upstream;
 *  - a try that was being counted or given back at that instant is in doubt: `active` is recounted,
 *    while other workers go on, and lowered if it is too high;
 *  - then the page is free for others.
 *
 * Invariants
 *  I1. A page of a process that lives, or that cannot be judged, is never written.
 *  I2. Killed at any instruction, it leaves pages from which the next one gets the same result.
 *  I3. `active` is lowered by no more than the tries of the dead, and never below 0.
 *
 * How a recount works. `active` is the sum of the tries noted as taken, of those that workers who
 * live are just counting or giving back, and of the surplus that the dead left. All pages are read
 * twice, and `active` in between. A try that both looks see as taken, with the same turn, was
 * counted all the time; one that changed, or was in between, perhaps. So
 *     active - counted - perhaps <= surplus <= active - counted,
 *     0 <= surplus <= tries in doubt.
 * Looks are repeated until one number is left. Workers spend most of their time outside of picks:
 * that takes a few. What is not decided after INFLIGHT_RECOUNT_US waits for the next check. Turns
 * have 16 bits: looks that took longer than INFLIGHT_LOOK_US, in which they could come round, do
 * not count.
 */
#ifndef DURPINAD_INFLIGHT_H
#define DURPINAD_INFLIGHT_H

#include <stdint.h>
#include <uv.h>

#include "durpina_select.h"

#define INFLIGHT_CHECK_MS 200
#define INFLIGHT_RECOUNT_US 1000 /* of one check */
#define INFLIGHT_LOOK_US 1000

struct inflight;

/* maps: mapped writable, to stay so until inflight_destroy(). 0 or -ENOMEM. */
int inflight_create(const struct durpina_maps *maps, struct inflight **ret);
/* Looks now, then every INFLIGHT_CHECK_MS. */
void inflight_start(struct inflight *inflight, uv_loop_t *loop);
/* Once started it is gone when the loop has run again. NULL is fine. */
void inflight_destroy(struct inflight *inflight);

/* Looks once. */
void inflight_check(struct inflight *inflight);

/* In tries. */
struct inflight_usage {
    uint64_t capacity;
    uint64_t claimed;   /* of it, by workers */
    uint64_t untracked; /* in flight for which there was no page */
};

struct inflight_usage inflight_usage(const struct durpina_maps *maps);

#endif
