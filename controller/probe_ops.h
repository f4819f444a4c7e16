/* SPDX-License-Identifier: MIT */
/*
 * Between the prober, which knows when, and the kinds of checks, which know how. A kind is a
 * probe_ops, listed in probe.c by its enum check_type.
 */
#ifndef DURPINAD_PROBE_OPS_H
#define DURPINAD_PROBE_OPS_H

#include "probe.h"

#define PROBE_MARK 0x64757270 /* "durp": our own connect hook lets these sockets pass */
#define PROBE_REASON_SIZE 160

struct http_client;

struct prober {
    uv_loop_t *loop;
    struct probe *probes;
    struct http_client *http; /* made by the first http check */
    unsigned refs;            /* the owner, and what still closes on the loop */
    uint32_t phase;           /* of the next probe, in 2^-32 of its interval */
    uint64_t short_logged_ms; /* last log of a shortage, 0: none */
};

struct probe {
    struct prober *prober;
    struct probe *prev, *next;
    const struct check *check;
    struct addr addr; /* what is connected to */
    char *host;
    probe_verdict_cb cb;
    void *user;

    uv_timer_t timer; /* the next check, or the timeout of the one that runs */
    uint64_t due_ms;  /* slot of the last or next check, without jitter */
    bool running;
    const char *missing; /* what the running check waits for: "connection", "answer" */
    void *run;           /* its state, owned by the ops */

    uint32_t passes, fails; /* in a row */
    enum { VERDICT_NONE, VERDICT_PASSED, VERDICT_FAILED } verdict;
    struct probe_stats stats;
};

enum probe_result {
    PROBE_PASSED,
    PROBE_FAILED,
    PROBE_UNDECIDED, /* the check could not be made */
};

struct probe_ops {
    /* Begins one check. It ends by probe_done(), perhaps before start returns. */
    void (*start)(struct probe *probe);
    /* Ends it early: no probe_done() any more. Called only while it runs. */
    void (*cancel)(struct probe *probe);
};

extern const struct probe_ops probe_http_ops;
extern const struct probe_ops probe_tcp_ops;

/* What prober_destroy() does to the http client. NULL is fine. */
void http_client_destroy(struct http_client *client);

/*
 * The running check is over; its ops have let go of its state. The format's text may hold anything
 * a backend sent: it is escaped here. The probe may be gone when this returns.
 */
void probe_done(struct probe *probe, enum probe_result result, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same for a failed socket call, err being -errno: the peer's fault or a shortage of ours. */
void probe_done_errno(struct probe *probe, int err);

/* A marked, non-blocking stream socket, to be closed by the caller. 0 or -errno. */
int probe_socket(int family, int *ret_fd);

void prober_ref(struct prober *prober);
/* Frees the prober with the last one. */
void prober_unref(struct prober *prober);

#endif
