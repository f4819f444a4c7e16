/* SPDX-License-Identifier: MIT */
#include "probe_stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct stream {
    struct probe_target *target;
    const struct probe_stream_ops *ops;
    const char *send;
    uv_poll_t poll;
    int fd;
    bool connected;
    size_t n_sent;
    size_t n_answer;
    char answer[PROBE_ANSWER_MAX + 1];
};

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void probe_stream_cancel(struct probe_target *target)
{
    struct stream *stream = target->run;

    target->run = NULL;
    /* It leaves the poll set before its number can be another's. */
    uv_close((uv_handle_t *) &stream->poll, on_closed);
    close(stream->fd);
}

static void finish(struct stream *stream, int err)
{
    probe_stream_cancel(stream->target);
    /* The loop has to turn before its memory goes. */
    stream->ops->finish(stream->target, err, stream->answer, stream->n_answer);
}

/*
 * Connecting to a port of this host that nobody listens on may be given that very port as its
 * source: TCP's simultaneous open then connects the socket to itself.
 */
static bool is_self_connected(const struct stream *stream)
{
    struct addr local = {.len = sizeof(local.un)};

    return stream->target->addr.sa.sa_family != AF_UNIX &&
           getsockname(stream->fd, &local.sa, &local.len) == 0 &&
           addr_equal(&local, &stream->target->addr);
}

static int connect_finish(struct stream *stream)
{
    int err = 0;
    socklen_t len = sizeof(err);

    if (getsockopt(stream->fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0)
        return -errno;
    if (err != 0)
        return -err;
    if (is_self_connected(stream))
        return -ECONNREFUSED;
    stream->connected = true;
    return 0;
}

/* 0 when all is sent; -EAGAIN; -errno. */
static int send_more(struct stream *stream)
{
    size_t length = stream->send != NULL ? strlen(stream->send) : 0;

    while (stream->n_sent < length) {
        ssize_t n =
            send(stream->fd, stream->send + stream->n_sent, length - stream->n_sent, MSG_NOSIGNAL);

        if (n < 0)
            return -errno;
        stream->n_sent += (size_t) n;
    }
    return 0;
}

/* 0 when the answer is enough or no more can come; -EAGAIN; -errno. */
static int receive_more(struct stream *stream)
{
    while (!stream->ops->is_enough(stream->target, stream->answer, stream->n_answer) &&
           stream->n_answer < PROBE_ANSWER_MAX) {
        ssize_t n = recv(stream->fd, stream->answer + stream->n_answer,
                         PROBE_ANSWER_MAX - stream->n_answer, 0);

        if (n <= 0)
            return n < 0 ? -errno : 0;
        stream->n_answer += (size_t) n;
    }
    return 0;
}

static void on_event(uv_poll_t *poll, int status, int events);

/* Goes on by waiting, unless the poll itself has failed: that would go on for ever. */
static void wait_for(struct stream *stream, int events, int status)
{
    int err = status != 0 ? status : uv_poll_start(&stream->poll, events, on_event);

    if (err < 0)
        finish(stream, err);
}

/* Whatever libuv reports (an error in epoll is just UV_EBADF there), the socket calls know best. */
static void on_event(uv_poll_t *poll, int status, int events)
{
    struct stream *stream = poll->data;
    int err = stream->connected ? 0 : connect_finish(stream);

    (void) events;
    if (err == 0) {
        stream->target->missing = "answer";
        err = send_more(stream);
        if (err == -EAGAIN) {
            wait_for(stream, UV_WRITABLE, status);
            return;
        }
    }
    if (err == 0)
        err = receive_more(stream);
    if (err != -EAGAIN) {
        finish(stream, err);
        return;
    }
    if (stream->n_answer > 0)
        stream->target->missing = stream->ops->missing;
    wait_for(stream, UV_READABLE, status);
}

void probe_stream_start(struct probe_target *target, const struct probe_stream_ops *ops,
                        const char *send)
{
    struct stream *stream = calloc(1, sizeof(*stream));
    int err;

    if (stream == NULL) {
        ops->finish(target, -ENOMEM, "", 0);
        return;
    }
    stream->target = target;
    stream->ops = ops;
    stream->send = send;
    err = probe_socket(target->prober, target->addr.sa.sa_family, &stream->fd);
    if (err < 0)
        goto fail_stream;
    if (connect(stream->fd, &target->addr.sa, target->addr.len) < 0 && errno != EINPROGRESS) {
        err = -errno;
        goto fail_socket;
    }
    err = uv_poll_init(target->prober->loop, &stream->poll, stream->fd);
    if (err < 0)
        goto fail_socket;
    stream->poll.data = stream;
    target->run = stream;
    target->missing = "connection";
    err = uv_poll_start(&stream->poll, UV_WRITABLE, on_event);
    if (err < 0)
        finish(stream, err);
    return;

fail_socket:
    close(stream->fd);
fail_stream:
    free(stream);
    ops->finish(target, err, "", 0);
}
