/* SPDX-License-Identifier: MIT */
/*
 * The prober: runs checks against addresses, each once per interval, spread over the interval from
 * the start, and reports the end of each check and each verdict that follows from fall and rise. It
 * knows nothing of upstreams.
 *
 *  1. A check begins at its slot, however long checks and callbacks take, plus the random jitter.
 *     From one slot to the next it is `interval`; `fastinter` while results contradict the verdict
 *     or there is none yet after a result; else `downinter` while the verdict is "failed". A slot
 *     that is over when the check before ends is left out.
 *  2. The phases of any number of targets divide the interval about evenly.
 *  3. A check ends by its timeout. No check waits for another.
 *  4. A check that this host is too short of resources for (descriptors, local ports, memory) says
 *     nothing about the peer: it changes no verdict and no count; it is logged once a minute.
 *  5. Probes with the same check (check_is_same()), address and, if the check sends it, host share
 *     one target: it is checked once for all of them, and they share its verdict and its counts.
 *  6. Where a pause of this process or jitter heaps starts up, no 10 ms see more than three times
 *     as many as on average (at the shortest intervals, and at least 24), until they are late.
 *  7. Only the monotonic clock decides anything.
 */
#ifndef DURPINAD_PROBE_H
#define DURPINAD_PROBE_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "addr.h"
#include "agent.h"
#include "check.h"

#define PROBE_REASON_SIZE 160
#define PROBE_LATE_MS 50 /* a start that is later than this after its slot is counted as late */

struct prober;
struct probe;

enum probe_result {
    PROBE_PASSED,
    PROBE_FAILED,
    PROBE_SILENT,    /* says nothing of health: an agent without an answer or a health word */
    PROBE_UNDECIDED, /* the check could not be made, for a lack of ours */
};

struct probe_report {
    enum probe_result result;
    bool is_verdict;    /* the verdict has changed, or is the first that this probe hears of */
    bool passed;        /* the verdict, if is_verdict */
    const char *reason; /* "HTTP 503", "connection refused", "no answer in 1000 ms"; printable */
    uint32_t duration_ms;
    const struct agent_line *agent; /* what the agent said, or NULL */
};

/* Of the target: all probes that share it see the same. */
struct probe_stats {
    uint64_t checks; /* that came to a result, "silent" included */
    uint64_t fails;
    uint64_t unhealthy;  /* times it became unhealthy */
    bool last_passed;    /* the last result that was not "silent" */
    uint64_t last_at_ms; /* wall clock; 0: none has come to a result yet */
    uint32_t last_duration_ms;
    char last_reason[PROBE_REASON_SIZE];
};

struct prober_stats {
    uint64_t checks;    /* that came to a result */
    uint64_t undecided; /* that could not be made */
    uint64_t late;      /* starts more than PROBE_LATE_MS after their slot */
    uint64_t unmarked;  /* sockets that the hook has refused; their checks were made all the same */
    uint32_t targets;   /* what is checked: an address by a check */
    uint32_t probes;    /* that share them */
    uint32_t running;   /* checks under way */
};

/*
 * Called at the end of each check for each of its probes; the report is valid in the call. May
 * start and cancel any probe. Never called from inside probe_start().
 */
typedef void (*probe_report_cb)(void *user, struct probe *probe, const struct probe_report *report);

/* 0 or -errno. *ret is to be given to prober_destroy(). */
int prober_create(uv_loop_t *loop, struct prober **ret);
/*
 * Cancels all probes, which are gone then; returns at once, closing its handles on the loop, whose
 * next run frees the memory. Not to be called from a report callback. NULL is fine.
 */
void prober_destroy(struct prober *prober);

/*
 * From now on, every internet socket is shown to the hook before it connects: 0, or -errno, which
 * is counted and changes nothing else.
 */
typedef int prober_socket_hook(void *user, int fd);
void prober_set_socket_hook(struct prober *prober, prober_socket_hook *hook, void *user);

const struct prober_stats *prober_stats(const struct prober *prober);

/*
 * Starts to check addr (its port replaced by check->port if that is not 0, but for checks written
 * in Lua). The prober keeps a reference of the check as long as it needs it. host: the peer's
 * "host:port", for the Host header and the log, copied. 0 or -ENOMEM.
 */
int probe_start(struct prober *prober, struct check *check, const struct addr *addr,
                const char *host, probe_report_cb cb, void *user, struct probe **ret);
/* No callback after it. NULL is fine. */
void probe_cancel(struct probe *probe);

const struct probe_stats *probe_stats(const struct probe *probe);

#endif
