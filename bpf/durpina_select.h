/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Selection: which peer takes a request, and what its end means for the peer. Pure functions over
 * the ABI structs, without libc, helpers, locks or allocation; one text for the nginx module, the
 * programs in the kernel and the tests.
 *
 *     struct durpina_pick pick;
 *     err = durpina_pick(maps, upstream, generation, algorithm, hash, &tried, now_ms, &pick);
 *     ... the request runs ...
 *     durpina_finish(maps, &pick, outcome, now_ms);        exactly once for each pick
 *
 * Invariants
 *  S1. A pick reads one whole published state (durpina_seq.h), or after DURPINA_SEQ_RETRIES
 *      overtakings a bounded one that is at most a publication old.
 *  S2. A pick costs the same at any number of peers: it tries DURPINA_SLOT_TRIES slots and
 *      DURPINA_MEMBER_TRIES members of a tier at most. A tier of up to DURPINA_MEMBER_TRIES
 *      available peers is therefore searched to the end; in a larger one a pick can miss only if
 *      all the peers it tried turned unavailable since the last publication.
 *  S3. While nothing changes, any run of S consecutive round robin picks, over all processes,
 *      contains each peer exactly as often as the schedule of length S does.
 *  S4. durpina_pick() raises `active` by one exactly if it returns 0, and never above max_conns;
 *      durpina_finish() lowers it again, unless the peer's record has another owner by then.
 *  S5. A peer that is temporarily down gets one request per fail_timeout over all workers.
 */
#ifndef DURPINA_SELECT_H
#define DURPINA_SELECT_H

#include "durpina_abi.h"
#include "durpina_seq.h"

#define DURPINA_SLOT_TRIES 32
#define DURPINA_MEMBER_TRIES 64

/* Where the maps are mapped, with their capacities in elements. */
struct durpina_maps {
    const struct durpina_meta *meta;
    const struct durpina_upstream *upstreams;
    const struct durpina_peer *peers;
    const uint32_t *slots;
    struct durpina_counters *counters; /* of each peer */
    struct durpina_cursor *cursors;    /* of each upstream */
    uint32_t n_upstreams;
    uint32_t n_peers;
    uint32_t n_slots;
};

/* The peers a request has been sent to already. */
struct durpina_tried {
    uint32_t n;
    uint32_t peers[DURPINA_TRIES_MAX];
};

struct durpina_pick {
    uint32_t peer;
    uint32_t generation;
    uint32_t probing; /* the one request that a temporarily down peer gets per fail_timeout */
    uint32_t reserved;
};

enum durpina_outcome {
    DURPINA_OUTCOME_SUCCESS = 0,
    DURPINA_OUTCOME_FAILURE = 1, /* what proxy_next_upstream calls an unsuccessful attempt */
    DURPINA_OUTCOME_NEUTRAL = 2, /* the client left before the peer showed anything */
};

/* Why a pick failed. */
enum durpina_pick_error {
    DURPINA_PICK_OK = 0,
    DURPINA_PICK_NO_UPSTREAM = 1, /* the record is free or has another owner */
    DURPINA_PICK_NO_PEER = 2,     /* nobody is available */
};

/* Finalizer of MurmurHash3: the next place to look when the peer at one is not available. */
static inline uint64_t durpina_mix(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdULL;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53ULL;
    x ^= x >> 33;
    return x;
}

