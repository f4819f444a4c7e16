/* SPDX-License-Identifier: MIT */
#include <fcntl.h>

#include "probe_scene.h"

/* For a test to go on from. */
#define QUICK "{\"interval\": 0.02, \"timeout\": 2000"

struct said {
    struct reports reports; /* first: on_report() takes it */
    unsigned n_lines;
    struct agent_line line; /* the last one */
};

static void on_said(void *user, struct probe *probe, const struct probe_report *report)
{
    struct said *said = user;

    if (report->agent != NULL) {
        said->n_lines++;
        said->line = *report->agent;
    }
    on_report(&said->reports, probe, report);
}

static struct probe *start_agent(const char *options, const struct backend *backend,
                                 struct said *said)
{
    *said = (struct said){0};
    return start_with("haproxy-agent-check", options, &backend->addr, "backend:80", on_said, said);
}

/* One check; the backend sends `greeting` at once and leaves the closing to the check. */
static void assert_agent(const char *greeting, enum probe_result result, const char *reason)
{
    struct backend *backend = backend_open((struct backend){.greeting = greeting});
    struct said said;
    struct probe *probe = start_agent(QUICK "}", backend, &said);

    await_checks(probe, 1);
    probe_cancel(probe);
    assert_string_equal(said.reports.reason, reason);
    assert_int_equal(said.reports.result, result);
    assert_int_equal(said.n_lines, 1);
}

static void health_words_pass_and_fail(void **state)
{
    (void) state;
    assert_agent("up\n", PROBE_PASSED, "agent says \"up\"");
    assert_agent("UP 50% # fine\n", PROBE_PASSED, "agent says \"up\": fine");
    assert_agent("down\n", PROBE_FAILED, "agent says \"down\"");
    assert_agent("Stopped # by the operator\r", PROBE_FAILED,
                 "agent says \"stopped\": by the operator");
    assert_agent("fail maint #\x1b[2J\r\n", PROBE_FAILED, "agent says \"fail\": \\x1b[2J");
}

static void other_words_say_nothing_of_health(void **state)
{
    (void) state;
    assert_agent("\n", PROBE_SILENT, "agent says nothing of health");
    assert_agent("75% maxconn:3 drain # down\n", PROBE_SILENT, "agent says nothing of health");
}

static void unknown_words_are_in_the_reason(void **state)
{
    (void) state;
    assert_agent("failed 20%\n", PROBE_SILENT,
                 "agent says nothing of health; unknown word \"failed\"");
    assert_agent("up \x01 weight:257 # x\n", PROBE_PASSED,
                 "agent says \"up\": x; unknown word \"\\x01 weight:257\"");
}

/* One check of an agent that sends `answer` and closes: a reason, and no line. */
static void assert_nothing_said(const char *answer, const char *reason)
{
    struct backend *backend = backend_open((struct backend){.greeting = "", .answer = answer});
    struct said said;
    struct probe *probe = start_agent(QUICK ", \"send\": \"?\\n\"}", backend, &said);

    await_checks(probe, 1);
    probe_cancel(probe);
    assert_string_equal(said.reports.reason, reason);
    assert_int_equal(said.reports.result, PROBE_SILENT);
    assert_int_equal(said.n_lines, 0);
}

static void without_an_end_of_line_the_agent_has_said_nothing(void **state)
{
    static char longest[AGENT_LINE_MAX + 1], longer[AGENT_LINE_MAX + 2];

    (void) state;
    assert_nothing_said("", "closed without an answer");
    assert_nothing_said("down", "answer without an end of line");
    memset(longer, ' ', sizeof(longer) - 1);
    memcpy(longer, "down", 4);
    longer[AGENT_LINE_MAX] = '\n';
    assert_nothing_said(longer, "answer over 1024 bytes");
    memcpy(longest, longer, AGENT_LINE_MAX - 1);
    longest[AGENT_LINE_MAX - 1] = '\n';
    assert_agent(longest, PROBE_FAILED, "agent says \"down\"");
}

static void a_line_may_come_in_parts(void **state)
{
    struct backend *backend = backend_open(
        (struct backend){.greeting = "do", .answer = "wn", .repeated = "\n", .repeat_ms = 5});
    struct said said;
    struct probe *probe = start_agent(QUICK ", \"send\": \"?\\n\"}", backend, &said);

    (void) state;
    await_checks(probe, 1);
    assert_string_equal(said.reports.reason, "agent says \"down\"");
    assert_string_equal(backend->request, "?\n");
}

