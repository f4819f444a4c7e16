/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "model_json.h"
#include "model_text.h"

#include <cmocka.h> /* last: its macro fail() hides the function of failure.h */

static struct server *add_server(struct upstream *upstream, const char *line)
{
    struct server_spec spec;
    struct failure failure;
    struct server *server;

    assert_int_equal(server_line_parse(line, 80, &spec, &failure), 0);
    server = model_new_server(upstream, &spec);
    assert_non_null(server);
    server->peers = calloc(1, sizeof(*server->peers));
    assert_non_null(server->peers);
    server->peers[0] = model_new_peer(server, NULL);
    assert_non_null(server->peers[0]);
    server->n_peers = 1;
    return server;
}

static void servers_keep_the_order_of_their_ids(void **state)
{
    struct model model = {0};
    struct upstream *upstream = model_add_upstream(&model, "foo");
    struct server *a = add_server(upstream, "a"), *b = add_server(upstream, "b"),
                  *c = add_server(upstream, "c");

    (void) state;
    model_link_server(a);
    model_link_server(c);
    model_link_server(b);
    assert_ptr_equal(upstream->servers, a);
    assert_ptr_equal(a->hh.next, b);
    assert_ptr_equal(b->hh.next, c);
    model_unlink_server(a);
    model_link_server(a);
    assert_ptr_equal(upstream->servers, a);
    assert_ptr_equal(model_server(upstream, "b:80"), b);
    assert_ptr_equal(model_server_by_id(upstream, c->id), c);
    assert_ptr_equal(model_server_by_id(upstream, c->peers[0]->api_id), c);
    assert_null(model_server_by_id(upstream, 1000));
    model_clear(&model);
}

static void address_has_the_id_of_its_server_and_a_name_one_more(void **state)
{
    struct model model = {0};
    struct upstream *upstream = model_add_upstream(&model, "foo");
    struct server *literal = add_server(upstream, "10.0.0.1"),
                  *name = add_server(upstream, "localhost"),
                  *socket = add_server(upstream, "unix:/a");

    (void) state;
    assert_true(literal->is_address && socket->is_address && !name->is_address);
    assert_int_equal(literal->peers[0]->api_id, literal->id);
    assert_int_equal(socket->peers[0]->api_id, socket->id);
    assert_true(name->peers[0]->api_id != name->id);
    model_free_server(literal);
    model_free_server(name);
    model_free_server(socket);
    model_clear(&model);
}

static void server_is_found_by_its_id_and_by_those_of_its_addresses(void **state)
{
    struct model model = {0};
    struct upstream *upstream = model_add_upstream(&model, "foo");
    struct server *literal = add_server(upstream, "10.0.0.1"), *name = add_server(upstream, "a.b");
    uint32_t child;

    (void) state;
    assert_null(model_server_by_id(upstream, literal->id)); /* not linked */
    model_link_server(literal);
    model_link_server(name);
    child = name->peers[0]->api_id;
    assert_ptr_equal(model_server_by_id(upstream, literal->id), literal);
    assert_ptr_equal(model_server_by_id(upstream, name->id), name);
    assert_ptr_equal(model_server_by_id(upstream, child), name);
    assert_null(model_server_by_id(upstream, child + 1));
    model_set_api_id(name->peers[0], child + 1);
    assert_null(model_server_by_id(upstream, child));
    assert_ptr_equal(model_server_by_id(upstream, child + 1), name);
    model_unlink_server(name);
    model_free_server(name);
    assert_null(model_server_by_id(upstream, child + 1));
    model_clear(&model);
}

