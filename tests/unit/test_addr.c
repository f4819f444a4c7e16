/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "addr.h"

#include <cmocka.h>

static void assert_text(const char *text, uint16_t default_port, const char *expected)
{
    char buffer[DURPINA_NAME_SIZE];
    struct addr addr;

    assert_int_equal(addr_parse(text, default_port, &addr), 0);
    addr_format(&addr, buffer, sizeof(buffer));
    assert_string_equal(buffer, expected);
}

static void text_comes_back_as_it_went_in(void **state)
{
    (void) state;
    assert_text("127.0.0.1:80", 1, "127.0.0.1:80");
    assert_text("[::1]:65535", 1, "[::1]:65535");
    assert_text("unix:/run/a b.sock", 1, "unix:/run/a b.sock");
    assert_text("[fe80:0:0::1]:443", 1, "[fe80::1]:443");
}

static void missing_port_is_the_default_one(void **state)
{
    (void) state;
    assert_text("10.0.0.2", 8080, "10.0.0.2:8080");
    assert_text("[::1]", 8080, "[::1]:8080");
}

static void v4_mapped_address_is_the_ipv4_one(void **state)
{
    struct addr mapped, plain;

    (void) state;
    assert_text("[::ffff:10.0.0.2]:80", 1, "10.0.0.2:80");
    assert_int_equal(addr_parse("10.0.0.2:80", 0, &plain), 0);
    mapped = (struct addr){.len = sizeof(mapped.in6)};
    mapped.in6.sin6_family = AF_INET6;
    mapped.in6.sin6_port = htons(80);
    mapped.in6.sin6_addr.s6_addr[10] = mapped.in6.sin6_addr.s6_addr[11] = 0xff;
    memcpy(&mapped.in6.sin6_addr.s6_addr[12], &plain.in.sin_addr, 4);
    assert_true(addr_equal(&mapped, &plain));
}

static void what_is_no_address_is_refused_and_leaves_the_output(void **state)
{
    static const char *const bad[] = {
        "",
        "localhost",
        "localhost:80",
        "127.0.0.1:",
        "127.0.0.1:0",
        "1.2.3.4:65536",
        "1.2.3.4:8x",
        "1.2.3.4:+80",
        "1.2.3.4: 80",
        "1.2.3",
        "1.2.3.256",
        "::1",
        "::1:80",
        "[::1",
        "[::1]80",
        "[1.2.3.4]:80",
        "[::1%lo]:80",
        "[]:80",
        "unix:",
        "unix:relative",
        "1.2.3.4:80:90",
        "[:::1]:80",
        "1.2.3.4:99999999999999999999",
    };
    char long_path[200] = "unix:/";

    (void) state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct addr addr = {.len = 7};

        assert_int_equal(addr_parse(bad[i], 80, &addr), -EINVAL);
        assert_int_equal(addr.len, 7);
    }
    memset(long_path + 6, 'x', 107);
    assert_int_equal(addr_parse(long_path, 80, &(struct addr){0}), -EINVAL);
    long_path[5 + 107] = '\0';
    assert_text(long_path, 80, long_path);
}

static void addresses_differ_by_family_host_and_port(void **state)
{
    static const char *const all[] = {"127.0.0.1:80", "127.0.0.1:81", "127.0.0.2:80", "[::1]:80",
                                      "[::1]:81",     "[::2]:80",     "unix:/a",      "unix:/b"};
    enum { N = sizeof(all) / sizeof(all[0]) };
    struct addr addr[N];

    (void) state;
    for (size_t i = 0; i < N; i++)
        assert_int_equal(addr_parse(all[i], 0, &addr[i]), 0);
    for (size_t i = 0; i < N; i++)
        for (size_t k = 0; k < N; k++)
            assert_int_equal(addr_equal(&addr[i], &addr[k]), i == k);
}

static void port_is_set_where_there_is_one(void **state)
{
    struct addr addr;

    (void) state;
    assert_int_equal(addr_parse("[::1]:80", 0, &addr), 0);
    addr_set_port(&addr, 8080);
    assert_int_equal(addr_port(&addr), 8080);
    assert_int_equal(addr_parse("unix:/a", 0, &addr), 0);
    addr_set_port(&addr, 8080);
    assert_int_equal(addr_port(&addr), 0);
}

static void key_has_the_address_of_whatever_spelling_in_network_byte_order(void **state)
{
    static const char *const spellings[] = {"127.10.0.1:80", "[::ffff:127.10.0.1]:80"};
    const uint8_t v4[16] = {127, 10, 0, 1}, v6[16] = {[15] = 1};
    struct durpina_address key;
    struct addr addr;

    (void) state;
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(addr_parse(spellings[i], 0, &addr), 0);
        assert_int_equal(addr_key(&addr, IPPROTO_UDP, &key), 0);
        assert_int_equal(key.family, DURPINA_FAMILY_INET);
        assert_int_equal(key.protocol, IPPROTO_UDP);
        assert_int_equal(key.port_be, htons(80));
        assert_memory_equal(key.addr_be, v4, sizeof(v4));
    }
    assert_int_equal(addr_parse("[::1]:443", 0, &addr), 0);
    assert_int_equal(addr_key(&addr, IPPROTO_TCP, &key), 0);
    assert_int_equal(key.family, DURPINA_FAMILY_INET6);
    assert_memory_equal(key.addr_be, v6, sizeof(v6));
    assert_int_equal(addr_parse("unix:/a", 0, &addr), 0);
    assert_int_equal(addr_key(&addr, IPPROTO_TCP, &key), -EINVAL);
    assert_int_equal(key.port_be, htons(443));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_comes_back_as_it_went_in),
        cmocka_unit_test(missing_port_is_the_default_one),
        cmocka_unit_test(v4_mapped_address_is_the_ipv4_one),
        cmocka_unit_test(what_is_no_address_is_refused_and_leaves_the_output),
        cmocka_unit_test(addresses_differ_by_family_host_and_port),
        cmocka_unit_test(port_is_set_where_there_is_one),
        cmocka_unit_test(key_has_the_address_of_whatever_spelling_in_network_byte_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
