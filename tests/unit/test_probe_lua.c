/* SPDX-License-Identifier: MIT */
#include "probe_scene.h"

#include <sys/wait.h>

#include "probe_lua.h"

#define OPTIONS "{\"interval\": 0.05, \"timeout\": 1000, \"color\": \"blue\"}"
#define OFTEN "{\"interval\": 0.05, \"timeout\": 50}"
#define RARE "{\"interval\": 0.4, \"timeout\": 1000}"

static const struct probe_lua_worker one = {.name = "one"}, two = {.name = "two"};

static struct probe *start_lua(const char *id, const char *options, const char *host,
                               struct reports *reports)
{
    json_t *json = json_loads(options, 0, NULL);
    struct failure failure = {0};
    struct probe *probe = NULL;
    struct check *check;
    struct addr addr;

    assert_non_null(json);
    assert_int_equal(check_parse_lua("mine", "foo", id, json, &check, &failure), 0);
    json_decref(json);
    scene.checks[scene.n_checks++] = check;
    assert_int_equal(addr_parse("127.0.0.1:81", 0, &addr), 0);
    assert_int_equal(probe_start(scene.prober, check, &addr, host, on_report, reports, &probe), 0);
    return probe;
}

static const struct check *last_check(void)
{
    return scene.checks[scene.n_checks - 1];
}

/* Waits until the worker is given a check. Returns its number. */
static uint64_t take(const struct probe_lua_worker *worker)
{
    struct probe_lua_check taken;

    while (probe_lua_claim(scene.prober, last_check(), worker) == 0 ||
           !probe_lua_take(scene.prober, last_check(), &taken))
        uv_run(&scene.loop, UV_RUN_ONCE);
    return taken.number;
}

/* A report outside of the loop stops its next turn. */
static void give(const struct probe_lua_worker *worker, uint64_t number, enum probe_result result,
                 const char *reason)
{
    probe_lua_done(scene.prober, worker, number, result, reason);
    uv_run(&scene.loop, UV_RUN_NOWAIT);
}

static void await_reports(const struct reports *reports, unsigned n)
{
    while (reports->n < n)
        uv_run(&scene.loop, UV_RUN_ONCE);
}

/* --- results ---------------------------------------------------------------------------------- */

static void result_of_the_runner_is_that_of_the_check(void **state)
{
    struct reports reports = {0};
    struct probe *probe = start_lua("mine", OPTIONS, "peer:81", &reports);

    (void) state;
    give(&one, take(&one), PROBE_FAILED, "too \n blue");
    assert_int_equal(reports.n_verdicts, 1);
    assert_false(reports.passed);
    assert_string_equal(reports.reason, "too \\x0a blue");
    give(&one, take(&one), PROBE_PASSED, "passed");
    assert_int_equal(reports.n_verdicts, 2);
    assert_true(reports.passed);
    assert_int_equal(probe_stats(probe)->checks, 2);
}

static void check_tells_peer_and_its_own_port(void **state)
{
    struct reports reports = {0};
    struct probe_lua_check taken;
    char address[DURPINA_NAME_SIZE];

    (void) state;
    start_lua("mine", "{\"interval\": 0.05, \"port\": 9}", "peer:81", &reports);
    while (probe_lua_claim(scene.prober, last_check(), &one) == 0 ||
           !probe_lua_take(scene.prober, last_check(), &taken))
        uv_run(&scene.loop, UV_RUN_ONCE);
    assert_string_equal(taken.host, "peer:81");
    addr_format(taken.addr, address, sizeof(address));
    assert_string_equal(address, "127.0.0.1:81");
    assert_false(probe_lua_take(scene.prober, last_check(), &taken));
}

static void numbers_fit_into_14_digits_and_differ(void **state)
{
    struct reports reports = {0};
    uint64_t first, second;

    (void) state;
    start_lua("mine", OPTIONS, "peer:81", &reports);
    first = take(&one);
    give(&one, first, PROBE_PASSED, "");
    second = take(&one);
    assert_in_range(first, 1, 99999999999999);
    assert_in_range(second, 1, 99999999999999);
    assert_true(first != second);
}

static void result_without_a_decision_changes_no_verdict(void **state)
{
    struct reports reports = {0};
    struct probe *probe = start_lua("mine", OPTIONS, "peer:81", &reports);

    (void) state;
    give(&one, take(&one), PROBE_UNDECIDED, "peer is gone");
    assert_int_equal(reports.n, 1);
    assert_int_equal(reports.result, PROBE_UNDECIDED);
    assert_int_equal(probe_stats(probe)->checks, 0);
}

