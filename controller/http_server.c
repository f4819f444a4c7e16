/* SPDX-License-Identifier: MIT */
#include "http_server.h"

#include <errno.h>
#include <limits.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "log.h"

#define LISTENERS_MAX 16
#define GROUPS_MAX 256
/* How long accept() rests when the process has no descriptor left. */
#define ACCEPT_PAUSE_MS 100
/* Connections over a limit are logged once in so long. */
#define DROP_LOG_MS 10000

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

/* One request, from its first line to the end of its answer. */
struct exchange {
    char *target;
    char *body;
    size_t body_len;
    size_t body_size;
    size_t body_max;
    bool started; /* its headers have been seen */
    bool wanted;
    bool too_large;
};

struct http_server {
    uv_loop_t *loop;
    struct http_handler handler;
    struct http_limits limits;
    struct http_stats stats;
    struct MHD_Daemon *daemon;
    uv_poll_t epoll;   /* libmicrohttpd's epoll descriptor */
    uv_timer_t again;  /* when libmicrohttpd wants to be run without an event */
    uv_timer_t resume; /* accept again */
    struct listener listeners[LISTENERS_MAX];
    size_t n_listeners;
    struct connection *connections;
    struct connection *adding; /* handed to libmicrohttpd right now */
    struct log_throttle drops;
    unsigned open_handles;
};

/* --- the loop --------------------------------------------------------------------------------- */

static void run(struct http_server *server);

static void on_again(uv_timer_t *timer)
{
    run(timer->data);
}

static void on_epoll(uv_poll_t *poll, int status, int events)
{
    (void) status;
    (void) events;
    run(poll->data);
}

static void run(struct http_server *server)
{
    MHD_UNSIGNED_LONG_LONG timeout_ms;

    MHD_run(server->daemon);
    if (MHD_get_timeout(server->daemon, &timeout_ms) == MHD_YES)
        uv_timer_start(&server->again, on_again, timeout_ms, 0);
    else
        uv_timer_stop(&server->again);
}

/* --- connections ------------------------------------------------------------------------------ */

static void on_deadline(uv_timer_t *timer)
{
    struct connection *connection = timer->data;

    /* libmicrohttpd sees the end of the connection and closes it. */
    shutdown(connection->client.fd, SHUT_RDWR);
}

static void set_deadline(struct connection *connection, uint32_t timeout_ms)
{
    uv_timer_start(&connection->deadline, on_deadline, timeout_ms, 0);
}

static void free_connection(uv_handle_t *handle)
{
    free(handle->data);
}

static void on_connection(void *cls, struct MHD_Connection *mhd, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct http_server *server = cls;
    struct connection *connection;

    (void) mhd;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        *context = server->adding;
        server->adding = NULL;
        return;
    }
    connection = *context;
    *connection->link = connection->next;
    if (connection->next != NULL)
        connection->next->link = connection->link;
    server->stats.connections--;
    uv_close((uv_handle_t *) &connection->deadline, free_connection);
}

static struct connection *connection_of(struct MHD_Connection *mhd)
{
    return MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

static bool is_full(const struct http_server *server, const struct http_client *client)
{
    uint32_t held = 0;

    for (const struct connection *c = server->connections; c != NULL; c = c->next)
        held +=
            c->client.local == client->local && (!client->local || c->client.uid == client->uid);
    return held >= server->limits.max_connections ||
           server->stats.connections >= HTTP_CONNECTIONS_MAX;
}

/* Closes a connection that cannot be served. */
static void drop(struct http_server *server, const struct http_client *client, const char *why)
{
    char skipped[LOG_SKIPPED_SIZE];

    server->stats.dropped++;
    if (log_throttle(&server->drops, uv_now(server->loop), DROP_LOG_MS, skipped)) {
        if (client->local)
            log_warn("API: a connection of uid %u (pid %d) is closed: %s%s", (unsigned) client->uid,
                     (int) client->pid, why, skipped);
        else
            log_warn("API: a connection over TCP is closed: %s%s", why, skipped);
    }
    close(client->fd);
}

static int identify(int fd, const struct listener *listener, struct http_client *ret)
{
    struct ucred cred;
    socklen_t len = sizeof(cred);
    int domain;
    socklen_t int_len = sizeof(domain);

    *ret = (struct http_client){.fd = fd, .writable = listener->writable};
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &int_len) < 0)
        return -errno;
    if (domain != AF_UNIX)
        return 0;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
        return -errno;
    ret->local = true;
    ret->uid = cred.uid;
    ret->gid = cred.gid;
    ret->pid = cred.pid;
    return 0;
}

