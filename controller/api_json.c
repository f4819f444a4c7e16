/* SPDX-License-Identifier: MIT */
#include "api_json.h"

#include <stdio.h>
#include <time.h>

#include "clock.h"
#include "probe.h"

struct api_clock api_clock_now(void)
{
    return (struct api_clock){clock_wall_ms(), clock_monotonic_ms()};
}

void api_format_time(uint64_t wall_ms, char *buffer, size_t size)
{
    time_t seconds = (time_t) (wall_ms / 1000);
    char date[24];
    struct tm tm;

    gmtime_r(&seconds, &tm);
    strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(buffer, size, "%s.%03uZ", date, (unsigned) (wall_ms % 1000));
}

json_t *api_time_json(uint64_t wall_ms)
{
    char text[32];

    api_format_time(wall_ms, text, sizeof(text));
    return json_string(text);
}

/* nginx time, whole seconds where they suffice: "10s", "1500ms". */
static json_t *duration_json(uint32_t ms)
{
    return ms % 1000 == 0 ? json_sprintf("%us", ms / 1000) : json_sprintf("%ums", ms);
}

/* --- state ------------------------------------------------------------------------------------ */

/* NGINX Plus's words, the best first. */
enum state { STATE_UP, STATE_UNAVAIL, STATE_CHECKING, STATE_UNHEALTHY, STATE_DRAINING, STATE_DOWN };

static const char *const state_words[] = {
    [STATE_UP] = "up",
    [STATE_UNAVAIL] = "unavail",
    [STATE_CHECKING] = "checking",
    [STATE_UNHEALTHY] = "unhealthy",
    [STATE_DRAINING] = "draining",
    [STATE_DOWN] = "down",
};

/* The counters of the peer as of now; zeroes as long as the record counts for another one. */
static struct durpina_counters read_counters(const struct peer *peer,
                                             const struct durpina_maps *maps)
{
    static const struct durpina_counters none;
    const struct durpina_counters *from;
    struct durpina_counters c = none;

    if (peer->id >= maps->n_peers)
        return c;
    from = &maps->counters[peer->id];
    if (DURPINA_LOAD(&from->generation) != peer->generation)
        return c;
    c.active = DURPINA_LOAD(&from->active);
    c.down_until_ms = DURPINA_LOAD(&from->down_until_ms);
    c.selected_ms = DURPINA_LOAD(&from->selected_ms);
    c.failed = DURPINA_LOAD(&from->failed);
    c.unavail = DURPINA_LOAD(&from->unavail);
    for (size_t i = 0; i < sizeof(c.responses) / sizeof(c.responses[0]); i++)
        c.responses[i] = DURPINA_LOAD(&from->responses[i]);
    c.unanswered = DURPINA_LOAD(&from->unanswered);
    c.sent = DURPINA_LOAD(&from->sent);
    c.received = DURPINA_LOAD(&from->received);
    c.header = durpina_read_ewma(&from->header);
    c.last_byte = durpina_read_ewma(&from->last_byte);
    c.connect = durpina_read_ewma(&from->connect);
    return c;
}

static enum state peer_state(const struct peer *peer, const struct durpina_counters *counters,
                             const struct api_clock *now)
{
    switch (model_peer_state(peer)) {
    case DURPINA_PEER_UP:
        return durpina_is_temp_down(counters, now->monotonic_ms) ? STATE_UNAVAIL : STATE_UP;
    case DURPINA_PEER_UNHEALTHY:
        return STATE_UNHEALTHY;
    case DURPINA_PEER_DRAINING:
        return STATE_DRAINING;
    case DURPINA_PEER_CHECKING:
        return STATE_CHECKING;
    case DURPINA_PEER_UNRESOLVED:
        return STATE_UNAVAIL;
    case DURPINA_PEER_DOWN:
    case DURPINA_PEER_FREE:
        break;
    }
    return STATE_DOWN;
}

const char *api_state_word(const struct peer *peer, const struct durpina_maps *maps,
                           const struct api_clock *now)
{
    struct durpina_counters counters = read_counters(peer, maps);

    return state_words[peer_state(peer, &counters, now)];
}

