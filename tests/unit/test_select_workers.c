/* SPDX-License-Identifier: MIT */
/* durpina_select.h with several processes: racing, overtaken, and stopped at any instruction. */
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "select_scene.h"

#define NOW_MS SCENE_NOW_MS
#define WORKERS 4

typedef void (*job)(struct scene *s, uint64_t seed);

/* Runs the work in a child, which counts its findings in s->found. */
static pid_t start(struct scene *s, job work, uint64_t seed)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        work(s, seed);
        _exit(0);
    }
    return pid;
}

static void end(pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void count(uint32_t *number)
{
    __atomic_fetch_add(number, 1, __ATOMIC_SEQ_CST);
}

static void nothing_is_active(struct scene *s)
{
    for (uint32_t i = 0; i < s->n; i++)
        assert_int_equal(scene_counters(s, i)->active, 0);
    assert_int_equal(scene_cursor(s)->active, 0);
    assert_int_equal(scene_cursor(s)->untracked, 0);
}

/* --- racing for the last connections --- */

#define ROUNDS 20000
#define HELD 4

enum { FOUND_PICKS, FOUND_NONE, FOUND_ABOVE };

static void take_what_there_is(struct scene *s, uint64_t seed)
{
    struct durpina_pick held[HELD];

    for (int round = 0; round < ROUNDS; round++) {
        uint32_t n = 0;

        for (; n < HELD; n++) {
            struct durpina_request request =
                scene_request((enum durpina_algorithm) scene_below(&seed, DURPINA_ALGORITHMS),
                              scene_random(&seed), NOW_MS);

            request.bound = scene_below(&seed, 4) == 0 ? DURPINA_BOUND_DEFAULT : 0;
            if (scene_pick(s, &request, &held[n]) != DURPINA_PICK_OK) {
                count(&s->found[FOUND_NONE]);
                break;
            }
            count(&s->found[FOUND_PICKS]);

            uint32_t i = held[n].peer - SCENE_FIRST;

            if (__atomic_add_fetch(&s->holders[i], 1, __ATOMIC_SEQ_CST) > s->want[i].max_conns)
                count(&s->found[FOUND_ABOVE]);
        }
        while (n-- > 0) {
            __atomic_sub_fetch(&s->holders[held[n].peer - SCENE_FIRST], 1, __ATOMIC_SEQ_CST);
            durpina_finish(&s->maps, &held[n], DURPINA_OUTCOME_SUCCESS, NULL, NOW_MS);
        }
    }
}

static void max_conns_is_never_exceeded_by_racing_workers(void **state) /* S4 */
{
    const uint32_t most[] = {1, 2, 1, 3, 2};
    struct scene *s = scene_create(5, NULL);
    uint64_t seed = scene_seed();
    pid_t pids[WORKERS];

    (void) state;
    for (uint32_t i = 0; i < s->n; i++)
        s->want[i].max_conns = most[i];
    s->tier[3] = s->tier[4] = DURPINA_TIER_BACKUP;
    s->tables = SCENE_HASH | SCENE_RING;
    scene_publish(s);
    for (uint32_t i = 0; i < WORKERS; i++)
        pids[i] = start(s, take_what_there_is, seed + i);
    for (uint32_t i = 0; i < WORKERS; i++)
        end(pids[i]);
    print_message("# %u picks, %u found none\n", s->found[FOUND_PICKS], s->found[FOUND_NONE]);
    assert_int_equal(s->found[FOUND_ABOVE], 0);
    assert_true(s->found[FOUND_PICKS] > WORKERS * ROUNDS);
    nothing_is_active(s);
    scene_destroy(s);
}

/* --- overtaken by publications --- */

#define PUBLICATIONS 8000
#define HISTORY 4096

enum { FOUND_CHURNED, FOUND_NOT_UP, FOUND_NO_PEER, FOUND_STOP };

/* s->history[w % HISTORY] has a bit for each peer that publication w has up. */
static bool was_up(const struct scene *s, uint32_t i, uint64_t from, uint64_t to)
{
    for (uint64_t word = from; word <= to; word++)
        if (DURPINA_LOAD(&s->history[word % HISTORY]) & 1U << i)
            return true;
    return to - from >= HISTORY / 2; /* the machine had better things to do: who knows */
}

static void pick_all_the_time(struct scene *s, uint64_t seed)
{
    const uint64_t *publish = &s->upstreams[SCENE_UPSTREAM].publish;

    while (!DURPINA_LOAD(&s->found[FOUND_STOP])) {
        uint64_t from = durpina_seq_begin(publish);
        struct durpina_request request =
            scene_request((enum durpina_algorithm) scene_below(&seed, DURPINA_ALGORITHMS),
                          scene_random(&seed), NOW_MS);
        struct durpina_pick pick;

        count(&s->found[FOUND_CHURNED]);
        if (scene_pick(s, &request, &pick) != DURPINA_PICK_OK) {
            count(&s->found[FOUND_NO_PEER]);
            continue;
        }
        /* The last of DURPINA_SEQ_RETRIES attempts may see what is published next. */
        if (!was_up(s, pick.peer - SCENE_FIRST, from, durpina_seq_begin(publish) + 1))
            count(&s->found[FOUND_NOT_UP]);
        durpina_finish(&s->maps, &pick, DURPINA_OUTCOME_SUCCESS, NULL, NOW_MS);
    }
}

static void churn_shows_no_peer_that_was_not_up(void **state) /* S1 */
{
    struct scene *s = scene_create(12, NULL);
    uint64_t seed = scene_seed();
    pid_t pids[WORKERS];

    (void) state;
    s->tables = SCENE_RING;
    for (uint32_t i = 0; i < s->n; i++)
        s->tier[i] = (enum durpina_tier_id)(i % 2);
    scene_publish(s);
    s->history[s->upstreams[SCENE_UPSTREAM].publish] = (1U << s->n) - 1;
    for (uint32_t i = 0; i < WORKERS; i++)
        pids[i] = start(s, pick_all_the_time, seed + i);
    for (int k = 0; k < PUBLICATIONS; k++) {
        uint32_t up = 1 + scene_below(&seed, (1U << s->n) - 1);
        uint64_t word = s->upstreams[SCENE_UPSTREAM].publish + 1;

        for (uint32_t i = 0; i < s->n; i++) {
            s->want[i].state = up & 1U << i ? DURPINA_PEER_UP : DURPINA_PEER_DOWN;
            s->want[i].weight = 1 + scene_below(&seed, 3);
        }
        __atomic_store_n(&s->history[word % HISTORY], up, __ATOMIC_RELEASE);
        scene_publish(s);
    }
    DURPINA_STORE(&s->found[FOUND_STOP], 1);
    for (uint32_t i = 0; i < WORKERS; i++)
        end(pids[i]);
    print_message("# %u picks, %u found none\n", s->found[FOUND_CHURNED], s->found[FOUND_NO_PEER]);
    assert_int_equal(s->found[FOUND_NOT_UP], 0);
    assert_true(s->found[FOUND_NO_PEER] <= s->found[FOUND_CHURNED] / 10000);
    nothing_is_active(s);
    scene_destroy(s);
}

/* --- stopped at any instruction --- */

/* What others do as soon as the worker that is watched is about to take a peer; they publish as
 * soon as it has its ticket, or begin to when it has read the publish word and said what it asks
 * for. */
enum meanwhile {
    NOTHING,
    TAKES_THE_LAST,
    SENDS_THE_PROBE,
    OWNER_CHANGES,
    MEANWHILES,
    PUBLISHES_AT_TICKET,
    PUBLISHES_AT_ASKING,
};

struct watch {
    struct scene *s;
    enum durpina_algorithm algorithm;
    enum meanwhile meanwhile;
    uint32_t others[3]; /* active without the worker that is watched */
    uint32_t others_all;
    uint32_t seen; /* bit for each step of the entry */
};

static const struct watch *watched; /* by the child, its copy */

static void try_once(struct scene *s, uint64_t hash)
{
    struct durpina_request request = scene_request(watched->algorithm, hash, NOW_MS);
    struct durpina_sample sample = {.status = 200, .header_ms = 1, .response_ms = 1};
    struct durpina_pick pick;

    request.entry = &s->inflight[0].tries[0];
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0 || raise(SIGSTOP) != 0)
        _exit(1);
    if (scene_pick(s, &request, &pick) == DURPINA_PICK_OK)
        durpina_finish(&s->maps, &pick, DURPINA_OUTCOME_FAILURE, &sample, NOW_MS);
    count(&s->found[FOUND_STOP]);
}

