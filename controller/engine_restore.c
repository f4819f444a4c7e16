/* SPDX-License-Identifier: MIT */
/*
 * What the maps of a former controller hold. The state file (in the model by now) knows more, but
 * is older by up to its delay; revisions tell. An upstream whose maps are newer gets its servers,
 * weights and operator's words from them. Without a state file the maps are all there is: the
 * servers in them are taken as neither dynamic nor named by an nginx, and stay until an nginx says
 * what the upstream has (or for ever, if none does): nothing may vanish because a file was lost. In
 * any case ids and generations are taken over, so that requests in flight end in the right
 * counters, and the first publication is the first thing that readers see change.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "engine_internal.h"
#include "log.h"
#include "model_json.h"

/* Ids count on from the greatest: of a record that says more, there would not be enough left. */
#define SERVER_ID_MAX INT32_MAX

/* How much of an upstream is taken from its maps. */
enum trust {
    TRUST_IDS,      /* the state file is as new */
    TRUST_SETTINGS, /* the maps are newer */
    TRUST_ALONE,    /* there is nothing else */
};

/* Root may have written anything; nothing of it may get into the model unchecked. */
static bool text_is_ended(const char *text, size_t size)
{
    return memchr(text, '\0', size) != NULL;
}

static int read_record(const struct engine *engine, uint32_t id, struct server_spec *ret_spec,
                       struct addr *ret_addr, bool *ret_resolved)
{
    const struct durpina_peer *record = &engine->maps->peers[id];
    struct server_spec spec = {.backup = record->tier == DURPINA_TIER_BACKUP};
    struct failure failure;

    if (!text_is_ended(record->name, sizeof(record->name)) ||
        !text_is_ended(record->address, sizeof(record->address)) || record->tier >= DURPINA_TIERS ||
        record->server > SERVER_ID_MAX || server_name_parse(record->name, 0, &spec, &failure) < 0)
        return -EINVAL;
    /* Only the name that SRV records are under is written without a port. */
    if (strcmp(spec.name, record->name) != 0) {
        if (server_service_name_parse(record->name, "", &spec) < 0)
            return -EINVAL;
        spec.backup = record->tier == DURPINA_TIER_BACKUP;
    }
    *ret_resolved = record->family != DURPINA_FAMILY_NONE;
    if (*ret_resolved &&
        addr_parse(record->family == DURPINA_FAMILY_UNIX ? record->name : record->address, 0,
                   ret_addr) < 0)
        return -EINVAL;
    *ret_spec = spec;
    return 0;
}

static uint32_t bounded(uint32_t value, uint32_t max, uint32_t otherwise)
{
    return value <= max ? value : otherwise;
}

/* The settings in force, and the initial weight as that of the base. */
static void read_settings(const struct engine *engine, uint32_t id, struct server_settings *ret_now,
                          uint32_t *ret_initial_weight)
{
    struct durpina_maps maps = bpf_state_maps(engine->maps);
    struct durpina_peer_settings s = durpina_read_settings(&maps, id);

    *ret_initial_weight = s.initial_weight;
    *ret_now = (struct server_settings){
        .weight = s.weight,
        .max_conns = bounded(s.max_conns, INT32_MAX, 0),
        .max_fails = bounded(s.max_fails, INT32_MAX, 1),
        .fail_timeout_ms = bounded(s.fail_timeout_ms, INT32_MAX, 10000),
        .slow_start_ms = bounded(s.slow_start_ms, INT32_MAX, 0),
        .admin = s.admin <= DURPINA_ADMIN_MAINT ? s.admin : DURPINA_ADMIN_UP,
    };
}

/* Settings other than weight and the operator's word are changed by whoever owns the server more
 * often than by a call: alone, the maps' value is the owner's. */
static void take_settings(struct server *server, const struct server_settings *now,
                          uint32_t initial_weight, bool is_new)
{
    struct server_settings values = *now;

    server->now = *now;
    if (is_new) {
        server->base = *now;
        server->base.admin = DURPINA_ADMIN_UP;
    }
    server->base.weight = initial_weight;
    server->changed = 0;
    for (size_t f = 0; f < N_SETTING_FIELDS; f++)
        if (*setting_field(&values, f) != *setting_field(&server->base, f))
            server->changed |= setting_fields[f].set;
}

