/* SPDX-License-Identifier: MIT */
/*
 * walk(): a million picks of one algorithm, each judged by a reference that looks at all peers.
 * Weights, states, tiers, limits, load and failures are random, published anew every now and then;
 * so is what the kernel says of addresses, for the algorithms that go by it.
 */
#ifndef DURPINA_TESTS_SELECT_WALK_H
#define DURPINA_TESTS_SELECT_WALK_H

#include "select_scene.h"

#define PICKS 1000000
#define PICKS_PER_SCENE 20000
#define PICKS_PER_PUBLICATION 400
#define HELD 120 /* tries in flight at once */

struct held {
    struct durpina_pick pick;
    struct durpina_try *entry;
};

struct walk {
    struct scene *s;
    uint64_t seed, now_ms;
    uint32_t load; /* tries in flight, about */
    uint32_t n_held, picks, none, backups, first_choices;
    struct held held[HELD];
    /* Before the pick at hand: */
    struct durpina_request request;
    struct durpina_tried tried;
    uint64_t ticket[DURPINA_TIERS];
    uint32_t active[SCENE_PEERS];
    uint32_t connections[SCENE_PEERS]; /* by the kernel's count; where there is none, active */
    bool available[SCENE_PEERS];
    uint32_t n_available[DURPINA_TIERS];
};

/* Asserts that i is the peer to pick; that it is available, and its tier the right one, is checked
 * already. */
typedef void (*reference)(struct walk *w, const struct durpina_tier *tier, uint32_t i);

static inline uint32_t slot(const struct walk *w, struct durpina_table table, uint64_t place)
{
    return w->s->slots[table.offset + place] - SCENE_FIRST;
}

static inline enum durpina_tier_id tier_of(const struct walk *w, const struct durpina_tier *tier)
{
    return tier == &scene_view(w->s)->tier[DURPINA_TIER_PRIMARY] ? DURPINA_TIER_PRIMARY
                                                                 : DURPINA_TIER_BACKUP;
}

static inline uint32_t random_weight(uint64_t *seed)
{
    switch (scene_below(seed, 4)) {
    case 0:
        return 1;
    case 1:
        return 1 + scene_below(seed, 5);
    case 2:
        return 10 * (1 + scene_below(seed, 3));
    default:
        return scene_below(seed, 20);
    }
}

static inline void change_peer(struct walk *w, uint32_t i)
{
    struct durpina_peer_settings *want = &w->s->want[i];

    want->weight = random_weight(&w->seed);
    want->state = DURPINA_PEER_UP;
    if (scene_below(&w->seed, 6) == 0)
        want->state = (enum durpina_peer_state)(DURPINA_PEER_UP + scene_below(&w->seed, 6));
    want->max_conns = scene_below(&w->seed, 3) == 0 ? 1 + scene_below(&w->seed, 6) : 0;
    want->max_fails = scene_below(&w->seed, 4);
    want->fail_timeout_ms = 1 + scene_below(&w->seed, 2000);
}

static inline bool goes_by_the_kernel(const struct walk *w)
{
    return w->request.algorithm == DURPINA_LEAST_CONN_KERNEL ||
           w->request.algorithm == DURPINA_LEAST_TIME_KERNEL;
}

/* The peer's, or NULL if picks are to do without. */
static inline const struct durpina_endpoint *endpoint_of(const struct walk *w, uint32_t i)
{
    uint32_t id = w->s->peers[SCENE_FIRST + i].endpoint;

    return w->s->meta.observing && id < SCENE_ENDPOINTS ? &w->s->endpoints[id] : NULL;
}

/* Peers share endpoints; some have none, or an id that is none. */
static inline void connect_peers(struct walk *w)
{
    w->s->meta.observing = scene_below(&w->seed, 8) != 0;
    for (uint32_t i = 0; i < w->s->n; i++)
        w->s->peers[SCENE_FIRST + i].endpoint = scene_below(&w->seed, SCENE_ENDPOINTS + 2);
}

/* Connections come and go, of whatever process. */
static inline void change_connections(struct walk *w)
{
    struct durpina_endpoint *e = &w->s->endpoints[scene_below(&w->seed, SCENE_ENDPOINTS)];

    e->open = scene_below(&w->seed, 3) ? scene_below(&w->seed, 12) : 0;
    e->connecting = scene_below(&w->seed, 3) ? 0 : scene_below(&w->seed, 4);
    if (e != &w->s->endpoints[0] && scene_below(&w->seed, 4) == 0)
        durpina_add_sample(&e->rtt, scene_below(&w->seed, 1 << 20), 0, w->now_ms);
}

