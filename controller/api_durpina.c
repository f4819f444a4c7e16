/* SPDX-License-Identifier: MIT */
/* The part of the API that NGINX Plus has not: upstreams as such, monitors, nginx instances. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api_call.h"
#include "inflight.h"
#include "log.h"
#include "probe.h"

#define RESOLVERS_MAX 16

/* --- the controller --------------------------------------------------------------------------- */

static int get_durpina(struct api_call *call)
{
    const struct durpina_maps *maps = &call->maps;
    struct publish_usage used = engine_usage(call->api->engine);
    struct inflight_usage inflight = inflight_usage(maps);
    const struct prober_stats *prober = prober_stats(engine_prober(call->api->engine));

    call->result =
        json_pack("{ss si ss sI s{sI sI sI sI} s{sI sI sI sI} sI s{sI sI sI sI sI sI sI}}",
                  "version", DURPINA_VERSION, "pid", (int) getpid(), "pin", call->api->config->pin,
                  "generation", (json_int_t) DURPINA_LOAD(&maps->meta->epoch), "capacity",
                  "upstreams", (json_int_t) maps->n_upstreams, "peers", (json_int_t) maps->n_peers,
                  "slots", (json_int_t) maps->n_slots, "inflight", (json_int_t) inflight.capacity,
                  "used", "upstreams", (json_int_t) used.upstreams, "peers",
                  (json_int_t) used.peers, "slots", (json_int_t) used.slots, "inflight",
                  (json_int_t) inflight.claimed, "untracked", (json_int_t) inflight.untracked,
                  "prober", "targets", (json_int_t) prober->targets, "probes",
                  (json_int_t) prober->probes, "running", (json_int_t) prober->running, "checks",
                  (json_int_t) prober->checks, "undecided", (json_int_t) prober->undecided, "late",
                  (json_int_t) prober->late, "unmarked", (json_int_t) prober->unmarked);
    return 0;
}

static int get_resolver(struct api_call *call)
{
    const struct model *model = engine_model(call->api->engine);

    call->result = json_pack("{sO*}", "servers", model->resolver);
    if (model->resolver == NULL)
        json_object_set_new(call->result, "servers", json_array());
    return 0;
}

static int put_resolver(struct api_call *call)
{
    static const char *const names[] = {"servers", NULL};
    const char *servers[RESOLVERS_MAX];
    const json_t *array, *server;
    size_t i;
    int err = api_body(call, names);

    if (err == 0)
        err = api_get_array(call->body, "servers", &array, &call->failure);
    if (err < 0)
        return err;
    if (json_array_size(array) > RESOLVERS_MAX)
        return fail(&call->failure, EINVAL, 400, "BadResolver", "more than %d name servers",
                    RESOLVERS_MAX);
    json_array_foreach(array, i, server)
    {
        if (!json_is_string(server))
            return fail(&call->failure, EINVAL, 400, "BadResolver", "name server %zu is no string",
                        i + 1);
        servers[i] = json_string_value(server);
    }
    err = engine_set_resolver(call->api->engine, servers, json_array_size(array), &call->failure);
    return err < 0 ? err : get_resolver(call);
}

/* --- upstreams -------------------------------------------------------------------------------- */

static int get_names(struct api_call *call)
{
    const struct model *model = engine_model(call->api->engine);

    call->result = json_array();
    for (const struct upstream *u = model->upstreams; u != NULL; u = u->hh.next)
        json_array_append_new(call->result, json_string(u->name));
    return 0;
}

static json_t *instances_json(const struct upstream *upstream, const struct model *model)
{
    json_t *names = json_array();

    for (const struct instance *i = model->instances; i != NULL; i = i->hh.next)
        if (json_object_get(i->upstreams, upstream->name) != NULL)
            json_array_append_new(names, json_string(i->name));
    return names;
}

