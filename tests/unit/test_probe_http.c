/* SPDX-License-Identifier: MIT */
#include "probe_http.h"

#include "probe_scene.h"

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

static void body_passes_by_the_expression(void **state)
{
    static const struct {
        const char *expression, *answer, *reason;
        bool passes;
    } cases[] = {
        {"^ok$", OK, "HTTP 200", true},
        {"^o$", OK, "body does not match", false},
        {"^$", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP 204", true},
        {"x", "HTTP/1.1 204 No Content\r\n\r\n", "body does not match", false},
        {"a b",
         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\na \r\n1\r\nb\r\n0\r\n\r\n",
         "HTTP 200", true},
        {"until", "HTTP/1.1 200 OK\r\n\r\nuntil the end", "HTTP 200", true},
        /* The status comes first. */
        {"busy", "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy", "HTTP 503", false},
        {"five", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfive", "answer cut short", false},
    };
    char options[128];

    (void) state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct backend *backend = backend_open((struct backend){.answer = cases[i].answer});

        snprintf(options, sizeof(options),
                 "{\"interval\": 0.05, \"timeout\": 2000, \"match_body\": \"%s\"}",
                 cases[i].expression);
        assert_verdict("http", options, backend, cases[i].passes, cases[i].reason);
    }
}

static void expression_sees_the_first_256_kib(void **state)
{
    static char answer[HTTP_BODY_MAX + 128];
    struct backend *backend = backend_open((struct backend){.answer = answer});
    int n = snprintf(answer, sizeof(answer), "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n",
                     HTTP_BODY_MAX + 1);

    (void) state;
    memset(answer + n, 'x', HTTP_BODY_MAX + 1);
    answer[n + HTTP_BODY_MAX - 1] = 'y';
    assert_verdict("http", "{\"interval\": 0.05, \"timeout\": 2000, \"match_body\": \"y\"}",
                   backend, true, "HTTP 200");
    answer[n + HTTP_BODY_MAX - 1] = 'x';
    answer[n + HTTP_BODY_MAX] = 'y';
    assert_verdict("http", "{\"interval\": 0.05, \"timeout\": 2000, \"match_body\": \"y\"}",
                   backend, false, "body does not match");
}

/* The length of the line is what curl refuses, 100 kB, which looks like a lack of memory. */
static void line_of_200_kb_fails_at_the_cap(void **state)
{
    static char answer[200 * 1024 + 64];
    struct backend *backend = backend_open((struct backend){.answer = answer, .keeps_open = true});
    int n = snprintf(answer, sizeof(answer), "HTTP/1.1 200 OK\r\nX: ");

    (void) state;
    memset(answer + n, 'x', 200 * 1024);
    assert_verdict("http", SOON, backend, false, "answer header over 16 kB");
}

/* Nothing of it is header or body. */
static void endless_framing_fails_at_the_cap(void **state)
{
    static char chunk[16 * 1024];
    struct backend *backend = backend_open(
        (struct backend){.answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=",
                         .repeated = chunk});

    (void) state;
    memset(chunk, 'x', sizeof(chunk) - 1);
    assert_verdict("http", SOON, backend, false, "no end of the answer in 1024 KiB");
    assert_in_range(backend->n_sent, HTTP_READ_MAX, 32 * 1024 * 1024);
}

static void redirects_are_answers_like_others(void **state)
{
    static const char *const locations[] = {"file:///etc/passwd", "http://127.0.0.1:1/", "//x:1/"};
    char answer[128];

    (void) state;
    for (size_t i = 0; i < 3; i++) {
        struct backend *backend = backend_open((struct backend){.answer = answer});

        snprintf(answer, sizeof(answer),
                 "HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n", locations[i]);
        assert_verdict("http", "{\"interval\": 0.05, \"ok_codes\": 200}", backend, false,
                       "HTTP 302");
    }
}

static void odd_answers_fail_in_words(void **state)
{
    static const struct {
        const char *answer, *reason;
    } cases[] = {
        {"<html>HTTP/0.9</html>", "answer is not HTTP"},
        {"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "answer is not HTTP"},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
         "Illegal or missing hexadecimal sequence in chunked-encoding"},
        {"HTTP/7.7 200 OK\r\n\r\n", "answer is not HTTP"},
        {"HTTP/1.1 2x0 OK\r\n\r\n", "answer is not HTTP"},
    };

    (void) state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct backend *backend = backend_open((struct backend){.answer = cases[i].answer});

        assert_verdict("http", SOON, backend, false, cases[i].reason);
    }
}

static void answers_that_do_not_end_fail_by_the_timeout(void **state)
{
    static const char options[] = "{\"interval\": 0.3, \"timeout\": 200}";
    struct backend *dripping = backend_open(
        (struct backend){.answer = "H", .repeated = "T", .repeat_ms = 100, .keeps_open = true});
    struct backend *overflowing = backend_open(
        (struct backend){.answer =
                             "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nx",
                         .keeps_open = true});
    struct backend *interim =
        backend_open((struct backend){.answer = "HTTP/1.1 100 Continue\r\n\r\n",
                                      .repeated = "HTTP/1.1 100 Continue\r\n\r\n",
                                      .repeat_ms = 20});

    (void) state;
    assert_timeout("http", options, dripping, 200, "no answer in 200 ms");
    assert_timeout("http", options, overflowing, 200, "no end of the answer in 200 ms");
    assert_timeout("http", options, interim, 200, "no end of the answer in 200 ms");
}

static void tls_to_what_speaks_none_fails_in_words(void **state)
{
    static const char options[] = "{\"interval\": 0.3, \"timeout\": 200, \"tls\": true}";
    struct backend *plain = backend_open((struct backend){.greeting = OK});
    struct backend *garbage = backend_open((struct backend){.greeting = "\x16\x03\x03\xff\xffzzz"});
    struct backend *silent = backend_open((struct backend){0});

    (void) state;
    assert_verdict("http", options, plain, false, "TLS handshake failed: wrong version number");
    assert_verdict("http", options, garbage, false, "TLS handshake failed: packet length too long");
    assert_timeout("http", options, silent, 200, "no TLS handshake in 200 ms");
    assert_timeout("grpc", options, silent, 200, "no TLS handshake in 200 ms");
}

static void http_2_to_what_speaks_none_fails_in_words(void **state)
{
    static const char options[] = "{\"interval\": 0.3, \"timeout\": 200}";
    struct backend *plain = backend_open((struct backend){.answer = OK});
    struct backend *silent = backend_open((struct backend){0});

    (void) state;
    assert_verdict("grpc", options, plain, false, "closed without an answer in HTTP/2");
    assert_verdict("http", "{\"interval\": 0.05, \"http_version\": 2}", plain, false,
                   "closed without an answer in HTTP/2");
    assert_timeout("grpc", options, silent, 200, "no answer in 200 ms");
}

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
        TEST(body_passes_by_the_expression),
        TEST(expression_sees_the_first_256_kib),
        TEST(line_of_200_kb_fails_at_the_cap),
        TEST(endless_framing_fails_at_the_cap),
        TEST(redirects_are_answers_like_others),
        TEST(odd_answers_fail_in_words),
        TEST(answers_that_do_not_end_fail_by_the_timeout),
        TEST(tls_to_what_speaks_none_fails_in_words),
        TEST(http_2_to_what_speaks_none_fails_in_words),
    };

    /* For the backends, whose writes libuv does not protect. */
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
