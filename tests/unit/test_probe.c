/* SPDX-License-Identifier: MIT */
/* The prober against real sockets on loopback; the backends run on the same loop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <fcntl.h>
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

static uint64_t now_ms(void)
{
    return uv_hrtime() / 1000000;
}

static void connection_closed(uv_handle_t *handle)
{
    struct connection *connection = handle->data;

    if (--connection->n_handles == 0)
        free(connection);
}

static void connection_close(struct connection *connection)
{
    if (uv_is_closing(&connection->socket.handle))
        return;
    connection->backend->n_open--;
    uv_close(&connection->socket.handle, connection_closed);
    uv_close((uv_handle_t *) &connection->timer, connection_closed);
}

static void written(uv_write_t *request, int status);

static void connection_write(struct connection *connection, const char *text)
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

static void repeat_later(uv_timer_t *timer)
{
    struct connection *connection = timer->data;

    connection_write(connection, connection->backend->repeated);
}

static void written(uv_write_t *request, int status)
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

static void answer_now(uv_timer_t *timer)
{
    struct connection *connection = timer->data;

    connection->answered = true;
    connection_write(connection, connection->backend->answer);
}

static void get_buffer(uv_handle_t *handle, size_t size, uv_buf_t *ret)
{
    struct connection *connection = handle->data;

    (void) size;
    *ret = uv_buf_init(connection->buffer, sizeof(connection->buffer));
}

static void received(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
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

static void accepted(uv_stream_t *listener, int status)
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

struct verdicts {
    unsigned n;
    bool passed;
    char reason[PROBE_REASON_SIZE];
    uint64_t at_ms;
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

static void guard_fired(uv_timer_t *timer)
{
    (void) timer;
    fail_msg("nothing happened in %d ms", GUARD_MS);
}

/* The least descriptor that open() would give out. */
static rlim_t first_free_descriptor(void)
{
    int fd = dup(STDERR_FILENO);

    assert_true(fd >= 0);
    close(fd);
    return (rlim_t) fd;
}

static int scene_open(void **state)
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
static int scene_close(void **state)
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

static struct backend *backend_new(struct backend settings)
{
    struct backend *backend = &scene.backends[scene.n_backends++];

    assert_true(scene.n_backends <= sizeof(scene.backends) / sizeof(scene.backends[0]));
    *backend = settings;
    return backend;
}

static struct backend *backend_open(struct backend settings)
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

static struct backend *backend_open_unix(const char *path, struct backend settings)
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
static int refusing_open(struct addr *ret)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(addr_parse("127.0.0.1:1", 0, ret), 0);
    addr_set_port(ret, 0);
    assert_int_equal(bind(fd, &ret->sa, ret->len), 0);
    assert_int_equal(getsockname(fd, &ret->sa, &ret->len), 0);
    return fd;
}

static void on_verdict(void *user, struct probe *probe, bool passed, const char *reason)
{
    struct verdicts *verdicts = user;

    assert_non_null(probe);
    verdicts->n++;
    verdicts->passed = passed;
    verdicts->at_ms = now_ms();
    snprintf(verdicts->reason, sizeof(verdicts->reason), "%s", reason);
    /* uv_run() would sleep on: it runs timers before it waits. */
    uv_stop(&scene.loop);
}

static struct probe *start_with(const char *type, const char *options, const struct addr *addr,
                                const char *host, probe_verdict_cb cb, void *user)
{
    json_t *json = json_loads(options, 0, NULL);
    struct failure failure = {0};
    struct check *check = NULL;
    struct probe *probe = NULL;

    assert_non_null(json);
    if (check_parse(type, json, &check, &failure) < 0)
        fail_msg("%s", failure.text);
    json_decref(json);
    assert_true(scene.n_checks < sizeof(scene.checks) / sizeof(scene.checks[0]));
    scene.checks[scene.n_checks++] = check;
    assert_int_equal(probe_start(scene.prober, check, addr, host, cb, user, &probe), 0);
    return probe;
}

static struct probe *start(const char *type, const char *options, const struct addr *addr,
                           struct verdicts *verdicts)
{
    return start_with(type, options, addr, "backend:80", on_verdict, verdicts);
}

