/* SPDX-License-Identifier: MIT */
/* durpina_hash.h: the hash of an address is that of the nginx module. */
#include "select_scene.h"

#include "durpina_hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define INPUTS 200000

static void inet_is_xxh3_of_three_octets(void **state)
{
    uint64_t seed = scene_seed();

    (void) state;
    for (int i = 0; i < INPUTS; i++) {
        uint32_t addr_be = (uint32_t) scene_random(&seed);

        assert_int_equal(durpina_hash_inet(addr_be), XXH3_64bits(&addr_be, 3));
    }
    assert_int_equal(durpina_hash_inet(0), XXH3_64bits("\0\0\0", 3));
    assert_int_equal(durpina_hash_inet(UINT32_MAX), XXH3_64bits("\xff\xff\xff", 3));
}

static void last_octet_of_an_inet_address_does_not_matter(void **state)
{
    const uint8_t first[4] = {192, 0, 2, 0}, last[4] = {192, 0, 2, 255}, other[4] = {192, 0, 3, 0};
    uint32_t addr_be[3];

    (void) state;
    memcpy(&addr_be[0], first, 4);
    memcpy(&addr_be[1], last, 4);
    memcpy(&addr_be[2], other, 4);
    assert_int_equal(durpina_hash_inet(addr_be[0]), durpina_hash_inet(addr_be[1]));
    assert_int_not_equal(durpina_hash_inet(addr_be[0]), durpina_hash_inet(addr_be[2]));
}

static uint64_t hash_inet6(const uint32_t *a)
{
    return durpina_hash_inet6(a[0], a[1], a[2], a[3]);
}

static void inet6_is_xxh3_of_sixteen_octets(void **state)
{
    /* Halves at which parts of the 128-bit product carry, or do not. */
    static const uint32_t edges[] = {0, 1, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff};
    const uint32_t n = sizeof(edges) / sizeof(edges[0]);
    uint64_t seed = scene_seed();
    uint32_t a[4];

    (void) state;
    for (int i = 0; i < INPUTS; i++) {
        for (int word = 0; word < 4; word++)
            a[word] = (uint32_t) scene_random(&seed);
        assert_int_equal(hash_inet6(a), XXH3_64bits(a, sizeof(a)));
    }
    for (uint32_t i = 0; i < n * n * n * n; i++) {
        for (uint32_t word = 0, rest = i; word < 4; word++, rest /= n)
            a[word] = edges[rest % n];
        assert_int_equal(hash_inet6(a), XXH3_64bits(a, sizeof(a)));
    }
}

static void fold_is_that_of_the_whole_product(void **state)
{
    static const uint64_t edges[] = {0, 1, UINT32_MAX, 1ULL << 32, UINT64_MAX - 1, UINT64_MAX};
    const uint32_t n = sizeof(edges) / sizeof(edges[0]);

    (void) state;
    for (uint32_t i = 0; i < n * n; i++) {
        uint64_t a = edges[i % n], b = edges[i / n];

        assert_int_equal(durpina_fold(a, b), XXH3_mul128_fold64(a, b));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(inet_is_xxh3_of_three_octets),
        cmocka_unit_test(last_octet_of_an_inet_address_does_not_matter),
        cmocka_unit_test(inet6_is_xxh3_of_sixteen_octets),
        cmocka_unit_test(fold_is_that_of_the_whole_product),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