/* What agents and SRV records have made of settings is not the operator's, which the state file
 * knows; without a server in it the owner's is the best guess, and 1 beside SRV records. */
static void leave_derived(const struct server *server, bool is_service,
                          enum durpina_derived derived, struct server_settings *now,
                          uint32_t *initial_weight)
{
    if ((derived & DURPINA_DERIVED_WEIGHT) != 0) {
        if (server != NULL)
            *initial_weight = server->base.weight;
        else if (is_service)
            *initial_weight = 1;
        now->weight = server != NULL ? server->now.weight : *initial_weight;
    }
    if ((derived & DURPINA_DERIVED_MAX_CONNS) != 0)
        now->max_conns = server != NULL ? server->now.max_conns : 0;
}

static int append_peer(struct server *server, struct peer *peer)
{
    struct peer **peers = reallocarray(server->peers, server->n_peers + 1, sizeof(*peers));

    if (peers == NULL)
        return -ENOMEM;
    server->peers = peers;
    peers[server->n_peers++] = peer;
    return 0;
}

static int take_peer(struct engine *engine, struct upstream *upstream, uint32_t id,
                     enum trust trust)
{
    const struct durpina_peer *record = &engine->maps->peers[id];
    struct durpina_maps maps = bpf_state_maps(engine->maps);
    struct durpina_peer_settings settings = durpina_read_settings(&maps, id);
    struct server_settings now;
    uint32_t initial_weight;
    struct server_spec spec;
    struct server *server;
    struct peer *peer;
    struct addr addr;
    bool resolved, is_backup;
    int err;

    if (read_record(engine, id, &spec, &addr, &resolved) < 0) {
        log_warn("upstream %s: the peer with id %u in the maps makes no sense and is dropped",
                 upstream->name, id);
        return 0;
    }
    is_backup = spec.backup;
    spec.backup ^= (settings.derived & DURPINA_DERIVED_TIER) != 0;
    server = model_server(upstream, spec.name);
    if (trust != TRUST_IDS) {
        bool is_new = server == NULL;

        read_settings(engine, id, &now, &initial_weight);
        leave_derived(server, spec.service[0] != '\0', settings.derived, &now, &initial_weight);
        if (is_new) {
            server = model_new_server(upstream, &spec);
            if (server == NULL)
                return -ENOMEM;
            server->id = record->server;
            /* The state file is saved at once when an nginx speaks: what it lacks came by call. */
            server->dynamic = trust == TRUST_SETTINGS;
            model_link_server(server);
        }
        take_settings(server, &now, initial_weight, is_new);
        if (trust == TRUST_SETTINGS && server->id != record->server) {
            /* Removed and added again. */
            model_unlink_server(server);
            server->id = record->server;
            model_link_server(server);
        }
        server->backup = spec.backup;
    }
    if (server == NULL || server->backup != spec.backup || server->id != record->server)
        return 0;
    peer = model_find_peer(server, resolved ? &addr : NULL);
    if (trust == TRUST_IDS && (peer == NULL || peer->backup != is_backup))
        return 0;
    if (peer == NULL) {
        peer = model_new_peer(server, resolved ? &addr : NULL);
        if (peer == NULL)
            return -ENOMEM;
        if (append_peer(server, peer) < 0) {
            model_free_peer(peer);
            return -ENOMEM;
        }
        if (server->service != NULL && server->base.weight != 0)
            peer->srv_weight = settings.initial_weight / server->base.weight;
    }
    peer->id = id;
    peer->generation = record->generation;
    peer->backup = is_backup;
    peer->state = settings.state <= DURPINA_PEER_UNRESOLVED ? settings.state : DURPINA_PEER_FREE;
    peer->health =
        settings.health <= DURPINA_HEALTH_FAILED ? settings.health : DURPINA_HEALTH_UNKNOWN;
    err = model_adopt_health(peer);
    if (err == 0 && trust == TRUST_SETTINGS)
        model_adopt_agent(peer, &settings);
    return err;
}

