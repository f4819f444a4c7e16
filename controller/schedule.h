/* SPDX-License-Identifier: MIT */
/*
 * Smooth weighted schedules: the order in which round robin visits peers. Pure.
 *
 * Repeated for ever, a schedule of S slots has this property: any S consecutive slots contain each
 * peer exactly as often as its share says. Within the period turns are spread: the k-th turn (from
 * 0) of a peer with w of S slots lies in the slots floor(k S / w) to ceil((k + 1) S / w) - 1, so at
 * any point a peer is less than one turn ahead of its exact share, and less than one behind.
 */
#ifndef DURPINAD_SCHEDULE_H
#define DURPINAD_SCHEDULE_H

#include <stddef.h>
#include <stdint.h>

/* Longer schedules are quantised, unless there are more peers than this. */
#define SCHEDULE_LENGTH_MAX 131072

/*
 * Shares out length slots by weight: each non-zero weight gets at least one, and what is left goes
 * to the others by largest remainder, of equal remainders to the first ones. A share is less than
 * one slot off, as long as no weight is so small that it had to be raised to its one slot.
 * weights: at most 65535 each. shares: n elements. length: at least the number of non-zero
 * weights, at most 2^32 - 1. 0, -EINVAL if length is less, or -ENOMEM.
 */
int schedule_shares(const uint32_t *weights, size_t n, size_t length, uint32_t *shares);

/*
 * Turns of each peer in one period: weights over their greatest common divisor if that fits into
 * max(SCHEDULE_LENGTH_MAX, n) slots, else schedule_shares() of exactly that many slots; an error of
 * less than one slot is one below 1/65,536.
 * weights: at most 65535 each, 0 gets no turn. turns: n elements. Returns the length S, at least
 * the number of non-zero weights; 0 if there is none, or -ENOMEM.
 */
int64_t schedule_turns(const uint32_t *weights, size_t n, uint32_t *turns);

/*
 * Lays out one period: slots[0..length) are set to indexes into turns. length is the sum of turns.
 * O(length): earliest deadline first over the windows given above; they can always be met
 * (Baruah et al., Proportionate progress, Algorithmica 15, 1996, for one processor).
 * 0 or -ENOMEM.
 */
int schedule_layout(const uint32_t *turns, size_t n, uint32_t *slots, size_t length);

#endif
