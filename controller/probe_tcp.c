/* SPDX-License-Identifier: MIT */
/*
 * The tcp check: a connection, and if the options say so, bytes sent and bytes expected in the
 * first CHECK_TCP_MAX bytes of the answer.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "probe_ops.h"

#define SHOWN_ANSWER 40 /* bytes of an unexpected answer in the reason */

struct tcp_run {
    struct probe *probe;
    uv_poll_t poll;
    int fd;
    bool connected;
    size_t n_sent;
    size_t n_answer;
    char answer[CHECK_TCP_MAX + 1]; /* with a NUL, for the reason */
};

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void tcp_cancel(struct probe *probe)
{
    struct tcp_run *run = probe->run;

    probe->run = NULL;
    /* It leaves the poll set before its number can be another's. */
    uv_close((uv_handle_t *) &run->poll, on_closed);
    close(run->fd);
}

static void pass(struct probe *probe, const char *reason)
{
    tcp_cancel(probe);
    probe_done(probe, PROBE_PASSED, "%s", reason);
}

static void fail_errno(struct probe *probe, int err)
{
    tcp_cancel(probe);
    probe_done_errno(probe, err);
}

/*
 * Connecting to a port of this host that nobody listens on may be given that very port as its
 * source: TCP's simultaneous open then connects the socket to itself.
 */
static bool is_self_connected(const struct tcp_run *run)
{
    struct addr local = {.len = sizeof(local.un)};

    return run->probe->addr.sa.sa_family != AF_UNIX &&
           getsockname(run->fd, &local.sa, &local.len) == 0 &&
           addr_equal(&local, &run->probe->addr);
}

static int connect_finish(struct tcp_run *run)
{
    int err = 0;
    socklen_t len = sizeof(err);

    if (getsockopt(run->fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0)
        return -errno;
    if (err != 0)
        return -err;
    if (is_self_connected(run))
        return -ECONNREFUSED;
    run->connected = true;
    return 0;
}

/* 0 when all is sent; -EAGAIN; -errno. */
static int send_more(struct tcp_run *run, const char *text)
{
    size_t length = text != NULL ? strlen(text) : 0;

    while (run->n_sent < length) {
        ssize_t n = send(run->fd, text + run->n_sent, length - run->n_sent, MSG_NOSIGNAL);

        if (n < 0)
            return -errno;
        run->n_sent += (size_t) n;
    }
    return 0;
}

/* 1 when the expected bytes are there; 0 when no more can come; -EAGAIN; -errno. */
static int receive_more(struct tcp_run *run, const char *expect)
{
    while (run->n_answer < CHECK_TCP_MAX) {
        ssize_t n = recv(run->fd, run->answer + run->n_answer, CHECK_TCP_MAX - run->n_answer, 0);

        if (n <= 0)
            return n < 0 ? -errno : 0;
        run->n_answer += (size_t) n;
        if (memmem(run->answer, run->n_answer, expect, strlen(expect)) != NULL)
            return 1;
    }
    return 0;
}

static void on_event(uv_poll_t *poll, int status, int events);

/* Goes on by waiting, unless the poll itself has failed: that would go on for ever. */
static void wait_for(struct tcp_run *run, int events, int status)
{
    int err = status != 0 ? status : uv_poll_start(&run->poll, events, on_event);

    if (err < 0)
        fail_errno(run->probe, err);
}

static void unexpected(struct probe *probe)
{
    struct tcp_run *run = probe->run;
    char shown[SHOWN_ANSWER + 1];

    snprintf(shown, sizeof(shown), "%.*s", SHOWN_ANSWER, run->answer);
    tcp_cancel(probe);
    if (shown[0] == '\0')
        probe_done(probe, PROBE_FAILED, "closed without an answer");
    else
        probe_done(probe, PROBE_FAILED, "unexpected answer \"%s\"", shown);
}

/* Whatever libuv reports (an error in epoll is just UV_EBADF there), the socket calls know best. */
static void on_event(uv_poll_t *poll, int status, int events)
{
    struct tcp_run *run = poll->data;
    struct probe *probe = run->probe;
    const struct check_tcp *options = &probe->check->tcp;
    int err = run->connected ? 0 : connect_finish(run);

    (void) events;
    if (err == 0) {
        probe->missing = "answer";
        err = send_more(run, options->send);
        if (err == -EAGAIN) {
            wait_for(run, UV_WRITABLE, status);
            return;
        }
    }
    if (err < 0) {
        fail_errno(probe, err);
        return;
    }
    if (options->expect == NULL) {
        pass(probe, "connected");
        return;
    }

    err = receive_more(run, options->expect);
    if (err > 0) {
        pass(probe, "expected answer");
    } else if (err == 0) {
        unexpected(probe);
    } else if (err == -EAGAIN) {
        if (run->n_answer > 0)
            probe->missing = "expected answer";
        wait_for(run, UV_READABLE, status);
    } else {
        fail_errno(probe, err);
    }
}

static void tcp_start(struct probe *probe)
{
    struct tcp_run *run = calloc(1, sizeof(*run));
    int err;

    if (run == NULL) {
        probe_done_errno(probe, -ENOMEM);
        return;
    }
    run->probe = probe;
    err = probe_socket(probe->addr.sa.sa_family, &run->fd);
    if (err < 0)
        goto fail_run;
    if (connect(run->fd, &probe->addr.sa, probe->addr.len) < 0 && errno != EINPROGRESS) {
        err = -errno;
        goto fail_socket;
    }
    err = uv_poll_init(probe->prober->loop, &run->poll, run->fd);
    if (err < 0)
        goto fail_socket;
    run->poll.data = run;
    probe->run = run;
    probe->missing = "connection";
    err = uv_poll_start(&run->poll, UV_WRITABLE, on_event);
    if (err < 0)
        fail_errno(probe, err);
    return;

fail_socket:
    close(run->fd);
fail_run:
    free(run);
    probe_done_errno(probe, err);
}

const struct probe_ops probe_tcp_ops = {
    .start = tcp_start,
    .cancel = tcp_cancel,
};
