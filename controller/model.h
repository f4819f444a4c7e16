/* SPDX-License-Identifier: MIT */
/*
 * The model: what durpinad knows of upstreams, their servers and the peers (addresses) of those.
 * Pure: no descriptors, no clock. Only the engine changes it.
 *
 *     model ─┬─ upstream ─┬─ server (as named: settings, operator's word) ─── peer (one address)
 *            │            └─ monitor
 *            └─ instance (an nginx that introduced itself)
 *
 * Owner's settings and runtime changes are kept apart: `base` is what the file or the call says,
 * `now` is in force, `changed` (enum server_set) says which fields of `now` were set at run time.
 * A new value in `base` takes its bit in `changed` away.
 */
#ifndef DURPINAD_MODEL_H
#define DURPINAD_MODEL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <uthash.h>

#include "addr.h"
#include "check.h"
#include "durpina_abi.h"
#include "server_line.h"

struct text; /* model_text.h */

struct peer {
    struct server *server;
    uint32_t id;    /* index in the maps */
    uint32_t place; /* in the publisher's list; its own */
    uint32_t generation;
    uint32_t api_id; /* id of the child in the API; the server's own id if it is an address */
    bool resolved;   /* false: a placeholder without address */
    struct addr addr;
    enum durpina_health health;
    enum durpina_peer_state state; /* as last published; FREE: not yet */
    uint64_t down_since_ms;        /* wall clock, when it became unhealthy; 0 if it is not */
    uint64_t downtime_ms;          /* finished ones, summed */
    struct probe **probes;         /* one for each monitor of the upstream, in its order, or NULL */
    struct watch **watches;        /* the engine's, as many as probes */
    size_t n_watches;
    bool dirty;               /* in upstream->dirty ... */
    struct peer *prev, *next; /* ... with these */
    UT_hash_handle by_id;     /* by api_id, in upstream->children, unless it is the server's id */
};

struct server {
    struct upstream *upstream;
    uint32_t id;
    char name[DURPINA_NAME_SIZE];
    char host[DURPINA_NAME_SIZE];
    uint16_t port;
    bool portless;   /* the port was not written: it is the default one */
    bool is_address; /* an address or a unix socket: one peer, no lookup */
    bool backup;
    bool dynamic;         /* added by a call */
    uint32_t n_instances; /* nginx instances that name it */
    struct server_settings base;
    struct server_settings now;
    unsigned changed;
    struct peer **peers; /* at least one */
    size_t n_peers;
    struct lookup *lookup;                /* under way, or NULL */
    uint64_t lookup_at_ms;                /* monotonic time of the next try; 0: none is due */
    uint32_t lookup_delay_ms;             /* before the try after that */
    size_t edit;                          /* its place in an edit under way, from 1 */
    struct text *text;                    /* as it is saved; NULL: not up to date */
    size_t text_place;                    /* in upstream->texts */
    struct server *text_prev, *text_next; /* in upstream->outdated, if text is NULL */
    UT_hash_handle hh;                    /* by name, in upstream->servers, in order of addition */
    UT_hash_handle by_id;                 /* likewise, in upstream->servers_by_id */
};

struct monitor {
    char id[64];
    char name[64];
    json_t *options;
    struct check *check;
};

/* A balancing algorithm as it is named by who uses it. */
struct algorithm {
    const char *word;
    bool ketama;
    enum durpina_asked table; /* that it needs */
};

/* Tables that are laid out on demand. */
enum demanded { DEMANDED_HASH, DEMANDED_RING, N_DEMANDED };

enum demand {
    DEMAND_NONE,
    DEMAND_GUESSED, /* somebody may come to need it: if there is plenty of room */
    DEMAND_WANTED,
    DEMAND_REQUIRED, /* wanted, and what makes it so is refused if there is no room */
};

