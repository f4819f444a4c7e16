/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * One try, from the look at a peer to its end: may the peer take the request, is it taken, what
 * does it leave in the counters. The numbers are the invariants of durpina_select.h.
 */
#ifndef DURPINA_TAKE_H
#define DURPINA_TAKE_H

#include "durpina_abi.h"
#include "durpina_counters.h"
#include "durpina_maps.h"
#include "durpina_seq.h"

/* request.bound of 1: the mean load. */
#define DURPINA_BOUND_ONE 256
#define DURPINA_BOUND_DEFAULT (DURPINA_BOUND_ONE * 5 / 4)
#define DURPINA_BOUND_MAX (DURPINA_BOUND_ONE * 100)

/* The peers a request has been sent to already. */
struct durpina_tried {
    uint32_t n;
    uint32_t peers[DURPINA_TRIES_MAX];
};

/* What a pick goes by. */
struct durpina_request {
    enum durpina_algorithm algorithm;
    uint32_t bound; /* HASH, RING: most load of a peer over the mean in 1/256; 0: no bound */
    uint64_t hash;  /* HASH: of the key, 64 bits; RING: its CRC-32; else a random number */
    const struct durpina_tried *tried; /* not to be picked; the caller's to fill */
    struct durpina_try *entry;         /* FREE, the try is noted here; NULL: nowhere */
    uint64_t now_ms;                   /* CLOCK_MONOTONIC */
    uint32_t family; /* uncounted: peers of this enum durpina_family only; NONE: of any */
    /* A connect() in the kernel: observe.bpf.c counts what becomes of it. The pick counts as no try
     * and must not be finished; tried and entry are NULL. */
    int uncounted;
};

struct durpina_pick {
    uint32_t peer;
    uint32_t generation;
    uint32_t upstream;
    uint16_t probing;     /* the one request that a temporarily down peer gets per fail_timeout */
    uint16_t in_upstream; /* counted in `active` of the upstream as well */
    struct durpina_try *entry;
};

enum durpina_outcome {
    DURPINA_OUTCOME_SUCCESS = 0,
    DURPINA_OUTCOME_FAILURE = 1, /* what proxy_next_upstream calls an unsuccessful attempt */
    DURPINA_OUTCOME_NEUTRAL = 2, /* the client left before the peer showed anything */
};

#define DURPINA_NO_TIME UINT32_MAX

/* What a try brought; zeroed but for the times: nothing. */
struct durpina_sample {
    uint32_t status;      /* of HTTP; 0: no response */
    uint32_t connect_ms;  /* of a new connection, else DURPINA_NO_TIME */
    uint32_t header_ms;   /* to the response header, or DURPINA_NO_TIME */
    uint32_t response_ms; /* to the end of the try, or DURPINA_NO_TIME */
    uint64_t sent;        /* bytes */
    uint64_t received;
    int unconnected; /* it failed to connect, and observe.bpf.c saw it */
};

/* The table as it lies in the slots map, empty if it does not fit there. */
static inline struct durpina_table durpina_table(const struct durpina_maps *maps,
                                                 const struct durpina_table *table)
{
    struct durpina_table t = {DURPINA_LOAD(&table->offset), DURPINA_LOAD(&table->length)};
    uint32_t n = durpina_n_slots(maps);

    if (t.offset > n || t.length > n - t.offset)
        t.length = 0;
    return t;
}

/* The copy of peer's settings that the publish word of its upstream puts in force. */
static inline const struct durpina_peer_settings *durpina_settings(const struct durpina_peer *peer,
                                                                   uint64_t word)
{
    return &peer->settings[word & 1];
}

