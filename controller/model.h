/* SPDX-License-Identifier: MIT */
/*
 * The model: what durpinad knows of upstreams, their servers and the peers (addresses) of those.
 * Pure: no descriptors, no clock. Only the engine changes it.
 *
 *     model ─┬─ upstream ─┬─ server (as named: settings, operator's word) ─── peer (one address)
 *            │            └─ monitor
 *            ├─ vip (a virtual endpoint; names an upstream)
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
#include "agent.h"
#include "check.h"
#include "durpina_abi.h"
#include "history.h"
#include "server_line.h"
#include "vip_line.h"

struct text; /* model_text.h */
struct probe;

#define WATCH_REASON_SIZE 160
/* Of a verdict that another durpinad has come to. */
#define WATCH_REASON_BEFORE "as it was before durpinad started"

/* What one monitor has found out about one peer. */
struct watch {
    struct peer *peer;
    const struct monitor *monitor;
    struct probe *probe;            /* the engine's; NULL: it does not run now */
    enum durpina_health verdict;    /* an agent's: its health word */
    bool pending;                   /* it is mandatory and has not passed the peer yet */
    struct agent_word word;         /* what the agent has said but for health */
    char reason[WATCH_REASON_SIZE]; /* of the verdict */
};

/* What a published state comes from. */
enum ground {
    GROUND_NONE,      /* nothing keeps the peer from being up */
    GROUND_OPERATOR,  /* the operator's word */
    GROUND_AGENT,     /* an agent's "drain" or "maint" */
    GROUND_VERDICT,   /* a monitor's, or the health word of an agent */
    GROUND_MANDATORY, /* a monitor that has not passed it yet */
    GROUND_WEIGHT,    /* 0 */
    GROUND_ADDRESS,   /* there is none */
};

struct peer {
    struct server *server;
    uint32_t id;    /* index in the maps */
    uint32_t place; /* in the publisher's list; its own */
    uint32_t generation;
    uint32_t api_id; /* id of the child in the API; the server's own id if it is an address */
    bool resolved;   /* false: a placeholder without address */
    bool answered;   /* a lookup of this durpinad's has found it */
    struct addr addr;
    bool backup;             /* its server's, or by the priority of its SRV record */
    uint32_t srv_weight;     /* of its SRV record; 0: it has none */
    struct agent_word agent; /* what agents have said of it */
    bool checking;           /* a mandatory monitor has not passed it yet */
    enum durpina_health health;
    enum durpina_peer_state state; /* as last published; FREE: not yet */
    enum ground ground;            /* of that state */
    uint64_t down_since_ms;        /* monotonic: unhealthy or checking since then; 0: is neither */
    uint64_t downtime_ms;          /* finished ones, summed */
    struct history *history;       /* of the state; NULL: it has not changed */
    struct watch **watches;        /* one for each monitor of the upstream, in its order */
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
    char *service;   /* of the SRV records that its peers come from, as written; NULL: none */
    bool is_address; /* an address or a unix socket: one peer, no lookup */
    bool looked_up;  /* its peers come from a lookup of ours, not from an nginx's */
    bool backup;
    bool dynamic;         /* added by a call */
    uint32_t n_instances; /* nginx instances that name it */
    struct server_settings base;
    struct server_settings now;
    unsigned changed;
    struct peer **peers; /* at least one */
    size_t n_peers;
    struct lookup *lookup;                /* of its name; NULL: it is none, or not yet */
    bool lookup_refused;                  /* what it says does not fit: that has been logged */
    size_t edit;                          /* its place in an edit under way, from 1 */
    struct text *text;                    /* as it is saved; NULL: not up to date */
    size_t text_place;                    /* in upstream->texts */
    struct server *text_prev, *text_next; /* in upstream->outdated, if text is NULL */
    UT_hash_handle hh;                    /* by name, in upstream->servers, in order of addition */
    UT_hash_handle by_id;                 /* likewise, in upstream->servers_by_id */
};