static void intervene(struct watch *w, uint32_t i)
{
    struct durpina_counters *c = scene_counters(w->s, i);

    switch (w->meanwhile) {
    case TAKES_THE_LAST:
        c->active += w->s->want[i].max_conns;
        w->others[i] += w->s->want[i].max_conns;
        scene_cursor(w->s)->active += w->s->want[i].max_conns;
        w->others_all += w->s->want[i].max_conns;
        break;
    case SENDS_THE_PROBE:
        c->down_until_ms = NOW_MS + 1;
        break;
    case OWNER_CHANGES:
        c->generation++;
        break;
    default:
        break;
    }
    w->meanwhile = NOTHING;
}

static bool is_to_publish(const struct watch *w)
{
    const struct durpina_cursor *cursor = scene_cursor(w->s);

    if (w->meanwhile == PUBLISHES_AT_TICKET)
        return cursor->round_robin[0] + cursor->unweighted[0] != 0;
    return w->meanwhile == PUBLISHES_AT_ASKING && cursor->asked != DURPINA_ASKED_BOUND;
}

/* S6, were the worker killed now. */
static void check_step(struct watch *w)
{
    const struct durpina_try entry = w->s->inflight[0].tries[0];
    uint32_t mine_all = scene_cursor(w->s)->active - w->others_all;

    w->seen |= 1U << entry.step;
    assert_in_range(mine_all, 0, 1);
    if (entry.step == DURPINA_TRY_FREE || entry.step == DURPINA_TRY_TAKEN)
        assert_int_equal(mine_all, entry.step == DURPINA_TRY_TAKEN);
    for (uint32_t i = 0; i < w->s->n; i++) {
        uint32_t mine = scene_counters(w->s, i)->active - w->others[i];

        if (entry.step == DURPINA_TRY_FREE || entry.peer != SCENE_FIRST + i)
            assert_int_equal(mine, 0);
        else if (entry.step == DURPINA_TRY_TAKEN)
            assert_int_equal(mine, 1);
        else
            assert_in_range(mine, 0, 1);
    }
}