/* A consistent copy of the settings of a peer; zeroed (state FREE) if its upstream is not there. */
static inline struct durpina_peer_settings durpina_read_settings(const struct durpina_maps *maps,
                                                                 uint32_t peer)
{
    const struct durpina_peer *p = durpina_peer_at(maps, peer);
    const struct durpina_upstream *upstream =
        p ? durpina_upstream_at(maps, DURPINA_LOAD(&p->upstream)) : NULL;
    struct durpina_peer_settings s = {0};

    if (!upstream)
        return s;

    const uint64_t *publish = &upstream->publish;

    for (int i = 0; i < DURPINA_SEQ_RETRIES; i++) {
        uint64_t word = durpina_seq_begin(publish);
        const struct durpina_peer_settings *from = durpina_settings(p, word);

        if (word == 0)
            return (struct durpina_peer_settings){0};
        s.state = DURPINA_LOAD(&from->state);
        s.admin = DURPINA_LOAD(&from->admin);
        s.health = DURPINA_LOAD(&from->health);
        s.derived = DURPINA_LOAD(&from->derived);
        s.weight = DURPINA_LOAD(&from->weight);
        s.initial_weight = DURPINA_LOAD(&from->initial_weight);
        s.max_fails = DURPINA_LOAD(&from->max_fails);
        s.fail_timeout_ms = DURPINA_LOAD(&from->fail_timeout_ms);
        s.max_conns = DURPINA_LOAD(&from->max_conns);
        s.slow_start_ms = DURPINA_LOAD(&from->slow_start_ms);
        if (!durpina_seq_retry(publish, word))
            break;
    }
    return s;
}

/* --- taking a peer --- */

static inline int durpina_was_tried(const struct durpina_tried *tried, uint32_t peer)
{
    for (uint32_t i = 0; i < tried->n && i < DURPINA_TRIES_MAX; i++)
        if (tried->peers[i] == peer)
            return 1;
    return 0;
}

struct durpina_kernel_picking;

/* What a pick carries along; word is the publish word it reads by. */
struct durpina_picking {
    const struct durpina_maps *maps;
    const struct durpina_request *request;
    const struct durpina_upstream *upstream;
    struct durpina_cursor *cursor;
    uint32_t upstream_id;
    uint32_t tier; /* that is picked from; DURPINA_TIERS: either */
    int single;
    int last;       /* the last attempt: do not look at the publish word again */
    uint32_t bound; /* request->bound, or 0 when nobody is below it */
    uint64_t word;
    struct durpina_kernel_picking *kernel; /* in the kernel: the same without pointers */
    uint64_t active; /* with a bound: of the upstream, this try included ... */
    uint64_t weight; /* ... and the weights it is shared out by */
};

enum durpina_verdict { DURPINA_TAKEN, DURPINA_AVAILABLE, DURPINA_SKIPPED, DURPINA_OVERTAKEN };

/* A peer that may take the request, as last seen. */
struct durpina_candidate {
    struct durpina_counters *counters;
    uint32_t peer;
    uint32_t generation;
    uint32_t weight;
    uint32_t active;      /* what "least" is about: tries in flight, or the kernel's count */
    uint32_t most_active; /* it may have with this try; 0: no limit */
    uint32_t fail_timeout_ms;
    uint64_t down_until_ms;
    uint64_t latency_us; /* see durpina_weigh() */
};

/* Connections to the peer that are there or about to be, by the kernel's count. */
static inline uint32_t durpina_connections(const struct durpina_maps *maps,
                                           const struct durpina_peer *peer)
{
    const struct durpina_endpoint *endpoint =
        durpina_endpoint_at(maps, DURPINA_LOAD(&peer->endpoint));

    return endpoint ? DURPINA_LOAD(&endpoint->open) + DURPINA_LOAD(&endpoint->connecting) : 0;
}

/* The most tries that a peer of this weight may have, rounded up: bound * active * weight / all. */
static inline uint64_t durpina_bounded(const struct durpina_picking *p, uint32_t weight)
{
    uint64_t divisor = p->weight * DURPINA_BOUND_ONE;

    return divisor == 0 ? 1 : (p->bound * p->active * weight + divisor - 1) / divisor;
}

/*
 * What else there is to see for a connect() in the kernel. 0: not of the family that it can go to.
 * The family is identity, and who picks looks at the generation once more (durpina_vip_locate()).
 */
