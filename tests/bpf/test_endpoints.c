/* SPDX-License-Identifier: MIT */
/* controller/endpoints.c on real maps: who has which address, and whose counts are whose. */
#include "publish_scene.h"

#include <bpf/bpf.h>

#include "durpina_address.h"
#include "endpoints.h"

#define GONE_MS (ENDPOINTS_GRACE_MS + ENDPOINTS_REST_MS)

static int ids_fd(void)
{
    return bpf_state_fd(&maps, BPF_STATE_ENDPOINT_IDS);
}

/* What endpoint_ids says of "127.0.0.1:PORT"; DURPINA_NONE: nothing. */
static uint32_t id_in_map(uint16_t port)
{
    struct durpina_address address;
    uint32_t id;

    durpina_address_inet(&address, htonl(INADDR_LOOPBACK), htons(port), IPPROTO_TCP);
    return bpf_map_lookup_elem(ids_fd(), &address, &id) == 0 ? id : DURPINA_NONE;
}

static uint32_t count_ids(void)
{
    struct durpina_address at, next;
    uint32_t n = 0;

    for (const void *from = NULL; bpf_map_get_next_key(ids_fd(), from, &next) == 0; from = &at) {
        at = next;
        n++;
    }
    return n;
}

static const struct durpina_peer *record_of(const struct server *server)
{
    return &maps.peers[server->peers[0]->id];
}

static struct durpina_endpoint *endpoint_of(const struct server *server)
{
    uint32_t id = record_of(server)->endpoint;

    assert_true(id < maps.n_endpoints);
    return &maps.endpoints[id];
}

static void leave(struct upstream *upstream, struct server *server, uint64_t now_ms)
{
    remove_server(server);
    put_in_force(upstream, now_ms);
}

/* The controller is gone, and the next one takes the maps. */
static void take_over(uint64_t now_ms)
{
    publish_destroy(publish);
    assert_int_equal(publish_create(&maps, now_ms, &publish), 0);
}

static uint32_t peers_of(uint32_t endpoint)
{
    const struct endpoints *endpoints = publish_endpoints(publish);
    uint32_t n = 0;

    for (uint32_t p = endpoints_first_peer(endpoints, endpoint); p != DURPINA_NONE;
         p = endpoints_next_peer(endpoints, p))
        n++;
    return n;
}

static void peers_of_one_address_share_an_endpoint(void **state)
{
    struct upstream *foo, *bar;
    struct server *a, *b, *c;

    (void) state;
    open_maps(4, 16, 1024);
    foo = model_add_upstream(&model, "foo");
    bar = model_add_upstream(&model, "bar");
    a = add_server(foo, "127.0.0.1:8001");
    b = add_server(bar, "127.0.0.1:8001");
    c = add_server(bar, "127.0.0.1:8002");
    put_in_force(foo, T0);
    put_in_force(bar, T0);
    assert_ptr_equal(endpoint_of(a), endpoint_of(b));
    assert_ptr_not_equal(endpoint_of(a), endpoint_of(c));
    assert_int_equal(endpoint_of(a)->peers, 2);
    assert_int_equal(peers_of(record_of(a)->endpoint), 2);
    assert_string_equal(endpoint_of(a)->address, "127.0.0.1:8001");
    assert_int_equal(id_in_map(8001), record_of(a)->endpoint);
    assert_int_equal(id_in_map(8002), record_of(c)->endpoint);

    leave(foo, a, T0);
    assert_int_equal(endpoint_of(b)->peers, 1);
    assert_int_equal(peers_of(record_of(b)->endpoint), 1);
}

static void mapped_addresses_are_ipv4_ones(void **state)
{
    struct upstream *foo;
    struct server *a, *b, *six;

    (void) state;
    open_maps(4, 16, 1024);
    foo = model_add_upstream(&model, "foo");
    a = add_server(foo, "127.0.0.1:8001");
    b = add_server(foo, "[::ffff:127.0.0.1]:8001");
    six = add_server(foo, "[::1]:8001");
    put_in_force(foo, T0);
    assert_ptr_equal(endpoint_of(a), endpoint_of(b));
    assert_ptr_not_equal(endpoint_of(a), endpoint_of(six));
    assert_string_equal(endpoint_of(six)->address, "[::1]:8001");
}

