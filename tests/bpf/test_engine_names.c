/* SPDX-License-Identifier: MIT */
/* What the answers of name servers make of an upstream. */
#include "engine_scene.h"

#include "../unit/name_server.h"

static struct name_server dns;

/* Times count in milliseconds: a TTL ends soon, and is asked for again soon. */
static const struct resolve_policy quick = {
    .follow = true,
    .min_ttl_ms = 10,
    .max_ttl_ms = 40,
    .max_nxdomain = 3,
    .max_addresses = 256,
};

static void use_names(void)
{
    const char *name = dns.name;

    resolver_set_policy(scene.resolver, &quick);
    OK(engine_set_resolver(scene.engine, &name, 1, &scene.failure));
}

static int set_up_names(void **state)
{
    set_up(state);
    memset(&dns, 0, sizeof(dns));
    memset(zone, 0, sizeof(zone));
    name_server_open(&scene.loop, &dns);
    engine_start(scene.engine);
    use_names();
    return 0;
}

static int tear_down_names(void **state)
{
    uv_close((uv_handle_t *) &dns.udp, NULL);
    return tear_down(state);
}

/* The addresses of the server as they are in the maps: "a*WEIGHT b*WEIGHT!", "!" for a backup. */
static const char *peers_of(const struct server *s)
{
    static char text[512];
    size_t used = 0;

    text[0] = '\0';
    for (size_t i = 0; i < s->n_peers; i++)
        used += (size_t) snprintf(text + used, sizeof(text) - used, "%s%s*%u%s", i > 0 ? " " : "",
                                  record(s->peers[i])->address, published(s->peers[i]).weight,
                                  record(s->peers[i])->tier == DURPINA_TIER_BACKUP ? "!" : "");
    return text;
}

#define AWAIT_PEERS(s, wanted) AWAIT(strcmp(peers_of(s), wanted) == 0)

static void name_is_followed_and_who_stays_keeps_its_counters(void **state)
{
    struct record *name =
        put((struct record){.name = "a.test", .data = {"127.0.0.1", "127.0.0.2"}});
    const struct server *s;
    uint32_t id, api_id;

    (void) state;
    OK(engine_create_upstream(scene.engine, "foo", &scene.failure));
    OK(add("foo", "a.test:8080 weight=3"));
    s = server("foo", "a.test:8080");
    assert_int_equal(published(s->peers[0]).state, DURPINA_PEER_UNRESOLVED);
    AWAIT_PEERS(s, "127.0.0.1:8080*3 127.0.0.2:8080*3");
    id = s->peers[1]->id;
    api_id = s->peers[1]->api_id;
    scene.maps.counters[id].unanswered = 42;
    scene.maps.counters[id].active = 7;
    name->data[0] = "127.0.0.3";
    AWAIT_PEERS(s, "127.0.0.2:8080*3 127.0.0.3:8080*3");
    assert_int_equal(s->peers[0]->id, id);
    assert_int_equal(s->peers[0]->api_id, api_id);
    assert_int_equal(scene.maps.counters[id].unanswered, 42);
    assert_int_equal(scene.maps.counters[id].active, 7);
}

static void name_of_an_nginx_keeps_what_that_found_until_there_is_an_answer(void **state)
{
    struct addr found[2];
    struct server_spec spec = spec_of("a.test:8080");
    const struct registration registration = {.upstream = "foo",
                                              .durpina = true,
                                              .specs = &spec,
                                              .n_specs = 1};
    struct record *name = put((struct record){.name = "a.test", .rcode = RCODE_NO_NAME});
    const struct server *s;
    unsigned before;

    (void) state;
    OK(addr_parse("127.0.0.9:8080", 0, &found[0]));
    spec.addresses = found;
    spec.n_addresses = 1;
    for (int reload = 0; reload < 2; reload++) {
        OK(engine_introduce_nginx(scene.engine, NGINX, 1, 33, &registration, 1, token, &epoch,
                                  &scene.failure));
        s = server("foo", "a.test:8080");
        before = name->n_queries[0];
        AWAIT(name->n_queries[0] > before + 5);
        if (reload == 0) /* DNS does not know it, nginx did: from a file, or another service */
            assert_string_equal(peers_of(s), "127.0.0.9:8080*1");
        name->rcode = RCODE_OK;
        name->data[0] = "127.0.0.1";
        AWAIT_PEERS(s, "127.0.0.1:8080*1");
    }
    /* What came of DNS goes with it. */
    name->rcode = RCODE_NO_NAME;
    AWAIT(published(s->peers[0]).state == DURPINA_PEER_UNRESOLVED);
    assert_int_equal(s->n_peers, 1);
}

