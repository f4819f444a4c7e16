/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api_json.h"

#include <cmocka.h> /* last: its macro fail() hides the function of failure.h */

#define N_PEERS 4
#define ADDRESS_GENERATION 11
#define CHILD_GENERATION 12

static struct model model;
static struct upstream *upstream;
static struct server *address, *name;
static struct durpina_counters counters[N_PEERS];
static struct durpina_maps maps = {.counters = counters, .n_peers = N_PEERS};
static const struct api_clock now = {.wall_ms = 1700000000123, .monotonic_ms = 50000};

static struct server *add_server(const char *line)
{
    struct failure failure;
    struct server_spec spec;
    struct server *server;

    assert_int_equal(server_line_parse(line, 80, &spec, &failure), 0);
    server = model_new_server(upstream, &spec);
    assert_non_null(server);
    server->dynamic = true;
    model_link_server(server);
    return server;
}

static void add_peer(struct server *server, const char *text, uint32_t id, uint32_t generation,
                     uint32_t api_id)
{
    struct addr addr;
    struct peer *peer;

    if (text != NULL)
        assert_int_equal(addr_parse(text, 0, &addr), 0);
    peer = model_new_peer(server, text != NULL ? &addr : NULL);
    assert_non_null(peer);
    peer->id = id;
    peer->generation = generation;
    peer->api_id = api_id;
    server->peers = realloc(server->peers, (server->n_peers + 1) * sizeof(*server->peers));
    server->peers[server->n_peers++] = peer;
}

/* One server that is an address, one name with one address, whose counters are in 1 and 2. */
static int make_model(void **state)
{
    (void) state;
    memset(counters, 0, sizeof(counters));
    counters[1].generation = ADDRESS_GENERATION;
    counters[2].generation = CHILD_GENERATION;
    upstream = model_add_upstream(&model, "foo");
    if (upstream == NULL)
        return -1;
    address = add_server("127.0.0.1:80 weight=5 max_conns=7 fail_timeout=1500ms");
    add_peer(address, "127.0.0.1:80", 1, ADDRESS_GENERATION, address->id);
    name = add_server("host.example:81 backup");
    add_peer(name, "[::1]:81", 2, CHILD_GENERATION, 9);
    return 0;
}

static int free_model(void **state)
{
    (void) state;
    model_clear(&model);
    return 0;
}

static void assert_json(json_t *value, const char *wanted)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);

    assert_non_null(text);
    assert_string_equal(text, wanted);
    free(text);
    json_decref(value);
}

/* One member of an object, which is released. */
static void assert_member(json_t *object, const char *key, const char *wanted)
{
    json_t *value = json_incref(json_object_get(object, key));

    assert_non_null(object);
    json_decref(object);
    if (wanted == NULL)
        assert_null(value);
    else
        assert_json(value, wanted);
}

static void a_server_object_has_the_fields_of_nginx_plus_first(void **state)
{
    (void) state;
    assert_json(
        api_server_json(address, &maps, &now),
        "{\"id\":0,\"server\":\"127.0.0.1:80\",\"weight\":5,\"max_conns\":7,\"max_fails\":1,"
        "\"fail_timeout\":\"1500ms\",\"slow_start\":\"0s\",\"route\":\"\",\"backup\":false,"
        "\"down\":false,\"drain\":false,\"initial_weight\":5,\"operator\":\"up\",\"state\":\"up\","
        "\"origin\":\"dynamic\"}");
}

static void a_name_is_followed_by_its_addresses(void **state)
{
    json_t *servers = api_servers_json(upstream, &maps, &now);

    (void) state;
    assert_int_equal(json_array_size(servers), 3);
    assert_string_equal(json_string_value(json_object_get(json_array_get(servers, 1), "server")),
                        "host.example:81");
    assert_json(
        json_incref(json_array_get(servers, 2)),
        "{\"id\":9,\"server\":\"[::1]:81\",\"weight\":1,\"max_conns\":0,\"max_fails\":1,"
        "\"fail_timeout\":\"10s\",\"slow_start\":\"0s\",\"route\":\"\",\"backup\":true,"
        "\"down\":false,\"drain\":false,\"parent\":1,\"host\":\"host.example\","
        "\"initial_weight\":1,\"operator\":\"up\",\"state\":\"up\",\"origin\":\"dynamic\"}");
    json_decref(servers);
}