static inline int durpina_look_uncounted(const struct durpina_picking *p,
                                         const struct durpina_peer *record,
                                         struct durpina_candidate *ret)
{
    uint32_t family = p->request->family;

    ret->active = durpina_connections(p->maps, record);
    return family == DURPINA_FAMILY_NONE || family == DURPINA_LOAD(&record->family);
}

/*
 * May the peer take this request? The only place that decides so. What is published is read before
 * the publish word is checked again.
 */
DURPINA_INLINE enum durpina_verdict durpina_look(const struct durpina_picking *p, uint32_t peer,
                                                 struct durpina_candidate *ret)
{
    const struct durpina_peer *record = durpina_peer_at(p->maps, peer);
    struct durpina_counters *c = durpina_counters_at(p->maps, peer);

    if (!record || !c)
        return DURPINA_SKIPPED;

    const struct durpina_peer_settings *settings = durpina_settings(record, p->word);
    uint32_t state = DURPINA_LOAD(&settings->state);
    uint32_t upstream = DURPINA_LOAD(&record->upstream);
    uint32_t tier = DURPINA_LOAD(&record->tier);

    ret->counters = c;
    ret->peer = peer;
    ret->generation = DURPINA_LOAD(&record->generation);
    ret->weight = DURPINA_LOAD(&settings->weight);
    ret->most_active = DURPINA_LOAD(&settings->max_conns);
    ret->fail_timeout_ms = DURPINA_LOAD(&settings->fail_timeout_ms);
    ret->down_until_ms = DURPINA_LOAD(&c->down_until_ms);
    ret->active = DURPINA_LOAD(&c->active);

    if (!p->last && durpina_seq_retry(&p->upstream->publish, p->word))
        return DURPINA_OVERTAKEN;
    /* A hash or ring may lag: the record may be another upstream's by now, or of the other tier. */
    if (state != DURPINA_PEER_UP || upstream != p->upstream_id ||
        (tier != p->tier && p->tier != DURPINA_TIERS))
        return DURPINA_SKIPPED;
    if (p->request->uncounted ? !durpina_look_uncounted(p, record, ret)
                              : durpina_was_tried(p->request->tried, peer))
        return DURPINA_SKIPPED;
    if (p->single)
        ret->down_until_ms = 0;
    if (ret->down_until_ms > p->request->now_ms)
        return DURPINA_SKIPPED;
    if (p->bound != 0) {
        uint64_t bounded = durpina_bounded(p, ret->weight);

        if (ret->most_active == 0 || bounded < ret->most_active)
            ret->most_active = (uint32_t) bounded;
    }
    /* Looked at before it is raised: who is full is not pushed over the limit by every pick. */
    if (ret->most_active != 0 && ret->active >= ret->most_active)
        return DURPINA_SKIPPED;
    return DURPINA_AVAILABLE;
}

/* Does the upstream count its tries? One more line to share, for who needs it only. */
static inline int durpina_counts(const struct durpina_cursor *cursor)
{
    return (DURPINA_LOAD(&cursor->asked) & DURPINA_ASKED_BOUND) != 0;
}

/*
 * Notes how far the try has come. Notes and `active` change in the order of the program, for who
 * looks on as for who comes after a kill: all are stored with release.
 */
static inline void durpina_note_step(struct durpina_try *entry, enum durpina_try_step step)
{
    __atomic_store_n(&entry->step, step, __ATOMIC_RELEASE);
}

/* The first note of a try; one without an entry is untracked for longer than it is active. */
static inline void durpina_note_taking(struct durpina_cursor *cursor, struct durpina_try *entry,
                                       uint32_t peer, int in_upstream)
{
    if (!entry) {
        __atomic_fetch_add(&cursor->untracked, 1, __ATOMIC_RELEASE);
        return;
    }

    const union {
        struct durpina_try entry;
        uint64_t word;
    } w = {.entry = {.peer = peer,
                     .step = DURPINA_TRY_TAKING,
                     .in_upstream = in_upstream != 0,
                     .turn = (uint16_t) (DURPINA_LOAD(&entry->turn) + 1)}};

    __atomic_store_n(durpina_alias(entry), w.word, __ATOMIC_RELEASE);
}

