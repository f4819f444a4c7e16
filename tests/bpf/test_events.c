/* SPDX-License-Identifier: MIT */
/*
 * controller/events.c and kernel_health.c on real maps. What the kernel counts is written into the
 * maps here; tests/e2e has the programs that do it, and the ring.
 */
#include <uv.h>

#include "publish_scene.h"

#include "clock.h"
#include "events.h"
#include "kernel_health.h"

#define PATIENCE_MS 5000
#define PEERS 8192

static uv_loop_t loop;
static struct events *events;
static struct upstream *foo, *bar;
static struct server *a, *b; /* one address, in foo and in bar */

/* foo (max_fails 3) and bar (1) share the address of a and b; neither has one peer only. */
static void start(void)
{
    open_maps(4, PEERS, 65536);
    foo = model_add_upstream(&model, "foo");
    bar = model_add_upstream(&model, "bar");
    a = add_server(foo, "127.0.0.1:8001 max_fails=3 fail_timeout=60s");
    add_server(foo, "127.0.0.1:8002");
    b = add_server(bar, "127.0.0.1:8001 max_fails=1 fail_timeout=60s");
    add_server(bar, "127.0.0.1:8002");
    put_in_force(foo, T0);
    put_in_force(bar, T0);
}

static void watch(void)
{
    const struct durpina_maps readable = bpf_state_maps(&maps);

    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(events_start(&loop, &readable, publish_endpoints(publish), maps.kernel,
                                  bpf_state_fd(&maps, BPF_STATE_EVENTS), &events),
                     0);
}