static const char state_text[] =
    "{'version': 1, 'next_epoch': 3, 'resolver': ['127.0.0.1'], 'upstreams': [{"
    "'name': 'foo', 'revision': 9, 'next_server_id': 5, 'created': true, 'monitoring': true, "
    "'asked': 2,"
    "'servers': [{'id': 2, 'name': 'localhost:80', 'backup': true, 'dynamic': true,"
    "'instances': 1, 'base': {'weight': 5, 'max_conns': 1, 'max_fails': 2, 'fail_timeout_ms': 3,"
    "'slow_start_ms': 4, 'admin': 1}, 'now': {'weight': 7, 'max_conns': 1, 'max_fails': 2,"
    "'fail_timeout_ms': 3, 'slow_start_ms': 4, 'admin': 0}, 'changed': 33,"
    "'addresses': [{'address': '127.0.0.1:80', 'id': 3, 'monitors': {'a': {'verdict': 2, 'said': 7,"
    "'admin': 1, 'percent': true, 'weight': 75, 'maxconn': 9}, 'p': {'verdict': 1, 'said': 0,"
    "'admin': 0, 'percent': false, 'weight': 0, 'maxconn': 0}}}, {'address': '[::1]:80', 'id': 4}],"
    "'portless': true}],"
    "'monitors': [{'id': 'm', 'name': 'tcp', 'lua': false, 'options': {'interval': 1}},"
    "{'id': 'a', 'name': 'haproxy-agent-check', 'lua': false, 'options': {}},"
    "{'id': 'p', 'name': 'tcp', 'lua': false, 'options': {'mandatory': true, 'persistent': "
    "true}}]}],"
    "'instances': [{'name': '/run/nginx.pid', 'pid': 7, 'worker_uid': 33, 'epoch': 3,"
    "'token': '0123456789abcdef0123456789abcdef', 'upstreams': {'foo': {}},"
    "'algorithms': {'foo': {'algorithm': 'consistent-hash', 'ketama': true}}}],"
    "'vips': [{'address': '127.10.0.1:53/udp', 'upstream': 'foo', 'algorithm': 'ip-hash'}]}";

static json_t *load(const char *text)
{
    char *copy = strdup(text);
    json_t *json;

    assert_non_null(copy);
    for (char *c = copy; *c != '\0'; c++)
        *c = *c == '\'' ? '"' : *c;
    json = json_loads(copy, 0, NULL);
    free(copy);
    return json;
}

/* What a save writes. */
static json_t *saved(struct model *model)
{
    struct snapshot *snapshot;
    json_t *json;
    size_t len;
    char *text;

    assert_int_equal(snapshot_create(model, &snapshot), 0);
    text = snapshot_join(snapshot, &len);
    assert_non_null(text);
    json = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(json);
    free(text);
    snapshot_free(snapshot);
    return json;
}

static void model_survives_as_json(void **state)
{
    json_t *json = load(state_text), *again;
    struct model model = {0};
    struct failure failure;
    const struct server *server;

    (void) state;
    assert_non_null(json);
    assert_int_equal(model_from_json(json, &model, &failure), 0);
    server = model_server(model_upstream(&model, "foo"), "localhost:80");
    assert_int_equal(server->n_peers, 2);
    assert_int_equal(server->peers[1]->id, DURPINA_NONE);
    assert_true(server->peers[0]->agent.down);
    assert_int_equal(server->peers[0]->agent.admin, AGENT_DRAIN);
    assert_int_equal(model_peer_weight(server->peers[0]), 75 * 5 / 100);
    assert_int_equal(model_peer_max_conns(server->peers[0]), 9);
    assert_false(server->peers[0]->checking);
    assert_true(server->peers[1]->checking);
    assert_int_equal(HASH_COUNT(model.vips), 1);
    assert_int_equal(model.vips->algorithm, DURPINA_HASH);
    again = saved(&model);
    assert_true(json_equal(json, again));
    json_decref(json);
    json_decref(again);
    model_clear(&model);
}

static void what_the_configuration_has_is_not_saved(void **state)
{
    struct vip_spec spec = {.upstream = "foo"};
    struct model model = {0};
    struct failure failure;
    struct vip *vip;
    json_t *json;

    (void) state;
    assert_int_equal(vip_address_parse("127.10.0.1:80", &spec.address, &failure), 0);
    vip = model_new_vip(&spec);
    model_link_vip(&model, vip);
    vip->configured = true;
    json = saved(&model);
    assert_int_equal(json_array_size(json_object_get(json, "vips")), 0);
    json_decref(json);
    model_clear(&model);
}

