/* SPDX-License-Identifier: MIT */
#include "probe_scene.h"

#include "clock.h"

#define BUSY "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"

/* The i-th http check of its own at one address: the host differs. */
static struct probe *start_named(unsigned i, const char *options, const struct addr *addr,
                                 struct reports *reports)
{
    char host[32];

    snprintf(host, sizeof(host), "backend%u:80", i);
    return start_with("http", options, addr, host, on_report, reports);
}

/* --- verdicts and schedule ------------------------------------------------------------------- */

static void verdict_needs_fall_failures_or_rise_passes_in_a_row(void **state)
{
    struct backend *backend = backend_open((struct backend){.answer = BUSY});
    struct reports reports = {0};
    struct probe *probe;

    (void) state;
    probe = start("http", "{\"interval\": 0.02, \"timeout\": 2000, \"fall\": 3, \"rise\": 2}",
                  &backend->addr, &reports);
    await_checks(probe, 2);
    assert_int_equal(reports.n_verdicts, 0);
    await_checks(probe, 3);
    assert_int_equal(reports.n_verdicts, 1);
    assert_false(reports.passed);
    await_checks(probe, 5);
    assert_int_equal(reports.n_verdicts, 1);

    backend->answer = OK;
    await_checks(probe, 6);
    assert_int_equal(reports.n_verdicts, 1);
    assert_true(probe_stats(probe)->last_passed);
    backend->answer = BUSY;
    await_checks(probe, 7);
    backend->answer = OK;
    await_checks(probe, 8);
    assert_int_equal(reports.n_verdicts, 1);
    await_checks(probe, 9);
    assert_int_equal(reports.n_verdicts, 2);
    assert_true(reports.passed);
    assert_string_equal(reports.reason, "HTTP 200");

    backend->answer = BUSY;
    await_checks(probe, 11);
    assert_int_equal(reports.n_verdicts, 2);
    await_checks(probe, 12);
    assert_int_equal(reports.n_verdicts, 3);
    assert_false(reports.passed);
    assert_int_equal(probe_stats(probe)->checks, 12);
    assert_int_equal(probe_stats(probe)->fails, 9);
    assert_int_equal(probe_stats(probe)->unhealthy, 2);
    assert_false(probe_stats(probe)->last_passed);
}

static void first_checks_are_spread_over_the_interval(void **state)
{
    struct backend *backend = backend_open((struct backend){.answer = OK});
    struct reports reports = {0};
    unsigned tenths[10] = {0};
    uint64_t begin;

    (void) state;
    begin = now_ms();
    for (unsigned i = 0; i < N_SPREAD; i++)
        start_named(i, "{\"interval\": 1}", &backend->addr, &reports);
    await_verdicts(&reports, N_SPREAD);
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
    struct reports reports = {0};
    struct probe *probe;
    uint64_t first_ms;

    (void) state;
    probe = start("http", "{\"interval\": 0.1}", &backend->addr, &reports);
    await_checks(probe, 1);
    first_ms = backend->accepted_ms;
    await_checks(probe, 11);
    /* 1,600 if the interval began with the end of the check before. */
    assert_in_range(backend->accepted_ms - first_ms, 990, 1200);
}

static void checks_of_one_probe_never_overlap(void **state)
{
    struct backend *backend = backend_open((struct backend){0});
    struct reports reports = {0};
    struct probe *probe;

    (void) state;
    probe = start("http", "{\"interval\": 0.02, \"timeout\": 110}", &backend->addr, &reports);
    await_checks(probe, 4);
    assert_int_equal(backend->max_open, 1);
    assert_int_equal(backend->n_connections, 4);
}

static void silent_backend_delays_no_other(void **state)
{
    struct backend *silent = backend_open((struct backend){0});
    struct backend *quick = backend_open((struct backend){.answer = OK});
    struct reports reports = {0};
    struct probe *waiting[20], *probe = NULL;

    (void) state;
    for (unsigned i = 0; i < 20; i++)
        waiting[i] =
            start_named(i, "{\"interval\": 0.1, \"timeout\": 10000}", &silent->addr, &reports);
    probe = start("http", "{\"interval\": 0.1}", &quick->addr, &reports);
    await_checks(probe, 5);
    assert_int_equal(silent->n_connections, 20);
    for (size_t i = 0; i < 20; i++)
        assert_int_equal(probe_stats(waiting[i])->checks, 0);
}

