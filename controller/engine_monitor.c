/* SPDX-License-Identifier: MIT */
/* Monitors: one probe for each peer and monitor, and what their verdicts mean for the peer. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "clock.h"
#include "engine_internal.h"
#include "log.h"

/* Verdicts that come within this time of each other are published together: with thousands of peers
 * each would cost as much as all. */
#define PUBLISH_DELAY_MS 10
#define SELECT_MS 1000 /* how often a monitor of some peers looks which ones these are */

struct watch {
    struct peer *peer;
    const struct monitor *monitor;
    enum durpina_health verdict;
    char reason[128]; /* of the last verdict */
};

/* One that fails is enough, all that pass are needed. */
static enum durpina_health health_of(const struct peer *peer)
{
    bool passed = peer->n_watches > 0;

    for (size_t i = 0; i < peer->n_watches; i++) {
        if (peer->watches[i]->verdict == DURPINA_HEALTH_FAILED)
            return DURPINA_HEALTH_FAILED;
        passed &= peer->watches[i]->verdict == DURPINA_HEALTH_PASSED;
    }
    return passed ? DURPINA_HEALTH_PASSED : DURPINA_HEALTH_UNKNOWN;
}

const char *monitors_reason(const struct peer *peer)
{
    for (size_t i = 0; i < peer->n_watches; i++)
        if (peer->watches[i]->verdict == DURPINA_HEALTH_FAILED)
            return peer->watches[i]->reason;
    return "";
}

static void update_health(struct peer *peer)
{
    enum durpina_health health = health_of(peer);

    if (health == peer->health)
        return;
    peer->health = health;
    model_set_dirty(peer, true);
}

static void on_verdict(void *user, struct probe *probe, bool passed, const char *reason)
{
    struct watch *watch = user;
    struct peer *peer = watch->peer;
    struct engine *engine = engine_of(peer->server->upstream);
    bool recovered = passed && watch->verdict == DURPINA_HEALTH_FAILED;
    struct durpina_counters *counters = engine_counters(engine, peer);

    (void) probe;
    watch->verdict = passed ? DURPINA_HEALTH_PASSED : DURPINA_HEALTH_FAILED;
    snprintf(watch->reason, sizeof(watch->reason), "monitor %s: %s", watch->monitor->id, reason);
    update_health(peer);
    if (recovered && peer->health != DURPINA_HEALTH_FAILED && counters != NULL)
        durpina_clear_fails(counters);
    if (peer->dirty)
        monitors_publish_later(engine, PUBLISH_DELAY_MS);
}

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
    log_notice("upstream %s fits into the maps and is published", upstream->name);
    return 0;
}

/* The peers whose health has changed. */
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

/* What does not succeed is tried again. */
static void publish_health(struct upstream *upstream)
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
    monitors_publish_later(engine, PUBLISH_RETRY_MS);
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
        publish_health(u);
        pending |= is_pending(u);
    }
    if (!pending)
        engine->maps_full = false;
}

void monitors_publish_later(struct engine *engine, uint32_t delay_ms)
{
    if (!uv_is_active((uv_handle_t *) &engine->publish_timer) ||
        uv_timer_get_due_in(&engine->publish_timer) > delay_ms)
        uv_timer_start(&engine->publish_timer, publish_cb, delay_ms, 0);
}

/* What the selector means, as get_peers() of the Lua API has it. */
static bool is_selected(const struct watch *watch, uint64_t now_ms)
{
    const struct peer *peer = watch->peer;
    const char *selector = watch->monitor->check->peers;
    const struct durpina_counters *counters =
        engine_counters(engine_of(peer->server->upstream), peer);
    bool permanent = peer->server->now.admin == DURPINA_ADMIN_DOWN;
    bool temporary = peer->health == DURPINA_HEALTH_FAILED ||
                     (counters != NULL && durpina_is_temp_down(counters, now_ms));

    /* What this monitor has found failed it must see pass, or it would stay so for ever. */
    if (strcmp(selector, "all") == 0 || watch->verdict == DURPINA_HEALTH_FAILED)
        return true;
    if (strcmp(selector, "up") == 0)
        return !permanent && !temporary;
    if (strcmp(selector, "failing") == 0)
        return counters != NULL &&
               durpina_fails(counters, peer->server->now.fail_timeout_ms, now_ms) > 0;
    if (strcmp(selector, "permanent_down") == 0)
        return permanent;
    if (strcmp(selector, "temporary_down") == 0)
        return temporary;
    return permanent || temporary; /* "down" */
}

static void stop_probe(struct peer *peer, size_t index)
{
    probe_cancel(peer->probes[index]);
    peer->probes[index] = NULL;
}

static int start_or_stop(struct peer *peer, size_t index, bool run)
{
    const struct watch *watch = peer->watches[index];
    struct engine *engine = engine_of(peer->server->upstream);

    if (run == (peer->probes[index] != NULL))
        return 0;
    if (!run) {
        stop_probe(peer, index);
        return 0;
    }
    return probe_start(engine->prober, watch->monitor->check, &peer->addr, peer->server->name,
                       on_verdict, peer->watches[index], &peer->probes[index]);
}

