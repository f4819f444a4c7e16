/* SPDX-License-Identifier: MIT */
#include "kernel_health.h"

#include <errno.h>
#include <stdlib.h>

#include "clock.h"
#include "log.h"

/* Of an endpoint, at the last look. */
struct look {
    uint32_t generation;
    bool lossy;
    uint64_t retransmits;
    uint64_t segments;
    struct kernel_loss loss;
    struct kernel_drift drift;
    uint32_t drifting; /* what kernel_drift_add() has said */
};

/* Of a peer. */
struct slowness {
    uint32_t generation;
    bool slow;
};

struct kernel_health {
    struct durpina_maps maps;
    struct endpoints *endpoints;
    struct look *looks;        /* of each endpoint id */
    struct slowness *slowness; /* of each peer id */
    bool *stirred;             /* of each upstream id: a peer of it had traffic */
    uint32_t tick;
    uv_timer_t timer;
    bool started;
};

/* --- rules ------------------------------------------------------------------------------------ */

void kernel_loss_add(struct kernel_loss *loss, uint64_t retransmits, uint64_t segments)
{
    /* A SYN that nobody answers is sent again and again and never becomes a sent segment. */
    if (segments < retransmits)
        segments = retransmits;
    loss->retransmits = loss->retransmits * KERNEL_HEALTH_FADE + (double) retransmits;
    loss->segments = loss->segments * KERNEL_HEALTH_FADE + (double) segments;
    if (loss->segments < 1)
        *loss = (struct kernel_loss){0, 0};
}

double kernel_loss_rate(const struct kernel_loss *loss)
{
    return loss->segments > 0 ? loss->retransmits / loss->segments : 0;
}

bool kernel_loss_is_lossy(const struct kernel_loss *loss, bool was_lossy)
{
    double rate = kernel_loss_rate(loss);

    if (was_lossy)
        return rate >= KERNEL_HEALTH_NOT_LOSSY;
    return rate > KERNEL_HEALTH_LOSSY && loss->segments >= KERNEL_HEALTH_SEGMENTS;
}

/* The first of the sorted numbers that is not below us. */
static size_t lower_bound(uint32_t us, const uint32_t *sorted_us, size_t n)
{
    size_t low = 0;

    while (n > 0) {
        size_t half = n / 2;

        if (sorted_us[low + half] < us) {
            low += half + 1;
            n -= half + 1;
        } else {
            n = half;
        }
    }
    return low;
}

bool kernel_is_slow(uint32_t us, const uint32_t *sorted_us, size_t n, bool was_slow)
{
    uint32_t least_us = was_slow ? KERNEL_HEALTH_NOT_SLOW_US : KERNEL_HEALTH_SLOW_US;
    uint64_t times = was_slow ? KERNEL_HEALTH_NOT_SLOW : KERNEL_HEALTH_SLOW;
    size_t own, middle;

    if (us <= least_us || n < 2)
        return false;
    own = lower_bound(us, sorted_us, n);
    middle = (n - 2) / 2; /* of the n - 1 others */
    return us > times * sorted_us[middle < own ? middle : middle + 1];
}

uint32_t kernel_drift_add(struct kernel_drift *drift, uint64_t requests, uint64_t connections)
{
    uint64_t difference = requests > connections ? requests - connections : 0;

    if (difference == 0) {
        *drift = (struct kernel_drift){0, 0};
        return 0;
    }
    if (difference > UINT32_MAX)
        difference = UINT32_MAX;
    if (drift->looks == 0 || difference < drift->least)
        drift->least = (uint32_t) difference;
    if (drift->looks < KERNEL_HEALTH_DRIFTS)
        drift->looks++;
    return drift->looks < KERNEL_HEALTH_DRIFTS ? 0 : drift->least;
}

/* --- endpoints -------------------------------------------------------------------------------- */

/* The difference to the last look; counts that were set back begin anew. */
static uint64_t take_difference(uint64_t *last, uint64_t now)
{
    uint64_t difference = now >= *last ? now - *last : now;

    *last = now;
    return difference;
}

static void judge_loss(const struct durpina_endpoint *endpoint, struct look *look)
{
    uint64_t retransmits =
        take_difference(&look->retransmits, DURPINA_LOAD(&endpoint->retransmits));
    uint64_t segments = take_difference(&look->segments, DURPINA_LOAD(&endpoint->segments));
    bool lossy;

    kernel_loss_add(&look->loss, retransmits, segments);
    lossy = kernel_loss_is_lossy(&look->loss, look->lossy);
    if (lossy && !look->lossy)
        log_warn("%.47s loses packets: %.1f %% of what is sent to it is sent again",
                 endpoint->address, kernel_loss_rate(&look->loss) * 100);
    else if (!lossy && look->lossy)
        log_notice("%.47s does not lose packets any more", endpoint->address);
    look->lossy = lossy;
}