static void a_placeholder_is_no_address(void **state)
{
    struct server *other = add_server("other.example:80");
    json_t *servers;

    (void) state;
    add_peer(other, NULL, DURPINA_NONE, 0, 10);
    servers = api_servers_json(upstream, &maps, &now);
    assert_int_equal(json_array_size(servers), 4);
    json_decref(servers);
    assert_member(api_server_json(other, &maps, &now), "state", "\"unavail\"");
    assert_member(api_peer_json(other->peers[0], &maps, &now), "server", "\"?\"");
}

static void an_id_finds_a_server_or_its_address(void **state)
{
    (void) state;
    assert_member(api_server_by_id_json(name, name->id, &maps, &now), "server",
                  "\"host.example:81\"");
    assert_member(api_server_by_id_json(name, 9, &maps, &now), "server", "\"[::1]:81\"");
}

static void origin_tells_who_named_the_server(void **state)
{
    (void) state;
    address->n_instances = 2;
    assert_member(api_server_json(address, &maps, &now), "origin", "\"both\"");
    address->dynamic = false;
    assert_member(api_server_json(address, &maps, &now), "origin", "\"file\"");
}

static void passive_failure_shows_as_unavail_until_its_deadline(void **state)
{
    (void) state;
    counters[1].down_until_ms = now.monotonic_ms + 1;
    assert_member(api_peer_json(address->peers[0], &maps, &now), "state", "\"unavail\"");
    counters[1].down_until_ms = now.monotonic_ms;
    assert_member(api_peer_json(address->peers[0], &maps, &now), "state", "\"up\"");
}

static void the_operators_word_and_the_verdict_show(void **state)
{
    (void) state;
    address->now.admin = DURPINA_ADMIN_DOWN;
    assert_member(api_peer_json(address->peers[0], &maps, &now), "state", "\"down\"");
    address->now.admin = DURPINA_ADMIN_DRAIN;
    assert_member(api_peer_json(address->peers[0], &maps, &now), "state", "\"draining\"");
    address->now.admin = DURPINA_ADMIN_UP;
    address->peers[0]->health = DURPINA_HEALTH_FAILED;
    assert_member(api_peer_json(address->peers[0], &maps, &now), "state", "\"unhealthy\"");
}

static void maintenance_shows_as_down(void **state)
{
    (void) state;
    address->now.admin = DURPINA_ADMIN_MAINT;
    assert_member(api_peer_json(address->peers[0], &maps, &now), "state", "\"down\"");
    assert_member(api_server_json(address, &maps, &now), "down", "true");
    assert_member(api_server_json(address, &maps, &now), "operator", "\"maint\"");
}

static void a_peer_shows_what_is_in_force_and_its_server_what_is_set(void **state)
{
    struct peer *peer = address->peers[0];

    (void) state;
    peer->agent = (struct agent_word){.said = AGENT_WEIGHT | AGENT_MAXCONN,
                                      .is_percent = true,
                                      .weight = 60,
                                      .maxconn = 2};
    peer->backup = true;
    assert_member(api_peer_json(peer, &maps, &now), "weight", "3");
    assert_member(api_peer_json(peer, &maps, &now), "max_conns", "2");
    assert_member(api_peer_json(peer, &maps, &now), "backup", "true");
    assert_member(api_server_json(address, &maps, &now), "weight", "5");
    assert_member(api_server_json(address, &maps, &now), "max_conns", "7");
    assert_member(api_server_json(address, &maps, &now), "backup", "false");
}

static void a_server_is_as_good_as_its_best_address(void **state)
{
    (void) state;
    add_peer(name, "127.0.0.1:81", 3, 0, 10);
    counters[2].down_until_ms = now.monotonic_ms + 1;
    assert_member(api_server_json(name, &maps, &now), "state", "\"up\"");
    name->peers[1]->health = DURPINA_HEALTH_FAILED;
    assert_member(api_server_json(name, &maps, &now), "state", "\"unavail\"");
}