static int attach_peer(struct peer *peer)
{
    const struct upstream *upstream = peer->server->upstream;
    const struct engine *engine = engine_of(upstream);
    size_t n = upstream->n_monitors;
    bool is_first = peer->n_watches == 0;
    uint64_t now_ms = clock_monotonic_ms();
    struct watch **watches;
    struct probe **probes;

    if (n > peer->n_watches) {
        watches = reallocarray(peer->watches, n, sizeof(*watches));
        if (watches == NULL)
            return -ENOMEM;
        peer->watches = watches;
        probes = reallocarray(peer->probes, n, sizeof(*probes));
        if (probes == NULL)
            return -ENOMEM;
        peer->probes = probes;
    }
    while (peer->n_watches < n) {
        struct watch *watch = calloc(1, sizeof(*watch));

        if (watch == NULL)
            return -ENOMEM;
        watch->peer = peer;
        watch->monitor = upstream->monitors[peer->n_watches];
        /* What a former controller has found holds until the first verdict. */
        watch->verdict = is_first ? peer->health : DURPINA_HEALTH_UNKNOWN;
        snprintf(watch->reason, sizeof(watch->reason), "as it was before durpinad started");
        peer->probes[peer->n_watches] = NULL;
        peer->watches[peer->n_watches++] = watch;
    }
    for (size_t i = 0; i < n; i++) {
        int err = start_or_stop(peer, i,
                                engine->started && upstream->monitoring && peer->resolved &&
                                    is_selected(peer->watches[i], now_ms));

        if (err < 0)
            return err;
    }
    return 0;
}

/* Selectors that change with the state of peers are looked at from time to time. */
static void arm_selection(struct engine *engine)
{
    for (const struct upstream *u = engine->model.upstreams; u != NULL; u = u->hh.next)
        for (size_t i = 0; i < u->n_monitors; i++)
            if (strcmp(u->monitors[i]->check->peers, "all") != 0) {
                if (!uv_is_active((uv_handle_t *) &engine->monitor_timer))
                    uv_timer_start(&engine->monitor_timer, monitors_select_cb, SELECT_MS,
                                   SELECT_MS);
                return;
            }
    uv_timer_stop(&engine->monitor_timer);
}

static int attach_server(struct server *server)
{
    int err = 0;

    for (size_t i = 0; i < server->n_peers && err == 0; i++)
        err = attach_peer(server->peers[i]);
    return err;
}

static int attach_all(struct upstream *upstream)
{
    int err = 0;

    for (struct server *s = upstream->servers; s != NULL && err == 0; s = s->hh.next)
        err = attach_server(s);
    return err;
}

int monitors_attach_server(struct server *server)
{
    int err = attach_server(server);

    for (size_t i = 0; i < server->n_peers; i++)
        update_health(server->peers[i]);
    if (server->upstream->dirty != NULL)
        monitors_publish_later(engine_of(server->upstream), PUBLISH_DELAY_MS);
    return err;
}

int monitors_attach(struct upstream *upstream)
{
    int err = attach_all(upstream);

    for (const struct server *s = upstream->servers; s != NULL; s = s->hh.next)
        for (size_t i = 0; i < s->n_peers; i++)
            update_health(s->peers[i]);
    if (engine_of(upstream)->started)
        arm_selection(engine_of(upstream));
    return err;
}

void monitors_select_cb(uv_timer_t *timer)
{
    struct engine *engine = timer->data;
    int err = 0;

    for (struct upstream *u = engine->model.upstreams; u != NULL; u = u->hh.next)
        err = err < 0 ? err : attach_all(u);
    if (err < 0)
        log_error("monitors: out of memory: some peers are not monitored");
}

void monitors_detach_peer(struct peer *peer)
{
    for (size_t i = 0; i < peer->n_watches; i++) {
        stop_probe(peer, i);
        free(peer->watches[i]);
    }
    peer->n_watches = 0;
}

/* Takes the watch of the index-th monitor from all peers that have it. */
static void detach_monitor(struct upstream *upstream, size_t index)
{
    for (struct server *s = upstream->servers; s != NULL; s = s->hh.next)
        for (size_t i = 0; i < s->n_peers; i++) {
            struct peer *peer = s->peers[i];

            if (index >= peer->n_watches)
                continue;
            stop_probe(peer, index);
            free(peer->watches[index]);
            peer->n_watches--;
            for (size_t k = index; k < peer->n_watches; k++) {
                peer->watches[k] = peer->watches[k + 1];
                peer->probes[k] = peer->probes[k + 1];
            }
            update_health(peer);
        }
}

static struct monitor *find_monitor(const struct upstream *upstream, const char *id,
                                    size_t *ret_index)
{
    for (size_t i = 0; i < upstream->n_monitors; i++)
        if (strcmp(upstream->monitors[i]->id, id) == 0) {
            *ret_index = i;
            return upstream->monitors[i];
        }
    return NULL;
}

