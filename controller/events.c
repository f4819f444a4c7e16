/* SPDX-License-Identifier: MIT */
#include "events.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include <bpf/libbpf.h>

#include "clock.h"
#include "log.h"

/* Peers that go down are logged once in so long. */
#define DOWN_LOG_MS 50

/* What has been passed on of an endpoint. */
struct passed {
    uint64_t failures;
    uint32_t generation;
    bool waiting; /* in the queue */
};

struct events {
    struct durpina_maps maps;
    struct endpoints *endpoints;
    const struct durpina_kernel *kernel;
    struct ring_buffer *ring;
    struct passed *passed; /* of each endpoint id */
    uint32_t *queue;       /* a ring of endpoint ids of which failures may be due */
    uint32_t first;
    uint32_t n_queued;
    uint64_t dropped; /* events_dropped when the endpoints were looked at last */
    uint32_t look_at; /* the next one to look at; n_endpoints: none */
    uint32_t n_taken; /* out of the ring in this turn */
    struct events_stats stats;
    struct log_throttle downs;
    uv_poll_t poll;
    uv_timer_t check;
    uv_idle_t busy; /* runs while there is something to do: the loop does not wait then */
    unsigned open_handles;
};

/* --- failures --------------------------------------------------------------------------------- */

static uint64_t count_failures(const struct durpina_endpoint *endpoint)
{
    return DURPINA_LOAD(&endpoint->refused) + DURPINA_LOAD(&endpoint->timed_out) +
           DURPINA_LOAD(&endpoint->unreachable);
}

/*
 * How many have not been passed on; those of a former address of the record never are. However many
 * root has written into the map, it is soon over, and what comes then counts again.
 */
static uint64_t count_due(struct events *events, uint32_t id)
{
    const struct durpina_endpoint *endpoint = &events->maps.endpoints[id];
    struct passed *passed = &events->passed[id];
    uint32_t generation = DURPINA_LOAD(&endpoint->generation);
    uint64_t failures = count_failures(endpoint);

    if (passed->generation != generation) {
        passed->generation = generation;
        passed->failures = 0;
    }
    if (passed->failures > failures)
        passed->failures = failures;
    if (failures - passed->failures > EVENTS_DUE_MAX)
        passed->failures = failures - EVENTS_DUE_MAX;
    return failures - passed->failures;
}

static void enqueue(struct events *events, uint32_t id)
{
    if (id >= events->maps.n_endpoints || events->passed[id].waiting)
        return;
    events->passed[id].waiting = true;
    events->queue[(events->first + events->n_queued++) % events->maps.n_endpoints] = id;
}

static uint32_t dequeue(struct events *events)
{
    uint32_t id = events->queue[events->first];

    events->first = (events->first + 1) % events->maps.n_endpoints;
    events->n_queued--;
    events->passed[id].waiting = false;
    return id;
}

static void log_down(struct events *events, uint32_t endpoint, uint32_t peer, uint32_t n,
                     uint64_t now_ms)
{
    const struct durpina_peer *p = &events->maps.peers[peer];
    const struct durpina_upstream *upstream = durpina_upstream_at(&events->maps, p->upstream);
    char others[48] = "", skipped[LOG_SKIPPED_SIZE];

    if (upstream == NULL || !log_throttle(&events->downs, now_ms, DOWN_LOG_MS, skipped))
        return;
    if (n > 1)
        snprintf(others, sizeof(others), ", and %u more of this address,", (unsigned) (n - 1));
    log_notice("upstream %.127s: peer %.127s (%.47s)%s is temporarily down: connections to it "
               "fail%s",
               upstream->name, p->name, events->maps.endpoints[endpoint].address, others, skipped);
}

/* Lets one failure of the endpoint count. */
static void pass_on(struct events *events, uint32_t id, uint64_t now_ms)
{
    uint32_t n_down = 0, first_down = DURPINA_NONE;

    for (uint32_t peer = endpoints_first_peer(events->endpoints, id); peer != DURPINA_NONE;
         peer = endpoints_next_peer(events->endpoints, peer)) {
        const struct durpina_counters *c = &events->maps.counters[peer];
        bool was_down = durpina_is_temp_down(c, now_ms);

        durpina_fail(&events->maps, peer, DURPINA_KERNEL, now_ms);
        if (!was_down && durpina_is_temp_down(c, now_ms) && n_down++ == 0)
            first_down = peer;
    }
    events->stats.passed++;
    events->stats.downs += n_down;
    if (n_down > 0)
        log_down(events, id, first_down, n_down, now_ms);
}

/* --- a turn of the loop ----------------------------------------------------------------------- */