static void await_verdicts(const struct verdicts *verdicts, unsigned n)
{
    while (verdicts->n < n)
        uv_run(&scene.loop, UV_RUN_ONCE);
}

static void await_checks(const struct probe *probe, uint64_t n)
{
    while (probe_stats(probe)->checks < n)
        uv_run(&scene.loop, UV_RUN_ONCE);
}

static void time_is_up(uv_timer_t *timer)
{
    *(bool *) timer->data = true;
    uv_stop(timer->loop);
}

static void run_for(uint64_t ms)
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
static void assert_verdict(const char *type, const char *options, struct backend *backend,
                           bool passed, const char *reason)
{
    struct verdicts verdicts = {0};
    struct probe *probe;

    probe = start(type, options, &backend->addr, &verdicts);
    await_verdicts(&verdicts, 1);
    probe_cancel(probe);
    assert_string_equal(verdicts.reason, reason);
    assert_int_equal(verdicts.passed, passed);
}

/* --- http ------------------------------------------------------------------------------------ */

#define SOON "{\"interval\": 0.05, \"timeout\": 2000}"
#define SOON_EXPECT "{\"interval\": 0.05, \"timeout\": 2000, \"expect\": \"x\"}"

static void http_passes_by_its_status(void **state)
{
    static const struct {
        const char *answer, *reason;
        bool passes;
    } cases[] = {
        {OK, "HTTP 200", true},
        {"HTTP/1.0 204 No Content\r\n\r\n", "HTTP 204", true},
        {"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
         "HTTP 302", true},
        {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
         "HTTP 101", true},
        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP 200",
         true},
        {"HTTP/1.1 200 OK\r\n\r\nuntil the end", "HTTP 200", true},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "HTTP 200",
         true},
        {"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "HTTP 404", false},
        {"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy", "HTTP 503", false},
        {"HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n", "HTTP 999", false},
    };

    (void) state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        /* A 101 stays open for the other protocol: the check must not wait for its end. */
        struct backend *backend =
            backend_open((struct backend){.answer = cases[i].answer,
                                          .keeps_open = strstr(cases[i].answer, " 101 ") != NULL});

        assert_verdict("http", SOON, backend, cases[i].passes, cases[i].reason);
        assert_int_equal(backend->n_connections, 1);
    }
}

static void http_fails_in_words_when_there_is_no_proper_answer(void **state)
{
    static const struct {
        const char *answer, *reason;
    } cases[] = {
        {"SSH-2.0-OpenSSH_9.2p1\r\n", "answer is not HTTP"},
        {"\x01\x02\x03\x04", "answer is not HTTP"},
        {"", "closed without an answer"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfive", "answer cut short"},
    };

    (void) state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct backend *backend = backend_open((struct backend){.answer = cases[i].answer});

        assert_verdict("http", SOON, backend, false, cases[i].reason);
    }
}

static void http_request_is_what_the_options_say(void **state)
{
    struct backend *backend = backend_open((struct backend){.answer = OK});
    char expected[512];

    (void) state;
    assert_verdict("http", SOON, backend, true, "HTTP 200");
    snprintf(expected, sizeof(expected),
             "GET / HTTP/1.1\r\nHost: backend:%u\r\nAccept: */*\r\nConnection: close\r\n"
             "User-Agent: durpinad\r\n\r\n",
             addr_port(&backend->addr));
    assert_string_equal(backend->request, expected);

    assert_verdict("http",
                   "{\"interval\": 0.05, \"url\": \"/a/../b?c=%20#d\", \"method\": \"POST\","
                   " \"body\": \"x=1\\ny\", \"host\": \"example.org\", \"header_X_Foo\": \"bar\","
                   " \"header_Content_Type\": \"text/plain\", \"header_user_agent\": \"me\"}",
                   backend, true, "HTTP 200");
    assert_string_equal(backend->request,
                        "POST /a/../b?c=%20#d HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\n"
                        "Connection: close\r\nX-Foo: bar\r\nContent-Type: text/plain\r\n"
                        "user-agent: me\r\nContent-Length: 5\r\n\r\nx=1\ny");

    backend->answer = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
    assert_verdict("http", "{\"interval\": 0.05, \"method\": \"HEAD\"}", backend, true, "HTTP 200");
    assert_memory_equal(backend->request, "HEAD / HTTP/1.1\r\n", 17);
}

