/* SPDX-License-Identifier: MIT */
/* Names to addresses: what the resolver says of servers' names becomes their peers. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine_internal.h"
#include "log.h"

/* What does not fit is handed out again; it is logged once for a row of refusals. */
static int apply(struct server *server, const struct resolved *resolved, size_t n)
{
    struct failure failure = {.text = "out of memory"};
    struct edit *edit;
    int err = edit_begin(server->upstream, false, &edit);

    if (err == 0) {
        err = edit_note(edit, server);
        server->looked_up |= err == 0;
        if (err == 0)
            err = edit_set_resolved(edit, server, resolved, n);
        err = edit_finish(edit, err, &failure);
    }
    if (err < 0 && !server->lookup_refused)
        log_error("upstream %s: server %s: the addresses of its name are not used: %s",
                  server->upstream->name, server->name, failure.text);
    server->lookup_refused = err < 0;
    return err;
}

/* As long as its family, or a target of SRV records, has not answered us, what nginx, the state
 * file or the maps have told of an address is the last answer. */
static bool is_unanswered(const struct peer *peer)
{
    return peer->resolved && !peer->answered &&
           !lookup_knows(peer->server->lookup, peer->addr.sa.sa_family);
}

static size_t add_unanswered(const struct server *server, struct resolved *resolved, size_t n)
{
    for (size_t i = 0; i < server->n_peers; i++) {
        const struct peer *peer = server->peers[i];

        if (is_unanswered(peer))
            resolved[n++] = (struct resolved){.addr = peer->addr,
                                              .backup = peer->backup && !server->backup,
                                              .srv_weight = peer->srv_weight};
    }
    return n;
}

static void note_answered(struct server *server, const struct resolved *resolved, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct peer *peer = model_find_peer(server, &resolved[i].addr);

        if (peer != NULL)
            peer->answered = true;
    }
}

static int on_resolved(void *user, const struct resolved *resolved, size_t n)
{
    struct server *server = user;
    struct resolved *all;
    int err;

    /* nginx may have found its addresses elsewhere (mDNS, containers): DNS may not know it. */
    if (n == 0 && !server->looked_up)
        return 0;
    all = calloc(n + server->n_peers, sizeof(*all));
    if (all == NULL)
        return -ENOMEM;
    if (n > 0)
        memcpy(all, resolved, n * sizeof(*all));
    err = apply(server, all, add_unanswered(server, all, n));
    if (err == 0)
        note_answered(server, resolved, n);
    free(all);
    return err;
}

void lookup_attach(struct server *server)
{
    struct engine *engine = engine_of(server->upstream);
    bool is_service = server->service != NULL;

    if (server->is_address || server->lookup != NULL)
        return;
    if (resolver_look_up(engine->resolver, is_service ? server->name : server->host, is_service,
                         server->port, server->peers[0]->resolved, on_resolved, server,
                         &server->lookup) < 0)
        log_error("upstream %s: out of memory: server %s is not looked up", server->upstream->name,
                  server->name);
}

void lookup_end(struct server *server)
{
    lookup_cancel(server->lookup);
    server->lookup = NULL;
}

int engine_resolve_server(struct engine *engine, const char *upstream_name, uint32_t id,
                          const struct server **ret, struct failure *failure)
{
    struct server *server;
    int err = engine_find_server(engine, upstream_name, id, &server, failure);

    if (err < 0)
        return err;
    if (server->lookup != NULL)
        lookup_hurry(server->lookup);
    *ret = server;
    return 0;
}

int engine_lookup_state(const struct server *server, struct lookup_state *ret)
{
    if (server->lookup == NULL)
        return -ENOENT;
    *ret = lookup_state(server->lookup);
    return 0;
}
