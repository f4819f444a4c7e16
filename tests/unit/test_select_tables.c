/* SPDX-License-Identifier: MIT */
/* durpina_select.h: what runs of picks add up to, and which keys move. */
#include <math.h>
#include <sys/wait.h>
#include <unistd.h>

#include "select_scene.h"

#define NOW_MS SCENE_NOW_MS
#define PICKS 1000000

static uint32_t serve(struct scene *s, enum durpina_algorithm algorithm, uint64_t hash)
{
    return scene_serve(s, algorithm, hash, DURPINA_OUTCOME_SUCCESS, NOW_MS);
}

static void random_weights(uint64_t *seed, uint32_t n, uint32_t *weights)
{
    uint32_t most = 1 + scene_below(seed, 30);

    for (uint32_t i = 0; i < n; i++)
        weights[i] = 1 + scene_below(seed, most);
}

/* --- round robin --- */

/* Each pick is that of a period ago, and the first period holds each peer by its weight: so does
 * any run of that length. */
static void any_run_of_s_picks_holds_each_weight(void **state) /* S3 */
{
    const enum durpina_algorithm algorithms[] = {DURPINA_ROUND_ROBIN,
                                                 DURPINA_UNWEIGHTED_ROUND_ROBIN};
    uint64_t seed = scene_seed();
    uint32_t weights[SCENE_PEERS], got[SCENE_PEERS * 30];

    (void) state;
    for (uint32_t picks = 0, round = 0; picks < PICKS; round++) {
        const enum durpina_algorithm algorithm = algorithms[round % 2];
        uint32_t n = 1 + scene_below(&seed, SCENE_PEERS), counted[SCENE_PEERS] = {0};

        random_weights(&seed, n, weights);

        struct scene *s = scene_create(n, weights);
        const struct durpina_tier *tier = &scene_view(s)->tier[DURPINA_TIER_PRIMARY];
        uint32_t length =
            algorithm == DURPINA_ROUND_ROBIN ? tier->schedule.length : tier->members.length;

        scene_cursor(s)->round_robin[0] = scene_cursor(s)->unweighted[0] =
            round % 3 ? scene_random(&seed) >> 1 : UINT32_MAX - 100ULL;
        assert_true(length <= sizeof(got) / sizeof(got[0]));
        for (uint32_t k = 0; k < 4 * length; k++) {
            uint32_t i = serve(s, algorithm, 0);

            if (k < length)
                counted[i]++;
            else
                assert_int_equal(i, got[k % length]);
            got[k % length] = i;
        }
        for (uint32_t i = 0; i < n; i++)
            assert_int_equal(counted[i], algorithm == DURPINA_ROUND_ROBIN ? s->turns[i] : 1);
        picks += 4 * length;
        scene_destroy(s);
    }
}

#define PROCESSES 4

static void run_in_processes(struct scene *s, uint32_t picks_each)
{
    for (int i = 0; i < PROCESSES; i++) {
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0) {
            for (uint32_t k = 0; k < picks_each; k++)
                serve(s, DURPINA_ROUND_ROBIN, 0);
            _exit(0);
        }
    }
    for (int i = 0; i < PROCESSES; i++) {
        int status;

        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
    }
}

static void picks_of_all_processes_are_one_run(void **state) /* S3 */
{
    const uint32_t weights[] = {5, 3, 2, 7, 1, 1, 13};
    const uint32_t n = sizeof(weights) / sizeof(weights[0]), rounds = 5000;
    struct scene *s = scene_create(n, weights);

    (void) state;
    run_in_processes(s, rounds * scene_view(s)->tier[0].schedule.length / PROCESSES);
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(durpina_requests(scene_counters(s, i)), rounds * weights[i]);
        assert_int_equal(scene_counters(s, i)->active, 0);
    }
    assert_int_equal(scene_cursor(s)->active, 0);
    assert_int_equal(scene_cursor(s)->untracked, 0);
    scene_destroy(s);
}

/* Chi squared of counts against shares, over its degrees of freedom: about 1 for a fair draw. */
static double unfairness(const uint64_t *counts, const uint32_t *weights, uint32_t n, uint32_t out)
{
    double picks = 0, all = 0, sum = 0;

    for (uint32_t i = 0; i < n; i++)
        if (i != out) {
            picks += (double) counts[i];
            all += weights[i];
        }
    for (uint32_t i = 0; i < n; i++)
        if (i != out) {
            double wanted = picks * weights[i] / all;

            sum += ((double) counts[i] - wanted) * ((double) counts[i] - wanted) / wanted;
        }
    return sum / (n - 2);
}

