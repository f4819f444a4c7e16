/* SPDX-License-Identifier: MIT */
/* What calls do with servers: add, change, rename, reset, remove. */
#include <errno.h>
#include <string.h>

#include "engine_internal.h"
#include "model_json.h"
#include "model_text.h"

/* The settings of the spec over others. */
static struct server_settings overlay(const struct server_settings *under,
                                      const struct server_spec *spec)
{
    struct server_settings result = *under, over = spec->settings;

    for (size_t f = 0; f < N_SETTING_FIELDS; f++)
        if ((spec->set & setting_fields[f].set) != 0)
            *setting_field(&result, f) = *setting_field(&over, f);
    return result;
}

static unsigned differing(struct server_settings a, struct server_settings b)
{
    unsigned set = 0;

    for (size_t f = 0; f < N_SETTING_FIELDS; f++)
        if (*setting_field(&a, f) != *setting_field(&b, f))
            set |= setting_fields[f].set;
    return set;
}

static int check_spec(const struct server_spec *spec, struct failure *failure)
{
    if ((spec->set & SERVER_SET_WEIGHT) != 0 && spec->settings.weight > DURPINA_WEIGHT_MAX)
        return fail(failure, EINVAL, 400, "UpstreamBadWeight", "weight %u: must be 0 to %u",
                    spec->settings.weight, DURPINA_WEIGHT_MAX);
    return 0;
}

/*
 * A server from a file that a call adds too, just so, is there for both from now on. A call that is
 * made again, as each worker of an nginx does, has what it wants; the owner's settings count, not
 * what was changed since.
 */
static int add_existing(struct engine *engine, struct server *server,
                        const struct server_spec *spec, struct failure *failure)
{
    if (server->backup != spec->backup || differing(server->base, spec->settings) != 0)
        return fail(failure, EEXIST, 409, "EntryExists", "server %s exists already in upstream %s",
                    server->name, server->upstream->name);
    if (!server->dynamic) {
        server->dynamic = true;
        model_text_renew(server);
        engine_touch(engine, 0);
    }
    return 0;
}

int engine_add_server(struct engine *engine, const char *upstream_name,
                      const struct server_spec *spec, bool *ret_created, const struct server **ret,
                      struct failure *failure)
{
    struct server_spec full = *spec;
    struct upstream *upstream;
    struct server *server;
    struct edit *edit;
    bool is_new;
    int err = engine_find_upstream(engine, upstream_name, &upstream, failure);

    if (err == 0)
        err = check_spec(spec, failure);
    if (err < 0)
        return err;
    if ((spec->set & SERVER_SET_NAME) == 0)
        return fail(failure, EINVAL, 400, "UpstreamConfFormatError", "\"server\" is missing");
    full.settings = overlay(&server_settings_default, spec);

    server = model_server(upstream, spec->name);
    is_new = server == NULL;
    if (!is_new) {
        err = add_existing(engine, server, &full, failure);
    } else {
        err = edit_begin(upstream, false, &edit);
        if (err < 0)
            return fail_memory(failure);
        err = edit_add_server(edit, &full, &server);
        if (err == 0)
            server->dynamic = true;
        err = edit_finish(edit, err, failure);
    }
    if (err < 0)
        return err;
    *ret_created = is_new;
    *ret = server;
    return 0;
}

/* A renamed server is another one with the same id and settings. */
static int rename_server(struct edit *edit, struct server **server, const struct server_spec *spec)
{
    const struct server *old = *server;
    struct server_spec renamed = *spec;
    struct server *new;
    int err = edit_remove_server(edit, *server);

    renamed.backup = old->backup;
    if (err == 0)
        err = edit_add_server(edit, &renamed, &new);
    if (err < 0)
        return err;
    model_unlink_server(new);
    new->id = old->id;
    for (size_t i = 0; i < new->n_peers &&new->is_address; i++)
        model_set_api_id(new->peers[i], new->id);
    model_link_server(new);
    new->base = old->base;
    new->now = old->now;
    new->dynamic = old->dynamic;
    *server = new;
    return 0;
}

static int check_change(const struct server *server, const struct server_spec *spec, bool renames,
                        struct failure *failure)
{
    const struct upstream *upstream = server->upstream;

    if ((spec->set & SERVER_SET_BACKUP) != 0 && spec->backup != server->backup)
        return fail(failure, EINVAL, 400, "UpstreamServerImmutable",
                    "server %s: \"backup\" cannot be changed", server->name);
    if (renames && server->n_instances > 0)
        return fail(failure, EINVAL, 400, "UpstreamServerImmutable",
                    "server %s is in the configuration of an nginx: it cannot become %s",
                    server->name, spec->name);
    if (renames && model_server(upstream, spec->name) != NULL)
        return fail(failure, EEXIST, 409, "EntryExists", "server %s exists already in upstream %s",
                    spec->name, upstream->name);
    return check_spec(spec, failure);
}

int engine_change_server(struct engine *engine, const char *upstream_name, uint32_t id,
                         const struct server_spec *spec, const struct server **ret,
                         struct failure *failure)
{
    struct server *server;
    struct edit *edit;
    bool renames;
    int err = engine_find_server(engine, upstream_name, id, &server, failure);

    if (err < 0)
        return err;
    renames = (spec->set & SERVER_SET_NAME) != 0 && strcmp(spec->name, server->name) != 0;
    err = check_change(server, spec, renames, failure);
    if (err < 0)
        return err;
    if (edit_begin(server->upstream, false, &edit) < 0)
        return fail_memory(failure);
    err = edit_note(edit, server);
    if (err == 0 && renames)
        err = rename_server(edit, &server, spec);
    if (err == 0) {
        server->now = overlay(&server->now, spec);
        server->changed = differing(server->base, server->now);
    }
    err = edit_finish(edit, err, failure);
    if (err < 0)
        return err;
    /* "up" from the operator is a word about the peer's past, too. */
    if ((spec->set & SERVER_SET_ADMIN) != 0 && server->now.admin == DURPINA_ADMIN_UP)
        engine_forget_fails(server);
    *ret = server;
    return 0;
}

int engine_reset_server(struct engine *engine, const char *upstream_name, uint32_t id,
                        const struct server **ret, struct failure *failure)
{
    struct server *server;
    struct edit *edit;
    int err = engine_find_server(engine, upstream_name, id, &server, failure);

    if (err < 0)
        return err;
    if (edit_begin(server->upstream, false, &edit) < 0)
        return fail_memory(failure);
    err = edit_note(edit, server);
    if (err == 0) {
        server->now = server->base;
        server->changed = 0;
    }
    err = edit_finish(edit, err, failure);
    if (err == 0)
        *ret = server;
    return err;
}

int engine_remove_server(struct engine *engine, const char *upstream_name, uint32_t id,
                         struct failure *failure)
{
    char name[DURPINA_NAME_SIZE];
    struct server *server;
    struct edit *edit;
    int err = engine_find_server(engine, upstream_name, id, &server, failure);

    if (err < 0)
        return err;
    memcpy(name, server->name, sizeof(name));
    if (edit_begin(server->upstream, false, &edit) < 0)
        return fail_memory(failure);
    err = edit_remove_server(edit, server);
    if (err == 0 && upstream_is_unused(server->upstream))
        edit_remove_upstream(edit);
    err = edit_finish(edit, err, failure);
    /* Its nginx brings it back at the next reload, not when a worker starts. */
    if (err == 0)
        instances_forget_server(&engine->model, upstream_name, name);
    return err;
}