static void http_ignores_proxies_of_the_environment(void **state)
{
    struct backend *backend = backend_open((struct backend){.answer = OK});

    (void) state;
    setenv("http_proxy", "http://127.0.0.1:1", 1);
    setenv("ALL_PROXY", "http://127.0.0.1:1", 1);
    assert_verdict("http", SOON, backend, true, "HTTP 200");
    unsetenv("http_proxy");
    unsetenv("ALL_PROXY");
}

static void endless_body_fails_at_the_cap(void **state)
{
    static char chunk[16 * 1024];
    struct backend *backend =
        backend_open((struct backend){.answer = "HTTP/1.1 200 OK\r\n\r\n", .repeated = chunk});

    (void) state;
    memset(chunk, 'x', sizeof(chunk) - 1);
    assert_verdict("http", SOON, backend, false, "answer of unknown length over 256 KiB");
    /* What was not read lies in the socket buffers. */
    assert_in_range(backend->n_sent, 256 * 1024, 16 * 1024 * 1024);
}

static void long_body_that_says_its_length_passes_without_being_read(void **state)
{
    static char chunk[16 * 1024];
    struct backend *backend = backend_open(
        (struct backend){.answer = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n",
                         .repeated = chunk});

    (void) state;
    memset(chunk, 'x', sizeof(chunk) - 1);
    assert_verdict("http", SOON, backend, true, "HTTP 200");
    assert_in_range(backend->n_sent, 256 * 1024, 16 * 1024 * 1024);
}

static void endless_headers_fail_at_the_cap(void **state)
{
    struct backend *backend = backend_open(
        (struct backend){.answer = "HTTP/1.1 200 OK\r\n",
                         .repeated = "X-Header: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n"});

    (void) state;
    assert_verdict("http", SOON, backend, false, "answer header over 16 kB");
}

static void endless_interim_answers_fail_at_the_cap(void **state)
{
    struct backend *backend =
        backend_open((struct backend){.answer = "HTTP/1.1 100 Continue\r\n\r\n",
                                      .repeated = "HTTP/1.1 102 Processing\r\n\r\n"});

    (void) state;
    assert_verdict("http", SOON, backend, false, "answer header over 16 kB");
}

/* --- both ------------------------------------------------------------------------------------ */

/*
 * A check that fails by its timeout ends by then and no earlier: the best of three, since a busy
 * machine may let the test itself wait.
 */
static void assert_timeout(const char *type, const char *options, struct backend *backend,
                           uint64_t timeout_ms, const char *reason)
{
    uint64_t least = UINT64_MAX;

    for (int i = 0; i < 3; i++) {
        struct verdicts verdicts = {0};
        struct probe *probe = start(type, options, &backend->addr, &verdicts);

        await_verdicts(&verdicts, 1);
        probe_cancel(probe);
        assert_false(verdicts.passed);
        assert_string_equal(verdicts.reason, reason);
        if (verdicts.at_ms - backend->accepted_ms < least)
            least = verdicts.at_ms - backend->accepted_ms;
    }
    assert_in_range(least, timeout_ms - 50, timeout_ms + 50);
}

static void silent_backend_fails_exactly_at_the_timeout(void **state)
{
    struct backend *backend = backend_open((struct backend){0});

    (void) state;
    assert_timeout("http", "{\"interval\": 0.05, \"timeout\": 300}", backend, 300,
                   "no answer in 300 ms");
    assert_timeout("tcp", "{\"interval\": 0.05, \"timeout\": 300, \"expect\": \"x\"}", backend, 300,
                   "no answer in 300 ms");
}

