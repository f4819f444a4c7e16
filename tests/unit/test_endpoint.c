/* SPDX-License-Identifier: MIT */
/* durpina_endpoint.h: what a connection adds to its endpoint, once, and takes back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <pthread.h>

#include <cmocka.h>

#include "durpina_endpoint.h"

#define ID 7
#define T0 (1000000 * 1000000ULL) /* ns */
#define MS 1000000ULL

static const struct durpina_course fresh = {.min_rtt_us = UINT32_MAX};

static void try(struct durpina_endpoint *e, struct durpina_socket *s)
{
    durpina_endpoint_try(e, ID, s, &fresh, T0);
}

static void try_and_establish(struct durpina_endpoint *e, struct durpina_socket *s)
{
    try(e, s);
    durpina_endpoint_established(e, s, T0 + MS);
}

/* tried = connecting + established + refused + timed_out + unreachable + abandoned */
static void assert_sum(const struct durpina_endpoint *e)
{
    assert_int_equal(e->tried, e->connecting + e->established + e->refused + e->timed_out +
                                   e->unreachable + e->abandoned);
}

static void connection_is_counted_at_each_step(void **state)
{
    struct durpina_endpoint e = {.generation = 3};
    struct durpina_socket s = {0};

    (void) state;
    try(&e, &s);
    assert_int_equal(s.endpoint, ID);
    assert_int_equal(s.generation, 3);
    assert_int_equal(e.tried, 1);
    assert_int_equal(e.connecting, 1);
    assert_int_equal(e.open, 0);
    assert_sum(&e);
    durpina_endpoint_established(&e, &s, T0 + 3 * MS);
    assert_int_equal(e.connecting, 0);
    assert_int_equal(e.open, 1);
    assert_int_equal(e.established, 1);
    assert_int_equal(e.handshake.mean, 3000 * DURPINA_EWMA_US);
    assert_sum(&e);
    durpina_endpoint_closing(&e, &s);
    assert_int_equal(e.open, 0);
    durpina_endpoint_closed(&e, &s, 0);
    assert_int_equal(e.open, 0);
    assert_int_equal(e.resets, 0);
    assert_int_equal(s.step, DURPINA_SOCKET_NEW);
    assert_sum(&e);
}

static void each_failure_is_counted_as_what_it_is(void **state)
{
    static const struct {
        enum durpina_connect_error error;
        int retransmitted;
        enum durpina_connect_end end;
        size_t counted; /* the field */
    } cases[] = {
        {DURPINA_ERROR_REFUSED, 0, DURPINA_CONNECT_REFUSED,
         offsetof(struct durpina_endpoint, refused)},
        {DURPINA_ERROR_REFUSED, 1, DURPINA_CONNECT_REFUSED,
         offsetof(struct durpina_endpoint, refused)},
        {DURPINA_ERROR_TIMED_OUT, 1, DURPINA_CONNECT_TIMED_OUT,
         offsetof(struct durpina_endpoint, timed_out)},
        {DURPINA_ERROR_TIMED_OUT, 0, DURPINA_CONNECT_TIMED_OUT,
         offsetof(struct durpina_endpoint, timed_out)},
        {DURPINA_ERROR_OTHER, 0, DURPINA_CONNECT_UNREACHABLE,
         offsetof(struct durpina_endpoint, unreachable)},
        {DURPINA_ERROR_OTHER, 1, DURPINA_CONNECT_UNREACHABLE,
         offsetof(struct durpina_endpoint, unreachable)},
        {DURPINA_ERROR_NONE, 0, 0, offsetof(struct durpina_endpoint, abandoned)},
        /* The process had its own deadline, and the peer let a SYN go unanswered. */
        {DURPINA_ERROR_NONE, 1, DURPINA_CONNECT_TIMED_OUT,
         offsetof(struct durpina_endpoint, timed_out)},
        {DURPINA_ERROR_LOCAL, 0, 0, offsetof(struct durpina_endpoint, abandoned)},
        {DURPINA_ERROR_LOCAL, 1, 0, offsetof(struct durpina_endpoint, abandoned)},
    };

    (void) state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct durpina_endpoint e = {0};
        struct durpina_socket s = {0};
        uint64_t counted;

        try(&e, &s);
        if (cases[i].retransmitted)
            durpina_endpoint_retransmitted(&e, &s, 1);
        assert_int_equal(durpina_endpoint_failed(&e, &s, cases[i].error), cases[i].end);
        assert_int_equal(durpina_endpoint_failed(&e, &s, cases[i].error), 0); /* once */
        memcpy(&counted, (const char *) &e + cases[i].counted, sizeof(counted));
        assert_int_equal(counted, 1);
        assert_int_equal(e.connecting, 0);
        assert_int_equal(e.open, 0);
        assert_int_equal(e.retransmits, cases[i].retransmitted);
        assert_sum(&e);
    }
}

