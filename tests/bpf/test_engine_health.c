/* SPDX-License-Identifier: MIT */
/* The engine: what operator, monitors and agents say of a peer, kept apart. */
#include "engine_internal.h"
#include "engine_scene.h"

#define PEER "127.0.0.1:9"

/* --- an agent that answers each connection with one line --- */

static struct {
    uv_tcp_t listener;
    const char *line;
    unsigned answers;
    int port;
    bool listens;
} agent;

static void on_agent_closed(uv_handle_t *handle)
{
    free(handle);
}

static void on_agent_written(uv_write_t *write, int status)
{
    (void) status;
    uv_close((uv_handle_t *) write->handle, on_agent_closed);
    free(write);
}

static void on_agent_connection(uv_stream_t *listener, int status)
{
    uv_tcp_t *client = calloc(1, sizeof(*client));
    uv_write_t *write = calloc(1, sizeof(*write));
    uv_buf_t buffer = uv_buf_init((char *) agent.line, (unsigned) strlen(agent.line));

    assert_int_equal(status, 0);
    assert_true(client != NULL && write != NULL);
    uv_tcp_init(listener->loop, client);
    assert_int_equal(uv_accept(listener, (uv_stream_t *) client), 0);
    assert_int_equal(uv_write(write, (uv_stream_t *) client, &buffer, 1, on_agent_written), 0);
    agent.answers++;
}

static void agent_says(const char *line)
{
    agent.line = line;
    agent.answers = 0;
}

static void start_agent(const char *line)
{
    struct sockaddr_in addr;
    int len = sizeof(addr);

    agent_says(line);
    uv_tcp_init(&scene.loop, &agent.listener);
    uv_ip4_addr("127.0.0.1", agent.port, &addr);
    assert_int_equal(uv_tcp_bind(&agent.listener, (struct sockaddr *) &addr, 0), 0);
    assert_int_equal(uv_listen((uv_stream_t *) &agent.listener, 16, on_agent_connection), 0);
    uv_tcp_getsockname(&agent.listener, (struct sockaddr *) &addr, &len);
    agent.port = ntohs(addr.sin_port);
    agent.listens = true;
}

static void stop_agent(void)
{
    if (agent.listens)
        uv_close((uv_handle_t *) &agent.listener, NULL);
    agent.listens = false;
}

static void add_agent(void)
{
    char options[64];
    bool created;

    snprintf(options, sizeof(options), "{\"interval\": 0.02, \"port\": %d}", agent.port);
    OK(add_monitor("agent", "haproxy-agent-check", options, &created));
}

static int set_up_agent(void **state)
{
    memset(&agent, 0, sizeof(agent));
    return set_up(state);
}

/* A test that fails leaves it to this: else the loop would never end. */
static int tear_down_agent(void **state)
{
    stop_agent();
    return tear_down(state);
}

/* --- in short --- */

static struct peer *the_peer(void)
{
    return server("foo", PEER)->peers[0];
}

static enum durpina_peer_state state_now(void)
{
    return published(the_peer()).state;
}

static bool is_running(size_t monitor)
{
    return the_peer()->watches[monitor]->probe != NULL;
}

/* On a port that refuses, or on one that accepts if there is a listener. */
static void add_tcp(const char *id, const char *more)
{
    char options[128];
    bool created;

    snprintf(options, sizeof(options), "{\"interval\": 0.02%s}", more);
    OK(add_monitor(id, "tcp", options, &created));
}

static int listen_for_checks(char more[64], const char *others)
{
    struct sockaddr_in addr = {0};
    int fd = listen_on(&addr);

    snprintf(more, 64, ", \"port\": %u%s", ntohs(addr.sin_port), others);
    return fd;
}

/* --- operator, monitors, agents --- */

static void passing_check_never_lifts_an_operators_down_or_maint(void **state)
{
    char more[64];
    int fd = listen_for_checks(more, "");

    (void) state;
    OK(introduce("foo", PEER));
    add_tcp("m", more);
    AWAIT(published(the_peer()).health == DURPINA_HEALTH_PASSED);
    OK(change("foo", PEER, admin(DURPINA_ADMIN_DOWN)));
    AWAIT(probe_stats(the_peer()->watches[0]->probe)->checks > 5);
    assert_int_equal(state_now(), DURPINA_PEER_DOWN);
    OK(change("foo", PEER, admin(DURPINA_ADMIN_MAINT)));
    assert_int_equal(state_now(), DURPINA_PEER_DOWN);
    assert_int_equal(published(the_peer()).admin, DURPINA_ADMIN_MAINT);
    OK(change("foo", PEER, admin(DURPINA_ADMIN_UP)));
    assert_int_equal(state_now(), DURPINA_PEER_UP);
    close(fd);
}

