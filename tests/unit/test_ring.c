/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "durpina_select.h"
#include "ring.h"

#include <cmocka.h>

struct ring {
    uint32_t *slots;
    uint32_t length;
    uint32_t bits;
    uint32_t n;
    const uint32_t *index;
    const uint32_t *hashes;
    const uint32_t *values;
};

static struct ring build(const struct ring_peer *peers, size_t n)
{
    struct ring ring = {0};

    assert_int_equal(ring_build(peers, n, &ring.slots, &ring.length), 0);
    ring.bits = ring.slots[0];
    ring.n = ring.slots[1];
    ring.index = ring.slots + DURPINA_RING_HEADER;
    ring.hashes = ring.index + (1UL << ring.bits);
    ring.values = ring.hashes + ring.n;
    assert_ptr_equal(ring.values + ring.n, ring.slots + ring.length);
    return ring;
}

/* nginx's rule: the first point not below the hash, behind the last one the first. */
static uint32_t look_up(const struct ring *ring, uint32_t hash)
{
    for (uint32_t i = 0; i < ring->n; i++)
        if (ring->hashes[i] >= hash)
            return ring->values[i];
    return ring->values[0];
}

static int has_point(const struct ring *ring, uint32_t hash)
{
    for (uint32_t i = 0; i < ring->n; i++)
        if (ring->hashes[i] == hash)
            return 1;
    return 0;
}

/* The points of one server, as computed elsewhere by the formula: the first three and the last. */
static void points_are_those_of_nginx(void **state)
{
    static const struct {
        const char *name;
        uint32_t points[4];
    } cases[] = {
        {"127.0.0.1:8080", {0x6dca9547, 0x92c7adf9, 0xddbeb1b8, 0x24b96112}},
        {"backend.example.com", {0x46127ded, 0xd9658b7d, 0xd5a2045f, 0x6a6b4e6e}},
        {"[::1]:80", {0x3d4936c4, 0x9d536eea, 0xd9ea90dc, 0x7c2ff40c}},
        {"[::1]", {0xb368a5ff, 0x4d923f1c, 0xcd8a3ac0, 0xdf8db3c5}},
        {"unix:/tmp/a.sock", {0xca7eb1df, 0xbad8f3e1, 0x716a4f8e, 0xe3c4562b}},
        {"UNIX:/tmp/a.sock", {0xca7eb1df, 0xbad8f3e1, 0x716a4f8e, 0xe3c4562b}},
        {"host:", {0x454a0064, 0xfd2e72a0, 0x975f22d2, 0x2711cc9c}},
    };

    (void) state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct ring_peer peer = {.name = cases[i].name, .weight = 1, .value = 7};
        struct ring ring = build(&peer, 1);

        assert_int_equal(ring.n, RING_POINTS_PER_WEIGHT);
        for (size_t j = 0; j < 4; j++)
            assert_true(has_point(&ring, cases[i].points[j]));
        free(ring.slots);
    }
}

static const struct ring_peer servers[] = {
    {"10.0.0.1:80", 1, 0}, {"10.0.0.2:80", 2, 1},        {"web.example.com", 3, 2},
    {"[::1]:8080", 1, 3},  {"unix:/run/app.sock", 5, 4},
};
#define N_SERVERS (sizeof(servers) / sizeof(servers[0]))

static uint32_t hash_key(unsigned number)
{
    char key[32];
    int length = snprintf(key, sizeof(key), "key%u", number);

    return (uint32_t) crc32(0, (const Bytef *) key, (uInt) length);
}

/* key0 to key9999 over five servers with weights; the choices as one byte each, and their CRC-32 as
 * computed elsewhere. */
