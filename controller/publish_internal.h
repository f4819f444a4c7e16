/* SPDX-License-Identifier: MIT */
/*
 * publish.h inside: publish.c puts states in force, publish_ids.c hands out the records of peers
 * and upstreams, publish_list.c keeps what each upstream's tables are made from, publish_tables.c
 * lays them out, publish_build.c does so with those on demand.
 */
#ifndef DURPINAD_PUBLISH_INTERNAL_H
#define DURPINAD_PUBLISH_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena.h"
#include "endpoints.h"
#include "publish.h"

/* The tables of a view: the peers, then those of each tier. */
enum tier_table { SCHEDULE, MEMBERS, HASH, RING, TIER_TABLES };
#define PEERS 0
#define TABLE(tier, table) (1 + (tier) *TIER_TABLES + (table))
#define N_TABLES TABLE(DURPINA_TIERS, 0)

/* A table's tier, and which one of a tier it is. Not for PEERS. */
static inline unsigned table_tier(size_t table)
{
    return (unsigned) (table - 1) / TIER_TABLES;
}

static inline enum tier_table table_kind(size_t table)
{
    return (enum tier_table)((table - 1) % TIER_TABLES);
}

static inline bool is_on_demand(size_t table)
{
    return table != PEERS && table_kind(table) >= HASH;
}

/* A peer as its upstream's tables see it. */
struct placed {
    struct peer *peer;
    uint64_t hash; /* of its name and address */
    uint32_t id;
    uint32_t weight;
    uint8_t tier;
    bool up;
    bool hashed; /* belongs into tables on demand */
    bool portless;
};

/* Over the peers of a tier. */
struct tier_sums {
    uint64_t weight; /* of those that are up */
    uint64_t hashed_weight;
    uint32_t n_hashed;
};

/* What is in force of a table. */
struct laid {
    struct durpina_table table;
    bool stale;       /* it was not made from the list as it is */
    uint32_t changes; /* counts what has been put in force */
};

/* What an upstream has published. */
struct record {
    struct upstream *upstream; /* NULL: it is of a former controller */
    struct placed *placed;     /* the list of its peers, in the order of `server` lines, or NULL */
    size_t n_placed;
    struct tier_sums sums[DURPINA_TIERS];
    struct laid tables[N_TABLES];
    struct durpina_table reserved[N_TABLES]; /* slots for builds to come */
    size_t building;                         /* the table that a build makes, or PEERS: none */
    uint64_t made_ms;                        /* a table on demand within a publication, last */
    uint64_t last_word;                      /* before it was freed */
    uint64_t freed_at_ms;
    bool live;
};

enum use { USE_NEVER, USE_OWNED, USE_FREED };

struct publish {
    struct bpf_state *state;
    struct arena *arena;
    struct endpoints *endpoints;
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

/* A peer whose settings are written. */
struct entry {
    struct peer *peer;
    bool is_new;
    struct durpina_peer_settings settings;
    struct placed former; /* of publish_prepare_peers(): as it was in the list */
};

struct new_table {
    struct durpina_table table;
    bool stale;
    bool is_new;                   /* else the one in force stays */
    struct durpina_table reserved; /* for a build */
};

struct publication {
    struct publish *publish;
    struct upstream *upstream;
    bool is_new;
    uint64_t now_ms;
    struct entry *entries;
    size_t n_entries;
    bool listed;   /* the record has the new list already; what follows is to go back to */
    bool is_whole; /* all peers are entries, the list is another one */
    struct placed *former;
    size_t n_former;
    struct tier_sums former_sums[DURPINA_TIERS];
    bool made; /* a table on demand */
    struct new_table tables[N_TABLES];
};

static inline struct record *publish_record(const struct publication *p)
{
    return &p->publish->records[p->upstream->id];
}

/* The tables of a view in the order of TABLE(). */
struct durpina_table *publish_view_table(struct durpina_view *view, size_t table);

/* --- publish_ids.c --- */

/* The next id whose time has come. -ENOSPC. */
int publish_take_peer_id(struct publish *publish, uint64_t now_ms, uint32_t *ret_id);
void publish_free_peer_id(struct publish *publish, uint32_t id, uint64_t now_ms);
/* Its owner has not been published: the next one need not wait, or who tries again and again would
 * keep all others waiting. */
void publish_untake_peer_id(struct publish *publish, uint32_t id, uint64_t now_ms);
/* Writes who the peer is, and counters that are its own. Nobody refers to the record yet. */
void publish_write_identity(struct publish *publish, const struct upstream *upstream,
                            struct peer *peer, uint64_t now_ms);
/* Gives the upstream id and generation and writes its name. -ENOSPC. */
int publish_take_upstream_id(struct publish *publish, struct upstream *upstream, uint64_t now_ms);
void publish_free_upstream_id(struct publish *publish, uint32_t id, uint64_t now_ms);
/* Makes both copies of the settings say that the record is free. */
void publish_store_free(struct durpina_peer *peer);

/* --- publish_list.c --- */

/* Lists the peers, or all of the upstream (NULL), as entries. 0 or -ENOMEM. */
int publish_list_entries(struct publication *p, struct peer *const *peers, size_t n);
/* Gives the record a list of the entries. 0 or -ENOMEM. */
int publish_replace_list(struct publication *p);
/* Changes those of the record's list that are entries. */
void publish_change_list(struct publication *p);
/* Makes the record's list as it was. */
void publish_revert_list(struct publication *p);

/* --- publish_tables.c --- */

/* Is the peer in the table? */
bool publish_is_in_table(const struct placed *placed, size_t table);
/*
 * Makes the tables whose inputs have changed. *ret_stale, if not NULL, says that some stay as they
 * are for want of slots. 0, -ENOSPC, -ENOMEM.
 */
int publish_make_tables(struct publication *publication, bool *ret_stale);
/* Is there so much room that a table of this size may be laid out without anybody's asking? */
bool publish_may_guess(const struct publish *publish, const struct record *record, size_t table,
                       uint64_t size);
/* Writes the slots into a run that nobody refers to. */
void publish_store_slots(struct publish *publish, uint32_t offset, const uint32_t *slots,
                         uint32_t length);

/* --- publish_build.c --- */

/* What a table on demand is made from. */
struct inputs {
    enum tier_table kind;
    uint32_t size;              /* slots; of a ring, about */
    struct maglev_peer *hashed; /* HASH */
    struct ring_peer *ring;     /* RING */
    char *names;                /* of ring */
    size_t n;
};

/* How many slots the table would take now, about; 0: it would be empty. */
uint64_t publish_table_size(const struct record *record, size_t table);
/* Copies the inputs. 0 or -ENOMEM. */
int publish_inputs_take(const struct record *record, size_t table, struct inputs *ret);
void publish_inputs_clear(struct inputs *inputs);
/* *ret_slots is to be freed. 0, -ENOSPC: no table can be so large; -ENOMEM. */
int publish_inputs_lay_out(const struct inputs *inputs, uint32_t **ret_slots, uint32_t *ret_length);

#endif
