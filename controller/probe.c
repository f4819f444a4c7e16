/* SPDX-License-Identifier: MIT */
#include "probe.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "failure.h"
#include "log.h"
#include "probe_ops.h"

/* 2^32 divided by the golden ratio: multiples of it, modulo 2^32, spread evenly for any count of
 * them (Knuth, The Art of Computer Programming, volume 3, 6.4). */
#define PHASE_STEP 2654435769U
#define SHORTAGE_LOG_MS 60000

static const struct probe_ops *const ops_by_type[CHECK_TYPES] = {
    [CHECK_HTTP] = &probe_http_ops,
    [CHECK_TCP] = &probe_tcp_ops,
};

static const struct probe_ops *probe_ops(const struct probe *probe)
{
    return ops_by_type[probe->check->type];
}

static uint32_t random_u32(void)
{
    uint32_t value = 0;

    /* It spreads load, nothing more: without entropy 0 does. */
    uv_random(NULL, NULL, &value, sizeof(value), 0, NULL);
    return value;
}

void prober_ref(struct prober *prober)
{
    prober->refs++;
}

void prober_unref(struct prober *prober)
{
    if (--prober->refs == 0)
        free(prober);
}

int prober_create(uv_loop_t *loop, struct prober **ret)
{
    struct prober *prober = calloc(1, sizeof(*prober));

    if (prober == NULL)
        return -ENOMEM;
    prober->loop = loop;
    prober->refs = 1;
    /* Hosts that start together shall not check the same backend together. */
    prober->phase = random_u32();
    *ret = prober;
    return 0;
}

void prober_destroy(struct prober *prober)
{
    struct probe *probe, *next;

    if (prober == NULL)
        return;
    DL_FOREACH_SAFE(prober->probes, probe, next)
    {
        probe_cancel(probe);
    }
    http_client_destroy(prober->http);
    prober_unref(prober);
}

int probe_socket(int family, int *ret_fd)
{
    const int mark = PROBE_MARK;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    /* Without the privilege there is no hook of ours to pass either. */
    (void) setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark));
    *ret_fd = fd;
    return 0;
}

static void on_timer(uv_timer_t *timer);

static void run(struct probe *probe)
{
    probe->running = true;
    probe->missing = "answer";
    /* The loop's clock stands still while callbacks run; a timeout must not be cut by that. */
    uv_update_time(probe->prober->loop);
    uv_timer_start(&probe->timer, on_timer, probe->check->timeout_ms, 0);
    probe_ops(probe)->start(probe);
}

static void on_timer(uv_timer_t *timer)
{
    struct probe *probe = timer->data;

    if (!probe->running) {
        run(probe);
        return;
    }
    probe_ops(probe)->cancel(probe);
    probe_done(probe, PROBE_FAILED, "no %s in %u ms", probe->missing, probe->check->timeout_ms);
}

static void schedule_next(struct probe *probe)
{
    const uint64_t interval = probe->check->interval_ms, now = uv_now(probe->prober->loop);
    const uint64_t jitter =
        (uint64_t) random_u32() * ((uint64_t) probe->check->jitter_ms + 1) >> 32;

    probe->due_ms += interval;
    if (probe->due_ms < now)
        probe->due_ms += (now - probe->due_ms + interval - 1) / interval * interval;
    uv_timer_start(&probe->timer, on_timer, probe->due_ms + jitter - now, 0);
}

static void log_shortage(struct prober *prober, const struct probe *probe, const char *reason)
{
    const uint64_t now = uv_now(prober->loop);

    if (prober->short_logged_ms != 0 && now - prober->short_logged_ms < SHORTAGE_LOG_MS)
        return;
    prober->short_logged_ms = now;
    log_warn("cannot check %s and perhaps others, verdicts stay: %s", probe->host, reason);
}

/* Counts the result; true if a verdict follows that is not the one there was. */
static bool judge(struct probe *probe, bool passed)
{
    probe->stats.checks++;
    probe->stats.last_passed = passed;
    if (passed) {
        probe->fails = 0;
        if (++probe->passes < probe->check->rise || probe->verdict == VERDICT_PASSED)
            return false;
        probe->verdict = VERDICT_PASSED;
        return true;
    }
    probe->stats.fails++;
    probe->passes = 0;
    if (++probe->fails < probe->check->fall || probe->verdict == VERDICT_FAILED)
        return false;
    probe->verdict = VERDICT_FAILED;
    probe->stats.unhealthy++;
    return true;
}

void probe_done(struct probe *probe, enum probe_result result, const char *format, ...)
{
    char raw[PROBE_REASON_SIZE], reason[PROBE_REASON_SIZE];
    va_list ap;

    va_start(ap, format);
    vsnprintf(raw, sizeof(raw), format, ap);
    va_end(ap);
    escape_text(raw, reason, sizeof(reason));

    probe->running = false;
    schedule_next(probe);
    if (result == PROBE_UNDECIDED) {
        log_shortage(probe->prober, probe, reason);
        return;
    }
    /* Last: the callback may cancel the probe. */
    if (judge(probe, result == PROBE_PASSED))
        probe->cb(probe->user, probe, result == PROBE_PASSED, reason);
}

static bool is_shortage(int err)
{
    switch (-err) {
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOBUFS:
    case ENOSPC: /* epoll's limit of watches */
    case EAGAIN:
    case EADDRNOTAVAIL: /* no local port left */
        return true;
    default:
        return false;
    }
}

void probe_done_errno(struct probe *probe, int err)
{
    /* connect(2): EAGAIN is a full backlog of a unix socket, and else no local port left. */
    if (err == -EAGAIN && probe->addr.sa.sa_family == AF_UNIX)
        probe_done(probe, PROBE_FAILED, "listen queue is full");
    else
        probe_done(probe, is_shortage(err) ? PROBE_UNDECIDED : PROBE_FAILED, "%s",
                   uv_strerror(err));
}

int probe_start(struct prober *prober, const struct check *check, const struct addr *addr,
                const char *host, probe_verdict_cb cb, void *user, struct probe **ret)
{
    struct probe *probe = calloc(1, sizeof(*probe));
    uint64_t phase;

    if (probe == NULL)
        return -ENOMEM;
    probe->host = strdup(host);
    if (probe->host == NULL) {
        free(probe);
        return -ENOMEM;
    }
    probe->prober = prober;
    probe->check = check;
    probe->addr = *addr;
    if (check->port != 0 && addr->sa.sa_family != AF_UNIX)
        addr_set_port(&probe->addr, (uint16_t) check->port);
    probe->cb = cb;
    probe->user = user;

    prober_ref(prober);
    DL_APPEND(prober->probes, probe);

    phase = (uint64_t) prober->phase * check->interval_ms >> 32;
    prober->phase += PHASE_STEP;
    uv_update_time(prober->loop);
    probe->due_ms = uv_now(prober->loop) + phase;
    uv_timer_init(prober->loop, &probe->timer);
    probe->timer.data = probe;
    uv_timer_start(&probe->timer, on_timer, phase, 0);
    *ret = probe;
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    struct probe *probe = handle->data;

    prober_unref(probe->prober);
    free(probe->host);
    free(probe);
}

void probe_cancel(struct probe *probe)
{
    if (probe == NULL)
        return;
    if (probe->running)
        probe_ops(probe)->cancel(probe);
    DL_DELETE(probe->prober->probes, probe);
    uv_close((uv_handle_t *) &probe->timer, on_closed);
}

const struct probe_stats *probe_stats(const struct probe *probe)
{
    return &probe->stats;
}
