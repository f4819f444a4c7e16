/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <netinet/in.h>
#include <string.h>

#include "vip_line.h"

#include <cmocka.h> /* last: its macro fail() hides the function of failure.h */

static struct failure failure;
static struct vip_spec spec;

static void an_address_comes_back_as_it_is_written(void **state)
{
    static const struct {
        const char *text, *wanted;
        enum durpina_family family;
        uint16_t port;
        uint8_t protocol;
    } cases[] = {
        {"127.10.0.1:80", "127.10.0.1:80", DURPINA_FAMILY_INET, 80, IPPROTO_TCP},
        {"127.10.0.1:1/udp", "127.10.0.1:1/udp", DURPINA_FAMILY_INET, 1, IPPROTO_UDP},
        {"[fd00::1]:65535", "[fd00::1]:65535", DURPINA_FAMILY_INET6, 65535, IPPROTO_TCP},
        {"[FD00:0::1]:53/udp", "[fd00::1]:53/udp", DURPINA_FAMILY_INET6, 53, IPPROTO_UDP},
        {"[::ffff:127.10.0.1]:80", "127.10.0.1:80", DURPINA_FAMILY_INET, 80, IPPROTO_TCP},
        {"[fd00:1111:2222:3333:4444:5555:6666:7777]:65535/udp",
         "[fd00:1111:2222:3333:4444:5555:6666:7777]:65535/udp", DURPINA_FAMILY_INET6, 65535,
         IPPROTO_UDP},
    };

    (void) state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct durpina_address address;
        char text[VIP_NAME_SIZE];

        assert_int_equal(vip_address_parse(cases[i].text, &address, &failure), 0);
        assert_int_equal(address.family, cases[i].family);
        assert_int_equal(address.port_be, htons(cases[i].port));
        assert_int_equal(address.protocol, cases[i].protocol);
        assert_int_equal(address.reserved, 0);
        vip_address_format(&address, text);
        assert_string_equal(text, cases[i].wanted);
    }
}

static void an_address_nobody_can_serve_is_refused_with_the_reason(void **state)
{
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"127.0.0.1:0", "port from 1 to 65535"},
        {"127.0.0.1:65536", "port from 1 to 65535"},
        {"127.0.0.1", "port from 1 to 65535"},
        {"127.0.0.1:80/tcp", "ADDRESS:PORT/udp"},
        {"127.0.0.1:80/udp/udp", "ADDRESS:PORT/udp"},
        {"/udp", "ADDRESS:PORT"},
        {"", "ADDRESS:PORT"},
        {"localhost:80", "ADDRESS:PORT"},
        {"fd00::1:80", "ADDRESS:PORT"},
        {"unix:/run/x", "ADDRESS:PORT"},
        {"127.0.0.1:80 ", "ADDRESS:PORT"},
        {"[fd00:1111:2222:3333:4444:5555:6666:7777]:65535000000000000000000/udp", "ADDRESS:PORT"},
        {"0.0.0.0:80", "unspecified"},
        {"[::]:80", "unspecified"},
        {"[::ffff:0.0.0.0]:80", "unspecified"},
        {"224.0.0.1:80", "multicast"},
        {"239.255.255.255:80/udp", "multicast"},
        {"[ff02::1]:80", "multicast"},
        {"255.255.255.255:80", "broadcast"},
    };
    struct durpina_address address = {.reserved = 7};

    (void) state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(vip_address_parse(cases[i].text, &address, &failure), -EINVAL);
        assert_string_equal(failure.code, "VipBadAddress");
        if (strstr(failure.text, cases[i].why) == NULL)
            fail_msg("%s: %s", cases[i].text, failure.text);
        assert_int_equal(address.reserved, 7);
    }
    assert_int_equal(vip_address_parse("223.255.255.255:80", &address, &failure), 0);
    assert_int_equal(vip_address_parse("240.0.0.1:80", &address, &failure), 0);
}