static void silence_is_no_verdict(void **state)
{
    struct backend *backend = backend_open((struct backend){.greeting = "down\n"});
    struct said said;
    struct probe *probe =
        start_agent("{\"interval\": 0.02, \"timeout\": 200, \"fall\": 1}", backend, &said);

    (void) state;
    await_verdicts(&said.reports, 1);
    assert_false(said.reports.passed);

    /* No answer, in whatever way, changes nothing. */
    backend->greeting = "down";
    await_checks(probe, probe_stats(probe)->checks + 2);
    assert_string_equal(said.reports.reason, "no end of line in 200 ms");
    backend->greeting = NULL;
    await_checks(probe, probe_stats(probe)->checks + 2);
    assert_string_equal(said.reports.reason, "no answer in 200 ms");
    assert_int_equal(said.reports.result, PROBE_SILENT);
    assert_int_equal(said.reports.n_verdicts, 1);
    assert_int_equal(probe_stats(probe)->unhealthy, 1);
    assert_false(probe_stats(probe)->last_passed);

    backend->greeting = "up\n";
    await_verdicts(&said.reports, 2);
    assert_true(said.reports.passed);
}

static void an_agent_that_refuses_is_silent(void **state)
{
    struct said said = {0};
    struct addr addr;
    int fd = refusing_open(&addr);
    struct probe *probe =
        start_with("haproxy-agent-check", QUICK "}", &addr, "backend:80", on_said, &said);

    (void) state;
    await_checks(probe, 3);
    assert_string_equal(said.reports.reason, "connection refused");
    assert_int_equal(said.reports.result, PROBE_SILENT);
    assert_int_equal(said.reports.n_verdicts, 0);
    assert_int_equal(probe_stats(probe)->fails, 0);
    close(fd);
}

static void health_words_count_by_rise_and_fall(void **state)
{
    struct backend *backend = backend_open((struct backend){.greeting = "down 50%\n"});
    struct said said;
    struct probe *probe = start_agent(QUICK ", \"fall\": 2, \"rise\": 3}", backend, &said);

    (void) state;
    await_checks(probe, 1);
    assert_int_equal(said.reports.n_verdicts, 0);
    assert_int_equal(said.line.word.weight, 50);
    backend->greeting = "60%\n"; /* in between, and no end to the row */
    await_checks(probe, 2);
    assert_int_equal(said.reports.n_verdicts, 0);
    backend->greeting = "down\n";
    await_checks(probe, 3);
    assert_int_equal(said.reports.n_verdicts, 1);
    assert_false(said.reports.passed);

    backend->greeting = "up\n";
    await_checks(probe, 5);
    assert_int_equal(said.reports.n_verdicts, 1);
    await_checks(probe, 6);
    assert_int_equal(said.reports.n_verdicts, 2);
    assert_true(said.reports.passed);
}

/* Runs n checks and returns how many lines of the log speak of unknown words. */
static unsigned logged_in(struct probe *probe, unsigned n, int log)
{
    char text[4096];
    unsigned lines = 0;
    ssize_t length;

    await_checks(probe, probe_stats(probe)->checks + n);
    length = read(log, text, sizeof(text) - 1);
    text[length > 0 ? length : 0] = '\0';
    for (const char *p = text; (p = strstr(p, "unknown word")) != NULL; p++)
        lines++;
    return lines;
}

static void unknown_words_are_logged_once_a_minute_at_most(void **state)
{
    struct backend *backend = backend_open((struct backend){.greeting = "up foo\n"});
    struct said said;
    struct probe *probe;
    int log[2], saved = dup(STDERR_FILENO);
    unsigned same, other, none, again;

    (void) state;
    assert_int_equal(pipe2(log, O_NONBLOCK), 0);
    assert_true(saved >= 0 && dup2(log[1], STDERR_FILENO) >= 0);
    probe = start_agent(QUICK "}", backend, &said);
    same = logged_in(probe, 3, log[0]);
    backend->greeting = "up bar\n";
    other = logged_in(probe, 3, log[0]);
    backend->greeting = "up\n";
    none = logged_in(probe, 2, log[0]);
    backend->greeting = "up bar\n";
    again = logged_in(probe, 3, log[0]);
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    close(saved);
    close(log[0]);
    close(log[1]);

    assert_int_equal(same, 1);
    assert_int_equal(other, 0);
    assert_int_equal(none, 0);
    assert_int_equal(again, 0);
}

