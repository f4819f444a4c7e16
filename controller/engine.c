/* SPDX-License-Identifier: MIT */
#include "engine.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "engine_internal.h"
#include "log.h"
#include "model_json.h"

struct durpina_counters *engine_counters(const struct engine *engine, const struct peer *peer)
{
    return peer->id < engine->maps->n_peers ? &engine->maps->counters[peer->id] : NULL;
}

const struct model *engine_model(const struct engine *engine)
{
    return &engine->model;
}

struct prober *engine_prober(const struct engine *engine)
{
    return engine->prober;
}

struct publish_usage engine_usage(const struct engine *engine)
{
    return publish_usage(engine->publish);
}

struct endpoints *engine_endpoints(const struct engine *engine)
{
    return publish_endpoints(engine->publish);
}

uint32_t engine_table_slots(const struct engine *engine, const struct upstream *upstream,
                            enum demanded table)
{
    return publish_table_slots(engine->publish, upstream, table);
}

/* --- life --- */

/* The maps outlive it: whoever owns them runs the loop until all is closed. */
void engine_unref(struct engine *engine)
{
    if (--engine->refs > 0)
        return;
    publish_destroy(engine->publish);
    free(engine);
}

static int load_state(struct engine *engine, struct failure *failure)
{
    json_t *json;
    int err = state_file_load(engine->state_file, &json, failure);

    if (err == -ENOENT)
        return 0;
    if (err == 0) {
        err = model_from_json(json, &engine->model, failure);
        json_decref(json);
    }
    if (err == -EINVAL) {
        err = state_file_set_aside(engine->state_file);
        log_error("the state file is damaged (%s): %s as %s.damaged, going on with what the maps "
                  "hold",
                  failure->text, err < 0 ? "cannot be kept" : "kept",
                  state_file_path(engine->state_file));
        err = 0;
    }
    return err;
}