struct monitor {
    char id[CHECK_ID_SIZE];
    char name[CHECK_NAME_SIZE];
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

/* What keeps a virtual endpoint from being in the map. */
enum vip_obstacle {
    VIP_CLEAR,
    VIP_NO_UPSTREAM, /* it is not there (yet) */
    VIP_LOOP,        /* its address is that of a peer of the upstream */
    VIP_NO_ROOM,     /* the kernel did not take it */
};

/* A virtual endpoint: who connects to it is sent to a peer of the upstream. */
struct vip {
    struct durpina_address address;
    char name[VIP_NAME_SIZE];         /* the address as text */
    char upstream[DURPINA_NAME_SIZE]; /* need not be there */
    enum durpina_algorithm algorithm;
    bool configured; /* in durpinad.conf; else by a call */
    bool stale;      /* the configuration that is being read has not named it yet */
    bool in_map;
    enum vip_obstacle obstacle;
    struct durpina_vip entry; /* as put into the map; what it has counted while it is not there */
    UT_hash_handle hh;        /* by address, in model->vips */
};

struct model {
    struct upstream *upstreams;
    struct instance *instances;
    struct vip *vips;
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
struct vip *model_vip(const struct model *model, const struct durpina_address *address);
/* Is this, whatever the protocol, the address of a peer of the upstream? */
bool model_has_peer_at(const struct upstream *upstream, const struct durpina_address *address);
/* Why it is not active; NULL: it is. */
const char *model_vip_obstacle(const struct vip *vip);
/* Of an upstream: 1 to 127 bytes of UTF-8 without control characters, space and '/'. -EINVAL with
 * UpstreamBadName. */
int model_check_name(const char *name, struct failure *failure);
bool model_name_is_valid(const char *name);
/* Of this word; NULL if there is none, or no such variant of it. */
const struct algorithm *model_algorithm(const char *word, bool ketama);
/* Of the upstream, as this nginx says; NULL: not known. */
const struct algorithm *model_said_algorithm(const struct instance *instance, const char *upstream);
/* Of the upstream, as all nginx that name it say; NULL: not known. */
const struct algorithm *model_upstream_algorithm(const struct upstream *upstream);

/* In force, after what SRV records and agents say. */
uint32_t model_peer_weight(const struct peer *peer);
uint32_t model_peer_initial_weight(const struct peer *peer);
uint32_t model_peer_max_conns(const struct peer *peer);
/* What of them, and of its tier, is not the operator's. */
enum durpina_derived model_peer_derived(const struct peer *peer);

/* --- health: model_health.c --- */

/* The published state: docs/states.md is its truth table. */
enum durpina_peer_state model_peer_state(const struct peer *peer);
enum ground model_peer_ground(const struct peer *peer);
/* "up", "down", "unhealthy", "draining", "checking", "unresolved"; FREE: "". */
const char *model_state_word(enum durpina_peer_state state);
/* "up", "down", "drain", "maint"; and back: -EINVAL if it is none of them. */
const char *model_admin_word(enum durpina_admin admin);
int model_admin_parse(const char *word, enum durpina_admin *ret);
#define MODEL_CAUSE_SIZE 256
/* Why the peer is in the state it has now, having been in another one by that ground.
 * MODEL_CAUSE_SIZE bytes suffice; what does not fit is cut. */
void model_peer_cause(const struct peer *peer, enum ground before, char *text, size_t size);
/* By the operator or an agent: monitors but agents do not check it. */
bool model_peer_in_maintenance(const struct peer *peer);

bool model_monitor_is_agent(const struct monitor *monitor);
/* Is what it has found in the state file? Of others the maps know enough. */
bool model_monitor_is_kept(const struct monitor *monitor);
/*
 * Adds the watches that the peer lacks, without findings. A mandatory monitor has to pass a peer
 * first that no monitor has passed. 0 or -ENOMEM.
 */
int model_watch_peer(struct peer *peer);
/* Takes what the maps know of a peer (its state and health) for its watches. 0 or -ENOMEM. */
int model_adopt_health(struct peer *peer);
/*
 * Takes what the maps show of agents' words and the state file does not know yet, for the agent
 * that was added last: as far as the operator's word, a monitor or an SRV record does not hide it.
 */
void model_adopt_agent(struct peer *peer, const struct durpina_peer_settings *maps);
/* A monitor that is paused has found nothing out. */
void model_forget_findings(struct watch *watch);
/* Puts what the watches have found into the peer: health, agent, checking. True if that changed. */
bool model_review_peer(struct peer *peer);
/* A peer that takes the place of another one of the same address goes on with what was found of
 * it. 0 or -ENOMEM. */
int model_inherit_findings(struct peer *peer, const struct peer *old);

/*
 * Parts, for the engine. They return NULL when out of memory. Ids of the maps are DURPINA_NONE.
 * Freeing an upstream frees its servers and monitors, freeing a server its peers, freeing a peer
 * its watches; probes and lookups must be gone by then.
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
/* Not linked. */
struct vip *model_new_vip(const struct vip_spec *spec);
void model_link_vip(struct model *model, struct vip *vip);
void model_free_vip(struct model *model, struct vip *vip); /* also takes it out of the model */
/* Frees all there is but for snapshots of it. */
void model_clear(struct model *model);

#endif