static void name_that_is_gone_leaves_a_server_that_is_asked_on(void **state)
{
    struct record *name = put((struct record){.name = "a.test", .data = {"127.0.0.1"}});
    const struct server *s;

    (void) state;
    OK(engine_create_upstream(scene.engine, "foo", &scene.failure));
    OK(add("foo", "a.test:8080"));
    OK(add("foo", "127.0.0.5:8080"));
    s = server("foo", "a.test:8080");
    AWAIT_PEERS(s, "127.0.0.1:8080*1");
    name->rcode = RCODE_NO_NAME;
    AWAIT_PEERS(s, "?*1");
    assert_int_equal(published(s->peers[0]).state, DURPINA_PEER_UNRESOLVED);
    name->rcode = RCODE_OK;
    AWAIT_PEERS(s, "127.0.0.1:8080*1");
}

static void failures_change_nothing(void **state)
{
    static const int rcodes[] = {RCODE_FAILED, 5, RCODE_OK};
    struct record *name = put((struct record){.name = "a.test", .data = {"127.0.0.1"}});
    const struct server *s;
    uint64_t revision;

    (void) state;
    OK(engine_create_upstream(scene.engine, "foo", &scene.failure));
    OK(add("foo", "a.test:8080"));
    s = server("foo", "a.test:8080");
    AWAIT_PEERS(s, "127.0.0.1:8080*1");
    revision = upstream("foo")->revision;
    for (size_t i = 0; i < 3; i++) {
        unsigned before = name->n_queries[0];

        name->rcode = rcodes[i];
        name->data[0] = NULL;
        AWAIT(name->n_queries[0] > before + 4);
    }
    assert_string_equal(peers_of(s), "127.0.0.1:8080*1");
    assert_int_equal(upstream("foo")->revision, revision);
}

static void srv_records_give_weight_tier_and_port(void **state)
{
    struct record *srv =
        put((struct record){.name = "_http._tcp.test",
                            .data = {"10 5 8001 a.test", "10 0 8002 b.test", "20 2 8003 b.test"}});
    const struct server *s;
    uint32_t ids[3];

    (void) state;
    put((struct record){.name = "a.test", .data = {"127.0.0.1"}});
    put((struct record){.name = "b.test", .data = {"127.0.0.2"}});
    OK(engine_create_upstream(scene.engine, "foo", &scene.failure));
    OK(add("foo", "test service=http weight=3"));
    s = server("foo", "_http._tcp.test");
    AWAIT_PEERS(s, "127.0.0.1:8001*15 127.0.0.2:8002*3 127.0.0.2:8003*6!");
    for (size_t i = 0; i < 3; i++)
        ids[i] = s->peers[i]->id;

    /* A weight that changes is a change of that peer only. */
    srv->data[0] = "10 6 8001 a.test";
    AWAIT_PEERS(s, "127.0.0.1:8001*18 127.0.0.2:8002*3 127.0.0.2:8003*6!");
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(s->peers[i]->id, ids[i]);

    /* So is a priority, whose peer becomes another one. */
    srv->data[1] = "30 1 8002 b.test";
    AWAIT_PEERS(s, "127.0.0.1:8001*18 127.0.0.2:8003*6! 127.0.0.2:8002*3!");
    assert_int_equal(s->peers[0]->id, ids[0]);
    assert_int_equal(s->peers[1]->id, ids[2]);
    assert_int_not_equal(s->peers[2]->id, ids[1]);

    /* The operator's weight is that of all of them. */
    OK(change("foo", "_http._tcp.test", weight(1)));
    assert_string_equal(peers_of(s), "127.0.0.1:8001*6 127.0.0.2:8003*2! 127.0.0.2:8002*1!");
}

static void backup_server_has_the_primary_records_only(void **state)
{
    const struct server *s;

    (void) state;
    put((struct record){.name = "_http._tcp.test",
                        .data = {"10 5 8001 a.test", "20 1 8002 a.test"}});
    put((struct record){.name = "a.test", .data = {"127.0.0.1"}});
    OK(engine_create_upstream(scene.engine, "foo", &scene.failure));
    OK(add("foo", "test service=http backup"));
    s = server("foo", "_http._tcp.test");
    AWAIT_PEERS(s, "127.0.0.1:8001*5!");
}

static void same_service_again_is_there_already(void **state)
{
    (void) state;
    OK(engine_create_upstream(scene.engine, "foo", &scene.failure));
    OK(add("foo", "test service=http"));
    OK(add("foo", "test service=_http._tcp"));
    OK(add("foo", "test:80"));
    assert_int_equal(n_servers("foo"), 2);
    assert_refused(add("foo", "test service=http weight=2"), 409, "EntryExists");
}

