/* SPDX-License-Identifier: MIT */
/* The part of the API about virtual endpoints. */
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "api_call.h"

static const char *protocol_word(const struct vip *vip)
{
    return vip->address.protocol == IPPROTO_UDP ? "udp" : "tcp";
}

static json_t *vip_json(const struct api_call *call, const struct vip *vip)
{
    const struct programs *programs = call->api->programs;
    bool off = programs == NULL || !programs_connecting(programs);
    const char *why =
        off ? "nothing redirects connects: see /api/9/durpina/kernel" : model_vip_obstacle(vip);
    uint64_t selected, missed;
    json_t *json;

    engine_vip_counts(call->api->engine, vip, &selected, &missed);
    json = json_pack("{ss ss ss ss ss sI sI ss}", "address", vip->name, "protocol",
                     protocol_word(vip), "upstream", vip->upstream, "algorithm",
                     vip_algorithm_word(vip->algorithm), "state",
                     off           ? "off"
                     : why != NULL ? "pending"
                                   : "active",
                     "selected", (json_int_t) selected, "missed", (json_int_t) missed, "origin",
                     vip->configured ? "file" : "api");
    if (json != NULL && why != NULL)
        json_object_set_new(json, "reason", json_string(why));
    return json;
}

static int get_vips(struct api_call *call)
{
    const struct model *model = engine_model(call->api->engine);

    call->result = json_array();
    for (const struct vip *v = model->vips; v != NULL; v = v->hh.next)
        json_array_append_new(call->result, vip_json(call, v));
    return 0;
}

/* The address that the path ends with; its "/udp" may be a part of its own. */
static int address_of_path(struct api_call *call, struct durpina_address *ret)
{
    char text[2 * API_ARG_SIZE];

    snprintf(text, sizeof(text), "%s%s%s", call->args[0], call->args[1][0] != '\0' ? "/" : "",
             call->args[1]);
    return vip_address_parse(text, ret, &call->failure);
}

/* The one of the path; NULL with the failure filled. */
static const struct vip *find_vip(struct api_call *call)
{
    struct durpina_address address;

    if (address_of_path(call, &address) < 0)
        return NULL;
    return engine_find_vip(call->api->engine, &address, &call->failure);
}

static int get_vip(struct api_call *call)
{
    const struct vip *vip = find_vip(call);

    if (vip == NULL)
        return -EINVAL;
    call->result = vip_json(call, vip);
    return 0;
}

/* upstream and algorithm, as far as the body has them. */
static int parse_target(struct api_call *call, struct vip_spec *spec)
{
    const char *word;
    int err = 0;

    if (json_object_get(call->body, "upstream") != NULL) {
        err = api_get_string(call->body, "upstream", &word, &call->failure);
        if (err == 0)
            err = vip_upstream_parse(word, spec, &call->failure);
    }
    if (err == 0 && json_object_get(call->body, "algorithm") != NULL) {
        err = api_get_string(call->body, "algorithm", &word, &call->failure);
        if (err == 0)
            err = vip_algorithm_parse(word, &spec->algorithm, &call->failure);
    }
    return err;
}

/* The protocol may be told by the address, by a field of its own, or by both. */
static int parse_address(struct api_call *call, struct durpina_address *ret)
{
    struct durpina_address address;
    const char *word, *protocol = "";
    int err = api_get_string(call->body, "address", &word, &call->failure);

    if (err == 0)
        err = vip_address_parse(word, &address, &call->failure);
    if (err == 0 && json_object_get(call->body, "protocol") != NULL)
        err = api_get_string(call->body, "protocol", &protocol, &call->failure);
    if (err < 0)
        return err;
    if (strcmp(protocol, "udp") == 0)
        address.protocol = IPPROTO_UDP;
    else if (*protocol != '\0' && (strcmp(protocol, "tcp") != 0 || address.protocol == IPPROTO_UDP))
        return fail(&call->failure, EINVAL, 400, "VipBadAddress",
                    "vip %.64s: \"protocol\" is \"%.16s\"", word, protocol);
    *ret = address;
    return 0;
}

static int post_vip(struct api_call *call)
{
    static const char *const names[] = {"address", "protocol", "upstream", "algorithm", NULL};
    struct vip_spec spec = {.algorithm = DURPINA_ROUND_ROBIN};
    char encoded[3 * VIP_NAME_SIZE];
    const struct vip *vip;
    const char *word;
    bool created;
    int err = api_body(call, names);

    if (err == 0)
        err = parse_address(call, &spec.address);
    if (err == 0)
        err = api_get_string(call->body, "upstream", &word, &call->failure);
    if (err == 0)
        err = parse_target(call, &spec);
    if (err == 0)
        err = engine_add_vip(call->api->engine, &spec, &created, &vip, &call->failure);
    if (err < 0)
        return err;
    call->status = created ? 201 : 200;
    call->result = vip_json(call, vip);
    api_encode(vip->name, encoded, sizeof(encoded));
    snprintf(call->location, sizeof(call->location), "/api/9/durpina/vips/%s", encoded);
    return 0;
}

static int patch_vip(struct api_call *call)
{
    static const char *const names[] = {"upstream", "algorithm", NULL};
    const struct vip *vip = find_vip(call);
    struct vip_spec spec;
    int err;

    if (vip == NULL)
        return -EINVAL;
    err = api_body(call, names);
    if (err < 0)
        return err;
    spec = (struct vip_spec){.address = vip->address, .algorithm = vip->algorithm};
    memcpy(spec.upstream, vip->upstream, sizeof(spec.upstream));
    err = parse_target(call, &spec);
    if (err == 0)
        err = engine_change_vip(call->api->engine, &spec, &vip, &call->failure);
    if (err == 0)
        call->result = vip_json(call, vip);
    return err;
}

static int delete_vip(struct api_call *call)
{
    struct durpina_address address;
    int err = address_of_path(call, &address);

    if (err == 0)
        err = engine_remove_vip(call->api->engine, &address, &call->failure);
    return err < 0 ? err : get_vips(call);
}

#define VIP_HANDLERS                                                                               \
    {                                                                                              \
        [API_GET] = get_vip, [API_PATCH] = patch_vip, [API_DELETE] = delete_vip                    \
    }

const struct api_route api_vip_routes[] = {
    {"durpina/vips", {[API_GET] = get_vips, [API_POST] = post_vip}, false, false},
    {"durpina/vips/*", VIP_HANDLERS, false, false},
    {"durpina/vips/*/*", VIP_HANDLERS, false, false},
    {NULL, {NULL}, false, false},
};
