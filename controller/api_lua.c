/* SPDX-License-Identifier: MIT */
/* What workers of nginx ask for that run monitors written in Lua (docs/api.md). */
#include <errno.h>
#include <string.h>

#include "api_call.h"
#include "probe_lua.h"

#define ROOM_MAX 1024

struct request {
    struct probe_lua_worker worker;
    const json_t *names;   /* array of strings */
    const json_t *results; /* array, or NULL */
    uint64_t room;         /* checks that it takes at most */
    bool leave;
};

static int check_result(const json_t *result, struct failure *failure)
{
    static const char *const names[] = {"check", "passed", "reason", NULL};
    const char *reason;
    uint64_t number;
    bool passed;
    int err = api_check_fields(result, names, failure);

    if (err == 0)
        err = api_get_uint(result, "check", UINT64_MAX, &number, failure);
    if (err == 0 && json_object_get(result, "passed") != NULL)
        err = api_get_bool(result, "passed", &passed, failure);
    if (err == 0)
        err = api_get_string(result, "reason", &reason, failure);
    return err;
}

static int parse_results(struct api_call *call, struct request *ret)
{
    const json_t *result;
    size_t i;
    int err;

    if (json_object_get(call->body, "results") == NULL)
        return 0;
    err = api_get_array(call->body, "results", &ret->results, &call->failure);
    json_array_foreach(ret->results, i, result)
    {
        err = check_result(result, &call->failure);
        if (err < 0)
            break;
    }
    return err;
}

static int parse(struct api_call *call, struct request *ret)
{
    static const char *const names[] = {"worker", "names", "room", "results", "leave", NULL};
    const json_t *name;
    size_t i;
    int err = api_body(call, names);

    if (err == 0)
        err = api_get_string(call->body, "worker", &ret->worker.name, &call->failure);
    if (err == 0)
        err = api_get_array(call->body, "names", &ret->names, &call->failure);
    if (err == 0)
        err = api_get_uint(call->body, "room", ROOM_MAX, &ret->room, &call->failure);
    if (err == 0 && json_object_get(call->body, "leave") != NULL)
        err = api_get_bool(call->body, "leave", &ret->leave, &call->failure);
    if (err == 0)
        err = parse_results(call, ret);
    if (err < 0)
        return err;
    if (ret->worker.name[0] == '\0' || strlen(ret->worker.name) >= PROBE_LUA_WORKER_SIZE)
        return fail(&call->failure, EINVAL, 400, "UpstreamConfFormatError",
                    "\"worker\" must be 1 to %d bytes", PROBE_LUA_WORKER_SIZE - 1);
    json_array_foreach(ret->names, i, name)
    {
        if (!json_is_string(name))
            return fail(&call->failure, EINVAL, 400, "UpstreamConfFormatError",
                        "name %zu is no string", i + 1);
    }
    ret->worker.pid = call->request->client->local ? call->request->client->pid : 0;
    return 0;
}

static void take_results(struct prober *prober, const struct request *request)
{
    struct failure failure;
    const json_t *result;
    size_t i;

    json_array_foreach(request->results, i, result)
    {
        const json_t *passed = json_object_get(result, "passed");
        uint64_t number = 0;

        api_get_uint(result, "check", UINT64_MAX, &number, &failure); /* as it was found right */
        probe_lua_done(prober, &request->worker, number,
                       passed == NULL         ? PROBE_UNDECIDED
                       : json_is_true(passed) ? PROBE_PASSED
                                              : PROBE_FAILED,
                       json_string_value(json_object_get(result, "reason")));
    }
}

static bool has_name(const json_t *names, const char *name)
{
    const json_t *item;
    size_t i;

    json_array_foreach(names, i, item)
    {
        if (strcmp(json_string_value(item), name) == 0)
            return true;
    }
    return false;
}

/* The checks of the monitor that are due, as many as there is room for; NULL if there are none. */
static json_t *checks_json(struct prober *prober, const struct check *check, uint64_t *room)
{
    struct probe_lua_check due;
    json_t *checks = NULL;
    char address[DURPINA_NAME_SIZE];

    while (*room > 0 && probe_lua_take(prober, check, &due)) {
        (*room)--;
        addr_format(due.addr, address, sizeof(address));
        if (checks == NULL)
            checks = json_array();
        json_array_append_new(checks, json_pack("{sI ss ss}", "check", (json_int_t) due.number,
                                                "peer", due.host, "address", address));
    }
    return checks;
}

static void offer(struct api_call *call, struct request *request, const struct upstream *upstream,
                  uint32_t *next_ms)
{
    struct prober *prober = engine_prober(call->api->engine);

    for (size_t i = 0; i < upstream->n_monitors; i++) {
        const struct monitor *monitor = upstream->monitors[i];
        const struct check *check = monitor->check;
        uint64_t term;
        uint32_t ms;
        json_t *checks;

        if (check->type != CHECK_LUA || !has_name(request->names, monitor->name))
            continue;
        term = probe_lua_claim(prober, check, &request->worker);
        ms = probe_lua_next_ms(check, term != 0);
        *next_ms = ms < *next_ms ? ms : *next_ms;
        checks = term == 0 ? NULL : checks_json(prober, check, &request->room);
        if (checks != NULL)
            json_array_append_new(json_object_get(call->result, "monitors"),
                                  json_pack("{ss ss ss sI sI sO so}", "upstream", upstream->name,
                                            "id", monitor->id, "name", monitor->name, "term",
                                            (json_int_t) term, "timeout_ms",
                                            (json_int_t) check->timeout_ms, "options",
                                            monitor->options, "checks", checks));
    }
}

static int post_lua(struct api_call *call)
{
    const struct model *model = engine_model(call->api->engine);
    struct prober *prober = engine_prober(call->api->engine);
    struct request request = {0};
    uint32_t next_ms = PROBE_LUA_OTHERS_MAX_MS;
    int err = parse(call, &request);

    if (err < 0)
        return err;
    call->by_clock = true;
    take_results(prober, &request);
    call->result = json_pack("{s[]}", "monitors");
    if (request.leave)
        probe_lua_leave(prober, &request.worker);
    for (const struct upstream *u = model->upstreams; u != NULL && !request.leave; u = u->hh.next)
        offer(call, &request, u, &next_ms);
    json_object_set_new(call->result, "next_ms", json_integer(next_ms));
    return 0;
}

const struct api_route api_lua_routes[] = {
    {"durpina/lua", {[API_POST] = post_lua}, false, false},
    {NULL, {NULL}, false, false},
};