/* Has names looked up at the name servers in force. 0, -EINVAL, -ENOMEM: nothing is changed. */
static int use_resolver(struct engine *engine)
{
    const json_t *array = json_array_size(engine->model.resolver) > 0 ? engine->model.resolver
                                                                      : engine->configured_resolver;
    size_t n = json_array_size(array);
    const char **servers = calloc(n + 1, sizeof(*servers));
    int err;

    if (servers == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        servers[i] = json_string_value(json_array_get(array, i));
    err = resolver_set_servers(engine->resolver, servers, n);
    free(servers);
    return err;
}

static void init_timer(struct engine *engine, uv_timer_t *timer)
{
    uv_timer_init(engine->loop, timer);
    timer->data = engine;
    engine->refs++;
}

int engine_create(uv_loop_t *loop, const struct engine_options *options, struct engine **ret,
                  struct failure *failure)
{
    struct engine *engine = calloc(1, sizeof(*engine));
    int err = 0;

    if (engine == NULL)
        return fail_memory(failure);
    engine->loop = loop;
    engine->maps = options->maps;
    engine->prober = options->prober;
    engine->resolver = options->resolver;
    engine->state_delay_ms = options->state_delay_ms;
    engine->changes = 1;
    engine->refs = 1;
    init_timer(engine, &engine->save_timer);
    init_timer(engine, &engine->publish_timer);
    init_timer(engine, &engine->monitor_timer);
    init_timer(engine, &engine->look_timer);
    init_timer(engine, &engine->build_timer);

    engine->state_file = options->state_file;
    if (engine->state_file != NULL)
        err = load_state(engine, failure);
    if (err == 0) {
        err = publish_create(engine->maps, clock_monotonic_ms(), &engine->publish);
        if (err == 0)
            err = engine_restore(engine);
        /* Those of the state file; a bad one cannot be in it, and would be replaced anyway. */
        if (err == 0 && use_resolver(engine) == -ENOMEM)
            err = -ENOMEM;
        if (err < 0)
            fail(failure, -err, 500, "UpstreamOutOfMemory", "%s", strerror(-err));
    }
    if (err < 0) {
        /* Nothing of this is to be saved over what is there. */
        engine->saved = engine->changes;
        engine_destroy(engine);
        return err;
    }
    *ret = engine;
    return 0;
}

void engine_start(struct engine *engine)
{
    engine->started = true;
    for (struct upstream *u = engine->model.upstreams; u != NULL; u = u->hh.next) {
        if (monitors_attach(u) < 0)
            log_error("upstream %s: out of memory: some peers are not monitored", u->name);
        for (struct server *s = u->servers; s != NULL; s = s->hh.next)
            lookup_attach(s);
    }
    tables_start(engine);
    vips_start(engine);
    /* What the maps have added is to be in the file, and that it can be written is to be known. */
    engine_touch(engine, engine->state_delay_ms);
}

static void on_close(uv_handle_t *handle)
{
    engine_unref(handle->data);
}

void engine_destroy(struct engine *engine)
{
    if (engine == NULL)
        return;

    uv_timer_t *timers[] = {&engine->save_timer, &engine->publish_timer, &engine->monitor_timer,
                            &engine->look_timer, &engine->build_timer};

    engine_save(engine);
    engine->closing = true;
    for (struct upstream *u = engine->model.upstreams; u != NULL; u = u->hh.next)
        for (struct server *s = u->servers; s != NULL; s = s->hh.next) {
            lookup_end(s);
            for (size_t i = 0; i < s->n_peers; i++)
                monitors_detach_peer(s->peers[i]);
        }
    model_clear(&engine->model);
    json_decref(engine->configured_resolver);
    DURPINA_STORE(&engine->maps->meta->controller_pid, 0);
    for (size_t i = 0; i < sizeof(timers) / sizeof(timers[0]); i++)
        uv_close((uv_handle_t *) timers[i], on_close);
    engine_unref(engine);
}

/* --- upstreams --- */

int engine_find_upstream(const struct engine *engine, const char *name, struct upstream **ret,
                         struct failure *failure)
{
    struct upstream *upstream = model_upstream(&engine->model, name);

    if (upstream == NULL) {
        fail(failure, ENOENT, 404, "UpstreamNotFound", "unknown upstream \"%.130s\"", name);
        return -ENOENT;
    }
    *ret = upstream;
    return 0;
}

int engine_find_server(const struct engine *engine, const char *upstream_name, uint32_t id,
                       struct server **ret, struct failure *failure)
{
    struct upstream *upstream;
    struct server *server;
    int err = engine_find_upstream(engine, upstream_name, &upstream, failure);

    if (err < 0)
        return err;
    server = model_server_by_id(upstream, id);
    if (server == NULL)
        return fail(failure, ENOENT, 404, "UpstreamServerNotFound",
                    "upstream %s has no server with id %u", upstream->name, id);
    *ret = server;
    return 0;
}

int engine_create_upstream(struct engine *engine, const char *name, struct failure *failure)
{
    struct upstream *upstream;
    struct edit *edit;
    int err;

    err = model_check_name(name, failure);
    if (err < 0)
        return err;
    if (model_upstream(&engine->model, name) != NULL)
        return fail(failure, EEXIST, 409, "EntryExists", "upstream %s exists already", name);

    upstream = model_add_upstream(&engine->model, name);
    if (upstream == NULL)
        return fail_memory(failure);
    upstream->created = true;
    tables_demand(upstream, NULL, false, NULL);
    if (edit_begin(upstream, true, &edit) < 0) {
        model_free_upstream(upstream);
        return fail_memory(failure);
    }
    err = edit_finish(edit, 0, failure);
    if (err == 0)
        engine_touch(engine, 0);
    return err;
}

int engine_delete_upstream(struct engine *engine, const char *name, struct failure *failure)
{
    struct upstream *upstream;
    struct edit *edit;
    int err = engine_find_upstream(engine, name, &upstream, failure);

    if (err < 0)
        return err;
    if (instances_name_upstream(&engine->model, name))
        return fail(failure, EBUSY, 409, "UpstreamServerImmutable",
                    "upstream %s is in the configuration of an nginx", name);
    /* The file is all there is of it between its going from the maps and the next save. */
    engine_save(engine);
    if (edit_begin(upstream, false, &edit) < 0)
        return fail_memory(failure);
    edit_remove_upstream(edit);
    edit_commit(edit);
    engine_touch(engine, 0);
    return 0;
}

/* --- name servers --- */

/* slot: one of the two that use_resolver() knows. */
static int set_resolver(struct engine *engine, json_t **slot, const char *const *servers,
                        size_t n_servers, struct failure *failure)
{
    json_t *array = json_array(), *old = *slot;
    struct addr addr;
    int err;

    for (size_t i = 0; i < n_servers; i++) {
        if (addr_parse(servers[i], 53, &addr) < 0 || addr.sa.sa_family == AF_UNIX) {
            json_decref(array);
            return fail(failure, EINVAL, 400, "BadResolver",
                        "resolver \"%.100s\" is not an address like 127.0.0.53 or [::1]:5353",
                        servers[i]);
        }
        json_array_append_new(array, json_string(servers[i]));
    }
    /* As each worker of an nginx says again: no reason to ask for all names. */
    if (old != NULL && json_equal(old, array)) {
        json_decref(array);
        return 0;
    }
    *slot = array;
    err = json_array_size(array) == n_servers && array != NULL ? use_resolver(engine) : -ENOMEM;
    if (err < 0) {
        *slot = old;
        json_decref(array);
        return fail(failure, -err, err == -EINVAL ? 400 : 500, "BadResolver", "resolver: %s",
                    strerror(-err));
    }
    json_decref(old);
    return 0;
}

int engine_configure_resolver(struct engine *engine, const char *const *servers, size_t n_servers,
                              struct failure *failure)
{
    return set_resolver(engine, &engine->configured_resolver, servers, n_servers, failure);
}

int engine_set_resolver(struct engine *engine, const char *const *servers, size_t n_servers,
                        struct failure *failure)
{
    int err = set_resolver(engine, &engine->model.resolver, servers, n_servers, failure);

    if (err == 0)
        engine_touch(engine, 0);
    return err;
}