static uint64_t requests(struct scene *s)
{
    uint64_t all = 0;

    for (uint32_t i = 0; i < s->n; i++)
        all += durpina_requests(scene_counters(s, i));
    return all;
}

/* Stops the worker after each instruction of one pick and finish; returns how many these were. */
static uint32_t watch(struct watch *w)
{
    struct scene *s = w->s;
    uint32_t steps = 0;
    pid_t pid;
    int status;

    watched = w;
    pid = start(s, try_once, 0x123456789abcdef0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSTOPPED(status));
    while (s->found[FOUND_STOP] == 0) {
        assert_int_equal(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
        check_step(w);
        if (is_to_publish(w)) {
            struct durpina_view view = scene_put_in_force(s);

            if (w->meanwhile == PUBLISHES_AT_TICKET)
                scene_write_copy(s, &view);
            w->meanwhile = NOTHING;
        } else if (w->meanwhile < MEANWHILES &&
                   s->inflight[0].tries[0].step == DURPINA_TRY_TAKING) {
            intervene(w, s->inflight[0].tries[0].peer - SCENE_FIRST);
        }
        steps++;
    }
    assert_int_equal(ptrace(PTRACE_DETACH, pid, NULL, NULL), 0);
    end(pid);
    return steps;
}

static void entry_tells_what_is_counted_at_every_instruction(void **state) /* S6 */
{
    uint32_t steps = 0;

    (void) state;
    for (int algorithm = 0; algorithm < DURPINA_ALGORITHMS; algorithm++)
        for (int meanwhile = 0; meanwhile < MEANWHILES; meanwhile++) {
            struct scene *s = scene_create(3, NULL);
            struct watch w = {.s = s,
                              .algorithm = (enum durpina_algorithm) algorithm,
                              .meanwhile = (enum meanwhile) meanwhile};

            s->tables = SCENE_HASH | SCENE_RING;
            for (uint32_t i = 0; i < s->n; i++) {
                s->want[i].max_conns = 2;
                if (meanwhile == SENDS_THE_PROBE)
                    scene_counters(s, i)->down_until_ms = NOW_MS - 1;
            }
            scene_publish(s);
            steps += watch(&w);
            assert_int_equal(w.seen, 1U << DURPINA_TRY_FREE | 1U << DURPINA_TRY_TAKING |
                                         1U << DURPINA_TRY_TAKEN | 1U << DURPINA_TRY_GIVING);
            assert_int_equal(w.meanwhile, NOTHING);
            assert_int_equal(requests(s), 1);
            scene_destroy(s);
        }
    print_message("# %u instructions\n", steps);
}

/* The cursor was moved, the peer is about to be looked at: a publication overtakes the pick. */
static void overtaken_pick_draws_no_second_ticket(void **state) /* S3 */
{
    (void) state;
    for (int algorithm = 0; algorithm < DURPINA_ALGORITHMS; algorithm++) {
        struct scene *s = scene_create(3, NULL);
        struct watch w = {.s = s,
                          .algorithm = (enum durpina_algorithm) algorithm,
                          .meanwhile = PUBLISHES_AT_TICKET};
        const struct durpina_cursor *cursor = scene_cursor(s);
        bool draws = durpina_draws(w.algorithm);

        watch(&w);
        assert_int_equal(w.meanwhile, draws ? NOTHING : PUBLISHES_AT_TICKET);
        assert_int_equal(cursor->round_robin[0] + cursor->unweighted[0], draws);
        assert_int_equal(cursor->active, 0);
        assert_int_equal(requests(s), 1);
        scene_destroy(s);
    }
}

/* Nobody was up when the pick began, so there is nothing it looks at; then somebody comes. */
static void pick_that_finds_nobody_looks_whether_somebody_has_come(void **state) /* S1 */
{
    (void) state;
    for (int algorithm = 0; algorithm < DURPINA_ALGORITHMS; algorithm++) {
        struct scene *s = scene_create(3, NULL);
        struct watch w = {.s = s,
                          .algorithm = (enum durpina_algorithm) algorithm,
                          .meanwhile = PUBLISHES_AT_ASKING};

        for (uint32_t i = 0; i < s->n; i++)
            s->want[i].state = DURPINA_PEER_DOWN;
        scene_publish(s);
        s->want[1].state = DURPINA_PEER_UP;
        watch(&w);
        assert_int_equal(w.meanwhile, NOTHING);
        assert_int_equal(durpina_requests(scene_counters(s, 1)), 1);
        scene_destroy(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(max_conns_is_never_exceeded_by_racing_workers),
        cmocka_unit_test(churn_shows_no_peer_that_was_not_up),
        cmocka_unit_test(entry_tells_what_is_counted_at_every_instruction),
        cmocka_unit_test(overtaken_pick_draws_no_second_ticket),
        cmocka_unit_test(pick_that_finds_nobody_looks_whether_somebody_has_come),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
