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

struct peer {
    struct server *server;
    uint32_t id;         /* index in the maps */
    uint32_t generation;
    uint32_t api_id;     /* id of the child in the API; the server's own id if it is an address */
    bool resolved;       /* false: a placeholder without address */
    struct addr addr;
    enum durpina_health health;
    uint64_t down_since_ms; /* wall clock, 0 if not down */
    uint64_t downtime_ms;   /* finished ones, summed */
    struct probe **probes;  /* one for each monitor of the upstream, in its order, or NULL */
};

struct server {
    struct upstream *upstream;
    uint32_t id;
    char name[DURPINA_NAME_SIZE];
    char host[DURPINA_NAME_SIZE];
    uint16_t port;
    bool is_address; /* an address or a unix socket: one peer, no lookup */
    bool backup;
    bool dynamic;       /* added by a call */
    uint32_t n_instances; /* nginx instances that name it */
    struct server_settings base;
    struct server_settings now;
    unsigned changed;
    struct peer **peers; /* at least one */
    size_t n_peers;
    struct lookup *lookup;
    UT_hash_handle hh; /* by name, in upstream->servers, in order of addition */
};

struct monitor {
    char id[64];
    char name[64];
    json_t *options;
    struct check *check;
};

struct upstream {
    char name[DURPINA_NAME_SIZE];
    uint32_t id;         /* index in the maps */
    uint32_t generation;
    uint64_t revision;   /* the publish word */
    uint32_t next_server_id;
    bool created;        /* by a call: stays without servers */
    bool monitoring;
    struct server *servers; /* uthash by name */
    struct monitor **monitors;
    size_t n_monitors;
    UT_hash_handle hh; /* by name, in model->upstreams */
};

/* An nginx that introduced itself, and what its files say. */
struct instance {
    char *name;
    uint32_t pid;
    uint32_t worker_uid;
    uint64_t epoch;
    char token[33];
    json_t *upstreams; /* {upstream: {server name: its settings as said}} */
    UT_hash_handle hh;
};

struct model {
    struct upstream *upstreams;
    struct instance *instances;
    json_t *resolver; /* array of strings */
    uint64_t next_epoch;
};

struct upstream *model_upstream(const struct model *model, const char *name);
struct server *model_server(const struct upstream *upstream, const char *name);
/* By the id of a server or of one of its peers. */
struct server *model_server_by_id(const struct upstream *upstream, uint32_t id);

/* The published state: docs/states.md is its truth table. */
enum durpina_peer_state model_peer_state(const struct peer *peer);

#endif
