/* SPDX-License-Identifier: MIT */
/* Server and clients run on one loop; every wait is for an event, with DEADLINE_MS at the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "http_server.h"
#include "listen.h"
#include "log.h"

#include <cmocka.h>

#define DEADLINE_MS 5000
#define TIMEOUT_MS 250
#define MAX_BODY 1000
#define MAX_CONNECTIONS 3

struct client {
    int fd;
    uv_poll_t poll;
    char in[16384];
    size_t len;
    bool closed;
};

static uv_loop_t loop;
static struct http_server *server;
static char path[64];
static bool wanted;
/* What the handler saw last. */
static struct {
    unsigned calls;
    char target[256];
    char method[16];
    size_t body_len;
    bool has_body, too_large;
    struct http_client client;
} seen;

/* An answer of so many parts of one byte each, and what became of it; 0: the answer is "{}". */
static struct {
    unsigned parts, read, closed;
} stream;

static size_t read_stream(void *user, char *buffer, size_t size)
{
    assert_ptr_equal(user, &stream);
    assert_true(size > 0);
    if (stream.read == stream.parts)
        return 0;
    *buffer = 'x';
    stream.read++;
    return 1;
}

static void close_stream(void *user)
{
    assert_ptr_equal(user, &stream);
    stream.closed++;
}

static bool wants_body(void *user, const struct http_request *request)
{
    assert_ptr_equal(user, &seen);
    assert_null(request->body);
    return wanted;
}

static void handle(void *user, const struct http_request *request, struct http_response *ret)
{
    (void) user;
    seen.calls++;
    snprintf(seen.target, sizeof(seen.target), "%s", request->target);
    snprintf(seen.method, sizeof(seen.method), "%s", request->method);
    seen.has_body = request->body != NULL;
    seen.body_len = request->body_len;
    seen.too_large = request->body_too_large;
    seen.client = *request->client;
    ret->status = request->body_too_large ? 413 : 200;
    if (stream.parts > 0) {
        ret->stream = (struct http_stream){"text/x-test", read_stream, close_stream, &stream};
        return;
    }
    ret->body = strdup("{}");
    ret->body_len = 2;
    ret->allow = strdup("GET");
}

static const struct http_limits limits = {.max_body = MAX_BODY,
                                          .request_timeout_ms = TIMEOUT_MS,
                                          .max_connections = MAX_CONNECTIONS};

static int set_up(void **state)
{
    const struct http_handler handler = {wants_body, handle, &seen};
    char error[256];
    int fd;

    (void) state;
    memset(&seen, 0, sizeof(seen));
    memset(&stream, 0, sizeof(stream));
    wanted = true;
    snprintf(path, sizeof(path), "/tmp/durpina-http-%d.sock", (int) getpid());
    log_set_level(LOG_LEVEL_ERROR);
    return uv_loop_init(&loop) < 0 || http_server_create(&loop, &handler, &limits, &server) < 0 ||
           listen_unix(path, 0600, &fd, error, sizeof(error)) < 0 ||
           http_server_listen(server, fd, true) < 0;
}

static int tear_down(void **state)
{
    (void) state;
    http_server_destroy(server);
    uv_run(&loop, UV_RUN_DEFAULT);
    unlink(path);
    return uv_loop_close(&loop);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct client *client = poll->data;
    ssize_t n = recv(client->fd, client->in + client->len, sizeof(client->in) - client->len - 1,
                     MSG_DONTWAIT);

    (void) status;
    (void) events;
    if (n > 0) {
        client->len += (size_t) n;
        client->in[client->len] = '\0';
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        client->closed = true;
        uv_poll_stop(poll);
    }
}

static struct client *open_client(void)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct client *client = calloc(1, sizeof(*client));

    assert_non_null(client);
    strcpy(un.sun_path, path);
    client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(client->fd, (struct sockaddr *) &un, sizeof(un)), 0);
    uv_poll_init(&loop, &client->poll, client->fd);
    client->poll.data = client;
    uv_poll_start(&client->poll, UV_READABLE, on_readable);
    return client;
}