static void peers_without_a_tcp_address_have_none(void **state)
{
    struct upstream *foo;
    struct server *path, *name;

    (void) state;
    open_maps(4, 16, 1024);
    foo = model_add_upstream(&model, "foo");
    path = add_server(foo, "unix:/run/a.sock");
    name = add_server(foo, "not.looked.up:80");
    put_in_force(foo, T0);
    assert_int_equal(record_of(path)->endpoint, DURPINA_NONE);
    assert_int_equal(record_of(name)->endpoint, DURPINA_NONE);
    assert_int_equal(count_ids(), 0);
}

static void what_is_not_published_is_taken_back(void **state)
{
    struct publication *publication;
    struct failure failure;
    struct upstream *foo;
    struct server *a;

    (void) state;
    open_maps(4, 16, 1024);
    foo = model_add_upstream(&model, "foo");
    a = add_server(foo, "127.0.0.1:8001");
    assert_int_equal(publish_prepare(publish, foo, T0, &publication, &failure), 0);

    uint32_t id = record_of(a)->endpoint;

    assert_int_equal(maps.endpoints[id].peers, 1);
    publish_abort(publication);
    assert_int_equal(maps.endpoints[id].peers, 0);
    assert_int_equal(endpoints_first_peer(publish_endpoints(publish), id), DURPINA_NONE);
}

static void peer_that_comes_back_finds_its_counts(void **state)
{
    struct upstream *foo;
    struct server *a;

    (void) state;
    open_maps(4, 16, 1024);
    foo = model_add_upstream(&model, "foo");
    add_server(foo, "127.0.0.1:8009");
    a = add_server(foo, "127.0.0.1:8001");
    put_in_force(foo, T0);
    endpoint_of(a)->tried = 7;
    leave(foo, a, T0);
    endpoints_sweep(publish_endpoints(publish), T0 + ENDPOINTS_GRACE_MS - 1);
    a = add_server(foo, "127.0.0.1:8001");
    put_in_force(foo, T0 + ENDPOINTS_GRACE_MS);
    assert_int_equal(endpoint_of(a)->tried, 7);
    endpoints_sweep(publish_endpoints(publish), T0 + 10 * GONE_MS);
    assert_int_equal(id_in_map(8001), record_of(a)->endpoint);
}

static void unused_record_goes_after_its_grace(void **state)
{
    struct upstream *foo;
    struct server *a;
    uint32_t id, generation;

    (void) state;
    open_maps(4, 1, 1024); /* one endpoint */
    foo = model_add_upstream(&model, "foo");
    a = add_server(foo, "127.0.0.1:8001");
    put_in_force(foo, T0);
    id = record_of(a)->endpoint;
    generation = maps.endpoints[id].generation;
    maps.endpoints[id].tried = 7;
    leave(foo, a, T0);
    endpoints_sweep(publish_endpoints(publish), T0 + ENDPOINTS_GRACE_MS - 1);
    assert_int_equal(id_in_map(8001), id);
    endpoints_sweep(publish_endpoints(publish), T0 + ENDPOINTS_GRACE_MS);
    assert_int_equal(id_in_map(8001), DURPINA_NONE);
    assert_string_equal(maps.endpoints[id].address, "");

    a = add_server(foo, "127.0.0.1:8002");
    put_in_force(foo, T0 + PUBLISH_GRACE_MS);
    assert_int_equal(record_of(a)->endpoint, id);
    assert_int_equal(maps.endpoints[id].generation, generation + 1);
    assert_int_equal(maps.endpoints[id].tried, 0);
    assert_string_equal(maps.endpoints[id].address, "127.0.0.1:8002");
}

static void record_rests_before_it_gets_another_address(void **state)
{
    struct durpina_peer identity = {.family = DURPINA_FAMILY_INET};
    struct endpoints *endpoints;

    (void) state;
    open_maps(4, 1, 1024);
    endpoints = publish_endpoints(publish);
    assert_int_equal(endpoints_attach(endpoints, 0, &identity, T0), 0);
    endpoints_detach(endpoints, 0, T0);
    endpoints_sweep(endpoints, T0 + ENDPOINTS_GRACE_MS);
    identity.port_be = 1;
    assert_int_equal(endpoints_attach(endpoints, 0, &identity, T0 + GONE_MS - 1), DURPINA_NONE);
    assert_int_equal(endpoints_attach(endpoints, 0, &identity, T0 + GONE_MS), 0);
}