static void jitter_delays_checks_by_less_than_itself(void **state)
{
    struct backend *backend = backend_open((struct backend){0});
    struct reports reports = {0};
    struct probe *probe;
    uint64_t begin_ms;
    int64_t least = INT64_MAX, most = INT64_MIN;

    (void) state;
    probe = start("tcp", "{\"interval\": 0.2, \"jitter\": 0.1}", &backend->addr, &reports);
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

/* Times between the connections of the last n checks but the first. */
static uint64_t arrivals_span(const struct backend *backend, unsigned first, unsigned last)
{
    assert_true(last < backend->n_connections && last < N_SPREAD);
    return backend->arrivals_ms[last] - backend->arrivals_ms[first];
}

static void fastinter_is_in_force_until_a_row_of_results_has_led_to_a_verdict(void **state)
{
    struct backend *backend = backend_open((struct backend){.answer = OK});
    struct reports reports = {0};
    struct probe *probe;

    (void) state;
    probe = start("http",
                  "{\"interval\": 0.3, \"fastinter\": 0.05, \"fall\": 4, \"rise\": 3,"
                  " \"timeout\": 200}",
                  &backend->addr, &reports);
    /* Three passes make the first verdict. */
    await_checks(probe, 5);
    assert_int_equal(reports.n_verdicts, 1);
    assert_in_range(arrivals_span(backend, 0, 2), 95, 250);
    assert_in_range(arrivals_span(backend, 2, 4), 450, 2000);

    backend->answer = BUSY;
    await_verdicts(&reports, 2);
    await_checks(probe, 11);
    assert_false(reports.passed);
    /* The first failure comes with the interval, the three others fast, then slow again. */
    assert_in_range(arrivals_span(backend, 5, 8), 0, 500);
    assert_in_range(arrivals_span(backend, 8, 10), 450, 2000);
}

static void downinter_is_in_force_while_the_verdict_is_failed(void **state)
{
    struct backend *backend = backend_open((struct backend){.answer = BUSY});
    struct reports reports = {0};
    struct probe *probe;

    (void) state;
    probe = start("http", "{\"interval\": 0.05, \"downinter\": 0.3, \"timeout\": 200}",
                  &backend->addr, &reports);
    await_checks(probe, 3);
    assert_in_range(arrivals_span(backend, 0, 2), 450, 2000);
    backend->answer = OK;
    await_verdicts(&reports, 2);
    await_checks(probe, 7);
    assert_in_range(arrivals_span(backend, 3, 6), 0, 500);
}

/* Those that became due while the loop stood still. */
static void starts_that_are_overdue_do_not_come_all_at_once(void **state)
{
    enum { N = 2 * N_SPREAD, INTERVAL_MS = 100, WINDOW_MS = 10, SAMPLES = 10000 };
    static struct {
        uint64_t ms;
        uint32_t n;
    } samples[SAMPLES];
    struct backend *silent = backend_open((struct backend){0});
    const struct prober_stats *stats = prober_stats(scene.prober);
    struct reports reports = {0};
    size_t n = 1;
    uint32_t most = 0;

    (void) state;
    for (unsigned i = 0; i < N; i++) {
        char options[128];

        snprintf(options, sizeof(options),
                 "{\"interval\": \"%dms\", \"timeout\": %u, \"expect\": \"x\"}", INTERVAL_MS,
                 GUARD_MS + i);
        start("tcp", options, &silent->addr, &reports);
    }
    usleep(INTERVAL_MS * 450);
    samples[0].ms = now_ms();
    while (stats->running < N) {
        uv_run(&scene.loop, UV_RUN_ONCE);
        assert_true(n < SAMPLES);
        samples[n].ms = now_ms();
        samples[n++].n = stats->running;
    }
    for (size_t i = 0; i + 1 < n; i++) {
        size_t k = i + 1;

        while (k + 1 < n && samples[k + 1].ms < samples[i].ms + WINDOW_MS)
            k++;
        if (samples[k].n - samples[i].n > most)
            most = samples[k].n - samples[i].n;
    }
    /* A fifth more than that for the samples. All that are overdue would be 90. */
    assert_in_range(most, 1, 3 * N * WINDOW_MS / INTERVAL_MS * 6 / 5);
}

/* --- sharing --------------------------------------------------------------------------------- */

#define SHARED "{\"interval\": 0.05, \"timeout\": 2000, \"fall\": 2}"

static void probes_with_the_same_check_share_one_target(void **state)
{
    static const struct {
        const char *type, *options, *host;
        unsigned targets;
    } others[] = {
        {"http", SHARED, "backend:80", 1},
        /* What only their owners go by makes no difference, nor does a default in words. */
        {"http",
         "{\"interval\": \"50ms\", \"timeout\": \"2s\", \"fall\": \"2\", \"rise\": 1,"
         " \"peers\": \"up\", \"mandatory\": true, \"persistent\": true}",
         "backend:80", 1},
        {"http", SHARED, "other:80", 2},
        {"http", "{\"interval\": 0.05, \"timeout\": 2000, \"fall\": 3}", "backend:80", 3},
        {"http", "{\"interval\": 0.05, \"timeout\": 2000, \"fall\": 2, \"uri\": \"/x\"}",
         "backend:80", 4},
        {"http", "{\"interval\": 0.05, \"timeout\": 2000, \"fall\": 2, \"host\": \"h\"}",
         "backend:80", 5},
        /* The name is not sent then. */
        {"http", "{\"interval\": 0.05, \"timeout\": 2000, \"fall\": 2, \"host\": \"h\"}",
         "other:80", 5},
        {"tcp", SHARED, "backend:80", 6},
        {"tcp", SHARED, "other:80", 6},
        {"tcp", "{\"interval\": 0.05, \"timeout\": 2000, \"fall\": 2, \"downinter\": 1}",
         "backend:80", 7},
    };
    const size_t n = sizeof(others) / sizeof(others[0]);
    struct backend *backend = backend_open((struct backend){.answer = OK});
    const struct prober_stats *stats = prober_stats(scene.prober);
    struct reports reports = {0};
    struct probe *probes[sizeof(others) / sizeof(others[0])];

    (void) state;
    for (size_t i = 0; i < n; i++) {
        probes[i] = start_with(others[i].type, others[i].options, &backend->addr, others[i].host,
                               on_report, &reports);
        assert_int_equal(stats->targets, others[i].targets);
        assert_int_equal(stats->probes, i + 1);
    }
    for (size_t i = 0; i < n; i++)
        probe_cancel(probes[i]);
    assert_int_equal(stats->targets, 0);
    assert_int_equal(stats->probes, 0);
}

static void port_of_the_check_makes_it_the_same_endpoint(void **state)
{
    struct backend *backend = backend_open((struct backend){0});
    struct reports reports = {0};
    struct addr addr = backend->addr;
    char options[64];

    (void) state;
    snprintf(options, sizeof(options), "{\"interval\": 0.05, \"port\": %u}",
             addr_port(&backend->addr));
    addr_set_port(&addr, 1);
    start("tcp", options, &addr, &reports);
    start("tcp", "{\"interval\": 0.05}", &backend->addr, &reports);
    assert_int_equal(prober_stats(scene.prober)->targets, 1);
}

static void shared_target_is_checked_once_for_all_and_all_hear_of_it(void **state)
{
    struct backend *backend = backend_open((struct backend){.answer = OK});
    struct reports reports[4] = {{0}};
    struct probe *probes[4];

    (void) state;
    for (size_t i = 0; i < 3; i++)
        probes[i] = start("http", SHARED, &backend->addr, &reports[i]);
    await_checks(probes[0], 5);
    assert_int_equal(backend->n_connections, 5);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(reports[i].n, 5);
        assert_int_equal(reports[i].n_verdicts, 1);
        assert_true(reports[i].passed);
    }

    /* It goes on for the others, who come and go. */
    probe_cancel(probes[0]);
    probe_cancel(probes[2]);
    probes[3] = start("http", SHARED, &backend->addr, &reports[3]);
    await_checks(probes[3], 7);
    assert_int_equal(backend->n_connections, 7);
    assert_int_equal(reports[0].n, 5);
    assert_int_equal(reports[1].n, 7);
    assert_int_equal(reports[1].n_verdicts, 1);
    assert_int_equal(reports[3].n, 2);
    assert_int_equal(reports[3].n_verdicts, 1);
    assert_true(probe_stats(probes[1]) == probe_stats(probes[3]));
}