static void judge_drift(const struct kernel_health *health, uint32_t id, struct look *look)
{
    const struct durpina_endpoint *endpoint = &health->maps.endpoints[id];
    uint64_t requests = 0, connections;
    uint32_t drift;

    for (uint32_t peer = endpoints_first_peer(health->endpoints, id); peer != DURPINA_NONE;
         peer = endpoints_next_peer(health->endpoints, peer))
        requests += DURPINA_LOAD(&health->maps.counters[peer].active);
    connections = (uint64_t) DURPINA_LOAD(&endpoint->open) + DURPINA_LOAD(&endpoint->connecting);
    /* Clients in another cgroup or network namespace, or that connected before: nobody observes. */
    if (DURPINA_LOAD(&endpoint->tried) == 0)
        requests = 0;
    drift = kernel_drift_add(&look->drift, requests, connections);
    if (drift > 0 && look->drifting == 0)
        log_warn("%.47s: nginx counts %llu requests in flight, the kernel %llu connections",
                 endpoint->address, (unsigned long long) requests,
                 (unsigned long long) connections);
    else if (drift == 0 && look->drifting > 0)
        log_notice("%.47s: each request in flight has a connection again", endpoint->address);
    look->drifting = drift;
}

static void stir(struct kernel_health *health, uint32_t id)
{
    for (uint32_t peer = endpoints_first_peer(health->endpoints, id); peer != DURPINA_NONE;
         peer = endpoints_next_peer(health->endpoints, peer)) {
        uint32_t upstream = DURPINA_LOAD(&health->maps.peers[peer].upstream);

        if (upstream < health->maps.n_upstreams)
            health->stirred[upstream] = true;
    }
}

static void look_at(struct kernel_health *health, uint32_t id)
{
    const struct durpina_endpoint *endpoint = &health->maps.endpoints[id];
    struct look *look = &health->looks[id];
    uint32_t generation = DURPINA_LOAD(&endpoint->generation);

    if (endpoints_first_peer(health->endpoints, id) == DURPINA_NONE)
        return;
    if (look->generation != generation)
        *look = (struct look){.generation = generation,
                              .retransmits = DURPINA_LOAD(&endpoint->retransmits),
                              .segments = DURPINA_LOAD(&endpoint->segments)};
    if (look->loss.segments > 0 || look->segments != DURPINA_LOAD(&endpoint->segments) ||
        look->retransmits != DURPINA_LOAD(&endpoint->retransmits)) {
        judge_loss(endpoint, look);
        stir(health, id);
    }
    judge_drift(health, id, look);
}

/* --- upstreams -------------------------------------------------------------------------------- */

/* 0: not known, or not any more. */
static uint32_t round_trip_us(const struct kernel_health *health, uint32_t peer, uint64_t now_ms)
{
    const struct durpina_endpoint *endpoint =
        durpina_endpoint_at(&health->maps, endpoints_of_peer(health->endpoints, peer));
    struct durpina_ewma rtt;

    if (endpoint == NULL)
        return 0;
    rtt = durpina_read_ewma(&endpoint->rtt);
    if (durpina_ewma_age(&rtt, now_ms) > KERNEL_HEALTH_FRESH_MS / DURPINA_EWMA_TICK_MS)
        return 0;
    return (uint32_t) durpina_mean_us(&endpoint->rtt);
}

static void judge_slowness(struct kernel_health *health, uint32_t id, uint32_t us,
                           const uint32_t *sorted_us, size_t n)
{
    const struct durpina_peer *peer = &health->maps.peers[id];
    struct slowness *slowness = &health->slowness[id];
    bool was_slow = slowness->slow && slowness->generation == peer->generation;

    slowness->slow = kernel_is_slow(us, sorted_us, n, was_slow);
    slowness->generation = peer->generation;
    if (slowness->slow && !was_slow)
        log_warn("peer %.127s (%.47s) is slow: a round trip takes %.1f ms", peer->name,
                 peer->address, us / 1000.0);
    else if (!slowness->slow && was_slow)
        log_notice("peer %.127s (%.47s) is not slow any more", peer->name, peer->address);
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *) a, y = *(const uint32_t *) b;

    return (x > y) - (x < y);
}

