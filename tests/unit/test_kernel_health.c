/* SPDX-License-Identifier: MIT */
/* controller/kernel_health.c: the rules. tests/bpf/test_events.c has the rest of it. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "kernel_health.h"

#include <cmocka.h>

/* --- loss --- */

static struct kernel_loss seconds_of(unsigned n, uint64_t retransmits, uint64_t segments)
{
    struct kernel_loss loss = {0, 0};

    while (n-- > 0)
        kernel_loss_add(&loss, retransmits, segments);
    return loss;
}

static void rate_is_that_of_steady_traffic(void **state)
{
    struct kernel_loss loss = seconds_of(30, 3, 200);

    (void) state;
    assert_true(fabs(kernel_loss_rate(&loss) - 0.015) < 1e-9);
    loss = seconds_of(0, 0, 0);
    assert_true(kernel_loss_rate(&loss) == 0);
}

static void busy_seconds_weigh_more(void **state)
{
    struct kernel_loss loss = seconds_of(1, 0, 10000);

    (void) state;
    kernel_loss_add(&loss, 1, 2);
    assert_true(kernel_loss_rate(&loss) < 0.001);
}

static void lossy_is_more_than_one_in_hundred(void **state)
{
    struct kernel_loss loss = seconds_of(1, 100, 10000);

    (void) state;
    assert_false(kernel_loss_is_lossy(&loss, false));
    loss = seconds_of(1, 101, 10000);
    assert_true(kernel_loss_is_lossy(&loss, false));
}

static void lossy_ends_below_half_of_that(void **state)
{
    struct kernel_loss loss = seconds_of(1, 50, 10000);

    (void) state;
    assert_true(kernel_loss_is_lossy(&loss, true));
    loss = seconds_of(1, 49, 10000);
    assert_false(kernel_loss_is_lossy(&loss, true));
}

static void few_segments_prove_nothing(void **state)
{
    struct kernel_loss loss = seconds_of(1, 50, KERNEL_HEALTH_SEGMENTS - 1);

    (void) state;
    assert_false(kernel_loss_is_lossy(&loss, false));
    loss = seconds_of(1, 50, KERNEL_HEALTH_SEGMENTS);
    assert_true(kernel_loss_is_lossy(&loss, false));
}

static void unanswered_syns_are_loss(void **state)
{
    struct kernel_loss loss = seconds_of(1, 300, 0);

    (void) state;
    assert_true(kernel_loss_rate(&loss) == 1);
    assert_true(kernel_loss_is_lossy(&loss, false));
}

static void silence_is_forgotten(void **state)
{
    struct kernel_loss loss = seconds_of(1, 500, 1000);

    (void) state;
    for (int i = 0; i < 100; i++)
        kernel_loss_add(&loss, 0, 0);
    assert_true(loss.segments == 0);
    assert_false(kernel_loss_is_lossy(&loss, true));
}

/* --- slowness --- */

static void slow_is_three_times_the_median_of_the_others(void **state)
{
    static const uint32_t at[] = {2000, 2000, 2000, 6000}, above[] = {2000, 2000, 2000, 6001};

    (void) state;
    assert_false(kernel_is_slow(6000, at, 4, false));
    assert_true(kernel_is_slow(6001, above, 4, false));
    assert_false(kernel_is_slow(2000, above, 4, false));
}

static void its_own_time_does_not_count_as_another_s(void **state)
{
    static const uint32_t two[] = {2000, 9000}, three[] = {2000, 9000, 9000};

    (void) state;
    assert_true(kernel_is_slow(9000, two, 2, false));
    /* Of three, the lower of the two others is the median. */
    assert_true(kernel_is_slow(9000, three, 3, false));
    assert_false(kernel_is_slow(2000, three, 3, false));
}

static void fast_peers_are_never_slow(void **state)
{
    static const uint32_t at[] = {10, 10, KERNEL_HEALTH_SLOW_US},
                          above[] = {10, 10, KERNEL_HEALTH_SLOW_US + 1};

    (void) state;
    assert_false(kernel_is_slow(KERNEL_HEALTH_SLOW_US, at, 3, false));
    assert_true(kernel_is_slow(KERNEL_HEALTH_SLOW_US + 1, above, 3, false));
}

static void slowness_ends_below_twice_the_median(void **state)
{
    static const uint32_t twice[] = {2000, 2000, 4000}, above[] = {2000, 2000, 4001},
                          fast[] = {10, 10, KERNEL_HEALTH_NOT_SLOW_US};

    (void) state;
    assert_true(kernel_is_slow(4001, above, 3, true));
    assert_false(kernel_is_slow(4000, twice, 3, true));
    assert_false(kernel_is_slow(KERNEL_HEALTH_NOT_SLOW_US, fast, 3, true));
}

static void peer_without_others_is_not_slow(void **state)
{
    static const uint32_t alone[] = {900000};

    (void) state;
    assert_false(kernel_is_slow(900000, alone, 1, false));
    assert_false(kernel_is_slow(900000, alone, 0, false));
    assert_false(kernel_is_slow(900000, alone, 1, true));
}

/* --- drift --- */

static void drift_takes_three_looks_in_a_row(void **state)
{
    struct kernel_drift drift = {0, 0};

    (void) state;
    assert_int_equal(kernel_drift_add(&drift, 12, 10), 0);
    assert_int_equal(kernel_drift_add(&drift, 15, 10), 0);
    assert_int_equal(kernel_drift_add(&drift, 13, 10), 2);
    assert_int_equal(kernel_drift_add(&drift, 11, 10), 1);
    assert_int_equal(kernel_drift_add(&drift, 10, 10), 0);
    assert_int_equal(kernel_drift_add(&drift, 12, 10), 0);
}

static void more_connections_than_requests_are_no_drift(void **state)
{
    struct kernel_drift drift = {0, 0};

    (void) state;
    for (int i = 0; i < 5; i++)
        assert_int_equal(kernel_drift_add(&drift, 1, 10), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rate_is_that_of_steady_traffic),
        cmocka_unit_test(busy_seconds_weigh_more),
        cmocka_unit_test(lossy_is_more_than_one_in_hundred),
        cmocka_unit_test(lossy_ends_below_half_of_that),
        cmocka_unit_test(few_segments_prove_nothing),
        cmocka_unit_test(unanswered_syns_are_loss),
        cmocka_unit_test(silence_is_forgotten),
        cmocka_unit_test(slow_is_three_times_the_median_of_the_others),
        cmocka_unit_test(its_own_time_does_not_count_as_another_s),
        cmocka_unit_test(fast_peers_are_never_slow),
        cmocka_unit_test(slowness_ends_below_twice_the_median),
        cmocka_unit_test(peer_without_others_is_not_slow),
        cmocka_unit_test(drift_takes_three_looks_in_a_row),
        cmocka_unit_test(more_connections_than_requests_are_no_drift),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
