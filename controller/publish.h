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
 *  P3. The id of a peer is not given to another one before PUBLISH_GRACE_MS have passed since it
 *      was freed and its active count is 0, unless readers never saw its owner. Each owner has its
 *      own generation, never 0.
 *  P4. Killed at any instruction, it leaves the state before the commit or the one after it.
 *
 * Only what has changed is written. Both copies are equal at rest, so a commit writes the settings
 * that have changed to the copy not in force, where the rest is right already, and after
 * the publish word to the other one. P4 holds: between the two stores the copy in force is whole,
 * and the next controller, which cannot know how far the other one has come, writes its first
 * publication of each upstream in full.
 *
 * Tables on demand (upstream->demand) are laid out in the publication that changes what they are
 * made from if they are small and that does not come too often, else by a build: made from copies
 * in another thread, then put in force here. Until then the former one serves on, for readers look
 * at the state of each peer it names.
 *
 * What a peer costs in the maps: its records, 304 and 160 bytes; a slot of 4 bytes each in the list
 * of peers and the members, and one for each of its turns in the schedule (its weight over the
 * greatest common divisor), twice while a change is published: 488 bytes with equal weights. Tables
 * on demand come on top.
 */
#ifndef DURPINAD_PUBLISH_H
#define DURPINAD_PUBLISH_H

#include <stdint.h>

#include "bpf_state.h"
#include "failure.h"
#include "model.h"

#define PUBLISH_GRACE_MS 5000
/* A table on demand of no more slots is laid out in the publication itself ... */
#define PUBLISH_SMALL_SLOTS 16381
/* ... unless it replaces one that this was done to less than this ago. */
#define PUBLISH_PAUSE_MS 20
/* The greatest publish word there can be: 10^6 publications a second take 146,000 years. What is
 * above was not written by a publisher, and would not fit into the state file. */
#define PUBLISH_WORD_MAX (INT64_MAX / 2)
/* Tables that nobody has asked for yet may fill this share of the slots. */
#define PUBLISH_GUESS_SHARE 4

struct endpoints;
struct publish;
struct publication;
struct build;

struct publish_usage {
    uint32_t upstreams;
    uint32_t peers;
    uint32_t slots;
};

/*
 * Takes the maps as they are: what the states in force refer to is in use, the rest is free, as if
 * freed at now_ms. All times are CLOCK_MONOTONIC. state is borrowed. 0, -ENOMEM, or what bpf(2)
 * says.
 */
int publish_create(struct bpf_state *state, uint64_t now_ms, struct publish **ret);
/* Leaves the maps as they are. No build may be left. NULL is fine. */
void publish_destroy(struct publish *publish);

/* The peers that the state in force of this upstream names, each once, as far as they are its own.
 * *ret_ids is to be freed. 0 or -ENOMEM. */
int publish_adopted_peers(struct publish *publish, uint32_t upstream_id, uint32_t **ret_ids,
                          size_t *ret_n);

/*
 * Gets everything ready to publish the upstream as the model has it. An upstream or peer whose id
 * is DURPINA_NONE gets id and generation. -ENOSPC with UpstreamOutOfMemory (409) if one of
 * the maps is full or has no room for a table that is required and not there yet, -ENOMEM; nothing
 * has changed then.
 */
int publish_prepare(struct publish *publish, struct upstream *upstream, uint64_t now_ms,
                    struct publication **ret, struct failure *failure);
/*
 * The same, if since the last publication of the upstream nothing but the settings or health of
 * these peers and the demand for tables has changed. Costs what the tables cost that have to be
 * made anew, whatever the number of other peers.
 */
int publish_prepare_peers(struct publish *publish, struct upstream *upstream,
                          struct peer *const *peers, size_t n_peers, uint64_t now_ms,
                          struct publication **ret, struct failure *failure);
/* Puts it in force, sets the upstream's revision, frees what is not used any more. */
void publish_commit(struct publication *publication);
/* Takes ids back; they can be given to others at once. NULL is fine. */
void publish_abort(struct publication *publication);

/*
 * Prepares as publish_prepare_peers() and commits. If the slots are full, tables stay as they
 * are: a peer that must not be picked is not, but one that may be again waits. Returns 0; -ENOSPC
 * if that was so: to be called again, these peers need not be named then; -ENOMEM and nothing is
 * published.
 */
int publish_states(struct publish *publish, struct upstream *upstream, struct peer *const *peers,
                   size_t n_peers, uint64_t now_ms);

/* Takes the upstream of this id out of force and frees it with all its peers. */
void publish_remove(struct publish *publish, uint32_t upstream_id, uint64_t now_ms);

/* --- builds of tables on demand --- */

enum publish_lag {
    PUBLISH_UP_TO_DATE,
    PUBLISH_LAGS,    /* a table is in force that is to be replaced ... */
    PUBLISH_MISSING, /* ... or there is none yet */
};

enum publish_lag publish_lag(const struct publish *publish, const struct upstream *upstream);
/*
 * Copies what the next such table of the upstream is made from. 0; -ENOSPC: there is no room for
 * it; -ENOMEM. *ret NULL: it was a guess, and others have taken the room for that. One build of an
 * upstream at a time.
 */
int publish_build_begin(struct publish *publish, const struct upstream *upstream,
                        struct build **ret);
/* Makes it; in any thread. */
void publish_build_run(struct build *build);
/*
 * Puts it in force, unless the upstream has gone or has no use for it any more; frees it. It may
 * lag again by then. 0; -ENOSPC, -ENOMEM: the upstream lags as before.
 */
int publish_build_end(struct build *build, uint64_t now_ms);
/* Forgets it. */
void publish_build_drop(struct build *build);

/* Slots of a table on demand in force, over all tiers. */
uint32_t publish_table_slots(const struct publish *publish, const struct upstream *upstream,
                             enum demanded table);

/* Which of the peers have which address; of the publisher. */
struct endpoints *publish_endpoints(const struct publish *publish);

struct publish_usage publish_usage(const struct publish *publish);

#endif
