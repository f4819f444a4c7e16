/* SPDX-License-Identifier: MIT */
/* The part of the API that NGINX Plus has: upstreams, their servers and peers. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "api_call.h"

/*
 * Peers that have left an upstream and have requests in flight, by the id of the upstream: their
 * records are free but not forgotten. NULL if memory is short. One pass over the counters for all
 * upstreams: about a millisecond at the default capacity.
 */
static uint32_t *count_zombies(const struct durpina_maps *maps)
{
    uint32_t *zombies = calloc(maps->n_upstreams, sizeof(*zombies));

    for (uint32_t id = 0; zombies != NULL && id < maps->n_peers; id++) {
        const struct durpina_peer *peer = &maps->peers[id];

        if (DURPINA_LOAD(&maps->counters[id].active) == 0 ||
            DURPINA_LOAD(&maps->counters[id].generation) != DURPINA_LOAD(&peer->generation) ||
            DURPINA_LOAD(&peer->settings[0].state) != DURPINA_PEER_FREE)
            continue;

        uint32_t upstream = DURPINA_LOAD(&peer->upstream);

        if (upstream < maps->n_upstreams)
            zombies[upstream]++;
    }
    return zombies;
}

/* A peer as NGINX Plus has it, and what the kernel says of it. */
static json_t *peer_json(const struct peer *peer, const struct api_call *call)
{
    json_t *object = api_peer_json(peer, &call->maps, &call->now);

    api_add_kernel(object, peer, call);
    return object;
}

/* --- upstreams -------------------------------------------------------------------------------- */

static json_t *upstream_json(const struct upstream *upstream, const uint32_t *zombies,
                             const struct api_call *call)
{
    json_t *peers = json_array();

    for (const struct server *s = upstream->servers; s != NULL; s = s->hh.next)
        for (size_t i = 0; i < s->n_peers; i++)
            json_array_append_new(peers, peer_json(s->peers[i], call));
    /* Idle connections to the peers are nginx's own; none of them is held here. */
    return json_pack("{so si sI ss}", "peers", peers, "keepalive", 0, "zombies",
                     (json_int_t) (upstream->id < call->maps.n_upstreams ? zombies[upstream->id]
                                                                         : 0),
                     "zone", upstream->name);
}

static int get_http(struct api_call *call)
{
    call->result = json_pack("[s]", "upstreams");
    return 0;
}

static int no_memory(struct api_call *call)
{
    return fail_memory(&call->failure);
}

static int get_upstreams(struct api_call *call)
{
    const struct model *model = engine_model(call->api->engine);
    uint32_t *zombies = count_zombies(&call->maps);

    if (zombies == NULL)
        return no_memory(call);
    call->result = json_object();
    for (const struct upstream *u = model->upstreams; u != NULL; u = u->hh.next)
        json_object_set_new(call->result, u->name, upstream_json(u, zombies, call));
    free(zombies);
    return 0;
}

static int get_upstream(struct api_call *call)
{
    const struct upstream *upstream = api_upstream(call);
    uint32_t *zombies;

    if (upstream == NULL)
        return -ENOENT;
    zombies = count_zombies(&call->maps);
    if (zombies == NULL)
        return no_memory(call);
    call->result = upstream_json(upstream, zombies, call);
    free(zombies);
    return 0;
}

/* --- servers ---------------------------------------------------------------------------------- */

static int get_servers(struct api_call *call)
{
    const struct upstream *upstream = api_upstream(call);

    if (upstream == NULL)
        return -ENOENT;
    call->result = api_servers_json(upstream, &call->maps, &call->now);
    return 0;
}

static int get_server(struct api_call *call)
{
    uint32_t id;
    const struct server *server = api_server(call, &id);

    if (server == NULL)
        return -ENOENT;
    call->result = api_server_by_id_json(server, id, &call->maps, &call->now);
    return 0;
}