static void only_the_agent_reverts_what_it_has_set(void **state)
{
    char more[64];
    int fd = listen_for_checks(more, "");

    (void) state;
    OK(introduce("foo", PEER));
    start_agent("maint\n");
    add_tcp("m", more);
    add_agent();
    AWAIT(state_now() == DURPINA_PEER_DOWN);
    OK(change("foo", PEER, admin(DURPINA_ADMIN_UP)));
    assert_int_equal(state_now(), DURPINA_PEER_DOWN);
    agent_says("up 100%\n"); /* not a word about maint */
    AWAIT(agent.answers > 3);
    assert_int_equal(state_now(), DURPINA_PEER_DOWN);
    agent_says("ready\n");
    AWAIT(state_now() == DURPINA_PEER_UP);
    stop_agent();
    close(fd);
}

static void maintenance_stops_checks_but_those_of_agents(void **state)
{
    (void) state;
    OK(introduce("foo", PEER));
    start_agent("ready\n");
    add_tcp("m", "");
    add_agent();
    AWAIT(state_now() == DURPINA_PEER_UNHEALTHY);
    OK(change("foo", PEER, admin(DURPINA_ADMIN_MAINT)));
    assert_false(is_running(0));
    assert_true(is_running(1));
    OK(change("foo", PEER, admin(DURPINA_ADMIN_UP)));
    assert_true(is_running(0));
    /* What was found before holds. */
    assert_int_equal(state_now(), DURPINA_PEER_UNHEALTHY);
    agent_says("maint\n");
    AWAIT(!is_running(0));
    AWAIT(state_now() == DURPINA_PEER_DOWN);
    assert_true(is_running(1));
    agent_says("ready\n");
    AWAIT(is_running(0));
    stop_agent();
}

static void agents_weight_limit_and_health_are_published(void **state)
{
    (void) state;
    OK(introduce("foo", PEER " weight=10"));
    start_agent("50% maxconn:30\n");
    add_agent();
    AWAIT(published(the_peer()).weight == 5);
    assert_int_equal(published(the_peer()).max_conns, 30);
    assert_int_equal(published(the_peer()).initial_weight, 10);
    assert_int_equal(published(the_peer()).derived,
                     DURPINA_DERIVED_WEIGHT | DURPINA_DERIVED_MAX_CONNS);
    agent_says("0%\n");
    AWAIT(state_now() == DURPINA_PEER_DRAINING);
    agent_says("75% down # out\n");
    AWAIT(state_now() == DURPINA_PEER_UNHEALTHY);
    assert_int_equal(published(the_peer()).weight, 7);
    agent_says("up\n");
    AWAIT(state_now() == DURPINA_PEER_UP);
    assert_int_equal(published(the_peer()).weight, 7);
    assert_int_equal(published(the_peer()).health, DURPINA_HEALTH_UNKNOWN);
    stop_agent();
}

static void agents_down_counts_by_fall_and_its_other_words_at_once(void **state)
{
    char options[96];
    bool created;

    (void) state;
    OK(introduce("foo", PEER " weight=10"));
    start_agent("down 50%\n");
    snprintf(options, sizeof(options), "{\"interval\": 0.02, \"port\": %d, \"fall\": 1000}",
             agent.port);
    OK(add_monitor("agent", "haproxy-agent-check", options, &created));
    AWAIT(published(the_peer()).weight == 5 && agent.answers > 3);
    assert_int_equal(state_now(), DURPINA_PEER_UP);
    assert_false(the_peer()->agent.down);
    stop_agent();
}

/* Who checks "up" peers only must still see the end of what it has done to one. */
static void monitor_of_some_peers_goes_on_with_those_it_has_taken_out(void **state)
{
    char options[96];
    bool created;

    (void) state;
    OK(introduce("foo", PEER));
    start_agent("maint\n");
    snprintf(options, sizeof(options), "{\"interval\": 0.02, \"port\": %d, \"peers\": \"up\"}",
             agent.port);
    OK(add_monitor("agent", "haproxy-agent-check", options, &created));
    AWAIT(state_now() == DURPINA_PEER_DOWN);
    monitors_select_cb(&scene.engine->monitor_timer);
    assert_true(is_running(0));
    agent_says("ready\n");
    AWAIT(state_now() == DURPINA_PEER_UP);
    stop_agent();
}

