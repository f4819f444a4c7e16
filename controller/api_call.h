/* SPDX-License-Identifier: MIT */
/* What the files with routes share; api.c is their caller. */
#ifndef DURPINAD_API_CALL_H
#define DURPINAD_API_CALL_H

#include <jansson.h>
#include <stdint.h>

#include "api.h"
#include "api_json.h"
#include "api_parse.h"
#include "api_target.h"
#include "failure.h"
#include "log.h"
#include "model.h"

struct api {
    struct engine *engine;
    const struct bpf_state *maps;
    const struct config *config;
    const struct http_server *server;
    const struct programs *programs; /* NULL: none is loaded */
    const struct kernel_health *health;
    const struct events *events;
    uint64_t loaded_wall_ms; /* start or last reload */
    uint64_t loads;
    struct log_throttle refusals;
};

struct api_call {
    struct api *api;
    const struct http_request *request;
    char args[API_ARGS_MAX][API_ARG_SIZE]; /* what '*' stood for in the path, decoded */
    json_t *body;                          /* a JSON object, or NULL if there was none; not owned */
    struct durpina_maps maps;
    struct api_clock now;
    /* The answer: */
    unsigned status;           /* 200 unless set */
    json_t *result;            /* owned by the call */
    struct http_stream stream; /* instead of it, if it has a `read` */
    char location[512];        /* "": none */
    bool by_clock;             /* a call that comes time and again, and is not logged */
    struct failure failure;    /* filled if the handler returns an error */
};

/* 0 with call->result set, or -errno with call->failure filled. */
typedef int api_handler(struct api_call *call);

enum api_method { API_GET, API_POST, API_PUT, API_PATCH, API_DELETE, API_METHODS };

struct api_route {
    const char *path; /* behind /api/VERSION/; a part "*" matches anything */
    api_handler *handlers[API_METHODS];
    bool keyed;     /* GET answers {NAME: object}: `fields` picks from each object */
    bool root_only; /* its changes */
};

/* Tables end with a NULL path. */
extern const struct api_route api_upstreams_routes[];
extern const struct api_route api_durpina_routes[];
extern const struct api_route api_lua_routes[];
extern const struct api_route api_health_routes[];
extern const struct api_route api_kernel_routes[];
extern const struct api_route api_vip_routes[];

/* GET /metrics. */
api_handler api_get_metrics;

/* The upstream named by args[0]; NULL with the failure filled. */
struct upstream *api_upstream(struct api_call *call);
/* Likewise, with the server whose id is args[1]. */
struct server *api_server(struct api_call *call, uint32_t *ret_id);
/*
 * -EINVAL unless the request had a body with no other fields than these (ended by NULL; NULL: any).
 */
int api_body(struct api_call *call, const char *const *names);
/* The servers of the upstream named by args[0] as result; none if it is not there. */
int api_answer_servers(struct api_call *call);

/* What the kernel counts of the peer's address, put into object as "kernel"; nothing if it does not
 * count it. */
void api_add_kernel(json_t *object, const struct peer *peer, const struct api_call *call);

#endif