struct upstream {
    struct model *model;
    char name[DURPINA_NAME_SIZE];
    uint32_t id; /* index in the maps */
    uint32_t generation;
    uint64_t revision; /* the publish word */
    uint32_t next_server_id;
    bool created; /* by a call: stays without servers */
    bool monitoring;
    struct server *servers; /* uthash by name */
    struct server *servers_by_id;
    struct peer *children; /* uthash by api_id */
    struct monitor **monitors;
    size_t n_monitors;
    unsigned asked; /* enum durpina_asked: what picks have ever asked for */
    enum demand demand[N_DEMANDED];
    uint64_t tables_turn;     /* of its last build */
    uint64_t tables_retry_ms; /* monotonic time of the next one after one that failed, else 0 */
    struct text **texts;      /* of all servers, NULL if some have come or gone */
    size_t n_texts;
    struct server *outdated; /* servers without text */
    struct peer *dirty;      /* peers whose health has changed since the last publication */
    bool unpublished;        /* its peers do not fit: what is in force is not of this model */
    bool stale;              /* its schedule does not: there is no room for a new one */
    UT_hash_handle hh;       /* by name, in model->upstreams */
};

/* Of an nginx in another pid namespace. */
#define INSTANCE_PID_UNKNOWN UINT32_MAX

/* An nginx that introduced itself, and what its files say. */
struct instance {
    struct model *model;
    char *name;
    uint32_t pid; /* of the master; 0: its pid file, the name, tells; or INSTANCE_PID_UNKNOWN */
    uint32_t worker_uid;
    uint64_t epoch;
    char token[33];
    uint64_t introduced_ms; /* CLOCK_MONOTONIC; 0: to a former controller */
    json_t *upstreams;      /* {upstream: {server name: its settings as said}} */
    json_t *algorithms;     /* {upstream: {"algorithm", "ketama"}}, where it is known */
    struct text *text;      /* as it is saved; NULL: not up to date */
    UT_hash_handle hh;
};

struct model {
    struct upstream *upstreams;
    struct instance *instances;
    json_t *resolver; /* array of strings */
    uint64_t next_epoch;
    unsigned n_snapshots; /* model_text.h */
    struct text *retired;
};

struct upstream *model_upstream(const struct model *model, const char *name);
struct server *model_server(const struct upstream *upstream, const char *name);
/* By the id of a server or of one of its peers. */
struct server *model_server_by_id(const struct upstream *upstream, uint32_t id);
/* addr NULL: the placeholder. */
struct peer *model_find_peer(const struct server *server, const struct addr *addr);
struct instance *model_instance(const struct model *model, const char *name);
/* Of this word; NULL if there is none, or no such variant of it. */
const struct algorithm *model_algorithm(const char *word, bool ketama);
/* Of the upstream, as this nginx says; NULL: not known. */
const struct algorithm *model_said_algorithm(const struct instance *instance, const char *upstream);
/* Of the upstream, as all nginx that name it say; NULL: not known. */
const struct algorithm *model_upstream_algorithm(const struct upstream *upstream);

/* The published state: docs/states.md is its truth table. */
enum durpina_peer_state model_peer_state(const struct peer *peer);

/*
 * Parts, for the engine. They return NULL when out of memory. Ids of the maps are DURPINA_NONE.
 * Freeing an upstream frees its servers and monitors, freeing a server its peers; probes, watches
 * and lookups must be gone by then.
 */
struct upstream *model_add_upstream(struct model *model, const char *name);
void model_free_upstream(struct upstream *upstream); /* also takes it out of the model */
/* With the spec's name, settings (base and now) and the next id; without peers, not linked. */
struct server *model_new_server(struct upstream *upstream, const struct server_spec *spec);
void model_link_server(struct server *server); /* puts it where its id belongs */
void model_unlink_server(struct server *server);
/* Puts a linked server back to what it was, but for its links. */
void model_revert_server(struct server *server, const struct server *before);
void model_free_server(struct server *server);
/* addr NULL: a placeholder. */
struct peer *model_new_peer(struct server *server, const struct addr *addr);
void model_set_api_id(struct peer *peer, uint32_t api_id);
void model_set_dirty(struct peer *peer, bool dirty);
void model_free_peer(struct peer *peer);
void model_free_monitor(struct monitor *monitor);
void model_free_instance(struct instance *instance); /* also takes it out of the model, if in it */
/* Frees all there is but for snapshots of it. */
void model_clear(struct model *model);

#endif
