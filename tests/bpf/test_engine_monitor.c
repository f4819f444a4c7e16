/* SPDX-License-Identifier: MIT */
/* The engine: monitors and their verdicts. */
#include "engine_scene.h"

static void monitors_verdict_is_published_and_never_lifts_the_operators_word(void **state)
{
    struct sockaddr_in addr = {0};
    int fd = listen_on(&addr);
    char name[64];
    const struct peer *peer;
    bool created;

    (void) state;
    snprintf(name, sizeof(name), "127.0.0.1:%u", ntohs(addr.sin_port));
    OK(introduce("foo", name, "10.0.0.1 down"));
    OK(add_monitor("m", "tcp", "{\"interval\": 0.02}", &created));
    assert_true(created);
    peer = server("foo", name)->peers[0];
    AWAIT(published(peer).health == DURPINA_HEALTH_PASSED);
    assert_int_equal(published(peer).state, DURPINA_PEER_UP);

    close(fd);
    AWAIT(published(peer).state == DURPINA_PEER_UNHEALTHY);
    assert_true(peer->down_since_ms != 0);
    durpina_add_fail(&scene.maps.counters[peer->id], 1, 10000, 0, DURPINA_WORKER, 1000);

    OK(change("foo", name, admin(DURPINA_ADMIN_DOWN)));
    fd = listen_on(&addr);
    AWAIT(published(peer).health == DURPINA_HEALTH_PASSED);
    assert_int_equal(published(peer).state, DURPINA_PEER_DOWN);
    /* The check that passes again forgets what requests have found. */
    assert_int_equal(scene.maps.counters[peer->id].down_until_ms, 0);
    OK(change("foo", name, admin(DURPINA_ADMIN_UP)));
    assert_int_equal(published(peer).state, DURPINA_PEER_UP);
    close(fd);
    AWAIT(published(peer).state == DURPINA_PEER_UNHEALTHY);

    OK(engine_remove_monitor(scene.engine, "foo", "m", &scene.failure));
    assert_int_equal(published(peer).health, DURPINA_HEALTH_UNKNOWN);
    assert_int_equal(published(peer).state, DURPINA_PEER_UP);
}

static void paused_monitors_have_no_verdict(void **state)
{
    const struct peer *peer;
    bool created;

    (void) state;
    OK(introduce("foo", "127.0.0.1:9", "10.0.0.1"));
    OK(add_monitor("m", "tcp", "{\"interval\": 0.02}", &created));
    peer = server("foo", "127.0.0.1:9")->peers[0];
    AWAIT(published(peer).state == DURPINA_PEER_UNHEALTHY);
    OK(engine_set_monitoring(scene.engine, "foo", false, &scene.failure));
    assert_int_equal(published(peer).state, DURPINA_PEER_UP);
    assert_null(peer->watches[0]->probe);
    OK(engine_set_monitoring(scene.engine, "foo", true, &scene.failure));
    AWAIT(published(peer).state == DURPINA_PEER_UNHEALTHY);
}

static void one_failing_monitor_of_two_is_enough(void **state)
{
    struct sockaddr_in addr = {0};
    int fd = listen_on(&addr);
    char name[64];
    const struct peer *peer;
    bool created;

    (void) state;
    snprintf(name, sizeof(name), "127.0.0.1:%u", ntohs(addr.sin_port));
    OK(introduce("foo", name));
    OK(add_monitor("good", "tcp", "{\"interval\": 0.02}", &created));
    OK(add_monitor("bad", "tcp", "{\"interval\": 0.02, \"port\": 9}", &created));
    peer = server("foo", name)->peers[0];
    AWAIT(published(peer).state == DURPINA_PEER_UNHEALTHY);
    OK(engine_remove_monitor(scene.engine, "foo", "bad", &scene.failure));
    AWAIT(published(peer).health == DURPINA_HEALTH_PASSED);
    close(fd);
}

