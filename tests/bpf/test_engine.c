/* SPDX-License-Identifier: MIT */
/* The engine: what nginx instances say, requests, names. */
#include "engine_scene.h"

/* --- nginx instances --- */

static void introduced_upstream_is_published_and_its_workers_are_known(void **state)
{
    (void) state;
    OK(introduce("foo", "10.0.0.1 weight=5", "10.0.0.2 weight=3 backup"));
    assert_int_equal(published_of("foo", "10.0.0.1:80").weight, 5);
    assert_int_equal(record(server("foo", "10.0.0.2:80")->peers[0])->tier, DURPINA_TIER_BACKUP);
    assert_true(engine_authorize_worker(scene.engine, 33, token));
    assert_false(engine_authorize_worker(scene.engine, 34, token));
    token[0] ^= 1;
    assert_false(engine_authorize_worker(scene.engine, 33, token));
    assert_false(engine_authorize_worker(scene.engine, 33, ""));
}

static void reload_brings_and_takes_lines_and_leaves_dynamic_servers(void **state)
{
    uint32_t id;

    (void) state;
    OK(introduce("foo", "10.0.0.1", "10.0.0.2"));
    OK(add("foo", "10.0.0.9 weight=7"));
    id = server("foo", "10.0.0.1:80")->peers[0]->id;
    OK(introduce("foo", "10.0.0.1", "10.0.0.3"));
    assert_non_null(server("foo", "10.0.0.3:80"));
    assert_null(server("foo", "10.0.0.2:80"));
    assert_non_null(server("foo", "10.0.0.9:80"));
    assert_int_equal(server("foo", "10.0.0.1:80")->peers[0]->id, id);
    OK(introduce_as(NGINX, NULL, true, NULL)); /* foo is gone from the file */
    assert_int_equal(n_servers("foo"), 1);
    OK(engine_remove_server(scene.engine, "foo", server("foo", "10.0.0.9:80")->id, &scene.failure));
    assert_null(upstream("foo"));
}

/* Defect 4: remembered state won over the file, or was lost. */
static void runtime_weight_lasts_until_the_files_own_value_changes(void **state)
{
    (void) state;
    OK(introduce("foo", "10.0.0.1 weight=5", "10.0.0.2 weight=2 max_fails=3"));
    OK(change("foo", "10.0.0.1:80", weight(9)));
    OK(introduce("foo", "10.0.0.1 weight=5", "10.0.0.2 weight=2 max_fails=4"));
    assert_int_equal(published_of("foo", "10.0.0.1:80").weight, 9);
    assert_int_equal(published_of("foo", "10.0.0.1:80").initial_weight, 5);
    assert_int_equal(published_of("foo", "10.0.0.2:80").max_fails, 4);
    OK(introduce("foo", "10.0.0.1 weight=6", "10.0.0.2 weight=2"));
    assert_int_equal(published_of("foo", "10.0.0.1:80").weight, 6);
}

/* Defect 5: `down` in the file, set up at run time, was down again with the next worker. */
static void server_down_in_the_file_stays_up_once_set_up(void **state)
{
    (void) state;
    OK(introduce("foo", "10.0.0.1 down", "10.0.0.2"));
    assert_int_equal(published_of("foo", "10.0.0.1:80").state, DURPINA_PEER_DOWN);
    OK(change("foo", "10.0.0.1:80", admin(DURPINA_ADMIN_UP)));
    OK(introduce("foo", "10.0.0.1 down", "10.0.0.2"));
    assert_int_equal(published_of("foo", "10.0.0.1:80").state, DURPINA_PEER_UP);
    restart_engine();
    OK(introduce("foo", "10.0.0.1 down", "10.0.0.2"));
    assert_int_equal(published_of("foo", "10.0.0.1:80").state, DURPINA_PEER_UP);
}

