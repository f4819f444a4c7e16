/* SPDX-License-Identifier: MIT */
/* What nginx instances say of upstreams: docs/api.md, "An nginx introduces itself". */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "clock.h"
#include "engine_internal.h"
#include "log.h"
#include "model_json.h"
#include "model_text.h"

#define TOKEN_BYTES 16

/* What the instance says of an upstream: {server name: {settings, "backup"}}, or NULL. */
static json_t *said(const struct instance *instance, const char *upstream)
{
    return instance == NULL ? NULL : json_object_get(instance->upstreams, upstream);
}

bool instances_name_upstream(const struct model *model, const char *upstream)
{
    for (const struct instance *i = model->instances; i != NULL; i = i->hh.next)
        if (said(i, upstream) != NULL)
            return true;
    return false;
}

void instances_forget_server(struct model *model, const char *upstream, const char *server)
{
    for (struct instance *i = model->instances; i != NULL; i = i->hh.next)
        if (json_object_del(said(i, upstream), server) == 0)
            model_text_outdate_instance(i);
}

bool upstream_is_unused(const struct upstream *upstream)
{
    return !upstream->created && upstream->servers == NULL &&
           !instances_name_upstream(upstream->model, upstream->name);
}

/* --- what is said, as JSON --- */

static json_t *spec_to_json(const struct server_spec *spec)
{
    json_t *json = settings_to_json(&spec->settings);

    if (json != NULL)
        json_object_set_new(json, "backup", json_boolean(spec->backup));
    return json;
}

/*
 * One spec for each name: lines of the same name are one server with their weights added. Settings
 * that are not given are nginx's defaults. The names of the array are the keys of *ret_said.
 */
static int merge_specs(const struct registration *registration, struct server_spec **ret_specs,
                       size_t *ret_n, json_t **ret_said)
{
    struct server_spec *specs = calloc(registration->n_specs + 1, sizeof(*specs));
    json_t *index = json_object(), *all = json_object();
    size_t n = 0;

    for (size_t i = 0; specs != NULL && i < registration->n_specs; i++) {
        const struct server_spec *spec = &registration->specs[i];
        const json_t *seen = json_object_get(index, spec->name);

        if (seen != NULL) {
            struct server_settings *first = &specs[json_integer_value(seen)].settings;
            uint32_t more = (spec->set & SERVER_SET_WEIGHT) != 0 ? spec->settings.weight : 1;

            first->weight = first->weight + more > DURPINA_WEIGHT_MAX ? DURPINA_WEIGHT_MAX
                                                                      : first->weight + more;
            continue;
        }
        json_object_set_new(index, spec->name, json_integer((json_int_t) n));
        specs[n] = *spec;
        for (size_t f = 0; f < N_SETTING_FIELDS; f++) {
            struct server_settings defaults = server_settings_default;

            if ((spec->set & setting_fields[f].set) == 0)
                *setting_field(&specs[n].settings, f) = *setting_field(&defaults, f);
        }
        n++;
    }
    for (size_t i = 0; i < n; i++)
        json_object_set_new(all, specs[i].name, spec_to_json(&specs[i]));

    bool complete = specs != NULL && json_object_size(index) == n && json_object_size(all) == n;

    json_decref(index);
    if (!complete) {
        json_decref(all);
        free(specs);
        return -ENOMEM;
    }
    *ret_specs = specs;
    *ret_n = n;
    *ret_said = all;
    return 0;
}

/* --- applying it --- */

/* Takes over what is new in the spec against what this instance said before (NULL: nothing). */
static int change_server(struct edit *edit, struct server *server, const struct server_spec *spec,
                         const json_t *before)
{
    struct server_settings old, wanted = spec->settings;
    bool known = before != NULL && settings_from_json(before, &old) == 0, differs = false;
    bool backup_known = known && json_is_true(json_object_get(before, "backup")) == spec->backup;
    int err = edit_note(edit, server);

    if (err == 0)
        server->portless = spec->portless;
    for (size_t f = 0; f < N_SETTING_FIELDS && err == 0; f++) {
        uint32_t value = *setting_field(&wanted, f);

        if ((known && *setting_field(&old, f) == value) ||
            *setting_field(&server->base, f) == value)
            continue;
        differs = true;
        *setting_field(&server->base, f) = value;
        *setting_field(&server->now, f) = value;
        server->changed &= ~setting_fields[f].set;
    }
    if (err == 0 && !backup_known && server->backup != spec->backup) {
        differs = true;
        err = edit_set_backup(edit, server, spec->backup);
    }
    /* nginx looks names up when it starts, and we since. */
    if (err == 0 && spec->n_addresses > 0 && !lookup_is_followed(server->lookup)) {
        err = edit_set_addresses(edit, server, spec->addresses, spec->n_addresses);
        server->looked_up = false;
    }
    if (differs && !known && (server->n_instances > 0 || server->dynamic))
        log_notice("upstream %s: server %s: settings of the last registration replace others",
                   server->upstream->name, server->name);
    return err;
}

