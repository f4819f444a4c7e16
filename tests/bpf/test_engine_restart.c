/* SPDX-License-Identifier: MIT */
/* The engine: what outlives a controller. */
#include "engine_scene.h"

/* --- restarts --- */

static void restart_keeps_ids_counters_weights_and_states(void **state)
{
    uint64_t revision;
    uint32_t id, generation, server_id;
    bool created;
    const struct peer *peer;

    (void) state;
    OK(introduce("foo", "10.0.0.1 weight=5", "10.0.0.2"));
    OK(add("foo", "10.0.0.9 weight=4"));
    OK(add_monitor("m", "tcp", "{\"interval\": 3600}", &created));
    OK(change("foo", "10.0.0.1:80", weight(7)));
    OK(change("foo", "10.0.0.2:80", admin(DURPINA_ADMIN_DOWN)));
    OK(engine_set_resolver(scene.engine, LINES("127.0.0.1:53"), 1, &scene.failure));
    peer = server("foo", "10.0.0.9:80")->peers[0];
    id = peer->id;
    generation = peer->generation;
    server_id = peer->server->id;
    scene.maps.counters[id].unanswered = 42;
    scene.maps.counters[id].active = 2;
    revision = upstream("foo")->revision;

    restart_engine();
    assert_true(scene.maps.adopted);
    peer = server("foo", "10.0.0.9:80")->peers[0];
    assert_int_equal(peer->id, id);
    assert_int_equal(peer->generation, generation);
    assert_int_equal(peer->server->id, server_id);
    assert_int_equal(scene.maps.counters[id].unanswered, 42);
    assert_int_equal(scene.maps.counters[id].active, 2);
    assert_true(upstream("foo")->revision >= revision);
    assert_int_equal(published_of("foo", "10.0.0.1:80").weight, 7);
    assert_int_equal(published_of("foo", "10.0.0.1:80").initial_weight, 5);
    assert_int_equal(published_of("foo", "10.0.0.2:80").state, DURPINA_PEER_DOWN);
    assert_true(server("foo", "10.0.0.9:80")->dynamic);
    assert_int_equal(upstream("foo")->n_monitors, 1);
    assert_true(engine_authorize_worker(scene.engine, 33, token));
    assert_int_equal(json_array_size(engine_model(scene.engine)->resolver), 1);
}

static void unhealthy_peer_stays_so_until_the_first_verdict_after_a_restart(void **state)
{
    struct sockaddr_in addr = {0};
    int fd = listen_on(&addr);
    char name[64];
    bool created;

    (void) state;
    close(fd);
    snprintf(name, sizeof(name), "127.0.0.1:%u", ntohs(addr.sin_port));
    OK(introduce("foo", name, "10.0.0.1"));
    OK(add_monitor("m", "tcp", "{\"interval\": 0.05}", &created));
    AWAIT(published_of("foo", name).state == DURPINA_PEER_UNHEALTHY);
    restart_engine();
    assert_int_equal(published_of("foo", name).state, DURPINA_PEER_UNHEALTHY);
    fd = listen_on(&addr);
    AWAIT(published_of("foo", name).state == DURPINA_PEER_UP);
    close(fd);
}

/* This process has not seen what another one did: its state must not stay. */
static void start_after_another(void)
{
    char saved[128];

    snprintf(saved, sizeof(saved), "%s/saved", scene.state_dir);
    assert_int_equal(rename(scene.state_file, saved), 0);
    stop_engine();
    rename(saved, scene.state_file);
    start_engine();
}

/* A controller that is killed between a change and the next save. */
static void kill_after(void (*change_something)(void))
{
    int status;
    pid_t pid;

    assert_int_equal(engine_save(scene.engine), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        change_something();
        kill(getpid(), SIGKILL);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    start_after_another();
}

static void change_a_lot(void)
{
    OK(change("foo", "10.0.0.1:80", weight(7)));
    OK(change("foo", "10.0.0.2:80", admin(DURPINA_ADMIN_DOWN)));
    OK(add("foo", "10.0.0.9 weight=4"));
    OK(engine_remove_server(scene.engine, "foo", server("foo", "10.0.0.3:80")->id, &scene.failure));
}

static void newer_maps_win_over_the_state_file(void **state)
{
    (void) state;
    OK(introduce("foo", "10.0.0.1 weight=5", "10.0.0.2", "10.0.0.3"));
    kill_after(change_a_lot);
    assert_int_equal(published_of("foo", "10.0.0.1:80").weight, 7);
    assert_int_equal(server("foo", "10.0.0.1:80")->base.weight, 5);
    assert_int_equal(published_of("foo", "10.0.0.2:80").state, DURPINA_PEER_DOWN);
    assert_int_equal(published_of("foo", "10.0.0.9:80").weight, 4);
    assert_null(server("foo", "10.0.0.3:80"));
    OK(introduce("foo", "10.0.0.1 weight=5", "10.0.0.2"));
    assert_non_null(server("foo", "10.0.0.9:80")); /* it was dynamic */
    assert_int_equal(published_of("foo", "10.0.0.1:80").weight, 7);
    assert_int_equal(published_of("foo", "10.0.0.2:80").state, DURPINA_PEER_DOWN);
}

/* It is killed as soon as the upstream has gone from the maps; the file may say so or not. */
static void killed_deletion_brings_back_the_upstream_as_it_was_if_at_all(void **state)
{
    const uint64_t *publish;
    pid_t pid;

    (void) state;
    OK(engine_create_upstream(scene.engine, "foo", &scene.failure));
    OK(add("foo", "10.0.0.1"));
    assert_int_equal(engine_save(scene.engine), 0);
    publish = &scene.maps.upstreams[upstream("foo")->id].publish;
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        OK(change("foo", "10.0.0.1:80", weight(7)));
        OK(engine_delete_upstream(scene.engine, "foo", &scene.failure));
        for (;;)
            pause();
    }
    while (durpina_seq_begin(publish) != 0)
        ;
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    start_after_another();
    if (upstream("foo") != NULL)
        assert_int_equal(published_of("foo", "10.0.0.1:80").weight, 7);
}