/* What is known of the names of servers. */
static json_t *names_json(const struct upstream *upstream)
{
    json_t *array = json_array();

    for (const struct server *s = upstream->servers; s != NULL; s = s->hh.next) {
        struct lookup_state state;
        json_t *name;

        if (engine_lookup_state(s, &state) < 0)
            continue;
        name = json_pack("{sI ss si ss}", "id", (json_int_t) s->id, "server", s->name, "failures",
                         (int) state.n_failures, "error", state.last_reason);
        if (state.answered_ms != 0) {
            json_object_set_new(name, "answered", api_time_json(state.answered_ms));
            json_object_set_new(name, "ttl", json_integer(state.ttl_ms));
        }
        if (state.next_ms != UINT64_MAX)
            json_object_set_new(name, "next", json_integer((json_int_t) state.next_ms));
        json_array_append_new(array, name);
    }
    return array;
}

static json_t *tables_json(const struct api *api, const struct upstream *upstream)
{
    return json_pack("{sI sI}", "hash",
                     (json_int_t) engine_table_slots(api->engine, upstream, DEMANDED_HASH), "ring",
                     (json_int_t) engine_table_slots(api->engine, upstream, DEMANDED_RING));
}

static int answer_upstream(struct api_call *call, const struct upstream *upstream)
{
    const struct algorithm *algorithm = model_upstream_algorithm(upstream);

    call->result =
        json_pack("{ss sI sb so so so so so}", "name", upstream->name, "revision",
                  (json_int_t) upstream->revision, "active", upstream->monitoring, "tables",
                  tables_json(call->api, upstream), "servers",
                  api_servers_json(upstream, &call->maps, &call->now), "names",
                  names_json(upstream), "monitors", api_monitors_json(upstream), "instances",
                  instances_json(upstream, engine_model(call->api->engine)));
    if (algorithm != NULL)
        json_object_set_new(call->result, "algorithm", json_string(algorithm->word));
    if (algorithm != NULL && algorithm->ketama)
        json_object_set_new(call->result, "ketama", json_true());
    return 0;
}

static int get_upstream(struct api_call *call)
{
    const struct upstream *upstream = api_upstream(call);

    return upstream == NULL ? -ENOENT : answer_upstream(call, upstream);
}

static int post_upstream(struct api_call *call)
{
    static const char *const names[] = {"name", NULL};
    char encoded[3 * DURPINA_NAME_SIZE];
    const char *name;
    int err = api_body(call, names);

    if (err == 0)
        err = api_get_string(call->body, "name", &name, &call->failure);
    if (err == 0)
        err = engine_create_upstream(call->api->engine, name, &call->failure);
    if (err < 0)
        return err;
    call->status = 201;
    api_encode(name, encoded, sizeof(encoded));
    snprintf(call->location, sizeof(call->location), "/api/9/durpina/upstreams/%s", encoded);
    return answer_upstream(call, model_upstream(engine_model(call->api->engine), name));
}

static int delete_upstream(struct api_call *call)
{
    int err = engine_delete_upstream(call->api->engine, call->args[0], &call->failure);

    return err < 0 ? err : get_names(call);
}

/* What resolve and reset share. */
static int act_on_server(struct api_call *call,
                         int (*act)(struct engine *engine, const char *upstream, uint32_t id,
                                    const struct server **ret, struct failure *failure))
{
    static const char *const names[] = {NULL};
    const struct server *server;
    uint32_t id;
    int err;

    if (api_server(call, &id) == NULL)
        return -ENOENT;
    err = call->body == NULL ? 0 : api_check_fields(call->body, names, &call->failure);
    if (err == 0)
        err = act(call->api->engine, call->args[0], id, &server, &call->failure);
    if (err < 0)
        return err;
    call->result = api_server_by_id_json(server, id, &call->maps, &call->now);
    return 0;
}

static int post_resolve(struct api_call *call)
{
    return act_on_server(call, engine_resolve_server);
}

static int post_reset(struct api_call *call)
{
    return act_on_server(call, engine_reset_server);
}

/* --- monitors --------------------------------------------------------------------------------- */

static int get_monitors(struct api_call *call)
{
    const struct upstream *upstream = api_upstream(call);

    if (upstream == NULL)
        return -ENOENT;
    call->result = api_monitors_json(upstream);
    return 0;
}

