/* SPDX-License-Identifier: MIT */
/* What the results of checks mean for peers: publication, history, log. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "clock.h"
#include "engine_internal.h"
#include "log.h"
#include "model_text.h"

/* --- results --- */

/* Health is left out: it counts by rise and fall, so the verdict brings it. */
static bool hear_agent(struct watch *watch, const struct agent_line *line)
{
    struct agent_word said = line->word;

    said.said &= ~(unsigned) AGENT_HEALTH;
    return agent_apply(&watch->word, &said);
}

/* Returns whether the verdict is another one. */
static bool hear_verdict(struct watch *watch, bool passed, const char *reason)
{
    enum durpina_health verdict = passed ? DURPINA_HEALTH_PASSED : DURPINA_HEALTH_FAILED;
    bool changed = verdict != watch->verdict;

    watch->verdict = verdict;
    watch->pending = watch->pending && !passed;
    snprintf(watch->reason, sizeof(watch->reason), "%s", reason);
    return changed;
}

void health_report_cb(void *user, struct probe *probe, const struct probe_report *report)
{
    struct watch *watch = user;
    struct peer *peer = watch->peer;
    struct engine *engine = engine_of(peer->server->upstream);
    const bool was_in_maintenance = model_peer_in_maintenance(peer);
    const bool had_failed = watch->verdict == DURPINA_HEALTH_FAILED;
    bool spoke = report->agent != NULL && hear_agent(watch, report->agent);
    bool turned = report->is_verdict && hear_verdict(watch, report->passed, report->reason);

    (void) probe;
    if (!spoke && !report->is_verdict)
        return;
    if (spoke || (turned && model_monitor_is_kept(watch->monitor))) {
        model_text_renew(peer->server);
        engine_touch(engine, engine->state_delay_ms);
    }
    if (model_review_peer(peer)) {
        model_set_dirty(peer, true);
        health_publish_later(engine, HEALTH_PUBLISH_DELAY_MS);
    }
    if (turned && had_failed && peer->health != DURPINA_HEALTH_FAILED && !peer->agent.down)
        engine_forget_peer_fails(peer);
    if (model_peer_in_maintenance(peer) != was_in_maintenance && monitors_run_peer(peer) < 0)
        log_error("upstream %s: out of memory: peer %s is not monitored",
                  peer->server->upstream->name, peer->server->name);
}

/* --- publication --- */

/* As a restore wanted to have it: peers and all. */
static int publish_whole(struct upstream *upstream)
{
    struct engine *engine = engine_of(upstream);
    struct publication *publication;
    struct failure failure;
    int err =
        publish_prepare(engine->publish, upstream, clock_monotonic_ms(), &publication, &failure);

    if (err < 0)
        return err;
    publish_commit(publication);
    upstream->unpublished = false;
    while (upstream->dirty != NULL)
        model_set_dirty(upstream->dirty, false);
    engine_note_states(upstream);
    vips_publish(upstream);
    log_notice("upstream %s fits into the maps and is published", upstream->name);
    return 0;
}

/* The peers of which something else is known now. */
static int publish_dirty(struct upstream *upstream)
{
    struct engine *engine = engine_of(upstream);
    struct peer *peer, **peers;
    size_t n = 0;
    int err;

    DL_COUNT(upstream->dirty, peer, n);
    peers = malloc((n + 1) * sizeof(*peers));
    if (peers == NULL)
        return -ENOMEM;
    n = 0;
    DL_FOREACH(upstream->dirty, peer)
    {
        peers[n++] = peer;
    }
    err = publish_states(engine->publish, upstream, peers, n, clock_monotonic_ms());
    /* Without room for new tables the states are published all the same. */
    upstream->stale = err == -ENOSPC;
    for (size_t i = 0; i < n && (err == 0 || err == -ENOSPC); i++) {
        model_set_dirty(peers[i], false);
        engine_note_state(peers[i]);
    }
    free(peers);
    return err;
}

static bool is_pending(const struct upstream *upstream)
{
    return upstream->dirty != NULL || upstream->unpublished || upstream->stale;
}

void health_publish(struct upstream *upstream)
{
    struct engine *engine = engine_of(upstream);
    bool unpublished = upstream->unpublished;
    int err;

    if (!is_pending(upstream))
        return;
    err = unpublished ? publish_whole(upstream) : publish_dirty(upstream);
    if (err == 0) {
        tables_build(upstream);
        return;
    }
    health_publish_later(engine, PUBLISH_RETRY_MS);
    /* Once for a row of failures; a restore has logged its own. */
    if (!engine->maps_full && !unpublished) {
        log_error("upstream %s: %s: peers that recover wait for their share: raise \"slots\" in "
                  "durpinad.conf",
                  upstream->name, err == -ENOSPC ? "the slots map is full" : strerror(-err));
        engine->maps_full = true;
    }
}

static void publish_cb(uv_timer_t *timer)
{
    struct engine *engine = timer->data;
    bool pending = false;

    for (struct upstream *u = engine->model.upstreams; u != NULL; u = u->hh.next) {
        health_publish(u);
        pending |= is_pending(u);
    }
    if (!pending)
        engine->maps_full = false;
}

void health_publish_later(struct engine *engine, uint32_t delay_ms)
{
    if (!uv_is_active((uv_handle_t *) &engine->publish_timer) ||
        uv_timer_get_due_in(&engine->publish_timer) > delay_ms)
        uv_timer_start(&engine->publish_timer, publish_cb, delay_ms, 0);
}

/* --- what has been published --- */

/* Wall clocks are set now and then: what has passed is told by the other one. */
static void account_down_time(struct peer *peer, enum durpina_peer_state to)
{
    bool is_out = to == DURPINA_PEER_UNHEALTHY || to == DURPINA_PEER_CHECKING;

    if (is_out == (peer->down_since_ms != 0))
        return;
    if (is_out) {
        peer->down_since_ms = clock_monotonic_ms();
    } else {
        peer->downtime_ms += clock_monotonic_ms() - peer->down_since_ms;
        peer->down_since_ms = 0;
    }
}

void engine_note_state(struct peer *peer)
{
    const enum durpina_peer_state from = peer->state, to = model_peer_state(peer);
    const enum ground before = peer->ground;
    char cause[MODEL_CAUSE_SIZE], address[DURPINA_NAME_SIZE] = "?";

    account_down_time(peer, to);
    peer->state = to;
    peer->ground = model_peer_ground(peer);
    if (to == from)
        return;
    if (peer->resolved)
        addr_format(&peer->addr, address, sizeof(address));
    model_peer_cause(peer, before, cause, sizeof(cause));
    log_write(from == DURPINA_PEER_FREE ? LOG_LEVEL_INFO : LOG_LEVEL_NOTICE,
              "upstream %s: peer %s (%s) is %s: %s", peer->server->upstream->name,
              peer->server->name, address, model_state_word(to), cause);
    /* Short of memory, a note is missing. */
    if (from != DURPINA_PEER_FREE)
        (void) history_add(&peer->history, clock_wall_ms(), from, to, cause);
}

void engine_note_states(const struct upstream *upstream)
{
    for (const struct server *server = upstream->servers; server; server = server->hh.next)
        for (size_t i = 0; i < server->n_peers; i++)
            engine_note_state(server->peers[i]);
}