static void unwatch(void)
{
    events_stop(events);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static const struct durpina_counters *counters_of(const struct server *server)
{
    return &maps.counters[server->peers[0]->id];
}

static struct durpina_endpoint *endpoint_of(const struct server *server)
{
    return &maps.endpoints[maps.peers[server->peers[0]->id].endpoint];
}

/* n connects were refused, and the ring had no room to tell. */
static void refuse(const struct server *server, uint64_t n)
{
    __atomic_fetch_add(&endpoint_of(server)->refused, n, __ATOMIC_RELAXED);
    __atomic_fetch_add(&maps.kernel->events_dropped, n, __ATOMIC_RELAXED);
}

/* Runs the loop until so many failures have been passed on. */
static void assert_passes(uint64_t n)
{
    uint64_t end_ms = clock_monotonic_ms() + PATIENCE_MS;

    while (events_stats(events).passed < n && clock_monotonic_ms() < end_ms)
        uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(events_stats(events).passed, n);
}

static void failure_counts_in_every_upstream_by_its_own_rules(void **state)
{
    (void) state;
    start();
    watch();
    refuse(a, 1);
    assert_passes(1);
    assert_int_equal(counters_of(a)->fails, 1);
    assert_int_equal(counters_of(b)->fails, 1);
    assert_false(durpina_is_temp_down(counters_of(a), clock_monotonic_ms()));
    assert_true(durpina_is_temp_down(counters_of(b), clock_monotonic_ms()));
    assert_int_equal(events_stats(events).downs, 1);
    refuse(b, 2);
    assert_passes(3);
    assert_int_equal(counters_of(a)->fails, 3);
    assert_true(durpina_is_temp_down(counters_of(a), clock_monotonic_ms()));
    assert_int_equal(events_stats(events).downs, 2);
    unwatch();
}

static void each_kind_of_failure_counts(void **state)
{
    (void) state;
    start();
    watch();
    endpoint_of(a)->timed_out = 1;
    endpoint_of(a)->unreachable = 1;
    endpoint_of(a)->abandoned = 5; /* the process's own doing */
    endpoint_of(a)->resets = 5;    /* after it was there */
    refuse(a, 1);
    assert_passes(3);
    uv_run(&loop, UV_RUN_NOWAIT);
    assert_int_equal(counters_of(a)->fails, 3);
    unwatch();
}

static void failures_of_before_are_past(void **state)
{
    (void) state;
    start();
    refuse(a, 7);
    watch();
    refuse(a, 1);
    assert_passes(1);
    assert_int_equal(counters_of(a)->fails, 1);
    unwatch();
}

static void a_flood_is_passed_on_in_turns(void **state)
{
    enum { FLOOD = 10 * EVENTS_FAILS_PER_TURN + 1 };
    uint64_t before = 0;

    (void) state;
    start();
    watch();
    refuse(a, FLOOD);
    while (events_stats(events).passed < FLOOD) {
        uv_run(&loop, UV_RUN_ONCE);
        assert_true(events_stats(events).passed - before <= EVENTS_FAILS_PER_TURN);
        before = events_stats(events).passed;
    }
    assert_int_equal(counters_of(a)->fails, FLOOD);
    unwatch();
}

static void endpoint_of_a_flood_does_not_keep_others_waiting(void **state)
{
    const struct server *other;

    (void) state;
    start();
    other = add_server(bar, "127.0.0.1:8003 max_fails=1 fail_timeout=60s");
    put_in_force(bar, T0);
    watch();
    refuse(a, 100 * EVENTS_FAILS_PER_TURN);
    refuse(other, 1);
    while (events_stats(events).passed < 2 * EVENTS_FAILS_PER_TURN)
        uv_run(&loop, UV_RUN_ONCE);
    assert_true(durpina_is_temp_down(counters_of(other), clock_monotonic_ms()));
    unwatch();
}

/* The one that is looked at last, when the ring was full. */
/* Root can write anything into the map: that is soon over. */
static void failures_that_no_peer_can_count_are_not_passed_on(void **state)
{
    (void) state;
    start();
    watch();
    refuse(a, (uint64_t) EVENTS_DUE_MAX << 40);
    assert_passes(EVENTS_DUE_MAX);
    uv_run(&loop, UV_RUN_NOWAIT);
    assert_int_equal(counters_of(a)->fails, UINT16_MAX);
    endpoint_of(a)->refused = 0;
    __atomic_fetch_add(&maps.kernel->events_dropped, 1, __ATOMIC_RELAXED);
    uv_run(&loop, UV_RUN_ONCE); /* sees the 0 */
    refuse(a, 1);
    assert_passes(EVENTS_DUE_MAX + 1);
    unwatch();
}

/* Adds so many servers to foo; returns the last one. */
static struct server *add_many(int n)
{
    struct server *server = NULL;

    for (int port = 10000; port < 10000 + n; port++) {
        char line[64];

        snprintf(line, sizeof(line), "127.0.0.1:%d max_fails=1 fail_timeout=60s", port);
        server = add_server(foo, line);
    }
    put_in_force(foo, T0);
    return server;
}

static void every_endpoint_is_looked_at(void **state)
{
    struct durpina_endpoint *last;
    struct server *server;
    uint32_t id;

    (void) state;
    start();
    watch();
    assert_true(maps.n_endpoints > EVENTS_LOOKS_PER_TURN);
    server = add_many(PEERS - 100);
    id = maps.peers[server->peers[0]->id].endpoint;
    assert_true(id > EVENTS_LOOKS_PER_TURN);
    last = &maps.endpoints[id];
    assert_string_equal(last->address, server->name);
    refuse(server, 1);
    assert_passes(1);
    assert_true(durpina_is_temp_down(counters_of(server), clock_monotonic_ms()));
    unwatch();
}

static void failures_of_a_former_address_do_not_count(void **state)
{
    uint32_t id;

    (void) state;
    start();
    endpoint_of(a)->refused = 7;
    watch();
    id = maps.peers[a->peers[0]->id].endpoint;
    maps.endpoints[id].generation++;
    maps.endpoints[id].refused = 0;
    refuse(a, 2);
    assert_passes(2);
    assert_int_equal(counters_of(a)->fails, 2);
    unwatch();
}

static void failures_of_an_address_without_peers_are_forgotten(void **state)
{
    struct durpina_endpoint *endpoint;
    struct server *back;

    (void) state;
    start();
    watch();
    endpoint = endpoint_of(a);
    remove_server(a);
    remove_server(b);
    put_in_force(foo, T0);
    put_in_force(bar, T0);
    endpoint->refused = 5;
    /* The other address comes behind it: once that has been passed on, this one has been seen. */
    refuse(model_server(foo, "127.0.0.1:8002"), 1);
    assert_passes(1);
    back = add_server(foo, "127.0.0.1:8001 max_fails=3 fail_timeout=60s");
    put_in_force(foo, T0);
    refuse(back, 1);
    assert_passes(2);
    assert_int_equal(counters_of(back)->fails, 1);
    unwatch();
}

/* --- kernel_health.c -------------------------------------------------------------------------- */

static struct kernel_health *health;

static void judge(unsigned seconds, uint64_t now_ms)
{
    for (unsigned i = 0; i < seconds * KERNEL_HEALTH_TICKS; i++)
        kernel_health_tick(health, now_ms);
}

static void start_health(void)
{
    struct durpina_maps readable;

    start();
    readable = bpf_state_maps(&maps);
    maps.meta->observing = 1;
    assert_int_equal(kernel_health_create(&readable, publish_endpoints(publish), &health), 0);
    judge(1, T0);
}

static struct kernel_verdict verdict_of(const struct server *server)
{
    return kernel_health_verdict(health, server->peers[0]->id);
}

static void loss_belongs_to_the_address(void **state)
{
    (void) state;
    start_health();
    endpoint_of(a)->segments = 1000;
    endpoint_of(a)->retransmits = 100;
    judge(1, T0);
    assert_true(verdict_of(a).lossy && verdict_of(b).lossy);
    assert_true(verdict_of(a).retransmit_rate > 0.09);
    assert_false(verdict_of(a).slow);
    kernel_health_destroy(health);
}

static void slowness_belongs_to_the_upstream(void **state)
{
    struct durpina_endpoint *other;
    struct server *third;

    (void) state;
    start_health();
    /* In bar all are as slow as each other; foo has fast ones. */
    third = add_server(foo, "127.0.0.1:8003");
    put_in_force(foo, T0);
    remove_server(model_server(bar, "127.0.0.1:8002"));
    put_in_force(bar, T0);
    other = endpoint_of(third);
    durpina_add_sample(&endpoint_of(a)->rtt, 20000 * DURPINA_EWMA_US, 0, T0);
    durpina_add_sample(&other->rtt, 100 * DURPINA_EWMA_US, 0, T0);
    endpoint_of(a)->segments = other->segments = 10;
    judge(2, T0);
    assert_true(verdict_of(a).slow);
    assert_false(verdict_of(b).slow);
    assert_false(verdict_of(third).slow);
    /* Nobody knows how the other one is by now. */
    endpoint_of(a)->segments = 20;
    durpina_add_sample(&endpoint_of(a)->rtt, 20000 * DURPINA_EWMA_US, 0,
                       T0 + 2 * KERNEL_HEALTH_FRESH_MS);
    judge(2, T0 + 2 * KERNEL_HEALTH_FRESH_MS);
    assert_false(verdict_of(a).slow);
    kernel_health_destroy(health);
}

static void assert_slow_alone(const struct server *slow)
{
    endpoint_of(slow)->segments += 10;
    judge(2, T0);
    for (const struct server *s = foo->servers; s != NULL; s = s->hh.next)
        assert_int_equal(verdict_of(s).slow, s == slow);
}

static void slow_peer_is_found_among_more_than_the_median_is_of(void **state)
{
    const uint64_t fast = 100 * DURPINA_EWMA_US, slow = 20000 * DURPINA_EWMA_US;

    (void) state;
    start_health();
    add_many(KERNEL_HEALTH_PEERS - 2); /* two are there */
    for (const struct server *s = foo->servers; s != NULL; s = s->hh.next)
        durpina_add_sample(&endpoint_of(s)->rtt, s == a ? slow : fast, 0, T0);
    assert_slow_alone(a);
    add_server(foo, "127.0.0.1:9000");
    put_in_force(foo, T0);
    durpina_add_sample(&endpoint_of(model_server(foo, "127.0.0.1:9000"))->rtt, fast, 0, T0);
    assert_slow_alone(a);
    kernel_health_destroy(health);
}

static void drift_is_what_all_peers_have_more_than_connections(void **state)
{
    (void) state;
    start_health();
    maps.counters[a->peers[0]->id].active = 2;
    maps.counters[b->peers[0]->id].active = 3;
    endpoint_of(a)->open = 3;
    endpoint_of(a)->connecting = 1;
    judge(KERNEL_HEALTH_DRIFTS, T0);
    assert_int_equal(verdict_of(a).drift, 0); /* its clients may not be observed at all */
    endpoint_of(a)->tried = 4;
    judge(KERNEL_HEALTH_DRIFTS - 1, T0);
    assert_int_equal(verdict_of(a).drift, 0);
    judge(1, T0);
    assert_int_equal(verdict_of(a).drift, 1);
    assert_int_equal(verdict_of(b).drift, 1);
    endpoint_of(a)->connecting = 2;
    judge(1, T0);
    assert_int_equal(verdict_of(a).drift, 0);
    kernel_health_destroy(health);
}

static void nothing_is_judged_that_nobody_counts(void **state)
{
    (void) state;
    start_health();
    maps.meta->observing = 0;
    maps.counters[a->peers[0]->id].active = 2;
    endpoint_of(a)->segments = endpoint_of(a)->retransmits = 1000;
    judge(2 * KERNEL_HEALTH_DRIFTS, T0);
    assert_int_equal(verdict_of(a).drift, 0);
    assert_false(verdict_of(a).lossy);
    kernel_health_destroy(health);
}

static void next_owner_of_the_record_begins_anew(void **state)
{
    (void) state;
    start_health();
    endpoint_of(a)->segments = endpoint_of(a)->retransmits = 1000;
    judge(1, T0);
    assert_true(verdict_of(a).lossy);
    endpoint_of(a)->generation++;
    endpoint_of(a)->segments = endpoint_of(a)->retransmits = 0;
    assert_false(verdict_of(a).lossy);
    judge(1, T0);
    assert_false(verdict_of(a).lossy);
    kernel_health_destroy(health);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(failure_counts_in_every_upstream_by_its_own_rules),
        TEST(each_kind_of_failure_counts),
        TEST(failures_of_before_are_past),
        TEST(a_flood_is_passed_on_in_turns),
        TEST(endpoint_of_a_flood_does_not_keep_others_waiting),
        TEST(failures_that_no_peer_can_count_are_not_passed_on),
        TEST(every_endpoint_is_looked_at),
        TEST(failures_of_a_former_address_do_not_count),
        TEST(failures_of_an_address_without_peers_are_forgotten),
        TEST(loss_belongs_to_the_address),
        TEST(slowness_belongs_to_the_upstream),
        TEST(slow_peer_is_found_among_more_than_the_median_is_of),
        TEST(drift_is_what_all_peers_have_more_than_connections),
        TEST(nothing_is_judged_that_nobody_counts),
        TEST(next_owner_of_the_record_begins_anew),
    };

    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
