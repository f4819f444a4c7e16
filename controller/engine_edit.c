/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "engine_edit.h"
#include "log.h"
#include "model_text.h"

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
        return fail_memory(failure);
    for (size_t i = 0; i < edit->n; i++)
        for (size_t k = 0; k < edit->changes[i].server->n_peers; k++)
            peers[n++] = edit->changes[i].server->peers[k];
    err = publish_prepare_peers(engine_of(edit->upstream)->publish, edit->upstream, peers, n,
                                clock_monotonic_ms(), &edit->publication, failure);
    free(peers);
    return err;
}

/* The peers that are new, so that none that has to be checked first is published as up. */
static int watch_peers(const struct edit *edit)
{
    int err = 0;

    for (size_t i = 0; i < edit->n; i++) {
        const struct server *server = edit->changes[i].server;

        for (size_t k = 0; k < server->n_peers && err == 0; k++) {
            if (server->peers[k]->id != DURPINA_NONE)
                continue;
            err = model_watch_peer(server->peers[k]);
            model_review_peer(server->peers[k]);
        }
    }
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
    if (watch_peers(edit) < 0)
        return fail_memory(failure);
    require_tables(edit, DEMAND_WANTED, DEMAND_REQUIRED);
    err = is_whole ? prepare_all(edit, failure) : prepare_peers(edit, n_peers, failure);
    require_tables(edit, DEMAND_REQUIRED, DEMAND_WANTED);
    return err;
}

void engine_forget_peer_fails(const struct peer *peer)
{
    struct durpina_counters *counters = engine_counters(engine_of(peer->server->upstream), peer);

    if (counters != NULL)
        durpina_clear_fails(counters);
}

void engine_forget_fails(const struct server *server)
{
    for (size_t i = 0; i < server->n_peers; i++)
        engine_forget_peer_fails(server->peers[i]);
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

    return !change->added && change->srv_weights == NULL && a->looked_up == b->looked_up &&
           a->peers == b->peers && a->backup == b->backup && a->portless == b->portless &&
           a->dynamic == b->dynamic && a->n_instances == b->n_instances &&
           a->changed == b->changed && memcmp(&a->base, &b->base, sizeof(a->base)) == 0 &&
           memcmp(&a->now, &b->now, sizeof(a->now)) == 0;
}

/* Then the maps do not show what the operator has set, so that the file has to. */
static bool is_hidden(const struct server *server)
{
    for (size_t i = 0; i < server->n_peers; i++)
        if (model_peer_derived(server->peers[i]) != DURPINA_DERIVED_NONE)
            return true;
    return false;
}

static void commit_change(struct change *change)
{
    struct server *server = change->server;
    struct engine *engine = engine_of(server->upstream);
    struct peer **old = change->before.peers;
    bool alike = is_saved_alike(change);

    server->edit = 0;
    free(change->srv_weights);
    if (change->removed) {
        log_notice("upstream %s: server %s is removed", server->upstream->name, server->name);
        end_server(server);
        return;
    }
    if (old != server->peers) {
        edit_free_others(old, change->before.n_peers, server);
        free(old);
    }
    if (!alike)
        model_text_renew(server);
    if (engine->started) {
        /* Nothing to go back to: a peer without its probe is a peer without a verdict. */
        if (monitors_run_server(server) < 0)
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

    vips_withdraw(upstream);
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
    bool hidden = false;

    if (edit->publication != NULL)
        publish_commit(edit->publication);
    note_published(edit);
    if (edit->is_whole)
        vips_publish(upstream);
    for (size_t i = 0; i < edit->n; i++) {
        const struct change *change = &edit->changes[i];

        hidden |=
            memcmp(&change->before.now, &change->server->now, sizeof(change->before.now)) != 0 &&
            is_hidden(change->server);
        commit_change(&edit->changes[i]);
    }
    if (edit->removes_upstream)
        remove_upstream(upstream);
    else
        tables_build(upstream);
    engine_touch(engine, hidden ? 0 : engine->state_delay_ms);
    free(edit->changes);
    free(edit);
}

static void rollback_change(struct change *change)
{
    struct server *server = change->server;

    for (size_t i = 0; i < change->before.n_peers && change->srv_weights != NULL; i++)
        change->before.peers[i]->srv_weight = change->srv_weights[i];
    free(change->srv_weights);
    if (change->added) {
        if (!change->removed)
            model_unlink_server(server);
        end_server(server);
        return;
    }
    if (server->peers != change->before.peers) {
        edit_free_others(server->peers, server->n_peers, &change->before);
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
        fail_memory(failure);
    if (err == 0)
        err = edit_prepare(edit, failure);
    if (err < 0)
        edit_rollback(edit);
    else
        edit_commit(edit);
    return err;
}