static void turns_of_a_failed_peer_go_to_the_others_by_weight(void **state)
{
    const uint32_t weights[] = {5, 3, 2, 5, 3, 2, 5, 3, 2, 20};
    const uint32_t n = sizeof(weights) / sizeof(weights[0]), out = 9;
    struct scene *s = scene_create(n, weights);
    uint64_t counts[10] = {0};

    (void) state;
    durpina_set_temp_down(scene_counters(s, out), SCENE_FAIL_TIMEOUT_MS, NOW_MS);
    for (int k = 0; k < PICKS; k++)
        counts[serve(s, DURPINA_ROUND_ROBIN, 0)]++;
    assert_int_equal(counts[out], 0);
    assert_true(unfairness(counts, weights, n, out) < 3);
    scene_destroy(s);
}

static void random_draws_are_by_weight(void **state)
{
    const uint32_t weights[] = {5, 3, 2, 5, 3, 2, 5, 3, 2, 1};
    const uint32_t n = sizeof(weights) / sizeof(weights[0]);
    struct scene *s = scene_create(n, weights);
    uint64_t seed = scene_seed(), counts[10] = {0};

    (void) state;
    for (int k = 0; k < PICKS; k++)
        counts[serve(s, DURPINA_RANDOM_TWO, scene_random(&seed))]++;
    assert_true(unfairness(counts, weights, n, n) < 3);
    scene_destroy(s);
}

/* --- keys --- */

#define KEYS 20000

static void map_keys(struct scene *s, enum durpina_algorithm algorithm, uint32_t *owners)
{
    for (uint64_t key = 0; key < KEYS; key++)
        owners[key] = serve(s, algorithm, durpina_mix(key + 1));
}

/* Every peer goes down and comes back, by the operator or by failures. */
static void keys_move_only_while_their_peer_is_down(void **state)
{
    const enum durpina_algorithm algorithms[] = {DURPINA_HASH, DURPINA_RING};
    static uint32_t before[KEYS], now[KEYS];
    uint64_t seed = scene_seed();
    uint32_t weights[50];

    (void) state;
    for (uint32_t round = 0; round < 50; round++) {
        const enum durpina_algorithm algorithm = algorithms[round % 2];
        uint32_t n = 2 + scene_below(&seed, 49), out = scene_below(&seed, n);

        random_weights(&seed, n, weights);

        struct scene *s = scene_create(n, weights);

        s->tables = SCENE_HASH | SCENE_RING;
        scene_publish(s);
        map_keys(s, algorithm, before);
        if (round % 4 < 2) {
            s->want[out].state = DURPINA_PEER_DOWN;
            scene_publish(s);
        } else {
            durpina_set_temp_down(scene_counters(s, out), SCENE_FAIL_TIMEOUT_MS, NOW_MS);
        }
        map_keys(s, algorithm, now);
        for (uint32_t key = 0; key < KEYS; key++) {
            assert_int_not_equal(now[key], out);
            if (before[key] != out)
                assert_int_equal(now[key], before[key]);
        }
        durpina_clear_fails(scene_counters(s, out));
        s->want[out].state = DURPINA_PEER_UP;
        scene_publish(s);
        map_keys(s, algorithm, now);
        assert_memory_equal(before, now, sizeof(now));
        scene_destroy(s);
    }
}

static void keys_of_a_peer_that_is_down_go_to_all_others(void **state)
{
    struct scene *s = scene_create(20, NULL);
    static uint32_t before[KEYS], now[KEYS];
    uint32_t seen = 0;

    (void) state;
    map_keys(s, DURPINA_HASH, before);
    s->want[7].state = DURPINA_PEER_UNHEALTHY;
    scene_publish(s);
    map_keys(s, DURPINA_HASH, now);
    for (uint32_t key = 0; key < KEYS; key++)
        if (before[key] == 7)
            seen |= 1U << now[key];
    assert_int_equal(seen, 0xfffff & ~(1U << 7));
    scene_destroy(s);
}

static void keys_are_shared_out_by_weight(void **state)
{
    const uint32_t n = 100;
    uint64_t seed = scene_seed();
    uint32_t weights[100], counts[100] = {0};
    double all = 0, worst = 0;

    (void) state;
    for (uint32_t i = 0; i < n; i++) {
        weights[i] = 1 + i % 3;
        all += weights[i];
    }

    struct scene *s = scene_create(n, weights);

    for (int k = 0; k < PICKS; k++)
        counts[serve(s, DURPINA_HASH, scene_random(&seed))]++;
    for (uint32_t i = 0; i < n; i++)
        worst = fmax(worst, fabs(counts[i] / (PICKS * weights[i] / all) - 1));
    print_message("# at most %.1f %% off\n", 100 * worst);
    assert_true(worst < 0.06); /* what the draw of a million keys explains, and 2 % */
    scene_destroy(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_run_of_s_picks_holds_each_weight),
        cmocka_unit_test(picks_of_all_processes_are_one_run),
        cmocka_unit_test(turns_of_a_failed_peer_go_to_the_others_by_weight),
        cmocka_unit_test(random_draws_are_by_weight),
        cmocka_unit_test(keys_move_only_while_their_peer_is_down),
        cmocka_unit_test(keys_of_a_peer_that_is_down_go_to_all_others),
        cmocka_unit_test(keys_are_shared_out_by_weight),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
