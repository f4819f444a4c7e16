/* SPDX-License-Identifier: MIT */
/* durpina_vip.h: who a connect() to a virtual endpoint is sent to. */
#include "select_scene.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "durpina_hash.h"
#include "durpina_vip.h"

#define NOW_MS SCENE_NOW_MS

static struct durpina_dial dial_to(enum durpina_family family, uint8_t protocol, uint64_t hash)
{
    struct durpina_dial dial = {.hash = hash, .now_ms = NOW_MS};

    if (family == DURPINA_FAMILY_INET)
        durpina_address_inet(&dial.address, htonl(0x7f0a0001), htons(80), protocol);
    else
        durpina_address_inet6(&dial.address, htonl(0xfd000000), 0, 0, htonl(1), htons(80),
                              protocol);
    return dial;
}

/* Peer i: 10.0.0.i:8000 + i, or fd00::i with the same port. */
static void place_peer(struct scene *s, uint32_t i, enum durpina_family family)
{
    struct durpina_peer *peer = &s->peers[SCENE_FIRST + i];

    memset(peer->addr_be, 0, sizeof(peer->addr_be));
    peer->family = family;
    peer->port_be = htons((uint16_t) (8000 + i));
    if (family == DURPINA_FAMILY_INET) {
        peer->addr_be[0] = htonl(0x0a000000 + i);
    } else {
        peer->addr_be[0] = htonl(0xfd000000);
        peer->addr_be[3] = htonl(i);
    }
}

static struct scene *scene_of(uint32_t n, const uint32_t *weights)
{
    struct scene *s = scene_create(n, weights);

    for (uint32_t i = 0; i < n; i++)
        place_peer(s, i, DURPINA_FAMILY_INET);
    return s;
}

static struct durpina_vip vip_of(enum durpina_algorithm algorithm)
{
    return (struct durpina_vip){.upstream = SCENE_UPSTREAM,
                                .generation = SCENE_GENERATION,
                                .algorithm = algorithm};
}

/* Returns the index of the peer, or DURPINA_NONE. */
static uint32_t send_to(struct scene *s, struct durpina_vip *vip, const struct durpina_dial *dial,
                        struct durpina_socket *socket)
{
    if (!durpina_vip_pick(&s->maps, vip, dial, socket))
        return DURPINA_NONE;
    assert_true(durpina_same_address(&socket->dialled, &dial->address));
    assert_int_equal(socket->sent_to.family, dial->address.family);
    assert_int_equal(socket->sent_to.protocol, dial->address.protocol);
    assert_int_equal(socket->sent_to.port_be, s->peers[socket->peer].port_be);
    assert_memory_equal(socket->sent_to.addr_be, s->peers[socket->peer].addr_be, 16);
    return socket->peer - SCENE_FIRST;
}

static uint32_t connect_to(struct scene *s, struct durpina_vip *vip)
{
    const struct durpina_dial dial = dial_to(DURPINA_FAMILY_INET, IPPROTO_TCP, 0);
    struct durpina_socket socket = {0};

    return send_to(s, vip, &dial, &socket);
}

static void shares_are_exact_together_with_nginx(void **state)
{
    static const uint32_t weights[] = {5, 3, 2};
    struct scene *s = scene_of(3, weights);
    struct durpina_vip vip = vip_of(DURPINA_ROUND_ROBIN);
    uint32_t got[3] = {0};

    (void) state;
    for (int i = 0; i < 1000; i++) {
        uint32_t peer =
            i % 3 == 0 ? scene_serve(s, DURPINA_ROUND_ROBIN, 0, DURPINA_OUTCOME_SUCCESS, NOW_MS)
                       : connect_to(s, &vip);

        assert_in_range(peer, 0, 2);
        got[peer]++;
    }
    assert_int_equal(got[0], 500);
    assert_int_equal(got[1], 300);
    assert_int_equal(got[2], 200);
    assert_int_equal(vip.selected, 666);
    assert_int_equal(vip.missed, 0);
    scene_destroy(s);
}

