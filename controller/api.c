/* SPDX-License-Identifier: MIT */
#include "api.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "api_call.h"

#define VERSION_MIN 1
#define VERSION_MAX 9
#define HREF "docs/api.md"
/* Refused changes are logged once in so long. */
#define REFUSAL_LOG_MS 1000

static const char *const method_words[API_METHODS] = {"GET", "POST", "PUT", "PATCH", "DELETE"};

static api_handler get_endpoints;

/* What lies at the version itself. */
static const struct api_route root_routes[] = {
    {"", {[API_GET] = get_endpoints}, false, false},
    {NULL, {NULL}, false, false},
};

static const struct api_route *const tables[] = {
    root_routes,       api_upstreams_routes, api_durpina_routes, api_lua_routes,
    api_health_routes, api_kernel_routes,    api_vip_routes,
};
#define N_TABLES (sizeof(tables) / sizeof(tables[0]))

/* --- routes ----------------------------------------------------------------------------------- */

static const struct api_route *find_route(const struct api_part *parts, int n,
                                          char args[API_ARGS_MAX][API_ARG_SIZE])
{
    for (size_t t = 0; t < N_TABLES; t++)
        for (const struct api_route *route = tables[t]; route->path != NULL; route++)
            if (api_path_matches(route->path, parts, n, args))
                return route;
    return NULL;
}

/* HEAD is GET without a body, which the server leaves out. */
static int find_method(const char *word)
{
    if (strcmp(word, "HEAD") == 0)
        return API_GET;
    for (int i = 0; i < API_METHODS; i++)
        if (strcmp(word, method_words[i]) == 0)
            return i;
    return -1;
}

/* --- who may ---------------------------------------------------------------------------------- */

static bool has_id(const struct config_ids *ids, uint32_t id)
{
    for (size_t i = 0; i < ids->n; i++)
        if (ids->ids[i] == id)
            return true;
    return false;
}

static bool may_change(const struct api *api, const struct http_request *request, bool root_only)
{
    const struct http_client *client = request->client;

    if (!client->local)
        return client->writable && !root_only;
    if (client->uid == 0)
        return true;
    if (root_only)
        return false;
    if (has_id(&api->config->allow_users, client->uid))
        return true;
    for (size_t i = 0; i < api->config->allow_groups.n; i++)
        if (http_client_in_group(client, api->config->allow_groups.ids[i]))
            return true;
    return request->token != NULL &&
           engine_authorize_worker(api->engine, client->uid, request->token);
}

/* Anybody may send as many of them as he likes. */
static void log_refusal(struct api_call *call, const struct api_route *route)
{
    const struct http_request *request = call->request;
    const struct http_client *client = request->client;
    char skipped[LOG_SKIPPED_SIZE];

    if (!log_throttle(&call->api->refusals, call->now.monotonic_ms, REFUSAL_LOG_MS, skipped))
        return;
    if (!client->local)
        log_warn("API: %s %s over TCP is refused: %s%s", request->method, request->target,
                 route->root_only ? "it is root's, on the control socket"
                                  : "this listen address is read-only",
                 skipped);
    else
        log_warn("API: %s %s is refused: uid %u (pid %d) may not change anything; see allow_user "
                 "and allow_group%s",
                 request->method, request->target, (unsigned) client->uid, (int) client->pid,
                 skipped);
}

static int refuse_change(struct api_call *call, const struct api_route *route)
{
    const struct http_client *client = call->request->client;

    log_refusal(call, route);
    if (!client->local)
        return fail(&call->failure, EACCES, 403, "Forbidden",
                    "changes are not accepted at this address: use the control socket");
    return fail(&call->failure, EACCES, 403, "Forbidden",
                route->root_only ? "only root may do this; you are uid %u"
                                 : "uid %u may not change anything: be root, or have your user or "
                                   "group put into allow_user or allow_group of durpinad.conf",
                (unsigned) client->uid);
}

/* --- a request -------------------------------------------------------------------------------- */

/* Everything that is known before the body: route, method, permission. */
struct target {
    const struct api_route *route; /* NULL: GET /api/ */
    int method;
};

static int get_versions(struct api_call *call)
{
    call->result = json_array();
    for (int version = VERSION_MIN; version <= VERSION_MAX; version++)
        json_array_append_new(call->result, json_integer(version));
    return 0;
}

static const struct api_route versions_route = {"", {[API_GET] = get_versions}, false, false};

/* Where Prometheus looks for it. */
static const struct api_route metrics_route = {"", {[API_GET] = api_get_metrics}, false, false};

static void list_methods(const struct api_route *route, char *ret, size_t size)
{
    size_t at = 0;

    for (int i = 0; i < API_METHODS; i++)
        if (route->handlers[i] != NULL)
            at += (size_t) snprintf(ret + at, size - at, "%s%s%s", at > 0 ? ", " : "",
                                    method_words[i], i == API_GET ? ", HEAD" : "");
}

