/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "engine_internal.h"
#include "log.h"
#include "model_text.h"

/* A server before the edit. Its array of peers is replaced as a whole, never changed, so that the
 * old one is still there to go back to. */
struct change {
    struct server *server;
    struct server before;
    bool added;
    bool removed;
};

struct edit {
    struct upstream *upstream;
    bool is_new;
    bool removes_upstream;
    enum demand demand[N_DEMANDED]; /* before the edit */
    struct change *changes;
    size_t n, capacity;
    struct publication *publication;
    bool is_whole; /* of all peers */
};

int edit_begin(struct upstream *upstream, bool is_new, struct edit **ret)
{
    struct edit *edit = calloc(1, sizeof(*edit));

    if (edit == NULL)
        return -ENOMEM;
    edit->upstream = upstream;
    edit->is_new = is_new;
    memcpy(edit->demand, upstream->demand, sizeof(edit->demand));
    *ret = edit;
    return 0;
}

int edit_note(struct edit *edit, struct server *server)
{
    if (server->edit != 0)
        return 0;
    if (edit->n == edit->capacity) {
        size_t capacity = edit->capacity == 0 ? 4 : 2 * edit->capacity;
        struct change *changes = reallocarray(edit->changes, capacity, sizeof(*changes));

        if (changes == NULL)
            return -ENOMEM;
        edit->changes = changes;
        edit->capacity = capacity;
    }
    edit->changes[edit->n++] = (struct change){.server = server, .before = *server};
    server->edit = edit->n;
    return 0;
}

static bool has_peer(const struct server *server, const struct peer *peer)
{
    for (size_t i = 0; i < server->n_peers; i++)
        if (server->peers[i] == peer)
            return true;
    return false;
}

/* Frees those of the array that the server has not. */
static void free_others(struct peer **peers, size_t n, const struct server *server)
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
    free_others(peers, n, server);
    free(peers);
    return err;
}

int edit_set_addresses(struct edit *edit, struct server *server, const struct addr *addresses,
                       size_t n)
{
    struct peer **peers = calloc(n + 1, sizeof(*peers));
    struct server next = {.peers = peers};
    struct addr own;

    if (peers == NULL)
        return -ENOMEM;
    if (server->is_address && addr_parse(server->name, server->port, &own) == 0) {
        addresses = &own;
        n = 1;
    }
    for (size_t i = 0; i < n || next.n_peers == 0; i++) {
        const struct addr *addr = n == 0 ? NULL : &addresses[i];
        struct peer *peer = model_find_peer(server, addr);

        if (model_find_peer(&next, addr) != NULL)
            continue;
        if (peer == NULL)
            peer = model_new_peer(server, addr);
        if (peer == NULL) {
            free_others(peers, next.n_peers, server);
            free(peers);
            return -ENOMEM;
        }
        peers[next.n_peers++] = peer;
    }
    if (next.n_peers == server->n_peers &&
        memcmp(peers, server->peers, next.n_peers * sizeof(struct peer *)) == 0) {
        free(peers);
        return 0;
    }
    return replace_peers(edit, server, peers, next.n_peers);
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
        peers[n]->health = old->health;
    }
    if (n < server->n_peers) {
        free_others(peers, n, server);
        free(peers);
        return -ENOMEM;
    }

    int err = replace_peers(edit, server, peers, n);

    if (err == 0)
        server->backup = backup;
    return err;
}

int edit_add_server(struct edit *edit, const struct server_spec *spec, struct server **ret)
{
    struct server *server = model_new_server(edit->upstream, spec);
    int err;

    if (server == NULL)
        return -ENOMEM;
    err = edit_note(edit, server);
    if (err < 0) {
        model_free_server(server);
        return err;
    }
    edit->changes[server->edit - 1].added = true;
    model_link_server(server);
    err = edit_set_addresses(edit, server, spec->addresses, spec->n_addresses);
    if (err == 0)
        *ret = server;
    return err;
}

int edit_remove_server(struct edit *edit, struct server *server)
{
    int err = edit_note(edit, server);

    if (err < 0)
        return err;
    edit->changes[server->edit - 1].removed = true;
    model_unlink_server(server);
    return 0;
}

void edit_remove_upstream(struct edit *edit)
{
    edit->removes_upstream = true;
}

/* Are its peers others? */
static bool has_other_peers(const struct change *change)
{
    return change->added || change->removed || change->server->peers != change->before.peers;
}