static void maps_alone_restore_upstreams_until_nginx_speaks(void **state)
{
    const struct server *s;
    uint32_t id;

    (void) state;
    OK(introduce("foo", "10.0.0.1 weight=5", "10.0.0.2", "unix:/run/x"));
    register_localhost(LINES("127.0.0.1:8080", "[::1]:8080"), 2);
    OK(introduce("foo", "10.0.0.1 weight=5", "10.0.0.2 backup", "unix:/run/x"));
    OK(change("foo", "10.0.0.1:80", weight(7)));
    OK(change("foo", "10.0.0.2:80", admin(DURPINA_ADMIN_DOWN)));
    id = server("foo", "10.0.0.1:80")->peers[0]->id;
    stop_engine();
    unlink(scene.state_file);
    start_engine();

    s = server("foo", "10.0.0.1:80");
    assert_int_equal(n_servers("foo"), 3);
    assert_int_equal(s->peers[0]->id, id);
    assert_int_equal(s->now.weight, 7);
    assert_int_equal(s->base.weight, 5);
    assert_true(server("foo", "10.0.0.2:80")->backup);
    assert_int_equal(server("foo", "10.0.0.2:80")->now.admin, DURPINA_ADMIN_DOWN);
    assert_int_equal(server("foo", "unix:/run/x")->peers[0]->addr.sa.sa_family, AF_UNIX);
    OK(introduce_as("other", "bar", true, LINES("10.0.0.5")));
    assert_int_equal(n_servers("foo"), 3);
    OK(introduce("foo", "10.0.0.1 weight=5", "10.0.0.2 backup"));
    assert_int_equal(n_servers("foo"), 2);
    assert_int_equal(published_of("foo", "10.0.0.1:80").weight, 7);
    assert_int_equal(published_of("foo", "10.0.0.2:80").state, DURPINA_PEER_DOWN);
}

static void state_file_alone_restores_all_after_a_reboot(void **state)
{
    uint64_t revision;

    (void) state;
    OK(introduce("foo", "10.0.0.1 weight=5", "10.0.0.2"));
    OK(add("foo", "10.0.0.9 weight=4"));
    OK(change("foo", "10.0.0.1:80", weight(7)));
    revision = upstream("foo")->revision;
    stop_engine();
    pins_remove(&scene.pins);
    start_engine();
    assert_false(scene.maps.adopted);
    assert_int_equal(published_of("foo", "10.0.0.1:80").weight, 7);
    assert_int_equal(published_of("foo", "10.0.0.9:80").weight, 4);
    assert_true(upstream("foo")->revision > revision);
    OK(introduce("foo", "10.0.0.1 weight=5"));
    assert_int_equal(published_of("foo", "10.0.0.1:80").weight, 7);
}

static void upstream_that_does_not_fit_after_a_restart_waits_for_room(void **state)
{
    uint32_t one;

    (void) state;
    stop_engine();
    pins_remove(&scene.pins);
    /* For one upstream with a schedule of 100 turns, and then for two. */
    scene.n_slots = 192;
    start_engine();
    OK(engine_create_upstream(scene.engine, "foo", &scene.failure));
    OK(add("foo", "10.0.0.1 weight=100"));
    OK(add("foo", "10.0.0.2 weight=1"));
    one = engine_usage(scene.engine).slots;
    assert_in_range(one, 101, 192 / 2 + 10);
    OK(engine_create_upstream(scene.engine, "bar", &scene.failure));
    OK(add("bar", "10.0.0.3"));
    assert_refused(add("bar", "10.0.0.4 weight=100"), 409, "UpstreamOutOfMemory");
    stop_engine();
    pins_remove(&scene.pins);
    scene.n_slots = 256;
    start_engine();
    OK(add("bar", "10.0.0.4 weight=100"));
    stop_engine();
    pins_remove(&scene.pins);
    scene.n_slots = 192;
    start_engine();

    assert_int_equal(upstream("bar")->id, DURPINA_NONE);
    assert_int_equal(server("bar", "10.0.0.3:80")->peers[0]->id, DURPINA_NONE);
    assert_int_equal(engine_usage(scene.engine).upstreams, 1);
    assert_int_equal(engine_usage(scene.engine).slots, one);
    assert_refused(change("bar", "10.0.0.3:80", weight(3)), 409, "UpstreamOutOfMemory");
    OK(engine_delete_upstream(scene.engine, "foo", &scene.failure));
    AWAIT(upstream("bar")->id != DURPINA_NONE);
    assert_int_equal(published_of("bar", "10.0.0.3:80").state, DURPINA_PEER_UP);
    assert_false(upstream("bar")->unpublished);
}