/* The table as it lies in the slots map, empty if it does not fit there. */
static inline struct durpina_table durpina_table(const struct durpina_maps *maps,
                                                 const struct durpina_table *table)
{
    struct durpina_table t = {DURPINA_LOAD(&table->offset), DURPINA_LOAD(&table->length)};

    if (t.offset > maps->n_slots || t.length > maps->n_slots - t.offset)
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
    const struct durpina_peer *p = &maps->peers[peer];
    struct durpina_peer_settings s = {0};
    uint32_t upstream = DURPINA_LOAD(&p->upstream);

    if (upstream >= maps->n_upstreams)
        return s;

    const uint64_t *publish = &maps->upstreams[upstream].publish;

    for (int i = 0; i < DURPINA_SEQ_RETRIES; i++) {
        uint64_t word = durpina_seq_begin(publish);
        const struct durpina_peer_settings *from = durpina_settings(p, word);

        if (word == 0)
            return (struct durpina_peer_settings){0};
        s.state = DURPINA_LOAD(&from->state);
        s.weight = DURPINA_LOAD(&from->weight);
        s.admin = DURPINA_LOAD(&from->admin);
        s.health = DURPINA_LOAD(&from->health);
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

/*
 * fails and fails_at_ms change together: they are one 8 byte word. memcpy would be the portable
 * spelling; the builtin compiles to nothing everywhere, BPF included.
 */
union durpina_fails {
    struct {
        uint32_t fails;
        uint32_t at_ms;
    };
    uint64_t word;
};

/* Workers read their clocks at most this far apart; nginx caches the time of each turn of its loop. */
#define DURPINA_CLOCK_SKEW_MS 60000U

/* Is timeout_ms over since at_ms, on the clock modulo 2^32? An age close to 2^32 is a negative one. */
static inline int durpina_is_over(uint32_t at_ms, uint32_t timeout_ms, uint64_t now_ms)
{
    uint32_t age_ms = (uint32_t) now_ms - at_ms;

    return age_ms > timeout_ms && age_ms <= UINT32_MAX - DURPINA_CLOCK_SKEW_MS;
}

typedef uint64_t __attribute__((may_alias)) durpina_alias_u64;

static inline durpina_alias_u64 *durpina_fails_word(struct durpina_counters *c)
{
    return (durpina_alias_u64 *) (void *) &c->fails;
}

/* Failures with no pause longer than fail_timeout_ms between them, nor since the last. */
static inline uint32_t durpina_fails(const struct durpina_counters *c, uint32_t fail_timeout_ms,
                                     uint64_t now_ms)
{
    union durpina_fails f = {
        .word = DURPINA_LOAD((const durpina_alias_u64 *) (const void *) &c->fails)};

    return durpina_is_over(f.at_ms, fail_timeout_ms, now_ms) ? 0 : f.fails;
}

/* Non-zero while passive failures keep the peer from taking requests. */
static inline int durpina_is_temp_down(const struct durpina_counters *c, uint64_t now_ms)
{
    return DURPINA_LOAD(&c->down_until_ms) > now_ms;
}

/*
 * Makes the peer temporarily down for fail_timeout_ms from now on, in every worker at once.
 */
static inline void durpina_set_temp_down(struct durpina_counters *c, uint32_t fail_timeout_ms,
                                         uint64_t now_ms)
{
    if (__atomic_exchange_n(&c->down_until_ms, now_ms + fail_timeout_ms, __ATOMIC_RELAXED) == 0)
        __atomic_fetch_add(&c->unavail, 1, __ATOMIC_RELAXED);
}

/* Forgets the failures of the peer: it is not failing nor temporarily down any more. */
static inline void durpina_clear_fails(struct durpina_counters *c)
{
    __atomic_store_n(durpina_fails_word(c), 0, __ATOMIC_RELAXED);
    DURPINA_STORE(&c->down_until_ms, 0);
}

/*
 * Counts one failure (nginx's max_fails and fail_timeout): max_fails of them with no pause longer
 * than fail_timeout in between make the peer temporarily down for fail_timeout, and so does a single one of a peer that was
 * temporarily down before. max_fails 0: nothing but the total is counted.
 * single: the only peer of its upstream is never taken out.
 * Returns the failures in the window, this one included.
 */
static inline uint32_t durpina_add_fail(struct durpina_counters *c, uint32_t max_fails,
                                        uint32_t fail_timeout_ms, int single, uint64_t now_ms)
{
    union durpina_fails old, next;

    __atomic_fetch_add(&c->failed, 1, __ATOMIC_RELAXED);
    if (max_fails == 0)
        return 0;

    old.word = DURPINA_LOAD(durpina_fails_word(c));
    do {
        next.fails = durpina_is_over(old.at_ms, fail_timeout_ms, now_ms) ? 1 : old.fails + 1;
        next.at_ms = (uint32_t) now_ms;
    } while (!__atomic_compare_exchange_n(durpina_fails_word(c), &old.word, next.word, 0,
                                          __ATOMIC_RELAXED, __ATOMIC_RELAXED));

    if (!single && (next.fails >= max_fails || DURPINA_LOAD(&c->down_until_ms) != 0))
        durpina_set_temp_down(c, fail_timeout_ms, now_ms);
    return next.fails;
}

static inline int durpina_was_tried(const struct durpina_tried *tried, uint32_t peer)
{
    for (uint32_t i = 0; i < tried->n && i < DURPINA_TRIES_MAX; i++)
        if (tried->peers[i] == peer)
            return 1;
    return 0;
}

/* What a pick carries along; word is the publish word it reads by. */
struct durpina_picking {
    const struct durpina_maps *maps;
    const struct durpina_upstream *upstream;
    uint64_t word;
    const struct durpina_tried *tried;
    uint64_t now_ms;
    int single;
    int last; /* the last attempt: do not look at the publish word again */
};

enum durpina_verdict { DURPINA_TAKEN, DURPINA_SKIPPED, DURPINA_OVERTAKEN };

/*
 * Takes the peer if it may take this request: the only place that decides so. Everything is read
 * before the publish word is checked again, and nothing is written before.
 */
static inline enum durpina_verdict durpina_take(const struct durpina_picking *p, uint32_t peer,
                                                struct durpina_pick *ret_pick)
{
    if (peer >= p->maps->n_peers)
        return DURPINA_SKIPPED;

    const struct durpina_peer *record = &p->maps->peers[peer];
    const struct durpina_peer_settings *settings = durpina_settings(record, p->word);
    struct durpina_counters *c = &p->maps->counters[peer];
    uint32_t generation = DURPINA_LOAD(&record->generation);
    uint32_t state = DURPINA_LOAD(&settings->state);
    uint32_t max_conns = DURPINA_LOAD(&settings->max_conns);
    uint32_t fail_timeout_ms = DURPINA_LOAD(&settings->fail_timeout_ms);
    uint64_t down_until_ms = DURPINA_LOAD(&c->down_until_ms);

    if (!p->last && durpina_seq_retry(&p->upstream->publish, p->word))
        return DURPINA_OVERTAKEN;
    if (state != DURPINA_PEER_UP || durpina_was_tried(p->tried, peer))
        return DURPINA_SKIPPED;
    if (DURPINA_LOAD(&c->generation) != generation)
        return DURPINA_SKIPPED;
    if (p->single)
        down_until_ms = 0;
    if (down_until_ms > p->now_ms)
        return DURPINA_SKIPPED;
    /* Looked at before it is raised: who is full is not pushed over the limit by every pick. */
    if (max_conns != 0 && DURPINA_LOAD(&c->active) >= max_conns)
        return DURPINA_SKIPPED;

    uint32_t active = __atomic_fetch_add(&c->active, 1, __ATOMIC_RELAXED);

    if ((max_conns != 0 && active >= max_conns) ||
        /* Of all workers that see the deadline passed, one sends the probing request. */
        (down_until_ms != 0 && !__atomic_compare_exchange_n(&c->down_until_ms, &down_until_ms,
                                                            p->now_ms + fail_timeout_ms, 0,
                                                            __ATOMIC_RELAXED, __ATOMIC_RELAXED))) {
        __atomic_fetch_sub(&c->active, 1, __ATOMIC_RELAXED);
        return DURPINA_SKIPPED;
    }
    __atomic_fetch_add(&c->requests, 1, __ATOMIC_RELAXED);
    DURPINA_STORE(&c->selected_ms, p->now_ms);
    ret_pick->peer = peer;
    ret_pick->generation = generation;
    ret_pick->probing = down_until_ms != 0;
    ret_pick->reserved = 0;
    return DURPINA_TAKEN;
}

static inline uint64_t durpina_ticket(struct durpina_cursor *cursor,
                                      enum durpina_algorithm algorithm, uint32_t tier)
{
    uint64_t *at = algorithm == DURPINA_UNWEIGHTED_ROUND_ROBIN ? &cursor->unweighted[tier]
                                                               : &cursor->round_robin[tier];

    return __atomic_fetch_add(at, 1, __ATOMIC_RELAXED);
}

/*
 * Looks for a peer in one tier: at the slot that the ticket or the hash names, then at random ones
 * derived from it, so that the share of a peer that is not available is spread over the others by
 * their weights, and the same key always finds the same one; then at all members, beginning at
 * one that the ticket or the hash chooses.
 */
static inline enum durpina_verdict durpina_pick_tier(const struct durpina_picking *p,
                                                     const struct durpina_tier *tier,
                                                     enum durpina_algorithm algorithm, uint64_t at,
                                                     struct durpina_pick *ret_pick)
{
    struct durpina_table members = durpina_table(p->maps, &tier->members);
    struct durpina_table table = algorithm == DURPINA_ROUND_ROBIN
                                     ? durpina_table(p->maps, &tier->schedule)
                                 : algorithm == DURPINA_HASH ? durpina_table(p->maps, &tier->hash)
                                                             : members;
    enum durpina_verdict verdict;
    uint64_t place = at;

    if (members.length == 0)
        return DURPINA_SKIPPED;
    for (uint32_t i = 0; i < DURPINA_SLOT_TRIES && table.length != 0; i++) {
        uint32_t slot = table.offset + (uint32_t) (place % table.length);

        verdict = durpina_take(p, DURPINA_LOAD(&p->maps->slots[slot]), ret_pick);
        if (verdict != DURPINA_SKIPPED)
            return verdict;
        place = durpina_mix(place + 1);
    }
    for (uint32_t i = 0; i < DURPINA_MEMBER_TRIES && i < members.length; i++) {
        uint32_t slot = members.offset + (uint32_t) ((at + i) % members.length);

        verdict = durpina_take(p, DURPINA_LOAD(&p->maps->slots[slot]), ret_pick);
        if (verdict != DURPINA_SKIPPED)
            return verdict;
    }
    return DURPINA_SKIPPED;
}

/*
 * Picks a peer of the upstream (id and generation as found by name) and counts the try as active.
 *   hash     of the key, for DURPINA_HASH
 *   tried    peers not to be picked; the caller adds the one it gets
 *   now_ms   CLOCK_MONOTONIC
 */
static inline enum durpina_pick_error durpina_pick(const struct durpina_maps *maps,
                                                   uint32_t upstream, uint32_t generation,
                                                   enum durpina_algorithm algorithm, uint64_t hash,
                                                   const struct durpina_tried *tried,
                                                   uint64_t now_ms, struct durpina_pick *ret_pick)
{
    uint64_t ticket[DURPINA_TIERS] = {hash, hash};
    int drawn[DURPINA_TIERS] = {0, 0};

    if (upstream >= maps->n_upstreams)
        return DURPINA_PICK_NO_UPSTREAM;

    struct durpina_picking p = {.maps = maps,
                                .upstream = &maps->upstreams[upstream],
                                .tried = tried,
                                .now_ms = now_ms};

    for (int attempt = 0; attempt < DURPINA_SEQ_RETRIES; attempt++) {
        enum durpina_verdict verdict = DURPINA_SKIPPED;

        p.last = attempt == DURPINA_SEQ_RETRIES - 1;
        p.word = durpina_seq_begin(&p.upstream->publish);
        if (p.word == 0 || DURPINA_LOAD(&p.upstream->generation) != generation)
            return DURPINA_PICK_NO_UPSTREAM;

        const struct durpina_view *view = &p.upstream->view[p.word & 1];

        p.single = DURPINA_LOAD(&view->peers.length) == 1;
        for (uint32_t t = 0; t < DURPINA_TIERS && verdict == DURPINA_SKIPPED; t++) {
            /* An overtaken attempt keeps its ticket: none is lost, the schedule stays exact. */
            if (algorithm != DURPINA_HASH && !drawn[t] &&
                DURPINA_LOAD(&view->tier[t].members.length) != 0) {
                ticket[t] = durpina_ticket(&maps->cursors[upstream], algorithm, t);
                drawn[t] = 1;
            }
            verdict = durpina_pick_tier(&p, &view->tier[t], algorithm, ticket[t], ret_pick);
        }
        if (verdict == DURPINA_TAKEN)
            return DURPINA_PICK_OK;
        if (verdict == DURPINA_SKIPPED &&
            (p.last || !durpina_seq_retry(&p.upstream->publish, p.word)))
            return DURPINA_PICK_NO_PEER;
    }
    return DURPINA_PICK_NO_PEER;
}

/*
 * Takes a peer that the caller chose (id and generation), if it may take this request.
 */
static inline enum durpina_pick_error
durpina_pick_peer(const struct durpina_maps *maps, uint32_t peer, uint32_t generation,
                  const struct durpina_tried *tried, uint64_t now_ms, struct durpina_pick *ret_pick)
{
    if (peer >= maps->n_peers)
        return DURPINA_PICK_NO_PEER;

    const struct durpina_peer *record = &maps->peers[peer];
    uint32_t upstream = DURPINA_LOAD(&record->upstream);

    if (upstream >= maps->n_upstreams || DURPINA_LOAD(&record->generation) != generation)
        return DURPINA_PICK_NO_PEER;

    struct durpina_picking p = {.maps = maps,
                                .upstream = &maps->upstreams[upstream],
                                .tried = tried,
                                .now_ms = now_ms};

    for (int attempt = 0; attempt < DURPINA_SEQ_RETRIES; attempt++) {
        p.last = attempt == DURPINA_SEQ_RETRIES - 1;
        p.word = durpina_seq_begin(&p.upstream->publish);
        if (p.word == 0)
            return DURPINA_PICK_NO_UPSTREAM;
        p.single = DURPINA_LOAD(&p.upstream->view[p.word & 1].peers.length) == 1;

        enum durpina_verdict verdict = durpina_take(&p, peer, ret_pick);

        if (verdict == DURPINA_TAKEN)
            return DURPINA_PICK_OK;
        if (verdict == DURPINA_SKIPPED)
            return DURPINA_PICK_NO_PEER;
    }
    return DURPINA_PICK_NO_PEER;
}

/* durpina_add_fail() for a peer id (below maps->n_peers), by its published settings. */
static inline uint32_t durpina_fail(const struct durpina_maps *maps, uint32_t peer, uint64_t now_ms)
{
    struct durpina_peer_settings s = durpina_read_settings(maps, peer);
    uint32_t upstream = DURPINA_LOAD(&maps->peers[peer].upstream);
    int single = 0;

    if (upstream < maps->n_upstreams) {
        const struct durpina_upstream *u = &maps->upstreams[upstream];

        single = DURPINA_LOAD(&u->view[durpina_seq_begin(&u->publish) & 1].peers.length) == 1;
    }
    return durpina_add_fail(&maps->counters[peer], s.max_fails, s.fail_timeout_ms, single, now_ms);
}

/*
 * Ends a pick: gives back its share of `active` and lets its outcome count. A pick whose peer has
 * another owner by now changes nothing.
 */
static inline void durpina_finish(const struct durpina_maps *maps, const struct durpina_pick *pick,
                                  enum durpina_outcome outcome, uint64_t now_ms)
{
    if (pick->peer >= maps->n_peers)
        return;

    struct durpina_counters *c = &maps->counters[pick->peer];

    if (DURPINA_LOAD(&c->generation) != pick->generation)
        return;
    __atomic_fetch_sub(&c->active, 1, __ATOMIC_RELAXED);

    if (outcome == DURPINA_OUTCOME_FAILURE) {
        durpina_fail(maps, pick->peer, now_ms);
    } else if (outcome == DURPINA_OUTCOME_SUCCESS) {
        /* Success of a request that began before the failures proves nothing. */
        if (pick->probing)
            durpina_clear_fails(c);
    }
}

#endif
