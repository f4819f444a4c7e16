/* SPDX-License-Identifier: MIT */
#include "model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "model_text.h"

bool model_name_is_valid(const char *name)
{
    json_t *text = json_string(name); /* NULL unless it is UTF-8 */
    size_t len = strlen(name);

    json_decref(text);
    for (const char *c = name; *c != '\0'; c++)
        if ((unsigned char) *c <= ' ' || *c == 0x7f || *c == '/')
            return false;
    return text != NULL && len > 0 && len < DURPINA_NAME_SIZE;
}

int model_check_name(const char *name, struct failure *failure)
{
    if (model_name_is_valid(name))
        return 0;
    return fail(failure, EINVAL, 400, "UpstreamBadName",
                "upstream name \"%.130s\" must be 1 to 127 bytes without control characters, space "
                "and '/'",
                name);
}

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
    struct server *server;
    struct peer *child;

    HASH_FIND(by_id, upstream->servers_by_id, &id, sizeof(id), server);
    if (server != NULL)
        return server;
    HASH_FIND(by_id, upstream->children, &id, sizeof(id), child);
    return child == NULL ? NULL : child->server;
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

const struct algorithm *model_algorithm(const char *word, bool ketama)
{
    static const struct algorithm algorithms[] = {
        {"round-robin", false, DURPINA_ASKED_NO_TABLE},
        {"unweighted-round-robin", false, DURPINA_ASKED_NO_TABLE},
        {"ip-hash", false, DURPINA_ASKED_HASH},
        {"consistent-hash", false, DURPINA_ASKED_HASH},
        {"consistent-hash", true, DURPINA_ASKED_RING},
        {"least-conn", false, DURPINA_ASKED_NO_TABLE},
        {"random-two", false, DURPINA_ASKED_NO_TABLE},
        {"peak-ewma", false, DURPINA_ASKED_NO_TABLE},
        {"least-time", false, DURPINA_ASKED_NO_TABLE},
    };

    for (size_t i = 0; i < sizeof(algorithms) / sizeof(algorithms[0]); i++)
        if (strcmp(algorithms[i].word, word) == 0 && algorithms[i].ketama == ketama)
            return &algorithms[i];
    return NULL;
}

const struct algorithm *model_said_algorithm(const struct instance *instance, const char *upstream)
{
    const json_t *said = json_object_get(instance->algorithms, upstream);
    const char *word = json_string_value(json_object_get(said, "algorithm"));

    return word == NULL ? NULL
                        : model_algorithm(word, json_is_true(json_object_get(said, "ketama")));
}

const struct algorithm *model_upstream_algorithm(const struct upstream *upstream)
{
    const struct algorithm *algorithm = NULL;

    for (const struct instance *i = upstream->model->instances; i != NULL; i = i->hh.next) {
        const struct algorithm *said = model_said_algorithm(i, upstream->name);

        if (json_object_get(i->upstreams, upstream->name) == NULL)
            continue;
        if (said == NULL || (algorithm != NULL && said != algorithm))
            return NULL;
        algorithm = said;
    }
    return algorithm;
}

static uint32_t srv_weight(const struct peer *peer, uint32_t weight)
{
    uint64_t product = (uint64_t) weight * (peer->srv_weight != 0 ? peer->srv_weight : 1);

    return product < DURPINA_WEIGHT_MAX ? (uint32_t) product : DURPINA_WEIGHT_MAX;
}

uint32_t model_peer_initial_weight(const struct peer *peer)
{
    return srv_weight(peer, peer->server->base.weight);
}

uint32_t model_peer_weight(const struct peer *peer)
{
    return agent_weight(&peer->agent, model_peer_initial_weight(peer),
                        srv_weight(peer, peer->server->now.weight));
}

uint32_t model_peer_max_conns(const struct peer *peer)
{
    return peer->agent.said & AGENT_MAXCONN ? peer->agent.maxconn : peer->server->now.max_conns;
}

enum durpina_derived model_peer_derived(const struct peer *peer)
{
    unsigned derived = DURPINA_DERIVED_NONE;

