/* SPDX-License-Identifier: MIT */
#include "model_json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIELD(field, set)                                                                          \
    {                                                                                              \
#field, set, offsetof(struct server_settings, field)                                       \
    }

const struct setting_field setting_fields[N_SETTING_FIELDS] = {
    FIELD(weight, SERVER_SET_WEIGHT),
    FIELD(max_conns, SERVER_SET_MAX_CONNS),
    FIELD(max_fails, SERVER_SET_MAX_FAILS),
    FIELD(fail_timeout_ms, SERVER_SET_FAIL_TIMEOUT),
    FIELD(slow_start_ms, SERVER_SET_SLOW_START),
    FIELD(admin, SERVER_SET_ADMIN),
};

json_t *settings_to_json(const struct server_settings *settings)
{
    struct server_settings copy = *settings;
    json_t *json = json_object();

    for (size_t i = 0; json != NULL && i < N_SETTING_FIELDS; i++)
        json_object_set_new(json, setting_fields[i].name, json_integer(*setting_field(&copy, i)));
    return json;
}

int settings_from_json(const json_t *json, struct server_settings *ret)
{
    struct server_settings settings = {0};

    for (size_t i = 0; i < N_SETTING_FIELDS; i++) {
        const json_t *value = json_object_get(json, setting_fields[i].name);

        if (!json_is_integer(value) || json_integer_value(value) < 0 ||
            json_integer_value(value) > INT32_MAX)
            return -EINVAL;
        *setting_field(&settings, i) = (uint32_t) json_integer_value(value);
    }
    if (settings.weight > DURPINA_WEIGHT_MAX || settings.admin > DURPINA_ADMIN_MAINT)
        return -EINVAL;
    *ret = settings;
    return 0;
}

/* {ID: what that monitor has found}, of those that are kept; NULL if there is nothing. */
static json_t *findings_to_json(const struct peer *peer)
{
    json_t *json = NULL;

    for (size_t i = 0; i < peer->n_watches; i++) {
        const struct watch *watch = peer->watches[i];
        const struct agent_word *word = &watch->word;

        if (!model_monitor_is_kept(watch->monitor) ||
            (watch->verdict == DURPINA_HEALTH_UNKNOWN && word->said == 0))
            continue;
        if (json == NULL)
            json = json_object();
        json_object_set_new(json, watch->monitor->id,
                            json_pack("{s:i, s:i, s:i, s:b, s:I, s:I}", "verdict",
                                      (int) watch->verdict, "said", (int) word->said, "admin",
                                      (int) word->admin, "percent", word->is_percent, "weight",
                                      (json_int_t) word->weight, "maxconn",
                                      (json_int_t) word->maxconn));
    }
    return json;
}

json_t *server_to_json(const struct server *server)
{
    json_t *addresses = json_array(), *json;

    for (size_t i = 0; i < server->n_peers; i++) {
        const struct peer *peer = server->peers[i];
        char address[DURPINA_NAME_SIZE];
        json_t *one;

        if (!peer->resolved)
            continue;
        addr_format(&peer->addr, address, sizeof(address));
        one = json_pack("{s:s, s:I, s:o*}", "address", address, "id", (json_int_t) peer->api_id,
                        "monitors", findings_to_json(peer));
        if (peer->srv_weight != 0) {
            json_object_set_new(one, "srv_weight", json_integer(peer->srv_weight));
            json_object_set_new(one, "backup", json_boolean(peer->backup));
        }
        json_array_append_new(addresses, one);
    }
    json = json_pack("{s:I, s:s, s:b, s:b, s:I, s:o, s:o, s:I, s:o}", "id", (json_int_t) server->id,
                     "name", server->name, "backup", server->backup, "dynamic", server->dynamic,
                     "instances", (json_int_t) server->n_instances, "base",
                     settings_to_json(&server->base), "now", settings_to_json(&server->now),
                     "changed", (json_int_t) server->changed, "addresses", addresses);
    if (json != NULL && server->portless)
        json_object_set_new(json, "portless", json_true());
    if (json != NULL && server->service != NULL)
        json_object_set_new(json, "service", json_string(server->service));
    if (json != NULL && server->looked_up)
        json_object_set_new(json, "looked_up", json_true());
    return json;
}

json_t *upstream_to_json(const struct upstream *upstream)
{
    json_t *monitors = json_array();

    for (size_t i = 0; i < upstream->n_monitors; i++) {
        const struct monitor *m = upstream->monitors[i];

        json_array_append_new(monitors,
                              json_pack("{s:s, s:s, s:b, s:O}", "id", m->id, "name", m->name, "lua",
                                        m->check->type == CHECK_LUA, "options", m->options));
    }
    return json_pack("{s:s, s:I, s:I, s:b, s:b, s:i, s:o}", "name", upstream->name, "revision",
                     (json_int_t) upstream->revision, "next_server_id",
                     (json_int_t) upstream->next_server_id, "created", upstream->created,
                     "monitoring", upstream->monitoring, "asked", (int) upstream->asked, "monitors",
                     monitors);
}

