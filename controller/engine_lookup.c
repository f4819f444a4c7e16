/* SPDX-License-Identifier: MIT */
/* Names to addresses: once for a server that comes without, and whenever somebody asks. */
#include <errno.h>
#include <string.h>

#include "clock.h"
#include "engine_internal.h"
#include "log.h"

#define RETRY_MIN_MS 1000
#define RETRY_MAX_MS 30000
#define TICK_MS 250 /* how exactly retries are timed */

static void schedule_retry(struct server *server)
{
    struct engine *engine = engine_of(server->upstream);
    uint32_t delay_ms = server->lookup_delay_ms * 2;

    if (delay_ms < RETRY_MIN_MS)
        delay_ms = RETRY_MIN_MS;
    if (delay_ms > RETRY_MAX_MS)
        delay_ms = RETRY_MAX_MS;
    server->lookup_delay_ms = delay_ms;
    server->lookup_at_ms = clock_monotonic_ms() + delay_ms;
    if (!uv_is_active((uv_handle_t *) &engine->lookup_timer))
        uv_timer_start(&engine->lookup_timer, lookups_retry_cb, TICK_MS, TICK_MS);
}

/* An answer replaces the addresses; anything else leaves the last good ones. */
static void on_answer(void *user, int status, const char *reason, const struct addr *addresses,
                      size_t n, uint32_t ttl_s)
{
    struct server *server = user;
    struct edit *edit;
    struct failure failure;
    int err;

    (void) ttl_s;
    server->lookup = NULL;
    if (status < 0) {
        /* Once for a row of failures. */
        if (server->lookup_delay_ms == 0)
            log_warn("upstream %s: server %s cannot be looked up: %s; trying again",
                     server->upstream->name, server->name, reason);
        schedule_retry(server);
        return;
    }

    err = edit_begin(server->upstream, false, &edit);
    if (err == 0) {
        err = edit_set_addresses(edit, server, addresses, n);
        err = edit_finish(edit, err, &failure);
    } else {
        fail(&failure, -err, 500, "UpstreamOutOfMemory", "%s", strerror(-err));
    }
    if (err < 0) {
        log_error("upstream %s: server %s: the addresses of its name are not used: %s",
                  server->upstream->name, server->name, failure.text);
        schedule_retry(server);
        return;
    }
    if (server->lookup_delay_ms != 0)
        log_notice("upstream %s: server %s is looked up again", server->upstream->name,
                   server->name);
    server->lookup_delay_ms = 0;
}

int lookup_begin(struct server *server)
{
    struct engine *engine = engine_of(server->upstream);

    if (server->is_address || server->lookup != NULL)
        return 0;
    server->lookup_at_ms = 0;
    return resolver_lookup(engine->resolver, server->host, server->port, on_answer, server,
                           &server->lookup);
}

void lookup_end(struct server *server)
{
    lookup_cancel(server->lookup);
    server->lookup = NULL;
    server->lookup_at_ms = 0;
}

void lookup_attach(struct server *server)
{
    if (server->n_peers == 1 && !server->peers[0]->resolved && server->lookup_at_ms == 0 &&
        lookup_begin(server) < 0)
        schedule_retry(server);
}

void lookups_retry_cb(uv_timer_t *timer)
{
    struct engine *engine = timer->data;
    uint64_t now_ms = clock_monotonic_ms();
    bool waiting = false;

    for (struct upstream *u = engine->model.upstreams; u != NULL; u = u->hh.next)
        for (struct server *s = u->servers; s != NULL; s = s->hh.next) {
            if (s->lookup_at_ms != 0 && s->lookup_at_ms <= now_ms && lookup_begin(s) < 0)
                schedule_retry(s);
            waiting |= s->lookup_at_ms != 0;
        }
    if (!waiting)
        uv_timer_stop(timer);
}

void lookups_hurry(struct engine *engine)
{
    for (struct upstream *u = engine->model.upstreams; u != NULL; u = u->hh.next)
        for (struct server *s = u->servers; s != NULL; s = s->hh.next)
            if (s->lookup_at_ms != 0 && lookup_begin(s) < 0)
                schedule_retry(s);
}

int engine_resolve_server(struct engine *engine, const char *upstream_name, uint32_t id,
                          const struct server **ret, struct failure *failure)
{
    struct server *server;
    int err = engine_find_server(engine, upstream_name, id, &server, failure);

    if (err < 0)
        return err;
    if (engine->started && lookup_begin(server) < 0)
        return fail(failure, ENOMEM, 500, "UpstreamOutOfMemory", "out of memory");
    *ret = server;
    return 0;
}