static void next_try_of_a_socket_knows_nothing_of_the_last_one(void **state)
{
    struct durpina_endpoint e = {0};
    struct durpina_socket s = {0};

    (void) state;
    try(&e, &s);
    durpina_endpoint_retransmitted(&e, &s, 1);
    durpina_endpoint_failed(&e, &s, DURPINA_ERROR_TIMED_OUT);
    try(&e, &s);
    assert_int_equal(durpina_endpoint_failed(&e, &s, DURPINA_ERROR_NONE), 0);
    assert_int_equal(e.abandoned, 1);
    assert_int_equal(e.tried, 2);
    assert_sum(&e);
}

static void reset_counts_while_this_side_is_open_only(void **state)
{
    struct durpina_endpoint e = {0};
    struct durpina_socket s = {0};

    (void) state;
    try_and_establish(&e, &s);
    durpina_endpoint_closed(&e, &s, 1);
    assert_int_equal(e.resets, 1);
    assert_int_equal(e.open, 0);
    try_and_establish(&e, &s);
    durpina_endpoint_closing(&e, &s);
    durpina_endpoint_closed(&e, &s, 1);
    assert_int_equal(e.resets, 1);
    assert_int_equal(e.open, 0);
}

static void connection_from_before_adds_nothing_and_takes_nothing(void **state)
{
    struct durpina_endpoint e = {0}, untouched = {0};
    struct durpina_socket s = {0};

    (void) state;
    durpina_endpoint_established(&e, &s, T0);
    durpina_endpoint_closing(&e, &s);
    durpina_endpoint_closed(&e, &s, 1);
    assert_int_equal(durpina_endpoint_failed(&e, &s, DURPINA_ERROR_REFUSED), 0);
    durpina_endpoint_lost(&e, &s);
    assert_memory_equal(&e, &untouched, sizeof(e));
}

static void step(struct durpina_endpoint *e, struct durpina_socket *s, uint32_t which)
{
    switch (which) {
    case 0:
        try(e, s);
        break;
    case 1:
        durpina_endpoint_established(e, s, T0);
        break;
    case 2:
        durpina_endpoint_failed(e, s, DURPINA_ERROR_REFUSED);
        break;
    case 3:
        durpina_endpoint_closing(e, s);
        break;
    case 4:
        durpina_endpoint_closed(e, s, 1);
        break;
    case 5:
        durpina_endpoint_lost(e, s);
        break;
    }
}

/* Every sequence of six steps, sensible or not. */
static void steps_in_any_order_keep_the_sums(void **state)
{
    const uint32_t steps = 6, length = 6;
    uint32_t sequences = 1;

    (void) state;
    for (uint32_t i = 0; i < length; i++)
        sequences *= steps;
    for (uint32_t sequence = 0; sequence < sequences; sequence++) {
        struct durpina_endpoint e = {0};
        struct durpina_socket s = {0};

        for (uint32_t i = 0, rest = sequence; i < length; i++, rest /= steps) {
            step(&e, &s, rest % steps);
            assert_true(e.open <= 1 && e.connecting <= 1);
            assert_int_equal(e.connecting, s.step == DURPINA_SOCKET_CONNECTING);
            assert_int_equal(e.open, s.step == DURPINA_SOCKET_OPEN);
            assert_sum(&e);
        }
        durpina_endpoint_lost(&e, &s);
        assert_int_equal(e.open, 0);
        assert_int_equal(e.connecting, 0);
        assert_int_equal(s.step, DURPINA_SOCKET_NEW);
        assert_sum(&e);
    }
}