static void agents_word_is_forgotten_when_its_monitor_goes_or_pauses(void **state)
{
    (void) state;
    OK(introduce("foo", PEER " weight=10"));
    start_agent("drain 50%\n");
    add_agent();
    AWAIT(state_now() == DURPINA_PEER_DRAINING);
    OK(engine_set_monitoring(scene.engine, "foo", false, &scene.failure));
    assert_int_equal(state_now(), DURPINA_PEER_UP);
    assert_int_equal(published(the_peer()).weight, 10);
    OK(engine_set_monitoring(scene.engine, "foo", true, &scene.failure));
    AWAIT(state_now() == DURPINA_PEER_DRAINING);
    OK(engine_remove_monitor(scene.engine, "foo", "agent", &scene.failure));
    assert_int_equal(state_now(), DURPINA_PEER_UP);
    assert_int_equal(published(the_peer()).weight, 10);
    stop_agent();
}

static void agent_that_goes_in_maintenance_lets_the_others_check_again(void **state)
{
    (void) state;
    OK(introduce("foo", PEER));
    start_agent("maint\n");
    add_tcp("m", "");
    add_agent();
    AWAIT(state_now() == DURPINA_PEER_DOWN && !is_running(0));
    OK(engine_remove_monitor(scene.engine, "foo", "agent", &scene.failure));
    assert_true(is_running(0));
    stop_agent();
}

static void check_that_changes_nothing_publishes_nothing(void **state)
{
    uint64_t revision, changes;

    (void) state;
    OK(introduce("foo", PEER " weight=10"));
    start_agent("ready up 50%\n");
    add_agent();
    AWAIT(published(the_peer()).weight == 5 && agent.answers > 2);
    revision = upstream("foo")->revision;
    changes = history_count(the_peer()->history);
    AWAIT(agent.answers > 8);
    assert_int_equal(upstream("foo")->revision, revision);
    assert_int_equal(history_count(the_peer()->history), changes);
    stop_agent();
}

/* --- mandatory, persistent --- */

static void new_peer_behind_a_mandatory_monitor_is_checking_at_once(void **state)
{
    char more[64];
    int fd = listen_for_checks(more, ", \"mandatory\": true");

    (void) state;
    OK(engine_create_upstream(scene.engine, "foo", &scene.failure));
    add_tcp("m", more);
    OK(add("foo", PEER));
    assert_int_equal(state_now(), DURPINA_PEER_CHECKING);
    assert_true(the_peer()->down_since_ms != 0);
    AWAIT(state_now() == DURPINA_PEER_UP);
    assert_int_equal(the_peer()->down_since_ms, 0);
    assert_int_equal(history_count(the_peer()->history), 1);
    assert_string_equal(history_at(the_peer()->history, 0)->cause, "monitors pass");
    close(fd);
}

static void mandatory_monitor_takes_out_what_no_check_has_passed(void **state)
{
    char more[64];
    int fd = listen_for_checks(more, "");

    (void) state;
    OK(introduce("foo", PEER));
    add_tcp("first", more);
    AWAIT(published(the_peer()).health == DURPINA_HEALTH_PASSED);
    strcat(more, ", \"mandatory\": true, \"fall\": 1000");
    add_tcp("second", more);
    assert_int_equal(state_now(), DURPINA_PEER_UP);
    OK(engine_remove_monitor(scene.engine, "foo", "second", &scene.failure));
    OK(engine_remove_monitor(scene.engine, "foo", "first", &scene.failure));
    add_tcp("third", more);
    assert_int_equal(state_now(), DURPINA_PEER_CHECKING);
    AWAIT(state_now() == DURPINA_PEER_UP);
    close(fd);
}

static void reboot(void)
{
    OK(engine_save(scene.engine));
    stop_engine();
    pins_remove(&scene.pins);
    start_engine();
}

static void
verdict_of_a_mandatory_monitor_outlives_a_restart_and_a_persistent_one_a_reboot(void **state)
{
    static const char *const persistence[] = {"", ", \"persistent\": true"};
    char more[64];
    int fd = listen_for_checks(more, ", \"mandatory\": true");

    (void) state;
    for (int persistent = 0; persistent < 2; persistent++) {
        char options[128];

        snprintf(options, sizeof(options), "%s%s", more, persistence[persistent]);
        OK(introduce("foo", PEER));
        add_tcp("m", options);
        assert_int_equal(state_now(), DURPINA_PEER_CHECKING);
        AWAIT(state_now() == DURPINA_PEER_UP);
        restart_engine();
        assert_int_equal(state_now(), DURPINA_PEER_UP);
        reboot();
        assert_int_equal(state_now(), persistent ? DURPINA_PEER_UP : DURPINA_PEER_CHECKING);
        AWAIT(state_now() == DURPINA_PEER_UP);
        OK(engine_remove_monitor(scene.engine, "foo", "m", &scene.failure));
    }
    close(fd);
}

