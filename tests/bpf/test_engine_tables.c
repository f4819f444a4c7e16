/* SPDX-License-Identifier: MIT */
/* The engine: which tables are laid out for whom, and when. */
#include "engine_scene.h"

#define MANY 130 /* servers whose table of keys is not laid out by the request itself */

static uint32_t hash_slots(const char *name)
{
    return engine_table_slots(scene.engine, upstream(name), DEMANDED_HASH);
}

static uint32_t ring_slots(const char *name)
{
    return engine_table_slots(scene.engine, upstream(name), DEMANDED_RING);
}

/* Introduces an nginx with one block of n servers. */
static int introduce_with(const char *instance, unsigned n, const char *word, bool ketama)
{
    struct server_spec specs[MANY];
    const struct registration registration = {.upstream = "foo",
                                              .durpina = true,
                                              .algorithm = word == NULL
                                                               ? NULL
                                                               : model_algorithm(word, ketama),
                                              .specs = specs,
                                              .n_specs = n};
    char line[64];

    for (unsigned i = 0; i < n; i++) {
        snprintf(line, sizeof(line), "10.0.0.%u", i);
        specs[i] = spec_of(line);
    }
    return engine_introduce_nginx(scene.engine, instance, 1, 33, &registration, 1, token, &epoch,
                                  &scene.failure);
}

static void ask(enum durpina_asked what)
{
    scene.maps.cursors[upstream("foo")->id].asked |= what;
}

static void restart_with(uint32_t n_slots)
{
    stop_engine();
    pins_remove(&scene.pins);
    scene.n_slots = n_slots;
    start_engine();
}

static void algorithm_of_the_directive_lays_out_its_table_and_no_other(void **state)
{
    (void) state;
    OK(introduce_with(NGINX, 3, "least-conn", false));
    assert_int_equal(hash_slots("foo"), 0);
    assert_int_equal(ring_slots("foo"), 0);
    OK(introduce_with(NGINX, 3, "ip-hash", false));
    assert_true(hash_slots("foo") > 0);
    assert_int_equal(ring_slots("foo"), 0);
    OK(introduce_with(NGINX, 3, "consistent-hash", true));
    assert_int_equal(hash_slots("foo"), 0);
    assert_true(ring_slots("foo") > 0);
    OK(introduce_with(NGINX, 3, "random-two", false));
    assert_int_equal(ring_slots("foo"), 0);
}

static void two_nginx_get_what_each_of_them_needs(void **state)
{
    (void) state;
    OK(introduce_with("a", 3, "consistent-hash", false));
    assert_string_equal(model_upstream_algorithm(upstream("foo"))->word, "consistent-hash");
    OK(introduce_with("b", 3, "consistent-hash", true));
    assert_null(model_upstream_algorithm(upstream("foo")));
    assert_true(hash_slots("foo") > 0 && ring_slots("foo") > 0);
    OK(engine_forget_nginx(scene.engine, "a", &scene.failure));
    assert_true(hash_slots("foo") == 0 && ring_slots("foo") > 0);
    assert_true(model_upstream_algorithm(upstream("foo"))->ketama);
}

static void unknown_algorithm_has_both_tables_until_picks_show_that_it_needs_none(void **state)
{
    (void) state;
    OK(introduce_with(NGINX, 3, NULL, false));
    OK(engine_create_upstream(scene.engine, "bar", &scene.failure));
    OK(add("bar", "10.0.0.1"));
    assert_true(hash_slots("foo") > 0 && ring_slots("foo") > 0);
    assert_true(hash_slots("bar") > 0 && ring_slots("bar") > 0);
    ask(DURPINA_ASKED_NO_TABLE);
    AWAIT(hash_slots("foo") == 0 && ring_slots("foo") == 0);
    assert_true(hash_slots("bar") > 0);
    /* What comes later counts as well. */
    ask(DURPINA_ASKED_RING);
    AWAIT(ring_slots("foo") > 0);
    assert_int_equal(hash_slots("foo"), 0);
}

static void what_picks_asked_for_is_known_after_a_restart_and_a_reboot(void **state)
{
    (void) state;
    OK(introduce_with(NGINX, 3, "least-conn", false));
    ask(DURPINA_ASKED_HASH);
    AWAIT(hash_slots("foo") > 0);
    OK(introduce_with(NGINX, 3, "round-robin", false));
    assert_true(hash_slots("foo") > 0);
    restart_engine();
    assert_true(hash_slots("foo") > 0);
    assert_int_equal(ring_slots("foo"), 0);
    restart_with(0);
    assert_int_equal(scene.maps.cursors[0].asked, DURPINA_ASKED_NONE);
    assert_true(hash_slots("foo") > 0);
    assert_int_equal(ring_slots("foo"), 0);

    /* Asked for while there was no controller, and the state file is lost. */
    ask(DURPINA_ASKED_RING);
    stop_engine();
    unlink(scene.state_file);
    start_engine();
    assert_true(ring_slots("foo") > 0);
}

static void introduction_whose_table_has_no_room_changes_nothing(void **state)
{
    (void) state;
    restart_with(1024);
    OK(introduce_with(NGINX, 3, "least-conn", false));
    assert_refused(introduce_with(NGINX, 3, "consistent-hash", false), 409, "UpstreamOutOfMemory");
    assert_string_equal(model_upstream_algorithm(upstream("foo"))->word, "least-conn");
    assert_int_equal(upstream("foo")->demand[DEMANDED_HASH], DEMAND_NONE);
    OK(change("foo", "10.0.0.1:80", weight(2)));
    /* Picks cannot be refused: theirs waits for room. */
    ask(DURPINA_ASKED_HASH);
    AWAIT(upstream("foo")->tables_retry_ms != 0);
    assert_int_equal(hash_slots("foo"), 0);
    OK(change("foo", "10.0.0.1:80", weight(3)));
}