static void monitor_of_failing_peers_checks_those_only(void **state)
{
    const struct peer *good, *bad;
    bool created;

    (void) state;
    OK(introduce("foo", "127.0.0.1:9", "10.0.0.1"));
    OK(add_monitor("m", "tcp", "{\"interval\": 0.02, \"peers\": \"failing\"}", &created));
    good = server("foo", "10.0.0.1:80")->peers[0];
    bad = server("foo", "127.0.0.1:9")->peers[0];
    assert_null(bad->watches[0]->probe);
    durpina_add_fail(&scene.maps.counters[bad->id], 5, 3600 * 1000, 0, DURPINA_WORKER,
                     uv_hrtime() / 1000000);
    AWAIT(bad->watches[0]->probe != NULL);
    assert_null(good->watches[0]->probe);
}

/* Defect 14: adding a monitor again failed in workers 2 to N. */
static void monitor_may_be_added_again_with_the_same_options_only(void **state)
{
    bool created;

    (void) state;
    OK(introduce("foo", "10.0.0.1"));
    OK(add_monitor("m", "http", "{\"uri\": \"/alive\"}", &created));
    assert_true(created);
    OK(add_monitor("m", "http", "{\"uri\": \"/alive\"}", &created));
    assert_false(created);
    assert_int_equal(upstream("foo")->n_monitors, 1);
    assert_refused(add_monitor("m", "http", "{\"uri\": \"/other\"}", &created), 409, "EntryExists");
    assert_refused(add_monitor("m", "tcp", "{\"port\": 1}", &created), 409, "EntryExists");
    assert_refused(add_monitor("n", "nosuch", "{}", &created), 400, "MonitorBadOptions");
    assert_refused(add_monitor("a b", "tcp", "{}", &created), 400, "MonitorBadOptions");
    assert_refused(engine_remove_monitor(scene.engine, "foo", "n", &scene.failure), 404,
                   "MonitorNotFound");
}

static void peer_that_recovers_while_slots_are_full_waits_for_room(void **state)
{
    struct sockaddr_in addr = {0};
    int fd = listen_on(&addr);
    char good[64];
    bool created;

    (void) state;
    snprintf(good, sizeof(good), "127.0.0.1:%u weight=2", ntohs(addr.sin_port));
    stop_engine();
    pins_remove(&scene.pins);
    /* For one schedule of 5005 turns, not for two. */
    scene.n_slots = 9000;
    start_engine();

    OK(engine_create_upstream(scene.engine, "foo", &scene.failure));
    OK(add("foo", good));
    OK(add("foo", "127.0.0.1:9 weight=5003"));
    OK(add_monitor("m", "tcp", "{\"interval\": 0.02}", &created));
    AWAIT(published_of("foo", "127.0.0.1:9").state == DURPINA_PEER_UNHEALTHY);
    assert_false(upstream("foo")->stale);
    OK(engine_create_upstream(scene.engine, "bar", &scene.failure));
    OK(add("bar", "10.0.0.1 weight=2"));
    OK(add("bar", "10.0.0.2 weight=5003"));
    OK(engine_remove_monitor(scene.engine, "foo", "m", &scene.failure));
    assert_int_equal(published_of("foo", "127.0.0.1:9").state, DURPINA_PEER_UP);
    assert_true(upstream("foo")->stale);
    OK(engine_delete_upstream(scene.engine, "bar", &scene.failure));
    AWAIT(!upstream("foo")->stale);
    assert_true(engine_usage(scene.engine).slots > 5005);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(monitors_verdict_is_published_and_never_lifts_the_operators_word),
        TEST(paused_monitors_have_no_verdict),
        TEST(one_failing_monitor_of_two_is_enough),
        TEST(monitor_of_failing_peers_checks_those_only),
        TEST(monitor_may_be_added_again_with_the_same_options_only),
        TEST(peer_that_recovers_while_slots_are_full_waits_for_room),
    };

    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
