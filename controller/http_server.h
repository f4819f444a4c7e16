/* SPDX-License-Identifier: MIT */
/*
 * An HTTP/1.1 server on the loop: libmicrohttpd reads and writes the protocol, this file accepts,
 * knows who the client is, and enforces the limits libmicrohttpd has not: a deadline for a request
 * as a whole and a number of connections per user. It knows nothing of what is served.
 *
 * Invariants
 *  H1. A request and the wait for its last byte take request_timeout_ms at most, its answer as much
 *      again (each part of one that is made while it is sent), an idle connection
 *      HTTP_KEEPALIVE_MS; then the connection is closed.
 *  H2. One user never holds more than max_connections; the clients over TCP count as one user.
 *  H3. A body is stored only if the handler wants it, and never more than max_body bytes.
 */
#ifndef DURPINAD_HTTP_SERVER_H
#define DURPINAD_HTTP_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

#define HTTP_KEEPALIVE_MS 60000
#define HTTP_HEADERS_SIZE 32768   /* request line and headers */
#define HTTP_STREAM_SIZE 32768    /* what is made of a stream at a time, at most */
#define HTTP_CONNECTIONS_MAX 1024 /* over all users */

struct http_client {
    bool local; /* on a unix socket: the rest is known */
    uid_t uid;
    gid_t gid;
    pid_t pid;
    bool writable; /* of the listener it came by */
    int fd;
};

/* Valid during the call of the handler. */
struct http_request {
    const struct http_client *client;
    const char *method;
    const char *target; /* as sent: path, perhaps '?' and a query, percent-encoded */
    const char *token;  /* Durpina-Token, or NULL */
    const char *body;   /* NULL if it was not wanted or too large */
    size_t body_len;
    bool body_too_large;
};

/* A body that is made while it is sent. */
struct http_stream {
    const char *content_type;
    /* Writes up to size bytes, returns how many; 0: that was all. */
    size_t (*read)(void *user, char *buffer, size_t size);
    /* Once, at the end of the answer. */
    void (*close)(void *user);
    void *user;
};

/* All strings are owned by the response, on the heap, or NULL. */
struct http_response {
    unsigned status;
    char *body; /* JSON */
    size_t body_len;
    char *allow;               /* Allow */
    char *location;            /* Location */
    struct http_stream stream; /* instead of body, if it has a `read` */
};

struct http_handler {
    /* After the headers: is the body to be stored? */
    bool (*wants_body)(void *user, const struct http_request *request);
    /* After the whole request. */
    void (*handle)(void *user, const struct http_request *request, struct http_response *ret);
    void *user;
};

struct http_limits {
    size_t max_body;
    uint32_t request_timeout_ms;
    uint32_t max_connections; /* per user */
};

struct http_stats {
    uint64_t accepted;
    uint64_t dropped;     /* refused for a limit */
    uint64_t connections; /* open now ... */
    uint64_t busy;        /* ... and with a request in hand */
};

struct http_server;

/* 0 or -errno. *limits is copied, the handler too. */
int http_server_create(uv_loop_t *loop, const struct http_handler *handler,
                       const struct http_limits *limits, struct http_server **ret);

/* Serves a listening socket, which it owns from now on. writable: as clients are told apart. */
int http_server_listen(struct http_server *server, int fd, bool writable);

void http_server_set_limits(struct http_server *server, const struct http_limits *limits);
struct http_stats http_server_stats(const struct http_server *server);

/* Closes everything; memory is given back as the loop runs on. NULL is fine. */
void http_server_destroy(struct http_server *server);

/* Is the client in that group, as its own or a supplementary one? */
bool http_client_in_group(const struct http_client *client, gid_t gid);

#endif
