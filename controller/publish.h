/* SPDX-License-Identifier: MIT */
/*
 * The one writer of the configuration maps. It lays an upstream of the model out in records and
 * tables and puts it in force by the protocol of durpina_seq.h.
 *
 *     err = publish_prepare(publish, upstream, now_ms, &publication, &failure);
 *     ... prepare others that must change together ...
 *     publish_commit(publication);        cannot fail; or publish_abort(publication)
 *
 * Invariants
 *  P1. Readers see nothing of a publication that is prepared only: its tables lie in slots, and its
 *      new peers in records, that no state in force refers to.
 *  P2. A record or run of slots that readers of an older state may use is not written before a
 *      newer state is in force.
 *  P3. The id of a peer is not given to another one before PUBLISH_GRACE_MS have passed since it was
 *      freed and its active count is 0, unless readers never saw its owner. Each owner has its own
 *      generation, never 0.
 *  P4. Killed at any instruction, it leaves the state before the commit or the one after it.
 */
#ifndef DURPINAD_PUBLISH_H
#define DURPINAD_PUBLISH_H

#include <stdint.h>

#include "bpf_state.h"
#include "failure.h"
#include "model.h"

#define PUBLISH_GRACE_MS 5000

struct publish;
struct publication;

struct publish_usage {
    uint32_t upstreams;
    uint32_t peers;
    uint32_t slots;
};

/*
 * Takes the maps as they are: what the states in force refer to is in use, the rest is free, as if
 * freed at now_ms. All times are CLOCK_MONOTONIC. state is borrowed. 0 or -ENOMEM.
 */
int publish_create(struct bpf_state *state, uint64_t now_ms, struct publish **ret);
/* Leaves the maps as they are. NULL is fine. */
void publish_destroy(struct publish *publish);

/* The peers that the state in force of this upstream names, each once, as far as they are its own.
 * *ret_ids is to be freed. 0 or -ENOMEM. */
int publish_adopted_peers(struct publish *publish, uint32_t upstream_id, uint32_t **ret_ids,
                          size_t *ret_n);

/*
 * Gets everything ready to publish the upstream as the model has it. An upstream or peer whose id
 * is DURPINA_NONE gets id and generation. -ENOSPC with UpstreamOutOfMemory (409) if one of
 * the maps is full, -ENOMEM; nothing has changed then.
 */
int publish_prepare(struct publish *publish, struct upstream *upstream, uint64_t now_ms,
                    struct publication **ret, struct failure *failure);
/* Puts it in force, sets the upstream's revision, frees what is not used any more. */
void publish_commit(struct publication *publication);
/* Takes ids back; they can be given to others at once. NULL is fine. */
void publish_abort(struct publication *publication);

/*
 * Publishes states and settings of an upstream that has the same peers as before. If the slots are
 * full, tables stay as they are: a peer that must not be picked is not, but one that may be again
 * waits. Returns 0; -ENOSPC if that was so; -ENOMEM and nothing is published.
 */
int publish_states(struct publish *publish, struct upstream *upstream, uint64_t now_ms);

/* Takes the upstream of this id out of force and frees it with all its peers. */
void publish_remove(struct publish *publish, uint32_t upstream_id, uint64_t now_ms);

struct publish_usage publish_usage(const struct publish *publish);

#endif
