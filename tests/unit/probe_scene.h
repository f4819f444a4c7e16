/* SPDX-License-Identifier: MIT */
/*
 * The prober against real sockets on loopback, for the tests of its kinds of checks: backends that
 * run on the same loop, and what probes report.
 */
#ifndef DURPINA_TEST_PROBE_SCENE_H
#define DURPINA_TEST_PROBE_SCENE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "probe.h"
#include "probe_ops.h"

#include <cmocka.h> /* last: its macro fail() hides the function of failure.h */

#define GUARD_MS 20000
#define N_SPREAD 100
#define OK "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

/* --- backends -------------------------------------------------------------------------------- */

struct backend {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } listener;
    struct addr addr;
    const char *greeting; /* sent at once */
    const char *answer;   /* sent after a blank line or a line with greeting, or NULL */
    const char *repeated; /* sent again and again after the answer */
    uint64_t repeat_ms;   /* 0: as fast as it goes */
    uint64_t delay_ms;    /* before the answer */
    bool keeps_open;      /* after the answer */
    unsigned n_connections, n_open, max_open;
    size_t n_sent;
    uint64_t accepted_ms; /* the last one */
    uint64_t arrivals_ms[N_SPREAD];
    char request[4096];
};

struct connection {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } socket;
    uv_timer_t timer;
    struct backend *backend;
    bool answered;
    int n_handles;
    size_t n_request;
    char buffer[2048];
};

static inline uint64_t now_ms(void)
{
    return uv_hrtime() / 1000000;
}

static inline void connection_closed(uv_handle_t *handle)
{
    struct connection *connection = handle->data;

    if (--connection->n_handles == 0)
        free(connection);
}

static inline void connection_close(struct connection *connection)
{
    if (uv_is_closing(&connection->socket.handle))
        return;
    connection->backend->n_open--;
    uv_close(&connection->socket.handle, connection_closed);
    uv_close((uv_handle_t *) &connection->timer, connection_closed);
}

static inline void written(uv_write_t *request, int status);

static inline void connection_write(struct connection *connection, const char *text)
{
    uv_write_t *request = malloc(sizeof(*request));
    uv_buf_t buffer = uv_buf_init((char *) text, (unsigned) strlen(text));

    assert_non_null(request);
    request->data = connection;
    connection->backend->n_sent += strlen(text);
    if (uv_write(request, &connection->socket.stream, &buffer, 1, written) < 0) {
        free(request);
        connection_close(connection);
    }
}

static inline void repeat_later(uv_timer_t *timer)
{
    struct connection *connection = timer->data;

    connection_write(connection, connection->backend->repeated);
}

static inline void written(uv_write_t *request, int status)
{
    struct connection *connection = request->data;
    struct backend *backend = connection->backend;

    free(request);
    if (status < 0)
        connection_close(connection);
    else if (uv_is_closing(&connection->socket.handle) || !connection->answered)
        ;
    else if (backend->repeated != NULL && backend->repeat_ms > 0)
        uv_timer_start(&connection->timer, repeat_later, backend->repeat_ms, 0);
    else if (backend->repeated != NULL)
        connection_write(connection, backend->repeated);
    else if (!backend->keeps_open)
        connection_close(connection);
}

static inline void answer_now(uv_timer_t *timer)
{
    struct connection *connection = timer->data;

    connection->answered = true;
    connection_write(connection, connection->backend->answer);
}

static inline void get_buffer(uv_handle_t *handle, size_t size, uv_buf_t *ret)
{
    struct connection *connection = handle->data;

    (void) size;
    *ret = uv_buf_init(connection->buffer, sizeof(connection->buffer));
}

static inline void received(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
    struct connection *connection = stream->data;
    struct backend *backend = connection->backend;

    if (n < 0) {
        connection_close(connection);
        return;
    }
    if (connection->n_request + (size_t) n < sizeof(backend->request)) {
        memcpy(backend->request + connection->n_request, buffer->base, (size_t) n);
        connection->n_request += (size_t) n;
        backend->request[connection->n_request] = '\0';
    }
    if (connection->answered || backend->answer == NULL)
        return;
    if (strstr(backend->request, "\r\n\r\n") != NULL ||
        (backend->greeting != NULL && strchr(backend->request, '\n') != NULL))
        uv_timer_start(&connection->timer, answer_now, backend->delay_ms, 0);
}

