/* SPDX-License-Identifier: MIT */
/* durpina_address.h: one address, one key, however the socket spells it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <arpa/inet.h>
#include <netinet/in.h>

#include <cmocka.h>

#include "durpina_address.h"

static struct durpina_address inet(const char *text, uint16_t port, uint8_t protocol)
{
    struct durpina_address a;
    struct in_addr addr;

    assert_int_equal(inet_pton(AF_INET, text, &addr), 1);
    memset(&a, 0xff, sizeof(a));
    durpina_address_inet(&a, addr.s_addr, htons(port), protocol);
    return a;
}

static struct durpina_address inet6(const char *text, uint16_t port, uint8_t protocol)
{
    struct durpina_address a;
    uint32_t words[4];

    assert_int_equal(inet_pton(AF_INET6, text, words), 1);
    memset(&a, 0xff, sizeof(a));
    durpina_address_inet6(&a, words[0], words[1], words[2], words[3], htons(port), protocol);
    return a;
}

/* Maps compare keys byte by byte. */
static void assert_same(struct durpina_address a, struct durpina_address b)
{
    assert_true(durpina_same_address(&a, &b));
    assert_memory_equal(&a, &b, sizeof(a));
}

static void assert_other(struct durpina_address a, struct durpina_address b)
{
    assert_false(durpina_same_address(&a, &b));
    assert_memory_not_equal(&a, &b, sizeof(a));
}

static void mapped_address_is_the_inet_one(void **state)
{
    (void) state;
    assert_same(inet6("::ffff:127.0.0.1", 80, IPPROTO_TCP), inet("127.0.0.1", 80, IPPROTO_TCP));
    assert_same(inet6("::ffff:255.255.255.255", 1, IPPROTO_UDP),
                inet("255.255.255.255", 1, IPPROTO_UDP));
    assert_int_equal(inet6("::ffff:10.0.0.1", 80, IPPROTO_TCP).family, DURPINA_FAMILY_INET);
}

static void addresses_that_only_look_mapped_are_inet6(void **state)
{
    static const char *const texts[] = {"::1",
                                        "::",
                                        "::127.0.0.1",
                                        "1::ffff",
                                        "::1:ffff:0:1",
                                        "::fffe:127.0.0.1",
                                        "1::ffff:127.0.0.1"};

    (void) state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        assert_int_equal(inet6(texts[i], 80, IPPROTO_TCP).family, DURPINA_FAMILY_INET6);
    assert_other(inet6("::127.0.0.1", 80, IPPROTO_TCP), inet("127.0.0.1", 80, IPPROTO_TCP));
}

static void every_part_tells_addresses_apart(void **state)
{
    const struct durpina_address four = inet("10.0.0.1", 80, IPPROTO_TCP);
    const struct durpina_address six = inet6("2001:db8:1:2:3:4:5:6", 80, IPPROTO_TCP);

    (void) state;
    assert_same(four, inet("10.0.0.1", 80, IPPROTO_TCP));
    assert_other(four, inet("10.0.0.2", 80, IPPROTO_TCP));
    assert_other(four, inet("10.0.0.1", 81, IPPROTO_TCP));
    assert_other(four, inet("10.0.0.1", 80 + 256, IPPROTO_TCP));
    assert_other(four, inet("10.0.0.1", 80, IPPROTO_UDP));
    assert_same(six, inet6("2001:db8:1:2:3:4:5:6", 80, IPPROTO_TCP));
    assert_other(six, inet6("2001:db9:1:2:3:4:5:6", 80, IPPROTO_TCP));
    assert_other(six, inet6("2001:db8:1:3:3:4:5:6", 80, IPPROTO_TCP));
    assert_other(six, inet6("2001:db8:1:2:3:5:5:6", 80, IPPROTO_TCP));
    assert_other(six, inet6("2001:db8:1:2:3:4:5:7", 80, IPPROTO_TCP));
    assert_other(six, inet6("2001:db8:1:2:3:4:5:6", 81, IPPROTO_TCP));
}

static void ports_are_in_network_byte_order(void **state)
{
    const struct durpina_address a = inet("10.0.0.1", 0x1234, IPPROTO_TCP);
    const uint8_t wire[2] = {0x12, 0x34};

    (void) state;
    assert_memory_equal(&a.port_be, wire, sizeof(wire));
}

static void loopback_is_what_each_namespace_has_of_its_own(void **state)
{
    static const char *const yes[] = {"127.0.0.0", "127.0.0.1", "127.255.255.255"};
    static const char *const no[] = {"126.255.255.255", "128.0.0.0", "10.0.0.127", "0.0.0.0"};
    static const char *const no6[] = {"::", "::2", "1::1", "::1:0:0:1", "::1:0:1", "::100"};
    struct durpina_address a;

    (void) state;
    for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++) {
        a = inet(yes[i], 80, IPPROTO_TCP);
        assert_true(durpina_is_loopback(&a));
    }
    for (size_t i = 0; i < sizeof(no) / sizeof(no[0]); i++) {
        a = inet(no[i], 80, IPPROTO_TCP);
        assert_false(durpina_is_loopback(&a));
    }
    for (size_t i = 0; i < sizeof(no6) / sizeof(no6[0]); i++) {
        a = inet6(no6[i], 80, IPPROTO_TCP);
        assert_false(durpina_is_loopback(&a));
    }
    a = inet6("::1", 80, IPPROTO_TCP);
    assert_true(durpina_is_loopback(&a));
    a = inet6("::ffff:127.0.0.9", 80, IPPROTO_TCP);
    assert_true(durpina_is_loopback(&a));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mapped_address_is_the_inet_one),
        cmocka_unit_test(addresses_that_only_look_mapped_are_inet6),
        cmocka_unit_test(every_part_tells_addresses_apart),
        cmocka_unit_test(ports_are_in_network_byte_order),
        cmocka_unit_test(loopback_is_what_each_namespace_has_of_its_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
