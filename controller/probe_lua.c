/* SPDX-License-Identifier: MIT */
#include "probe_lua.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "probe_internal.h"
#include "process.h"

#define KEY_SIZE (DURPINA_NAME_SIZE + CHECK_ID_SIZE)
/* JSON libraries of Lua keep 14 digits of a number: room for 10^10 checks behind a random part. */
#define FIRST_NUMBERS (1U << 13)
#define NUMBERS_STEP 10000000000ULL
#define MISSING_WORKER "nginx worker that runs it"

/* A check under way: it waits for its runner, or is with it. */
struct lua_run {
    struct probe_target *target;
    struct lua_monitor *monitor;
    struct lua_run *prev, *next; /* in monitor->waiting or monitor->taken */
    uint64_t number;             /* 0: it waits */
    UT_hash_handle hh;           /* by number, in prober->lua_taken */
};

/* There is one as long as it has targets. */
struct lua_monitor {
    unsigned n_targets;
    char runner[PROBE_LUA_WORKER_SIZE]; /* "": none */
    pid_t pid;                          /* of the runner; 0: not known */
    uint32_t started;
    uint64_t term;
    uint64_t asked_ms; /* by the runner, the last time */
    struct lua_run *waiting;
    struct lua_run *taken;
    UT_hash_handle hh; /* by key, in prober->lua_monitors */
    char key[KEY_SIZE];
};

static uint32_t clamp(uint32_t value, uint32_t min, uint32_t max)
{
    return value < min ? min : value > max ? max : value;
}

uint32_t probe_lua_next_ms(const struct check *check, bool is_runner)
{
    const uint32_t interval_ms = check_least_interval_ms(check);

    return is_runner ? clamp(interval_ms / 4, PROBE_LUA_RUNNER_MIN_MS, PROBE_LUA_RUNNER_MAX_MS)
                     : clamp(interval_ms / 2, PROBE_LUA_OTHERS_MIN_MS, PROBE_LUA_OTHERS_MAX_MS);
}

uint32_t probe_lua_silence_ms(const struct check *check)
{
    return clamp(check->interval_ms, PROBE_LUA_SILENCE_MIN_MS, PROBE_LUA_SILENCE_MAX_MS);
}

/* Numbers of this prober and of a former one's do not meet, so that late results do no harm. */
static uint64_t next_number(struct prober *prober)
{
    if (prober->lua_number == 0)
        prober->lua_number = (probe_random() % FIRST_NUMBERS) * NUMBERS_STEP;
    return ++prober->lua_number;
}

/* No upstream's name and no id has a space in it. */
static void key_of(const struct check *check, char ret[KEY_SIZE])
{
    snprintf(ret, KEY_SIZE, "%s %s", check->lua.upstream, check->lua.id);
}

static struct lua_monitor *find_monitor(const struct prober *prober, const struct check *check)
{
    struct lua_monitor *monitor;
    char key[KEY_SIZE];

    key_of(check, key);
    HASH_FIND_STR(prober->lua_monitors, key, monitor);
    return monitor;
}

static bool runner_has_ended(const struct lua_monitor *monitor)
{
    return monitor->pid != 0 && process_is_gone(monitor->pid, monitor->started);
}

/* --- runs ------------------------------------------------------------------------------------- */

static void put_back(struct lua_run *run)
{
    struct probe_target *target = run->target;

    if (run->number != 0) {
        HASH_DEL(target->prober->lua_taken, run);
        DL_DELETE(run->monitor->taken, run);
        run->number = 0;
    }
    DL_APPEND(run->monitor->waiting, run);
    target->missing = MISSING_WORKER;
    target->no_answer = PROBE_UNDECIDED;
    probe_restart(target, target->check->interval_ms);
}

static void give_up_all(struct lua_monitor *monitor)
{
    while (monitor->taken != NULL)
        put_back(monitor->taken);
    monitor->runner[0] = '\0';
}

static void free_run(struct lua_run *run)
{
    run->target->run = NULL;
    if (run->number != 0) {
        HASH_DEL(run->target->prober->lua_taken, run);
        DL_DELETE(run->monitor->taken, run);
    } else {
        DL_DELETE(run->monitor->waiting, run);
    }
    free(run);
}

/* --- the prober's side ------------------------------------------------------------------------ */

/* The target's monitor, which gets it as one more of its own. */
static struct lua_monitor *join_monitor(struct probe_target *target)
{
    struct prober *prober = target->prober;
    struct lua_monitor *monitor = find_monitor(prober, target->check);

    if (monitor == NULL) {
        monitor = calloc(1, sizeof(*monitor));
        if (monitor == NULL)
            return NULL;
        key_of(target->check, monitor->key);
        HASH_ADD_STR(prober->lua_monitors, key, monitor);
    }
    monitor->n_targets++;
    return monitor;
}