json_t *instance_to_json(const struct instance *instance)
{
    return json_pack("{s:s, s:I, s:I, s:I, s:s, s:O, s:O}", "name", instance->name, "pid",
                     (json_int_t) instance->pid, "worker_uid", (json_int_t) instance->worker_uid,
                     "epoch", (json_int_t) instance->epoch, "token", instance->token, "upstreams",
                     instance->upstreams, "algorithms", instance->algorithms);
}

/* Those of the configuration are there to be read again. */
static json_t *vips_to_json(const struct model *model)
{
    json_t *array = json_array();

    for (const struct vip *v = model->vips; v != NULL; v = v->hh.next)
        if (!v->configured)
            json_array_append_new(array, json_pack("{s:s, s:s, s:s}", "address", v->name,
                                                   "upstream", v->upstream, "algorithm",
                                                   vip_algorithm_word(v->algorithm)));
    return array;
}

json_t *model_to_json(const struct model *model)
{
    return json_pack("{s:i, s:I, s:O*, s:o}", "version", MODEL_JSON_VERSION, "next_epoch",
                     (json_int_t) model->next_epoch, "resolver", model->resolver, "vips",
                     vips_to_json(model));
}

static int damaged(struct failure *failure, const char *what, const char *name)
{
    return fail(failure, EINVAL, 500, "BadState", "%s %s is not as durpinad writes it", what, name);
}

static int finding_from_json(struct watch *watch, const json_t *json)
{
    int verdict, said, admin, percent;
    json_int_t weight, maxconn;

    if (json_unpack((json_t *) json, "{s:i, s:i, s:i, s:b, s:I, s:I}", "verdict", &verdict, "said",
                    &said, "admin", &admin, "percent", &percent, "weight", &weight, "maxconn",
                    &maxconn) < 0 ||
        verdict < DURPINA_HEALTH_UNKNOWN || verdict > DURPINA_HEALTH_FAILED ||
        admin < AGENT_READY || admin > AGENT_MAINT || weight < 0 || weight > INT32_MAX ||
        maxconn < 0 || maxconn > AGENT_MAXCONN_MAX)
        return -EINVAL;
    watch->verdict = (enum durpina_health) verdict;
    watch->pending = watch->pending && verdict != DURPINA_HEALTH_PASSED;
    snprintf(watch->reason, sizeof(watch->reason), "%s", WATCH_REASON_BEFORE);
    if (!model_monitor_is_agent(watch->monitor))
        return 0;
    watch->word = (struct agent_word){
        .said = (unsigned) said & (AGENT_ADMIN | AGENT_WEIGHT | AGENT_MAXCONN),
        .admin = (enum agent_admin) admin,
        .is_percent = percent,
        .weight = (uint32_t) weight,
        .maxconn = (uint32_t) maxconn,
    };
    return 0;
}

/* findings: NULL is fine. */
static int findings_from_json(struct peer *peer, const json_t *findings)
{
    int err = model_watch_peer(peer);

    for (size_t i = 0; i < peer->n_watches && err == 0; i++) {
        const json_t *finding = json_object_get(findings, peer->watches[i]->monitor->id);

        if (finding != NULL && model_monitor_is_kept(peer->watches[i]->monitor))
            err = finding_from_json(peer->watches[i], finding);
    }
    model_review_peer(peer);
    return err;
}

static int peers_from_json(struct server *server, const json_t *addresses)
{
    size_t n = json_array_size(addresses), index;
    const json_t *json;

    server->peers = calloc(n + 1, sizeof(*server->peers));
    if (server->peers == NULL)
        return -ENOMEM;
    json_array_foreach(addresses, index, json)
    {
        const char *text = json_string_value(json_object_get(json, "address"));
        const json_t *id = json_object_get(json, "id");
        json_int_t srv_weight = json_integer_value(json_object_get(json, "srv_weight"));
        struct peer *peer;
        struct addr addr;

        if (text == NULL || !json_is_integer(id) || addr_parse(text, 0, &addr) < 0 ||
            srv_weight < 0 || srv_weight > UINT16_MAX)
            return -EINVAL;
        peer = model_new_peer(server, &addr);
        if (peer == NULL)
            return -ENOMEM;
        model_set_api_id(peer, (uint32_t) json_integer_value(id));
        peer->srv_weight = (uint32_t) srv_weight;
        peer->backup |= json_is_true(json_object_get(json, "backup"));
        server->peers[server->n_peers++] = peer;

        int err = findings_from_json(peer, json_object_get(json, "monitors"));

        if (err < 0)
            return err;
    }
    if (server->n_peers == 0) {
        struct peer *peer = model_new_peer(server, NULL);

        if (peer == NULL)
            return -ENOMEM;
        server->peers[server->n_peers++] = peer;
    }
    return 0;
}

