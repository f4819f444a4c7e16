/* SPDX-License-Identifier: MIT */
/* The HTTP client's requests on the loop: libcurl's multi_socket interface, and what it reads. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "probe_http.h"
#include "read_guard.h"

#define FREE_EVENTS 4 /* of a socket, for which nobody looks how much it has read */

struct http_client {
    struct prober *prober;
    CURLM *multi;
    uv_timer_t timer;
    bool in_timer; /* libcurl is called by it */
    struct trust trust;
};

/* A socket of libcurl's on the loop. */
struct http_socket {
    struct http_client *client;
    struct http_run *run; /* the one request on it, or NULL when that is over */
    uv_poll_t poll;
    curl_socket_t fd;
    unsigned n_events;
    bool is_guarded;
};

enum http_fault {
    FAULT_NONE,
    FAULT_HEADERS, /* over HTTP_HEADERS_MAX */
    FAULT_BODY,    /* over body_max, and no length said */
    FAULT_READ,    /* over HTTP_READ_MAX */
};

struct http_run {
    struct probe_target *target;
    const struct http_kind *kind;
    struct http_request request;
    struct http_socket *socket; /* or NULL */
    size_t n_headers;           /* bytes seen */
    size_t n_body;
    bool complete;         /* judged before the end of the answer */
    enum http_fault fault; /* why a callback gave up */
    int our_err;           /* -errno: what we lacked */
    unsigned grpc_status;
    char *body; /* n_body of it, if the kind keeps it, in body_size bytes */
    size_t body_size;
};

/* A new easy handle costs 1 microsecond, a check 100: none is kept. */
static void run_free(struct http_run *run)
{
    run->target->run = NULL;
    if (run->socket != NULL)
        run->socket->run = NULL;
    if (run->request.easy != NULL)
        curl_multi_remove_handle(run->target->prober->http->multi, run->request.easy);
    http_request_free(&run->request);
    free(run->body);
    free(run);
}

/* Says what was waited for, which a timeout reports. */
static void missing_set(const struct http_run *run)
{
    struct sockaddr_storage peer;
    socklen_t length = sizeof(peer);
    curl_off_t encrypted = 0;

    curl_easy_getinfo(run->request.easy, CURLINFO_APPCONNECT_TIME_T, &encrypted);
    if (run->n_headers > 0)
        run->target->missing = "end of the answer";
    /* libcurl's time of the connection comes with that of the handshake. */
    else if (run->socket == NULL ||
             getpeername(run->socket->fd, (struct sockaddr *) &peer, &length) < 0)
        run->target->missing = "connection";
    else if (run->target->check->http.tls.on && encrypted == 0)
        run->target->missing = "TLS handshake";
    else
        run->target->missing = "answer";
}

void http_check_cancel(struct probe_target *target)
{
    missing_set(target->run);
    run_free(target->run);
}

static void fault_done(struct probe_target *target, enum http_fault fault, size_t body_max)
{
    if (fault == FAULT_HEADERS)
        probe_done(target, target->no_answer, "answer header over %d kB", HTTP_HEADERS_MAX / 1024);
    else if (fault == FAULT_BODY)
        probe_done(target, target->no_answer, "answer of unknown length over %zu KiB",
                   body_max / 1024);
    else
        probe_done(target, target->no_answer, "no end of the answer in %d KiB",
                   HTTP_READ_MAX / 1024);
}

/* The run goes first: whatever is called next may destroy the prober. */
static void judge(struct http_run *run, long status)
{
    struct probe_target *target = run->target;
    const struct http_kind *kind = run->kind;
    const struct http_answer answer = {
        .status = status,
        .body = run->body,
        .n_body = run->n_body < kind->body_max ? run->n_body : kind->body_max,
        .grpc_status = run->grpc_status,
    };
    char *body = run->body;

    run->body = NULL;
    run_free(run);
    kind->judge(target, &answer);
    free(body);
}

