/* SPDX-License-Identifier: MIT */
/* What main.c wires together. */
#ifndef DURPINAD_DAEMON_H
#define DURPINAD_DAEMON_H

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#include "bpf_state.h"
#include "config.h"
#include "privileges.h"

struct listener {
    int fd;
    bool writable;
};

/* All of it in the order of creation. */
struct daemon {
    struct invocation invocation;
    struct config config; /* in force */
    struct privileges_user user;
    struct state_file *state_file; /* its directory is open: later it may be out of reach */
    struct listener listeners[1 + CONFIG_LISTEN_MAX];
    size_t n_listeners;
    bool socket_is_ours; /* its file is to be removed at the end */
    bool maps_open;
    struct bpf_state maps;
    struct programs *programs;
    uv_loop_t loop;
    struct inflight *inflight;
    struct prober *prober;
    struct resolver *resolver;
    struct engine *engine;
    struct events *events;
    struct kernel_health *health;
    struct api *api;
    struct http_server *server;
    uv_signal_t signals[3];
};

/*
 * Opens state file, sockets and maps, attaches the programs and gives up root for daemon->user, as
 * daemon->config says. What was opened is the daemon's, also on failure. 0, or an exit code after a
 * line in the log.
 */
int daemon_open(struct daemon *daemon);

#endif
