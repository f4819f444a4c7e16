/* SPDX-License-Identifier: MIT */
/* durpina_select.h: what the samples of tries add up to, and where it steers requests. */
#include <math.h>
#include <pthread.h>
#include <sched.h>

#include "select_scene.h"

#define NOW_MS SCENE_NOW_MS
#define TICK_MS DURPINA_EWMA_TICK_MS

/* --- the moving average --- */

/* The same in real numbers. */
struct model {
    double mean_us, samples;
    uint64_t at_ms;
};

static double model_mean(const struct model *m, uint64_t now_ms)
{
    double ticks = (double) (now_ms / TICK_MS - m->at_ms / TICK_MS) - DURPINA_EWMA_HALF_LIFE;

    return ticks <= 0 ? m->mean_us : m->mean_us * exp2(-ticks / DURPINA_EWMA_HALF_LIFE);
}

static void model_add(struct model *m, uint32_t ms, bool is_error, uint64_t now_ms)
{
    double mean = model_mean(m, now_ms), x = ms * 1000.0;
    double ticks = (double) (now_ms / TICK_MS - m->at_ms / TICK_MS);

    if (is_error)
        x = fmax(x, fmax(DURPINA_ERROR_MS * 1000.0, 2 * mean));
    m->samples = fmin(m->samples * exp2(-ticks / DURPINA_EWMA_HALF_LIFE) + 1,
                      DURPINA_EWMA_SAMPLES_MAX / (double) DURPINA_EWMA_ONE);
    m->mean_us = mean + (x - mean) / m->samples;
    m->at_ms = now_ms;
}

static void mean_follows_its_model_in_real_numbers(void **state)
{
    uint64_t seed = scene_seed(), now_ms = NOW_MS;
    struct durpina_ewma e = {0};
    struct model m = {.at_ms = NOW_MS};
    uint32_t gap_ms = 1, most_ms = 10, errors = 50;
    double worst = 0;

    (void) state;
    for (int i = 0; i < 1000000; i++) {
        uint32_t ms = scene_below(&seed, most_ms);
        bool is_error = scene_below(&seed, 1000) < errors;

        if (i % 1000 == 0) { /* another load, in a while */
            gap_ms = 1U << scene_below(&seed, 14);
            most_ms = 1 + (1U << scene_below(&seed, 13));
            errors = scene_below(&seed, 4) ? 0 : scene_below(&seed, 100);
            now_ms += scene_below(&seed, 200000);
        }
        now_ms += scene_below(&seed, gap_ms);

        double wanted = model_mean(&m, now_ms);
        double off = fabs((double) durpina_latency_us(&e, now_ms) - wanted) / (wanted + 2000);

        if (i > 0 && off > worst)
            worst = off;
        durpina_add_latency(&e, ms, is_error, now_ms);
        model_add(&m, ms, is_error, now_ms);
    }
    print_message("# at most %.2f %% off\n", 100 * worst);
    assert_true(worst < 0.15); /* while the longest mean fades: 1 % each half life */
}

static void half_life_does_not_depend_on_how_often_it_decays(void **state)
{
    (void) state;
    for (uint32_t step = 1; step <= DURPINA_EWMA_HALF_LIFE; step++) {
        uint32_t value = 1U << 30, last;

        for (uint32_t ticks = 0; ticks < 10 * DURPINA_EWMA_HALF_LIFE; ticks += step) {
            last = value;
            value = durpina_decay(value, step);
            assert_true(value < last);
        }

        double ticks = ceil(10.0 * DURPINA_EWMA_HALF_LIFE / step) * step;
        double wanted = 30 - ticks / DURPINA_EWMA_HALF_LIFE;

        assert_true(fabs(log2(value) - wanted) < 0.3); /* of 10 halvings */
    }
    assert_int_equal(durpina_decay(UINT32_MAX, UINT32_MAX), 0);
    assert_int_equal(durpina_decay(1000, 0), 1000);
    assert_int_equal(durpina_decay(1000, DURPINA_EWMA_HALF_LIFE), 500);
}