static void service_and_its_last_answer_outlive_a_restart(void **state)
{
    const struct server *s;
    uint32_t id;

    (void) state;
    put((struct record){.name = "_http._tcp.test",
                        .data = {"10 5 8001 a.test", "20 2 8002 a.test"}});
    put((struct record){.name = "a.test", .data = {"127.0.0.1"}});
    OK(engine_create_upstream(scene.engine, "foo", &scene.failure));
    OK(add("foo", "test service=http weight=2"));
    s = server("foo", "_http._tcp.test");
    AWAIT_PEERS(s, "127.0.0.1:8001*10 127.0.0.1:8002*4!");
    id = s->peers[0]->id;
    OK(engine_save(scene.engine));

    /* Nobody answers any more. */
    dns.silent = true;
    uv_close((uv_handle_t *) &dns.udp, NULL);
    restart_engine();
    engine_start(scene.engine);
    name_server_open(&scene.loop, &dns);
    s = server("foo", "_http._tcp.test");
    assert_non_null(s);
    assert_string_equal(s->service, "http");
    assert_string_equal(s->host, "test");
    assert_true(s->looked_up);
    assert_string_equal(peers_of(s), "127.0.0.1:8001*10 127.0.0.1:8002*4!");
    assert_int_equal(s->peers[0]->id, id);
    assert_int_equal(s->base.weight, 2);

    dns.silent = false;
    use_names();
    find_record("_http._tcp.test")->data[1] = NULL;
    AWAIT_PEERS(s, "127.0.0.1:8001*10");
}

/* The name server is off the loop while that changes. */
static void restart_names(void)
{
    uv_close((uv_handle_t *) &dns.udp, NULL);
    restart_engine();
    name_server_open(&scene.loop, &dns);
    use_names();
}

static void family_that_fails_since_a_restart_keeps_its_addresses(void **state)
{
    struct record *name = put((struct record){.name = "a.test", .data = {"127.0.0.1", "::1"}});
    const struct server *s;

    (void) state;
    OK(engine_create_upstream(scene.engine, "foo", &scene.failure));
    OK(add("foo", "a.test:8080"));
    AWAIT_PEERS(server("foo", "a.test:8080"), "127.0.0.1:8080*1 [::1]:8080*1");
    name->rcode_v6 = RCODE_FAILED;
    name->data[0] = "127.0.0.2";
    restart_names();
    s = server("foo", "a.test:8080");
    AWAIT_PEERS(s, "127.0.0.2:8080*1 [::1]:8080*1");
    /* None of that family, at last. */
    name->rcode_v6 = RCODE_OK;
    name->data[1] = NULL;
    AWAIT_PEERS(s, "127.0.0.2:8080*1");
}

static void target_that_fails_since_a_restart_keeps_its_addresses(void **state)
{
    struct record *a = put((struct record){.name = "a.test", .data = {"127.0.0.1"}});
    struct record *b = put((struct record){.name = "b.test", .data = {"127.0.0.2"}});
    const struct server *s;

    (void) state;
    put((struct record){.name = "_http._tcp.test",
                        .data = {"10 5 8001 a.test", "20 7 8002 b.test"}});
    OK(engine_create_upstream(scene.engine, "foo", &scene.failure));
    OK(add("foo", "test service=http"));
    AWAIT_PEERS(server("foo", "_http._tcp.test"), "127.0.0.1:8001*5 127.0.0.2:8002*7!");
    b->rcode = RCODE_FAILED;
    restart_names();
    s = server("foo", "_http._tcp.test");
    AWAIT(b->n_queries[0] > 5 && s->peers[0]->answered);
    assert_string_equal(peers_of(s), "127.0.0.1:8001*5 127.0.0.2:8002*7!");
    /* What a target that answers has no more goes, whatever the other one does. */
    a->data[0] = "127.0.0.3";
    AWAIT_PEERS(s, "127.0.0.3:8001*5 127.0.0.2:8002*7!");
    a->data[0] = "127.0.0.4";
    AWAIT_PEERS(s, "127.0.0.4:8001*5 127.0.0.2:8002*7!");
    b->rcode = RCODE_OK;
    b->data[0] = "127.0.0.5";
    AWAIT_PEERS(s, "127.0.0.4:8001*5 127.0.0.5:8002*7!");
}