/* The last one. */
static inline void durpina_note_free(struct durpina_cursor *cursor, struct durpina_try *entry)
{
    if (entry)
        durpina_note_step(entry, DURPINA_TRY_FREE);
    else
        __atomic_fetch_sub(&cursor->untracked, 1, __ATOMIC_RELEASE);
}

/* One word, so that who raises active learns whose it is: the record may have got another owner
 * since it was looked at. */
union durpina_owned {
    struct {
        uint32_t generation;
        uint32_t active;
    };
    uint64_t word;
};

/* Of all that see the deadline of a temporarily down peer passed, one sends the probing request. */
static inline int durpina_take_probe(const struct durpina_picking *p,
                                     const struct durpina_candidate *from)
{
    uint64_t down_until_ms = from->down_until_ms;

    return __atomic_compare_exchange_n(&from->counters->down_until_ms, &down_until_ms,
                                       p->request->now_ms + from->fail_timeout_ms, 0,
                                       __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

/* durpina_take() where a try is not counted. */
static inline enum durpina_verdict durpina_choose(const struct durpina_picking *p,
                                                  const struct durpina_candidate *from,
                                                  struct durpina_pick *ret_pick)
{
    if (from->down_until_ms != 0 && !durpina_take_probe(p, from))
        return DURPINA_SKIPPED;
    DURPINA_STORE(&from->counters->selected_ms, p->request->now_ms);
    *ret_pick = (struct durpina_pick){.peer = from->peer,
                                      .generation = from->generation,
                                      .upstream = p->upstream_id,
                                      .probing = from->down_until_ms != 0};
    return DURPINA_TAKEN;
}

/* Takes the candidate, unless others were faster: nothing has changed then. */
DURPINA_INLINE enum durpina_verdict durpina_take(const struct durpina_picking *p,
                                                 const struct durpina_candidate *from,
                                                 struct durpina_pick *ret_pick)
{
    struct durpina_try *entry = p->request->entry;

    if (DURPINA_IN_KERNEL || (!entry && p->request->uncounted))
        return durpina_choose(p, from, ret_pick);

    struct durpina_counters *c = from->counters;
    struct durpina_cursor *cursor = p->cursor;
    int in_upstream = durpina_counts(cursor);

    durpina_note_taking(cursor, entry, from->peer, in_upstream);

    const union durpina_owned one = {.active = 1};
    union durpina_owned old = {
        .word = __atomic_fetch_add(durpina_alias(&c->generation), one.word, __ATOMIC_RELEASE)};

    if (old.generation != from->generation ||
        (from->most_active != 0 && old.active >= from->most_active) ||
        (from->down_until_ms != 0 && !durpina_take_probe(p, from))) {
        __atomic_fetch_sub(&c->active, 1, __ATOMIC_RELEASE);
        durpina_note_free(cursor, entry);
        return DURPINA_SKIPPED;
    }
    if (in_upstream)
        __atomic_fetch_add(&cursor->active, 1, __ATOMIC_RELEASE);
    if (entry)
        durpina_note_step(entry, DURPINA_TRY_TAKEN);
    DURPINA_STORE(&c->selected_ms, p->request->now_ms);
    ret_pick->peer = from->peer;
    ret_pick->generation = from->generation;
    ret_pick->upstream = p->upstream_id;
    ret_pick->probing = from->down_until_ms != 0;
    ret_pick->in_upstream = in_upstream != 0;
    ret_pick->entry = entry;
    return DURPINA_TAKEN;
}

DURPINA_INLINE enum durpina_verdict durpina_try_peer(const struct durpina_picking *p, uint32_t peer,
                                                     struct durpina_pick *ret_pick)
{
    struct durpina_candidate candidate;
    enum durpina_verdict verdict = durpina_look(p, peer, &candidate);

    return verdict == DURPINA_AVAILABLE ? durpina_take(p, &candidate, ret_pick) : verdict;
}

/* --- the end of a try --- */

/* durpina_add_fail() for a peer id (below maps->n_peers), by its published settings. */
static inline uint32_t durpina_fail(const struct durpina_maps *maps, uint32_t peer,
                                    enum durpina_witness witness, uint64_t now_ms)
{
    struct durpina_peer_settings s = durpina_read_settings(maps, peer);
    const struct durpina_upstream *u =
        durpina_upstream_at(maps, DURPINA_LOAD(&maps->peers[peer].upstream));
    int single = u && DURPINA_LOAD(&u->view[durpina_seq_begin(&u->publish) & 1].peers.length) == 1;

    return durpina_add_fail(&maps->counters[peer], s.max_fails, s.fail_timeout_ms, single, witness,
                            now_ms);
}

static inline void durpina_count_sample(struct durpina_counters *c, enum durpina_outcome outcome,
                                        const struct durpina_sample *sample, uint64_t now_ms)
{
    int responded = sample->status >= 100 && sample->status <= 599;
    int is_error = outcome == DURPINA_OUTCOME_FAILURE || sample->status >= 500;
    uint64_t *ended = responded ? &c->responses[sample->status / 100 - 1] : &c->unanswered;

    __atomic_fetch_add(ended, 1, __ATOMIC_RELAXED);
    /* An addition to a line that all workers write to is worth a test. */
    if (sample->sent != 0)
        __atomic_fetch_add(&c->sent, sample->sent, __ATOMIC_RELAXED);
    if (sample->received != 0)
        __atomic_fetch_add(&c->received, sample->received, __ATOMIC_RELAXED);
    if (sample->connect_ms != DURPINA_NO_TIME)
        durpina_add_latency(&c->connect, sample->connect_ms, 0, now_ms);
    if ((responded || is_error) && sample->response_ms != DURPINA_NO_TIME) {
        durpina_add_latency(&c->header,
                            sample->header_ms != DURPINA_NO_TIME ? sample->header_ms
                                                                 : sample->response_ms,
                            is_error, now_ms);
        durpina_add_latency(&c->last_byte, sample->response_ms, is_error, now_ms);
    }
}

/*
 * Ends a pick: gives back its share of `active` and lets its outcome and sample (NULL: none) count.
 * A peer that has another owner by now is left alone.
 */
static inline void durpina_finish(const struct durpina_maps *maps, const struct durpina_pick *pick,
                                  enum durpina_outcome outcome, const struct durpina_sample *sample,
                                  uint64_t now_ms)
{
    struct durpina_counters *c = durpina_counters_at(maps, pick->peer);
    struct durpina_cursor *cursor = durpina_cursor_at(maps, pick->upstream);

    if (!c || !cursor)
        return;

    int is_owner = DURPINA_LOAD(&c->generation) == pick->generation;

    if (pick->entry)
        durpina_note_step(pick->entry, DURPINA_TRY_GIVING);
    if (is_owner)
        __atomic_fetch_sub(&c->active, 1, __ATOMIC_RELEASE);
    if (pick->in_upstream)
        __atomic_fetch_sub(&cursor->active, 1, __ATOMIC_RELEASE);
    durpina_note_free(cursor, pick->entry);
    if (!is_owner)
        return;

    if (sample)
        durpina_count_sample(c, outcome, sample, now_ms);
    else
        __atomic_fetch_add(&c->unanswered, 1, __ATOMIC_RELAXED);
    if (outcome == DURPINA_OUTCOME_FAILURE) {
        durpina_fail(maps, pick->peer,
                     sample && sample->unconnected ? DURPINA_WORKER_CONNECT : DURPINA_WORKER,
                     now_ms);
    } else if (outcome == DURPINA_OUTCOME_SUCCESS) {
        /* Success of a request that began before the failures proves nothing. */
        if (pick->probing)
            durpina_clear_fails(c);
    }
}

#endif
