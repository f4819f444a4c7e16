/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <string.h>

#include "grpc_health.h"

#include <cmocka.h>

static void request_names_the_service_if_there_is_one(void **state)
{
    static const unsigned char whole[] = {0, 0, 0, 0, 0};
    static const unsigned char named[] = {0, 0, 0, 0, 5, 0x0a, 3, 'a', '.', 'b'};
    unsigned char frame[GRPC_REQUEST_MAX];

    (void) state;
    assert_int_equal(grpc_health_request(NULL, frame), sizeof(whole));
    assert_memory_equal(frame, whole, sizeof(whole));
    assert_int_equal(grpc_health_request("a.b", frame), sizeof(named));
    assert_memory_equal(frame, named, sizeof(named));
}

static void long_names_have_a_length_of_two_bytes(void **state)
{
    static const struct {
        size_t length;
        unsigned char head[8];
        size_t n_head;
    } cases[] = {
        {127, {0, 0, 0, 0, 129, 0x0a, 127}, 7},
        {128, {0, 0, 0, 0, 131, 0x0a, 0x80, 1}, 8},
        {GRPC_SERVICE_MAX, {0, 0, 0, 1, 2, 0x0a, 0xff, 1}, 8},
    };
    unsigned char frame[GRPC_REQUEST_MAX];
    char name[GRPC_SERVICE_MAX + 1];

    (void) state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        memset(name, 'n', sizeof(name));
        name[cases[i].length] = '\0';
        assert_int_equal(grpc_health_request(name, frame), cases[i].n_head + cases[i].length);
        assert_memory_equal(frame, cases[i].head, cases[i].n_head);
        assert_memory_equal(frame + cases[i].n_head, name, cases[i].length);
    }
}

#define REPLY(...)                                                                                 \
    (const unsigned char[]){__VA_ARGS__}, sizeof((const unsigned char[]){__VA_ARGS__})

static void reply_tells_the_health(void **state)
{
    const struct {
        const unsigned char *body;
        size_t length;
        int health;
    } cases[] = {
        {REPLY(0, 0, 0, 0, 2, 0x08, 1), GRPC_HEALTH_SERVING},
        {REPLY(0, 0, 0, 0, 2, 0x08, 2), GRPC_HEALTH_NOT_SERVING},
        {REPLY(0, 0, 0, 0, 2, 0x08, 3), GRPC_HEALTH_SERVICE_UNKNOWN},
        {REPLY(0, 0, 0, 0, 2, 0x08, 0), GRPC_HEALTH_UNKNOWN},
        /* No field: its default. */
        {REPLY(0, 0, 0, 0, 0), GRPC_HEALTH_UNKNOWN},
        /* A value of later versions. */
        {REPLY(0, 0, 0, 0, 2, 0x08, 4), GRPC_HEALTH_UNKNOWN},
        {REPLY(0, 0, 0, 0, 11, 0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1),
         GRPC_HEALTH_UNKNOWN},
        /* The last one counts. */
        {REPLY(0, 0, 0, 0, 4, 0x08, 2, 0x08, 1), GRPC_HEALTH_SERVING},
        /* Fields of later versions: 2, of each wire type. */
        {REPLY(0, 0, 0, 0, 4, 0x10, 2, 0x08, 1), GRPC_HEALTH_SERVING},
        {REPLY(0, 0, 0, 0, 5, 0x08, 1, 0x12, 1, 'x'), GRPC_HEALTH_SERVING},
        {REPLY(0, 0, 0, 0, 7, 0x15, 1, 2, 3, 4, 0x08, 1), GRPC_HEALTH_SERVING},
        {REPLY(0, 0, 0, 0, 11, 0x11, 1, 2, 3, 4, 5, 6, 7, 8, 0x08, 1), GRPC_HEALTH_SERVING},
    };

    (void) state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(grpc_health_reply((const char *) cases[i].body, cases[i].length),
                         cases[i].health);
}

static void malformed_replies_are_refused(void **state)
{
    const struct {
        const unsigned char *body;
        size_t length;
    } cases[] = {
        {REPLY(0, 0, 0, 0)},
        /* Compressed; shorter and longer than it says. */
        {REPLY(1, 0, 0, 0, 2, 0x08, 1)},
        {REPLY(0, 0, 0, 0, 3, 0x08, 1)},
        {REPLY(0, 0, 0, 0, 1, 0x08, 1)},
        {REPLY(0, 255, 255, 255, 255, 0x08, 1)},
        /* A number without an end, and one of more than 64 bits. */
        {REPLY(0, 0, 0, 0, 1, 0x08)},
        {REPLY(0, 0, 0, 0, 2, 0x08, 0x81)},
        {REPLY(0, 0, 0, 0, 12, 0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1)},
        /* Fields beyond the end, and wire types that there are not. */
        {REPLY(0, 0, 0, 0, 3, 0x12, 2, 'x')},
        {REPLY(0, 0, 0, 0, 11, 0x12, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1)},
        {REPLY(0, 0, 0, 0, 4, 0x15, 1, 2, 3)},
        {REPLY(0, 0, 0, 0, 2, 0x0b, 1)},
        {REPLY(0, 0, 0, 0, 2, 0x0f, 1)},
    };

    (void) state;
    assert_int_equal(grpc_health_reply("", 0), -EINVAL);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(grpc_health_reply((const char *) cases[i].body, cases[i].length), -EINVAL);
}

static void every_status_has_a_name(void **state)
{
    (void) state;
    assert_string_equal(grpc_status_name(0), "ok");
    assert_string_equal(grpc_status_name(12), "unimplemented");
    assert_string_equal(grpc_status_name(16), "unauthenticated");
    assert_string_equal(grpc_status_name(17), "no status of gRPC");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_names_the_service_if_there_is_one),
        cmocka_unit_test(long_names_have_a_length_of_two_bytes),
        cmocka_unit_test(reply_tells_the_health),
        cmocka_unit_test(malformed_replies_are_refused),
        cmocka_unit_test(every_status_has_a_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
