/* SPDX-License-Identifier: MIT */
/* durpina_select.h: the algorithms that load and latency decide, against references. */
#include "select_walk.h"

static double latency(const struct walk *w, uint32_t i)
{
    const struct durpina_counters *c = scene_counters(w->s, i);
    const struct durpina_endpoint *e = endpoint_of(w, i);

    if (w->request.algorithm == DURPINA_LEAST_TIME_KERNEL)
        return e ? (double) durpina_latency_us(&e->rtt, w->now_ms) : 0;
    return (double) durpina_latency_us(w->request.algorithm == DURPINA_LEAST_TIME_LAST_BYTE
                                           ? &c->last_byte
                                           : &c->header,
                                       w->now_ms);
}

static bool is_timed(const struct walk *w)
{
    return w->request.algorithm != DURPINA_LEAST_CONN &&
           w->request.algorithm != DURPINA_LEAST_CONN_KERNEL &&
           w->request.algorithm != DURPINA_RANDOM_TWO;
}

/* What a pick of peer a costs next to one of peer b: below 1 if a is the better one. */
static double ratio(const struct walk *w, uint32_t a, uint32_t b)
{
    double weights = (double) w->s->want[b].weight / w->s->want[a].weight;

    if (!is_timed(w))
        return w->connections[a] == w->connections[b] && w->connections[a] == 0
                   ? 1
                   : w->connections[a] * weights / w->connections[b];

    double latencies = latency(w, a) / latency(w, b);

    if (latency(w, a) == 0 || latency(w, b) == 0)
        latencies = 1;
    return latencies * weights * (w->connections[a] + 1) / (w->connections[b] + 1);
}

#define EPSILON 1e-9

/* Of the two that the draws name, the better one. */
static void expect_better_of_two(struct walk *w, const struct durpina_tier *tier, uint32_t i)
{
    bool drawn =
        w->request.algorithm != DURPINA_RANDOM_TWO && w->request.algorithm != DURPINA_PEAK_EWMA;
    uint32_t length = tier->schedule.length, have[2], n = 0, same = 0;
    uint64_t seed = w->request.hash, place = ((seed >> 32) * length) >> 32;

    if (drawn)
        place = w->ticket[tier_of(w, tier)] % length;
    for (int k = 0; k < DURPINA_SLOT_TRIES && n < 2 && same < DURPINA_SECOND_TRIES; k++) {
        uint32_t peer = slot(w, tier->schedule, place);

        seed = durpina_mix(seed + 1);
        place = ((seed >> 32) * length) >> 32;
        if (n == 1 && peer == have[0])
            same++;
        else if (w->available[peer])
            have[n++] = peer;
    }
    if (n == 0)
        return;
    assert_true(i == have[0] || (n == 2 && i == have[1]));
    w->first_choices += i == have[0];
    if (n == 2)
        assert_true(ratio(w, i, i == have[0] ? have[1] : have[0]) <= 1 + EPSILON);
}

/* The best of those with a sample and the best of those without: none is better than i. */
static void expect_best(struct walk *w, const struct durpina_tier *tier, uint32_t i)
{
    uint32_t turn = slot(w, tier->schedule, w->ticket[tier_of(w, tier)] % tier->schedule.length);
    uint32_t best[2] = {i, i};

    if (tier->members.length > DURPINA_MEMBER_TRIES) {
        expect_better_of_two(w, tier, i);
        return;
    }
    w->first_choices += i == turn;
    for (uint32_t k = 0; k < w->s->n; k++)
        if (w->available[k] && w->s->tier[k] == tier_of(w, tier)) {
            bool known = is_timed(w) && latency(w, k) != 0;

            if (known != (is_timed(w) && latency(w, best[known]) != 0) ||
                ratio(w, k, best[known]) < 1)
                best[known] = k;
        }
    assert_true(ratio(w, i, best[0]) <= 1 + EPSILON);
    assert_true(ratio(w, i, best[1]) <= 1 + EPSILON);
    /* Who has the turn is passed over only for a better one. */
    if (w->available[turn] && !is_timed(w) && i != turn)
        assert_true(ratio(w, i, turn) < 1);
}

static void least_conn_takes_the_least_of_up_to_64(void **state)
{
    (void) state;
    walk(DURPINA_LEAST_CONN, 0, 64, expect_best);
}

static void least_conn_of_many_takes_the_lesser_of_two(void **state)
{
    (void) state;
    walk(DURPINA_LEAST_CONN, 0, SCENE_PEERS, expect_best);
}

static void least_conn_by_the_kernel_takes_the_least_of_up_to_64(void **state)
{
    (void) state;
    walk(DURPINA_LEAST_CONN_KERNEL, 0, 64, expect_best);
}

static void least_conn_of_many_by_the_kernel_takes_the_lesser_of_two(void **state)
{
    (void) state;
    walk(DURPINA_LEAST_CONN_KERNEL, 0, SCENE_PEERS, expect_best);
}

static void least_time_by_the_kernel_takes_the_nearest_of_up_to_64(void **state)
{
    (void) state;
    walk(DURPINA_LEAST_TIME_KERNEL, 0, 64, expect_best);
}

static void random_two_takes_the_lesser_of_two(void **state)
{
    (void) state;
    walk(DURPINA_RANDOM_TWO, 0, 64, expect_better_of_two);
}

static void peak_ewma_takes_the_faster_of_two(void **state)
{
    (void) state;
    walk(DURPINA_PEAK_EWMA, 0, 64, expect_better_of_two);
}

static void least_time_takes_the_fastest_of_up_to_64(void **state)
{
    (void) state;
    walk(DURPINA_LEAST_TIME_HEADER, 0, 64, expect_best);
    walk(DURPINA_LEAST_TIME_LAST_BYTE, 0, 64, expect_best);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(least_conn_takes_the_least_of_up_to_64),
        cmocka_unit_test(least_conn_of_many_takes_the_lesser_of_two),
        cmocka_unit_test(least_conn_by_the_kernel_takes_the_least_of_up_to_64),
        cmocka_unit_test(least_conn_of_many_by_the_kernel_takes_the_lesser_of_two),
        cmocka_unit_test(least_time_by_the_kernel_takes_the_nearest_of_up_to_64),
        cmocka_unit_test(random_two_takes_the_lesser_of_two),
        cmocka_unit_test(peak_ewma_takes_the_faster_of_two),
        cmocka_unit_test(least_time_takes_the_fastest_of_up_to_64),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