static void sample_of_a_clock_that_lags_counts_as_new(void **state)
{
    struct durpina_ewma e = {0};

    (void) state;
    durpina_add_latency(&e, 100, 0, NOW_MS);
    durpina_add_latency(&e, 300, 0, NOW_MS - 5000);
    assert_int_equal(durpina_latency_us(&e, NOW_MS), 200001);
    assert_int_equal(durpina_latency_us(&e, NOW_MS - 10000), 200001);
}

static void longest_latency_is_kept_and_overflows_nothing(void **state)
{
    const struct durpina_ewma nothing = {0};
    struct durpina_ewma e = {0};

    (void) state;
    assert_int_equal(durpina_latency_us(&nothing, NOW_MS), 0);
    for (int i = 0; i < 1000; i++)
        durpina_add_latency(&e, UINT32_MAX, 1, NOW_MS);
    assert_int_equal(e.mean, UINT32_MAX);
    assert_int_equal(e.samples, DURPINA_EWMA_SAMPLES_MAX);
    assert_int_equal(durpina_latency_us(&e, NOW_MS), UINT32_MAX / DURPINA_EWMA_US + 1);
    for (int i = 0; i < 10000; i++)
        durpina_add_latency(&e, 0, 0, NOW_MS);
    assert_true(durpina_latency_us(&e, NOW_MS) < 100);
}

/* --- samples --- */

static void each_figure_of_a_sample_is_counted_once(void **state)
{
    struct scene *s = scene_create(1, NULL);
    struct durpina_counters *c = scene_counters(s, 0);
    struct durpina_request request = scene_request(DURPINA_ROUND_ROBIN, 0, NOW_MS);
    const struct {
        struct durpina_sample sample;
        enum durpina_outcome outcome;
    } tries[] = {
        {{200, 3, 10, 20, 100, 1000, 0}, DURPINA_OUTCOME_SUCCESS},
        {{404, DURPINA_NO_TIME, 30, 40, 100, 2000, 0}, DURPINA_OUTCOME_SUCCESS},
        {{503, 5, 1, 2, 100, 300, 0}, DURPINA_OUTCOME_FAILURE},
        {{0, DURPINA_NO_TIME, DURPINA_NO_TIME, 7, 100, 0, 0}, DURPINA_OUTCOME_FAILURE},
        {{0, 4, DURPINA_NO_TIME, 9, 100, 0, 0}, DURPINA_OUTCOME_NEUTRAL},
        {{99, DURPINA_NO_TIME, 1, 1, 0, 0, 0}, DURPINA_OUTCOME_SUCCESS},
        {{101, DURPINA_NO_TIME, 1, DURPINA_NO_TIME, 0, 0, 0}, DURPINA_OUTCOME_SUCCESS},
    };
    const uint32_t n = sizeof(tries) / sizeof(tries[0]);

    (void) state;
    for (uint32_t i = 0; i < n; i++) {
        struct durpina_pick pick;

        assert_int_equal(scene_pick(s, &request, &pick), DURPINA_PICK_OK);
        durpina_finish(&s->maps, &pick, tries[i].outcome, &tries[i].sample, NOW_MS);
    }
    assert_int_equal(durpina_requests(c), n);
    assert_int_equal(c->unanswered, 3);
    assert_int_equal(c->active, 0);
    assert_int_equal(c->failed, 2);
    assert_int_equal(c->responses[0], 1);
    assert_int_equal(c->responses[1], 1);
    assert_int_equal(c->responses[2], 0);
    assert_int_equal(c->responses[3], 1);
    assert_int_equal(c->responses[4], 1);
    assert_int_equal(c->sent, 500);
    assert_int_equal(c->received, 3300);
    /* Of 10, 30, and two errors of a second: twice the mean is not much more. */
    assert_int_equal(c->header.samples, 4 * DURPINA_EWMA_ONE);
    assert_in_range(durpina_latency_us(&c->header, NOW_MS), 500000, 550000);
    assert_int_equal(c->last_byte.samples, 4 * DURPINA_EWMA_ONE);
    assert_int_equal(c->connect.samples, 3 * DURPINA_EWMA_ONE);
    assert_int_equal(durpina_mean_us(&c->connect), 4001);
    scene_destroy(s);
}

