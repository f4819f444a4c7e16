/* SPDX-License-Identifier: MIT */
/*
 * Checks of monitors that are written in Lua: workers of nginx run them. The prober says when a
 * check is due; it waits here until a worker fetches it, and then for the worker's result.
 *
 *  1. A monitor has one runner at a time: the first worker that asks for its checks while it has
 *     none. It stays so until it leaves, has ended, or has not asked for as long as
 *     probe_lua_silence_ms() says.
 *  2. A check is with one worker at a time, and only that one can give its result. What a former
 *     runner has not done is fetched by the next one.
 *  3. A check has its whole timeout from when it is fetched. One that nobody fetches for an
 *     interval is PROBE_UNDECIDED, and so is one whose worker has ended, or has not asked for
 *     PROBE_LUA_SILENCE_MIN_MS, when its time is over.
 */
#ifndef DURPINAD_PROBE_LUA_H
#define DURPINAD_PROBE_LUA_H

#include <sys/types.h>

#include "probe.h"

#define PROBE_LUA_WORKER_SIZE 64
/* How often workers ask: the runner four times in an interval, the others twice. */
#define PROBE_LUA_RUNNER_MIN_MS 10
#define PROBE_LUA_RUNNER_MAX_MS 250
#define PROBE_LUA_OTHERS_MIN_MS 20
#define PROBE_LUA_OTHERS_MAX_MS 1000
#define PROBE_LUA_SILENCE_MIN_MS 1000
#define PROBE_LUA_SILENCE_MAX_MS 10000

/* Who asks. */
struct probe_lua_worker {
    const char *name; /* its own choice, of less than PROBE_LUA_WORKER_SIZE bytes */
    pid_t pid;        /* by which its end is known; 0: only its silence tells */
};

/* What it is to do. The pointers are valid until the prober is given something else to do. */
struct probe_lua_check {
    uint64_t number;
    const char *host; /* the peer's name */
    const struct addr *addr;
};

/*
 * Makes the worker the runner of the monitor if that has none. Returns what tells this time as its
 * runner from all others, of any monitor; 0: another worker runs it, or nothing is to be checked.
 */
uint64_t probe_lua_claim(struct prober *prober, const struct check *check,
                         const struct probe_lua_worker *worker);

/* Hands a check that is due to the monitor's runner. False: there is none. */
bool probe_lua_take(struct prober *prober, const struct check *check, struct probe_lua_check *ret);

/* The result of a check that this worker has taken; of any other it is ignored. */
void probe_lua_done(struct prober *prober, const struct probe_lua_worker *worker, uint64_t number,
                    enum probe_result result, const char *reason);

/* It runs nothing any more. */
void probe_lua_leave(struct prober *prober, const struct probe_lua_worker *worker);

/* When a worker is to ask for the monitor's checks again, in ms. */
uint32_t probe_lua_next_ms(const struct check *check, bool is_runner);

/* A runner that has not asked for longer than that is replaced. */
uint32_t probe_lua_silence_ms(const struct check *check);

#endif