static enum state best_state(const struct server *server, const struct durpina_maps *maps,
                             const struct api_clock *now)
{
    enum state best = STATE_DOWN;

    for (size_t i = 0; i < server->n_peers; i++) {
        struct durpina_counters counters = read_counters(server->peers[i], maps);
        enum state state = peer_state(server->peers[i], &counters, now);

        if (state < best)
            best = state;
    }
    return best;
}

/* --- servers ---------------------------------------------------------------------------------- */

/* child: the address of a server given by name, or NULL for the server itself. */
static json_t *server_json(const struct server *server, const struct peer *child, enum state state)
{
    const enum durpina_admin admin = server->now.admin;
    /* SRV records say more of an address than that it is one. */
    const struct peer *record = child != NULL && child->srv_weight != 0 ? child : NULL;
    char address[DURPINA_NAME_SIZE];
    json_t *object;

    if (child != NULL)
        addr_format(&child->addr, address, sizeof(address));
    object = json_pack("{sI ss si si si so so ss sb sb sb}", "id",
                       (json_int_t) (child != NULL ? child->api_id : server->id), "server",
                       child != NULL ? address : server->name, "weight",
                       (int) (record != NULL ? model_peer_weight(record) : server->now.weight),
                       "max_conns", (int) server->now.max_conns, "max_fails",
                       (int) server->now.max_fails, "fail_timeout",
                       duration_json(server->now.fail_timeout_ms), "slow_start",
                       duration_json(server->now.slow_start_ms), "route", "", "backup",
                       record != NULL ? record->backup : server->backup, "down",
                       admin == DURPINA_ADMIN_DOWN || admin == DURPINA_ADMIN_MAINT, "drain",
                       admin == DURPINA_ADMIN_DRAIN);
    if (object == NULL)
        return NULL;
    if (child != NULL)
        json_object_set_new(object, "parent", json_integer(server->id));
    if (server->service != NULL)
        json_object_set_new(object, "service", json_string(server->service));
    if (child != NULL || server->service != NULL)
        json_object_set_new(object, "host", json_string(server->host));
    json_object_set_new(object, "initial_weight",
                        json_integer(record != NULL ? model_peer_initial_weight(record)
                                                    : server->base.weight));
    json_object_set_new(object, "operator", json_string(model_admin_word(admin)));
    json_object_set_new(object, "state", json_string(state_words[state]));
    json_object_set_new(object, "origin",
                        json_string(server->n_instances == 0 ? "dynamic"
                                    : server->dynamic        ? "both"
                                                             : "file"));
    return object;
}

json_t *api_server_json(const struct server *server, const struct durpina_maps *maps,
                        const struct api_clock *now)
{
    return server_json(server, NULL, best_state(server, maps, now));
}

json_t *api_child_json(const struct peer *peer, const struct durpina_maps *maps,
                       const struct api_clock *now)
{
    struct durpina_counters counters = read_counters(peer, maps);

    return server_json(peer->server, peer, peer_state(peer, &counters, now));
}

json_t *api_server_by_id_json(const struct server *server, uint32_t id,
                              const struct durpina_maps *maps, const struct api_clock *now)
{
    if (id != server->id)
        for (size_t i = 0; i < server->n_peers; i++)
            if (server->peers[i]->api_id == id && server->peers[i]->resolved)
                return api_child_json(server->peers[i], maps, now);
    return api_server_json(server, maps, now);
}

json_t *api_servers_json(const struct upstream *upstream, const struct durpina_maps *maps,
                         const struct api_clock *now)
{
    json_t *array = json_array();

    for (const struct server *s = upstream->servers; s != NULL; s = s->hh.next) {
        json_array_append_new(array, api_server_json(s, maps, now));
        for (size_t i = 0; i < s->n_peers && !s->is_address; i++)
            if (s->peers[i]->resolved)
                json_array_append_new(array, api_child_json(s->peers[i], maps, now));
    }
    return array;
}

/* --- peers ------------------------------------------------------------------------------------ */

