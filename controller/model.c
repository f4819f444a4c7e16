/* SPDX-License-Identifier: MIT */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct upstream *model_upstream(const struct model *model, const char *name)
{
    struct upstream *upstream;

    HASH_FIND_STR(model->upstreams, name, upstream);
    return upstream;
}

struct server *model_server(const struct upstream *upstream, const char *name)
{
    struct server *server;

    HASH_FIND_STR(upstream->servers, name, server);
    return server;
}

struct server *model_server_by_id(const struct upstream *upstream, uint32_t id)
{
    for (struct server *server = upstream->servers; server != NULL; server = server->hh.next) {
        if (server->id == id)
            return server;
        for (size_t i = 0; i < server->n_peers; i++)
            if (server->peers[i]->api_id == id)
                return server;
    }
    return NULL;
}

struct peer *model_find_peer(const struct server *server, const struct addr *addr)
{
    for (size_t i = 0; i < server->n_peers; i++) {
        struct peer *peer = server->peers[i];

        if (addr == NULL ? !peer->resolved : peer->resolved && addr_equal(&peer->addr, addr))
            return peer;
    }
    return NULL;
}

struct instance *model_instance(const struct model *model, const char *name)
{
    struct instance *instance;

    HASH_FIND_STR(model->instances, name, instance);
    return instance;
}

enum durpina_peer_state model_peer_state(const struct peer *peer)
{
    const struct server_settings *now = &peer->server->now;

    if (now->admin == DURPINA_ADMIN_DOWN)
        return DURPINA_PEER_DOWN;
    if (peer->health == DURPINA_HEALTH_FAILED)
        return DURPINA_PEER_UNHEALTHY;
    if (now->admin == DURPINA_ADMIN_DRAIN || now->weight == 0)
        return DURPINA_PEER_DRAINING;
    if (!peer->resolved)
        return DURPINA_PEER_UNRESOLVED;
    return DURPINA_PEER_UP;
}

struct upstream *model_add_upstream(struct model *model, const char *name)
{
    struct upstream *upstream = calloc(1, sizeof(*upstream));

    if (upstream == NULL)
        return NULL;
    upstream->model = model;
    upstream->id = DURPINA_NONE;
    upstream->monitoring = true;
    snprintf(upstream->name, sizeof(upstream->name), "%s", name);
    HASH_ADD_STR(model->upstreams, name, upstream);
    return upstream;
}

void model_free_upstream(struct upstream *upstream)
{
    struct server *server, *next;

    HASH_ITER(hh, upstream->servers, server, next)
    {
        model_unlink_server(server);
        model_free_server(server);
    }
    for (size_t i = 0; i < upstream->n_monitors; i++)
        model_free_monitor(upstream->monitors[i]);
    free(upstream->monitors);
    HASH_DEL(upstream->model->upstreams, upstream);
    free(upstream);
}

struct server *model_new_server(struct upstream *upstream, const struct server_spec *spec)
{
    struct server *server = calloc(1, sizeof(*server));
    struct addr addr;

    if (server == NULL)
        return NULL;
    server->upstream = upstream;
    server->id = upstream->next_server_id++;
    memcpy(server->name, spec->name, sizeof(server->name));
    memcpy(server->host, spec->host, sizeof(server->host));
    server->port = spec->port;
    server->is_address = addr_parse(spec->name, spec->port, &addr) == 0;
    server->backup = spec->backup;
    server->base = server->now = spec->settings;
    return server;
}

static int by_id(const struct server *a, const struct server *b)
{
    return (a->id > b->id) - (a->id < b->id);
}

void model_link_server(struct server *server)
{
    struct upstream *upstream = server->upstream;
    const struct server *last =
        upstream->servers == NULL
            ? NULL
            : ELMT_FROM_HH(upstream->servers->hh.tbl, upstream->servers->hh.tbl->tail);
    bool in_order = last == NULL || last->id < server->id;

    HASH_ADD_STR(upstream->servers, name, server);
    if (!in_order)
        HASH_SORT(upstream->servers, by_id);
}

void model_unlink_server(struct server *server)
{
    HASH_DEL(server->upstream->servers, server);
}

void model_free_server(struct server *server)
{
    for (size_t i = 0; i < server->n_peers; i++)
        model_free_peer(server->peers[i]);
    free(server->peers);
    free(server);
}

struct peer *model_new_peer(struct server *server, const struct addr *addr)
{
    struct peer *peer = calloc(1, sizeof(*peer));

    if (peer == NULL)
        return NULL;
    peer->server = server;
    peer->id = DURPINA_NONE;
    peer->api_id = server->is_address ? server->id : server->upstream->next_server_id++;
    if (addr != NULL) {
        peer->resolved = true;
        peer->addr = *addr;
    }
    return peer;
}

void model_free_peer(struct peer *peer)
{
    free(peer->probes);
    free(peer->watches);
    free(peer);
}

void model_free_monitor(struct monitor *monitor)
{
    json_decref(monitor->options);
    check_free(monitor->check);
    free(monitor);
}

void model_free_instance(struct instance *instance)
{
    if (instance->hh.tbl != NULL)
        HASH_DEL(instance->model->instances, instance);
    json_decref(instance->upstreams);
    free(instance->name);
    free(instance);
}

void model_clear(struct model *model)
{
    struct upstream *upstream, *next_upstream;
    struct instance *instance, *next_instance;

    HASH_ITER(hh, model->upstreams, upstream, next_upstream)
    model_free_upstream(upstream);
    HASH_ITER(hh, model->instances, instance, next_instance)
    model_free_instance(instance);
    json_decref(model->resolver);
    memset(model, 0, sizeof(*model));
}