static inline void accepted(uv_stream_t *listener, int status)
{
    struct backend *backend = listener->data;
    struct connection *connection = calloc(1, sizeof(*connection));

    assert_int_equal(status, 0);
    assert_non_null(connection);
    connection->backend = backend;
    if (backend->addr.sa.sa_family == AF_UNIX)
        uv_pipe_init(listener->loop, &connection->socket.pipe, 0);
    else
        uv_tcp_init(listener->loop, &connection->socket.tcp);
    uv_timer_init(listener->loop, &connection->timer);
    connection->socket.handle.data = connection;
    connection->timer.data = connection;
    connection->n_handles = 2;
    assert_int_equal(uv_accept(listener, &connection->socket.stream), 0);

    backend->accepted_ms = now_ms();
    if (backend->n_connections < N_SPREAD)
        backend->arrivals_ms[backend->n_connections] = backend->accepted_ms;
    backend->n_connections++;
    if (++backend->n_open > backend->max_open)
        backend->max_open = backend->n_open;
    memset(backend->request, 0, sizeof(backend->request));
    uv_read_start(&connection->socket.stream, get_buffer, received);
    if (backend->greeting != NULL)
        connection_write(connection, backend->greeting);
}

/* --- the scene ------------------------------------------------------------------------------- */

struct reports {
    unsigned n, n_verdicts;
    /* Of the last report. */
    enum probe_result result;
    char reason[PROBE_REASON_SIZE];
    uint64_t at_ms;
    uint32_t duration_ms;
    bool passed; /* the last verdict */
};

static struct scene {
    uv_loop_t loop;
    uv_timer_t guard;
    rlim_t first_fd;
    struct prober *prober;
    struct check *checks[2 * N_SPREAD];
    size_t n_checks;
    struct backend backends[16];
    size_t n_backends;
} scene;

static inline void guard_fired(uv_timer_t *timer)
{
    (void) timer;
    fail_msg("nothing happened in %d ms", GUARD_MS);
}

/* The least descriptor that open() would give out. */
static inline rlim_t first_free_descriptor(void)
{
    int fd = dup(STDERR_FILENO);

    assert_true(fd >= 0);
    close(fd);
    return (rlim_t) fd;
}

static inline int scene_open(void **state)
{
    (void) state;
    memset(&scene, 0, sizeof(scene));
    scene.first_fd = first_free_descriptor();
    assert_int_equal(uv_loop_init(&scene.loop), 0);
    uv_timer_init(&scene.loop, &scene.guard);
    uv_timer_start(&scene.guard, guard_fired, GUARD_MS, 0);
    assert_int_equal(prober_create(&scene.loop, &scene.prober), 0);
    return 0;
}

/*
 * The backends' connections end with the checks'. No handle and no descriptor may be left; ASan
 * looks for the memory.
 */
static inline int scene_close(void **state)
{
    (void) state;
    prober_destroy(scene.prober);
    while (scene.n_backends > 0)
        uv_close(&scene.backends[--scene.n_backends].listener.handle, NULL);
    uv_close((uv_handle_t *) &scene.guard, NULL);
    uv_run(&scene.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&scene.loop), 0);
    assert_int_equal(first_free_descriptor(), scene.first_fd);
    while (scene.n_checks > 0)
        check_free(scene.checks[--scene.n_checks]);
    return 0;
}

static inline struct backend *backend_new(struct backend settings)
{
    struct backend *backend = &scene.backends[scene.n_backends++];

    assert_true(scene.n_backends <= sizeof(scene.backends) / sizeof(scene.backends[0]));
    *backend = settings;
    return backend;
}

static inline struct backend *backend_open(struct backend settings)
{
    struct backend *backend = backend_new(settings);
    int length = sizeof(backend->addr.un);

    uv_tcp_init(&scene.loop, &backend->listener.tcp);
    backend->listener.handle.data = backend;
    assert_int_equal(addr_parse("127.0.0.1:1", 0, &backend->addr), 0);
    addr_set_port(&backend->addr, 0);
    assert_int_equal(uv_tcp_bind(&backend->listener.tcp, &backend->addr.sa, 0), 0);
    assert_int_equal(uv_tcp_getsockname(&backend->listener.tcp, &backend->addr.sa, &length), 0);
    assert_int_equal(uv_listen(&backend->listener.stream, 128, accepted), 0);
    return backend;
}

static inline struct backend *backend_open_unix(const char *path, struct backend settings)
{
    struct backend *backend = backend_new(settings);
    char text[DURPINA_NAME_SIZE];

    uv_pipe_init(&scene.loop, &backend->listener.pipe, 0);
    backend->listener.handle.data = backend;
    snprintf(text, sizeof(text), "unix:%s", path);
    assert_int_equal(addr_parse(text, 0, &backend->addr), 0);
    assert_int_equal(uv_pipe_bind(&backend->listener.pipe, path), 0);
    assert_int_equal(uv_listen(&backend->listener.stream, 128, accepted), 0);
    return backend;
}