/* 0, or -errno with call->failure filled. */
static int locate(struct api_call *call, struct target *ret)
{
    const struct http_request *request = call->request;
    struct api_part parts[API_PARTS_MAX];
    int n = api_split_path(request->target, parts);
    const struct api_route *route = NULL;

    if (n == 1 && api_part_is(&parts[0], "metrics")) {
        route = &metrics_route;
    } else if (n >= 1 && api_part_is(&parts[0], "api")) {
        if (n == 1)
            route = &versions_route;
        else if (parts[1].len == 1 && parts[1].text[0] >= '0' + VERSION_MIN &&
                 parts[1].text[0] <= '0' + VERSION_MAX)
            route = find_route(parts + 2, n - 2, call->args);
    }
    if (route == NULL)
        return fail(&call->failure, ENOENT, 404, "PathNotFound", "there is no \"%.150s\"",
                    request->target);
    ret->route = route;
    ret->method = find_method(request->method);
    if (ret->method < 0 || route->handlers[ret->method] == NULL)
        return fail(&call->failure, EINVAL, 405, "MethodDisabled", "%.16s is not possible here",
                    request->method);
    return 0;
}

/* Parses the body, if there is one, into call->body. */
static int parse_body(struct api_call *call)
{
    const struct http_request *request = call->request;
    json_error_t error;

    if (request->body_too_large)
        return fail(&call->failure, EMSGSIZE, 413, "BodyReadError",
                    "the body is larger than max_body_size, %u bytes",
                    (unsigned) call->api->config->max_body_size);
    if (request->body_len == 0)
        return 0;
    call->body = json_loadb(request->body, request->body_len, JSON_REJECT_DUPLICATES, &error);
    if (call->body == NULL)
        return fail(&call->failure, EINVAL, 415, "JsonError", "line %d, column %d: %s", error.line,
                    error.column, error.text);
    if (!json_is_object(call->body))
        return fail(&call->failure, EINVAL, 400, "UpstreamConfFormatError",
                    "the body is no JSON object");
    return 0;
}

int api_body(struct api_call *call, const char *const *names)
{
    if (call->body == NULL)
        return fail(&call->failure, EINVAL, 415, "JsonError", "a JSON object is expected as body");
    return names == NULL ? 0 : api_check_fields(call->body, names, &call->failure);
}

int api_answer_servers(struct api_call *call)
{
    const struct upstream *upstream =
        model_upstream(engine_model(call->api->engine), call->args[0]);

    call->result =
        upstream == NULL ? json_array() : api_servers_json(upstream, &call->maps, &call->now);
    return 0;
}

struct upstream *api_upstream(struct api_call *call)
{
    struct upstream *upstream = model_upstream(engine_model(call->api->engine), call->args[0]);

    if (upstream == NULL)
        fail(&call->failure, ENOENT, 404, "UpstreamNotFound", "there is no upstream \"%.128s\"",
             call->args[0]);
    return upstream;
}

struct server *api_server(struct api_call *call, uint32_t *ret_id)
{
    struct upstream *upstream = api_upstream(call);
    struct server *server;
    const char *text = call->args[1];
    unsigned long id;
    char *end;

    if (upstream == NULL)
        return NULL;
    errno = 0;
    id = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || id > UINT32_MAX) {
        fail(&call->failure, EINVAL, 400, "UpstreamBadServerId", "\"%.64s\" is no server id", text);
        return NULL;
    }
    server = model_server_by_id(upstream, (uint32_t) id);
    if (server == NULL) {
        fail(&call->failure, ENOENT, 404, "UpstreamServerNotFound",
             "upstream \"%.64s\" has no server with id %lu", upstream->name, id);
        return NULL;
    }
    *ret_id = (uint32_t) id;
    return server;
}

/* GET /api/VERSION/: the first parts of all paths, each once. */
static int get_endpoints(struct api_call *call)
{
    call->result = json_array();
    for (size_t t = 0; t < N_TABLES; t++) {
        for (const struct api_route *route = tables[t]; route->path != NULL; route++) {
            size_t len = strcspn(route->path, "/");
            bool known = len == 0;
            const json_t *name;
            size_t i;

            json_array_foreach(call->result, i, name)
            {
                known = known || (json_string_length(name) == len &&
                                  strncmp(json_string_value(name), route->path, len) == 0);
            }
            if (!known)
                json_array_append_new(call->result, json_stringn(route->path, len));
        }
    }
    return 0;
}

/* --- ?fields= --------------------------------------------------------------------------------- */

static json_t *names_of(const json_t *object)
{
    json_t *names = json_array();
    const char *key;
    json_t *member;

    json_object_foreach((json_t *) object, key, member)
    {
        json_array_append_new(names, json_string(key));
    }
    return names;
}

