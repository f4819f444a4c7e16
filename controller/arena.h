/* SPDX-License-Identifier: MIT */
/*
 * Which slots of the slots map are in use: an allocator of runs. It never touches the slots. Pure.
 */
#ifndef DURPINAD_ARENA_H
#define DURPINAD_ARENA_H

#include <stdint.h>

struct arena;

/* All of 0..n_slots free. 0 or -ENOMEM. */
int arena_create(uint32_t n_slots, struct arena **ret);
/* NULL is fine. */
void arena_destroy(struct arena *arena);

/* Takes length > 0 slots in a row, from the shortest free run that is long enough.
 * -ENOSPC: there is none; -ENOMEM. */
int arena_alloc(struct arena *arena, uint32_t length, uint32_t *ret_offset);

/* Takes this very run (found in maps that a former controller left). -EBUSY: some of it is in use
 * or outside; -ENOMEM. */
int arena_reserve(struct arena *arena, uint32_t offset, uint32_t length);

/* Gives back what of a run lies behind its first length > 0 slots. Cannot fail. */
void arena_shrink(struct arena *arena, uint32_t offset, uint32_t old_length, uint32_t length);

/* Gives a run back as it was taken. Cannot fail. */
void arena_free(struct arena *arena, uint32_t offset, uint32_t length);

uint32_t arena_used(const struct arena *arena);

#endif