/* What the edit has changed is some settings: their peers are published, not all. */
static int prepare_peers(struct edit *edit, size_t n_peers, struct failure *failure)
{
    struct peer **peers = malloc((n_peers + 1) * sizeof(*peers));
    size_t n = 0;
    int err;

    if (peers == NULL)
        return fail(failure, ENOMEM, 500, "UpstreamOutOfMemory", "out of memory");
    for (size_t i = 0; i < edit->n; i++)
        for (size_t k = 0; k < edit->changes[i].server->n_peers; k++)
            peers[n++] = edit->changes[i].server->peers[k];
    err = publish_prepare_peers(engine_of(edit->upstream)->publish, edit->upstream, peers, n,
                                clock_monotonic_ms(), &edit->publication, failure);
    free(peers);
    return err;
}

/* What has come to be wanted by this edit is refused without room; else nothing could be done any
 * more once picks have asked for a table that does not fit. */
static void require_tables(const struct edit *edit, enum demand from, enum demand to)
{
    for (int t = 0; t < N_DEMANDED; t++)
        if (edit->upstream->demand[t] == from && edit->demand[t] != DEMAND_WANTED)
            edit->upstream->demand[t] = to;
}

static int prepare_all(struct edit *edit, struct failure *failure)
{
    return publish_prepare(engine_of(edit->upstream)->publish, edit->upstream, clock_monotonic_ms(),
                           &edit->publication, failure);
}

int edit_prepare(struct edit *edit, struct failure *failure)
{
    bool is_whole = edit->is_new || edit->upstream->unpublished;
    size_t n_peers = 0;
    int err;

    if (edit->removes_upstream)
        return 0;
    for (size_t i = 0; i < edit->n; i++) {
        is_whole |= has_other_peers(&edit->changes[i]);
        n_peers += edit->changes[i].server->n_peers;
    }
    edit->is_whole = is_whole;
    require_tables(edit, DEMAND_WANTED, DEMAND_REQUIRED);
    err = is_whole ? prepare_all(edit, failure) : prepare_peers(edit, n_peers, failure);
    require_tables(edit, DEMAND_REQUIRED, DEMAND_WANTED);
    return err;
}

void engine_forget_fails(const struct server *server)
{
    for (size_t i = 0; i < server->n_peers; i++) {
        struct durpina_counters *counters =
            engine_counters(engine_of(server->upstream), server->peers[i]);

        if (counters != NULL)
            durpina_clear_fails(counters);
    }
}

static void end_server(struct server *server)
{
    lookup_end(server);
    for (size_t i = 0; i < server->n_peers; i++)
        monitors_detach_peer(server->peers[i]);
    model_free_server(server);
}

/* A reload notes all servers of an nginx, and changes few. */
static bool is_saved_alike(const struct change *change)
{
    const struct server *a = &change->before, *b = change->server;

    return !change->added && a->peers == b->peers && a->backup == b->backup &&
           a->portless == b->portless && a->dynamic == b->dynamic &&
           a->n_instances == b->n_instances && a->changed == b->changed &&
           memcmp(&a->base, &b->base, sizeof(a->base)) == 0 &&
           memcmp(&a->now, &b->now, sizeof(a->now)) == 0;
}

static void commit_change(struct change *change)
{
    struct server *server = change->server;
    struct engine *engine = engine_of(server->upstream);
    struct peer **old = change->before.peers;
    bool alike = is_saved_alike(change);

    server->edit = 0;
    if (change->removed) {
        log_notice("upstream %s: server %s is removed", server->upstream->name, server->name);
        end_server(server);
        return;
    }
    if (old != server->peers) {
        free_others(old, change->before.n_peers, server);
        free(old);
    }
    if (!alike)
        model_text_renew(server);
    if (engine->started) {
        /* Nothing to go back to: a peer without its probe is a peer without a verdict. */
        if (monitors_attach_server(server) < 0)
            log_error("upstream %s: out of memory: server %s is not monitored",
                      server->upstream->name, server->name);
        lookup_attach(server);
    }
    /* Who does not count failures any more would go on with one request per fail_timeout. */
    if (change->before.now.max_fails != 0 && server->now.max_fails == 0)
        engine_forget_fails(server);
}

/* What is in force now is the model's. */
static void note_published(const struct edit *edit)
{
    struct upstream *upstream = edit->upstream;

    if (edit->is_whole) {
        upstream->unpublished = upstream->stale = false;
        while (upstream->dirty != NULL)
            model_set_dirty(upstream->dirty, false);
        engine_note_states(upstream);
        return;
    }
    for (size_t i = 0; i < edit->n; i++)
        for (size_t k = 0; k < edit->changes[i].server->n_peers; k++) {
            model_set_dirty(edit->changes[i].server->peers[k], false);
            engine_note_state(edit->changes[i].server->peers[k]);
        }
}

