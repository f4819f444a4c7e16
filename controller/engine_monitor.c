/* SPDX-License-Identifier: MIT */
/* Monitors: which there are, and which of their probes run. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check_files.h"
#include "clock.h"
#include "engine_internal.h"
#include "log.h"
#include "model_text.h"

#define SELECT_MS 1000 /* how often a monitor of some peers looks which ones these are */

/* What the selector means, as get_peers() of the Lua API has it. */
static bool is_selected(const struct watch *watch, uint64_t now_ms)
{
    const struct peer *peer = watch->peer;
    const char *selector = watch->monitor->check->peers;
    const struct durpina_counters *counters =
        engine_counters(engine_of(peer->server->upstream), peer);
    bool permanent =
        peer->server->now.admin == DURPINA_ADMIN_DOWN || model_peer_in_maintenance(peer);
    bool temporary = peer->health == DURPINA_HEALTH_FAILED || peer->agent.down ||
                     (counters != NULL && durpina_is_temp_down(counters, now_ms));

    /* What this monitor has done to the peer it must be able to undo. */
    if (strcmp(selector, "all") == 0 || watch->verdict == DURPINA_HEALTH_FAILED || watch->pending ||
        watch->word.admin != AGENT_READY)
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

static bool should_run(const struct watch *watch, uint64_t now_ms)
{
    const struct peer *peer = watch->peer;
    const struct upstream *upstream = peer->server->upstream;

    return engine_of(upstream)->started && upstream->monitoring && peer->resolved &&
           (model_monitor_is_agent(watch->monitor) || !model_peer_in_maintenance(peer)) &&
           is_selected(watch, now_ms);
}

static void stop_watch(struct watch *watch)
{
    probe_cancel(watch->probe);
    watch->probe = NULL;
}

int monitors_run_peer(struct peer *peer)
{
    const struct engine *engine = engine_of(peer->server->upstream);
    uint64_t now_ms = clock_monotonic_ms();
    int err = 0;

    for (size_t i = 0; i < peer->n_watches && err == 0; i++) {
        struct watch *watch = peer->watches[i];
        bool run = should_run(watch, now_ms);

        if (!run)
            stop_watch(watch);
        else if (watch->probe == NULL)
            err = probe_start(engine->prober, watch->monitor->check, &peer->addr,
                              peer->server->name, health_report_cb, watch, &watch->probe);
    }
    return err;
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

int monitors_run_server(const struct server *server)
{
    int err = 0;

    for (size_t i = 0; i < server->n_peers && err == 0; i++)
        err = monitors_run_peer(server->peers[i]);
    return err;
}

static int run_all(const struct upstream *upstream)
{
    int err = 0;

    for (const struct server *s = upstream->servers; s != NULL && err == 0; s = s->hh.next)
        err = monitors_run_server(s);
    return err;
}

static void review(struct peer *peer)
{
    if (model_review_peer(peer))
        model_set_dirty(peer, true);
}

int monitors_attach(struct upstream *upstream)
{
    int err = 0;

    for (const struct server *s = upstream->servers; s != NULL && err == 0; s = s->hh.next)
        for (size_t i = 0; i < s->n_peers && err == 0; i++) {
            err = model_watch_peer(s->peers[i]);
            review(s->peers[i]);
        }
    if (err == 0)
        err = run_all(upstream);
    if (engine_of(upstream)->started)
        arm_selection(engine_of(upstream));
    return err;
}

void monitors_select_cb(uv_timer_t *timer)
{
    struct engine *engine = timer->data;
    int err = 0;

    for (struct upstream *u = engine->model.upstreams; u != NULL; u = u->hh.next)
        err = err < 0 ? err : run_all(u);
    if (err < 0)
        log_error("monitors: out of memory: some peers are not monitored");
}

void monitors_detach_peer(struct peer *peer)
{
    for (size_t i = 0; i < peer->n_watches; i++)
        stop_watch(peer->watches[i]);
}

/* Takes the watch of the index-th monitor from all peers that have it. The others check on: an
 * agent may have stopped them by its "maint". */
static void detach_monitor(struct upstream *upstream, size_t index)
{
    bool is_kept = model_monitor_is_kept(upstream->monitors[index]);

    for (struct server *s = upstream->servers; s != NULL; s = s->hh.next) {
        for (size_t i = 0; i < s->n_peers; i++) {
            struct peer *peer = s->peers[i];

            if (index >= peer->n_watches)
                continue;
            stop_watch(peer->watches[index]);
            free(peer->watches[index]);
            peer->n_watches--;
            memmove(&peer->watches[index], &peer->watches[index + 1],
                    (peer->n_watches - index) * sizeof(struct watch *));
            review(peer);
            if (monitors_run_peer(peer) < 0)
                log_error("upstream %s: out of memory: peer %s is not monitored", upstream->name,
                          s->name);
        }
        if (is_kept)
            model_text_renew(s);
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
    health_publish(upstream);
}

static int parse_check(const struct upstream *upstream, const struct monitor_spec *spec,
                       struct check **ret, struct failure *failure)
{
    if (!spec->lua)
        return check_parse(spec->name, spec->options, ret, failure);
    return check_parse_lua(spec->name, upstream->name, spec->id, spec->options, ret, failure);
}

static int new_monitor(const struct upstream *upstream, const struct monitor_spec *spec,
                       struct monitor **ret, struct failure *failure)
{
    struct monitor *monitor = calloc(1, sizeof(*monitor));
    const char *id = spec->id;
    int err;

    if (monitor == NULL)
        return fail_memory(failure);
    if (id[0] == '\0' || strlen(id) >= sizeof(monitor->id) || strpbrk(id, "/?# ") != NULL) {
        free(monitor);
        return fail(failure, EINVAL, 400, "MonitorBadOptions",
                    "monitor id \"%.80s\" must be 1 to %zu bytes without space, '/', '?' and '#'",
                    id, sizeof(monitor->id) - 1);
    }
    err = parse_check(upstream, spec, &monitor->check, failure);
    if (err < 0) {
        free(monitor);
        return err;
    }
    snprintf(monitor->id, sizeof(monitor->id), "%s", id);
    snprintf(monitor->name, sizeof(monitor->name), "%s", spec->name);
    monitor->options =
        json_is_object(spec->options) ? json_deep_copy(spec->options) : json_object();
    if (monitor->options == NULL) {
        model_free_monitor(monitor);
        return fail_memory(failure);
    }
    *ret = monitor;
    return 0;
}

static bool is_same_monitor(const struct monitor *a, const struct monitor *b)
{
    return strcmp(a->name, b->name) == 0 && a->check->type == b->check->type &&
           json_equal(a->options, b->options);
}

/* Makes it one of the upstream's, which frees it if that fails. 0 or -ENOMEM. */
static int attach_monitor(struct upstream *upstream, struct monitor *monitor)
{
    struct monitor **monitors =
        reallocarray(upstream->monitors, upstream->n_monitors + 1, sizeof(struct monitor *));

    if (monitors == NULL) {
        model_free_monitor(monitor);
        return -ENOMEM;
    }
    upstream->monitors = monitors;
    monitors[upstream->n_monitors++] = monitor;
    if (monitors_attach(upstream) < 0) {
        drop_monitor(upstream, upstream->n_monitors - 1);
        return -ENOMEM;
    }
    return 0;
}

int engine_add_monitor(struct engine *engine, const char *upstream_name,
                       const struct monitor_spec *spec, bool *ret_created,
                       const struct monitor **ret, struct failure *failure)
{
    struct upstream *upstream;
    struct monitor *monitor = NULL, *existing;
    size_t index;
    int err = engine_find_upstream(engine, upstream_name, &upstream, failure);

    if (err == 0)
        err = new_monitor(upstream, spec, &monitor, failure);
    if (err < 0)
        return err;
    existing = find_monitor(upstream, spec->id, &index);
    if (existing != NULL) {
        bool same = is_same_monitor(existing, monitor);

        model_free_monitor(monitor);
        if (!same)
            return fail(failure, EEXIST, 409, "EntryExists",
                        "upstream %s has a monitor \"%.60s\" with another name or other options",
                        upstream->name, spec->id);
        *ret_created = false;
        *ret = existing;
        return 0;
    }

    err = check_files(monitor->check, failure);
    if (err < 0) {
        model_free_monitor(monitor);
        return err;
    }
    if (attach_monitor(upstream, monitor) < 0)
        return fail_memory(failure);
    health_publish(upstream);
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

/* A paused monitor has no opinion: else what it found last would hold until it runs again. */
static void forget_findings(struct upstream *upstream)
{
    for (struct server *s = upstream->servers; s != NULL; s = s->hh.next) {
        for (size_t i = 0; i < s->n_peers; i++)
            for (size_t k = 0; k < s->peers[i]->n_watches; k++)
                model_forget_findings(s->peers[i]->watches[k]);
        model_text_renew(s);
    }
}

int engine_set_monitoring(struct engine *engine, const char *upstream_name, bool active,
                          struct failure *failure)
{
    struct upstream *upstream;
    int err = engine_find_upstream(engine, upstream_name, &upstream, failure);

    if (err < 0 || upstream->monitoring == active)
        return err;
    upstream->monitoring = active;
    if (!active)
        forget_findings(upstream);
    err = monitors_attach(upstream);
    if (err < 0) {
        upstream->monitoring = !active;
        return fail_memory(failure);
    }
    health_publish(upstream);
    engine_touch(engine, 0);
    return 0;
}