static int server_from_json(struct upstream *upstream, const json_t *json, struct failure *failure)
{
    struct server_spec spec = {0};
    const char *name, *service = NULL;
    json_int_t id, instances, changed;
    int backup, dynamic, portless = 0, looked_up = 0;
    const json_t *base, *now, *addresses;
    struct server *server;
    int err;

    if (json_unpack((json_t *) json, "{s:I, s:s, s:b, s:b, s:I, s:o, s:o, s:I, s:o, s?b, s?s, s?b}",
                    "id", &id, "name", &name, "backup", &backup, "dynamic", &dynamic, "instances",
                    &instances, "base", &base, "now", &now, "changed", &changed, "addresses",
                    &addresses, "portless", &portless, "service", &service, "looked_up",
                    &looked_up) < 0)
        return damaged(failure, "a server of upstream", upstream->name);
    err = service != NULL ? server_service_name_parse(name, service, &spec)
                          : server_name_parse(name, 0, &spec, failure);
    if (err < 0 || model_server(upstream, name) != NULL || strcmp(name, spec.name) != 0 || id < 0 ||
        id >= DURPINA_NONE || !json_is_array(addresses))
        return damaged(failure, "server", name);

    spec.backup = backup;
    server = model_new_server(upstream, &spec);
    if (server == NULL)
        return -ENOMEM;
    server->id = (uint32_t) id;
    server->dynamic = dynamic;
    server->portless = portless;
    server->looked_up = looked_up;
    server->n_instances = (uint32_t) instances;
    server->changed = (unsigned) changed;
    err = settings_from_json(base, &server->base);
    if (err == 0)
        err = settings_from_json(now, &server->now);
    if (err == 0)
        err = peers_from_json(server, addresses);
    if (err < 0) {
        model_free_server(server);
        return err == -EINVAL ? damaged(failure, "server", name) : err;
    }
    model_link_server(server);
    return 0;
}

static int monitor_from_json(struct upstream *upstream, const json_t *json, struct failure *failure)
{
    struct monitor *monitor = calloc(1, sizeof(*monitor));
    const char *id, *name;
    json_t *options;
    int lua = 0, err;

    if (monitor == NULL)
        return -ENOMEM;
    if (json_unpack((json_t *) json, "{s:s, s:s, s?b, s:o}", "id", &id, "name", &name, "lua", &lua,
                    "options", &options) < 0 ||
        strlen(id) >= sizeof(monitor->id) || strlen(name) >= sizeof(monitor->name)) {
        free(monitor);
        return damaged(failure, "a monitor of upstream", upstream->name);
    }
    err = lua ? check_parse_lua(name, upstream->name, id, options, &monitor->check, failure)
              : check_parse(name, options, &monitor->check, failure);
    if (err < 0) {
        free(monitor);
        return err;
    }
    memcpy(monitor->id, id, strlen(id));
    memcpy(monitor->name, name, strlen(name));
    monitor->options = json_incref(options);
    upstream->monitors[upstream->n_monitors++] = monitor;
    return 0;
}

static int upstream_from_json(struct model *model, const json_t *json, struct failure *failure)
{
    const char *name;
    json_int_t revision, next_server_id;
    int created, monitoring, asked = 0, err = 0;
    const json_t *servers, *monitors, *item;
    struct upstream *upstream;
    size_t i;

    if (json_unpack((json_t *) json, "{s:s, s:I, s:I, s:b, s:b, s:o, s:o, s?i}", "name", &name,
                    "revision", &revision, "next_server_id", &next_server_id, "created", &created,
                    "monitoring", &monitoring, "servers", &servers, "monitors", &monitors, "asked",
                    &asked) < 0)
        return damaged(failure, "an", "upstream");
    if (strlen(name) >= DURPINA_NAME_SIZE || model_upstream(model, name) != NULL || revision < 0 ||
        !json_is_array(servers) || !json_is_array(monitors))
        return damaged(failure, "upstream", name);

    upstream = model_add_upstream(model, name);
    if (upstream == NULL)
        return -ENOMEM;
    upstream->revision = (uint64_t) revision;
    upstream->created = created;
    upstream->monitoring = monitoring;
    upstream->asked =
        (unsigned) asked & (DURPINA_ASKED_HASH | DURPINA_ASKED_RING | DURPINA_ASKED_NO_TABLE);
    upstream->monitors = calloc(json_array_size(monitors) + 1, sizeof(*upstream->monitors));
    if (upstream->monitors == NULL)
        return -ENOMEM;
    for (i = 0; err == 0 && (item = json_array_get(monitors, i)) != NULL; i++)
        err = monitor_from_json(upstream, item, failure);
    for (i = 0; err == 0 && (item = json_array_get(servers, i)) != NULL; i++)
        err = server_from_json(upstream, item, failure);
    /* Making servers has counted on from 0. */
    if (upstream->next_server_id < (uint32_t) next_server_id)
        upstream->next_server_id = (uint32_t) next_server_id;
    return err;
}