static int post_server(struct api_call *call)
{
    char name[3 * DURPINA_NAME_SIZE];
    const struct server *server;
    struct server_spec spec;
    bool created;
    int err;

    if (api_upstream(call) == NULL)
        return -ENOENT;
    err = api_body(call, NULL);
    if (err == 0)
        err = api_parse_server(call->body, API_SERVER_ADD, NULL, &spec, &call->failure);
    if (err < 0)
        return err;
    err = engine_add_server(call->api->engine, call->args[0], &spec, &created, &server,
                            &call->failure);
    server_spec_clear(&spec);
    if (err < 0)
        return err;
    call->status = created ? 201 : 200;
    call->result = api_server_json(server, &call->maps, &call->now);
    api_encode(server->upstream->name, name, sizeof(name));
    snprintf(call->location, sizeof(call->location), "/api/9/http/upstreams/%s/servers/%u", name,
             (unsigned) server->id);
    return 0;
}

static int patch_server(struct api_call *call)
{
    uint32_t id;
    const struct server *server = api_server(call, &id);
    struct server_spec spec;
    int err;

    if (server == NULL)
        return -ENOENT;
    err = api_body(call, NULL);
    if (err == 0)
        err = api_parse_server(call->body, API_SERVER_CHANGE, server, &spec, &call->failure);
    if (err < 0)
        return err;
    err =
        engine_change_server(call->api->engine, call->args[0], id, &spec, &server, &call->failure);
    server_spec_clear(&spec);
    if (err < 0)
        return err;
    call->result = api_server_by_id_json(server, id, &call->maps, &call->now);
    return 0;
}

static int delete_server(struct api_call *call)
{
    uint32_t id;
    const struct server *server = api_server(call, &id);
    int err;

    if (server == NULL)
        return -ENOENT;
    if (id != server->id)
        return fail(&call->failure, EINVAL, 400, "UpstreamServerImmutable",
                    "server %u is an address of %.128s, which goes as a whole: its id is %u",
                    (unsigned) id, server->name, (unsigned) server->id);
    err = engine_remove_server(call->api->engine, call->args[0], id, &call->failure);
    /* An upstream that nothing else holds has gone with its last server. */
    return err < 0 ? err : api_answer_servers(call);
}

/* --- what clients of NGINX Plus ask for besides ----------------------------------------------- */

static int get_nginx(struct api_call *call)
{
    const struct api *api = call->api;
    char loaded[32], now[32];

    api_format_time(api->loaded_wall_ms, loaded, sizeof(loaded));
    api_format_time(call->now.wall_ms, now, sizeof(now));
    call->result =
        json_pack("{ss ss sI ss ss si si}", "version", DURPINA_VERSION, "build", "durpinad",
                  "generation", (json_int_t) api->loads, "load_timestamp", loaded, "timestamp", now,
                  "pid", (int) getpid(), "ppid", (int) getppid());
    return 0;
}

static int get_processes(struct api_call *call)
{
    call->result = json_pack("{si}", "respawned", 0);
    return 0;
}

/* The connections of this API: durpinad has no others to serve. */
static int get_connections(struct api_call *call)
{
    struct http_stats stats = http_server_stats(call->api->server);

    call->result = json_pack("{sI sI sI sI}", "accepted", (json_int_t) stats.accepted, "dropped",
                             (json_int_t) stats.dropped, "active", (json_int_t) stats.busy, "idle",
                             (json_int_t) (stats.connections - stats.busy));
    return 0;
}

const struct api_route api_upstreams_routes[] = {
    {"nginx", {[API_GET] = get_nginx}, false, false},
    {"processes", {[API_GET] = get_processes}, false, false},
    {"connections", {[API_GET] = get_connections}, false, false},
    {"http", {[API_GET] = get_http}, false, false},
    {"http/upstreams", {[API_GET] = get_upstreams}, true, false},
    {"http/upstreams/*", {[API_GET] = get_upstream}, false, false},
    {"http/upstreams/*/servers", {[API_GET] = get_servers, [API_POST] = post_server}, false, false},
    {"http/upstreams/*/servers/*",
     {[API_GET] = get_server, [API_PATCH] = patch_server, [API_DELETE] = delete_server},
     false,
     false},
    {NULL, {NULL}, false, false},
};
