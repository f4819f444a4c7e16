/* SPDX-License-Identifier: MIT */
/*
 * Between the prober, which knows when, and the kinds of checks, which know how. A kind is a
 * probe_ops, listed in probe.c by its enum check_type.
 */
#ifndef DURPINAD_PROBE_OPS_H
#define DURPINAD_PROBE_OPS_H

#include <uthash.h>

#include "probe.h"

struct http_client;
struct probe_endpoint;
struct lua_monitor;
struct lua_run;

struct prober {
    uv_loop_t *loop;
    struct probe_endpoint *endpoints; /* uthash by address */
    struct http_client *http;         /* made by the first http check */
    struct lua_monitor *lua_monitors; /* uthash by key; these are probe_lua.c's */
    struct lua_run *lua_taken;        /* uthash by number */
    uint64_t lua_number;              /* the last one given */
    prober_socket_hook *socket_hook;  /* or NULL */
    void *socket_hook_user;
    unsigned refs;                /* the owner, and what still closes on the loop */
    uint32_t phase;               /* of the next target, in 2^-32 of its interval */
    uint64_t short_logged_ms;     /* last log of a shortage, 0: none */
    uint64_t share;               /* starts a ms at the shortest intervals, in 2^-32 */
    uint64_t turn_ns;             /* when the next start may come */
    struct probe_target *waiting; /* for their turn, in order */
    uv_timer_t pacer;
    struct prober_stats stats;
};

/* What is checked, for all probes with the same check, address and host. */
struct probe_target {
    struct prober *prober;
    struct check *check;
    struct addr addr; /* what is connected to */
    char *host;       /* "host:port" of the peer, as named */
    void *kept;       /* what its ops keep between checks, theirs to free in `forget` */

    /* The running check. */
    bool running;
    const char *missing;         /* what it waits for: "connection", "answer" */
    enum probe_result no_answer; /* what that means: PROBE_FAILED unless start() says otherwise */
    void *run;                   /* its state, owned by the ops */

    /* The prober's own. */
    struct probe_endpoint *endpoint;
    struct probe_target *prev, *next; /* at the same endpoint */
    struct probe *probes;
    struct probe *to_report; /* the next one to hear of a check that has ended */
    uv_timer_t timer;        /* the next check, or the timeout of the one that runs */
    uint64_t due_ms;         /* slot of the last or next check, without jitter */
    uint32_t jitter_ms;      /* of that check */
    bool is_waiting;         /* in prober->waiting ... */
    struct probe_target *waiting_prev, *waiting_next; /* ... with these */
    uint64_t began_ms;
    uint32_t timeout_ms;    /* of the running check */
    uint32_t passes, fails; /* in a row */
    enum { VERDICT_NONE, VERDICT_PASSED, VERDICT_FAILED } verdict;
    struct probe_stats stats;
};

struct probe_ops {
    /* Begins one check. It ends by probe_done(), perhaps before start returns. */
    void (*start)(struct probe_target *target);
    /* Ends it early: no probe_done() any more. Called only while it runs. */
    void (*cancel)(struct probe_target *target);
    /* Frees target->kept, which is not NULL; no check runs. NULL if the kind keeps nothing. */
    void (*forget)(struct probe_target *target);
};

extern const struct probe_ops probe_grpc_ops;
extern const struct probe_ops probe_http_ops;
extern const struct probe_ops probe_tcp_ops;
extern const struct probe_ops probe_agent_ops;
extern const struct probe_ops probe_http_agent_ops;
extern const struct probe_ops probe_lua_ops;

/* What prober_destroy() does to the http client. NULL is fine. */
void http_client_destroy(struct http_client *client);

/*
 * The running check is over; its ops have let go of its state. The format's text may hold anything
 * a backend sent: it is escaped here. The target may be gone when this returns.
 */
void probe_done(struct probe_target *target, enum probe_result result, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same, with what the agent said (borrowed). */
void probe_done_agent(struct probe_target *target, enum probe_result result,
                      const struct agent_line *line, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The same for a failed socket call, err being -errno: target->no_answer, or a shortage of ours. */
void probe_done_errno(struct probe_target *target, int err);

/* The running check begins only now, and may take that long. */
void probe_restart(struct probe_target *target, uint32_t timeout_ms);

/* Is this failure (-errno) a shortage of ours, which says nothing of the peer? */
bool probe_is_shortage(const struct probe_target *target, int err);

/* A non-blocking stream socket that the hook has seen, to be closed by the caller. 0 or -errno. */
int probe_socket(struct prober *prober, int family, int *ret_fd);

void prober_ref(struct prober *prober);
/* Frees the prober with the last one. */
void prober_unref(struct prober *prober);

#endif