static void unweighted_goes_by_turns(void **state)
{
    static const uint32_t weights[] = {5, 3, 2};
    struct scene *s = scene_of(3, weights);
    struct durpina_vip vip = vip_of(DURPINA_UNWEIGHTED_ROUND_ROBIN);
    uint32_t got[3] = {0};

    (void) state;
    for (int i = 0; i < 300; i++)
        got[connect_to(s, &vip)]++;
    assert_int_equal(got[0], 100);
    assert_int_equal(got[1], 100);
    assert_int_equal(got[2], 100);
    scene_destroy(s);
}

static void hash_finds_the_peer_that_nginx_picks(void **state)
{
    static const uint32_t weights[] = {5, 3, 2, 1, 9};
    struct scene *s = scene_of(5, weights);
    struct durpina_vip vip = vip_of(DURPINA_HASH);
    uint64_t seed = scene_seed();

    (void) state;
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 10000; i++) {
            uint64_t hash = durpina_hash_inet((uint32_t) scene_random(&seed));
            const struct durpina_dial dial = dial_to(DURPINA_FAMILY_INET, IPPROTO_TCP, hash);
            struct durpina_socket socket = {0};

            assert_int_equal(send_to(s, &vip, &dial, &socket),
                             scene_serve(s, DURPINA_HASH, hash, DURPINA_OUTCOME_SUCCESS, NOW_MS));
        }
        s->want[4].state = DURPINA_PEER_DOWN; /* the keys of this one move alike */
        scene_publish(s);
    }
    scene_destroy(s);
}

static void other_algorithms_miss(void **state)
{
    struct scene *s = scene_of(2, NULL);

    (void) state;
    for (uint32_t algorithm = 0; algorithm < DURPINA_ALGORITHMS + 3; algorithm++) {
        struct durpina_vip vip = vip_of((enum durpina_algorithm) algorithm);
        int known = algorithm <= DURPINA_HASH;

        assert_int_equal(connect_to(s, &vip) != DURPINA_NONE, known);
        assert_int_equal(vip.selected, known);
        assert_int_equal(vip.missed, !known);
    }

    struct durpina_vip vip = vip_of((enum durpina_algorithm) UINT32_MAX);

    assert_int_equal(connect_to(s, &vip), DURPINA_NONE);
    scene_destroy(s);
}

static void peers_of_the_other_family_are_stepped_over(void **state)
{
    struct scene *s = scene_of(4, NULL);
    struct durpina_vip vip = vip_of(DURPINA_ROUND_ROBIN);
    const struct durpina_dial six = dial_to(DURPINA_FAMILY_INET6, IPPROTO_TCP, 0);
    struct durpina_socket socket = {0};

    (void) state;
    assert_int_equal(send_to(s, &vip, &six, &socket), DURPINA_NONE);
    assert_int_equal(vip.missed, 1);
    place_peer(s, 1, DURPINA_FAMILY_INET6);
    place_peer(s, 2, DURPINA_FAMILY_NONE);
    place_peer(s, 3, DURPINA_FAMILY_UNIX);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(send_to(s, &vip, &six, &socket), 1);
        assert_int_equal(connect_to(s, &vip), 0);
    }
    scene_destroy(s);
}

static void unavailable_peers_are_stepped_over(void **state)
{
    struct scene *s = scene_of(3, NULL);
    struct durpina_vip vip = vip_of(DURPINA_ROUND_ROBIN);

    (void) state;
    s->want[0].state = DURPINA_PEER_UNHEALTHY;
    scene_publish(s);
    durpina_fail(&s->maps, SCENE_FIRST + 1, DURPINA_KERNEL, NOW_MS);
    for (int i = 0; i < 20; i++)
        assert_int_equal(connect_to(s, &vip), 2);
    durpina_fail(&s->maps, SCENE_FIRST + 2, DURPINA_KERNEL, NOW_MS);
    assert_int_equal(connect_to(s, &vip), DURPINA_NONE);
    assert_int_equal(vip.missed, 1);
    scene_destroy(s);
}