static int instance_from_json(struct model *model, const json_t *json, struct failure *failure)
{
    const char *name, *token;
    json_int_t pid, worker_uid, epoch;
    struct instance *instance, *other;
    json_t *upstreams, *algorithms = NULL;

    if (json_unpack((json_t *) json, "{s:s, s:I, s:I, s:I, s:s, s:o, s?o}", "name", &name, "pid",
                    &pid, "worker_uid", &worker_uid, "epoch", &epoch, "token", &token, "upstreams",
                    &upstreams, "algorithms", &algorithms) < 0 ||
        strlen(token) != sizeof(instance->token) - 1 || !json_is_object(upstreams))
        return damaged(failure, "an nginx", "instance");
    HASH_FIND_STR(model->instances, name, other);
    if (other != NULL)
        return damaged(failure, "nginx instance", name);

    instance = calloc(1, sizeof(*instance));
    if (instance == NULL)
        return -ENOMEM;
    instance->model = model;
    instance->pid = (uint32_t) pid;
    instance->worker_uid = (uint32_t) worker_uid;
    instance->epoch = (uint64_t) epoch;
    memcpy(instance->token, token, sizeof(instance->token));
    instance->upstreams = json_incref(upstreams);
    instance->algorithms = json_is_object(algorithms) ? json_incref(algorithms) : json_object();
    instance->name = strdup(name);
    if (instance->name == NULL || instance->algorithms == NULL) {
        model_free_instance(instance);
        return -ENOMEM;
    }
    HASH_ADD_KEYPTR(hh, model->instances, instance->name, strlen(instance->name), instance);
    return 0;
}

static int vip_from_json(struct model *model, const json_t *json, struct failure *failure)
{
    const char *address, *upstream, *algorithm;
    struct vip_spec spec;
    struct vip *vip;

    if (json_unpack((json_t *) json, "{s:s, s:s, s:s}", "address", &address, "upstream", &upstream,
                    "algorithm", &algorithm) < 0)
        return damaged(failure, "a", "vip");
    if (vip_address_parse(address, &spec.address, failure) < 0 ||
        vip_upstream_parse(upstream, &spec, failure) < 0 ||
        vip_algorithm_parse(algorithm, &spec.algorithm, failure) < 0 ||
        model_vip(model, &spec.address) != NULL)
        return damaged(failure, "vip", address);
    vip = model_new_vip(&spec);
    if (vip == NULL)
        return -ENOMEM;
    model_link_vip(model, vip);
    return 0;
}

int model_from_json(const json_t *json, struct model *model, struct failure *failure)
{
    const json_t *upstreams, *instances, *vips = NULL, *item;
    json_t *resolver = NULL;
    json_int_t next_epoch;
    int version, err = 0;
    size_t i;

    if (json_unpack((json_t *) json, "{s:i}", "version", &version) < 0 ||
        version != MODEL_JSON_VERSION)
        return fail(failure, EINVAL, 500, "BadState", "not a state file of version %d",
                    MODEL_JSON_VERSION);
    if (json_unpack((json_t *) json, "{s:I, s?o, s:o, s:o, s?o}", "next_epoch", &next_epoch,
                    "resolver", &resolver, "upstreams", &upstreams, "instances", &instances, "vips",
                    &vips) < 0 ||
        !json_is_array(upstreams) || !json_is_array(instances) ||
        (vips != NULL && !json_is_array(vips)) || json_array_size(vips) > DURPINA_VIPS_MAX ||
        (resolver != NULL && !json_is_array(resolver)))
        return damaged(failure, "the", "top level");

    model->next_epoch = (uint64_t) next_epoch;
    model->resolver = json_incref(resolver);
    for (i = 0; err == 0 && (item = json_array_get(upstreams, i)) != NULL; i++)
        err = upstream_from_json(model, item, failure);
    for (i = 0; err == 0 && (item = json_array_get(instances, i)) != NULL; i++)
        err = instance_from_json(model, item, failure);
    for (i = 0; err == 0 && (item = json_array_get(vips, i)) != NULL; i++)
        err = vip_from_json(model, item, failure);
    if (err == -ENOMEM)
        fail(failure, ENOMEM, 500, "BadState", "out of memory");
    if (err < 0)
        model_clear(model);
    return err;
}