static void judge_upstream(struct kernel_health *health, uint32_t id, uint64_t now_ms)
{
    const struct durpina_upstream *upstream = &health->maps.upstreams[id];
    uint64_t word = durpina_seq_begin(&upstream->publish);
    struct durpina_table peers = durpina_table(&health->maps, &upstream->view[word & 1].peers);
    uint32_t step = (peers.length + KERNEL_HEALTH_PEERS - 1) / KERNEL_HEALTH_PEERS;
    uint32_t sorted_us[KERNEL_HEALTH_PEERS];
    size_t n = 0;

    for (uint32_t i = 0; i < peers.length; i += step) {
        uint32_t peer = durpina_slot(&health->maps, peers.offset + i);
        uint32_t us = peer < health->maps.n_peers ? round_trip_us(health, peer, now_ms) : 0;

        if (us > 0)
            sorted_us[n++] = us;
    }
    qsort(sorted_us, n, sizeof(sorted_us[0]), compare);
    for (uint32_t i = 0; i < peers.length; i++) {
        uint32_t peer = durpina_slot(&health->maps, peers.offset + i);

        if (peer < health->maps.n_peers)
            judge_slowness(health, peer, round_trip_us(health, peer, now_ms), sorted_us, n);
    }
}

/* --- public ----------------------------------------------------------------------------------- */

void kernel_health_tick(struct kernel_health *health, uint64_t now_ms)
{
    uint32_t first = health->tick;

    health->tick = (health->tick + 1) % KERNEL_HEALTH_TICKS;
    if (DURPINA_LOAD(&health->maps.meta->observing) == 0)
        return;
    for (uint32_t id = first; id < health->maps.n_endpoints; id += KERNEL_HEALTH_TICKS)
        look_at(health, id);
    for (uint32_t id = first; id < health->maps.n_upstreams; id += KERNEL_HEALTH_TICKS) {
        if (!health->stirred[id])
            continue;
        health->stirred[id] = false;
        judge_upstream(health, id, now_ms);
    }
}

struct kernel_verdict kernel_health_verdict(const struct kernel_health *health, uint32_t peer_id)
{
    struct kernel_verdict verdict = {0};
    const struct slowness *slowness;
    const struct look *look;
    uint32_t id;

    if (peer_id >= health->maps.n_peers)
        return verdict;
    id = endpoints_of_peer(health->endpoints, peer_id);
    if (id == DURPINA_NONE)
        return verdict;
    look = &health->looks[id];
    slowness = &health->slowness[peer_id];
    if (look->generation == DURPINA_LOAD(&health->maps.endpoints[id].generation)) {
        verdict.retransmit_rate = kernel_loss_rate(&look->loss);
        verdict.lossy = look->lossy;
        verdict.drift = look->drifting;
    }
    verdict.slow = slowness->slow &&
                   slowness->generation == DURPINA_LOAD(&health->maps.peers[peer_id].generation);
    return verdict;
}

int kernel_health_create(const struct durpina_maps *maps, struct endpoints *endpoints,
                         struct kernel_health **ret)
{
    struct kernel_health *health = calloc(1, sizeof(*health));

    if (health == NULL)
        return -ENOMEM;
    health->maps = *maps;
    health->endpoints = endpoints;
    health->looks = calloc(maps->n_endpoints, sizeof(*health->looks));
    health->slowness = calloc(maps->n_peers, sizeof(*health->slowness));
    health->stirred = calloc(maps->n_upstreams, sizeof(*health->stirred));
    if (health->looks == NULL || health->slowness == NULL || health->stirred == NULL) {
        kernel_health_destroy(health);
        return -ENOMEM;
    }
    *ret = health;
    return 0;
}

static void on_timer(uv_timer_t *timer)
{
    struct kernel_health *health = timer->data;
    uint64_t now_ms = clock_monotonic_ms();

    kernel_health_tick(health, now_ms);
    endpoints_sweep(health->endpoints, now_ms);
}

void kernel_health_start(struct kernel_health *health, uv_loop_t *loop)
{
    const uint64_t tick_ms = KERNEL_HEALTH_MS / KERNEL_HEALTH_TICKS;

    uv_timer_init(loop, &health->timer);
    health->timer.data = health;
    health->started = true;
    uv_timer_start(&health->timer, on_timer, tick_ms, tick_ms);
}

static void release(struct kernel_health *health)
{
    free(health->looks);
    free(health->slowness);
    free(health->stirred);
    free(health);
}

static void on_closed(uv_handle_t *handle)
{
    release(handle->data);
}

void kernel_health_destroy(struct kernel_health *health)
{
    if (health == NULL)
        return;
    if (health->started)
        uv_close((uv_handle_t *) &health->timer, on_closed);
    else
        release(health);
}