static int parse(char *const *words)
{
    size_t n = 0;

    while (words[n] != NULL)
        n++;
    return vip_line_parse(words, n, &spec, &failure);
}

#define PARSE(...) parse((char *const[]){__VA_ARGS__, NULL})

static void words_may_come_in_any_order(void **state)
{
    (void) state;
    assert_int_equal(PARSE("127.10.0.1:80", "upstream=foo"), 0);
    assert_string_equal(spec.upstream, "foo");
    assert_int_equal(spec.algorithm, DURPINA_ROUND_ROBIN);
    assert_int_equal(PARSE("127.10.0.1:80", "algorithm=ip-hash", "upstream=bar"), 0);
    assert_string_equal(spec.upstream, "bar");
    assert_int_equal(spec.algorithm, DURPINA_HASH);
    assert_int_equal(PARSE("[::1]:80", "upstream=a=b", "algorithm=unweighted-round-robin"), 0);
    assert_string_equal(spec.upstream, "a=b");
    assert_int_equal(spec.algorithm, DURPINA_UNWEIGHTED_ROUND_ROBIN);
}

static void refuses(int err, const char *code, const char *what)
{
    assert_int_equal(err, -EINVAL);
    assert_string_equal(failure.code, code);
    if (strstr(failure.text, what) == NULL)
        fail_msg("got \"%s\", wanted \"%s\"", failure.text, what);
}

static void a_bad_word_is_named_and_nothing_is_taken(void **state)
{
    char longest[9 + DURPINA_NAME_SIZE] = "upstream=";

    (void) state;
    assert_int_equal(PARSE("127.10.0.1:80", "upstream=foo"), 0);
    refuses(vip_line_parse(NULL, 0, &spec, &failure), "UpstreamConfFormatError", "ADDRESS:PORT");
    refuses(PARSE("127.10.0.2:80"), "UpstreamConfFormatError", "upstream=NAME is missing");
    refuses(PARSE("upstream=foo", "127.10.0.2:80"), "VipBadAddress", "upstream=foo");
    refuses(PARSE("127.10.0.2:80", "upstream="), "UpstreamBadName", "\"\"");
    refuses(PARSE("127.10.0.2:80", "upstream=a/b"), "UpstreamBadName", "a/b");
    refuses(PARSE("127.10.0.2:80", "upstream=a", "upstream=b"), "UpstreamConfFormatError",
            "\"upstream=b\" comes a second time");
    refuses(PARSE("127.10.0.2:80", "algorithm=ip-hash", "algorithm=ip-hash", "upstream=b"),
            "UpstreamConfFormatError", "\"algorithm=ip-hash\" comes a second time");
    refuses(PARSE("127.10.0.2:80", "upstream=a", "algorithm=least-conn"), "VipBadAlgorithm",
            "\"least-conn\"");
    refuses(PARSE("127.10.0.2:80", "upstream=a", "weight=5"), "UpstreamConfFormatError",
            "\"weight=5\" is neither");
    assert_string_equal(spec.upstream, "foo");

    memset(longest + 9, 'u', DURPINA_NAME_SIZE - 1);
    assert_int_equal(PARSE("127.10.0.2:80", longest), 0);
    assert_int_equal(strlen(spec.upstream), DURPINA_NAME_SIZE - 1);
}

static void an_algorithm_has_the_word_it_is_parsed_from(void **state)
{
    static const char *const words[] = {"round-robin", "unweighted-round-robin", "ip-hash"};
    enum durpina_algorithm algorithm;

    (void) state;
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        assert_int_equal(vip_algorithm_parse(words[i], &algorithm, &failure), 0);
        assert_string_equal(vip_algorithm_word(algorithm), words[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_address_comes_back_as_it_is_written),
        cmocka_unit_test(an_address_nobody_can_serve_is_refused_with_the_reason),
        cmocka_unit_test(words_may_come_in_any_order),
        cmocka_unit_test(a_bad_word_is_named_and_nothing_is_taken),
        cmocka_unit_test(an_algorithm_has_the_word_it_is_parsed_from),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