static void dripping_backend_fails_at_the_timeout(void **state)
{
    struct backend *http = backend_open(
        (struct backend){.answer = "HTTP/1.1 200 OK\r\n\r\n", .repeated = "x", .repeat_ms = 10});
    struct backend *tcp = backend_open(
        (struct backend){.greeting = "", .answer = "x", .repeated = "x", .repeat_ms = 10});

    (void) state;
    assert_timeout("http", "{\"interval\": 0.05, \"timeout\": 200}", http, 200,
                   "no end of the answer in 200 ms");
    assert_timeout("tcp",
                   "{\"interval\": 0.05, \"timeout\": 200, \"send\": \"\\n\", \"expect\": \"y\"}",
                   tcp, 200, "no expected answer in 200 ms");
}

static void refused_connection_fails_in_those_words(void **state)
{
    static const char *const types[] = {"http", "tcp"};
    struct addr addr;
    int fd = refusing_open(&addr);

    (void) state;
    for (size_t i = 0; i < 2; i++) {
        struct verdicts verdicts = {0};
        struct probe *probe = start(types[i], SOON, &addr, &verdicts);

        await_verdicts(&verdicts, 1);
        assert_false(verdicts.passed);
        assert_string_equal(verdicts.reason, "connection refused");
        probe_cancel(probe);
    }
    close(fd);
}

static void port_of_the_check_replaces_the_peers(void **state)
{
    struct backend *backend = backend_open((struct backend){.answer = OK});
    struct verdicts verdicts = {0};
    struct addr addr;
    char options[64], host[64];
    int fd = refusing_open(&addr);

    (void) state;
    snprintf(options, sizeof(options), "{\"interval\": 0.05, \"port\": %u}",
             addr_port(&backend->addr));
    start_with("http", options, &addr, "[::1]:8080", on_verdict, &verdicts);
    await_verdicts(&verdicts, 1);
    assert_true(verdicts.passed);
    snprintf(host, sizeof(host), "\r\nHost: [::1]:%u\r\n", addr_port(&backend->addr));
    assert_non_null(strstr(backend->request, host));
    close(fd);
}

static void unix_sockets_are_checked(void **state)
{
    struct backend *backend;
    char directory[] = "/tmp/test_probe.XXXXXX", path[64];
    struct verdicts verdicts = {0};
    struct addr absent;

    (void) state;
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/backend", directory);
    backend = backend_open_unix(path, (struct backend){.answer = OK});
    assert_verdict("tcp", SOON, backend, true, "connected");
    assert_verdict("http", SOON, backend, true, "HTTP 200");
    assert_non_null(strstr(backend->request, "\r\nHost: localhost\r\n"));

    absent = backend->addr;
    strcat(absent.un.sun_path, "2");
    start("tcp", SOON, &absent, &verdicts);
    await_verdicts(&verdicts, 1);
    assert_false(verdicts.passed);
    assert_string_equal(verdicts.reason, "no such file or directory");
    start("http", SOON, &absent, &verdicts);
    await_verdicts(&verdicts, 2);
    assert_false(verdicts.passed);

    unlink(path);
    rmdir(directory);
}

/* --- tcp ------------------------------------------------------------------------------------- */

static void tcp_passes_by_the_connection_alone(void **state)
{
    struct backend *backend = backend_open((struct backend){0});

    (void) state;
    assert_verdict("tcp", SOON, backend, true, "connected");
    assert_int_equal(backend->n_sent, 0);
}