static uint32_t count_instances(const struct model *model, const struct instance *except,
                                const char *upstream, const char *server)
{
    uint32_t n = 0;

    for (const struct instance *i = model->instances; i != NULL; i = i->hh.next)
        n += i != except && json_object_get(said(i, upstream), server) != NULL;
    return n;
}

/*
 * Makes the servers of the upstream those that the specs and the other instances name, and the
 * dynamic ones. A server of unknown origin (restored from maps without a state file) goes here, at
 * the first time that an nginx says what the upstream has, unless that is among it.
 */
static int apply_specs(struct edit *edit, struct upstream *upstream,
                       const struct instance *instance, const struct server_spec *specs, size_t n,
                       const json_t *now)
{
    const json_t *before = said(instance, upstream->name);
    struct server *server, *next;
    int err = 0;

    for (size_t i = 0; i < n && err == 0; i++) {
        server = model_server(upstream, specs[i].name);
        if (server == NULL)
            err = edit_add_server(edit, &specs[i], &server);
        else
            err = change_server(edit, server, &specs[i], json_object_get(before, specs[i].name));
    }
    HASH_ITER(hh, upstream->servers, server, next)
    {
        uint32_t n_instances;

        if (err < 0)
            break;
        n_instances = count_instances(upstream->model, instance, upstream->name, server->name) +
                      (json_object_get(now, server->name) != NULL);
        if (n_instances == server->n_instances && n_instances > 0)
            continue;
        err = edit_note(edit, server);
        if (err == 0) {
            server->n_instances = n_instances;
            if (n_instances == 0 && !server->dynamic)
                err = edit_remove_server(edit, server);
        }
    }
    return err;
}

/* Adds the edit that brings the upstream to what the registration says; NULL: nothing any more. */
static int begin_upstream(struct engine *engine, const struct instance *instance, const char *name,
                          const struct registration *registration, json_t *all_said,
                          struct edit **ret)
{
    struct upstream *upstream = model_upstream(&engine->model, name);
    bool is_new = upstream == NULL;
    struct registration none = {.upstream = name};
    const struct algorithm *algorithm = registration != NULL ? registration->algorithm : NULL;
    struct server_spec *specs;
    struct edit *edit;
    json_t *now;
    size_t n;
    int err = merge_specs(registration != NULL ? registration : &none, &specs, &n, &now);

    if (err < 0)
        return err;
    if (is_new)
        upstream = model_add_upstream(&engine->model, name);
    err = upstream == NULL ? -ENOMEM : edit_begin(upstream, is_new, &edit);
    if (err < 0) {
        if (is_new && upstream != NULL)
            model_free_upstream(upstream);
        goto out;
    }
    tables_demand(upstream, instance, registration != NULL, algorithm);
    err = apply_specs(edit, upstream, instance, specs, n, now);
    if (err == 0 && registration != NULL && json_object_set(all_said, upstream->name, now) < 0)
        err = -ENOMEM;
    if (err < 0) {
        edit_rollback(edit);
        goto out;
    }
    if (registration == NULL && upstream->servers == NULL && !upstream->created) {
        bool named = false;

        for (const struct instance *i = engine->model.instances; i != NULL; i = i->hh.next)
            named |= i != instance && said(i, name) != NULL;
        if (!named)
            edit_remove_upstream(edit);
    }
    *ret = edit;
out:
    json_decref(now);
    free(specs);
    return err;
}

struct edits {
    struct edit **items;
    size_t n;
};