static void weights_of_srv_records_outlive_the_state_file(void **state)
{
    const struct server *s;

    (void) state;
    put((struct record){.name = "_http._tcp.test",
                        .data = {"10 5 8001 a.test", "10 1 8002 a.test"}});
    put((struct record){.name = "a.test", .data = {"127.0.0.1"}});
    OK(engine_create_upstream(scene.engine, "foo", &scene.failure));
    OK(add("foo", "test service=http"));
    AWAIT_PEERS(server("foo", "_http._tcp.test"), "127.0.0.1:8001*5 127.0.0.1:8002*1");
    uv_close((uv_handle_t *) &dns.udp, NULL);
    stop_engine();
    assert_int_equal(unlink(scene.state_file), 0);
    start_engine();
    name_server_open(&scene.loop, &dns);
    s = server("foo", "_http._tcp.test");
    assert_string_equal(peers_of(s), "127.0.0.1:8001*5 127.0.0.1:8002*1");
    use_names();
    find_record("_http._tcp.test")->data[1] = "10 2 8002 a.test";
    AWAIT_PEERS(s, "127.0.0.1:8001*5 127.0.0.1:8002*2");
}

static void addresses_that_do_not_fit_are_taken_once_they_do(void **state)
{
    struct record *name = put((struct record){.name = "a.test", .data = {"127.0.0.1"}});
    struct server *s, *other;
    uint64_t before;

    (void) state;
    OK(engine_create_upstream(scene.engine, "foo", &scene.failure));
    OK(add("foo", "a.test:8080"));
    s = server("foo", "a.test:8080");
    AWAIT_PEERS(s, "127.0.0.1:8080*1");
    /* The rest of the maps' 64 peers, and one too many. */
    for (int i = 0; i < 62; i++) {
        char line[32];

        snprintf(line, sizeof(line), "10.0.0.%d:80", i + 1);
        OK(add("foo", line));
    }
    for (size_t i = 0; i < 4; i++) {
        static const char *const more[] = {"127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"};

        name->data[i] = more[i];
    }
    AWAIT(s->lookup_refused);
    assert_string_equal(peers_of(s), "127.0.0.1:8080*1");
    before = name->n_queries[0];
    AWAIT(name->n_queries[0] > before + 2); /* tried again and again, without harm */
    name->data[2] = name->data[3] = NULL;
    AWAIT_PEERS(s, "127.0.0.1:8080*1 127.0.0.2:8080*1");
    assert_false(s->lookup_refused);
    other = server("foo", "10.0.0.62:80");
    assert_int_equal(published(other->peers[0]).state, DURPINA_PEER_UP);
}

static void call_has_a_name_looked_up_now(void **state)
{
    struct resolve_policy slow = resolve_policy_default;
    struct record *name =
        put((struct record){.name = "a.test", .ttl_s = 3600, .data = {"127.0.0.1"}});
    const struct server *s, *again;
    struct lookup_state known;

    (void) state;
    slow.min_ttl_ms = 10;
    slow.max_ttl_ms = 3600000;
    resolver_set_policy(scene.resolver, &slow);
    OK(engine_create_upstream(scene.engine, "foo", &scene.failure));
    OK(add("foo", "a.test:8080"));
    OK(add("foo", "127.0.0.5:8080"));
    s = server("foo", "a.test:8080");
    AWAIT_PEERS(s, "127.0.0.1:8080*1");
    OK(engine_lookup_state(s, &known));
    assert_int_equal(known.ttl_ms, 3600000);
    assert_int_equal(engine_lookup_state(server("foo", "127.0.0.5:8080"), &known), -ENOENT);
    name->data[0] = "127.0.0.2";
    OK(engine_resolve_server(scene.engine, "foo", s->id, &again, &scene.failure));
    assert_ptr_equal(again, s);
    AWAIT_PEERS(s, "127.0.0.2:8080*1");
    OK(engine_resolve_server(scene.engine, "foo", server("foo", "127.0.0.5:8080")->id, &again,
                             &scene.failure));
}

#define NAMES_TEST(name) cmocka_unit_test_setup_teardown(name, set_up_names, tear_down_names)

int main(void)
{
    const struct CMUnitTest tests[] = {
        NAMES_TEST(name_is_followed_and_who_stays_keeps_its_counters),
        NAMES_TEST(name_of_an_nginx_keeps_what_that_found_until_there_is_an_answer),
        NAMES_TEST(name_that_is_gone_leaves_a_server_that_is_asked_on),
        NAMES_TEST(failures_change_nothing),
        NAMES_TEST(srv_records_give_weight_tier_and_port),
        NAMES_TEST(backup_server_has_the_primary_records_only),
        NAMES_TEST(same_service_again_is_there_already),
        NAMES_TEST(service_and_its_last_answer_outlive_a_restart),
        NAMES_TEST(family_that_fails_since_a_restart_keeps_its_addresses),
        NAMES_TEST(target_that_fails_since_a_restart_keeps_its_addresses),
        NAMES_TEST(weights_of_srv_records_outlive_the_state_file),
        NAMES_TEST(addresses_that_do_not_fit_are_taken_once_they_do),
        NAMES_TEST(call_has_a_name_looked_up_now),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