/* Takes over fd. */
static void add_connection(struct http_server *server, const struct listener *listener, int fd)
{
    /* libmicrohttpd wants an address of the client and does nothing with it here. */
    const struct sockaddr nobody = {.sa_family = AF_UNIX};
    struct connection *connection;
    struct http_client client;

    if (identify(fd, listener, &client) < 0) {
        drop(server, &client, "it is unknown whose it is");
        return;
    }
    if (is_full(server, &client)) {
        drop(server, &client, "it is over the limit (max_connections)");
        return;
    }
    connection = calloc(1, sizeof(*connection));
    if (connection == NULL) {
        drop(server, &client, "out of memory");
        return;
    }
    connection->client = client;
    uv_timer_init(server->loop, &connection->deadline);
    connection->deadline.data = connection;
    connection->next = server->connections;
    connection->link = &server->connections;
    if (connection->next != NULL)
        connection->next->link = &connection->next;
    server->connections = connection;
    server->stats.connections++;
    server->stats.accepted++;
    set_deadline(connection, server->limits.request_timeout_ms);

    server->adding = connection;
    MHD_add_connection(server->daemon, fd, &nobody, sizeof(nobody));
    if (server->adding != NULL) { /* refused before it was started; fd is closed */
        void *context = connection;

        server->adding = NULL;
        on_connection(server, NULL, &context, MHD_CONNECTION_NOTIFY_CLOSED);
    }
}

static void on_resume(uv_timer_t *timer);