static int begin_all(struct engine *engine, const struct instance *instance,
                     const struct registration *registrations, size_t n, json_t *all_said,
                     struct edits *edits)
{
    const char *name;
    json_t *value;
    int err = 0;

    for (size_t i = 0; i < n && err == 0; i++) {
        const char *upstream = registrations[i].upstream;

        if (!registrations[i].durpina && said(instance, upstream) == NULL)
            continue;
        if (json_object_get(all_said, upstream) != NULL)
            continue;
        err = begin_upstream(engine, instance, upstream, &registrations[i], all_said,
                             &edits->items[edits->n]);
        edits->n += err == 0;
    }
    if (instance == NULL)
        return err;
    json_object_foreach(instance->upstreams, name, value)
    {
        /* Deleted with the last of its servers, if that was by a call. */
        if (err < 0 || json_object_get(all_said, name) != NULL ||
            model_upstream(&engine->model, name) == NULL)
            continue;
        err = begin_upstream(engine, instance, name, NULL, all_said, &edits->items[edits->n]);
        edits->n += err == 0;
    }
    return err;
}

/* All or nothing: publishes nothing before everything is ready to be published. */
static int finish_all(struct edits *edits, int err, struct failure *failure)
{
    if (err == -ENOMEM)
        fail_memory(failure);
    for (size_t i = 0; i < edits->n && err == 0; i++)
        err = edit_prepare(edits->items[i], failure);
    for (size_t i = 0; i < edits->n && err == 0; i++)
        edit_commit(edits->items[i]);
    for (size_t i = edits->n; i-- > 0 && err < 0;)
        edit_rollback(edits->items[i]);
    free(edits->items);
    return err;
}

/* Keeps what the registrations say of algorithms, of upstreams that the instance names. */
static int say_algorithms(struct instance *instance, const struct registration *registrations,
                          size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct algorithm *algorithm = registrations[i].algorithm;

        if (algorithm != NULL && said(instance, registrations[i].upstream) != NULL &&
            json_object_set_new(instance->algorithms, registrations[i].upstream,
                                json_pack("{s:s, s:b}", "algorithm", algorithm->word, "ketama",
                                          algorithm->ketama)) < 0)
            return -ENOMEM;
    }
    return 0;
}

static int new_token(char token[33])
{
    unsigned char bytes[TOKEN_BYTES];

    /* Up to 256 bytes come whole once the kernel's generator is seeded. */
    if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t) sizeof(bytes))
        return -EIO;
    for (size_t i = 0; i < sizeof(bytes); i++)
        snprintf(token + 2 * i, 3, "%02x", bytes[i]);
    return 0;
}

/* A new record of the instance; the model has it only after all else has succeeded. */
static int new_instance(struct engine *engine, const char *name, uint32_t pid, uint32_t worker_uid,
                        const struct instance *old, struct instance **ret)
{
    struct instance *instance = calloc(1, sizeof(*instance));
    int err = -ENOMEM;

    if (instance == NULL)
        return -ENOMEM;
    instance->model = &engine->model;
    instance->name = strdup(name);
    instance->upstreams = json_object();
    instance->algorithms = json_object();
    instance->pid = pid;
    instance->worker_uid = worker_uid;
    instance->introduced_ms = clock_monotonic_ms();
    instance->epoch = engine->model.next_epoch + 1;
    if (instance->name != NULL && instance->upstreams != NULL && instance->algorithms != NULL) {
        /* Across a reload or a binary upgrade the token stays: old workers serve on with it. */
        if (old != NULL && old->worker_uid == worker_uid) {
            memcpy(instance->token, old->token, sizeof(instance->token));
            err = 0;
        } else {
            err = new_token(instance->token);
        }
    }
    if (err < 0) {
        model_free_instance(instance);
        return err;
    }
    *ret = instance;
    return 0;
}

int instance_withdraw(struct engine *engine, const struct instance *instance,
                      struct failure *failure)
{
    struct edits edits = {
        .items = calloc(json_object_size(instance->upstreams) + 1, sizeof(struct edit *))};
    json_t *nothing = json_object();
    int err = edits.items == NULL || nothing == NULL
                  ? -ENOMEM
                  : begin_all(engine, instance, NULL, 0, nothing, &edits);

    err = finish_all(&edits, err, failure);
    json_decref(nothing);
    return err;
}

