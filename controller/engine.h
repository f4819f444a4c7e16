/* SPDX-License-Identifier: MIT */
/*
 * The engine: the one mutator of the model. API requests, check results, name lookups and the state
 * file all come in here; each change is validated whole, applied to the model, published to the
 * maps and saved (scheduled to be, if the maps hold it), in that order, before the call returns. A
 * call that fails has changed nothing. Not thread safe: everything runs on the loop.
 */
#ifndef DURPINAD_ENGINE_H
#define DURPINAD_ENGINE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "failure.h"
#include "model.h"
#include "publish.h"
#include "resolve.h"
#include "server_line.h"

struct bpf_state;
struct endpoints;
struct state_file;
struct engine;

struct engine_options {
    struct bpf_state *maps;        /* mapped writable; not owned */
    struct state_file *state_file; /* open; NULL: state is not saved; not owned */
    uint32_t state_delay_ms;       /* a change is on disk at most this much later */
    struct prober *prober;         /* not owned */
    struct resolver *resolver;     /* not owned */
};

/*
 * Loads the state file, adopts what the maps hold (it wins where it is newer), publishes all.
 * A damaged state file is set aside as FILE.damaged and logged.
 */
int engine_create(uv_loop_t *loop, const struct engine_options *options, struct engine **ret,
                  struct failure *failure);

/* Starts monitors and lookups: to be called once privileges are dropped. */
void engine_start(struct engine *engine);

/* Saves the state file now. 0 or -errno. */
int engine_save(struct engine *engine);

/* Leaves the maps as they are; saves; marks the controller as gone. NULL is fine. */
void engine_destroy(struct engine *engine);

/* The model, to be read only. */
const struct model *engine_model(const struct engine *engine);

/* The prober, for what workers of nginx do for it. */
struct prober *engine_prober(const struct engine *engine);

/* What of the maps is in use. */
struct publish_usage engine_usage(const struct engine *engine);

/* Which peers have which address. */
struct endpoints *engine_endpoints(const struct engine *engine);

/* Slots that this table of the upstream takes now, over all tiers. */
uint32_t engine_table_slots(const struct engine *engine, const struct upstream *upstream,
                            enum demanded table);

/* Upstreams. Names are 1..127 bytes without control characters, space or '/'. */
int engine_create_upstream(struct engine *engine, const char *name, struct failure *failure);
int engine_delete_upstream(struct engine *engine, const char *name, struct failure *failure);

/*
 * Servers. spec->set says which settings are given; the rest get nginx's defaults (add) or stay as
 * they are (change). *ret is owned by the model. *ret_created says whether it is new: the same
 * server with the same settings again succeeds without change, whatever was changed at run time.
 */
int engine_add_server(struct engine *engine, const char *upstream, const struct server_spec *spec,
                      bool *ret_created, const struct server **ret, struct failure *failure);
int engine_change_server(struct engine *engine, const char *upstream, uint32_t id,
                         const struct server_spec *spec, const struct server **ret,
                         struct failure *failure);
int engine_reset_server(struct engine *engine, const char *upstream, uint32_t id,
                        const struct server **ret, struct failure *failure);
int engine_remove_server(struct engine *engine, const char *upstream, uint32_t id,
                         struct failure *failure);
int engine_resolve_server(struct engine *engine, const char *upstream, uint32_t id,
                          const struct server **ret, struct failure *failure);
/* What is known of its name. -ENOENT: it is none, or not looked up (yet). */
int engine_lookup_state(const struct server *server, struct lookup_state *ret);

/* A monitor as a call asks for it. */
struct monitor_spec {
    const char *id;
    const char *name;
    bool lua;              /* written in Lua: workers of nginx that know the name run it */
    const json_t *options; /* an object, borrowed */
};

/*
 * Monitors. *ret_created says whether it is new; the same id, name and options again succeed
 * without change.
 */
int engine_add_monitor(struct engine *engine, const char *upstream, const struct monitor_spec *spec,
                       bool *ret_created, const struct monitor **ret, struct failure *failure);
int engine_remove_monitor(struct engine *engine, const char *upstream, const char *id,
                          struct failure *failure);
int engine_set_monitoring(struct engine *engine, const char *upstream, bool active,
                          struct failure *failure);

/*
 * Virtual endpoints. The upstream need not be there: then they wait for it. *ret is owned by the
 * model. Adding the same one again succeeds without change. Refused: VipNotFound; EntryExists;
 * VipBadAddress for the address of a peer of the upstream; VipImmutable for one of durpinad.conf.
 */
int engine_add_vip(struct engine *engine, const struct vip_spec *spec, bool *ret_created,
                   const struct vip **ret, struct failure *failure);
/* NULL: VipNotFound. */
struct vip *engine_find_vip(const struct engine *engine, const struct durpina_address *address,
                            struct failure *failure);
/* The one with the spec's address. */
int engine_change_vip(struct engine *engine, const struct vip_spec *spec, const struct vip **ret,
                      struct failure *failure);
int engine_remove_vip(struct engine *engine, const struct durpina_address *address,
                      struct failure *failure);
/*
 * All those of the configuration, which is named `file` (borrowed): adds, changes and removes as
 * needed, and leaves those as they are that stay the same. One that a call has added becomes the
 * file's. 0, or -ENOMEM and nothing has changed.
 */
int engine_set_configured_vips(struct engine *engine, const char *file,
                               const struct vip_spec *specs, size_t n);
/* Connects since the maps were made that were sent to a peer, and that were left as they were. */
void engine_vip_counts(const struct engine *engine, const struct vip *vip, uint64_t *ret_selected,
                       uint64_t *ret_missed);

/* The `server` lines of one upstream block, as an nginx found them. */
struct registration {
    const char *upstream;
    bool durpina; /* its balancer is ours; else it is taken only if asked for before */
    const struct algorithm *algorithm; /* of the native directive; NULL: not known */
    struct server_spec *specs;         /* with addresses */
    size_t n_specs;
};

/* docs/api.md "An nginx introduces itself". ret_token: 32 hex digits and NUL. */
int engine_introduce_nginx(struct engine *engine, const char *instance, uint32_t pid,
                           uint32_t worker_uid, const struct registration *registrations,
                           size_t n_registrations, char ret_token[33], uint64_t *ret_epoch,
                           struct failure *failure);
/* As if its files named nothing any more; its workers lose their token. -ENOENT. An nginx that has
 * ended is forgotten by itself once another one has introduced an upstream of the same name. */
int engine_forget_nginx(struct engine *engine, const char *instance, struct failure *failure);
int engine_register_upstream(struct engine *engine, const char *instance, uint64_t epoch,
                             const struct registration *registration, struct failure *failure);

/* Non-zero if token belongs to an introduced nginx whose workers run as uid. */
bool engine_authorize_worker(const struct engine *engine, uint32_t uid, const char *token);

/*
 * Name servers: addresses with optional port. Those that were set by a call, and are saved, go
 * before those of the configuration, which are not saved; with neither: resolv.conf.
 */
int engine_configure_resolver(struct engine *engine, const char *const *servers, size_t n_servers,
                              struct failure *failure);
int engine_set_resolver(struct engine *engine, const char *const *servers, size_t n_servers,
                        struct failure *failure);

#endif