static void upstream_of_another_generation_is_a_miss(void **state)
{
    struct scene *s = scene_of(2, NULL);
    struct durpina_vip vip = vip_of(DURPINA_ROUND_ROBIN);

    (void) state;
    vip.generation++;
    assert_int_equal(connect_to(s, &vip), DURPINA_NONE);
    vip = vip_of(DURPINA_ROUND_ROBIN);
    vip.upstream = UINT32_MAX;
    assert_int_equal(connect_to(s, &vip), DURPINA_NONE);
    scene_destroy(s);
}

static void miss_leaves_the_socket_as_none_that_was_sent_elsewhere(void **state)
{
    struct scene *s = scene_of(2, NULL);
    struct durpina_vip vip = vip_of(DURPINA_ROUND_ROBIN);
    const struct durpina_dial dial = dial_to(DURPINA_FAMILY_INET, IPPROTO_TCP, 0);
    struct durpina_socket socket = {0};

    (void) state;
    assert_true(durpina_vip_pick(&s->maps, &vip, &dial, &socket));
    s->want[0].state = s->want[1].state = DURPINA_PEER_DOWN;
    scene_publish(s);
    assert_false(durpina_vip_pick(&s->maps, &vip, &dial, &socket));
    assert_int_equal(socket.dialled.family, DURPINA_FAMILY_NONE);
    assert_int_equal(socket.probing, 0);
    scene_destroy(s);
}

static void pick_takes_no_active_and_goes_by_the_kernels_connections(void **state)
{
    struct scene *s = scene_of(2, NULL);
    struct durpina_vip vip = vip_of(DURPINA_ROUND_ROBIN);
    struct durpina_endpoint *e = &s->endpoints[0];

    (void) state;
    s->want[0].max_conns = 5;
    s->peers[SCENE_FIRST].endpoint = 0;
    scene_publish(s);
    scene_counters(s, 0)->active = 1000; /* nginx's tries are not the kernel's connections */
    e->open = 3;
    e->connecting = 1;
    for (int i = 0; i < 4; i++)
        assert_int_equal(connect_to(s, &vip), i % 2);
    assert_int_equal(scene_counters(s, 0)->active, 1000);
    assert_int_equal(scene_counters(s, 1)->active, 0);
    assert_int_equal(scene_cursor(s)->active, 0);
    assert_int_equal(scene_cursor(s)->untracked, 0);
    e->connecting = 2;
    for (int i = 0; i < 4; i++)
        assert_int_equal(connect_to(s, &vip), 1);
    scene_destroy(s);
}

static void backups_serve_when_no_primary_can(void **state)
{
    struct scene *s = scene_of(2, NULL);
    struct durpina_vip vip = vip_of(DURPINA_ROUND_ROBIN);

    (void) state;
    s->tier[1] = DURPINA_TIER_BACKUP;
    scene_publish(s);
    assert_int_equal(connect_to(s, &vip), 0);
    durpina_fail(&s->maps, SCENE_FIRST, DURPINA_KERNEL, NOW_MS);
    assert_int_equal(connect_to(s, &vip), 1);
    scene_destroy(s);
}

static void loopback_peer_is_out_of_reach_of_other_namespaces(void **state)
{
    struct scene *s = scene_of(1, NULL);
    struct durpina_vip vip = vip_of(DURPINA_ROUND_ROBIN);
    struct durpina_dial dial = dial_to(DURPINA_FAMILY_INET, IPPROTO_TCP, 0);
    struct durpina_socket socket = {0};

    (void) state;
    dial.elsewhere = 1;
    assert_int_equal(send_to(s, &vip, &dial, &socket), 0);
    s->peers[SCENE_FIRST].addr_be[0] = htonl(0x7f000001);
    assert_int_equal(send_to(s, &vip, &dial, &socket), DURPINA_NONE);
    assert_int_equal(vip.missed, 1);
    dial.elsewhere = 0;
    assert_int_equal(send_to(s, &vip, &dial, &socket), 0);
    scene_destroy(s);
}

/* --- one that was temporarily down --- */

