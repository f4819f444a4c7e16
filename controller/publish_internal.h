/* SPDX-License-Identifier: MIT */
/*
 * publish.h inside: publish.c puts states in force, publish_ids.c hands out the records of peers and
 * upstreams, publish_tables.c lays out the tables.
 */
#ifndef DURPINAD_PUBLISH_INTERNAL_H
#define DURPINAD_PUBLISH_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena.h"
#include "publish.h"

/* The tables of a view: the peers, then three for each tier. */
enum tier_table { SCHEDULE, MEMBERS, HASH, TIER_TABLES };
#define PEERS 0
#define TABLE(tier, table) (1 + (tier) *TIER_TABLES + (table))
#define N_TABLES TABLE(DURPINA_TIERS, 0)

/* What an upstream has published. */
struct record {
    struct durpina_table tables[N_TABLES];
    uint64_t digests[N_TABLES]; /* of what each table was made from; 0: not known */
    uint64_t last_word;         /* before it was freed */
    uint64_t freed_at_ms;
    bool live;
};

enum use { USE_NEVER, USE_OWNED, USE_FREED };

struct publish {
    struct bpf_state *state;
    struct arena *arena;
    struct record *records; /* of each upstream id */
    uint32_t n_live;
    uint8_t *use;          /* of each peer id: enum use */
    uint8_t *marks;        /* of each peer id, all 0 between calls */
    uint64_t *freed_at_ms; /* of each peer id */
    uint32_t *freed;       /* ring of freed peer ids, the oldest first */
    uint32_t first_freed;
    uint32_t n_freed;
    uint32_t first_never; /* no lower id is USE_NEVER */
    uint32_t n_owned;
};

struct entry {
    struct peer *peer;
    bool is_new;
    struct durpina_peer_settings settings;
};

struct new_table {
    struct durpina_table table;
    uint64_t digest;
    bool is_new; /* else the one in force stays */
};

struct publication {
    struct publish *publish;
    struct upstream *upstream;
    bool is_new;
    uint64_t now_ms;
    struct entry *entries;
    size_t n_entries;
    struct new_table tables[N_TABLES];
};

/* --- publish_ids.c --- */

/* The next id whose time has come. -ENOSPC. */
int publish_take_peer_id(struct publish *publish, uint64_t now_ms, uint32_t *ret_id);
void publish_free_peer_id(struct publish *publish, uint32_t id, uint64_t now_ms);
/* Its owner has not been published: the next one need not wait, or who tries again and again would
 * keep all others waiting. */
void publish_untake_peer_id(struct publish *publish, uint32_t id, uint64_t now_ms);
/* Writes who the peer is, and counters that are its own. Nobody refers to the record yet. */
void publish_write_identity(struct publish *publish, const struct upstream *upstream,
                            struct peer *peer);
/* Gives the upstream id and generation and writes its name. -ENOSPC. */
int publish_take_upstream_id(struct publish *publish, struct upstream *upstream, uint64_t now_ms);
void publish_free_upstream_id(struct publish *publish, uint32_t id, uint64_t now_ms);
/* Makes both copies of the settings say that the record is free. */
void publish_store_free(struct durpina_peer *peer);

/* --- publish_tables.c --- */

/* Makes all tables. *ret_stale, if not NULL, says that some stay as they are for want of slots.
 * 0, -ENOSPC, -ENOMEM. */
int publish_make_tables(struct publication *publication, bool *ret_stale);

#endif