static int get_monitor(struct api_call *call)
{
    const struct upstream *upstream = api_upstream(call);

    if (upstream == NULL)
        return -ENOENT;
    for (size_t i = 0; i < upstream->n_monitors; i++) {
        if (strcmp(upstream->monitors[i]->id, call->args[1]) == 0) {
            call->result = api_monitor_json(upstream->monitors[i]);
            return 0;
        }
    }
    return fail(&call->failure, ENOENT, 404, "MonitorNotFound",
                "upstream \"%.64s\" has no monitor \"%.64s\"", upstream->name, call->args[1]);
}

static int post_monitor(struct api_call *call)
{
    static const char *const names[] = {"id", "name", "lua", "options", NULL};
    const struct monitor *monitor;
    struct monitor_spec spec = {0};
    json_t *options = NULL;
    bool created;
    int err;

    if (api_upstream(call) == NULL)
        return -ENOENT;
    err = api_body(call, names);
    if (err == 0)
        err = api_get_string(call->body, "name", &spec.name, &call->failure);
    if (err < 0)
        return err;
    spec.id = spec.name;
    if (json_object_get(call->body, "id") != NULL)
        err = api_get_string(call->body, "id", &spec.id, &call->failure);
    if (err == 0 && json_object_get(call->body, "lua") != NULL)
        err = api_get_bool(call->body, "lua", &spec.lua, &call->failure);
    if (err < 0)
        return err;
    options = json_object_get(call->body, "options");
    if (options != NULL && !json_is_object(options))
        return fail(&call->failure, EINVAL, 400, "MonitorBadOptions", "\"options\" is no object");

    options = options == NULL ? json_object() : json_incref(options);
    spec.options = options;
    err = engine_add_monitor(call->api->engine, call->args[0], &spec, &created, &monitor,
                             &call->failure);
    json_decref(options);
    if (err < 0)
        return err;
    call->status = created ? 201 : 200;
    call->result = api_monitor_json(monitor);
    return 0;
}

static int delete_monitor(struct api_call *call)
{
    int err =
        engine_remove_monitor(call->api->engine, call->args[0], call->args[1], &call->failure);

    return err < 0 ? err : get_monitors(call);
}

static int put_monitoring(struct api_call *call)
{
    static const char *const names[] = {"active", NULL};
    bool active;
    int err;

    if (api_upstream(call) == NULL)
        return -ENOENT;
    err = api_body(call, names);
    if (err == 0)
        err = api_get_bool(call->body, "active", &active, &call->failure);
    if (err == 0)
        err = engine_set_monitoring(call->api->engine, call->args[0], active, &call->failure);
    if (err < 0)
        return err;
    call->result = json_pack("{sb}", "active", active);
    return 0;
}

/* --- nginx instances -------------------------------------------------------------------------- */

static int get_instances(struct api_call *call)
{
    const struct model *model = engine_model(call->api->engine);

    call->result = json_array();
    for (const struct instance *i = model->instances; i != NULL; i = i->hh.next)
        json_array_append_new(call->result,
                              json_pack("{ss sI sI sI}", "instance", i->name, "pid",
                                        i->pid == INSTANCE_PID_UNKNOWN ? (json_int_t) 0
                                                                       : (json_int_t) i->pid,
                                        "worker_uid", (json_int_t) i->worker_uid, "epoch",
                                        (json_int_t) i->epoch));
    return 0;
}

static void free_registrations(struct registration *registrations, size_t n)
{
    for (size_t i = 0; i < n; i++)
        api_registration_clear(&registrations[i]);
    free(registrations);
}

static int parse_registrations(const json_t *array, struct registration **ret, size_t *ret_n,
                               struct failure *failure)
{
    static const char *const names[] = {"name", "durpina", "algorithm", "ketama", "servers", NULL};
    struct registration *registrations = calloc(json_array_size(array) + 1, sizeof(**ret));
    const json_t *object;
    size_t i, n = 0;

    if (registrations == NULL)
        return fail_memory(failure);
    json_array_foreach(array, i, object)
    {
        int err = api_check_fields(object, names, failure);

        if (err == 0)
            err = api_parse_registration(object, NULL, &registrations[n], failure);
        /* A block that is balanced by something else must not keep its nginx from starting. */
        if (err < 0 && json_is_false(json_object_get(object, "durpina"))) {
            log_notice("an upstream block that is not ours is left out: %s", failure->text);
            continue;
        }
        if (err < 0) {
            free_registrations(registrations, n);
            return err;
        }
        n++;
    }
    *ret = registrations;
    *ret_n = n;
    return 0;
}