static void late_probe_hears_of_the_verdict_with_a_result_that_agrees(void **state)
{
    struct backend *backend = backend_open((struct backend){.answer = OK});
    struct reports reports[2] = {{0}};
    struct probe *probe;

    (void) state;
    probe = start("http", SHARED, &backend->addr, &reports[0]);
    await_verdicts(&reports[0], 1);
    start("http", SHARED, &backend->addr, &reports[1]);
    backend->answer = BUSY;
    await_checks(probe, 2);
    /* One failure of two: the verdict is still "passed", for which "HTTP 503" is no reason. */
    assert_int_equal(reports[1].n, 1);
    assert_int_equal(reports[1].n_verdicts, 0);
    backend->answer = OK;
    await_verdicts(&reports[1], 1);
    assert_true(reports[1].passed);
    assert_string_equal(reports[1].reason, "HTTP 200");
    assert_int_equal(reports[0].n_verdicts, 1);
}

static void stats_tell_of_the_last_check(void **state)
{
    struct backend *backend = backend_open((struct backend){.answer = BUSY, .delay_ms = 30});
    struct reports reports = {0};
    uint64_t before_ms = clock_wall_ms();
    const struct probe_stats *stats;

    (void) state;
    stats = probe_stats(start("http", SHARED, &backend->addr, &reports));
    assert_int_equal(stats->last_at_ms, 0);
    await_verdicts(&reports, 1);
    assert_int_equal(stats->checks, 2);
    assert_int_equal(stats->fails, 2);
    assert_int_equal(stats->unhealthy, 1);
    assert_false(stats->last_passed);
    assert_string_equal(stats->last_reason, "HTTP 503");
    assert_in_range(stats->last_duration_ms, 30, 2000);
    assert_in_range(stats->last_at_ms, before_ms, clock_wall_ms());
    assert_int_equal(prober_stats(scene.prober)->checks, 2);
    assert_int_equal(prober_stats(scene.prober)->running, 0);
}