#define ADDERS 2
#define ADDED 100 /* by each, so that all together stay below the most that a mean stands for */
#define ADDER_ROUNDS 2000

struct adder {
    pthread_t thread;
    struct durpina_ewma *e;
    uint32_t *arrived; /* at the beginnings of all rounds */
    uint32_t ms;
};

static void *add_samples(void *arg)
{
    struct adder *adder = arg;

    for (uint32_t round = 0; round < ADDER_ROUNDS; round++) {
        /* A barrier that sleeps would let them in one after the other. */
        __atomic_fetch_add(adder->arrived, 1, __ATOMIC_SEQ_CST);
        while (__atomic_load_n(adder->arrived, __ATOMIC_SEQ_CST) < (round + 1) * ADDERS)
            sched_yield();
        for (int i = 0; i < ADDED; i++)
            durpina_add_latency(&adder->e[round], adder->ms, 0, NOW_MS);
    }
    return NULL;
}

static void no_sample_is_lost_when_workers_add_at_once(void **state)
{
    static struct durpina_ewma e[ADDER_ROUNDS];
    struct adder adders[ADDERS];
    uint32_t arrived = 0;

    (void) state;
    for (uint32_t i = 0; i < ADDERS; i++) {
        adders[i] = (struct adder){.e = e, .arrived = &arrived, .ms = 200 * (i + 1)};
        assert_int_equal(pthread_create(&adders[i].thread, NULL, add_samples, &adders[i]), 0);
    }
    for (uint32_t i = 0; i < ADDERS; i++)
        pthread_join(adders[i].thread, NULL);
    for (int round = 0; round < ADDER_ROUNDS; round++) {
        assert_int_equal(e[round].samples, ADDERS * ADDED * DURPINA_EWMA_ONE);
        assert_in_range(durpina_latency_us(&e[round], NOW_MS), 299950, 300050);
    }
}

/* --- where it steers requests: 5 peers under 250 requests/s, in steps of a millisecond --- */

#define PEERS 5
#define FLYING_MAX 4000
#define HEALTHY_MS 20

struct load {
    struct scene *s;
    uint64_t seed, now_ms;
    uint32_t n;
    struct {
        struct durpina_pick pick;
        uint64_t begun_ms, ends_ms;
        bool is_failure;
    } flying[FLYING_MAX];
    uint64_t picked[PEERS];
};

static struct load *load_create(void)
{
    struct load *load = calloc(1, sizeof(*load));

    assert_non_null(load);
    load->s = scene_create(PEERS, NULL);
    for (int i = 0; i < PEERS; i++)
        load->s->want[i].max_fails = 0; /* latency alone is to keep requests away */
    scene_publish(load->s);
    load->seed = scene_seed();
    load->now_ms = NOW_MS;
    return load;
}

static void load_destroy(struct load *load)
{
    scene_destroy(load->s);
    free(load);
}