/* An address that refuses: bound, so that nobody else gets it, and not listened on. */
static inline int refusing_open(struct addr *ret)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(addr_parse("127.0.0.1:1", 0, ret), 0);
    addr_set_port(ret, 0);
    assert_int_equal(bind(fd, &ret->sa, ret->len), 0);
    assert_int_equal(getsockname(fd, &ret->sa, &ret->len), 0);
    return fd;
}

static inline void on_report(void *user, struct probe *probe, const struct probe_report *report)
{
    struct reports *reports = user;

    assert_non_null(probe);
    assert_true(report->duration_ms < GUARD_MS);
    reports->n++;
    reports->result = report->result;
    reports->at_ms = now_ms();
    reports->duration_ms = report->duration_ms;
    snprintf(reports->reason, sizeof(reports->reason), "%s", report->reason);
    if (report->is_verdict) {
        reports->n_verdicts++;
        reports->passed = report->passed;
    }
    /* uv_run() would sleep on: it runs timers before it waits. */
    uv_stop(&scene.loop);
}

/* The check is the scene's, so that it can be given to several probes. */
static inline struct check *check_new(const char *type, const char *options)
{
    json_t *json = json_loads(options, 0, NULL);
    struct failure failure = {0};
    struct check *check = NULL;

    assert_non_null(json);
    if (check_parse(type, json, &check, &failure) < 0)
        fail_msg("%s", failure.text);
    json_decref(json);
    assert_true(scene.n_checks < sizeof(scene.checks) / sizeof(scene.checks[0]));
    scene.checks[scene.n_checks++] = check;
    return check;
}

static inline struct probe *start_with(const char *type, const char *options,
                                       const struct addr *addr, const char *host,
                                       probe_report_cb cb, void *user)
{
    struct probe *probe = NULL;

    assert_int_equal(probe_start(scene.prober, check_new(type, options), addr, host, cb, user,
                                 &probe),
                     0);
    return probe;
}

static inline struct probe *start(const char *type, const char *options, const struct addr *addr,
                                  struct reports *reports)
{
    return start_with(type, options, addr, "backend:80", on_report, reports);
}

static inline void await_verdicts(const struct reports *reports, unsigned n)
{
    while (reports->n_verdicts < n)
        uv_run(&scene.loop, UV_RUN_ONCE);
}

static inline void await_checks(const struct probe *probe, uint64_t n)
{
    while (probe_stats(probe)->checks < n)
        uv_run(&scene.loop, UV_RUN_ONCE);
}

static inline void time_is_up(uv_timer_t *timer)
{
    *(bool *) timer->data = true;
    uv_stop(timer->loop);
}

static inline void run_for(uint64_t ms)
{
    uv_timer_t timer;
    bool up = false;

    uv_timer_init(&scene.loop, &timer);
    uv_update_time(&scene.loop);
    timer.data = &up;
    uv_timer_start(&timer, time_is_up, ms, 0);
    while (!up)
        uv_run(&scene.loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *) &timer, NULL);
    uv_run(&scene.loop, UV_RUN_NOWAIT);
}

/* One check of `backend`: its verdict and reason. */
static inline void assert_verdict(const char *type, const char *options, struct backend *backend,
                                  bool passed, const char *reason)
{
    struct reports reports = {0};
    struct probe *probe;

    probe = start(type, options, &backend->addr, &reports);
    await_verdicts(&reports, 1);
    probe_cancel(probe);
    assert_string_equal(reports.reason, reason);
    assert_int_equal(reports.passed, passed);
}

/*
 * A check that fails by its timeout ends by then and no earlier: by then in the best of three,
 * since a busy machine may let the test itself wait.
 */
static inline void assert_timeout(const char *type, const char *options, struct backend *backend,
                                  uint64_t timeout_ms, const char *reason)
{
    uint64_t least = UINT64_MAX;

    for (int i = 0; i < 3; i++) {
        struct reports reports = {0};
        struct probe *probe = start(type, options, &backend->addr, &reports);

        await_verdicts(&reports, 1);
        probe_cancel(probe);
        assert_false(reports.passed);
        assert_string_equal(reports.reason, reason);
        assert_true(reports.duration_ms >= timeout_ms);
        if (reports.at_ms - backend->accepted_ms < least)
            least = reports.at_ms - backend->accepted_ms;
    }
    assert_in_range(least, 0, timeout_ms + 50);
}

#define SOON "{\"interval\": 0.05, \"timeout\": 2000}"
#define SOON_EXPECT "{\"interval\": 0.05, \"timeout\": 2000, \"expect\": \"x\"}"

#define TEST(name) cmocka_unit_test_setup_teardown(name, scene_open, scene_close)

#endif
