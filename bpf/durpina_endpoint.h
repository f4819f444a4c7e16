/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The life of a TCP connection as its endpoint counts it. Pure functions, for observe.bpf.c and the
 * tests. Each socket counts once at each step, whoever calls and in whatever order, and it takes
 * back exactly what it has added: what was connected before anybody looked adds nothing, and no
 * count falls below 0.
 *
 *     NEW --try--> CONNECTING --established--> OPEN --closing--> CLOSING
 *                      |                         |                  |
 *                      +----- failed ------------+---- closed ------+--> NEW
 *
 * A step that does not follow from the last one changes nothing.
 */
#ifndef DURPINA_ENDPOINT_H
#define DURPINA_ENDPOINT_H

#include "durpina_abi.h"
#include "durpina_counters.h"

/* Between two looks at round trip time and bytes of one connection. */
#define DURPINA_SAMPLE_NS (50 * 1000000ULL)

/* What the kernel says of a connection's course so far. */
struct durpina_course {
    uint32_t rtt_us;     /* smoothed; 0: none yet */
    uint32_t min_rtt_us; /* UINT32_MAX: none yet */
    uint32_t segments;
    uint64_t sent;     /* bytes; SYN and FIN count as one each, as in ss */
    uint64_t received; /* bytes */
};

/* Why there is no connection. */
enum durpina_connect_error {
    DURPINA_ERROR_NONE,  /* the process has closed the socket */
    DURPINA_ERROR_LOCAL, /* somebody on this host has */
    DURPINA_ERROR_REFUSED,
    DURPINA_ERROR_TIMED_OUT,
    DURPINA_ERROR_OTHER,
};

union durpina_connections {
    struct {
        uint32_t open;
        uint32_t connecting;
    };
    uint64_t word;
};

/* Neither falls below 0, so a carry out of the lower one is made up for by a borrow. */
static inline void durpina_add_connections(struct durpina_endpoint *e, int open, int connecting)
{
    const union durpina_connections one_open = {.open = 1}, one_connecting = {.connecting = 1};

    __atomic_fetch_add(durpina_alias(&e->open),
                       (uint64_t) (int64_t) open * one_open.word +
                           (uint64_t) (int64_t) connecting * one_connecting.word,
                       __ATOMIC_RELAXED);
}

static inline void durpina_count(uint64_t *counter, uint64_t n)
{
    __atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

/*
 * A SYN is about to be sent. The socket is NEW; what it has done in former connections is in `now`.
 */
static inline void durpina_endpoint_try(struct durpina_endpoint *e, uint32_t id,
                                        struct durpina_socket *s, const struct durpina_course *now,
                                        uint64_t now_ns)
{
    if (s->step != DURPINA_SOCKET_NEW)
        return;
    s->endpoint = id;
    s->generation = e->generation;
    s->began_ns = now_ns;
    s->sampled_ns = now_ns;
    s->sent = now->sent;
    s->received = now->received;
    s->segments = now->segments;
    s->retransmitted = 0;
    s->step = DURPINA_SOCKET_CONNECTING;
    durpina_add_connections(e, 0, 1);
    durpina_count(&e->tried, 1);
}

static inline void durpina_endpoint_established(struct durpina_endpoint *e,
                                                struct durpina_socket *s, uint64_t now_ns)
{
    if (s->step != DURPINA_SOCKET_CONNECTING)
        return;
    s->step = DURPINA_SOCKET_OPEN;
    durpina_add_connections(e, 1, -1);
    durpina_count(&e->established, 1);
    durpina_add_sample(&e->handshake, (now_ns - s->began_ns) * DURPINA_EWMA_US / 1000, 0,
                       now_ns / 1000000);
}

/* Segments had to be sent again. */
static inline void durpina_endpoint_retransmitted(struct durpina_endpoint *e,
                                                  struct durpina_socket *s, uint32_t segments)
{
    s->retransmitted = 1;
    durpina_count(&e->retransmits, segments);
}

/*
 * The try has ended without a connection. Returns what it is a failure of the peer by, 0 if it is
 * none: a process that leaves before a SYN had to be sent again has learned nothing of the peer.
 */
static inline enum durpina_connect_end durpina_endpoint_failed(struct durpina_endpoint *e,
                                                               struct durpina_socket *s,
                                                               enum durpina_connect_error error)
{
    if (s->step != DURPINA_SOCKET_CONNECTING)
        return 0;
    s->step = DURPINA_SOCKET_NEW;
    durpina_add_connections(e, 0, -1);
    if (error == DURPINA_ERROR_REFUSED) {
        durpina_count(&e->refused, 1);
        return DURPINA_CONNECT_REFUSED;
    }
    if (error == DURPINA_ERROR_TIMED_OUT || (error == DURPINA_ERROR_NONE && s->retransmitted)) {
        durpina_count(&e->timed_out, 1);
        return DURPINA_CONNECT_TIMED_OUT;
    }
    if (error == DURPINA_ERROR_OTHER) {
        durpina_count(&e->unreachable, 1);
        return DURPINA_CONNECT_UNREACHABLE;
    }
    durpina_count(&e->abandoned, 1);
    return 0;
}

static inline void durpina_lower(uint32_t *to, uint32_t value)
{
    uint32_t old = DURPINA_LOAD(to);

    for (uint32_t attempt = 0; durpina_may_try(attempt) && (old == 0 || value < old); attempt++)
        if (__atomic_compare_exchange_n(to, &old, value, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            return;
}

/* Adds what the connection has done since the last time. */
static inline void durpina_endpoint_sample(struct durpina_endpoint *e, struct durpina_socket *s,
                                           const struct durpina_course *now, uint64_t now_ns)
{
    s->sampled_ns = now_ns;
    if (now->segments != s->segments)
        durpina_count(&e->segments, now->segments - s->segments);
    if (now->sent != s->sent)
        durpina_count(&e->sent, now->sent - s->sent);
    if (now->received != s->received)
        durpina_count(&e->received, now->received - s->received);
    s->segments = now->segments;
    s->sent = now->sent;
    s->received = now->received;
    if (now->rtt_us == 0)
        return;
    durpina_add_sample(&e->rtt, (uint64_t) now->rtt_us * DURPINA_EWMA_US, 0, now_ns / 1000000);
    if (now->min_rtt_us != 0 && now->min_rtt_us < UINT32_MAX / DURPINA_EWMA_US)
        durpina_lower(&e->min_rtt, now->min_rtt_us * DURPINA_EWMA_US);
}

/* This side will not send any more: its process has closed the socket, or shut it down. */
static inline void durpina_endpoint_closing(struct durpina_endpoint *e, struct durpina_socket *s)
{
    if (s->step != DURPINA_SOCKET_OPEN)
        return;
    s->step = DURPINA_SOCKET_CLOSING;
    durpina_add_connections(e, -1, 0);
}

/* The connection is gone; was_reset: by the other side. */
static inline void durpina_endpoint_closed(struct durpina_endpoint *e, struct durpina_socket *s,
                                           int was_reset)
{
    if (s->step == DURPINA_SOCKET_OPEN && was_reset)
        durpina_count(&e->resets, 1);
    durpina_endpoint_closing(e, s);
    if (s->step == DURPINA_SOCKET_CLOSING)
        s->step = DURPINA_SOCKET_NEW;
}

/* Takes back what the socket has added, in whatever step it is: its end was not seen. */
static inline void durpina_endpoint_lost(struct durpina_endpoint *e, struct durpina_socket *s)
{
    durpina_endpoint_failed(e, s, DURPINA_ERROR_LOCAL);
    durpina_endpoint_closed(e, s, 0);
}

#endif