static void start_that_is_late_by_more_than_50_ms_is_counted(void **state)
{
    struct backend *backend = backend_open((struct backend){0});
    struct reports reports = {0};
    struct probe *probe = start("tcp", "{\"interval\": 0.01}", &backend->addr, &reports);

    uint64_t late;

    (void) state;
    await_checks(probe, 3);
    late = prober_stats(scene.prober)->late;
    /* Less, but on a machine that was too busy for the test. */
    assert_in_range(late, 0, 2);
    usleep((PROBE_LATE_MS + 30) * 1000);
    await_checks(probe, 6);
    assert_in_range(prober_stats(scene.prober)->late, late + 1, late + 3);
}

/* --- life and death -------------------------------------------------------------------------- */

struct canceller {
    struct probe *others[3];
    unsigned n;
};

static void cancel_all(void *user, struct probe *probe, const struct probe_report *report)
{
    struct canceller *canceller = user;

    (void) probe;
    (void) report;
    canceller->n++;
    uv_stop(&scene.loop);
    for (size_t i = 0; i < 3; i++)
        probe_cancel(canceller->others[i]);
}

static void probes_may_be_cancelled_inside_a_report(void **state)
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
    struct reports reports = {0};
    struct probe *http, *tcp;

    (void) state;
    http = start("http", SOON, &backend->addr, &reports);
    tcp = start("tcp", SOON_EXPECT, &backend->addr, &reports);
    while (backend->n_open < 2)
        uv_run(&scene.loop, UV_RUN_ONCE);
    probe_cancel(http);
    probe_cancel(tcp);
    probe_cancel(NULL);
    while (backend->n_open > 0)
        uv_run(&scene.loop, UV_RUN_ONCE);
    assert_int_equal(reports.n_verdicts, 0);
}

static void destroyed_prober_leaves_nothing_of_running_checks(void **state)
{
    struct backend *backend = backend_open((struct backend){0});
    struct reports reports = {0};

    (void) state;
    for (unsigned i = 0; i < 10; i++)
        start_named(i, SOON, &backend->addr, &reports);
    start("tcp", SOON_EXPECT, &backend->addr, &reports);
    while (backend->n_open < 11)
        uv_run(&scene.loop, UV_RUN_ONCE);
    prober_destroy(scene.prober);
    scene.prober = NULL;
    while (backend->n_open > 0)
        uv_run(&scene.loop, UV_RUN_ONCE);
    assert_int_equal(reports.n_verdicts, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(verdict_needs_fall_failures_or_rise_passes_in_a_row),
        TEST(first_checks_are_spread_over_the_interval),
        TEST(slow_answers_do_not_stretch_the_interval),
        TEST(checks_of_one_probe_never_overlap),
        TEST(silent_backend_delays_no_other),
        TEST(jitter_delays_checks_by_less_than_itself),
        TEST(fastinter_is_in_force_until_a_row_of_results_has_led_to_a_verdict),
        TEST(downinter_is_in_force_while_the_verdict_is_failed),
        TEST(starts_that_are_overdue_do_not_come_all_at_once),
        TEST(probes_with_the_same_check_share_one_target),
        TEST(port_of_the_check_makes_it_the_same_endpoint),
        TEST(shared_target_is_checked_once_for_all_and_all_hear_of_it),
        TEST(late_probe_hears_of_the_verdict_with_a_result_that_agrees),
        TEST(stats_tell_of_the_last_check),
        TEST(start_that_is_late_by_more_than_50_ms_is_counted),
        TEST(probes_may_be_cancelled_inside_a_report),
        TEST(cancelled_checks_close_their_connections),
        TEST(destroyed_prober_leaves_nothing_of_running_checks),
    };

    /* For the backends, whose writes libuv does not protect. */
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