/* Peer 0 takes latency_ms, the others HEALTHY_MS. Returns the share that peer 0 was picked for. */
static double load_run(struct load *load, enum durpina_algorithm algorithm, uint32_t seconds,
                       uint32_t latency_ms, bool is_failing)
{
    uint64_t all = 0;

    memset(load->picked, 0, sizeof(load->picked));
    for (uint64_t end_ms = load->now_ms + seconds * 1000ULL; load->now_ms < end_ms;
         load->now_ms++) {
        for (uint32_t k = load->n; k-- > 0;)
            if (load->flying[k].ends_ms <= load->now_ms) {
                uint32_t ms = (uint32_t) (load->now_ms - load->flying[k].begun_ms);
                bool failed = load->flying[k].is_failure;
                struct durpina_sample sample = {.status = failed ? 502 : 200,
                                                .connect_ms = DURPINA_NO_TIME,
                                                .header_ms = ms,
                                                .response_ms = ms};

                durpina_finish(&load->s->maps, &load->flying[k].pick,
                               failed ? DURPINA_OUTCOME_FAILURE : DURPINA_OUTCOME_SUCCESS, &sample,
                               load->now_ms);
                load->flying[k] = load->flying[--load->n];
            }
        if (scene_below(&load->seed, 4) == 0) {
            struct durpina_request request =
                scene_request(algorithm, scene_random(&load->seed), load->now_ms);
            struct durpina_pick pick;

            assert_int_equal(scene_pick(load->s, &request, &pick), DURPINA_PICK_OK);
            assert_true(load->n < FLYING_MAX);

            uint32_t i = pick.peer - SCENE_FIRST;
            uint64_t ms = i == 0 ? latency_ms : HEALTHY_MS;

            load->picked[i]++;
            load->flying[load->n].pick = pick;
            load->flying[load->n].begun_ms = load->now_ms;
            load->flying[load->n].ends_ms = load->now_ms + ms;
            load->flying[load->n++].is_failure = i == 0 && is_failing;
        }
    }
    for (int i = 0; i < PEERS; i++)
        all += load->picked[i];
    return (double) load->picked[0] / (double) all;
}

static const enum durpina_algorithm timed[] = {DURPINA_PEAK_EWMA, DURPINA_LEAST_TIME_HEADER,
                                               DURPINA_LEAST_TIME_LAST_BYTE};
#define N_TIMED (sizeof(timed) / sizeof(timed[0]))

static void equal_peers_share_equally(void **state)
{
    (void) state;
    for (size_t a = 0; a < N_TIMED; a++) {
        struct load *load = load_create();
        double share = load_run(load, timed[a], 60, HEALTHY_MS, false);

        print_message("# algorithm %d: %.3f of the requests\n", timed[a], share);
        assert_true(share > 0.8 / PEERS && share < 1.2 / PEERS);
        load_destroy(load);
    }
}

static void peer_that_fails_fast_attracts_no_requests(void **state)
{
    (void) state;
    for (size_t a = 0; a < N_TIMED; a++) {
        struct load *load = load_create();
        double share = load_run(load, timed[a], 300, 0, true);

        print_message("# algorithm %d: %.4f of the requests\n", timed[a], share);
        assert_true(share < 0.02);
        load_destroy(load);
    }
}

static void slow_peer_is_tried_again_and_comes_back(void **state)
{
    (void) state;
    for (size_t a = 0; a < N_TIMED; a++) {
        struct load *load = load_create();
        double slow = load_run(load, timed[a], 60, 2000, false), again;
        uint32_t seconds = 0;

        do {
            seconds += 10;
            again = load_run(load, timed[a], 10, HEALTHY_MS, false);
        } while (again < 0.7 / PEERS && seconds < 300);
        print_message("# algorithm %d: %.4f of the requests while slow, back after %u s\n",
                      timed[a], slow, seconds);
        assert_true(slow < 0.05);
        assert_true(seconds <= 90);
        load_destroy(load);
    }
}

static void faster_peers_take_more(void **state)
{
    (void) state;
    for (size_t a = 0; a < N_TIMED; a++) {
        struct load *load = load_create();

        load_run(load, timed[a], 20, HEALTHY_MS, false);
        assert_true(load_run(load, timed[a], 60, HEALTHY_MS / 4, false) > 1.5 / PEERS);
        load_destroy(load);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mean_follows_its_model_in_real_numbers),
        cmocka_unit_test(half_life_does_not_depend_on_how_often_it_decays),
        cmocka_unit_test(sample_of_a_clock_that_lags_counts_as_new),
        cmocka_unit_test(longest_latency_is_kept_and_overflows_nothing),
        cmocka_unit_test(each_figure_of_a_sample_is_counted_once),
        cmocka_unit_test(no_sample_is_lost_when_workers_add_at_once),
        cmocka_unit_test(equal_peers_share_equally),
        cmocka_unit_test(peer_that_fails_fast_attracts_no_requests),
        cmocka_unit_test(slow_peer_is_tried_again_and_comes_back),
        cmocka_unit_test(faster_peers_take_more),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