/* Drops what newer maps have not: servers and addresses without a peer there. */
static void drop_unpublished(struct engine *engine, struct upstream *upstream)
{
    struct server *server, *next;

    HASH_ITER(hh, upstream->servers, server, next)
    {
        size_t n = 0;

        for (size_t i = 0; i < server->n_peers; i++) {
            if (server->peers[i]->id == DURPINA_NONE)
                model_free_peer(server->peers[i]);
            else
                server->peers[n++] = server->peers[i];
        }
        server->n_peers = n;
        if (n == 0) {
            instances_forget_server(&engine->model, upstream->name, server->name);
            model_unlink_server(server);
            model_free_server(server);
        }
    }
}

/*
 * Ids of children are not in the maps: those that the state file has not come behind all servers.
 */
static void renumber(struct upstream *upstream, uint32_t first_new)
{
    uint32_t next = first_new;

    for (const struct server *s = upstream->servers; s != NULL; s = s->hh.next)
        if (s->id >= next)
            next = s->id + 1;
    for (const struct server *s = upstream->servers; s != NULL; s = s->hh.next)
        for (size_t i = 0; i < s->n_peers; i++)
            if (s->is_address)
                model_set_api_id(s->peers[i], s->id);
            else if (s->peers[i]->api_id >= first_new)
                model_set_api_id(s->peers[i], next++);
    upstream->next_server_id = next;
}

static int take_upstream(struct engine *engine, uint32_t id, uint64_t word)
{
    const struct durpina_upstream *record = &engine->maps->upstreams[id];
    struct upstream *upstream = NULL;
    enum trust trust = TRUST_ALONE;
    uint32_t *ids, first_new_id;
    size_t n;
    int err;

    if (!text_is_ended(record->name, sizeof(record->name)) || !model_name_is_valid(record->name) ||
        ((upstream = model_upstream(&engine->model, record->name)) != NULL &&
         upstream->id != DURPINA_NONE)) {
        log_warn("the upstream with id %u in the maps makes no sense and is dropped", id);
        publish_remove(engine->publish, id, clock_monotonic_ms());
        return 0;
    }
    if (upstream != NULL)
        trust = word > upstream->revision ? TRUST_SETTINGS : TRUST_IDS;
    else
        upstream = model_add_upstream(&engine->model, record->name);
    if (upstream == NULL)
        return -ENOMEM;
    first_new_id = upstream->next_server_id;
    upstream->id = id;
    upstream->generation = record->generation;
    if (upstream->revision < word && word <= PUBLISH_WORD_MAX)
        upstream->revision = word;

    err = publish_adopted_peers(engine->publish, id, &ids, &n);
    if (err < 0)
        return err;
    for (size_t i = 0; i < n && err == 0; i++)
        err = take_peer(engine, upstream, ids[i], trust);
    free(ids);
    if (err == 0 && trust == TRUST_SETTINGS)
        drop_unpublished(engine, upstream);
    if (err == 0 && trust != TRUST_IDS)
        renumber(upstream, first_new_id);
    if (trust == TRUST_ALONE)
        log_warn("upstream %s is restored from the maps alone: its monitors are lost",
                 record->name);
    return err;
}

static int publish_all(struct engine *engine)
{
    for (struct upstream *u = engine->model.upstreams; u != NULL; u = u->hh.next) {
        struct publication *publication;
        struct failure failure;

        /* Verdicts of the former controller hold until the first ones of this one. */
        if (monitors_attach(u) < 0)
            return -ENOMEM;
        tables_note_asked(u);
        tables_demand(u, NULL, false, NULL);
        u->unpublished =
            publish_prepare(engine->publish, u, clock_monotonic_ms(), &publication, &failure) < 0;
        if (u->unpublished) {
            log_error("%s: it stays as it was until there is room", failure.text);
            health_publish_later(engine, PUBLISH_RETRY_MS);
            continue;
        }
        publish_commit(publication);
        while (u->dirty != NULL)
            model_set_dirty(u->dirty, false);
        engine_note_states(u);
    }
    return 0;
}

int engine_restore(struct engine *engine)
{
    for (uint32_t id = 0; id < engine->maps->n_upstreams; id++) {
        uint64_t word = durpina_seq_begin(&engine->maps->upstreams[id].publish);
        int err = word == 0 ? 0 : take_upstream(engine, id, word);

        if (err < 0)
            return err;
    }
    return publish_all(engine);
}