static void filter(struct api_call *call, const struct api_route *route)
{
    char buffer[1024];
    const char *fields[API_FIELDS_MAX], *key;
    int n = api_parse_fields(call->request->target, buffer, sizeof(buffer), fields);
    json_t *member, *names;

    if (n < 0)
        return;
    if (!route->keyed) {
        api_keep_fields(call->result, fields, n);
    } else if (n == 0) {
        /* As NGINX Plus: an empty list asks for the names alone. */
        names = names_of(call->result);
        json_decref(call->result);
        call->result = names;
    } else {
        json_object_foreach(call->result, key, member)
        {
            api_keep_fields(member, fields, n);
        }
    }
}

/* --- answers ---------------------------------------------------------------------------------- */

static void make_request_id(char ret[33])
{
    static const char digits[] = "0123456789abcdef";
    unsigned char bytes[16] = {0};

    if (getrandom(bytes, sizeof(bytes), GRND_NONBLOCK) < 0)
        memset(bytes, 0, sizeof(bytes)); /* it only helps to find a log line */
    for (size_t i = 0; i < sizeof(bytes); i++) {
        ret[2 * i] = digits[bytes[i] >> 4];
        ret[2 * i + 1] = digits[bytes[i] & 15];
    }
    ret[32] = '\0';
}

static json_t *failure_json(const struct failure *failure)
{
    char id[33];

    make_request_id(id);
    return json_pack("{s{si ss ss} ss ss}", "error", "status", (int) failure->status, "text",
                     failure->text, "code", failure->code, "request_id", id, "href", HREF);
}

static void respond(struct api_call *call, struct http_response *ret)
{
    ret->status = call->status;
    ret->stream = call->stream;
    if (call->stream.read != NULL)
        return;
    if (call->result != NULL)
        ret->body = json_dumps(call->result, JSON_COMPACT | JSON_REAL_PRECISION(15));
    if (ret->body == NULL) {
        ret->status = 500;
        return;
    }
    ret->body_len = strlen(ret->body);
    if (call->location[0] != '\0')
        ret->location = strdup(call->location);
}

static int run(struct api_call *call, struct http_response *ret)
{
    struct target target = {NULL, -1};
    char methods[64];
    int err = locate(call, &target);

    if (err < 0) {
        if (target.route != NULL) {
            list_methods(target.route, methods, sizeof(methods));
            ret->allow = strdup(methods);
        }
        return err;
    }
    if (target.method != API_GET && !may_change(call->api, call->request, target.route->root_only))
        return refuse_change(call, target.route);
    err = parse_body(call);
    if (err < 0)
        return err;
    err = target.route->handlers[target.method](call);
    if (err == 0 && target.method == API_GET && call->result != NULL)
        filter(call, target.route);
    if (target.method != API_GET && !call->by_clock)
        log_info("API: %s %s by uid %d (pid %d): %s", call->request->method, call->request->target,
                 call->request->client->local ? (int) call->request->client->uid : -1,
                 (int) call->request->client->pid, err == 0 ? "done" : call->failure.text);
    return err;
}

static void handle(void *user, const struct http_request *request, struct http_response *ret)
{
    struct api *api = user;
    struct api_call call = {
        .api = api,
        .request = request,
        .maps = bpf_state_maps(api->maps),
        .now = api_clock_now(),
        .status = 200,
    };

    if (run(&call, ret) < 0) {
        json_decref(call.result);
        call.status = call.failure.status;
        call.location[0] = '\0';
        call.result = failure_json(&call.failure);
    }
    respond(&call, ret);
    json_decref(call.result);
    json_decref(call.body);
}

/* A body that will be refused anyway is not stored. */
static bool wants_body(void *user, const struct http_request *request)
{
    struct api_call call = {.api = user, .request = request};
    struct target target = {NULL, -1};

    return locate(&call, &target) == 0 && target.method != API_GET &&
           may_change(call.api, request, target.route->root_only);
}

/* --- life ------------------------------------------------------------------------------------- */

int api_create(const struct api_options *options, struct api **ret)
{
    struct api *api = calloc(1, sizeof(*api));

    if (api == NULL)
        return -ENOMEM;
    api->engine = options->engine;
    api->maps = options->maps;
    api->config = options->config;
    api->programs = options->programs;
    api->health = options->health;
    api->events = options->events;
    api_count_reload(api);
    *ret = api;
    return 0;
}

void api_destroy(struct api *api)
{
    free(api);
}

struct http_handler api_http_handler(struct api *api)
{
    return (struct http_handler){.wants_body = wants_body, .handle = handle, .user = api};
}

void api_set_server(struct api *api, const struct http_server *server)
{
    api->server = server;
}

void api_count_reload(struct api *api)
{
    api->loads++;
    api->loaded_wall_ms = api_clock_now().wall_ms;
}