int engine_introduce_nginx(struct engine *engine, const char *name, uint32_t pid,
                           uint32_t worker_uid, const struct registration *registrations,
                           size_t n_registrations, char ret_token[33], uint64_t *ret_epoch,
                           struct failure *failure)
{
    struct instance *old = model_instance(&engine->model, name), *instance;
    struct edits edits = {0};
    size_t n_old = old == NULL ? 0 : json_object_size(old->upstreams);
    int err;

    /* It is a key of the state file. */
    json_t *text = json_string(name);

    json_decref(text);
    if (text == NULL || name[0] == '\0')
        return fail(failure, EINVAL, 400, "UpstreamConfFormatError", "instance: not a name");
    for (size_t i = 0; i < n_registrations; i++) {
        err = registrations[i].durpina ? model_check_name(registrations[i].upstream, failure) : 0;
        if (err < 0)
            return err;
    }
    err = new_instance(engine, name, pid, worker_uid, old, &instance);
    if (err < 0)
        return fail(failure, -err, 500, "UpstreamOutOfMemory", "nginx %s: %s", name,
                    strerror(-err));
    edits.items = calloc(n_registrations + n_old + 1, sizeof(struct edit *));
    err = edits.items == NULL
              ? -ENOMEM
              : begin_all(engine, old, registrations, n_registrations, instance->upstreams, &edits);
    if (err == 0)
        err = say_algorithms(instance, registrations, n_registrations);
    err = finish_all(&edits, err, failure);
    if (err < 0) {
        model_free_instance(instance);
        return err;
    }

    if (old != NULL)
        model_free_instance(old);
    HASH_ADD_KEYPTR(hh, engine->model.instances, instance->name, strlen(instance->name), instance);
    engine->model.next_epoch = instance->epoch;
    log_notice("nginx %s (pid %u, workers' uid %u) introduced itself: epoch %llu, %zu upstreams",
               instance->name, pid == INSTANCE_PID_UNKNOWN ? 0 : pid, worker_uid,
               (unsigned long long) instance->epoch, json_object_size(instance->upstreams));
    /* Only now: what both name has stayed as it was. */
    instances_forget_gone(engine, instance);
    engine_touch(engine, 0);
    memcpy(ret_token, instance->token, sizeof(instance->token));
    *ret_epoch = instance->epoch;
    return 0;
}

int engine_register_upstream(struct engine *engine, const char *name, uint64_t epoch,
                             const struct registration *registration, struct failure *failure)
{
    struct instance *instance = model_instance(&engine->model, name);
    struct edits edits = {0};
    int err = model_check_name(registration->upstream, failure);

    if (err < 0)
        return err;
    if (instance == NULL || epoch > instance->epoch)
        return fail(failure, EINVAL, 400, "UpstreamConfFormatError",
                    "nginx %.100s has not introduced itself with epoch %llu", name,
                    (unsigned long long) epoch);
    /* Each worker asks, and one that is started later must not bring back what has been removed. */
    if (epoch < instance->epoch || said(instance, registration->upstream) != NULL)
        return 0;

    edits.items = calloc(1, sizeof(struct edit *));
    err = edits.items == NULL ? -ENOMEM
                              : begin_upstream(engine, instance, registration->upstream,
                                               registration, instance->upstreams, &edits.items[0]);
    edits.n = err == 0;
    if (err == 0)
        err = say_algorithms(instance, registration, 1);
    err = finish_all(&edits, err, failure);
    if (err < 0) {
        json_object_del(instance->upstreams, registration->upstream);
        json_object_del(instance->algorithms, registration->upstream);
        return err;
    }
    model_text_outdate_instance(instance);
    engine_touch(engine, 0);
    return 0;
}

bool engine_authorize_worker(const struct engine *engine, uint32_t uid, const char *token)
{
    bool authorized = false;

    if (strlen(token) != 2 * TOKEN_BYTES)
        return false;
    for (const struct instance *i = engine->model.instances; i != NULL; i = i->hh.next) {
        unsigned char difference = 0;

        /* In a time that does not tell how much of it is right. */
        for (size_t c = 0; c < 2 * TOKEN_BYTES; c++)
            difference |= (unsigned char) (i->token[c] ^ token[c]);
        authorized |= difference == 0 && i->worker_uid == uid;
    }
    return authorized;
}