static inline void begin_scene(struct walk *w, uint32_t n, uint32_t tables)
{
    w->s = scene_create(n, NULL);
    w->s->tables = tables;
    w->load = 1 + scene_below(&w->seed, HELD * 3 / 4);
    for (uint32_t i = 0; i < n; i++) {
        w->s->tier[i] = scene_below(&w->seed, 4) == 0 ? DURPINA_TIER_BACKUP : DURPINA_TIER_PRIMARY;
        change_peer(w, i);
    }
    if (goes_by_the_kernel(w))
        connect_peers(w);
    scene_cursor(w->s)->round_robin[0] = scene_random(&w->seed);
    scene_publish(w->s);
}

static inline void finish(struct walk *w, uint32_t place)
{
    struct held h = w->held[place];
    uint32_t ms = (h.pick.peer - SCENE_FIRST) % 7 * 20 + scene_below(&w->seed, 30);
    struct durpina_sample sample = {.status = 200 + 100 * scene_below(&w->seed, 4),
                                    .connect_ms = DURPINA_NO_TIME,
                                    .header_ms = ms,
                                    .response_ms = ms + scene_below(&w->seed, 100)};
    enum durpina_outcome outcome = DURPINA_OUTCOME_SUCCESS;

    if (scene_below(&w->seed, 50) == 0)
        outcome = (enum durpina_outcome) scene_below(&w->seed, 3);
    durpina_finish(&w->s->maps, &h.pick, outcome, &sample, w->now_ms);
    if (h.entry)
        assert_int_equal(h.entry->step, DURPINA_TRY_FREE);
    w->held[place] = w->held[--w->n_held];
}

/* What is counted is what is held. */
static inline void count(struct walk *w)
{
    uint32_t held[SCENE_PEERS] = {0}, untracked = 0;

    for (uint32_t k = 0; k < w->n_held; k++) {
        held[w->held[k].pick.peer - SCENE_FIRST]++;
        untracked += w->held[k].entry == NULL;
        if (w->held[k].entry) {
            assert_int_equal(w->held[k].entry->step, DURPINA_TRY_TAKEN);
            assert_int_equal(w->held[k].entry->peer, w->held[k].pick.peer);
        }
    }
    for (uint32_t i = 0; i < w->s->n; i++)
        assert_int_equal(scene_counters(w->s, i)->active, held[i]);
    assert_int_equal(scene_cursor(w->s)->active, w->n_held);
    assert_int_equal(scene_cursor(w->s)->untracked, untracked);
}

static inline struct durpina_try *free_entry(struct walk *w)
{
    struct durpina_try *entry = &w->s->inflight[scene_below(&w->seed, SCENE_PAGES)]
                                     .tries[scene_below(&w->seed, DURPINA_TRIES_PER_PAGE)];

    return entry->step == DURPINA_TRY_FREE ? entry : NULL;
}

/* Notes who is available to the request, by all that the settings and counters say. */
static inline void look_around(struct walk *w)
{
    const struct durpina_cursor *cursor = scene_cursor(w->s);
    bool is_single = w->s->n == 1;

    for (int tier = 0; tier < DURPINA_TIERS; tier++) {
        w->n_available[tier] = 0;
        w->ticket[tier] = w->request.algorithm == DURPINA_UNWEIGHTED_ROUND_ROBIN
                              ? cursor->unweighted[tier]
                              : cursor->round_robin[tier];
    }
    for (uint32_t i = 0; i < w->s->n; i++) {
        const struct durpina_peer_settings *now = &w->s->want[i];
        const struct durpina_counters *c = scene_counters(w->s, i);

        w->active[i] = w->connections[i] = c->active;
        if (goes_by_the_kernel(w) && endpoint_of(w, i))
            w->connections[i] = endpoint_of(w, i)->open + endpoint_of(w, i)->connecting;
        w->available[i] = now->state == DURPINA_PEER_UP && now->weight != 0 &&
                          (is_single || c->down_until_ms <= w->now_ms) &&
                          (now->max_conns == 0 || c->active < now->max_conns);
    }
    for (uint32_t k = 0; k < w->tried.n; k++)
        w->available[w->tried.peers[k] - SCENE_FIRST] = false;
    for (uint32_t i = 0; i < w->s->n; i++)
        w->n_available[w->s->tier[i]] += w->available[i];
}

