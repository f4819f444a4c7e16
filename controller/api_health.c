/* SPDX-License-Identifier: MIT */
/* Why peers are in the state they are in: what operator, monitors and agents say, and history. */
#include <errno.h>

#include "api_call.h"
#include "probe.h"

static json_t *agent_json(const struct agent_word *word)
{
    json_t *object;

    if (word->said == 0)
        return json_null();
    object = json_object();
    if (word->said & AGENT_ADMIN)
        json_object_set_new(object, "admin", json_string(agent_admin_word(word->admin)));
    if (word->said & AGENT_HEALTH)
        json_object_set_new(object, "health", json_string(word->down ? "down" : "up"));
    if (word->said & AGENT_WEIGHT)
        json_object_set_new(object, "weight",
                            json_sprintf("%u%s", word->weight, word->is_percent ? "%" : ""));
    if (word->said & AGENT_MAXCONN)
        json_object_set_new(object, "maxconn", json_integer(word->maxconn));
    return object;
}

static const char *health_word(enum durpina_health health)
{
    static const char *const words[] = {[DURPINA_HEALTH_UNKNOWN] = "unknown",
                                        [DURPINA_HEALTH_PASSED] = "passed",
                                        [DURPINA_HEALTH_FAILED] = "failed"};

    return words[health];
}

/* One monitor's findings; counters and the last result are there while it runs. */
static json_t *watch_json(const struct watch *watch)
{
    const struct monitor *monitor = watch->monitor;
    json_t *object = json_pack("{ss ss sb ss}", "id", monitor->id, "name", monitor->name, "running",
                               watch->probe != NULL, "verdict", health_word(watch->verdict));
    const struct probe_stats *stats;

    if (watch->verdict != DURPINA_HEALTH_UNKNOWN)
        json_object_set_new(object, "reason", json_string(watch->reason));
    if (model_monitor_is_agent(monitor))
        json_object_set_new(object, "agent", agent_json(&watch->word));
    if (watch->probe == NULL)
        return object;
    stats = probe_stats(watch->probe);
    json_object_set_new(object, "checks", json_integer((json_int_t) stats->checks));
    json_object_set_new(object, "fails", json_integer((json_int_t) stats->fails));
    json_object_set_new(object, "unhealthy", json_integer((json_int_t) stats->unhealthy));
    if (stats->last_at_ms != 0)
        json_object_set_new(object, "last",
                            json_pack("{so sb sI ss}", "time", api_time_json(stats->last_at_ms),
                                      "passed", stats->last_passed, "duration",
                                      (json_int_t) stats->last_duration_ms, "reason",
                                      stats->last_reason));
    return object;
}

static json_t *watches_json(const struct peer *peer)
{
    json_t *array = json_array();

    for (size_t i = 0; i < peer->n_watches; i++)
        json_array_append_new(array, watch_json(peer->watches[i]));
    return array;
}

/* The newest first. */
static json_t *history_json(const struct history *history)
{
    json_t *array = json_array();

    for (size_t age = 0; age < history_count(history); age++) {
        const struct transition *t = history_at(history, age);

        json_array_append_new(array, json_pack("{so ss ss ss}", "time", api_time_json(t->at_ms),
                                               "from", model_state_word(t->from), "to",
                                               model_state_word(t->to), "cause", t->cause));
    }
    return array;
}

static json_t *peer_json(const struct peer *peer, const struct api_call *call)
{
    char address[DURPINA_NAME_SIZE] = "?", cause[MODEL_CAUSE_SIZE];
    const struct server *server = peer->server;
    json_t *object;

    if (peer->resolved)
        addr_format(&peer->addr, address, sizeof(address));
    object = json_pack("{sI ss ss sb ss ss ss sb so si si si so so}", "id",
                       (json_int_t) peer->api_id, "server", address, "name", server->name, "backup",
                       peer->backup, "state", api_state_word(peer, &call->maps, &call->now),
                       "operator", model_admin_word(server->now.admin), "verdict",
                       health_word(peer->health), "checking", peer->checking, "agent",
                       agent_json(&peer->agent), "weight", (int) model_peer_weight(peer),
                       "initial_weight", (int) model_peer_initial_weight(peer), "max_conns",
                       (int) model_peer_max_conns(peer), "monitors", watches_json(peer),
                       "transitions", history_json(peer->history));
    if (object != NULL && model_peer_ground(peer) != GROUND_NONE) {
        model_peer_cause(peer, peer->ground, cause, sizeof(cause));
        json_object_set_new(object, "reason", json_string(cause));
    }
    api_add_kernel(object, peer, call);
    return object;
}

static int get_peers(struct api_call *call)
{
    const struct upstream *upstream = api_upstream(call);

    if (upstream == NULL)
        return -ENOENT;
    call->result = json_array();
    for (const struct server *s = upstream->servers; s != NULL; s = s->hh.next)
        for (size_t i = 0; i < s->n_peers; i++)
            json_array_append_new(call->result, peer_json(s->peers[i], call));
    return 0;
}

static int get_peer(struct api_call *call)
{
    uint32_t id;
    const struct server *server = api_server(call, &id);

    if (server == NULL)
        return -ENOENT;
    for (size_t i = 0; i < server->n_peers; i++)
        if (server->peers[i]->api_id == id) {
            call->result = peer_json(server->peers[i], call);
            return 0;
        }
    return fail(&call->failure, EINVAL, 404, "UpstreamServerNotFound",
                "server %u is the name %.128s: its addresses have ids of their own", (unsigned) id,
                server->name);
}

const struct api_route api_health_routes[] = {
    {"durpina/upstreams/*/peers", {[API_GET] = get_peers}, false, false},
    {"durpina/upstreams/*/peers/*", {[API_GET] = get_peer}, false, false},
    {NULL, {NULL}, false, false},
};