static void record_with_a_connection_stays(void **state)
{
    struct upstream *foo;
    struct server *a;
    uint32_t id;

    (void) state;
    open_maps(4, 16, 1024);
    foo = model_add_upstream(&model, "foo");
    a = add_server(foo, "127.0.0.1:8001");
    put_in_force(foo, T0);
    id = record_of(a)->endpoint;
    for (int connecting = 0; connecting <= 1; connecting++) {
        maps.endpoints[id].connecting = (uint32_t) connecting;
        maps.endpoints[id].open = !connecting;
        if (connecting == 0)
            leave(foo, a, T0);
        endpoints_sweep(publish_endpoints(publish), T0 + (connecting + 1) * GONE_MS);
        assert_int_equal(id_in_map(8001), id);
    }
    maps.endpoints[id].connecting = 0;
    endpoints_sweep(publish_endpoints(publish), T0 + 3 * GONE_MS);
    assert_int_equal(id_in_map(8001), DURPINA_NONE);
}

static void sweep_is_bounded(void **state)
{
    struct durpina_peer identity = {.family = DURPINA_FAMILY_INET};
    struct endpoints *endpoints;

    (void) state;
    open_maps(4, ENDPOINTS_SWEEP + 1, 1024);
    endpoints = publish_endpoints(publish);
    for (uint32_t i = 0; i <= ENDPOINTS_SWEEP; i++) {
        identity.port_be = (uint16_t) (i + 1);
        assert_int_not_equal(endpoints_attach(endpoints, i, &identity, T0), DURPINA_NONE);
        endpoints_detach(endpoints, i, T0);
    }
    endpoints_sweep(endpoints, T0 + GONE_MS);
    assert_int_equal(count_ids(), 1);
    endpoints_sweep(endpoints, T0 + GONE_MS);
    assert_int_equal(count_ids(), 0);
}

static void next_controller_finds_the_same_endpoints(void **state)
{
    struct upstream *foo, *bar;
    struct server *a, *b, *left;
    uint32_t id;

    (void) state;
    open_maps(4, 16, 1024);
    foo = model_add_upstream(&model, "foo");
    bar = model_add_upstream(&model, "bar");
    left = add_server(foo, "127.0.0.1:8003");
    a = add_server(foo, "127.0.0.1:8001");
    b = add_server(bar, "127.0.0.1:8001");
    put_in_force(foo, T0);
    put_in_force(bar, T0);
    id = record_of(a)->endpoint;
    maps.endpoints[id].tried = 7;
    leave(foo, left, T0);

    take_over(T0);
    assert_int_equal(record_of(a)->endpoint, id);
    assert_int_equal(record_of(b)->endpoint, id);
    assert_int_equal(maps.endpoints[id].peers, 2);
    assert_int_equal(peers_of(id), 2);
    assert_int_equal(maps.endpoints[id].tried, 7);
    assert_int_equal(count_ids(), 2);
    /* What the former one had not freed yet is freed by this one. */
    endpoints_sweep(publish_endpoints(publish), T0 + GONE_MS);
    assert_int_equal(count_ids(), 1);
}

/* Peers that it is told of first have new addresses as often as not. */
static void next_controller_has_free_records_at_once(void **state)
{
    struct upstream *foo;
    struct server *a;

    (void) state;
    open_maps(4, 16, 1024);
    foo = model_add_upstream(&model, "foo");
    a = add_server(foo, "127.0.0.1:8001");
    put_in_force(foo, T0);
    leave(foo, a, T0);
    endpoints_sweep(publish_endpoints(publish), T0 + ENDPOINTS_GRACE_MS);
    assert_int_equal(id_in_map(8001), DURPINA_NONE);

    take_over(T0 + ENDPOINTS_GRACE_MS + 1);
    foo = model_add_upstream(&model, "bar");
    a = add_server(foo, "127.0.0.1:8002");
    put_in_force(foo, T0 + ENDPOINTS_GRACE_MS + 1);
    assert_int_equal(id_in_map(8002), record_of(a)->endpoint);
    assert_string_equal(endpoint_of(a)->address, "127.0.0.1:8002");
}

