/* SPDX-License-Identifier: MIT */
/*
 * The engine's own parts:
 *
 *     engine.c          create, start, destroy; requests about upstreams and name servers
 *     engine_save.c     the state file
 *     engine_server.c   requests about servers
 *     engine_edit.c     changes of one upstream that happen whole or not at all
 *     engine_peers.c    which peers a server has, in such a change
 *     engine_nginx.c    what nginx instances say
 *     engine_forget.c   nginx instances that have ended
 *     engine_monitor.c  monitors: which there are, which of their probes run
 *     engine_health.c   what their results mean
 *     engine_tables.c   tables on demand
 *     engine_lookup.c   names
 *     engine_vip.c      virtual endpoints
 *     engine_restore.c  what the maps of a former controller hold
 */
#ifndef DURPINAD_ENGINE_INTERNAL_H
#define DURPINAD_ENGINE_INTERNAL_H

#include "bpf_state.h"
#include "engine.h"
#include "probe.h"
#include "publish.h"
#include "resolve.h"
#include "state_file.h"

struct engine {
    uv_loop_t *loop;
    struct bpf_state *maps;
    struct publish *publish;
    struct prober *prober;
    struct resolver *resolver;
    json_t *configured_resolver;   /* array of strings, or NULL; model.resolver goes before it */
    const char *vip_file;          /* that configures vips; NULL: none has yet */
    struct state_file *state_file; /* NULL: state is not saved */
    uint32_t state_delay_ms;
    struct model model;
    bool started;
    bool closing;
    uv_timer_t save_timer;
    uv_timer_t publish_timer; /* for peers that are dirty */
    uv_timer_t monitor_timer; /* for monitors that check some of the peers only */
    uv_timer_t look_timer;    /* at what picks ask for */
    uv_timer_t build_timer;   /* for tables that lag */
    bool building;            /* one is being made */
    uint64_t build_next_ms;   /* the next that replaces another one may be */
    uint64_t build_turns;
    unsigned refs;         /* open handles, running work and the owner */
    uint64_t changes;      /* counts changes of the model */
    uint64_t saved;        /* `changes` in the file */
    bool saving;           /* work is under way ... */
    uint32_t save_next_ms; /* ... and what has changed meanwhile is to be saved that soon after */
    bool save_failed;      /* has been logged */
    bool maps_full;        /* has been logged */
};

static inline struct engine *engine_of(const struct upstream *upstream)
{
    return (struct engine *) ((char *) upstream->model - offsetof(struct engine, model));
}

/* The peer's counters; NULL if it is not published (its id is out of range). */
struct durpina_counters *engine_counters(const struct engine *engine, const struct peer *peer);

/* To be called once for each one that engine->refs counts. */
void engine_unref(struct engine *engine);

/* Has the model saved at most delay_ms from now; 0: before it returns, unless that fails. */
void engine_touch(struct engine *engine, uint32_t delay_ms);

int engine_find_upstream(const struct engine *engine, const char *name, struct upstream **ret,
                         struct failure *failure);
/* By the id of a server or of one of its peers. */
int engine_find_server(const struct engine *engine, const char *upstream, uint32_t id,
                       struct server **ret, struct failure *failure);

/*
 * Edits. Between begin and end the servers of one upstream are changed through these calls (or
 * directly, once noted). prepare gets the new state ready for publication; commit publishes it,
 * starts and stops probes and lookups and logs transitions; rollback makes everything as it was.
 * Both end the edit. Calls return 0, -ENOMEM, or what publish_prepare() does.
 */
struct edit;

int edit_begin(struct upstream *upstream, bool is_new, struct edit **ret);
int edit_note(struct edit *edit, struct server *server);
int edit_add_server(struct edit *edit, const struct server_spec *spec, struct server **ret);
int edit_remove_server(struct edit *edit, struct server *server);
/* n 0: the address in its name, or a placeholder. */
int edit_set_addresses(struct edit *edit, struct server *server, const struct addr *addresses,
                       size_t n);