static void unanswered_check_fails_by_its_timeout(void **state)
{
    struct reports reports = {0};
    uint64_t number, began_ms;

    (void) state;
    start_lua("mine", "{\"interval\": 0.1, \"timeout\": 60}", "peer:81", &reports);
    run_for(60); /* it has its timeout from when it is fetched */
    number = take(&one);
    began_ms = now_ms();
    await_reports(&reports, 1);
    assert_int_equal(reports.result, PROBE_FAILED);
    assert_string_equal(reports.reason, "no answer in 60 ms");
    assert_in_range(reports.at_ms - began_ms, 59, 59 + GUARD_MS);

    give(&one, number, PROBE_PASSED, "late");
    assert_int_equal(reports.n, 1);
}

static void check_that_nobody_fetches_is_undecided_after_an_interval(void **state)
{
    struct reports reports = {0};
    struct probe *probe = start_lua("mine", OFTEN, "peer:81", &reports);

    (void) state;
    await_reports(&reports, 2);
    assert_int_equal(reports.result, PROBE_UNDECIDED);
    assert_string_equal(reports.reason, "no nginx worker that runs it in 50 ms");
    assert_int_equal(probe_stats(probe)->checks, 0);
    assert_int_equal(reports.n_verdicts, 0);
}

static void cancelled_probe_takes_no_result(void **state)
{
    struct reports reports = {0};
    struct probe *probe = start_lua("mine", OPTIONS, "peer:81", &reports);
    uint64_t number = take(&one);
    unsigned before = reports.n; /* checks that nobody fetched in time, on a slow machine */

    (void) state;
    probe_cancel(probe);
    give(&one, number, PROBE_PASSED, "passed");
    assert_int_equal(reports.n, before);
    assert_int_equal(probe_lua_claim(scene.prober, last_check(), &one), 0);
}

/* --- runners ---------------------------------------------------------------------------------- */

static void monitor_has_one_runner_until_it_leaves(void **state)
{
    struct reports reports = {0};
    uint64_t term, late;

    (void) state;
    start_lua("mine", OPTIONS, "peer:81", &reports);
    late = take(&one);
    term = probe_lua_claim(scene.prober, last_check(), &one);
    assert_int_equal(probe_lua_claim(scene.prober, last_check(), &two), 0);
    give(&two, late, PROBE_PASSED, "not its own");
    assert_int_equal(reports.n, 0);

    probe_lua_leave(scene.prober, &two);
    assert_int_equal(probe_lua_claim(scene.prober, last_check(), &two), 0);
    probe_lua_leave(scene.prober, &one);
    assert_int_not_equal(probe_lua_claim(scene.prober, last_check(), &two), 0);
    assert_int_not_equal(probe_lua_claim(scene.prober, last_check(), &two), term);
    assert_int_equal(probe_lua_claim(scene.prober, last_check(), &one), 0);
}

static void what_a_former_runner_has_not_done_goes_to_the_next(void **state)
{
    struct reports reports = {0};
    uint64_t late, number;

    (void) state;
    start_lua("mine", RARE, "peer:81", &reports);
    late = take(&one);
    probe_lua_leave(scene.prober, &one);
    number = take(&two);
    assert_true(number != late);
    give(&one, late, PROBE_FAILED, "late");
    assert_int_equal(reports.n, 0);
    give(&two, number, PROBE_PASSED, "passed");
    assert_int_equal(reports.n, 1);
    assert_true(reports.passed);
}

static void monitors_of_other_ids_have_runners_of_their_own(void **state)
{
    struct reports reports = {0};

    (void) state;
    start_lua("mine", OPTIONS, "peer:81", &reports);
    take(&one);
    start_lua("yours", OPTIONS, "peer:81", &reports);
    take(&two);
    assert_int_equal(prober_stats(scene.prober)->targets, 2);
}

static void killed_runner_is_replaced_within_an_interval(void **state)
{
    struct reports reports = {0};
    struct probe_lua_worker child = {.name = "child", .pid = fork()};
    uint64_t number, killed_ms;

    (void) state;
    assert_true(child.pid >= 0);
    if (child.pid == 0)
        for (;;)
            pause();
    start_lua("mine", RARE, "peer:81", &reports);
    number = take(&child);
    run_for(probe_lua_next_ms(last_check(), true) * 2);
    assert_int_equal(probe_lua_claim(scene.prober, last_check(), &two), 0); /* late, but alive */

    kill(child.pid, SIGKILL);
    killed_ms = now_ms();
    while (probe_lua_claim(scene.prober, last_check(), &two) == 0)
        run_for(probe_lua_next_ms(last_check(), false));
    assert_in_range(now_ms() - killed_ms, 0, 400);
    assert_true(take(&two) != number);
    waitpid(child.pid, NULL, 0);
}

