/* SPDX-License-Identifier: MIT */
/*
 * The last changes of a peer's published state, each with its cause. Pure. A peer that never
 * changes costs nothing: memory is taken by the first transition, then by each until there are
 * HISTORY_SIZE, from when on the oldest goes for the newest.
 *
 *     struct history *history = NULL;
 *     history_add(&history, now_ms, DURPINA_PEER_UP, DURPINA_PEER_DOWN, "set \"down\"");
 */
#ifndef DURPINAD_HISTORY_H
#define DURPINAD_HISTORY_H

#include <stddef.h>
#include <stdint.h>

#include "durpina_abi.h"

#define HISTORY_SIZE 20

struct history;

struct transition {
    uint64_t at_ms; /* wall clock */
    enum durpina_peer_state from;
    enum durpina_peer_state to;
    char cause[];
};

/* *history NULL: there is none yet. The cause is copied. 0; -ENOMEM: nothing has changed. */
int history_add(struct history **history, uint64_t at_ms, enum durpina_peer_state from,
                enum durpina_peer_state to, const char *cause);

/* At most HISTORY_SIZE; of NULL: 0. */
size_t history_count(const struct history *history);

/* age: 0 is the newest, below history_count(). Valid until the next history_add(). */
const struct transition *history_at(const struct history *history, size_t age);

/* A copy that owns all it has; NULL when out of memory, or of NULL. */
struct history *history_copy(const struct history *history);

/* NULL is fine. */
void history_free(struct history *history);

#endif
