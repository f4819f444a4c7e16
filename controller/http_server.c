/* SPDX-License-Identifier: MIT */
#include "http_internal.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "log.h"

#define GROUPS_MAX 256
/* How long accept() rests when the process has no descriptor left. */
#define ACCEPT_PAUSE_MS 100
/* Connections over a limit are logged once in so long. */
#define DROP_LOG_MS 10000

/* --- the loop --------------------------------------------------------------------------------- */

static void run(struct http_server *server);

static void on_again(uv_timer_t *timer)
{
    run(timer->data);
}

static void on_soon(uv_idle_t *idle)
{
    run(idle->data);
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
    bool wants;

    MHD_run(server->daemon);
    wants = MHD_get_timeout(server->daemon, &timeout_ms) == MHD_YES;
    uv_timer_stop(&server->again);
    uv_idle_stop(&server->soon);
    if (wants && timeout_ms == 0)
        uv_idle_start(&server->soon, on_soon);
    else if (wants)
        uv_timer_start(&server->again, on_again, timeout_ms, 0);
}

/* --- connections ------------------------------------------------------------------------------ */

static void on_deadline(uv_timer_t *timer)
{
    struct connection *connection = timer->data;

    /* libmicrohttpd sees the end of the connection and closes it. */
    shutdown(connection->client.fd, SHUT_RDWR);
}

void http_set_deadline(struct connection *connection, uint32_t timeout_ms)
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

struct connection *http_connection(struct MHD_Connection *mhd)
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
    http_set_deadline(connection, server->limits.request_timeout_ms);

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
        MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET, 0, NULL, NULL, http_on_request,
                         server, MHD_OPTION_URI_LOG_CALLBACK, http_on_request_line, server,
                         MHD_OPTION_NOTIFY_COMPLETED, http_on_completed, server,
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
    uv_idle_init(loop, &server->soon);
    uv_timer_init(loop, &server->resume);
    server->epoll.data = server->again.data = server->soon.data = server->resume.data = server;
    server->open_handles = 4;
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
    uv_close((uv_handle_t *) &server->soon, on_closed);
    uv_close((uv_handle_t *) &server->resume, on_closed);
}