/* --- restarts --- */

static void agents_word_outlives_a_restart_and_a_reboot(void **state)
{
    (void) state;
    OK(introduce("foo", PEER " weight=10"));
    start_agent("drain 50% down maxconn:3\n");
    add_agent();
    AWAIT(state_now() == DURPINA_PEER_UNHEALTHY);
    assert_int_equal(published(the_peer()).weight, 5);
    stop_agent();
    for (int i = 0; i < 2; i++) {
        if (i == 0)
            restart_engine();
        else
            reboot();
        assert_int_equal(state_now(), DURPINA_PEER_UNHEALTHY);
        assert_int_equal(published(the_peer()).weight, 5);
        assert_int_equal(published(the_peer()).max_conns, 3);
        assert_int_equal(the_peer()->agent.admin, AGENT_DRAIN);
        assert_int_equal(the_peer()->server->now.weight, 10);
    }
}

/* The state file is as old as the copy; the maps go on. */
static void restart_with_the_file_of_before(const char *copy)
{
    stop_engine();
    assert_int_equal(rename(copy, scene.state_file), 0);
    start_engine();
}

static void keep_state_file(char copy[128])
{
    char command[300];

    OK(engine_save(scene.engine));
    snprintf(copy, 128, "%s/copy", scene.state_dir);
    snprintf(command, sizeof(command), "cp '%s' '%s'", scene.state_file, copy);
    assert_int_equal(system(command), 0);
}

static void agents_word_outlives_a_controller_that_is_killed_before_it_saves(void **state)
{
    static const struct {
        const char *line;
        enum durpina_peer_state state;
        uint16_t weight;
        uint32_t max_conns;
    } words[] = {
        {"drain\n", DURPINA_PEER_DRAINING, 10, 8},
        {"maint 50% maxconn:3\n", DURPINA_PEER_DOWN, 5, 3},
        {"drain 0%\n", DURPINA_PEER_DRAINING, 0, 3},
        {"ready 40% maxconn:0 down\n", DURPINA_PEER_UNHEALTHY, 4, 0},
        {"up\n", DURPINA_PEER_UP, 4, 0},
    };
    char copy[128];

    (void) state;
    OK(introduce("foo", PEER " weight=10 max_conns=8"));
    start_agent("\n");
    add_agent();
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (i > 0)
            start_agent("\n");
        AWAIT(agent.answers > 1);
        keep_state_file(copy);
        agent_says(words[i].line);
        AWAIT(state_now() == words[i].state && published(the_peer()).weight == words[i].weight);
        stop_agent();
        restart_with_the_file_of_before(copy);
        assert_int_equal(state_now(), words[i].state);
        assert_int_equal(published(the_peer()).weight, words[i].weight);
        assert_int_equal(published(the_peer()).max_conns, words[i].max_conns);
        assert_int_equal(the_peer()->server->now.weight, 10);
        assert_int_equal(the_peer()->server->now.max_conns, 8);
        assert_int_equal(the_peer()->server->now.admin, DURPINA_ADMIN_UP);
    }
}

static void agents_weight_is_not_taken_for_the_operators(void **state)
{
    char copy[128];

    (void) state;
    OK(introduce("foo", PEER " weight=10 max_conns=8"));
    OK(change("foo", PEER, weight(20)));
    start_agent("50% maxconn:3\n");
    add_agent();
    keep_state_file(copy);
    AWAIT(published(the_peer()).weight == 5);
    stop_agent();
    restart_with_the_file_of_before(copy);
    assert_int_equal(server("foo", PEER)->now.weight, 20);
    assert_int_equal(server("foo", PEER)->base.weight, 10);
    assert_int_equal(server("foo", PEER)->now.max_conns, 8);

    /* Without a file nothing is known of the operator's. */
    start_agent("0%\n");
    AWAIT(state_now() == DURPINA_PEER_DRAINING);
    stop_agent();
    stop_engine();
    assert_int_equal(unlink(scene.state_file), 0);
    start_engine();
    assert_int_equal(server("foo", PEER)->now.weight, 10);
    assert_int_equal(server("foo", PEER)->changed & SERVER_SET_WEIGHT, 0);
}

