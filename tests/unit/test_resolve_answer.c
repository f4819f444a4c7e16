/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "resolve_answer.h"

#include <cmocka.h>

/* A message as text: the header's counts, then what stands behind it. */
static struct {
    uint8_t bytes[65535];
    size_t len;
} message;

static void begin(unsigned n_answers)
{
    static const uint8_t question[] = {1, 'a', 0, 0, 1, 0, 1};

    memset(&message, 0, sizeof(message));
    message.bytes[5] = 1;
    message.bytes[6] = (uint8_t) (n_answers >> 8);
    message.bytes[7] = (uint8_t) n_answers;
    memcpy(message.bytes + 12, question, sizeof(question));
    message.len = 12 + sizeof(question);
}

static void add_bytes(const void *bytes, size_t n)
{
    memcpy(message.bytes + message.len, bytes, n);
    message.len += n;
}

static void add_record(uint8_t type, uint32_t ttl_s, const void *data, uint8_t size)
{
    const uint8_t head[] = {0xc0,
                            12,
                            0,
                            type,
                            0,
                            1,
                            (uint8_t) (ttl_s >> 24),
                            (uint8_t) (ttl_s >> 16),
                            (uint8_t) (ttl_s >> 8),
                            (uint8_t) ttl_s,
                            0,
                            size};

    add_bytes(head, sizeof(head));
    add_bytes(data, size);
}

/* target: labels as in a message, up to its end. */
static void add_srv(uint8_t priority, uint8_t weight, uint8_t port, const char *target, uint8_t len)
{
    uint8_t data[255] = {0, priority, 0, weight, 0, port};

    memcpy(data + 6, target, len);
    add_record(ANSWER_SRV, 60, data, (uint8_t) (6 + len));
}

static int addresses(enum answer_type type, size_t *ret_n, uint32_t *ret_ttl_s)
{
    struct addr *list;
    /* Of this very length, so that ASan sees what is read behind it. */
    uint8_t *copy = malloc(message.len);
    int err;

    memcpy(copy, message.bytes, message.len);
    err = answer_addresses(copy, message.len, type, &list, ret_n, ret_ttl_s);
    free(copy);
    if (err == 0)
        free(list);
    return err;
}

static struct answer_srv *services(size_t *ret_n, size_t *ret_n_unusable)
{
    struct answer_srv *list = NULL;
    uint32_t ttl_s;

    *ret_n = *ret_n_unusable = 0;
    assert_int_equal(answer_services(message.bytes, message.len, &list, ret_n, &ttl_s,
                                     ret_n_unusable),
                     0);
    assert_int_equal(ttl_s, 60);
    return list;
}

static void smallest_ttl_counts_that_of_an_alias_too(void **state)
{
    uint32_t ttl_s = 0;
    size_t n = 0;

    (void) state;
    begin(3);
    add_record(ANSWER_CNAME, 7, "\1b", 3);
    add_record(ANSWER_A, 60, "\x7f\0\0\1", 4);
    add_record(ANSWER_A, 9, "\x7f\0\0\2", 4);
    assert_int_equal(addresses(ANSWER_A, &n, &ttl_s), 0);
    assert_int_equal(n, 2);
    assert_int_equal(ttl_s, 7);
}

static void ttl_with_the_highest_bit_is_none(void **state)
{
    uint32_t ttl_s = 1;
    size_t n;

    (void) state;
    begin(1);
    add_record(ANSWER_A, 0x80000000, "\x7f\0\0\1", 4);
    assert_int_equal(addresses(ANSWER_A, &n, &ttl_s), 0);
    assert_int_equal(ttl_s, 0);
}

static void other_types_and_sizes_are_no_addresses(void **state)
{
    uint32_t ttl_s;
    size_t n;

    (void) state;
    begin(3);
    add_record(ANSWER_A, 60, "\x7f\0\0\1\1", 5);
    add_record(16, 60, "text", 4);
    add_record(ANSWER_CNAME, 60, "\xc0\14", 2); /* to itself */
    assert_int_equal(addresses(ANSWER_A, &n, &ttl_s), -ENODATA);
    assert_int_equal(addresses(ANSWER_AAAA, &n, &ttl_s), -ENODATA);
}

static void cut_messages_are_refused(void **state)
{
    uint32_t ttl_s;
    size_t n, whole;

    (void) state;
    begin(2);
    add_record(ANSWER_A, 60, "\x7f\0\0\1", 4);
    add_record(ANSWER_A, 60, "\x7f\0\0\2", 4);
    whole = message.len;
    for (message.len = 1; message.len < whole; message.len++)
        assert_int_equal(addresses(ANSWER_A, &n, &ttl_s), -EBADMSG);
    assert_int_equal(addresses(ANSWER_A, &n, &ttl_s), 0);
}

