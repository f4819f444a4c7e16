/* SPDX-License-Identifier: MIT */
/* When a target is checked, and what follows from the result. */
#include <stdarg.h>
#include <stdio.h>
#include <utlist.h>

#include "clock.h"
#include "failure.h"
#include "log.h"
#include "probe_internal.h"

/* 2^32 divided by the golden ratio: multiples of it, modulo 2^32, spread evenly for any count of
 * them (Knuth, The Art of Computer Programming, volume 3, 6.4). */
#define PHASE_STEP 2654435769U
#define SHORTAGE_LOG_MS 60000
#define RETRY_MS 1 /* of starts that wait for their turn */
/* See take_turn(). */
#define PACE 1.25
#define HURRY 4
#define BURST_NS 14000000
#define GAP_MAX_NS 1000000 /* a few checks need no pace */

/* --- pace ------------------------------------------------------------------------------------ */

/* Starts a second, were all targets checked at their shortest interval; in 2^-32 of one a ms. */
static uint64_t share_of(const struct check *check)
{
    return (1ULL << 32) / check_least_interval_ms(check);
}

/*
 * Starts may come PACE times as fast as on average, and what is due of that in BURST_NS at once, so
 * that a busy loop loses none: 10 ms have at most PACE * (10 + 14) / 10 = 3 times their share. Once
 * they are late, they may come HURRY times as fast as that.
 */
static bool take_turn(struct prober *prober, const struct probe_target *target)
{
    uint64_t now_ns = uv_hrtime(), slot_ms = target->due_ms + target->jitter_ms;
    double gap_ns = (double) (1000000ULL << 32) / (PACE * (double) prober->share);

    if (gap_ns > GAP_MAX_NS)
        gap_ns = GAP_MAX_NS;
    if (now_ns / 1000000 > slot_ms + PROBE_LATE_MS)
        gap_ns /= HURRY;
    if (prober->turn_ns + BURST_NS < now_ns)
        prober->turn_ns = now_ns - BURST_NS;
    if (prober->turn_ns > now_ns)
        return false;
    prober->turn_ns += (uint64_t) gap_ns;
    return true;
}

static void run(struct probe_target *target);

static void start_waiting(uv_timer_t *timer)
{
    struct prober *prober = timer->data;

    while (prober->waiting != NULL && take_turn(prober, prober->waiting)) {
        struct probe_target *target = prober->waiting;

        DL_DELETE2(prober->waiting, target, waiting_prev, waiting_next);
        target->is_waiting = false;
        run(target);
    }
    if (prober->waiting != NULL)
        uv_timer_start(timer, start_waiting, RETRY_MS, 0);
}

static void wait_for_turn(struct probe_target *target)
{
    struct prober *prober = target->prober;

    target->is_waiting = true;
    DL_APPEND2(prober->waiting, target, waiting_prev, waiting_next);
    if (!uv_is_active((uv_handle_t *) &prober->pacer))
        start_waiting(&prober->pacer);
}

void probe_pace_begin(struct prober *prober)
{
    uv_timer_init(prober->loop, &prober->pacer);
    prober->pacer.data = prober;
    prober_ref(prober);
}

static void on_pacer_closed(uv_handle_t *handle)
{
    prober_unref(handle->data);
}

void probe_pace_end(struct prober *prober)
{
    uv_close((uv_handle_t *) &prober->pacer, on_pacer_closed);
}

/* --- when ------------------------------------------------------------------------------------ */

static void on_timer(uv_timer_t *timer);

void probe_restart(struct probe_target *target, uint32_t timeout_ms)
{
    /* The loop's clock stands still while callbacks run; a timeout must not be cut by that. */
    uv_update_time(target->prober->loop);
    target->began_ms = uv_now(target->prober->loop);
    target->timeout_ms = timeout_ms;
    uv_timer_start(&target->timer, on_timer, timeout_ms, 0);
}

static void run(struct probe_target *target)
{
    struct prober *prober = target->prober;

    target->running = true;
    target->missing = "answer";
    target->no_answer = PROBE_FAILED;
    prober->stats.running++;
    probe_restart(target, target->check->timeout_ms);
    if (target->began_ms > target->due_ms + target->jitter_ms + PROBE_LATE_MS)
        prober->stats.late++;
    probe_ops_of(target)->start(target);
}

static void on_timer(uv_timer_t *timer)
{
    struct probe_target *target = timer->data;

    if (!target->running) {
        wait_for_turn(target);
        return;
    }
    probe_ops_of(target)->cancel(target);
    probe_done(target, target->no_answer, "no %s in %u ms", target->missing, target->timeout_ms);
}

/* Until the next slot. */
static uint32_t interval_ms(const struct probe_target *target)
{
    const struct check *check = target->check;

    if ((target->fails > 0 && target->verdict != VERDICT_FAILED) ||
        (target->passes > 0 && target->verdict != VERDICT_PASSED))
        return check->fastinter_ms;
    return target->verdict == VERDICT_FAILED ? check->downinter_ms : check->interval_ms;
}