static void remove_upstream(struct upstream *upstream)
{
    struct engine *engine = engine_of(upstream);

    if (upstream->id != DURPINA_NONE)
        publish_remove(engine->publish, upstream->id, clock_monotonic_ms());
    for (struct server *server = upstream->servers; server != NULL; server = server->hh.next) {
        lookup_end(server);
        for (size_t i = 0; i < server->n_peers; i++)
            monitors_detach_peer(server->peers[i]);
    }
    log_notice("upstream %s is removed", upstream->name);
    model_free_upstream(upstream);
}

void edit_commit(struct edit *edit)
{
    struct upstream *upstream = edit->upstream;
    struct engine *engine = engine_of(upstream);

    if (edit->publication != NULL)
        publish_commit(edit->publication);
    note_published(edit);
    for (size_t i = 0; i < edit->n; i++)
        commit_change(&edit->changes[i]);
    if (edit->removes_upstream)
        remove_upstream(upstream);
    else
        tables_build(upstream);
    engine_touch(engine, engine->state_delay_ms);
    free(edit->changes);
    free(edit);
}

static void rollback_change(struct change *change)
{
    struct server *server = change->server;

    if (change->added) {
        if (!change->removed)
            model_unlink_server(server);
        end_server(server);
        return;
    }
    if (server->peers != change->before.peers) {
        free_others(server->peers, server->n_peers, &change->before);
        free(server->peers);
    }
    model_revert_server(server, &change->before);
    server->edit = 0;
    if (change->removed)
        model_link_server(server);
}

void edit_rollback(struct edit *edit)
{
    publish_abort(edit->publication);
    for (size_t i = edit->n; i-- > 0;)
        rollback_change(&edit->changes[i]);
    memcpy(edit->upstream->demand, edit->demand, sizeof(edit->demand));
    if (edit->is_new)
        model_free_upstream(edit->upstream);
    free(edit->changes);
    free(edit);
}

int edit_finish(struct edit *edit, int err, struct failure *failure)
{
    if (err == -ENOMEM)
        fail(failure, ENOMEM, 500, "UpstreamOutOfMemory", "out of memory");
    if (err == 0)
        err = edit_prepare(edit, failure);
    if (err < 0)
        edit_rollback(edit);
    else
        edit_commit(edit);
    return err;
}

/* In words of docs/states.md, and why. */
static void log_transition(const struct peer *peer, enum durpina_peer_state from,
                           enum durpina_peer_state to)
{
    static const char *const words[] = {
        [DURPINA_PEER_UP] = "up",
        [DURPINA_PEER_DOWN] = "down",
        [DURPINA_PEER_UNHEALTHY] = "unhealthy",
        [DURPINA_PEER_DRAINING] = "draining",
        [DURPINA_PEER_CHECKING] = "checking",
        [DURPINA_PEER_UNRESOLVED] = "unresolved",
    };
    const struct server *server = peer->server;
    char address[DURPINA_NAME_SIZE] = "?";
    const char *why = "as set";

    if (peer->resolved)
        addr_format(&peer->addr, address, sizeof(address));
    if (from == DURPINA_PEER_FREE)
        why = "added";
    else if (to == DURPINA_PEER_UNHEALTHY)
        why = monitors_reason(peer);
    else if (to == DURPINA_PEER_UNRESOLVED)
        why = "no address";
    else if (from == DURPINA_PEER_UNHEALTHY && to == DURPINA_PEER_UP)
        why = peer->health == DURPINA_HEALTH_PASSED ? "monitors pass" : "not monitored any more";
    else if (to == DURPINA_PEER_DRAINING && server->now.admin != DURPINA_ADMIN_DRAIN)
        why = "weight 0";
    log_write(from == DURPINA_PEER_FREE ? LOG_LEVEL_INFO : LOG_LEVEL_NOTICE,
              "upstream %s: peer %s (%s) is %s: %s", server->upstream->name, server->name, address,
              words[to], why);
}

void engine_note_state(struct peer *peer)
{
    enum durpina_peer_state to = model_peer_state(peer);

    if (to == peer->state)
        return;
    log_transition(peer, peer->state, to);
    if (peer->down_since_ms != 0 && to != DURPINA_PEER_UNHEALTHY) {
        peer->downtime_ms += clock_wall_ms() - peer->down_since_ms;
        peer->down_since_ms = 0;
    } else if (to == DURPINA_PEER_UNHEALTHY) {
        peer->down_since_ms = clock_wall_ms();
    }
    peer->state = to;
}

void engine_note_states(const struct upstream *upstream)
{
    for (const struct server *server = upstream->servers; server; server = server->hh.next)
        for (size_t i = 0; i < server->n_peers; i++)
            engine_note_state(server->peers[i]);
}