static void ten_thousand_keys_fall_as_in_nginx(void **state)
{
    static const uint32_t expected[N_SERVERS] = {706, 1813, 2359, 907, 4215};
    static unsigned char choices[10000];
    struct ring ring = build(servers, N_SERVERS);
    uint32_t counts[N_SERVERS] = {0};

    (void) state;
    for (unsigned i = 0; i < sizeof(choices); i++) {
        choices[i] = (unsigned char) look_up(&ring, hash_key(i));
        counts[choices[i]]++;
    }
    assert_memory_equal(counts, expected, sizeof(counts));
    assert_int_equal(crc32(0, choices, sizeof(choices)), 0xce25dde4);
    free(ring.slots);
}

/* The ring as it lies in a map, its peers those that servers[] names. */
static void picks_find_the_same_points(void **state)
{
    static struct durpina_peer peers[N_SERVERS];
    static struct durpina_counters counters[N_SERVERS];
    static struct durpina_upstream upstream = {.publish = 2, .generation = 1};
    static struct durpina_cursor cursor;
    struct ring ring = build(servers, N_SERVERS);
    const struct durpina_tier tier = {.ring = {0, ring.length}};
    struct durpina_maps maps = {
        .upstreams = &upstream,
        .peers = peers,
        .slots = ring.slots,
        .counters = counters,
        .cursors = &cursor,
        .n_upstreams = 1,
        .n_peers = N_SERVERS,
        .n_slots = ring.length,
    };

    (void) state;
    for (size_t i = 0; i < N_SERVERS; i++) {
        peers[i].generation = counters[i].generation = 1;
        peers[i].settings[0].state = DURPINA_PEER_UP;
        peers[i].settings[0].weight = servers[i].weight;
    }
    for (unsigned i = 0; i < 20000; i++) {
        uint32_t hash = i < 10000 ? hash_key(i) : ring.hashes[i % ring.n] + (i & 1);
        struct durpina_tried tried = {0};
        struct durpina_request request = {.algorithm = DURPINA_RING, .hash = hash, .tried = &tried};
        struct durpina_picking p = {.maps = &maps,
                                    .request = &request,
                                    .upstream = &upstream,
                                    .cursor = maps.cursors,
                                    .word = upstream.publish};
        struct durpina_pick pick;

        assert_int_equal(durpina_pick_point(&p, &tier, hash, &pick), DURPINA_TAKEN);
        assert_int_equal(pick.peer, look_up(&ring, hash));
    }
    free(ring.slots);
}

static void assert_well_formed(const struct ring *ring)
{
    uint32_t entries = 1U << ring->bits;

    for (uint32_t i = 1; i < ring->n; i++)
        assert_true(ring->hashes[i - 1] < ring->hashes[i]);
    for (uint64_t i = 0; i < entries; i++) {
        uint32_t first = ring->index[i], end = i + 1 < entries ? ring->index[i + 1] : ring->n;
        uint64_t begin = i << (32 - ring->bits);

        assert_true(first == ring->n || ring->hashes[first] >= begin);
        assert_true(first == 0 || ring->hashes[first - 1] < begin);
        assert_in_range(end - first, 0, DURPINA_RING_STEPS);
    }
}

static void rings_of_all_sizes_are_well_formed(void **state)
{
    enum { N = 5000 };
    static char names[N][32];
    static struct ring_peer peers[N];

    (void) state;
    for (uint32_t i = 0; i < N; i++) {
        snprintf(names[i], sizeof(names[i]), "10.1.%u.%u:8080", i / 256, i % 256);
        peers[i] = (struct ring_peer){names[i], 1 + i % 3, i};
    }
    for (size_t n = 1; n <= N; n = n * 3 / 2 + 1) {
        struct ring ring = build(peers, n);

        assert_well_formed(&ring);
        assert_in_range(ring.length, 0, DURPINA_RING_HEADER + 3 * ring.n);
        free(ring.slots);
    }
}

#define N_CROWD (DURPINA_RING_STEPS + 10)