static void drop_monitor(struct upstream *upstream, size_t index)
{
    struct monitor *monitor = upstream->monitors[index];

    detach_monitor(upstream, index);
    upstream->n_monitors--;
    memmove(&upstream->monitors[index], &upstream->monitors[index + 1],
            (upstream->n_monitors - index) * sizeof(struct monitor *));
    model_free_monitor(monitor);
    arm_selection(engine_of(upstream));
    publish_health(upstream);
}

static int new_monitor(const char *id, const char *name, const json_t *options,
                       struct monitor **ret, struct failure *failure)
{
    struct monitor *monitor = calloc(1, sizeof(*monitor));
    int err;

    if (monitor == NULL)
        return fail(failure, ENOMEM, 500, "UpstreamOutOfMemory", "out of memory");
    if (id[0] == '\0' || strlen(id) >= sizeof(monitor->id) || strpbrk(id, "/?# ") != NULL) {
        free(monitor);
        return fail(failure, EINVAL, 400, "MonitorBadOptions",
                    "monitor id \"%.80s\" must be 1 to %zu bytes without space, '/', '?' and '#'",
                    id, sizeof(monitor->id) - 1);
    }
    err = check_parse(name, options, &monitor->check, failure);
    if (err < 0) {
        free(monitor);
        return err;
    }
    snprintf(monitor->id, sizeof(monitor->id), "%s", id);
    snprintf(monitor->name, sizeof(monitor->name), "%s", name);
    monitor->options = json_is_object(options) ? json_deep_copy(options) : json_object();
    if (monitor->options == NULL) {
        model_free_monitor(monitor);
        return fail(failure, ENOMEM, 500, "UpstreamOutOfMemory", "out of memory");
    }
    *ret = monitor;
    return 0;
}

int engine_add_monitor(struct engine *engine, const char *upstream_name, const char *id,
                       const char *name, const json_t *options, bool *ret_created,
                       const struct monitor **ret, struct failure *failure)
{
    struct upstream *upstream;
    struct monitor *monitor = NULL, *existing, **monitors;
    size_t index;
    int err = engine_find_upstream(engine, upstream_name, &upstream, failure);

    if (err == 0)
        err = new_monitor(id, name, options, &monitor, failure);
    if (err < 0)
        return err;
    existing = find_monitor(upstream, id, &index);
    if (existing != NULL) {
        bool same =
            strcmp(existing->name, name) == 0 && json_equal(existing->options, monitor->options);

        model_free_monitor(monitor);
        if (!same)
            return fail(failure, EEXIST, 409, "EntryExists",
                        "upstream %s has a monitor \"%.60s\" with another name or other options",
                        upstream->name, id);
        *ret_created = false;
        *ret = existing;
        return 0;
    }

    monitors = reallocarray(upstream->monitors, upstream->n_monitors + 1, sizeof(*monitors));
    if (monitors != NULL) {
        upstream->monitors = monitors;
        monitors[upstream->n_monitors++] = monitor;
        if (monitors_attach(upstream) < 0) {
            drop_monitor(upstream, upstream->n_monitors - 1);
            monitors = NULL;
        }
    } else {
        model_free_monitor(monitor);
    }
    if (monitors == NULL)
        return fail(failure, ENOMEM, 500, "UpstreamOutOfMemory", "out of memory");
    publish_health(upstream);
    engine_touch(engine, 0);
    *ret_created = true;
    *ret = monitor;
    return 0;
}

int engine_remove_monitor(struct engine *engine, const char *upstream_name, const char *id,
                          struct failure *failure)
{
    struct upstream *upstream;
    size_t index;
    int err = engine_find_upstream(engine, upstream_name, &upstream, failure);

    if (err < 0)
        return err;
    if (find_monitor(upstream, id, &index) == NULL)
        return fail(failure, ENOENT, 404, "MonitorNotFound", "upstream %s has no monitor \"%.60s\"",
                    upstream->name, id);
    drop_monitor(upstream, index);
    engine_touch(engine, 0);
    return 0;
}

int engine_set_monitoring(struct engine *engine, const char *upstream_name, bool active,
                          struct failure *failure)
{
    struct upstream *upstream;
    int err = engine_find_upstream(engine, upstream_name, &upstream, failure);

    if (err < 0 || upstream->monitoring == active)
        return err;
    upstream->monitoring = active;
    /* A paused monitor has no opinion: else what it found last would hold until it runs again. */
    for (struct server *s = upstream->servers; s != NULL && !active; s = s->hh.next)
        for (size_t i = 0; i < s->n_peers; i++)
            for (size_t k = 0; k < s->peers[i]->n_watches; k++)
                s->peers[i]->watches[k]->verdict = DURPINA_HEALTH_UNKNOWN;
    err = monitors_attach(upstream);
    if (err < 0) {
        upstream->monitoring = !active;
        return fail(failure, ENOMEM, 500, "UpstreamOutOfMemory", "out of memory");
    }
    publish_health(upstream);
    engine_touch(engine, 0);
    return 0;
}
