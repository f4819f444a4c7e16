/* SPDX-License-Identifier: MIT */
/* What all checks that open sockets have in common. */
#include <errno.h>
#include <fcntl.h>

#include "probe_scene.h"

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
        struct reports reports = {0};
        struct probe *probe = start(types[i], SOON, &addr, &reports);

        await_verdicts(&reports, 1);
        assert_false(reports.passed);
        assert_string_equal(reports.reason, "connection refused");
        probe_cancel(probe);
    }
    close(fd);
}

static void port_of_the_check_replaces_the_peers(void **state)
{
    struct backend *backend = backend_open((struct backend){.answer = OK});
    struct reports reports = {0};
    struct addr addr;
    char options[64], host[64];
    int fd = refusing_open(&addr);

    (void) state;
    snprintf(options, sizeof(options), "{\"interval\": 0.05, \"port\": %u}",
             addr_port(&backend->addr));
    start_with("http", options, &addr, "[::1]:8080", on_report, &reports);
    await_verdicts(&reports, 1);
    assert_true(reports.passed);
    snprintf(host, sizeof(host), "\r\nHost: [::1]:%u\r\n", addr_port(&backend->addr));
    assert_non_null(strstr(backend->request, host));
    close(fd);
}

static void unix_sockets_are_checked(void **state)
{
    struct backend *backend;
    char directory[] = "/tmp/test_probe.XXXXXX", path[64];
    struct reports reports = {0};
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
    start("tcp", SOON, &absent, &reports);
    await_verdicts(&reports, 1);
    assert_false(reports.passed);
    assert_string_equal(reports.reason, "no such file or directory");
    start("http", SOON, &absent, &reports);
    await_verdicts(&reports, 2);
    assert_false(reports.passed);

    unlink(path);
    rmdir(directory);
}

static void without_descriptors_there_is_no_verdict_and_one_line_in_the_log(void **state)
{
    struct backend *backend = backend_open((struct backend){.answer = OK});
    struct reports reports = {0};
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
    http = start("http", SOON, &backend->addr, &reports);
    tcp = start("tcp", SOON, &backend->addr, &reports);
    run_for(250);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    n = read(log[0], text, sizeof(text));

    assert_int_equal(reports.n_verdicts, 0);
    assert_int_equal(probe_stats(http)->checks + probe_stats(tcp)->checks, 0);
    assert_int_equal(reports.result, PROBE_UNDECIDED);
    assert_true(reports.n > 2);
    assert_int_equal(prober_stats(scene.prober)->undecided, reports.n);
    assert_int_equal(prober_stats(scene.prober)->checks, 0);
    assert_true(n > 0);
    for (ssize_t i = 0; i < n; i++)
        lines += text[i] == '\n';
    assert_int_equal(lines, 1);
    text[n - 1] = '\0';
    assert_non_null(strstr(text, "too many open files"));

    await_verdicts(&reports, 2);
    assert_true(reports.passed);
    close(log[0]);
    close(log[1]);
    close(saved);
}

struct hook_seen {
    unsigned n, n_connected;
};

static int on_socket(void *user, int fd)
{
    struct hook_seen *seen = user;
    struct addr peer = {.len = sizeof(peer.un)};

    seen->n++;
    seen->n_connected += getpeername(fd, &peer.sa, &peer.len) == 0;
    return -EPERM;
}

static void the_hook_sees_internet_sockets_before_they_connect(void **state)
{
    static const char *const types[] = {"http", "tcp", "grpc", "haproxy-agent-check",
                                        "http-haproxy-agent-check"};
    char directory[] = "/tmp/test_probe.XXXXXX", path[64];
    struct hook_seen seen = {0};

    (void) state;
    prober_set_socket_hook(scene.prober, on_socket, &seen);
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        struct backend *backend = backend_open((struct backend){.answer = OK});
        struct reports reports = {0};
        struct probe *probe = start(types[i], SOON, &backend->addr, &reports);
        unsigned before = seen.n;

        while (backend->n_connections == 0)
            uv_run(&scene.loop, UV_RUN_ONCE);
        assert_true(seen.n > before);
        probe_cancel(probe);
    }
    assert_int_equal(seen.n_connected, 0);
    assert_int_equal(prober_stats(scene.prober)->unmarked, seen.n);

    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/backend", directory);
    assert_verdict("tcp", SOON, backend_open_unix(path, (struct backend){.answer = OK}), true,
                   "connected");
    assert_int_equal(prober_stats(scene.prober)->unmarked, seen.n);
    unlink(path);
    rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(silent_backend_fails_exactly_at_the_timeout),
        TEST(dripping_backend_fails_at_the_timeout),
        TEST(refused_connection_fails_in_those_words),
        TEST(port_of_the_check_replaces_the_peers),
        TEST(unix_sockets_are_checked),
        TEST(without_descriptors_there_is_no_verdict_and_one_line_in_the_log),
        TEST(the_hook_sees_internet_sockets_before_they_connect),
    };

    /* For the backends, whose writes libuv does not protect. */
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