/* As a lookup says. Of a server that is a backup, those are left out that are one by themselves. */
int edit_set_resolved(struct edit *edit, struct server *server, const struct resolved *resolved,
                      size_t n);
/* All its peers become others, in the other tier. */
int edit_set_backup(struct edit *edit, struct server *server, bool backup);
/* The upstream goes when the edit is committed, with all it has. */
void edit_remove_upstream(struct edit *edit);
int edit_prepare(struct edit *edit, struct failure *failure);
void edit_commit(struct edit *edit);
void edit_rollback(struct edit *edit);
/* prepare, then commit or rollback; err < 0: rollback, "out of memory" in failure. */
int edit_finish(struct edit *edit, int err, struct failure *failure);

/* Forgets the passive failures of one peer, and of all peers of the server. */
void engine_forget_peer_fails(const struct peer *peer);
void engine_forget_fails(const struct server *server);

/* Monitors. */
/* Makes watches and, if monitors may run, probes for all peers that lack them; ends other probes.
 * Peers of which something else is known then are dirty. 0 or -ENOMEM. */
int monitors_attach(struct upstream *upstream);
/* Starts and ends probes as the state of the peer asks for. 0 or -ENOMEM. */
int monitors_run_peer(struct peer *peer);
int monitors_run_server(const struct server *server);
/* Cancels the probes of a peer. */
void monitors_detach_peer(struct peer *peer);
void monitors_select_cb(uv_timer_t *timer);

/* Health. */
/* Findings that come within this time of each other are published together: with thousands of peers
 * each would cost as much as all. */
#define HEALTH_PUBLISH_DELAY_MS 10
#define PUBLISH_RETRY_MS 1000
/* user: the watch. One that changes nothing costs nothing. */
void health_report_cb(void *user, struct probe *probe, const struct probe_report *report);
/* Publishes peers that are dirty; what does not succeed is tried again. */
void health_publish(struct upstream *upstream);
/* Has peers that are dirty published at most delay_ms from now. */
void health_publish_later(struct engine *engine, uint32_t delay_ms);
/* Tells log and history which states the last publication has changed, and keeps account of down
 * time. */
void engine_note_states(const struct upstream *upstream);
void engine_note_state(struct peer *peer);

/* Lookups. */
/* Has the name of the server looked up from now on, if it is one. */
void lookup_attach(struct server *server);
/* No longer; fine for one that is not. */
void lookup_end(struct server *server);

/* Tables on demand. */
void tables_start(struct engine *engine);
/* Notes what picks of the upstream have asked for. */
void tables_note_asked(struct upstream *upstream);
/*
 * Finds out what tables are in demand: of all instances but this one, and of one that names the
 * upstream, with an algorithm or NULL, if `names` is true.
 */
void tables_demand(struct upstream *upstream, const struct instance *except, bool names,
                   const struct algorithm *algorithm);
/* Finds that out, and has tables laid out accordingly. */
void tables_review(struct upstream *upstream);
/* Has tables of the upstream that lag made. */
void tables_build(const struct upstream *upstream);

/* Virtual endpoints. */
/* Makes the map what the model says, whatever somebody else has put into it. */
void vips_start(struct engine *engine);
/* The upstream has been published whole. */
void vips_publish(const struct upstream *upstream);
/* It is about to go. */
void vips_withdraw(const struct upstream *upstream);

/* nginx instances. */
bool instances_name_upstream(const struct model *model, const char *upstream);
/* Nobody has asked for it: no instance, no call, no server. */
bool upstream_is_unused(const struct upstream *upstream);
void instances_forget_server(struct model *model, const char *upstream, const char *server);
/* Makes all upstreams as if the instance named nothing: all of them or none. */
int instance_withdraw(struct engine *engine, const struct instance *instance,
                      struct failure *failure);
/* Forgets the others that name an upstream of this one and have ended. */
void instances_forget_gone(struct engine *engine, const struct instance *instance);

/* Completes the model with what the maps hold and publishes everything. 0 or -ENOMEM. */
int engine_restore(struct engine *engine);

#endif