static void finish(struct http_run *run, CURLcode code)
{
    struct probe_target *target = run->target;
    const enum http_fault fault = run->fault;
    const size_t body_max = run->kind->body_max;
    const int our_err = run->our_err;
    long status = 0, os_errno = 0, verify_result = 0, version = 0;
    curl_off_t sent = 0;
    char error[CURL_ERROR_SIZE];

    curl_easy_getinfo(run->request.easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(run->request.easy, CURLINFO_OS_ERRNO, &os_errno);
    curl_easy_getinfo(run->request.easy, CURLINFO_SSL_VERIFYRESULT, &verify_result);
    curl_easy_getinfo(run->request.easy, CURLINFO_HTTP_VERSION, &version);
    curl_easy_getinfo(run->request.easy, CURLINFO_PRETRANSFER_TIME_T, &sent);
    if (run->complete && our_err == 0 && fault == FAULT_NONE)
        code = CURLE_OK;
    if (code == CURLE_OK && our_err == 0 && fault == FAULT_NONE) {
        if (version == CURL_HTTP_VERSION_2_0 || !target->check->http.http2) {
            judge(run, status);
            return;
        }
        code = CURLE_HTTP2;
    }
    memcpy(error, run->request.error, sizeof(error));
    run_free(run);

    if (our_err < 0)
        probe_done_errno(target, our_err);
    else if (fault != FAULT_NONE)
        fault_done(target, fault, body_max);
    else if (code == CURLE_OUT_OF_MEMORY && sent > 0)
        /* Its limit of one header, 100 kB, looks like this; all else it has by then. */
        fault_done(target, FAULT_HEADERS, body_max);
    else if (code == CURLE_OUT_OF_MEMORY)
        probe_done_errno(target, -ENOMEM);
    else
        http_done_failed(target, code, os_errno, verify_result, error);
}

static void finish_all(struct http_client *client)
{
    CURLMsg *message;
    int n_left;

    while ((message = curl_multi_info_read(client->multi, &n_left)) != NULL) {
        struct http_run *run;

        if (message->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **) &run);
        finish(run, message->data.result);
    }
}

static void on_socket_event(uv_poll_t *poll, int status, int events)
{
    struct http_socket *socket = poll->data;
    struct http_client *client = socket->client;
    struct http_run *run = socket->run;
    int flags = 0, n_running;

    /* libcurl counts headers and body; what frames them may be endless too. */
    if (++socket->n_events > FREE_EVENTS && run != NULL &&
        read_guard_bytes(socket->fd) > HTTP_READ_MAX) {
        run->fault = FAULT_READ;
        finish(run, CURLE_OK);
        return;
    }
    /* An error is just UV_EBADF here; the calls on the socket know best. */
    if (status < 0)
        flags = CURL_CSELECT_IN | CURL_CSELECT_OUT;
    if (events & UV_READABLE)
        flags |= CURL_CSELECT_IN;
    if (events & UV_WRITABLE)
        flags |= CURL_CSELECT_OUT;
    if (socket->is_guarded)
        read_guard_enter(HTTP_READ_MAX);
    curl_multi_socket_action(client->multi, socket->fd, flags, &n_running);
    if (socket->is_guarded)
        read_guard_leave();
    finish_all(client);
}

static void on_timer(uv_timer_t *timer)
{
    struct http_client *client = timer->data;
    int n_running;

    client->in_timer = true;
    read_guard_enter(HTTP_READ_MAX);
    curl_multi_socket_action(client->multi, CURL_SOCKET_TIMEOUT, 0, &n_running);
    read_guard_leave();
    client->in_timer = false;
    finish_all(client);
}

/*
 * libcurl must not be called back from here, so that 0 too is for the loop. It says 0 as long as
 * there is something to read, and libuv runs a timer of 0 ms that is set in a timer at once, again
 * and again, before anything else.
 */
static int set_timer(CURLM *multi, long timeout_ms, void *user)
{
    struct http_client *client = user;

    (void) multi;
    if (timeout_ms == 0 && client->in_timer)
        timeout_ms = 1;
    if (timeout_ms < 0)
        uv_timer_stop(&client->timer);
    else
        uv_timer_start(&client->timer, on_timer, (uint64_t) timeout_ms, 0);
    return 0;
}

