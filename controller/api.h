/* SPDX-License-Identifier: MIT */
/*
 * The control API (docs/api.md): from an HTTP request to a call of the engine and back. A table of
 * routes drives dispatch, the Allow header, and the listing of endpoints.
 *
 *     api_create(&options, &api);
 *     http_server_create(loop, api_http_handler(api), ...);
 */
#ifndef DURPINAD_API_H
#define DURPINAD_API_H

#include "bpf_state.h"
#include "config.h"
#include "engine.h"
#include "events.h"
#include "http_server.h"
#include "kernel_health.h"
#include "programs.h"

struct api;

/* Nothing of it is owned; all of it outlives the api. */
struct api_options {
    struct engine *engine;
    const struct bpf_state *maps;
    const struct config *config; /* as in force: a reload changes it in place */
    /* NULL: nothing is said of it. */
    const struct programs *programs;
    const struct kernel_health *health;
    const struct events *events;
};

/* 0 or -ENOMEM. */
int api_create(const struct api_options *options, struct api **ret);
/* NULL is fine. */
void api_destroy(struct api *api);

struct http_handler api_http_handler(struct api *api);

/* For what the API tells of itself; not owned. */
void api_set_server(struct api *api, const struct http_server *server);
/* A reload was done. */
void api_count_reload(struct api *api);

#endif
