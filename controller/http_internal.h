/* SPDX-License-Identifier: MIT */
/* Between http_server.c, which has the connections, and http_request.c, which has what is asked on
 * them. */
#ifndef DURPINAD_HTTP_INTERNAL_H
#define DURPINAD_HTTP_INTERNAL_H

#include <microhttpd.h>

#include "http_server.h"
#include "log.h"

#define LISTENERS_MAX 16

struct listener {
    uv_poll_t poll;
    struct http_server *server;
    int fd;
    bool writable;
};

struct connection {
    struct http_client client;
    uv_timer_t deadline;
    struct connection *next, **link; /* of all connections */
};

struct http_server {
    uv_loop_t *loop;
    struct http_handler handler;
    struct http_limits limits;
    struct http_stats stats;
    struct MHD_Daemon *daemon;
    uv_poll_t epoll;   /* libmicrohttpd's epoll descriptor */
    uv_timer_t again;  /* when libmicrohttpd wants to be run without an event */
    uv_idle_t soon;    /* when it wants that at once: timers of 0 ms let nothing else have a turn */
    uv_timer_t resume; /* accept again */
    struct listener listeners[LISTENERS_MAX];
    size_t n_listeners;
    struct connection *connections;
    struct connection *adding; /* handed to libmicrohttpd right now */
    struct log_throttle drops;
    unsigned open_handles;
};

struct connection *http_connection(struct MHD_Connection *mhd);
/* The connection is closed after timeout_ms, unless this is called again before. */
void http_set_deadline(struct connection *connection, uint32_t timeout_ms);

/* Callbacks of libmicrohttpd; cls is the server. With the request line; what it returns comes back
 * as *con_cls. */
void *http_on_request_line(void *cls, const char *uri, struct MHD_Connection *mhd);
/* After the headers, for each part of the body, and at the end of the request. */
enum MHD_Result http_on_request(void *cls, struct MHD_Connection *mhd, const char *url,
                                const char *method, const char *version, const char *data,
                                size_t *len, void **con_cls);
/* At the end of the answer. */
void http_on_completed(void *cls, struct MHD_Connection *mhd, void **con_cls,
                       enum MHD_RequestTerminationCode code);

#endif