static inline uint64_t hash_of_a_point(struct walk *w)
{
    const struct durpina_table *ring = &scene_view(w->s)->tier[scene_below(&w->seed, 2)].ring;
    const uint32_t *at = &w->s->slots[ring->offset];

    if (ring->length == 0)
        return 0;
    return at[DURPINA_RING_HEADER + (1U << at[0]) + scene_below(&w->seed, at[1])];
}

static inline void pick_once(struct walk *w, reference expect)
{
    struct durpina_pick pick;
    enum durpina_pick_error err;

    w->request.hash = scene_random(&w->seed);
    if (w->request.algorithm == DURPINA_RING && scene_below(&w->seed, 4) == 0)
        w->request.hash = hash_of_a_point(w) + scene_below(&w->seed, 3) - 1;
    w->request.entry = scene_below(&w->seed, 16) ? free_entry(w) : NULL;
    w->request.now_ms = w->now_ms;
    w->request.tried = &w->tried;
    w->tried.n = scene_below(&w->seed, 4) ? 0 : scene_below(&w->seed, 4);
    for (uint32_t k = 0; k < w->tried.n; k++)
        w->tried.peers[k] = SCENE_FIRST + scene_below(&w->seed, w->s->n);
    if (goes_by_the_kernel(w))
        change_connections(w);
    look_around(w);
    w->picks++;
    err = scene_pick(w->s, &w->request, &pick);
    if (err == DURPINA_PICK_NO_PEER) {
        w->none++;
        if (w->s->n <= DURPINA_MEMBER_TRIES)
            assert_int_equal(w->n_available[0] + w->n_available[1], 0);
        return;
    }
    assert_int_equal(err, DURPINA_PICK_OK);

    uint32_t i = pick.peer - SCENE_FIRST;

    assert_in_range(i, 0, w->s->n - 1);
    assert_true(w->available[i]);
    assert_int_equal(pick.entry == NULL, w->request.entry == NULL);
    if (w->s->tier[i] == DURPINA_TIER_BACKUP) {
        w->backups++;
        if (w->s->n <= DURPINA_MEMBER_TRIES)
            assert_int_equal(w->n_available[DURPINA_TIER_PRIMARY], 0);
    }
    expect(w, &scene_view(w->s)->tier[w->s->tier[i]], i);
    assert_true(w->n_held < HELD);
    w->held[w->n_held++] = (struct held){pick, w->request.entry};
}

/* bound: of the requests, or 0 */
static inline void walk(enum durpina_algorithm algorithm, uint32_t bound, uint32_t n_most,
                        reference expect)
{
    struct walk *w = calloc(1, sizeof(*w));
    uint32_t tables = algorithm == DURPINA_HASH   ? SCENE_HASH
                      : algorithm == DURPINA_RING ? SCENE_RING
                                                  : 0;

    assert_non_null(w);
    w->seed = scene_seed();
    w->now_ms = SCENE_NOW_MS;
    w->request = (struct durpina_request){.algorithm = algorithm, .bound = bound};
    for (uint32_t step = 0; w->picks < PICKS; step++) {
        if (w->picks % PICKS_PER_SCENE == 0 && w->n_held == 0) {
            if (w->s)
                scene_destroy(w->s);
            begin_scene(w, 1 + scene_below(&w->seed, n_most), tables);
        }
        w->now_ms += scene_below(&w->seed, 4);
        if (step % PICKS_PER_PUBLICATION == 0) {
            for (uint32_t k = scene_below(&w->seed, 5); k > 0; k--)
                change_peer(w, scene_below(&w->seed, w->s->n));
            scene_publish(w->s);
            count(w);
        }
        while (w->n_held > 0 &&
               (w->n_held == HELD || scene_below(&w->seed, 2 * w->load) < w->n_held ||
                w->picks % PICKS_PER_SCENE == PICKS_PER_SCENE - 1))
            finish(w, scene_below(&w->seed, w->n_held));
        pick_once(w, expect);
        if (w->picks % PICKS_PER_SCENE == 0)
            while (w->n_held > 0)
                finish(w, 0);
    }
    count(w);
    print_message(
        "# %u peers at most: %u picks, %u found none, %u took backups, %u the first choice\n",
        n_most, w->picks, w->none, w->backups, w->first_choices);
    assert_in_range(w->first_choices, PICKS / 10, PICKS - 1);
    assert_true(n_most > DURPINA_MEMBER_TRIES || (w->none > 0 && w->backups > 0));
    scene_destroy(w->s);
    free(w);
}

#endif