static int post_instance(struct api_call *call)
{
    static const char *const names[] = {"instance", "pid", "worker_uid", "upstreams", NULL};
    struct registration *registrations = NULL;
    const char *instance;
    uint64_t pid, worker_uid, epoch;
    const json_t *upstreams;
    char token[33];
    size_t n = 0;
    int err = api_body(call, names);

    if (err == 0)
        err = api_get_string(call->body, "instance", &instance, &call->failure);
    if (err == 0)
        err = api_get_uint(call->body, "pid", INT32_MAX, &pid, &call->failure);
    if (err == 0)
        err = api_get_uint(call->body, "worker_uid", UINT32_MAX - 1, &worker_uid, &call->failure);
    if (err == 0)
        err = api_get_array(call->body, "upstreams", &upstreams, &call->failure);
    if (err == 0)
        err = parse_registrations(upstreams, &registrations, &n, &call->failure);
    if (err < 0)
        return err;
    /* Its own word for its pid is of its own pid namespace, the kernel's of ours. */
    if (pid != 0 && (pid_t) pid != call->request->client->pid)
        pid = INSTANCE_PID_UNKNOWN;
    err = engine_introduce_nginx(call->api->engine, instance, (uint32_t) pid, (uint32_t) worker_uid,
                                 registrations, n, token, &epoch, &call->failure);
    free_registrations(registrations, n);
    if (err < 0)
        return err;
    call->result = json_pack("{ss sI}", "token", token, "epoch", (json_int_t) epoch);
    return 0;
}

static int delete_instance(struct api_call *call)
{
    int err = engine_forget_nginx(call->api->engine, call->args[0], &call->failure);

    return err < 0 ? err : get_instances(call);
}

static int put_block(struct api_call *call)
{
    static const char *const names[] = {"instance", "epoch", "servers", NULL};
    struct registration registration;
    const char *instance;
    uint64_t epoch;
    int err = api_body(call, names);

    if (err == 0)
        err = api_get_string(call->body, "instance", &instance, &call->failure);
    if (err == 0)
        err = api_get_uint(call->body, "epoch", INT64_MAX, &epoch, &call->failure);
    if (err == 0)
        err = api_parse_registration(call->body, call->args[0], &registration, &call->failure);
    if (err < 0)
        return err;
    err =
        engine_register_upstream(call->api->engine, instance, epoch, &registration, &call->failure);
    api_registration_clear(&registration);
    if (err < 0)
        return err;
    /* An epoch that is over changes nothing, so there may be no such upstream. */
    return api_answer_servers(call);
}

const struct api_route api_durpina_routes[] = {
    {"durpina", {[API_GET] = get_durpina}, false, false},
    {"durpina/upstreams", {[API_GET] = get_names, [API_POST] = post_upstream}, false, false},
    {"durpina/upstreams/*",
     {[API_GET] = get_upstream, [API_DELETE] = delete_upstream},
     false,
     false},
    {"durpina/upstreams/*/servers/*/resolve", {[API_POST] = post_resolve}, false, false},
    {"durpina/upstreams/*/servers/*/reset", {[API_POST] = post_reset}, false, false},
    {"durpina/upstreams/*/monitors",
     {[API_GET] = get_monitors, [API_POST] = post_monitor},
     false,
     false},
    {"durpina/upstreams/*/monitors/*",
     {[API_GET] = get_monitor, [API_DELETE] = delete_monitor},
     false,
     false},
    {"durpina/upstreams/*/monitoring", {[API_PUT] = put_monitoring}, false, false},
    {"durpina/upstreams/*/nginx", {[API_PUT] = put_block}, false, false},
    {"durpina/nginx", {[API_GET] = get_instances, [API_POST] = post_instance}, false, true},
    {"durpina/nginx/*", {[API_DELETE] = delete_instance}, false, true},
    {"durpina/resolver", {[API_GET] = get_resolver, [API_PUT] = put_resolver}, false, false},
    {NULL, {NULL}, false, false},
};