static void damaged_state_file_is_set_aside(void **state)
{
    char damaged[128];
    FILE *file;

    (void) state;
    OK(introduce("foo", "10.0.0.1 weight=5"));
    stop_engine();
    file = fopen(scene.state_file, "w");
    assert_non_null(file);
    fputs("{\"version\": 1, ", file);
    fclose(file);
    start_engine();
    snprintf(damaged, sizeof(damaged), "%s.damaged", scene.state_file);
    assert_int_equal(access(damaged, F_OK), 0);
    assert_int_equal(published_of("foo", "10.0.0.1:80").weight, 5);
}

static void change_is_saved_by_itself(void **state)
{
    json_t *json;
    const char *name;

    (void) state;
    OK(introduce("foo", "10.0.0.1")); /* at once: what nginx says is not to be lost */
    AWAIT(access(scene.state_file, F_OK) == 0);
    json = json_load_file(scene.state_file, 0, NULL);
    name = json_string_value(
        json_object_get(json_array_get(json_object_get(json, "upstreams"), 0), "name"));
    assert_string_equal(name, "foo");
    json_decref(json);
}

/* Root may write anything into the maps; the next start must make sense of it or drop it. */
static void garbage_in_the_maps_does_not_reach_the_model(void **state)
{
    (void) state;
    srand(6);
    for (int round = 0; round < 30; round++) {
        uint32_t *peers = (uint32_t *) scene.maps.peers, *u = (uint32_t *) scene.maps.upstreams;

        OK(introduce("foo", "10.0.0.1 weight=5", "10.0.0.2", "10.0.0.3 backup"));
        for (int i = 0; i < 40; i++) {
            peers[(size_t) rand() % (6 * sizeof(*scene.maps.peers) / 4)] = (uint32_t) rand() * 3U;
            u[(size_t) rand() % (2 * sizeof(*scene.maps.upstreams) / 4)] = (uint32_t) rand() % 32;
        }
        if (round % 2) {
            stop_engine();
            unlink(scene.state_file);
            start_engine();
        } else {
            restart_engine();
        }
        for (const struct upstream *up = engine_model(scene.engine)->upstreams; up != NULL;
             up = up->hh.next)
            for (const struct server *s = up->servers; s != NULL; s = s->hh.next) {
                assert_in_range(s->now.weight, 0, DURPINA_WEIGHT_MAX);
                assert_true(s->n_peers > 0);
            }
        /* Revisions and in-flight counts of nonsense would stop ids from coming back. */
        stop_engine();
        pins_remove(&scene.pins);
        unlink(scene.state_file);
        start_engine();
    }
}

/* What no publisher writes, in range of its type, must not spoil the state file. */
static void extreme_numbers_in_the_maps_do_not_spoil_the_state_file(void **state)
{
    static const uint64_t words[] = {UINT64_MAX, UINT64_MAX - 1, INT64_MAX, INT64_MAX - 1,
                                     1ULL << 63};
    char damaged[128];

    (void) state;
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        OK(introduce("foo", "10.0.0.1", "10.0.0.2"));
        scene.maps.upstreams[upstream("foo")->id].publish = words[i];
        scene.maps.peers[server("foo", "10.0.0.2:80")->peers[0]->id].server = UINT32_MAX - 2;
        restart_engine();
        assert_int_not_equal(scene.maps.upstreams[upstream("foo")->id].publish, 0);
        OK(add("foo", "10.0.0.3"));
        OK(add("foo", "10.0.0.4"));
        restart_engine();
        snprintf(damaged, sizeof(damaged), "%s.damaged", scene.state_file);
        assert_int_not_equal(access(damaged, F_OK), 0);
        assert_true(server("foo", "10.0.0.3:80")->dynamic);
        OK(engine_remove_server(scene.engine, "foo", server("foo", "10.0.0.3:80")->id,
                                &scene.failure));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(restart_keeps_ids_counters_weights_and_states),
        TEST(unhealthy_peer_stays_so_until_the_first_verdict_after_a_restart),
        TEST(newer_maps_win_over_the_state_file),
        TEST(killed_deletion_brings_back_the_upstream_as_it_was_if_at_all),
        TEST(maps_alone_restore_upstreams_until_nginx_speaks),
        TEST(state_file_alone_restores_all_after_a_reboot),
        TEST(upstream_that_does_not_fit_after_a_restart_waits_for_room),
        TEST(damaged_state_file_is_set_aside),
        TEST(change_is_saved_by_itself),
        TEST(garbage_in_the_maps_does_not_reach_the_model),
        TEST(extreme_numbers_in_the_maps_do_not_spoil_the_state_file),
    };

    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