static void on_socket_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static bool is_framed(const struct check_http *options)
{
    return options->http2 || options->tls.on;
}

static struct http_socket *socket_watch(struct http_client *client, CURL *easy, curl_socket_t fd)
{
    struct http_socket *socket = calloc(1, sizeof(*socket));

    if (socket == NULL)
        return NULL;
    if (uv_poll_init(client->prober->loop, &socket->poll, fd) < 0) {
        free(socket);
        return NULL;
    }
    socket->client = client;
    socket->fd = fd;
    socket->poll.data = socket;
    curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **) &socket->run);
    socket->run->socket = socket;
    /* Plain HTTP/1.1 needs no guard: libcurl returns after 100 reads. */
    socket->is_guarded = is_framed(&socket->run->target->check->http);
    if (socket->is_guarded)
        read_guard_set(fd, true);
    curl_multi_assign(client->multi, fd, socket);
    return socket;
}

/*
 * CURL_POLL_REMOVE always comes before libcurl closes the socket; its close callback does not (7.88
 * forgets it while connecting). To refuse (-1) would end the transfers of all: a socket that
 * cannot be watched, for lack of memory, ends by the timeout of its check.
 */
static int set_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *socket_user)
{
    struct http_socket *socket = socket_user;

    if (what == CURL_POLL_REMOVE) {
        if (socket == NULL)
            return 0;
        if (socket->is_guarded && read_guard_has_ended(fd) && socket->run != NULL)
            socket->run->fault = FAULT_READ;
        if (socket->is_guarded)
            read_guard_set(fd, false);
        if (socket->run != NULL && socket->run->socket == socket)
            socket->run->socket = NULL;
        uv_close((uv_handle_t *) &socket->poll, on_socket_closed);
        return 0;
    }
    if (socket == NULL)
        socket = socket_watch(user, easy, fd);
    if (socket != NULL)
        uv_poll_start(&socket->poll,
                      (what & CURL_POLL_IN ? UV_READABLE : 0) |
                          (what & CURL_POLL_OUT ? UV_WRITABLE : 0),
                      on_socket_event);
    return 0;
}

static curl_socket_t open_socket(void *user, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct http_run *run = user;
    int fd;

    (void) purpose;
    run->our_err = probe_socket(run->target->prober, address->family, &fd);
    return run->our_err < 0 ? CURL_SOCKET_BAD : fd;
}

/* The number after "grpc-status:", in a line without NUL. */
static void grpc_status_note(struct http_run *run, const char *line, size_t length)
{
    static const char name[] = "grpc-status:";
    const char *p = line + strlen(name), *end = line + length;
    unsigned status = 0;

    if (length <= strlen(name) || strncasecmp(line, name, strlen(name)) != 0)
        return;
    while (p < end && *p == ' ')
        p++;
    if (p == end || *p < '0' || *p > '9')
        return;
    for (; p < end && *p >= '0' && *p <= '9' && status < HTTP_GRPC_STATUS_NONE / 10; p++)
        status = status * 10 + (unsigned) (*p - '0');
    run->grpc_status = status;
}

static size_t on_header(char *data, size_t size, size_t n, void *user)
{
    struct http_run *run = user;
    long status = 0;

    run->n_headers += size * n;
    if (run->n_headers > HTTP_HEADERS_MAX) {
        run->fault = FAULT_HEADERS;
        return 0;
    }
    grpc_status_note(run, data, n);

    /* 101 ends HTTP on this connection: there is no body to wait for. */
    if (n == 2 && memcmp(data, "\r\n", 2) == 0 &&
        curl_easy_getinfo(run->request.easy, CURLINFO_RESPONSE_CODE, &status) == CURLE_OK &&
        status == 101) {
        run->complete = true;
        return 0;
    }
    return n;
}