static void state_from_before_there_were_vips_is_good(void **state)
{
    json_t *json = load(state_text);
    struct model model = {0};
    struct failure failure;

    (void) state;
    json_object_del(json, "vips");
    assert_int_equal(model_from_json(json, &model, &failure), 0);
    assert_null(model.vips);
    model_clear(&model);
    json_decref(json);
}

static void snapshot_shows_what_was_when_it_was_taken(void **state)
{
    struct model model = {0};
    struct upstream *upstream = model_add_upstream(&model, "foo");
    struct server *first = add_server(upstream, "10.0.0.1"), *last = add_server(upstream, "a.b");
    struct snapshot *before, *after;
    char *text;
    size_t len;

    (void) state;
    model_link_server(first);
    model_link_server(last);
    assert_int_equal(snapshot_create(&model, &before), 0);
    first->now.weight = 77;
    model_text_renew(first);
    model_unlink_server(last);
    model_free_server(last);
    assert_int_equal(snapshot_create(&model, &after), 0);
    text = snapshot_join(before, &len);
    assert_int_equal(strlen(text), len);
    assert_null(strstr(text, "77"));
    assert_non_null(strstr(text, "a.b"));
    free(text);
    snapshot_free(before);
    model_clear(&model); /* what a snapshot shows may be gone */
    text = snapshot_join(after, &len);
    assert_non_null(strstr(text, "77"));
    assert_null(strstr(text, "a.b"));
    free(text);
    snapshot_free(after);
}

/* Each value of the file in turn becomes something else: an error or another model, no crash. */
static unsigned spoil(json_t *root, json_t *at)
{
    static const char *const others[] = {"null", "-1", "99999999999999", "''", "'x y'", "[]", "{}"};
    unsigned refused = 0;
    const char *key;
    json_t *value;
    void *next;

    json_object_foreach_safe(at, next, key, value)
    {
        json_incref(value);
        for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
            char wrapped[64] = "[";
            struct model model = {0};
            struct failure failure;
            json_t *array;

            strcat(strcat(wrapped, others[i]), "]");
            array = load(wrapped);
            json_object_set(at, key, json_array_get(array, 0));
            if (model_from_json(root, &model, &failure) < 0) {
                refused++;
                assert_true(model.upstreams == NULL && model.instances == NULL &&
                            model.vips == NULL);
            }
            model_clear(&model);
            json_decref(array);
        }
        json_object_set_new(at, key, value);
        refused += spoil(root, value);
        for (size_t i = 0; i < json_array_size(value); i++)
            refused += spoil(root, json_array_get(value, i));
    }
    return refused;
}

static void damaged_json_is_refused_and_leaves_nothing(void **state)
{
    json_t *json = load(state_text);
    struct model model = {0};
    struct failure failure;

    (void) state;
    assert_true(spoil(json, json) > 100);
    assert_int_equal(model_from_json(json, &model, &failure), 0); /* spoil() has mended it */
    model_clear(&model);
    json_object_set_new(json, "version", json_integer(2));
    assert_int_equal(model_from_json(json, &model, &failure), -EINVAL);
    assert_null(model.upstreams);
    json_decref(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(servers_keep_the_order_of_their_ids),
        cmocka_unit_test(address_has_the_id_of_its_server_and_a_name_one_more),
        cmocka_unit_test(server_is_found_by_its_id_and_by_those_of_its_addresses),
        cmocka_unit_test(model_survives_as_json),
        cmocka_unit_test(what_the_configuration_has_is_not_saved),
        cmocka_unit_test(state_from_before_there_were_vips_is_good),
        cmocka_unit_test(snapshot_shows_what_was_when_it_was_taken),
        cmocka_unit_test(damaged_json_is_refused_and_leaves_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