static void free_client(uv_handle_t *handle)
{
    struct client *client = handle->data;

    close(client->fd);
    free(client);
}

static void close_client(struct client *client)
{
    uv_close((uv_handle_t *) &client->poll, free_client);
}

static void put(struct client *client, const char *text)
{
    assert_int_equal(send(client->fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void on_expiry(uv_timer_t *timer)
{
    *(bool *) timer->data = true;
}

/* Runs the loop until the client has got `answers` whole answers, or (answers 0) is closed. */
static void wait_for(struct client *client, unsigned answers)
{
    bool expired = false;
    uv_timer_t timer;

    uv_timer_init(&loop, &timer);
    timer.data = &expired;
    uv_timer_start(&timer, on_expiry, DEADLINE_MS, 0);
    for (;;) {
        unsigned got = 0;

        for (const char *at = client->in; (at = strstr(at, "\r\n\r\n{}")) != NULL; at += 6)
            got++;
        if (answers > 0 ? got >= answers : client->closed)
            break;
        if (expired || (answers > 0 && client->closed))
            fail_msg("got %u answers, %s: %s", got, client->closed ? "closed" : "open", client->in);
        uv_run(&loop, UV_RUN_ONCE);
    }
    uv_close((uv_handle_t *) &timer, NULL);
    uv_run(&loop, UV_RUN_NOWAIT);
}

static uint64_t ms_until_closed(struct client *client)
{
    uint64_t begin_ms = (uv_update_time(&loop), uv_now(&loop));

    wait_for(client, 0);
    return uv_now(&loop) - begin_ms;
}

static void the_target_arrives_as_sent(void **state)
{
    struct client *client = open_client();

    (void) state;
    put(client, "GET /a%2Fb%00?fields=x%20y HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_for(client, 1);
    assert_string_equal(seen.target, "/a%2Fb%00?fields=x%20y");
    assert_string_equal(seen.method, "GET");
    assert_non_null(strstr(client->in, "HTTP/1.1 200"));
    assert_non_null(strstr(client->in, "Allow: GET"));
    close_client(client);
}

static void the_client_is_known_by_its_socket(void **state)
{
    struct client *client = open_client();

    (void) state;
    put(client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_for(client, 1);
    assert_true(seen.client.local);
    assert_int_equal(seen.client.uid, getuid());
    assert_int_equal(seen.client.pid, getpid());
    assert_true(http_client_in_group(&seen.client, getgid()));
    assert_false(http_client_in_group(&seen.client, 0x7ffffffe));
    close_client(client);
}

static void one_connection_serves_many_requests(void **state)
{
    struct client *client = open_client();

    (void) state;
    put(client, "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_for(client, 2);
    put(client, "POST /3 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
    wait_for(client, 3);
    assert_int_equal(seen.calls, 3);
    assert_string_equal(seen.target, "/3");
    assert_int_equal(seen.body_len, 3);
    assert_int_equal(http_server_stats(server).accepted, 1);
    close_client(client);
}

static void an_unfinished_request_is_closed_at_its_deadline(void **state)
{
    static const char *const beginnings[] = {
        "", "GET", "GET / HTTP/1.1\r\nHost: x\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"};

    (void) state;
    for (size_t i = 0; i < sizeof(beginnings) / sizeof(beginnings[0]); i++) {
        struct client *client = open_client();

        put(client, beginnings[i]);
        assert_in_range(ms_until_closed(client), TIMEOUT_MS - 5, DEADLINE_MS / 2);
        close_client(client);
        uv_run(&loop, UV_RUN_NOWAIT);
    }
    assert_int_equal(seen.calls, 0);
    assert_int_equal(http_server_stats(server).connections, 0);
}

struct dripper {
    uv_timer_t timer;
    struct client *client;
    unsigned sent;
};

static void on_drip(uv_timer_t *timer)
{
    struct dripper *dripper = timer->data;

    if (!dripper->client->closed && send(dripper->client->fd, "x", 1, MSG_NOSIGNAL) == 1)
        dripper->sent++;
}

static void dripping_does_not_move_the_deadline(void **state)
{
    struct dripper dripper = {.client = open_client()};

    (void) state;
    put(dripper.client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n");
    uv_timer_init(&loop, &dripper.timer);
    dripper.timer.data = &dripper;
    uv_timer_start(&dripper.timer, on_drip, 1, 1);
    assert_in_range(ms_until_closed(dripper.client), TIMEOUT_MS - 5, DEADLINE_MS / 2);
    assert_true(dripper.sent > 1);
    uv_close((uv_handle_t *) &dripper.timer, NULL);
    close_client(dripper.client);
    uv_run(&loop, UV_RUN_NOWAIT);
}

static void on_tick(uv_timer_t *timer)
{
    uv_stop(timer->loop);
}

static void an_idle_connection_outlives_the_deadline_of_a_request(void **state)
{
    struct client *client = open_client();
    uv_timer_t timer;

    (void) state;
    put(client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_for(client, 1);
    uv_timer_init(&loop, &timer);
    uv_timer_start(&timer, on_tick, 2 * TIMEOUT_MS, 0);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_close((uv_handle_t *) &timer, NULL);
    assert_false(client->closed);
    put(client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_for(client, 2);
    close_client(client);
}

static void a_user_holds_so_many_connections_and_no_more(void **state)
{
    struct client *clients[MAX_CONNECTIONS], *over;

    (void) state;
    for (int i = 0; i < MAX_CONNECTIONS; i++) {
        clients[i] = open_client();
        put(clients[i], "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        wait_for(clients[i], 1);
    }
    over = open_client();
    wait_for(over, 0);
    assert_int_equal(http_server_stats(server).dropped, 1);
    assert_int_equal(http_server_stats(server).connections, MAX_CONNECTIONS);
    assert_int_equal(http_server_stats(server).busy, 0);

    shutdown(clients[0]->fd, SHUT_RDWR);
    wait_for(clients[0], 0);
    close_client(over);
    over = open_client();
    put(over, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_for(over, 1);
    close_client(over);
    for (int i = 0; i < MAX_CONNECTIONS; i++)
        close_client(clients[i]);
}

static void a_body_that_is_not_wanted_is_not_stored(void **state)
{
    struct client *client = open_client();

    (void) state;
    wanted = false;
    put(client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
    wait_for(client, 1);
    assert_false(seen.has_body);
    assert_int_equal(seen.body_len, 0);
    assert_false(seen.too_large);
    close_client(client);
}

static void a_body_of_the_greatest_size_is_stored(void **state)
{
    struct client *client = open_client();
    char text[MAX_BODY + 128];
    int n = snprintf(text, sizeof(text), "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n",
                     MAX_BODY);

    (void) state;
    memset(text + n, 'x', MAX_BODY);
    text[n + MAX_BODY] = '\0';
    put(client, text);
    wait_for(client, 1);
    assert_int_equal(seen.body_len, MAX_BODY);
    assert_false(seen.too_large);
    close_client(client);
}

static void a_larger_body_is_refused_by_its_length(void **state)
{
    struct client *client = open_client();

    (void) state;
    put(client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n");
    wait_for(client, 1);
    assert_non_null(strstr(client->in, "HTTP/1.1 413"));
    assert_false(seen.has_body);
    close_client(client);
}

static void a_larger_body_in_chunks_is_refused_at_its_end(void **state)
{
    struct client *client = open_client();
    char chunk[600] = "";

    (void) state;
    memset(chunk, 'x', 512);
    put(client, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 3; i++) {
        put(client, "200\r\n");
        put(client, chunk);
        put(client, "\r\n");
    }
    put(client, "0\r\n\r\n");
    wait_for(client, 1);
    assert_true(seen.too_large);
    assert_false(seen.has_body);
    assert_non_null(strstr(client->in, "HTTP/1.1 413"));
    close_client(client);
}

static void limits_may_shrink_while_a_body_arrives(void **state)
{
    const struct http_limits small = {10, TIMEOUT_MS, MAX_CONNECTIONS};
    struct client *client = open_client();

    (void) state;
    put(client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
                "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\n\r\n12345678901234567890");
    wait_for(client, 1);
    http_server_set_limits(server, &small);
    put(client, "12345678901234567890");
    wait_for(client, 2);
    assert_int_equal(seen.body_len, 40);
    put(client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\n\r\n");
    wait_for(client, 3);
    assert_true(seen.too_large);
    close_client(client);
}

static void a_server_stops_with_requests_in_hand(void **state)
{
    struct client *client = open_client();

    (void) state;
    put(client, "GET / HTTP/1.1\r\nHost: x\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc");
    wait_for(client, 1);
    http_server_destroy(server);
    server = NULL;
    wait_for(client, 0);
    close_client(client);
}

static void a_stream_is_sent_in_parts_and_closed(void **state)
{
    struct client *client = open_client();

    (void) state;
    stream.parts = 3;
    put(client, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    wait_for(client, 0);
    assert_non_null(strstr(client->in, "Content-Type: text/x-test"));
    assert_non_null(strstr(client->in, "\r\n\r\n1\r\nx\r\n1\r\nx\r\n1\r\nx\r\n0\r\n"));
    assert_int_equal(stream.closed, 1);
    close_client(client);
}

static void between_the_parts_of_a_stream_others_have_their_turn(void **state)
{
    struct client *client = open_client();

    (void) state;
    stream.parts = 100;
    put(client, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    while (stream.closed == 0) {
        unsigned before = stream.read;

        uv_run(&loop, UV_RUN_ONCE);
        assert_in_range(stream.read - before, 0, 4);
    }
    assert_int_equal(stream.read, 100);
    close_client(client);
}

static void the_head_of_a_stream_reads_nothing(void **state)
{
    struct client *client = open_client();

    (void) state;
    stream.parts = 3;
    put(client, "HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    wait_for(client, 0);
    assert_non_null(strstr(client->in, "Content-Type: text/x-test"));
    assert_int_equal(stream.read, 0);
    assert_int_equal(stream.closed, 1);
    close_client(client);
}

static void a_stream_that_is_not_taken_is_closed_at_its_deadline(void **state)
{
    struct client *client = open_client();

    (void) state;
    stream.parts = UINT32_MAX;
    uv_poll_stop(&client->poll);
    put(client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    while (stream.closed == 0)
        uv_run(&loop, UV_RUN_ONCE);
    assert_true(stream.read > 0);
    close_client(client);
}

static void a_server_stops_in_the_middle_of_a_stream(void **state)
{
    struct client *client = open_client();

    (void) state;
    stream.parts = UINT32_MAX;
    put(client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    while (stream.read == 0)
        uv_run(&loop, UV_RUN_ONCE);
    http_server_destroy(server);
    server = NULL;
    assert_int_equal(stream.closed, 1);
    close_client(client);
}

#define WITH_SERVER(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_SERVER(the_target_arrives_as_sent),
        WITH_SERVER(the_client_is_known_by_its_socket),
        WITH_SERVER(one_connection_serves_many_requests),
        WITH_SERVER(an_unfinished_request_is_closed_at_its_deadline),
        WITH_SERVER(dripping_does_not_move_the_deadline),
        WITH_SERVER(an_idle_connection_outlives_the_deadline_of_a_request),
        WITH_SERVER(a_user_holds_so_many_connections_and_no_more),
        WITH_SERVER(a_body_that_is_not_wanted_is_not_stored),
        WITH_SERVER(a_body_of_the_greatest_size_is_stored),
        WITH_SERVER(a_larger_body_is_refused_by_its_length),
        WITH_SERVER(a_larger_body_in_chunks_is_refused_at_its_end),
        WITH_SERVER(limits_may_shrink_while_a_body_arrives),
        WITH_SERVER(a_server_stops_with_requests_in_hand),
        WITH_SERVER(a_stream_is_sent_in_parts_and_closed),
        WITH_SERVER(between_the_parts_of_a_stream_others_have_their_turn),
        WITH_SERVER(the_head_of_a_stream_reads_nothing),
        WITH_SERVER(a_stream_that_is_not_taken_is_closed_at_its_deadline),
        WITH_SERVER(a_server_stops_in_the_middle_of_a_stream),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