static void two_nginx_share_an_upstream(void **state)
{
    (void) state;
    OK(introduce_as("a", "foo", true, LINES("10.0.0.1 weight=2", "10.0.0.2")));
    OK(introduce_as("b", "foo", true, LINES("10.0.0.1 weight=3", "10.0.0.3")));
    assert_int_equal(n_servers("foo"), 3);
    assert_int_equal(published_of("foo", "10.0.0.1:80").weight, 3); /* the later one wins */
    OK(introduce_as("a", "foo", true, LINES("10.0.0.1 weight=2")));
    assert_int_equal(n_servers("foo"), 2);
    assert_int_equal(published_of("foo", "10.0.0.1:80").weight, 3); /* a's value has not changed */
    OK(introduce_as("b", NULL, true, NULL));
    assert_int_equal(n_servers("foo"), 1);
    assert_refused(engine_delete_upstream(scene.engine, "foo", &scene.failure), 409,
                   "UpstreamServerImmutable");
    OK(introduce_as("a", NULL, true, NULL));
    assert_null(upstream("foo"));
}

static int register_foo(uint64_t at_epoch, const char *line)
{
    struct server_spec spec = spec_of(line);
    const struct registration registration = {.upstream = "foo",
                                              .durpina = false,
                                              .specs = &spec,
                                              .n_specs = 1};

    return engine_register_upstream(scene.engine, NGINX, at_epoch, &registration, &scene.failure);
}

static void upstream_without_our_balancer_is_taken_once_a_worker_asks(void **state)
{
    (void) state;
    OK(introduce_as(NGINX, "foo", false, LINES("10.0.0.1")));
    assert_null(upstream("foo"));
    OK(register_foo(epoch, "10.0.0.1"));
    assert_int_equal(n_servers("foo"), 1);
    OK(introduce_as(NGINX, "foo", false, LINES("10.0.0.2")));
    assert_non_null(server("foo", "10.0.0.2:80"));
    assert_int_equal(n_servers("foo"), 1);
}

static void old_worker_brings_nothing_back_and_a_reload_does(void **state)
{
    uint64_t old_epoch;

    (void) state;
    OK(introduce("foo", "10.0.0.1"));
    old_epoch = epoch;
    OK(introduce("foo", "10.0.0.2"));
    OK(register_foo(old_epoch, "10.0.0.1"));
    assert_null(server("foo", "10.0.0.1:80"));

    OK(introduce("foo", "10.0.0.2", "10.0.0.3"));
    OK(engine_remove_server(scene.engine, "foo", server("foo", "10.0.0.3:80")->id, &scene.failure));
    OK(register_foo(epoch, "10.0.0.3"));
    assert_null(server("foo", "10.0.0.3:80"));
    OK(introduce("foo", "10.0.0.2", "10.0.0.3"));
    assert_non_null(server("foo", "10.0.0.3:80"));
    assert_refused(register_foo(epoch + 1, "10.0.0.3"), 400, "UpstreamConfFormatError");
}

static void lines_of_one_name_are_one_server_with_their_weights_added(void **state)
{
    (void) state;
    OK(introduce("foo", "10.0.0.1 weight=5", "10.0.0.1", "10.0.0.2"));
    assert_int_equal(n_servers("foo"), 2);
    assert_int_equal(published_of("foo", "10.0.0.1:80").weight, 6);
}

static void upstream_with_nothing_but_a_placeholder_exists_empty(void **state)
{
    (void) state;
    OK(introduce_as(NGINX, "bar", true, NULL));
    assert_non_null(upstream("bar"));
    assert_true(scene.maps.upstreams[upstream("bar")->id].publish != 0);
    OK(add("bar", "10.0.0.1"));
    assert_int_equal(published_of("bar", "10.0.0.1:80").state, DURPINA_PEER_UP);
}

static json_t *saved_model(void)
{
    struct snapshot *snapshot;
    json_t *json;
    size_t len;
    char *text;

    assert_int_equal(snapshot_create((struct model *) engine_model(scene.engine), &snapshot), 0);
    text = snapshot_join(snapshot, &len);
    assert_non_null(text);
    json = json_loadb(text, len, 0, NULL);
    assert_non_null(json);
    free(text);
    snapshot_free(snapshot);
    return json;
}