/* It has asked, and ended before it was answered. */
static void worker_that_has_ended_is_no_runner(void **state)
{
    struct reports reports = {0};
    struct probe_lua_worker child = {.name = "child", .pid = fork()};

    (void) state;
    assert_true(child.pid >= 0);
    if (child.pid == 0)
        _exit(0);
    assert_int_equal(waitpid(child.pid, NULL, 0), child.pid);
    start_lua("mine", OPTIONS, "peer:81", &reports);
    take(&one);
    probe_lua_leave(scene.prober, &one);
    assert_int_equal(probe_lua_claim(scene.prober, last_check(), &child), 0);
    assert_int_not_equal(probe_lua_claim(scene.prober, last_check(), &two), 0);
}

static void check_of_a_killed_runner_is_undecided(void **state)
{
    struct reports reports = {0};
    struct probe_lua_worker child = {.name = "child", .pid = fork()};

    (void) state;
    assert_true(child.pid >= 0);
    if (child.pid == 0)
        for (;;)
            pause();
    start_lua("mine", OFTEN, "peer:81", &reports);
    take(&child);
    kill(child.pid, SIGKILL);
    await_reports(&reports, 1);
    assert_int_equal(reports.result, PROBE_UNDECIDED);
    waitpid(child.pid, NULL, 0);
}

static void check_of_a_runner_that_hangs_is_undecided(void **state)
{
    struct reports reports = {0};
    struct probe_lua_worker self = {.name = "self", .pid = getpid()};

    (void) state;
    start_lua("mine", "{\"interval\": 0.05, \"timeout\": 1050}", "peer:81", &reports);
    take(&self);
    await_reports(&reports, 1);
    assert_int_equal(reports.result, PROBE_UNDECIDED);
    assert_string_equal(reports.reason, "no nginx worker that runs it in 1050 ms");
}

static void check_of_a_runner_that_goes_on_fails(void **state)
{
    struct reports reports = {0};
    struct probe_lua_worker self = {.name = "self", .pid = getpid()};

    (void) state;
    start_lua("mine", "{\"interval\": 0.05, \"timeout\": 1050}", "peer:81", &reports);
    take(&self);
    run_for(500);
    assert_int_not_equal(probe_lua_claim(scene.prober, last_check(), &self), 0);
    await_reports(&reports, 1);
    assert_int_equal(reports.result, PROBE_FAILED);
}

static void silent_runner_is_replaced(void **state)
{
    struct reports reports = {0};
    struct probe_lua_worker self = {.name = "self", .pid = getpid()};

    (void) state;
    start_lua("mine", OPTIONS, "peer:81", &reports);
    take(&self);
    run_for(PROBE_LUA_SILENCE_MIN_MS / 2);
    assert_int_equal(probe_lua_claim(scene.prober, last_check(), &two), 0);
    run_for(PROBE_LUA_SILENCE_MIN_MS / 2 + 50);
    assert_int_not_equal(probe_lua_claim(scene.prober, last_check(), &two), 0);
}

static void times_have_limits(void **state)
{
    struct check check = {.interval_ms = 1000, .fastinter_ms = 1000, .downinter_ms = 1000};

    (void) state;
    assert_int_equal(probe_lua_next_ms(&check, true), 250);
    assert_int_equal(probe_lua_next_ms(&check, false), 500);
    assert_int_equal(probe_lua_silence_ms(&check), 1000);
    check.fastinter_ms = CHECK_INTERVAL_MIN_MS;
    assert_int_equal(probe_lua_next_ms(&check, true), PROBE_LUA_RUNNER_MIN_MS);
    assert_int_equal(probe_lua_next_ms(&check, false), PROBE_LUA_OTHERS_MIN_MS);
    check.interval_ms = check.fastinter_ms = check.downinter_ms = CHECK_INTERVAL_MAX_MS;
    assert_int_equal(probe_lua_next_ms(&check, true), PROBE_LUA_RUNNER_MAX_MS);
    assert_int_equal(probe_lua_next_ms(&check, false), PROBE_LUA_OTHERS_MAX_MS);
    assert_int_equal(probe_lua_silence_ms(&check), PROBE_LUA_SILENCE_MAX_MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(result_of_the_runner_is_that_of_the_check),
        TEST(check_tells_peer_and_its_own_port),
        TEST(numbers_fit_into_14_digits_and_differ),
        TEST(result_without_a_decision_changes_no_verdict),
        TEST(unanswered_check_fails_by_its_timeout),
        TEST(check_that_nobody_fetches_is_undecided_after_an_interval),
        TEST(cancelled_probe_takes_no_result),
        TEST(monitor_has_one_runner_until_it_leaves),
        TEST(what_a_former_runner_has_not_done_goes_to_the_next),
        TEST(monitors_of_other_ids_have_runners_of_their_own),
        TEST(killed_runner_is_replaced_within_an_interval),
        TEST(worker_that_has_ended_is_no_runner),
        TEST(check_of_a_killed_runner_is_undecided),
        TEST(check_of_a_runner_that_hangs_is_undecided),
        TEST(check_of_a_runner_that_goes_on_fails),
        TEST(silent_runner_is_replaced),
        TEST(times_have_limits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