static void answer_to_the_one_probe_clears_the_failures(void **state)
{
    struct scene *s = scene_of(2, NULL);
    struct durpina_vip vip = vip_of(DURPINA_ROUND_ROBIN);
    struct durpina_dial dial = dial_to(DURPINA_FAMILY_INET, IPPROTO_TCP, 0);
    struct durpina_socket probe = {0}, other = {0};

    (void) state;
    durpina_fail(&s->maps, SCENE_FIRST, DURPINA_KERNEL, NOW_MS);
    dial.now_ms = NOW_MS + SCENE_FAIL_TIMEOUT_MS;
    while (send_to(s, &vip, &dial, &probe) != 0)
        assert_int_equal(probe.probing, 0);
    assert_int_equal(probe.probing, 1);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(send_to(s, &vip, &dial, &other), 1);
        assert_int_equal(other.probing, 0);
    }
    durpina_vip_answered(&s->maps, &other); /* of the other peer: proves nothing */
    assert_true(durpina_is_temp_down(scene_counters(s, 0), dial.now_ms));
    durpina_vip_answered(&s->maps, &probe);
    assert_false(durpina_is_temp_down(scene_counters(s, 0), dial.now_ms));
    assert_int_equal(durpina_fails(scene_counters(s, 0), SCENE_FAIL_TIMEOUT_MS, dial.now_ms), 0);
    assert_int_equal(probe.probing, 0);
    scene_destroy(s);
}

static void answer_of_a_former_owner_clears_nothing(void **state)
{
    struct scene *s = scene_of(2, NULL);
    struct durpina_socket probe = {.peer = SCENE_FIRST, .peer_generation = 100, .probing = 1};

    (void) state;
    durpina_fail(&s->maps, SCENE_FIRST, DURPINA_KERNEL, NOW_MS);
    s->peers[SCENE_FIRST].generation++;
    durpina_vip_answered(&s->maps, &probe);
    assert_true(durpina_is_temp_down(scene_counters(s, 0), NOW_MS));
    probe = (struct durpina_socket){.peer = UINT32_MAX, .probing = 1};
    durpina_vip_answered(&s->maps, &probe);
    scene_destroy(s);
}

/* --- datagrams --- */

struct datagrams {
    struct scene *s;
    struct durpina_vip vip;
    struct durpina_dial dial;
    struct durpina_socket socket;
};

static struct datagrams first_datagram(void)
{
    struct datagrams d = {.s = scene_of(3, NULL),
                          .vip = vip_of(DURPINA_ROUND_ROBIN),
                          .dial = dial_to(DURPINA_FAMILY_INET, IPPROTO_UDP, 0)};

    assert_int_equal(send_to(d.s, &d.vip, &d.dial, &d.socket), 0);
    return d;
}

static int keeps(const struct datagrams *d)
{
    return durpina_vip_keeps(&d->s->maps, &d->vip, &d->dial.address, &d->socket, NOW_MS);
}

static void datagrams_stay_with_their_peer(void **state)
{
    struct datagrams d = first_datagram();

    (void) state;
    for (int i = 0; i < 10; i++)
        assert_true(keeps(&d));
    scene_publish(d.s); /* whatever else has changed */
    assert_true(keeps(&d));
    scene_destroy(d.s);
}

static void datagrams_leave_a_peer_that_is_not_up(void **state)
{
    (void) state;
    for (uint32_t peer_state = DURPINA_PEER_FREE; peer_state <= DURPINA_PEER_UNRESOLVED;
         peer_state++) {
        struct datagrams d = first_datagram();

        d.s->want[0].state = (enum durpina_peer_state) peer_state;
        scene_publish(d.s);
        assert_int_equal(keeps(&d), peer_state == DURPINA_PEER_UP);
        scene_destroy(d.s);
    }
}

static void datagrams_leave_a_peer_that_is_temporarily_down(void **state)
{
    struct datagrams d = first_datagram();

    (void) state;
    durpina_fail(&d.s->maps, SCENE_FIRST, DURPINA_KERNEL, NOW_MS);
    assert_false(keeps(&d));
    scene_destroy(d.s);
}