static void introduction_that_does_not_fit_changes_nothing(void **state)
{
    struct server_spec first[2] = {spec_of("10.0.0.1 weight=9"), spec_of("10.0.0.8")};
    struct server_spec second[65];
    const struct registration both[] = {
        {.upstream = "foo", .durpina = true, .specs = first, .n_specs = 2},
        {.upstream = "new", .durpina = true, .specs = second, .n_specs = 65},
    };
    json_t *before, *after;
    struct durpina_upstream record_before;
    char line[64];

    (void) state;
    OK(introduce("foo", "10.0.0.1", "10.0.0.2"));
    OK(change("foo", "10.0.0.1:80", weight(4)));
    for (int i = 0; i < 65; i++) {
        snprintf(line, sizeof(line), "10.1.0.%d", i);
        second[i] = spec_of(line);
    }
    before = saved_model();
    record_before = scene.maps.upstreams[upstream("foo")->id];
    assert_refused(engine_introduce_nginx(scene.engine, NGINX, 1, 33, both, 2, token, &epoch,
                                          &scene.failure),
                   409, "UpstreamOutOfMemory");
    assert_non_null(strstr(scene.failure.text, "upstream new"));
    assert_memory_equal(&scene.maps.upstreams[upstream("foo")->id], &record_before,
                        sizeof(record_before));
    after = saved_model();
    /* Ids that nobody has seen may be left out. */
    json_object_set_new(json_array_get(json_object_get(before, "upstreams"), 0), "next_server_id",
                        json_null());
    json_object_set_new(json_array_get(json_object_get(after, "upstreams"), 0), "next_server_id",
                        json_null());
    assert_true(json_equal(before, after));
    json_decref(before);
    json_decref(after);
    assert_int_equal(published_of("foo", "10.0.0.1:80").weight, 4);
}

/* --- requests --- */

static void bad_requests_are_refused_by_name(void **state)
{
    const struct server *s;
    struct server_spec spec = spec_of("10.0.0.1");
    char long_name[200];

    (void) state;
    memset(long_name, 'x', sizeof(long_name));
    long_name[DURPINA_NAME_SIZE] = '\0';
    OK(engine_create_upstream(scene.engine, "foo", &scene.failure));
    OK(add("foo", "10.0.0.1 weight=2"));
    assert_refused(engine_create_upstream(scene.engine, "foo", &scene.failure), 409, "EntryExists");
    assert_refused(engine_create_upstream(scene.engine, "", &scene.failure), 400,
                   "UpstreamBadName");
    assert_refused(engine_create_upstream(scene.engine, "a/b", &scene.failure), 400,
                   "UpstreamBadName");
    assert_refused(engine_create_upstream(scene.engine, "a\xff", &scene.failure), 400,
                   "UpstreamBadName");
    assert_refused(engine_create_upstream(scene.engine, long_name, &scene.failure), 400,
                   "UpstreamBadName");
    assert_refused(add("none", "10.0.0.1"), 404, "UpstreamNotFound");
    assert_refused(add("foo", "10.0.0.1"), 409, "EntryExists");
    assert_refused(engine_change_server(scene.engine, "foo", 99, &spec, &s, &scene.failure), 404,
                   "UpstreamServerNotFound");
    assert_refused(engine_remove_server(scene.engine, "foo", 99, &scene.failure), 404,
                   "UpstreamServerNotFound");
    assert_refused(change("foo", "10.0.0.1:80", weight(65536)), 400, "UpstreamBadWeight");
    spec = (struct server_spec){.backup = true, .set = SERVER_SET_BACKUP};
    assert_refused(change("foo", "10.0.0.1:80", spec), 400, "UpstreamServerImmutable");
    assert_refused(engine_set_resolver(scene.engine, LINES("10.0.0.1", "nowhere"), 2,
                                       &scene.failure),
                   400, "BadResolver");
    assert_non_null(strstr(scene.failure.text, "nowhere"));
    assert_int_equal(published_of("foo", "10.0.0.1:80").weight, 2);
}

static void change_is_published_and_reset_takes_it_back(void **state)
{
    const struct server *s;

    (void) state;
    OK(introduce("foo", "10.0.0.1 weight=5", "10.0.0.2"));
    OK(change("foo", "10.0.0.1:80", weight(0)));
    assert_int_equal(published_of("foo", "10.0.0.1:80").state, DURPINA_PEER_DRAINING);
    OK(change("foo", "10.0.0.1:80", admin(DURPINA_ADMIN_DOWN)));
    assert_int_equal(published_of("foo", "10.0.0.1:80").state, DURPINA_PEER_DOWN);
    OK(engine_reset_server(scene.engine, "foo", server("foo", "10.0.0.1:80")->id, &s,
                           &scene.failure));
    assert_int_equal(published_of("foo", "10.0.0.1:80").state, DURPINA_PEER_UP);
    assert_int_equal(published_of("foo", "10.0.0.1:80").weight, 5);
}