static json_t *responses_json(const struct durpina_counters *c)
{
    return json_pack("{sI sI sI sI sI s{} sI}", "1xx", (json_int_t) c->responses[0], "2xx",
                     (json_int_t) c->responses[1], "3xx", (json_int_t) c->responses[2], "4xx",
                     (json_int_t) c->responses[3], "5xx", (json_int_t) c->responses[4], "codes",
                     "total", (json_int_t) (durpina_requests(c) - c->unanswered));
}

/* Whole milliseconds, nothing before the first sample. */
static void add_mean(json_t *object, const char *key, const struct durpina_ewma *mean)
{
    uint64_t us = durpina_mean_us(mean);

    if (us != 0)
        json_object_set_new(object, key, json_integer((json_int_t) ((us + 500) / 1000)));
}

static json_t *health_checks_json(const struct peer *peer)
{
    uint64_t checks = 0, fails = 0, unhealthy = 0;
    bool last_passed = true;
    json_t *object;

    for (size_t i = 0; i < peer->n_watches; i++) {
        const struct watch *watch = peer->watches[i];
        const struct probe_stats *stats;

        if (watch->probe == NULL)
            continue;
        stats = probe_stats(watch->probe);
        checks += stats->checks;
        fails += stats->fails;
        unhealthy += stats->unhealthy;
        /* An agent may say nothing of health. */
        if (stats->checks > 0 &&
            (!model_monitor_is_agent(watch->monitor) || watch->verdict != DURPINA_HEALTH_UNKNOWN))
            last_passed = last_passed && stats->last_passed;
    }
    object = json_pack("{sI sI sI}", "checks", (json_int_t) checks, "fails", (json_int_t) fails,
                       "unhealthy", (json_int_t) unhealthy);
    if (checks > 0)
        json_object_set_new(object, "last_passed", json_boolean(last_passed));
    return object;
}

json_t *api_peer_json(const struct peer *peer, const struct durpina_maps *maps,
                      const struct api_clock *now)
{
    const struct server *server = peer->server;
    struct durpina_counters c = read_counters(peer, maps);
    char address[DURPINA_NAME_SIZE] = "?";
    uint64_t down_ms = 0;
    json_t *object;

    if (peer->resolved)
        addr_format(&peer->addr, address, sizeof(address));
    if (peer->down_since_ms != 0 && now->monotonic_ms > peer->down_since_ms)
        down_ms = now->monotonic_ms - peer->down_since_ms;

    object =
        json_pack("{sI ss ss sb si ss sI si sI so sI sI sI sI so sI}", "id",
                  (json_int_t) peer->api_id, "server", address, "name", server->name, "backup",
                  peer->backup, "weight", (int) model_peer_weight(peer), "state",
                  state_words[peer_state(peer, &c, now)], "active", (json_int_t) c.active,
                  "max_conns", (int) model_peer_max_conns(peer), "requests",
                  (json_int_t) (durpina_requests(&c) + c.active), "responses", responses_json(&c),
                  "sent", (json_int_t) c.sent, "received", (json_int_t) c.received, "fails",
                  (json_int_t) c.failed, "unavail", (json_int_t) c.unavail, "health_checks",
                  health_checks_json(peer), "downtime", (json_int_t) (peer->downtime_ms + down_ms));
    if (object == NULL)
        return NULL;
    if (peer->down_since_ms != 0)
        json_object_set_new(object, "downstart", api_time_json(now->wall_ms - down_ms));
    if (c.selected_ms != 0 && c.selected_ms <= now->monotonic_ms)
        json_object_set_new(object, "selected",
                            api_time_json(now->wall_ms - (now->monotonic_ms - c.selected_ms)));
    add_mean(object, "header_time", &c.header);
    add_mean(object, "response_time", &c.last_byte);
    add_mean(object, "connect_time", &c.connect);
    return object;
}

/* --- monitors --------------------------------------------------------------------------------- */

json_t *api_monitor_json(const struct monitor *monitor)
{
    return json_pack("{ss ss sb sO}", "id", monitor->id, "name", monitor->name, "lua",
                     monitor->check->type == CHECK_LUA, "options", monitor->options);
}

json_t *api_monitors_json(const struct upstream *upstream)
{
    json_t *array = json_array();

    for (size_t i = 0; i < upstream->n_monitors; i++)
        json_array_append_new(array, api_monitor_json(upstream->monitors[i]));
    return array;
}