static void datagrams_leave_a_peer_with_another_owner(void **state)
{
    struct datagrams d = first_datagram();

    (void) state;
    d.s->peers[SCENE_FIRST].generation++;
    assert_false(keeps(&d));
    d.s->peers[SCENE_FIRST].generation--;
    assert_true(keeps(&d));
    d.s->peers[SCENE_FIRST].upstream = 0;
    assert_false(keeps(&d));
    d.s->peers[SCENE_FIRST].upstream = SCENE_UPSTREAM;
    d.vip.generation++; /* the virtual endpoint has another upstream */
    assert_false(keeps(&d));
    d.vip.generation--;
    d.socket.peer = UINT32_MAX;
    assert_false(keeps(&d));
    scene_destroy(d.s);
}

static void last_virtual_endpoint_counts(void **state)
{
    struct datagrams d = first_datagram();
    const struct durpina_address first = d.dial.address;

    (void) state;
    d.dial.address.port_be = htons(81);
    assert_false(keeps(&d));
    assert_int_equal(send_to(d.s, &d.vip, &d.dial, &d.socket), 1);
    assert_true(keeps(&d));
    d.dial.address = first;
    assert_false(keeps(&d));
    scene_destroy(d.s);
}

static void garbage_in_the_maps_is_a_miss_at_worst(void **state)
{
    uint64_t seed = scene_seed();
    struct scene *s = scene_of(3, NULL);

    (void) state;
    for (int round = 0; round < 2000; round++) {
        struct durpina_vip vip = vip_of((enum durpina_algorithm) scene_below(&seed, 4));
        struct durpina_dial dial =
            dial_to(scene_below(&seed, 2) ? DURPINA_FAMILY_INET : DURPINA_FAMILY_INET6, IPPROTO_TCP,
                    scene_random(&seed));
        struct durpina_socket socket = {.peer = (uint32_t) scene_random(&seed)};
        uint8_t *views = (uint8_t *) s->upstreams[SCENE_UPSTREAM].view;
        uint8_t *peers = (uint8_t *) &s->peers[SCENE_FIRST];

        for (size_t i = 0; i < sizeof(s->upstreams[0].view); i++)
            if (scene_below(&seed, 4) == 0)
                views[i] = (uint8_t) scene_random(&seed);
        for (size_t i = 0; i < 3 * sizeof(s->peers[0]); i++)
            if (scene_below(&seed, 16) == 0)
                peers[i] = (uint8_t) scene_random(&seed);
        vip.upstream = scene_below(&seed, 4);
        durpina_vip_pick(&s->maps, &vip, &dial, &socket);
        durpina_vip_keeps(&s->maps, &vip, &dial.address, &socket, NOW_MS);
        durpina_vip_answered(&s->maps, &socket);
        assert_int_equal(vip.selected + vip.missed, 1);
    }
    scene_destroy(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_are_exact_together_with_nginx),
        cmocka_unit_test(unweighted_goes_by_turns),
        cmocka_unit_test(hash_finds_the_peer_that_nginx_picks),
        cmocka_unit_test(other_algorithms_miss),
        cmocka_unit_test(peers_of_the_other_family_are_stepped_over),
        cmocka_unit_test(unavailable_peers_are_stepped_over),
        cmocka_unit_test(upstream_of_another_generation_is_a_miss),
        cmocka_unit_test(miss_leaves_the_socket_as_none_that_was_sent_elsewhere),
        cmocka_unit_test(pick_takes_no_active_and_goes_by_the_kernels_connections),
        cmocka_unit_test(backups_serve_when_no_primary_can),
        cmocka_unit_test(loopback_peer_is_out_of_reach_of_other_namespaces),
        cmocka_unit_test(answer_to_the_one_probe_clears_the_failures),
        cmocka_unit_test(answer_of_a_former_owner_clears_nothing),
        cmocka_unit_test(datagrams_stay_with_their_peer),
        cmocka_unit_test(datagrams_leave_a_peer_that_is_not_up),
        cmocka_unit_test(datagrams_leave_a_peer_that_is_temporarily_down),
        cmocka_unit_test(datagrams_leave_a_peer_with_another_owner),
        cmocka_unit_test(last_virtual_endpoint_counts),
        cmocka_unit_test(garbage_in_the_maps_is_a_miss_at_worst),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