/* A ring of servers whose first points all lie below the limit. */
static struct ring build_crowd(uint32_t limit)
{
    static char names[N_CROWD][16];
    struct ring_peer peers[N_CROWD];
    size_t n = 0;

    for (unsigned i = 0; n < N_CROWD; i++) {
        char bytes[16 + 5] = ""; /* HOST \0 and the first PREV_HASH, which is 0 */
        int length = snprintf(bytes, 16, "x%u", i);

        if (crc32(0, (const Bytef *) bytes, (uInt) length + 5) >= limit)
            continue;
        memcpy(names[n], bytes, sizeof(names[n]));
        peers[n] = (struct ring_peer){names[n], 1, (uint32_t) n};
        n++;
    }
    return build(peers, n);
}

static void crowded_points_get_a_larger_index(void **state)
{
    struct ring ring = build_crowd(1U << 19);

    (void) state;
    assert_in_range(ring.bits, 14, 16); /* 2^13 would do for as many points elsewhere */
    assert_well_formed(&ring);
    free(ring.slots);
}

static void index_has_at_most_eight_entries_a_point(void **state)
{
    struct ring ring = build_crowd(1U << 16);
    uint32_t crowd = ring.index[1] - ring.index[0];

    (void) state;
    assert_in_range(1U << ring.bits, 4 * ring.n, 8 * ring.n);
    assert_true(crowd > DURPINA_RING_STEPS);
    free(ring.slots);
}

static void servers_with_the_same_points_leave_them_to_the_first(void **state)
{
    const struct ring_peer twins[] = {{"a:1", 1, 10}, {"b:1", 1, 11}, {"a:1", 2, 12}};
    struct ring ring = build(twins, 3);
    uint32_t counts[3] = {0};

    (void) state;
    assert_well_formed(&ring);
    for (uint32_t i = 0; i < ring.n; i++)
        counts[ring.values[i] - 10]++;
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(counts[i], RING_POINTS_PER_WEIGHT);
    free(ring.slots);
}

static void addresses_of_a_server_share_its_points(void **state)
{
    const struct ring_peer with_one[] = {{"web:80", 2, 0}, {"other:80", 1, 9}};
    const struct ring_peer with_three[] = {{"web:80", 2, 0},
                                           {"web:80", 2, 1},
                                           {"web:80", 2, 2},
                                           {"other:80", 1, 9}};
    struct ring one = build(with_one, 2), three = build(with_three, 4);
    uint32_t counts[10] = {0};

    (void) state;
    assert_int_equal(one.n, three.n);
    assert_memory_equal(one.hashes, three.hashes, one.n * sizeof(*one.hashes));
    for (uint32_t i = 0; i < three.n; i++) {
        assert_int_equal(three.values[i] == 9, one.values[i] == 9);
        counts[three.values[i]]++;
    }
    for (size_t i = 0; i < 3; i++)
        assert_in_range(counts[i], 2 * RING_POINTS_PER_WEIGHT / 3,
                        2 * RING_POINTS_PER_WEIGHT / 3 + 1);
    free(one.slots);
    free(three.slots);
}

static void every_address_has_a_point_however_many_there_are(void **state)
{
    enum { N = RING_POINTS_PER_WEIGHT + 40 };
    struct ring_peer peers[N];
    struct ring ring;
    uint32_t seen[N] = {0};

    (void) state;
    for (uint32_t i = 0; i < N; i++)
        peers[i] = (struct ring_peer){"web:80", 1, i};
    ring = build(peers, N);
    assert_int_equal(ring.n, N);
    for (uint32_t i = 0; i < ring.n; i++)
        assert_int_equal(seen[ring.values[i]]++, 0);
    free(ring.slots);
}