static void on_acceptable(uv_poll_t *poll, int status, int events)
{
    struct listener *listener = poll->data;
    struct http_server *server = listener->server;
    int fd;

    (void) status;
    (void) events;
    while ((fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
        add_connection(server, listener, fd);
    if (errno == EMFILE || errno == ENFILE) {
        /* The waiting connection keeps the descriptor readable: do not spin on it. */
        uv_poll_stop(poll);
        uv_timer_start(&server->resume, on_resume, ACCEPT_PAUSE_MS, 0);
    }
    run(server);
}

static void on_resume(uv_timer_t *timer)
{
    struct http_server *server = timer->data;

    for (size_t i = 0; i < server->n_listeners; i++)
        uv_poll_start(&server->listeners[i].poll, UV_READABLE, on_acceptable);
}

bool http_client_in_group(const struct http_client *client, gid_t gid)
{
    gid_t groups[GROUPS_MAX];
    socklen_t len = sizeof(groups);

    if (!client->local)
        return false;
    if (client->gid == gid)
        return true;
    if (getsockopt(client->fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) < 0)
        return false;
    for (size_t i = 0; i < len / sizeof(groups[0]); i++)
        if (groups[i] == gid)
            return true;
    return false;
}

/* --- requests --------------------------------------------------------------------------------- */

/* Called with the request line; what it returns comes back as *con_cls. */
static void *on_request_line(void *cls, const char *uri, struct MHD_Connection *mhd)
{
    struct http_server *server = cls;
    struct exchange *exchange = calloc(1, sizeof(*exchange));

    set_deadline(connection_of(mhd), server->limits.request_timeout_ms);
    if (exchange == NULL)
        return NULL;
    exchange->target = strdup(uri);
    if (exchange->target == NULL) {
        free(exchange);
        return NULL;
    }
    server->stats.busy++;
    return exchange;
}

static void on_completed(void *cls, struct MHD_Connection *mhd, void **con_cls,
                         enum MHD_RequestTerminationCode code)
{
    struct http_server *server = cls;
    struct exchange *exchange = *con_cls;

    if (code == MHD_REQUEST_TERMINATED_COMPLETED_OK)
        set_deadline(connection_of(mhd), HTTP_KEEPALIVE_MS);
    if (exchange == NULL)
        return;
    server->stats.busy--;
    free(exchange->target);
    free(exchange->body);
    free(exchange);
    *con_cls = NULL;
}

/* An answer that is being made. */
struct streaming {
    struct http_stream stream;
    struct http_server *server;
    struct MHD_Connection *mhd;
};

static ssize_t on_more(void *cls, uint64_t at, char *buffer, size_t size)
{
    struct streaming *streaming = cls;
    size_t n = streaming->stream.read(streaming->stream.user, buffer, size);

    (void) at;
    set_deadline(connection_of(streaming->mhd), streaming->server->limits.request_timeout_ms);
    return n > 0 ? (ssize_t) n : MHD_CONTENT_READER_END_OF_STREAM;
}

static void on_streamed(void *cls)
{
    struct streaming *streaming = cls;

    streaming->stream.close(streaming->stream.user);
    free(streaming);
}

/* NULL: out of memory, and the stream is closed. */
static struct MHD_Response *start_stream(struct http_server *server, struct MHD_Connection *mhd,
                                         const struct http_stream *stream)
{
    struct streaming *streaming = malloc(sizeof(*streaming));
    struct MHD_Response *out;

    if (streaming == NULL) {
        stream->close(stream->user);
        return NULL;
    }
    *streaming = (struct streaming){*stream, server, mhd};
    out = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, HTTP_STREAM_SIZE, on_more, streaming,
                                            on_streamed);
    if (out == NULL)
        on_streamed(streaming);
    return out;
}

static enum MHD_Result answer(struct http_server *server, struct MHD_Connection *mhd,
                              const struct http_request *request)
{
    struct http_response response = {.status = MHD_HTTP_INTERNAL_SERVER_ERROR};
    struct MHD_Response *out;
    enum MHD_Result result = MHD_NO;

    server->handler.handle(server->handler.user, request, &response);
    if (response.stream.read != NULL)
        out = start_stream(server, mhd, &response.stream);
    else
        out = MHD_create_response_from_buffer(response.body_len, response.body,
                                              MHD_RESPMEM_MUST_FREE);
    if (out == NULL) {
        free(response.body);
    } else {
        MHD_add_response_header(out, MHD_HTTP_HEADER_CONTENT_TYPE,
                                response.stream.read != NULL ? response.stream.content_type
                                                             : "application/json");
        MHD_add_response_header(out, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
        if (response.allow != NULL)
            MHD_add_response_header(out, MHD_HTTP_HEADER_ALLOW, response.allow);
        if (response.location != NULL)
            MHD_add_response_header(out, MHD_HTTP_HEADER_LOCATION, response.location);
        result = MHD_queue_response(mhd, response.status, out);
        MHD_destroy_response(out);
    }
    free(response.allow);
    free(response.location);
    set_deadline(connection_of(mhd), server->limits.request_timeout_ms);
    return result;
}

/* Grows by doubling, up to the limit; beyond it the body is dropped and the rest not stored. */
static int append(struct exchange *exchange, const char *data, size_t len)
{
    if (len > exchange->body_max - exchange->body_len) {
        free(exchange->body);
        exchange->body = NULL;
        exchange->body_len = exchange->body_size = 0;
        exchange->too_large = true;
        return 0;
    }
    if (len > exchange->body_size - exchange->body_len) {
        size_t size = exchange->body_size == 0 ? 4096 : exchange->body_size * 2;

        while (size < exchange->body_len + len)
            size *= 2;

        char *body = realloc(exchange->body, size);

        if (body == NULL)
            return -ENOMEM;
        exchange->body = body;
        exchange->body_size = size;
    }
    memcpy(exchange->body + exchange->body_len, data, len);
    exchange->body_len += len;
    return 0;
}

/* Called after the headers, for each part of the body, and at the end of the request. */
static enum MHD_Result on_request(void *cls, struct MHD_Connection *mhd, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *len, void **con_cls)
{
    struct http_server *server = cls;
    struct exchange *exchange = *con_cls;
    struct http_request request;
    const char *length;

    (void) url; /* decoded already: "a%2Fb" cannot be told from "a/b" */
    (void) version;
    if (exchange == NULL)
        return MHD_NO;

    request = (struct http_request){
        .client = &connection_of(mhd)->client,
        .method = method,
        .target = exchange->target,
        .token = MHD_lookup_connection_value(mhd, MHD_HEADER_KIND, "Durpina-Token"),
    };
    if (!exchange->started) {
        exchange->started = true;
        exchange->body_max = server->limits.max_body;
        exchange->wanted = server->handler.wants_body(server->handler.user, &request);
        length = MHD_lookup_connection_value(mhd, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
        if (length != NULL && strtoull(length, NULL, 10) > exchange->body_max) {
            request.body_too_large = true;
            return answer(server, mhd, &request);
        }
        return MHD_YES;
    }
    if (*len != 0) {
        if (exchange->wanted && !exchange->too_large && append(exchange, data, *len) < 0)
            return MHD_NO;
        *len = 0;
        return MHD_YES;
    }
    request.body = exchange->body;
    request.body_len = exchange->body_len;
    request.body_too_large = exchange->too_large;
    return answer(server, mhd, &request);
}

/* --- life ------------------------------------------------------------------------------------- */

static void on_closed(uv_handle_t *handle)
{
    struct http_server *server = handle->data;

    if (--server->open_handles == 0)
        free(server);
}

static void on_listener_closed(uv_handle_t *handle)
{
    struct listener *listener = handle->data;

    close(listener->fd);
    handle->data = listener->server;
    on_closed(handle);
}

int http_server_create(uv_loop_t *loop, const struct http_handler *handler,
                       const struct http_limits *limits, struct http_server **ret)
{
    struct http_server *server = calloc(1, sizeof(*server));
    const union MHD_DaemonInfo *info;

    if (server == NULL)
        return -ENOMEM;
    server->loop = loop;
    server->handler = *handler;
    server->limits = *limits;
    server->daemon =
        MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET, 0, NULL, NULL, on_request,
                         server, MHD_OPTION_URI_LOG_CALLBACK, on_request_line, server,
                         MHD_OPTION_NOTIFY_COMPLETED, on_completed, server,
                         MHD_OPTION_NOTIFY_CONNECTION, on_connection, server,
                         MHD_OPTION_CONNECTION_LIMIT, (unsigned) HTTP_CONNECTIONS_MAX,
                         MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t) HTTP_HEADERS_SIZE,
                         MHD_OPTION_END);
    info = server->daemon == NULL ? NULL
                                  : MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    if (info == NULL) {
        if (server->daemon != NULL)
            MHD_stop_daemon(server->daemon);
        free(server);
        return -ENOMEM;
    }
    uv_poll_init(loop, &server->epoll, info->epoll_fd);
    uv_timer_init(loop, &server->again);
    uv_timer_init(loop, &server->resume);
    server->epoll.data = server->again.data = server->resume.data = server;
    server->open_handles = 3;
    uv_poll_start(&server->epoll, UV_READABLE, on_epoll);
    *ret = server;
    return 0;
}

int http_server_listen(struct http_server *server, int fd, bool writable)
{
    struct listener *listener = &server->listeners[server->n_listeners];
    int err;

    if (server->n_listeners == LISTENERS_MAX)
        return -E2BIG;
    err = uv_poll_init(server->loop, &listener->poll, fd);
    if (err < 0)
        return err;
    listener->server = server;
    listener->fd = fd;
    listener->writable = writable;
    listener->poll.data = listener;
    server->n_listeners++;
    server->open_handles++;
    return uv_poll_start(&listener->poll, UV_READABLE, on_acceptable);
}

void http_server_set_limits(struct http_server *server, const struct http_limits *limits)
{
    server->limits = *limits;
}

struct http_stats http_server_stats(const struct http_server *server)
{
    return server->stats;
}

void http_server_destroy(struct http_server *server)
{
    if (server == NULL)
        return;
    for (size_t i = 0; i < server->n_listeners; i++)
        uv_close((uv_handle_t *) &server->listeners[i].poll, on_listener_closed);
    uv_poll_stop(&server->epoll);
    MHD_stop_daemon(server->daemon);
    uv_close((uv_handle_t *) &server->epoll, on_closed);
    uv_close((uv_handle_t *) &server->again, on_closed);
    uv_close((uv_handle_t *) &server->resume, on_closed);
}
