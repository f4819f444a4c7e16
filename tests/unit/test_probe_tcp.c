/* SPDX-License-Identifier: MIT */
#include "probe_scene.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(tcp_passes_by_the_connection_alone),
        TEST(tcp_sends_and_expects),
    };

    /* For the backends, whose writes libuv does not protect. */
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