/* 3,276 units of weight are 524,160 points; the next one is too many. */
static void too_many_points_are_scaled_down_by_weight(void **state)
{
    struct ring_peer peers[] = {{"a:1", 3275, 0}, {"b:1", 1, 1}};
    uint32_t counts[2] = {0};
    struct ring ring = build(peers, 2);

    (void) state;
    for (uint32_t i = 0; i < ring.n; i++)
        counts[ring.values[i]]++;
    assert_int_equal(counts[1], RING_POINTS_PER_WEIGHT);
    free(ring.slots);

    peers[0].weight = 65535;
    peers[1].weight = 32767;
    memset(counts, 0, sizeof(counts));
    ring = build(peers, 2);
    for (uint32_t i = 0; i < ring.n; i++)
        counts[ring.values[i]]++;
    assert_in_range(ring.n, RING_POINTS_MAX - 100, RING_POINTS_MAX);
    assert_in_range(counts[0], 2 * counts[1] - 200, 2 * counts[1] + 200);
    free(ring.slots);

    peers[1].weight = 1;
    peers[0].weight = 3276;
    ring = build(peers, 2);
    assert_in_range(ring.n, RING_POINTS_MAX - 100, RING_POINTS_MAX);
    free(ring.slots);
}

static void lightest_of_scaled_servers_keeps_a_point(void **state)
{
    enum { N = 300 };
    static char names[N][16];
    struct ring_peer peers[N];
    uint32_t seen[N] = {0};
    struct ring ring;

    (void) state;
    for (uint32_t i = 0; i < N; i++) {
        snprintf(names[i], sizeof(names[i]), "h%u:80", i);
        peers[i] = (struct ring_peer){names[i], i == 0 ? 1 : 65535, i};
    }
    ring = build(peers, N);
    assert_in_range(ring.n, 1, RING_POINTS_MAX);
    for (uint32_t i = 0; i < ring.n; i++)
        seen[ring.values[i]]++;
    assert_int_equal(seen[0], 1);
    for (size_t i = 1; i < N; i++)
        assert_true(seen[i] > 1);
    free(ring.slots);
}

static void as_many_peers_as_points_fit_and_no_more(void **state)
{
    enum { N = RING_POINTS_MAX + 1 };
    struct ring_peer *peers = calloc(N, sizeof(*peers));
    uint32_t *slots = NULL, length = 5;
    struct ring ring;

    (void) state;
    assert_non_null(peers);
    for (uint32_t i = 0; i < N; i++)
        peers[i] = (struct ring_peer){i % 2 == 0 ? "a:1" : "b:1", 65535, i};
    assert_int_equal(ring_build(peers, N, &slots, &length), -E2BIG);
    assert_null(slots);
    assert_int_equal(length, 5);

    /* One point each, and there are but two different ones. */
    ring = build(peers, N - 1);
    assert_int_equal(ring.n, 2);
    free(ring.slots);
    free(peers);
}

static void no_peers_make_an_empty_ring(void **state)
{
    uint32_t sentinel, *slots = &sentinel, length = 5;

    (void) state;
    assert_int_equal(ring_build(NULL, 0, &slots, &length), 0);
    assert_null(slots);
    assert_int_equal(length, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(points_are_those_of_nginx),
        cmocka_unit_test(ten_thousand_keys_fall_as_in_nginx),
        cmocka_unit_test(picks_find_the_same_points),
        cmocka_unit_test(rings_of_all_sizes_are_well_formed),
        cmocka_unit_test(crowded_points_get_a_larger_index),
        cmocka_unit_test(index_has_at_most_eight_entries_a_point),
        cmocka_unit_test(servers_with_the_same_points_leave_them_to_the_first),
        cmocka_unit_test(addresses_of_a_server_share_its_points),
        cmocka_unit_test(every_address_has_a_point_however_many_there_are),
        cmocka_unit_test(too_many_points_are_scaled_down_by_weight),
        cmocka_unit_test(lightest_of_scaled_servers_keeps_a_point),
        cmocka_unit_test(as_many_peers_as_points_fit_and_no_more),
        cmocka_unit_test(no_peers_make_an_empty_ring),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