static void next_controller_repairs_what_disagrees(void **state)
{
    struct durpina_address address;
    struct upstream *foo;
    struct server *a, *b;
    uint32_t wrong = 9, id_a, id_b;

    (void) state;
    open_maps(4, 16, 1024);
    foo = model_add_upstream(&model, "foo");
    a = add_server(foo, "127.0.0.1:8001");
    b = add_server(foo, "127.0.0.1:8002");
    put_in_force(foo, T0);
    id_a = record_of(a)->endpoint;
    id_b = record_of(b)->endpoint;

    durpina_address_inet(&address, htonl(INADDR_LOOPBACK), htons(8001), IPPROTO_TCP);
    assert_int_equal(bpf_map_update_elem(ids_fd(), &address, &wrong, BPF_ANY), 0);
    durpina_address_inet(&address, htonl(INADDR_LOOPBACK), htons(8002), IPPROTO_TCP);
    assert_int_equal(bpf_map_delete_elem(ids_fd(), &address), 0);
    durpina_address_inet(&address, htonl(INADDR_LOOPBACK), htons(8004), IPPROTO_TCP);
    assert_int_equal(bpf_map_update_elem(ids_fd(), &address, &id_a, BPF_ANY), 0);
    memset(maps.endpoints[12].address, 'x', sizeof(maps.endpoints[12].address)); /* no NUL */
    strcpy(maps.endpoints[13].address, "127.0.0.1:8001");                        /* twice */
    maps.peers[a->peers[0]->id].endpoint = 0xbad;

    take_over(T0);
    assert_int_equal(record_of(a)->endpoint, id_a);
    assert_int_equal(id_in_map(8001), id_a);
    assert_int_equal(id_in_map(8002), id_b);
    assert_int_equal(id_in_map(8004), DURPINA_NONE);
    assert_string_equal(maps.endpoints[12].address, "");
    assert_string_equal(maps.endpoints[13].address, "");
}

static void full_map_leaves_peers_uncounted(void **state)
{
    struct durpina_peer identity = {.family = DURPINA_FAMILY_INET};
    struct endpoints *endpoints;

    (void) state;
    open_maps(4, 2, 1024);
    endpoints = publish_endpoints(publish);
    for (uint16_t i = 0; i < 2; i++) {
        identity.port_be = i;
        assert_int_equal(endpoints_attach(endpoints, i, &identity, T0), i);
        endpoints_detach(endpoints, i, T0);
    }
    identity.port_be = 2;
    assert_int_equal(endpoints_attach(endpoints, 0, &identity, T0), DURPINA_NONE);
    endpoints_detach(endpoints, 0, T0);
}

/* Against a plain list, in a table that is always nearly full. */
static void thousand_random_changes_keep_the_index_right(void **state)
{
    enum { N = 64, PORTS = 200 };
    uint16_t port_of[N] = {0}; /* of each peer; 0: none */
    struct endpoints *endpoints;
    uint64_t now_ms = T0;

    (void) state;
    open_maps(4, N, 1024);
    endpoints = publish_endpoints(publish);
    srand(1);
    for (int i = 0; i < 1000; i++) {
        uint32_t peer = (uint32_t) rand() % N;
        struct durpina_peer identity = {.family = DURPINA_FAMILY_INET,
                                        .addr_be = {htonl(INADDR_LOOPBACK)},
                                        .port_be = htons((uint16_t) (rand() % PORTS + 1))};

        now_ms += GONE_MS / 8;
        endpoints_sweep(endpoints, now_ms);
        if (port_of[peer] != 0) {
            endpoints_detach(endpoints, peer, now_ms);
            port_of[peer] = 0;
        } else if (endpoints_attach(endpoints, peer, &identity, now_ms) != DURPINA_NONE) {
            port_of[peer] = ntohs(identity.port_be);
        }
        for (uint32_t p = 0; p < N; p++)
            assert_int_equal(endpoints_of_peer(endpoints, p),
                             port_of[p] != 0 ? id_in_map(port_of[p]) : DURPINA_NONE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(peers_of_one_address_share_an_endpoint),
        TEST(mapped_addresses_are_ipv4_ones),
        TEST(peers_without_a_tcp_address_have_none),
        TEST(what_is_not_published_is_taken_back),
        TEST(peer_that_comes_back_finds_its_counts),
        TEST(unused_record_goes_after_its_grace),
        TEST(record_rests_before_it_gets_another_address),
        TEST(record_with_a_connection_stays),
        TEST(sweep_is_bounded),
        TEST(next_controller_finds_the_same_endpoints),
        TEST(next_controller_has_free_records_at_once),
        TEST(next_controller_repairs_what_disagrees),
        TEST(full_map_leaves_peers_uncounted),
        TEST(thousand_random_changes_keep_the_index_right),
    };

    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