static void schedule_next(struct probe_target *target)
{
    const uint64_t interval = interval_ms(target);
    uint64_t now;

    uv_update_time(target->prober->loop);
    now = uv_now(target->prober->loop);
    target->due_ms += interval;
    if (target->due_ms < now)
        target->due_ms += (now - target->due_ms + interval - 1) / interval * interval;
    if (target->check->jitter_ms > 0)
        target->jitter_ms =
            (uint32_t) ((uint64_t) probe_random() * ((uint64_t) target->check->jitter_ms + 1) >>
                        32);
    uv_timer_start(&target->timer, on_timer, target->due_ms + target->jitter_ms - now, 0);
}

void probe_run_begin(struct probe_target *target)
{
    struct prober *prober = target->prober;
    uint64_t phase = (uint64_t) prober->phase * target->check->interval_ms >> 32;

    prober->phase += PHASE_STEP;
    prober->share += share_of(target->check);
    uv_update_time(prober->loop);
    target->due_ms = uv_now(prober->loop) + phase;
    uv_timer_init(prober->loop, &target->timer);
    target->timer.data = target;
    uv_timer_start(&target->timer, on_timer, phase, 0);
}

void probe_run_end(struct probe_target *target)
{
    struct prober *prober = target->prober;

    if (target->running) {
        probe_ops_of(target)->cancel(target);
        prober->stats.running--;
    }
    if (target->is_waiting)
        DL_DELETE2(prober->waiting, target, waiting_prev, waiting_next);
    prober->share -= share_of(target->check);
}

/* --- what follows from a result -------------------------------------------------------------- */

static void log_shortage(struct probe_target *target, const char *reason)
{
    struct prober *prober = target->prober;
    const uint64_t now = uv_now(prober->loop);

    if (prober->short_logged_ms != 0 && now - prober->short_logged_ms < SHORTAGE_LOG_MS)
        return;
    prober->short_logged_ms = now;
    log_warn("cannot check %s and perhaps others, verdicts stay: %s", target->host, reason);
}

/* True if a verdict follows that is not the one there was. */
static bool judge(struct probe_target *target, bool passed)
{
    if (passed) {
        target->fails = 0;
        if (++target->passes < target->check->rise || target->verdict == VERDICT_PASSED)
            return false;
        target->verdict = VERDICT_PASSED;
        return true;
    }
    target->passes = 0;
    if (++target->fails < target->check->fall || target->verdict == VERDICT_FAILED)
        return false;
    target->verdict = VERDICT_FAILED;
    return true;
}

/* Counts the result; returns as judge() does. */
static bool count(struct probe_target *target, const struct probe_report *report)
{
    struct probe_stats *stats = &target->stats;
    bool is_change = false;

    if (report->result == PROBE_UNDECIDED) {
        target->prober->stats.undecided++;
        return false;
    }
    target->prober->stats.checks++;
    stats->checks++;
    stats->last_at_ms = clock_wall_ms();
    stats->last_duration_ms = report->duration_ms;
    snprintf(stats->last_reason, sizeof(stats->last_reason), "%s", report->reason);
    if (report->result == PROBE_SILENT)
        return false;

    is_change = judge(target, report->result == PROBE_PASSED);
    stats->last_passed = report->result == PROBE_PASSED;
    stats->fails += report->result == PROBE_FAILED;
    stats->unhealthy += is_change && target->verdict == VERDICT_FAILED;
    return is_change;
}

/*
 * A probe that shares a target with others from later on hears of the verdict with the first check
 * whose result agrees with it, so that the reason is one for the verdict.
 */
static void report_all(struct probe_target *target, struct probe_report *report, bool is_change)
{
    bool agrees = (report->result == PROBE_PASSED && target->verdict == VERDICT_PASSED) ||
                  (report->result == PROBE_FAILED && target->verdict == VERDICT_FAILED);

    /* Callbacks may cancel any probe; the target lives on until the loop's next turn. */
    target->to_report = target->probes;
    while (target->to_report != NULL) {
        struct probe *probe = target->to_report;

        target->to_report = probe->next;
        report->is_verdict = is_change || (!probe->is_told && agrees);
        report->passed = report->is_verdict && target->verdict == VERDICT_PASSED;
        probe->is_told |= report->is_verdict;
        probe->cb(probe->user, probe, report);
    }
}

static void done(struct probe_target *target, struct probe_report *report, const char *format,
                 va_list ap)
{
    char raw[PROBE_REASON_SIZE], reason[PROBE_REASON_SIZE];
    bool is_change;

    vsnprintf(raw, sizeof(raw), format, ap);
    escape_text(raw, reason, sizeof(reason));
    report->reason = reason;
    target->running = false;
    target->prober->stats.running--;
    uv_update_time(target->prober->loop);
    report->duration_ms = (uint32_t) (uv_now(target->prober->loop) - target->began_ms);
    if (report->result == PROBE_UNDECIDED)
        log_shortage(target, reason);
    is_change = count(target, report);
    schedule_next(target);
    /* Last: the callbacks may cancel all probes. */
    report_all(target, report, is_change);
}

void probe_done(struct probe_target *target, enum probe_result result, const char *format, ...)
{
    struct probe_report report = {.result = result};
    va_list ap;

    va_start(ap, format);
    done(target, &report, format, ap);
    va_end(ap);
}

void probe_done_agent(struct probe_target *target, enum probe_result result,
                      const struct agent_line *line, const char *format, ...)
{
    struct probe_report report = {.result = result, .agent = line};
    va_list ap;

    va_start(ap, format);
    done(target, &report, format, ap);
    va_end(ap);
}