static void change_that_does_not_fit_changes_nothing(void **state)
{
    const struct durpina_upstream *u;

    (void) state;
    restart_with(192);
    OK(introduce_with(NGINX, 3, "least-conn", false));
    u = &scene.maps.upstreams[upstream("foo")->id];
    assert_refused(change("foo", "10.0.0.1:80", weight(1000)), 409, "UpstreamOutOfMemory");
    assert_int_equal(server("foo", "10.0.0.1:80")->now.weight, 1);
    assert_int_equal(published_of("foo", "10.0.0.1:80").weight, 1);
    OK(change("foo", "10.0.0.2:80", weight(5)));
    assert_int_equal(u->view[u->publish & 1].tier[0].schedule.length, 7);
    assert_int_equal(u->view[u->publish & 1].tier[0].weight, 7);
    assert_int_equal(published_of("foo", "10.0.0.1:80").weight, 1);
}

static void large_table_follows_its_introduction(void **state)
{
    (void) state;
    scene.n_peers = 256;
    restart_with(1024 * 1024);
    OK(introduce_with(NGINX, MANY, "consistent-hash", false));
    assert_int_equal(hash_slots("foo"), 0);
    AWAIT(hash_slots("foo") > 100000);
    OK(introduce_with("other", MANY, "consistent-hash", true));
    AWAIT(ring_slots("foo") > 2 * MANY);
    assert_true(hash_slots("foo") > 100000);
}

static bool is_in_hash(uint32_t peer)
{
    const struct durpina_upstream *u = &scene.maps.upstreams[upstream("foo")->id];
    struct durpina_table hash = u->view[u->publish & 1].tier[0].hash;

    for (uint32_t i = 0; i < hash.length; i++)
        if (scene.maps.slots[hash.offset + i] == peer)
            return true;
    return false;
}

static void change_of_a_large_table_is_in_force_soon(void **state)
{
    uint32_t id;

    (void) state;
    scene.n_peers = 256;
    restart_with(1024 * 1024);
    OK(introduce_with(NGINX, MANY, "consistent-hash", false));
    AWAIT(hash_slots("foo") > 100000);
    id = server("foo", "10.0.0.7:80")->peers[0]->id;
    assert_true(is_in_hash(id));
    OK(change("foo", "10.0.0.7:80", weight(0)));
    AWAIT(!is_in_hash(id));
    for (uint32_t i = 0; i < 20; i++)
        OK(change("foo", "10.0.0.7:80", weight(1 + i % 3)));
    AWAIT(is_in_hash(id));
}

/* No build has been made before: the second change of a small table is the first one. */
static void small_table_follows_a_change_right_after_another(void **state)
{
    uint32_t id;

    (void) state;
    OK(introduce_with(NGINX, 3, "consistent-hash", false));
    id = server("foo", "10.0.0.1:80")->peers[0]->id;
    for (uint32_t i = 0; i < 100; i++)
        OK(change("foo", "10.0.0.1:80", weight(1 + i % 3)));
    OK(change("foo", "10.0.0.1:80", weight(0)));
    AWAIT(!is_in_hash(id));
}

static void large_table_follows_what_changed_before_a_restart(void **state)
{
    uint32_t id;

    (void) state;
    scene.n_peers = 256;
    restart_with(1024 * 1024);
    OK(introduce_with(NGINX, MANY, "consistent-hash", false));
    AWAIT(hash_slots("foo") > 100000);
    id = server("foo", "10.0.0.7:80")->peers[0]->id;
    OK(change("foo", "10.0.0.7:80", weight(0)));
    restart_engine();
    AWAIT(!is_in_hash(id));
}

static void controller_stops_while_a_table_is_built(void **state)
{
    (void) state;
    scene.n_peers = 256;
    restart_with(1024 * 1024);
    for (int i = 0; i < 5; i++) {
        OK(introduce_with(NGINX, MANY, i % 2 ? "consistent-hash" : "least-conn", false));
        uv_run(&scene.loop, UV_RUN_NOWAIT);
        restart_engine();
    }
    OK(introduce_with(NGINX, MANY, "consistent-hash", false));
    uv_run(&scene.loop, UV_RUN_NOWAIT);
    OK(engine_forget_nginx(scene.engine, NGINX, &scene.failure));
    assert_null(upstream("foo"));
    AWAIT(engine_usage(scene.engine).slots == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(algorithm_of_the_directive_lays_out_its_table_and_no_other),
        TEST(two_nginx_get_what_each_of_them_needs),
        TEST(unknown_algorithm_has_both_tables_until_picks_show_that_it_needs_none),
        TEST(what_picks_asked_for_is_known_after_a_restart_and_a_reboot),
        TEST(introduction_whose_table_has_no_room_changes_nothing),
        TEST(change_that_does_not_fit_changes_nothing),
        TEST(large_table_follows_its_introduction),
        TEST(change_of_a_large_table_is_in_force_soon),
        TEST(small_table_follows_a_change_right_after_another),
        TEST(large_table_follows_what_changed_before_a_restart),
        TEST(controller_stops_while_a_table_is_built),
    };

    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