/* One check of an agent that answers in HTTP. */
static void assert_http_agent(const char *answer, const char *options, enum probe_result result,
                              const char *reason)
{
    struct backend *backend = backend_open((struct backend){.answer = answer});
    struct said said = {0};
    struct probe *probe = start_with("http-haproxy-agent-check", options, &backend->addr,
                                     "backend:80", on_said, &said);

    await_checks(probe, 1);
    probe_cancel(probe);
    assert_string_equal(said.reports.reason, reason);
    assert_int_equal(said.reports.result, result);
    assert_int_equal(said.n_lines, strncmp(reason, "agent says", 10) == 0);
}

#define HTTP_200 "HTTP/1.1 200 OK\r\n"

static void an_http_agent_says_the_same_in_the_body(void **state)
{
    (void) state;
    assert_http_agent(HTTP_200 "Content-Length: 12\r\n\r\ndown # disk\n", QUICK "}", PROBE_FAILED,
                      "agent says \"down\": disk");
    assert_http_agent(HTTP_200 "Content-Length: 9\r\n\r\nup\r\ndown\n", QUICK "}", PROBE_PASSED,
                      "agent says \"up\"");
    assert_http_agent(HTTP_200 "Content-Length: 3\r\n\r\n50%", QUICK "}", PROBE_SILENT,
                      "agent says nothing of health");
    assert_http_agent(HTTP_200 "Content-Length: 0\r\n\r\n", QUICK "}", PROBE_SILENT,
                      "agent says nothing of health");
    assert_http_agent(HTTP_200
                      "Transfer-Encoding: chunked\r\n\r\n2\r\nst\r\n5\r\nopped\r\n0\r\n\r\n",
                      QUICK "}", PROBE_FAILED, "agent says \"stopped\"");
    assert_http_agent("HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\nfail\n",
                      QUICK ", \"ok_codes\": \"503\"}", PROBE_FAILED, "agent says \"fail\"");
}

static void the_end_of_an_http_body_ends_the_line(void **state)
{
    (void) state;
    assert_http_agent(HTTP_200 "Content-Length: 4\r\n\r\ndown", QUICK "}", PROBE_FAILED,
                      "agent says \"down\"");
    assert_http_agent(HTTP_200 "Content-Length: 5\r\n\r\ndown", QUICK "}", PROBE_SILENT,
                      "answer cut short");
}

static void an_http_agent_without_a_proper_answer_is_silent(void **state)
{
    static char longer[2048];
    int n;

    (void) state;
    assert_http_agent("HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\ndown\n", QUICK "}",
                      PROBE_SILENT, "HTTP 503");
    assert_http_agent("HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\ndown\n", QUICK "}",
                      PROBE_SILENT, "HTTP 201");
    assert_http_agent("down\n", QUICK "}", PROBE_SILENT, "answer is not HTTP");
    n = snprintf(longer, sizeof(longer), HTTP_200 "Content-Length: 1500\r\n\r\ndown");
    memset(longer + n, ' ', 1496);
    assert_http_agent(longer, QUICK "}", PROBE_SILENT, "answer over 1024 bytes");
    longer[n + AGENT_LINE_MAX - 5] = '\n'; /* the 1,024th byte of the body */
    assert_http_agent(longer, QUICK "}", PROBE_FAILED, "agent says \"down\"");
}

static void agents_are_asked_every_two_seconds_by_default(void **state)
{
    static const char *const agents[] = {"haproxy-agent-check", "http-haproxy-agent-check"};

    (void) state;
    for (size_t i = 0; i < sizeof(agents) / sizeof(agents[0]); i++) {
        const struct check *check = check_new(agents[i], "{}");

        assert_int_equal(check->interval_ms, 2000);
        assert_int_equal(check->timeout_ms, 2000);
        assert_int_equal(check->rise, 1);
        assert_int_equal(check->fall, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(health_words_pass_and_fail),
        TEST(other_words_say_nothing_of_health),
        TEST(unknown_words_are_in_the_reason),
        TEST(without_an_end_of_line_the_agent_has_said_nothing),
        TEST(a_line_may_come_in_parts),
        TEST(silence_is_no_verdict),
        TEST(an_agent_that_refuses_is_silent),
        TEST(health_words_count_by_rise_and_fall),
        TEST(unknown_words_are_logged_once_a_minute_at_most),
        TEST(an_http_agent_says_the_same_in_the_body),
        TEST(the_end_of_an_http_body_ends_the_line),
        TEST(an_http_agent_without_a_proper_answer_is_silent),
        TEST(agents_are_asked_every_two_seconds_by_default),
    };

    /* For the backends, whose writes libuv does not protect. */
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