static void lua_start(struct probe_target *target)
{
    struct lua_run *run = calloc(1, sizeof(*run));

    if (run != NULL && target->kept == NULL)
        target->kept = join_monitor(target);
    if (run == NULL || target->kept == NULL) {
        free(run);
        probe_done_errno(target, -ENOMEM);
        return;
    }
    run->target = target;
    run->monitor = target->kept;
    target->run = run;
    put_back(run);
}

/* A worker that has ended took its checks along, and one that hangs does not get to them: neither
 * says anything of the peer. */
static void lua_cancel(struct probe_target *target)
{
    const struct lua_run *run = target->run;
    uint64_t silent_ms = uv_now(target->prober->loop) - run->monitor->asked_ms;

    if (run->number != 0 &&
        (silent_ms > PROBE_LUA_SILENCE_MIN_MS || runner_has_ended(run->monitor))) {
        target->missing = MISSING_WORKER;
        target->no_answer = PROBE_UNDECIDED;
    }
    free_run(target->run);
}

static void lua_forget(struct probe_target *target)
{
    struct lua_monitor *monitor = target->kept;

    target->kept = NULL;
    if (--monitor->n_targets > 0)
        return;
    HASH_DEL(target->prober->lua_monitors, monitor);
    free(monitor);
}

const struct probe_ops probe_lua_ops = {
    .start = lua_start,
    .cancel = lua_cancel,
    .forget = lua_forget,
};

/* --- the workers' side ------------------------------------------------------------------------ */

/*
 * Its process is looked up only if it is late: a runner that lives asks again by then, and the
 * others ask often enough to find out within an interval.
 */
static bool is_lost(const struct lua_monitor *monitor, const struct check *check, uint64_t now_ms)
{
    uint64_t silent_ms = now_ms - monitor->asked_ms;

    if (silent_ms > probe_lua_silence_ms(check))
        return true;
    return silent_ms > probe_lua_next_ms(check, true) * 3 / 2 && runner_has_ended(monitor);
}

/* False: it has ended since it asked. */
static bool set_runner(struct lua_monitor *monitor, const struct probe_lua_worker *worker,
                       uint64_t term)
{
    int err = worker->pid != 0 ? process_started(worker->pid, &monitor->started) : -ENOENT;

    if (err == -ESRCH)
        return false;
    monitor->pid = err == 0 ? worker->pid : 0;
    snprintf(monitor->runner, sizeof(monitor->runner), "%s", worker->name);
    monitor->term = term;
    return true;
}

uint64_t probe_lua_claim(struct prober *prober, const struct check *check,
                         const struct probe_lua_worker *worker)
{
    struct lua_monitor *monitor = find_monitor(prober, check);
    uint64_t now_ms = uv_now(prober->loop);

    if (monitor == NULL)
        return 0;
    if (strcmp(monitor->runner, worker->name) != 0) {
        if (monitor->runner[0] != '\0' && !is_lost(monitor, check, now_ms))
            return 0;
        give_up_all(monitor);
        if (!set_runner(monitor, worker, next_number(prober)))
            return 0;
    }
    monitor->asked_ms = now_ms;
    return monitor->term;
}

bool probe_lua_take(struct prober *prober, const struct check *check, struct probe_lua_check *ret)
{
    struct lua_monitor *monitor = find_monitor(prober, check);
    struct lua_run *run = monitor != NULL ? monitor->waiting : NULL;
    struct probe_target *target;

    if (run == NULL)
        return false;
    target = run->target;
    DL_DELETE(monitor->waiting, run);
    DL_APPEND(monitor->taken, run);
    run->number = next_number(prober);
    HASH_ADD(hh, prober->lua_taken, number, sizeof(run->number), run);
    target->missing = "answer";
    target->no_answer = PROBE_FAILED;
    probe_restart(target, target->check->timeout_ms);
    *ret = (struct probe_lua_check){.number = run->number,
                                    .host = target->host,
                                    .addr = &target->addr};
    return true;
}

void probe_lua_done(struct prober *prober, const struct probe_lua_worker *worker, uint64_t number,
                    enum probe_result result, const char *reason)
{
    struct probe_target *target;
    struct lua_run *run;

    HASH_FIND(hh, prober->lua_taken, &number, sizeof(number), run);
    if (run == NULL || strcmp(run->monitor->runner, worker->name) != 0)
        return;
    target = run->target;
    free_run(run);
    probe_done(target, result, "%s", reason);
}

void probe_lua_leave(struct prober *prober, const struct probe_lua_worker *worker)
{
    for (struct lua_monitor *m = prober->lua_monitors; m != NULL; m = m->hh.next)
        if (strcmp(m->runner, worker->name) == 0)
            give_up_all(m);
}