static void names_that_point_at_themselves_are_refused(void **state)
{
    struct answer_srv *list;
    uint32_t ttl_s;
    size_t n, n_unusable;

    (void) state;
    begin(1);
    add_srv(0, 0, 80, "\xc0\x25", 2); /* where this pointer stands */
    assert_int_equal(answer_services(message.bytes, message.len, &list, &n, &ttl_s, &n_unusable),
                     -EBADMSG);
}

static void as_many_addresses_as_fit_into_a_message_are_read(void **state)
{
    uint32_t ttl_s;
    size_t n;

    (void) state;
    begin(4094);
    for (unsigned i = 0; i < 4094; i++) {
        const uint8_t address[] = {10, 0, (uint8_t) (i >> 8), (uint8_t) i};

        add_record(ANSWER_A, 60, address, 4);
    }
    assert_int_equal(addresses(ANSWER_A, &n, &ttl_s), 0);
    assert_int_equal(n, 4094); /* what a message has room for */
}

static void services_are_sorted_and_lower_case(void **state)
{
    struct answer_srv *list;
    size_t n, n_unusable;

    (void) state;
    begin(4);
    add_srv(20, 1, 80, "\1a", 3);
    add_srv(10, 3, 81, "\1B", 3);
    add_srv(10, 2, 80, "\1b", 3);
    add_srv(10, 1, 80, "\1A\4Test", 8);
    list = services(&n, &n_unusable);
    assert_int_equal(n, 4);
    assert_int_equal(n_unusable, 0);
    assert_string_equal(list[0].target, "a.test");
    assert_string_equal(list[1].target, "b");
    assert_int_equal(list[1].port, 80);
    assert_int_equal(list[2].port, 81);
    assert_int_equal(list[2].weight, 3);
    assert_int_equal(list[3].priority, 20);
    free(list);
}

static void services_without_a_place_to_connect_to_are_left_out(void **state)
{
    struct answer_srv *list;
    size_t n, n_unusable;
    uint32_t ttl_s;

    (void) state;
    begin(6);
    add_srv(10, 1, 80, "", 1);         /* "." */
    add_srv(10, 1, 0, "\1a", 3);       /* port 0 */
    add_srv(10, 1, 80, "\3a.b", 5);    /* a dot in a label */
    add_srv(10, 1, 80, "\4a\\b\n", 6); /* what is escaped */
    add_srv(10, 1, 80, "\5a /b;", 7);  /* what would be more than a name in a log */
    add_srv(10, 1, 80, "\4good", 6);
    list = services(&n, &n_unusable);
    assert_int_equal(n, 1);
    assert_int_equal(n_unusable, 5);
    assert_string_equal(list[0].target, "good");
    free(list);

    begin(1);
    add_srv(0, 0, 0, "", 1);
    assert_int_equal(answer_services(message.bytes, message.len, &list, &n, &ttl_s, &n_unusable),
                     -ENODATA);
    assert_int_equal(n_unusable, 1);
}

static void target_longer_than_a_name_here_is_left_out(void **state)
{
    struct answer_srv *list;
    char target[140];
    size_t n, n_unusable;

    (void) state;
    for (size_t len = DURPINA_NAME_SIZE - 1; len <= DURPINA_NAME_SIZE; len++) {
        /* len characters as text: two labels and the dot between them. */
        memset(target, 'a', sizeof(target));
        target[0] = 63;
        target[64] = (char) (len - 64);
        target[len + 1] = '\0';
        begin(1);
        if (len - 64 > 63) {
            target[64] = 30;
            target[95] = (char) (len - 95);
        }
        add_srv(1, 1, 80, target, (uint8_t) (len + 2));
        if (len < DURPINA_NAME_SIZE) {
            list = services(&n, &n_unusable);
            assert_int_equal(strlen(list[0].target), len);
            free(list);
        } else {
            uint32_t ttl_s;

            assert_int_equal(answer_services(message.bytes, message.len, &list, &n, &ttl_s,
                                             &n_unusable),
                             -ENODATA);
            assert_int_equal(n_unusable, 1);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(smallest_ttl_counts_that_of_an_alias_too),
        cmocka_unit_test(ttl_with_the_highest_bit_is_none),
        cmocka_unit_test(other_types_and_sizes_are_no_addresses),
        cmocka_unit_test(cut_messages_are_refused),
        cmocka_unit_test(names_that_point_at_themselves_are_refused),
        cmocka_unit_test(as_many_addresses_as_fit_into_a_message_are_read),
        cmocka_unit_test(services_are_sorted_and_lower_case),
        cmocka_unit_test(services_without_a_place_to_connect_to_are_left_out),
        cmocka_unit_test(target_longer_than_a_name_here_is_left_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