static void counters_of_a_former_owner_do_not_show(void **state)
{
    (void) state;
    counters[1].unanswered = 5;
    assert_member(api_peer_json(address->peers[0], &maps, &now), "requests", "5");
    counters[1].generation = ADDRESS_GENERATION - 1;
    assert_member(api_peer_json(address->peers[0], &maps, &now), "requests", "0");
    address->peers[0]->id = DURPINA_NONE;
    assert_member(api_peer_json(address->peers[0], &maps, &now), "requests", "0");
}

static void counters_and_times_are_told(void **state)
{
    (void) state;
    counters[1] =
        (struct durpina_counters){.generation = ADDRESS_GENERATION,
                                  .active = 2,
                                  .selected_ms = now.monotonic_ms - 1000,
                                  .failed = 3,
                                  .unavail = 1,
                                  .responses = {0, 6, 1, 0, 1},
                                  .unanswered = 2,
                                  .sent = 100,
                                  .received = 200,
                                  .header = {.mean = 5400 * DURPINA_EWMA_US, .samples = 1},
                                  .last_byte = {.mean = 10500 * DURPINA_EWMA_US, .samples = 1},
                                  .connect = {.samples = 1}};
    address->peers[0]->down_since_ms = now.monotonic_ms - 500;
    address->peers[0]->downtime_ms = 2000;
    assert_json(api_peer_json(address->peers[0], &maps, &now),
                "{\"id\":0,\"server\":\"127.0.0.1:80\",\"name\":\"127.0.0.1:80\",\"backup\":false,"
                "\"weight\":5,\"state\":\"up\",\"active\":2,\"max_conns\":7,\"requests\":12,"
                "\"responses\":{\"1xx\":0,\"2xx\":6,\"3xx\":1,\"4xx\":0,\"5xx\":1,\"codes\":{},"
                "\"total\":8},\"sent\":100,\"received\":200,\"fails\":3,\"unavail\":1,"
                "\"health_checks\":{\"checks\":0,\"fails\":0,\"unhealthy\":0},\"downtime\":2500,"
                "\"downstart\":\"2023-11-14T22:13:19.623Z\","
                "\"selected\":\"2023-11-14T22:13:19.123Z\",\"header_time\":5,\"response_time\":11,"
                "\"connect_time\":0}");
}

static void times_that_do_not_apply_are_left_out(void **state)
{
    (void) state;
    assert_member(api_peer_json(address->peers[0], &maps, &now), "selected", NULL);
    assert_member(api_peer_json(address->peers[0], &maps, &now), "downstart", NULL);
    assert_member(api_peer_json(address->peers[0], &maps, &now), "header_time", NULL);
    assert_member(api_peer_json(address->peers[0], &maps, &now), "connect_time", NULL);
}

static void a_time_is_iso_8601_with_milliseconds(void **state)
{
    char text[32];

    (void) state;
    api_format_time(0, text, sizeof(text));
    assert_string_equal(text, "1970-01-01T00:00:00.000Z");
    api_format_time(1700000000007, text, sizeof(text));
    assert_string_equal(text, "2023-11-14T22:13:20.007Z");
}

#define WITH_MODEL(test) cmocka_unit_test_setup_teardown(test, make_model, free_model)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_MODEL(a_server_object_has_the_fields_of_nginx_plus_first),
        WITH_MODEL(a_name_is_followed_by_its_addresses),
        WITH_MODEL(a_placeholder_is_no_address),
        WITH_MODEL(an_id_finds_a_server_or_its_address),
        WITH_MODEL(origin_tells_who_named_the_server),
        WITH_MODEL(passive_failure_shows_as_unavail_until_its_deadline),
        WITH_MODEL(the_operators_word_and_the_verdict_show),
        WITH_MODEL(maintenance_shows_as_down),
        WITH_MODEL(a_peer_shows_what_is_in_force_and_its_server_what_is_set),
        WITH_MODEL(a_server_is_as_good_as_its_best_address),
        WITH_MODEL(counters_of_a_former_owner_do_not_show),
        WITH_MODEL(counters_and_times_are_told),
        WITH_MODEL(times_that_do_not_apply_are_left_out),
        cmocka_unit_test(a_time_is_iso_8601_with_milliseconds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