static void word_up_also_forgets_passive_failures(void **state)
{
    struct durpina_counters *counters;

    (void) state;
    OK(introduce("foo", "10.0.0.1", "10.0.0.2"));
    counters = &scene.maps.counters[server("foo", "10.0.0.1:80")->peers[0]->id];
    durpina_add_fail(counters, 1, 10000, 0, DURPINA_WORKER, 1000);
    assert_true(counters->down_until_ms != 0);
    OK(change("foo", "10.0.0.1:80", admin(DURPINA_ADMIN_UP)));
    assert_int_equal(counters->down_until_ms, 0);
}

/* Else it would get one request per fail_timeout for ever. */
static void peer_whose_failures_count_no_more_is_not_temporarily_down(void **state)
{
    const struct server_spec no_max_fails = {.set = SERVER_SET_MAX_FAILS};
    struct durpina_counters *one, *two;

    (void) state;
    OK(introduce("foo", "10.0.0.1", "10.0.0.2"));
    one = &scene.maps.counters[server("foo", "10.0.0.1:80")->peers[0]->id];
    two = &scene.maps.counters[server("foo", "10.0.0.2:80")->peers[0]->id];
    durpina_add_fail(one, 1, 10000, 0, DURPINA_WORKER, 1000);
    durpina_add_fail(two, 1, 10000, 0, DURPINA_WORKER, 1000);
    OK(change("foo", "10.0.0.1:80", weight(2)));
    assert_true(one->down_until_ms != 0);
    OK(change("foo", "10.0.0.1:80", no_max_fails));
    assert_int_equal(one->down_until_ms, 0);
    assert_true(two->down_until_ms != 0);
    OK(introduce("foo", "10.0.0.1", "10.0.0.2 max_fails=0"));
    assert_int_equal(two->down_until_ms, 0);
}

static void call_that_repeats_a_line_of_the_file_makes_it_dynamic_too(void **state)
{
    (void) state;
    OK(introduce("foo", "10.0.0.1 weight=5", "10.0.0.2"));
    assert_refused(add("foo", "10.0.0.1 weight=6"), 409, "EntryExists");
    OK(add("foo", "10.0.0.1 weight=5"));
    OK(introduce("foo", "10.0.0.2"));
    assert_non_null(server("foo", "10.0.0.1:80"));
}

static void call_made_again_finds_its_server_whatever_was_changed_since(void **state)
{
    struct server_spec spec = spec_of("10.0.0.1 weight=5");
    const struct server *s, *again;
    uint64_t revision;
    bool created;

    (void) state;
    OK(engine_create_upstream(scene.engine, "foo", &scene.failure));
    OK(engine_add_server(scene.engine, "foo", &spec, &created, &s, &scene.failure));
    assert_true(created);
    OK(change("foo", "10.0.0.1:80", weight(9)));
    OK(change("foo", "10.0.0.1:80", admin(DURPINA_ADMIN_DOWN)));
    revision = upstream("foo")->revision;
    OK(engine_add_server(scene.engine, "foo", &spec, &created, &again, &scene.failure));
    assert_false(created);
    assert_ptr_equal(again, s);
    assert_true(upstream("foo")->revision == revision);
    assert_int_equal(published_of("foo", "10.0.0.1:80").weight, 9);
    assert_refused(add("foo", "10.0.0.1 weight=9"), 409, "EntryExists");
    assert_refused(add("foo", "10.0.0.1 weight=5 backup"), 409, "EntryExists");
}