static int on_event(void *user, void *data, size_t size)
{
    struct events *events = user;
    const struct durpina_event *event = data;

    if (size >= sizeof(*event))
        enqueue(events, event->endpoint);
    return ++events->n_taken < EVENTS_PER_TURN ? 0 : -EAGAIN;
}

static void look_around(struct events *events)
{
    uint64_t dropped = DURPINA_LOAD(&events->kernel->events_dropped);
    uint32_t end = events->maps.n_endpoints;

    if (dropped != events->dropped) {
        events->dropped = dropped;
        events->look_at = 0;
    }
    if (end - events->look_at > EVENTS_LOOKS_PER_TURN)
        end = events->look_at + EVENTS_LOOKS_PER_TURN;
    for (; events->look_at < end; events->look_at++)
        if (count_due(events, events->look_at) > 0)
            enqueue(events, events->look_at);
}

static void drain_queue(struct events *events)
{
    uint32_t left = EVENTS_FAILS_PER_TURN;
    uint64_t now_ms = clock_monotonic_ms();

    while (left > 0 && events->n_queued > 0) {
        uint32_t id = dequeue(events);
        uint64_t due = count_due(events, id);

        if (endpoints_first_peer(events->endpoints, id) == DURPINA_NONE) {
            events->passed[id].failures += due;
            left--;
            continue;
        }
        for (; due > 0 && left > 0; due--, left--) {
            events->passed[id].failures++;
            pass_on(events, id, now_ms);
        }
        if (due > 0)
            enqueue(events, id);
    }
}

static void on_busy(uv_idle_t *busy);

static void work(struct events *events)
{
    events->n_taken = 0;
    (void) ring_buffer__consume(events->ring);
    look_around(events);
    drain_queue(events);
    if (events->n_queued > 0 || events->look_at < events->maps.n_endpoints)
        uv_idle_start(&events->busy, on_busy);
    else
        uv_idle_stop(&events->busy);
}

static void on_busy(uv_idle_t *busy)
{
    work(busy->data);
}

static void on_readable(uv_poll_t *poll, int status, int readable)
{
    (void) status;
    (void) readable;
    work(poll->data);
}

static void on_check(uv_timer_t *timer)
{
    work(timer->data);
}

/* --- life ------------------------------------------------------------------------------------- */

static void release(struct events *events)
{
    ring_buffer__free(events->ring);
    free(events->passed);
    free(events->queue);
    free(events);
}

static void on_closed(uv_handle_t *handle)
{
    struct events *events = handle->data;

    if (--events->open_handles == 0)
        release(events);
}

static int open_ring(struct events *events, uv_loop_t *loop, int ring_fd)
{
    int err;

    events->ring = ring_buffer__new(ring_fd, on_event, events, NULL);
    if (events->ring == NULL)
        return -errno;
    err = uv_poll_init(loop, &events->poll, ring_buffer__epoll_fd(events->ring));
    if (err < 0)
        return err;
    uv_timer_init(loop, &events->check);
    uv_idle_init(loop, &events->busy);
    events->poll.data = events->check.data = events->busy.data = events;
    events->open_handles = 3;
    return 0;
}

int events_start(uv_loop_t *loop, const struct durpina_maps *maps, struct endpoints *endpoints,
                 const struct durpina_kernel *kernel, int ring_fd, struct events **ret)
{
    struct events *events = calloc(1, sizeof(*events));
    int err;

    if (events == NULL)
        return -ENOMEM;
    events->maps = *maps;
    events->endpoints = endpoints;
    events->kernel = kernel;
    events->passed = calloc(maps->n_endpoints, sizeof(*events->passed));
    events->queue = calloc(maps->n_endpoints, sizeof(*events->queue));
    err = events->passed == NULL || events->queue == NULL ? -ENOMEM
                                                          : open_ring(events, loop, ring_fd);
    if (err < 0) {
        release(events);
        return err;
    }
    events->dropped = DURPINA_LOAD(&kernel->events_dropped);
    events->look_at = maps->n_endpoints;
    for (uint32_t id = 0; id < maps->n_endpoints; id++) {
        events->passed[id].generation = DURPINA_LOAD(&maps->endpoints[id].generation);
        events->passed[id].failures = count_failures(&maps->endpoints[id]);
    }
    uv_poll_start(&events->poll, UV_READABLE, on_readable);
    uv_timer_start(&events->check, on_check, EVENTS_CHECK_MS, EVENTS_CHECK_MS);
    *ret = events;
    return 0;
}

void events_stop(struct events *events)
{
    if (events == NULL)
        return;
    uv_close((uv_handle_t *) &events->poll, on_closed);
    uv_close((uv_handle_t *) &events->check, on_closed);
    uv_close((uv_handle_t *) &events->busy, on_closed);
}

struct events_stats events_stats(const struct events *events)
{
    return events->stats;
}