    if ((peer->agent.said & AGENT_WEIGHT) != 0 || peer->srv_weight != 0)
        derived |= DURPINA_DERIVED_WEIGHT;
    if ((peer->agent.said & AGENT_MAXCONN) != 0)
        derived |= DURPINA_DERIVED_MAX_CONNS;
    if (peer->backup != peer->server->backup)
        derived |= DURPINA_DERIVED_TIER;
    return (enum durpina_derived) derived;
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
    model_text_relist(upstream);
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
    if (spec->service[0] != '\0') {
        server->service = strdup(spec->service);
        if (server->service == NULL) {
            free(server);
            return NULL;
        }
    }
    server->upstream = upstream;
    server->id = upstream->next_server_id++;
    memcpy(server->name, spec->name, sizeof(server->name));
    memcpy(server->host, spec->host, sizeof(server->host));
    server->port = spec->port;
    server->portless = spec->portless;
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
    HASH_ADD(by_id, upstream->servers_by_id, id, sizeof(server->id), server);
    if (server->text == NULL)
        DL_APPEND2(upstream->outdated, server, text_prev, text_next);
    model_text_relist(upstream);
}

void model_unlink_server(struct server *server)
{
    struct upstream *upstream = server->upstream;

    HASH_DEL(upstream->servers, server);
    HASH_DELETE(by_id, upstream->servers_by_id, server);
    if (server->text == NULL)
        DL_DELETE2(upstream->outdated, server, text_prev, text_next);
    model_text_relist(upstream);
}

void model_revert_server(struct server *server, const struct server *before)
{
    struct server links = *server;

    *server = *before;
    server->text = links.text;
    server->text_place = links.text_place;
    server->text_prev = links.text_prev;
    server->text_next = links.text_next;
    server->hh = links.hh;
    server->by_id = links.by_id;
}

void model_free_server(struct server *server)
{
    for (size_t i = 0; i < server->n_peers; i++)
        model_free_peer(server->peers[i]);
    model_text_retire(server->upstream->model, server->text);
    free(server->peers);
    free(server->service);
    free(server);
}

void model_set_api_id(struct peer *peer, uint32_t api_id)
{
    struct upstream *upstream = peer->server->upstream;

    if (peer->server->is_address) {
        peer->api_id = api_id;
        return;
    }
    HASH_DELETE(by_id, upstream->children, peer);
    peer->api_id = api_id;
    HASH_ADD(by_id, upstream->children, api_id, sizeof(peer->api_id), peer);
}

struct peer *model_new_peer(struct server *server, const struct addr *addr)
{
    struct upstream *upstream = server->upstream;
    struct peer *peer = calloc(1, sizeof(*peer));

    if (peer == NULL)
        return NULL;
    peer->server = server;
    peer->backup = server->backup;
    peer->id = DURPINA_NONE;
    peer->api_id = server->is_address ? server->id : upstream->next_server_id++;
    if (!server->is_address)
        HASH_ADD(by_id, upstream->children, api_id, sizeof(peer->api_id), peer);
    if (addr != NULL) {
        peer->resolved = true;
        peer->addr = *addr;
    }
    return peer;
}

void model_set_dirty(struct peer *peer, bool dirty)
{
    struct upstream *upstream = peer->server->upstream;

    if (peer->dirty == dirty)
        return;
    peer->dirty = dirty;
    if (dirty)
        DL_APPEND(upstream->dirty, peer);
    else
        DL_DELETE(upstream->dirty, peer);
}

void model_free_peer(struct peer *peer)
{
    struct upstream *upstream = peer->server->upstream;

    model_set_dirty(peer, false);
    if (!peer->server->is_address)
        HASH_DELETE(by_id, upstream->children, peer);
    for (size_t i = 0; i < peer->n_watches; i++)
        free(peer->watches[i]);
    free(peer->watches);
    history_free(peer->history);
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
    model_text_retire(instance->model, instance->text);
    json_decref(instance->upstreams);
    json_decref(instance->algorithms);
    free(instance->name);
    free(instance);
}

void model_clear(struct model *model)
{
    struct upstream *upstream, *next_upstream;
    struct instance *instance, *next_instance;
    struct vip *vip, *next_vip;

    HASH_ITER(hh, model->upstreams, upstream, next_upstream)
    model_free_upstream(upstream);
    HASH_ITER(hh, model->instances, instance, next_instance)
    model_free_instance(instance);
    HASH_ITER(hh, model->vips, vip, next_vip)
    model_free_vip(model, vip);
    json_decref(model->resolver);
    /* Snapshots are still good for what has been retired. */
    *model = (struct model){.n_snapshots = model->n_snapshots, .retired = model->retired};
}