static void course_is_added_as_it_goes(void **state)
{
    const struct durpina_course before = {.segments = 5, .sent = 500, .received = 50};
    struct durpina_course now = {
        .rtt_us = 800, .min_rtt_us = 700, .segments = 15, .sent = 1500, .received = 5050};
    struct durpina_endpoint e = {0};
    struct durpina_socket s = {0};

    (void) state;
    durpina_endpoint_try(&e, ID, &s, &before, T0);
    durpina_endpoint_established(&e, &s, T0);
    durpina_endpoint_sample(&e, &s, &now, T0 + DURPINA_SAMPLE_NS);
    assert_int_equal(e.segments, 10);
    assert_int_equal(e.sent, 1000);
    assert_int_equal(e.received, 5000);
    assert_int_equal(e.rtt.mean, 800 * DURPINA_EWMA_US);
    assert_int_equal(e.min_rtt, 700 * DURPINA_EWMA_US);
    assert_int_equal(s.sampled_ns, T0 + DURPINA_SAMPLE_NS);

    /* The same again adds nothing; a lower minimum counts, a higher one does not. */
    durpina_endpoint_sample(&e, &s, &now, T0 + DURPINA_SAMPLE_NS);
    now.min_rtt_us = 900;
    durpina_endpoint_sample(&e, &s, &now, T0 + DURPINA_SAMPLE_NS);
    assert_int_equal(e.min_rtt, 700 * DURPINA_EWMA_US);
    now.min_rtt_us = 600;
    durpina_endpoint_sample(&e, &s, &now, T0 + DURPINA_SAMPLE_NS);
    assert_int_equal(e.min_rtt, 600 * DURPINA_EWMA_US);
    assert_int_equal(e.segments, 10);
    assert_int_equal(e.sent, 1000);
    assert_int_equal(e.received, 5000);

    /* The kernel's count of segments has 32 bits. */
    s.segments = UINT32_MAX;
    now.segments = 4;
    durpina_endpoint_sample(&e, &s, &now, T0 + DURPINA_SAMPLE_NS);
    assert_int_equal(e.segments, 15);
}

static void unknown_round_trip_times_are_left_out(void **state)
{
    const struct durpina_course unknown = {.min_rtt_us = UINT32_MAX};
    const struct durpina_course huge = {.rtt_us = UINT32_MAX / 8, .min_rtt_us = UINT32_MAX / 8};
    struct durpina_endpoint e = {0};
    struct durpina_socket s = {0};

    (void) state;
    try_and_establish(&e, &s);
    durpina_endpoint_sample(&e, &s, &unknown, T0 + MS);
    assert_int_equal(e.rtt.samples, 0);
    assert_int_equal(e.min_rtt, 0);
    durpina_endpoint_sample(&e, &s, &huge, T0 + MS);
    assert_int_equal(e.rtt.mean, UINT32_MAX); /* the most there is */
    assert_int_equal(e.min_rtt, 0);
}

#define THREADS 4
#define ROUNDS 20000

static void *connect_and_close(void *arg)
{
    struct durpina_endpoint *e = arg;

    for (uint32_t i = 0; i < ROUNDS; i++) {
        struct durpina_socket s = {0};

        try(e, &s);
        if (i % 3 == 0) {
            durpina_endpoint_failed(e, &s, DURPINA_ERROR_REFUSED);
            continue;
        }
        durpina_endpoint_established(e, &s, T0);
        durpina_endpoint_closed(e, &s, 0);
    }
    return NULL;
}

static void counts_are_exact_under_contention(void **state)
{
    struct durpina_endpoint e = {0};
    pthread_t threads[THREADS];

    (void) state;
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, connect_and_close, &e), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(e.open, 0);
    assert_int_equal(e.connecting, 0);
    assert_int_equal(e.tried, THREADS * ROUNDS);
    assert_int_equal(e.refused, THREADS * ((ROUNDS + 2) / 3));
    assert_sum(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connection_is_counted_at_each_step),
        cmocka_unit_test(each_failure_is_counted_as_what_it_is),
        cmocka_unit_test(next_try_of_a_socket_knows_nothing_of_the_last_one),
        cmocka_unit_test(reset_counts_while_this_side_is_open_only),
        cmocka_unit_test(connection_from_before_adds_nothing_and_takes_nothing),
        cmocka_unit_test(steps_in_any_order_keep_the_sums),
        cmocka_unit_test(course_is_added_as_it_goes),
        cmocka_unit_test(unknown_round_trip_times_are_left_out),
        cmocka_unit_test(counts_are_exact_under_contention),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
