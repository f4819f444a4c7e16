/* SPDX-License-Identifier: MIT */
/* Which peers a server has, in an edit. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine_edit.h"

static bool has_peer(const struct server *server, const struct peer *peer)
{
    for (size_t i = 0; i < server->n_peers; i++)
        if (server->peers[i] == peer)
            return true;
    return false;
}

void edit_free_others(struct peer **peers, size_t n, const struct server *server)
{
    for (size_t i = 0; i < n; i++)
        if (!has_peer(server, peers[i])) {
            monitors_detach_peer(peers[i]);
            model_free_peer(peers[i]);
        }
}

/* Puts the array in place of the server's, which the edit keeps or, being its own, frees. */
static int replace_peers(struct edit *edit, struct server *server, struct peer **peers, size_t n)
{
    int err = edit_note(edit, server);

    if (err == 0) {
        const struct change *change = &edit->changes[server->edit - 1];
        struct peer **old = server->peers;
        size_t n_old = server->n_peers;

        server->peers = peers;
        server->n_peers = n;
        if (old != change->before.peers) {
            for (size_t i = 0; i < n_old; i++)
                if (!has_peer(server, old[i]) && !has_peer(&change->before, old[i]))
                    model_free_peer(old[i]);
            free(old);
        }
        return 0;
    }
    edit_free_others(peers, n, server);
    free(peers);
    return err;
}

/* The peer that is to have this address: the one that has it, or a new one in the tier. */
static struct peer *peer_for(struct server *server, const struct resolved *resolved)
{
    const struct addr *addr = resolved == NULL ? NULL : &resolved->addr;
    bool backup = server->backup || (resolved != NULL && resolved->backup);
    struct peer *old = model_find_peer(server, addr), *peer;

    if (old != NULL && old->backup == backup)
        return old;
    peer = model_new_peer(server, addr);
    if (peer == NULL)
        return NULL;
    peer->backup = backup;
    if (resolved != NULL)
        peer->srv_weight = resolved->srv_weight;
    /* The tier is part of what it is in the maps, and nothing of what is known of it. */
    if (old != NULL) {
        model_set_api_id(peer, old->api_id);
        if (model_inherit_findings(peer, old) < 0) {
            model_free_peer(peer);
            return NULL;
        }
    }
    return peer;
}

/* Weights of peers that stay, which rollback_change() puts back. */
static int set_srv_weight(struct edit *edit, struct peer *peer, uint32_t srv_weight)
{
    struct server *server = peer->server;
    struct change *change;
    int err;

    if (peer->srv_weight == srv_weight)
        return 0;
    err = edit_note(edit, server);
    if (err < 0)
        return err;
    change = &edit->changes[server->edit - 1];
    if (change->srv_weights == NULL) {
        change->srv_weights = calloc(change->before.n_peers + 1, sizeof(*change->srv_weights));
        if (change->srv_weights == NULL)
            return -ENOMEM;
        for (size_t i = 0; i < change->before.n_peers; i++)
            change->srv_weights[i] = change->before.peers[i]->srv_weight;
    }
    peer->srv_weight = srv_weight;
    return 0;
}

int edit_set_resolved(struct edit *edit, struct server *server, const struct resolved *resolved,
                      size_t n)
{
    struct peer **peers = calloc(n + 1, sizeof(*peers));
    struct server next = {.peers = peers};
    int err = peers == NULL ? -ENOMEM : 0;

    for (size_t i = 0; i < n && err == 0; i++) {
        struct peer *peer;

        if ((server->backup && resolved[i].backup) ||
            model_find_peer(&next, &resolved[i].addr) != NULL)
            continue;
        peer = peer_for(server, &resolved[i]);
        if (peer == NULL) {
            err = -ENOMEM;
            break;
        }
        peers[next.n_peers++] = peer;
        err = set_srv_weight(edit, peer, resolved[i].srv_weight);
    }
    if (err == 0 && next.n_peers == 0) {
        peers[0] = peer_for(server, NULL);
        next.n_peers = peers[0] != NULL;
        err = peers[0] == NULL ? -ENOMEM : 0;
    }
    if (err < 0) {
        if (peers != NULL)
            edit_free_others(peers, next.n_peers, server);
        free(peers);
        return err;
    }
    if (next.n_peers == server->n_peers &&
        memcmp(peers, server->peers, next.n_peers * sizeof(struct peer *)) == 0) {
        free(peers);
        return 0;
    }
    return replace_peers(edit, server, peers, next.n_peers);
}

int edit_set_addresses(struct edit *edit, struct server *server, const struct addr *addresses,
                       size_t n)
{
    struct resolved *resolved = calloc(n + 1, sizeof(*resolved));
    int err;

    if (resolved == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        resolved[i].addr = addresses[i];
    if (server->is_address && addr_parse(server->name, server->port, &resolved[0].addr) == 0)
        n = 1;
    err = edit_set_resolved(edit, server, resolved, n);
    free(resolved);
    return err;
}

int edit_set_backup(struct edit *edit, struct server *server, bool backup)
{
    struct peer **peers = calloc(server->n_peers + 1, sizeof(*peers));
    size_t n = 0;

    if (peers == NULL)
        return -ENOMEM;
    for (; n < server->n_peers; n++) {
        const struct peer *old = server->peers[n];

        peers[n] = model_new_peer(server, old->resolved ? &old->addr : NULL);
        if (peers[n] == NULL)
            break;
        model_set_api_id(peers[n], old->api_id);
        peers[n]->backup = backup;
        if (model_inherit_findings(peers[n], old) < 0) {
            model_free_peer(peers[n]);
            break;
        }
    }
    if (n < server->n_peers) {
        edit_free_others(peers, n, server);
        free(peers);
        return -ENOMEM;
    }

    int err = replace_peers(edit, server, peers, n);

    if (err == 0)
        server->backup = backup;
    return err;
}