/* 0 or -ENOMEM */
static int body_keep(struct http_run *run, const char *data, size_t n)
{
    const size_t room = run->kind->body_max - run->n_body;

    if (n > room)
        n = room;
    if (run->n_body + n > run->body_size) {
        size_t size = run->body_size < 1024 ? 1024 : run->body_size * 4;
        char *body;

        while (size < run->n_body + n)
            size *= 4;
        body = realloc(run->body, size);
        if (body == NULL)
            return -ENOMEM;
        run->body = body;
        run->body_size = size;
    }
    memcpy(run->body + run->n_body, data, n);
    return 0;
}

static size_t on_body(char *data, size_t size, size_t n, void *user)
{
    struct http_run *run = user;
    curl_off_t length = -1;

    n *= size;
    if (run->kind->keeps_body) {
        run->our_err = body_keep(run, data, n);
        if (run->our_err < 0)
            return 0;
    }
    run->n_body += n;
    if (run->n_body <= run->kind->body_max)
        return n;
    curl_easy_getinfo(run->request.easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    if (length < 0 && !run->kind->takes_start)
        run->fault = FAULT_BODY;
    else
        run->complete = true;
    return 0;
}

static void set_callbacks(CURL *easy, struct http_run *run)
{
    curl_easy_setopt(easy, CURLOPT_PRIVATE, run);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, run);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, run);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, run);
}

static int client_create(struct prober *prober, struct http_client **ret)
{
    struct http_client *client = calloc(1, sizeof(*client));

    if (client == NULL)
        return -ENOMEM;
    /* curl counts its users: as many cleanups as inits. */
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        free(client);
        return -ENOMEM;
    }
    client->multi = curl_multi_init();
    if (client->multi == NULL) {
        curl_global_cleanup();
        free(client);
        return -ENOMEM;
    }
    curl_multi_setopt(client->multi, CURLMOPT_SOCKETFUNCTION, set_socket);
    curl_multi_setopt(client->multi, CURLMOPT_SOCKETDATA, client);
    curl_multi_setopt(client->multi, CURLMOPT_TIMERFUNCTION, set_timer);
    curl_multi_setopt(client->multi, CURLMOPT_TIMERDATA, client);
    client->prober = prober;
    prober_ref(prober);
    uv_timer_init(prober->loop, &client->timer);
    client->timer.data = client;
    *ret = client;
    return 0;
}

static void on_client_closed(uv_handle_t *handle)
{
    struct http_client *client = handle->data;

    prober_unref(client->prober);
    free(client);
}

void http_client_destroy(struct http_client *client)
{
    if (client == NULL)
        return;
    curl_multi_cleanup(client->multi);
    curl_global_cleanup();
    trust_clear(&client->trust);
    uv_close((uv_handle_t *) &client->timer, on_client_closed);
}

static int run_begin(struct http_run *run)
{
    struct http_client *client = run->target->prober->http;
    int err = http_request_make(run->target, &client->trust, &run->request);

    if (err < 0)
        return err;
    set_callbacks(run->request.easy, run);
    return curl_multi_add_handle(client->multi, run->request.easy) == CURLM_OK ? 0 : -ENOMEM;
}

void http_check_start(struct probe_target *target, const struct http_kind *kind)
{
    struct prober *prober = target->prober;
    struct http_run *run;
    int err = prober->http == NULL ? client_create(prober, &prober->http) : 0;

    if (err == 0)
        err = read_guard_create();
    run = err == 0 ? calloc(1, sizeof(*run)) : NULL;
    if (run == NULL) {
        probe_done_errno(target, err < 0 ? err : -ENOMEM);
        return;
    }
    run->target = target;
    run->kind = kind;
    run->grpc_status = HTTP_GRPC_STATUS_NONE;
    target->run = run;
    err = run_begin(run);
    if (err < 0) {
        char error[CURL_ERROR_SIZE];

        memcpy(error, run->request.error, sizeof(error));
        run_free(run);
        if (err == -EINVAL)
            probe_done(target, PROBE_UNDECIDED, "%s", error);
        else
            probe_done_errno(target, err);
    }
}