static void tcp_sends_and_expects(void **state)
{
    struct backend *pong =
        backend_open((struct backend){.greeting = "hello\r\n", .answer = "+PONG\r\n"});
    struct backend *error =
        backend_open((struct backend){.greeting = "", .answer = "-ERR \x1b[2J\r\n"});
    struct backend *mute = backend_open((struct backend){.greeting = "", .answer = ""});
    static char chunk[16 * 1024];
    struct backend *endless =
        backend_open((struct backend){.greeting = "", .answer = "x", .repeated = chunk});
    static const char options[] =
        "{\"interval\": 0.05, \"timeout\": 2000, \"send\": \"PING\\r\\n\","
        " \"expect\": \"+PONG\"}";

    (void) state;
    memset(chunk, 'x', sizeof(chunk) - 1);
    assert_verdict("tcp", options, pong, true, "expected answer");
    assert_string_equal(pong->request, "PING\r\n");
    assert_verdict("tcp", options, error, false, "unexpected answer \"-ERR \\x1b[2J\\x0d\\x0a\"");
    assert_verdict("tcp", options, mute, false, "closed without an answer");
    assert_verdict("tcp", options, endless, false,
                   "unexpected answer \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"");
}

/* --- verdicts and schedule ------------------------------------------------------------------- */

static void verdict_needs_fall_failures_or_rise_passes_in_a_row(void **state)
{
    struct backend *backend =
        backend_open((struct backend){.answer = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"});
    struct verdicts verdicts = {0};
    struct probe *probe;

    (void) state;
    probe = start("http", "{\"interval\": 0.02, \"timeout\": 2000, \"fall\": 3, \"rise\": 2}",
                  &backend->addr, &verdicts);
    await_checks(probe, 2);
    assert_int_equal(verdicts.n, 0);
    await_checks(probe, 3);
    assert_int_equal(verdicts.n, 1);
    assert_false(verdicts.passed);
    await_checks(probe, 5);
    assert_int_equal(verdicts.n, 1);

    backend->answer = OK;
    await_checks(probe, 6);
    assert_int_equal(verdicts.n, 1);
    assert_true(probe_stats(probe)->last_passed);
    backend->answer = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
    await_checks(probe, 7);
    backend->answer = OK;
    await_checks(probe, 8);
    assert_int_equal(verdicts.n, 1);
    await_checks(probe, 9);
    assert_int_equal(verdicts.n, 2);
    assert_true(verdicts.passed);
    assert_string_equal(verdicts.reason, "HTTP 200");

    backend->answer = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
    await_checks(probe, 11);
    assert_int_equal(verdicts.n, 2);
    await_checks(probe, 12);
    assert_int_equal(verdicts.n, 3);
    assert_false(verdicts.passed);
    assert_int_equal(probe_stats(probe)->checks, 12);
    assert_int_equal(probe_stats(probe)->fails, 9);
    assert_int_equal(probe_stats(probe)->unhealthy, 2);
    assert_false(probe_stats(probe)->last_passed);
}

static void first_checks_are_spread_over_the_interval(void **state)
{
    struct backend *backend = backend_open((struct backend){0});
    struct verdicts verdicts = {0};
    unsigned tenths[10] = {0};
    uint64_t begin;

    (void) state;
    begin = now_ms();
    for (size_t i = 0; i < N_SPREAD; i++)
        start("tcp", "{\"interval\": 1}", &backend->addr, &verdicts);
    await_verdicts(&verdicts, N_SPREAD);
    assert_int_equal(backend->n_connections, N_SPREAD);
    for (size_t i = 0; i < N_SPREAD; i++) {
        uint64_t tenth = (backend->arrivals_ms[i] - begin) / 100;

        tenths[tenth < 10 ? tenth : 9]++;
    }
    for (size_t i = 0; i < 10; i++)
        assert_in_range(tenths[i], 5, 15);
}

static void slow_answers_do_not_stretch_the_interval(void **state)
{
    struct backend *backend = backend_open((struct backend){.answer = OK, .delay_ms = 60});
    struct verdicts verdicts = {0};
    struct probe *probe;
    uint64_t first_ms;

    (void) state;
    probe = start("http", "{\"interval\": 0.1}", &backend->addr, &verdicts);
    await_checks(probe, 1);
    first_ms = backend->accepted_ms;
    await_checks(probe, 11);
    /* 1,600 if the interval began with the end of the check before. */
    assert_in_range(backend->accepted_ms - first_ms, 990, 1200);
}

static void checks_of_one_probe_never_overlap(void **state)
{
    struct backend *backend = backend_open((struct backend){0});
    struct verdicts verdicts = {0};
    struct probe *probe;

    (void) state;
    probe = start("http", "{\"interval\": 0.02, \"timeout\": 110}", &backend->addr, &verdicts);
    await_checks(probe, 4);
    assert_int_equal(backend->max_open, 1);
    assert_int_equal(backend->n_connections, 4);
}

static void silent_backend_delays_no_other(void **state)
{
    struct backend *silent = backend_open((struct backend){0});
    struct backend *quick = backend_open((struct backend){.answer = OK});
    struct verdicts verdicts = {0};
    struct probe *waiting[20], *probe = NULL;

    (void) state;
    for (size_t i = 0; i < 20; i++)
        waiting[i] =
            start("http", "{\"interval\": 0.1, \"timeout\": 10000}", &silent->addr, &verdicts);
    probe = start("http", "{\"interval\": 0.1}", &quick->addr, &verdicts);
    await_checks(probe, 5);
    assert_int_equal(silent->n_connections, 20);
    for (size_t i = 0; i < 20; i++)
        assert_int_equal(probe_stats(waiting[i])->checks, 0);
}

static void jitter_delays_checks_by_less_than_itself(void **state)
{
    struct backend *backend = backend_open((struct backend){0});
    struct verdicts verdicts = {0};
    struct probe *probe;
    uint64_t begin_ms;
    int64_t least = INT64_MAX, most = INT64_MIN;

    (void) state;
    probe = start("tcp", "{\"interval\": 0.2, \"jitter\": 0.1}", &backend->addr, &verdicts);
    await_checks(probe, 1);
    begin_ms = backend->accepted_ms;
    for (uint64_t i = 1; i <= 10; i++) {
        int64_t late;

        await_checks(probe, i + 1);
        late = (int64_t) (backend->accepted_ms - begin_ms - i * 200);
        least = late < least ? late : least;
        most = late > most ? late : most;
    }
    /* All ten within a tenth of the jitter: once in a hundred million runs. */
    assert_true(most - least >= 10);
    /* A slot late is 200; the rest is room for a busy machine, at the first check or the last. */
    assert_true(least > -90 && most < 190);
}

/* --- life and death -------------------------------------------------------------------------- */

struct canceller {
    struct probe *others[3];
    unsigned n;
};

static void cancel_all(void *user, struct probe *probe, bool passed, const char *reason)
{
    struct canceller *canceller = user;

    (void) passed;
    (void) reason;
    canceller->n++;
    uv_stop(&scene.loop);
    for (size_t i = 0; i < 3; i++)
        probe_cancel(canceller->others[i]);
    (void) probe;
}

static void probes_may_be_cancelled_inside_a_verdict(void **state)
{
    static const char *const types[] = {"http", "tcp"};
    struct backend *backend = backend_open((struct backend){.answer = OK});
    struct backend *silent = backend_open((struct backend){0});

    (void) state;
    for (size_t i = 0; i < 2; i++) {
        struct canceller canceller = {0};
        unsigned n;

        canceller.others[0] =
            start_with(types[i], SOON, &backend->addr, "a:80", cancel_all, &canceller);
        canceller.others[1] =
            start_with("http", SOON, &silent->addr, "a:80", cancel_all, &canceller);
        canceller.others[2] =
            start_with("tcp", SOON_EXPECT, &silent->addr, "a:80", cancel_all, &canceller);
        while (canceller.n == 0)
            uv_run(&scene.loop, UV_RUN_ONCE);
        n = backend->n_connections + silent->n_connections;
        run_for(150);
        assert_int_equal(canceller.n, 1);
        assert_in_range(backend->n_connections + silent->n_connections, n, n + 2);
    }
}

static void cancelled_checks_close_their_connections(void **state)
{
    struct backend *backend = backend_open((struct backend){0});
    struct verdicts verdicts = {0};
    struct probe *http, *tcp;

    (void) state;
    http = start("http", SOON, &backend->addr, &verdicts);
    tcp = start("tcp", SOON_EXPECT, &backend->addr, &verdicts);
    while (backend->n_open < 2)
        uv_run(&scene.loop, UV_RUN_ONCE);
    probe_cancel(http);
    probe_cancel(tcp);
    probe_cancel(NULL);
    while (backend->n_open > 0)
        uv_run(&scene.loop, UV_RUN_ONCE);
    assert_int_equal(verdicts.n, 0);
}

static void destroyed_prober_leaves_nothing_of_running_checks(void **state)
{
    struct backend *backend = backend_open((struct backend){0});
    struct verdicts verdicts = {0};

    (void) state;
    for (size_t i = 0; i < 10; i++) {
        start("http", SOON, &backend->addr, &verdicts);
        start("tcp", SOON_EXPECT, &backend->addr, &verdicts);
    }
    while (backend->n_open < 20)
        uv_run(&scene.loop, UV_RUN_ONCE);
    prober_destroy(scene.prober);
    scene.prober = NULL;
    while (backend->n_open > 0)
        uv_run(&scene.loop, UV_RUN_ONCE);
    assert_int_equal(verdicts.n, 0);
}

static void without_descriptors_there_is_no_verdict_and_one_line_in_the_log(void **state)
{
    struct backend *backend = backend_open((struct backend){.answer = OK});
    struct verdicts verdicts = {0};
    struct probe *http, *tcp;
    struct rlimit limit, none;
    int log[2], saved = dup(STDERR_FILENO), lines = 0;
    char text[4096];
    ssize_t n;

    (void) state;
    assert_int_equal(pipe2(log, O_NONBLOCK), 0);
    assert_true(saved >= 0 && dup2(log[1], STDERR_FILENO) >= 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    none.rlim_cur = first_free_descriptor();
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    http = start("http", SOON, &backend->addr, &verdicts);
    tcp = start("tcp", SOON, &backend->addr, &verdicts);
    run_for(250);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    n = read(log[0], text, sizeof(text));

    assert_int_equal(verdicts.n, 0);
    assert_int_equal(probe_stats(http)->checks + probe_stats(tcp)->checks, 0);
    assert_true(n > 0);
    for (ssize_t i = 0; i < n; i++)
        lines += text[i] == '\n';
    assert_int_equal(lines, 1);
    text[n - 1] = '\0';
    assert_non_null(strstr(text, "too many open files"));

    await_verdicts(&verdicts, 2);
    assert_true(verdicts.passed);
    close(log[0]);
    close(log[1]);
    close(saved);
}

static void sockets_are_marked_if_that_is_allowed(void **state)
{
    const int mark = PROBE_MARK;
    int fd, plain = socket(AF_INET, SOCK_STREAM, 0), value = -1;
    bool allowed = setsockopt(plain, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) == 0;
    socklen_t length = sizeof(value);

    (void) state;
    assert_int_equal(probe_socket(AF_INET, &fd), 0);
    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_MARK, &value, &length), 0);
    assert_int_equal(value, allowed ? PROBE_MARK : 0);
    close(plain);
    close(fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scene_open, scene_close)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(http_passes_by_its_status),
        TEST(http_fails_in_words_when_there_is_no_proper_answer),
        TEST(http_request_is_what_the_options_say),
        TEST(http_ignores_proxies_of_the_environment),
        TEST(endless_body_fails_at_the_cap),
        TEST(long_body_that_says_its_length_passes_without_being_read),
        TEST(endless_headers_fail_at_the_cap),
        TEST(endless_interim_answers_fail_at_the_cap),
        TEST(silent_backend_fails_exactly_at_the_timeout),
        TEST(dripping_backend_fails_at_the_timeout),
        TEST(refused_connection_fails_in_those_words),
        TEST(port_of_the_check_replaces_the_peers),
        TEST(unix_sockets_are_checked),
        TEST(tcp_passes_by_the_connection_alone),
        TEST(tcp_sends_and_expects),
        TEST(verdict_needs_fall_failures_or_rise_passes_in_a_row),
        TEST(first_checks_are_spread_over_the_interval),
        TEST(slow_answers_do_not_stretch_the_interval),
        TEST(checks_of_one_probe_never_overlap),
        TEST(silent_backend_delays_no_other),
        TEST(jitter_delays_checks_by_less_than_itself),
        TEST(probes_may_be_cancelled_inside_a_verdict),
        TEST(cancelled_checks_close_their_connections),
        TEST(destroyed_prober_leaves_nothing_of_running_checks),
        TEST(without_descriptors_there_is_no_verdict_and_one_line_in_the_log),
        TEST(sockets_are_marked_if_that_is_allowed),
    };

    /* For the backends, whose writes libuv does not protect. */
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