static void operators_weight_below_an_agents_is_on_disk_when_the_call_returns(void **state)
{
    json_t *json;
    char *text;

    (void) state;
    OK(introduce("foo", PEER " weight=10"));
    start_agent("50%\n");
    add_agent();
    AWAIT(published(the_peer()).weight == 5);
    OK(change("foo", PEER, weight(4711)));
    json = json_load_file(scene.state_file, 0, NULL);
    assert_non_null(json);
    text = json_dumps(json, 0);
    assert_non_null(strstr(text, "4711"));
    free(text);
    json_decref(json);
    stop_agent();
}

/* --- history --- */

static void history_tells_each_change_with_its_cause(void **state)
{
    static const struct {
        enum durpina_peer_state from, to;
        const char *cause;
    } wanted[] = {
        {DURPINA_PEER_UP, DURPINA_PEER_DOWN, "monitor agent: agent says \"maint\""},
        {DURPINA_PEER_DOWN, DURPINA_PEER_UP, "set \"up\""},
        {DURPINA_PEER_DRAINING, DURPINA_PEER_DOWN, "set \"down\""},
        {DURPINA_PEER_UNHEALTHY, DURPINA_PEER_DRAINING, "set \"drain\""},
        {DURPINA_PEER_UP, DURPINA_PEER_UNHEALTHY, "monitor m: connection refused"},
    };
    const struct history *history;

    (void) state;
    OK(introduce("foo", PEER));
    start_agent("maint\n");
    assert_null(the_peer()->history);
    add_tcp("m", "");
    AWAIT(state_now() == DURPINA_PEER_UNHEALTHY);
    OK(change("foo", PEER, admin(DURPINA_ADMIN_DRAIN)));
    assert_int_equal(state_now(), DURPINA_PEER_UNHEALTHY);
    OK(engine_remove_monitor(scene.engine, "foo", "m", &scene.failure));
    OK(change("foo", PEER, admin(DURPINA_ADMIN_DOWN)));
    OK(change("foo", PEER, admin(DURPINA_ADMIN_UP)));
    add_agent();
    AWAIT(state_now() == DURPINA_PEER_DOWN);

    history = the_peer()->history;
    assert_int_equal(history_count(history), sizeof(wanted) / sizeof(wanted[0]));
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        assert_string_equal(history_at(history, i)->cause, wanted[i].cause);
        assert_int_equal(history_at(history, i)->from, wanted[i].from);
        assert_int_equal(history_at(history, i)->to, wanted[i].to);
        assert_true(history_at(history, i)->at_ms > 0);
    }
    stop_agent();
}

#define HEALTH_TEST(name) cmocka_unit_test_setup_teardown(name, set_up_agent, tear_down_agent)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HEALTH_TEST(passing_check_never_lifts_an_operators_down_or_maint),
        HEALTH_TEST(only_the_agent_reverts_what_it_has_set),
        HEALTH_TEST(maintenance_stops_checks_but_those_of_agents),
        HEALTH_TEST(agents_weight_limit_and_health_are_published),
        HEALTH_TEST(agents_down_counts_by_fall_and_its_other_words_at_once),
        HEALTH_TEST(monitor_of_some_peers_goes_on_with_those_it_has_taken_out),
        HEALTH_TEST(agents_word_is_forgotten_when_its_monitor_goes_or_pauses),
        HEALTH_TEST(agent_that_goes_in_maintenance_lets_the_others_check_again),
        HEALTH_TEST(check_that_changes_nothing_publishes_nothing),
        HEALTH_TEST(new_peer_behind_a_mandatory_monitor_is_checking_at_once),
        HEALTH_TEST(mandatory_monitor_takes_out_what_no_check_has_passed),
        HEALTH_TEST(
            verdict_of_a_mandatory_monitor_outlives_a_restart_and_a_persistent_one_a_reboot),
        HEALTH_TEST(agents_word_outlives_a_restart_and_a_reboot),
        HEALTH_TEST(agents_word_outlives_a_controller_that_is_killed_before_it_saves),
        HEALTH_TEST(agents_weight_is_not_taken_for_the_operators),
        HEALTH_TEST(operators_weight_below_an_agents_is_on_disk_when_the_call_returns),
        HEALTH_TEST(history_tells_each_change_with_its_cause),
    };

    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