static void renamed_server_keeps_its_id_and_settings(void **state)
{
    struct server_spec spec = {0};
    uint32_t id;

    (void) state;
    OK(introduce("foo", "10.0.0.7"));
    OK(add("foo", "10.0.0.1 weight=5"));
    OK(add("foo", "10.0.0.2"));
    id = server("foo", "10.0.0.1:80")->id;
    OK(server_name_parse("10.0.0.2", 80, &spec, &scene.failure));
    assert_refused(change("foo", "10.0.0.1:80", spec), 409, "EntryExists");
    OK(server_name_parse("10.0.0.3", 80, &spec, &scene.failure));
    assert_refused(change("foo", "10.0.0.7:80", spec), 400, "UpstreamServerImmutable");
    OK(change("foo", "10.0.0.1:80", spec));
    assert_null(server("foo", "10.0.0.1:80"));
    assert_int_equal(server("foo", "10.0.0.3:80")->id, id);
    assert_int_equal(published_of("foo", "10.0.0.3:80").weight, 5);
    assert_int_equal(record(server("foo", "10.0.0.3:80")->peers[0])->server, id);
}

/* --- names --- */

static void name_with_two_addresses_is_one_server_with_two_peers(void **state)
{
    const struct server *s;
    uint32_t id;

    (void) state;
    register_localhost(LINES("127.0.0.1:8080", "[::1]:8080", "127.0.0.1:8080"), 3);
    s = server("foo", "localhost:8080");
    assert_int_equal(s->n_peers, 2);
    assert_true(s->peers[0]->api_id != s->id && s->peers[1]->api_id != s->peers[0]->api_id);
    assert_ptr_equal(model_server_by_id(upstream("foo"), s->peers[1]->api_id), s);
    assert_int_equal(published(s->peers[0]).weight, 3);
    assert_int_equal(published(s->peers[1]).weight, 3);
    assert_int_equal(record(s->peers[1])->server, s->id);

    id = s->peers[1]->id;
    scene.maps.counters[id].unanswered = 42;
    register_localhost(LINES("127.0.0.2:8080", "[::1]:8080"), 2);
    assert_int_equal(s->n_peers, 2);
    assert_int_equal(s->peers[1]->id, id); /* who stays keeps id and counters */
    assert_int_equal(scene.maps.counters[id].unanswered, 42);
    assert_string_equal(record(s->peers[0])->address, "127.0.0.2:8080");
}

static void name_without_address_waits_for_its_lookup(void **state)
{
    const struct server *s;

    (void) state;
    OK(introduce("foo", "10.0.0.1"));
    OK(add("foo", "localhost:8080 weight=3"));
    s = server("foo", "localhost:8080");
    assert_int_equal(s->n_peers, 1);
    assert_int_equal(published(s->peers[0]).state, DURPINA_PEER_UNRESOLVED);
    assert_string_equal(record(s->peers[0])->address, "?");
    AWAIT(s->peers[0]->resolved);
    assert_int_equal(published(s->peers[0]).state, DURPINA_PEER_UP);
    assert_int_equal(addr_port(&s->peers[0]->addr), 8080);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(introduced_upstream_is_published_and_its_workers_are_known),
        TEST(reload_brings_and_takes_lines_and_leaves_dynamic_servers),
        TEST(runtime_weight_lasts_until_the_files_own_value_changes),
        TEST(server_down_in_the_file_stays_up_once_set_up),
        TEST(two_nginx_share_an_upstream),
        TEST(upstream_without_our_balancer_is_taken_once_a_worker_asks),
        TEST(old_worker_brings_nothing_back_and_a_reload_does),
        TEST(lines_of_one_name_are_one_server_with_their_weights_added),
        TEST(upstream_with_nothing_but_a_placeholder_exists_empty),
        TEST(introduction_that_does_not_fit_changes_nothing),
        TEST(bad_requests_are_refused_by_name),
        TEST(change_is_published_and_reset_takes_it_back),
        TEST(word_up_also_forgets_passive_failures),
        TEST(peer_whose_failures_count_no_more_is_not_temporarily_down),
        TEST(call_that_repeats_a_line_of_the_file_makes_it_dynamic_too),
        TEST(call_made_again_finds_its_server_whatever_was_changed_since),
        TEST(renamed_server_keeps_its_id_and_settings),
        TEST(name_with_two_addresses_is_one_server_with_two_peers),
        TEST(name_without_address_waits_for_its_lookup),
    };

    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
