/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Selection: which peer takes a request, and what its end means for the peer. Pure functions over
 * the ABI structs, without libc, helpers, locks or allocation; one text for the nginx module, the
 * programs in the kernel and the tests.
 *
 *     struct durpina_pick pick;
 *     err = durpina_pick(maps, upstream, generation, &request, &pick);
 *     ... the request runs ...
 *     durpina_finish(maps, &pick, outcome, &sample, now_ms);    exactly once for each pick
 *
 * Invariants
 *  S1. A pick reads one whole published state (durpina_seq.h), or after DURPINA_SEQ_RETRIES
 *      overtakings a bounded one that is at most a publication old.
 *  S2. A pick costs the same at any number of peers: it tries DURPINA_SLOT_TRIES slots and
 *      DURPINA_MEMBER_TRIES members of a tier at most, and compares all members only if they are no
 *      more than these. A tier of up to DURPINA_MEMBER_TRIES available peers is therefore searched
 *      to the end; in a larger one a pick can miss only if all the peers it tried turned
 *      unavailable since the last publication.
 *  S3. While nothing changes, any run of S consecutive round robin picks, over all processes,
 *      contains each peer exactly as often as the schedule of length S does.
 *  S4. durpina_pick() raises `active` of the peer, and of the upstream if that one counts, by one
 *      exactly if it returns 0, and that of the peer never above max_conns; durpina_finish() lowers
 *      them again, that of the peer unless its record has another owner by then.
 *  S5. A peer that is temporarily down gets one request per fail_timeout over all workers.
 *  S6. A process that is killed at any instruction leaves in request.entry what it had counted:
 *      TAKEN is counted, FREE is not, in between it may be.
 */
#ifndef DURPINA_SELECT_H
#define DURPINA_SELECT_H

#include "durpina_abi.h"
#include "durpina_seq.h"
#include "durpina_take.h"

#define DURPINA_SLOT_TRIES 32
#define DURPINA_MEMBER_TRIES 64
#define DURPINA_SECOND_TRIES 8 /* draws of one peer when another one is looked for */
#define DURPINA_SCANS 4        /* of all members, when others take the best one meanwhile */
#define DURPINA_RING_STEPS 64  /* most points between two entries of a ring's index */

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

/* --- algorithms --- */

/* The slot that a 64-bit hash or random number names in a table of this length. */
static inline uint32_t durpina_place(uint64_t hash, uint32_t length)
{
    return (uint32_t) (((hash >> 32) * length) >> 32);
}

/* The slot whose turn it is; most CPUs divide 32 bits twice as fast as 64. */
static inline uint32_t durpina_turn(uint64_t ticket, uint32_t length)
{
    return ticket <= UINT32_MAX ? (uint32_t) ticket % length : (uint32_t) (ticket % length);
}

/* The place behind one. Where a count wraps, the verifier would follow each way on its own. */
static inline uint32_t durpina_next_place(uint32_t place, uint32_t length)
{
    if (DURPINA_IN_KERNEL)
        return (place + 1) % length;
    return place + 1 == length ? 0 : place + 1;
}

/* Tries members one after the other, up to DURPINA_MEMBER_TRIES, beginning where `at` says. */
DURPINA_APART enum durpina_verdict durpina_pick_member(const struct durpina_picking *p,
                                                       const struct durpina_tier *tier, uint64_t at,
                                                       struct durpina_pick *ret_pick)
{
    struct durpina_table members = durpina_table(p->maps, &tier->members);
    uint32_t place = members.length != 0 ? durpina_turn(at, members.length) : 0;

    for (uint32_t i = 0; i < DURPINA_MEMBER_TRIES && i < members.length; i++) {
        enum durpina_verdict verdict = durpina_try_slot(p, members.offset + place, ret_pick);

        if (verdict != DURPINA_SKIPPED)
            return verdict;
        place = durpina_next_place(place, members.length);
    }
    return DURPINA_SKIPPED;
}

/*
 * Tries random slots derived from seed, so that the share of a peer that is not available is spread
 * over the others by their weights, and the same key always finds the same one.
 */
DURPINA_APART enum durpina_verdict durpina_pick_elsewhere(const struct durpina_picking *p,
                                                          const struct durpina_table *table,
                                                          uint64_t seed,
                                                          struct durpina_pick *ret_pick)
{
    for (uint32_t i = 1; i < DURPINA_SLOT_TRIES; i++) {
        seed = durpina_mix(seed + 1);

        uint32_t place = durpina_place(seed, table->length);
        enum durpina_verdict verdict = durpina_try_slot(p, table->offset + place, ret_pick);

        if (verdict != DURPINA_SKIPPED)
            return verdict;
    }
    return DURPINA_SKIPPED;
}

/*
 * Tries the first point at or behind the hash, then those that follow on the ring. Not in the
 * kernel, where the slots are not one array.
 */
DURPINA_APART enum durpina_verdict durpina_pick_point(const struct durpina_picking *p,
                                                      const struct durpina_tier *tier,
                                                      uint32_t hash, struct durpina_pick *ret_pick)
{
    struct durpina_table ring = durpina_table(p->maps, &tier->ring);

    if (ring.length < DURPINA_RING_HEADER)
        return DURPINA_SKIPPED;

    const uint32_t *at = &p->maps->slots[ring.offset];
    uint32_t bits = DURPINA_LOAD(&at[0]), n = DURPINA_LOAD(&at[1]);

    if (bits == 0 || bits > DURPINA_RING_BITS_MAX || n == 0 ||
        DURPINA_RING_HEADER + (1ULL << bits) + 2ULL * n > ring.length)
        return DURPINA_SKIPPED;

    const uint32_t *index = at + DURPINA_RING_HEADER, *hashes = index + (1U << bits);
    const uint32_t *ids = hashes + n;
    uint32_t i = DURPINA_LOAD(&index[hash >> (32 - bits)]);

    for (uint32_t step = 0; step < DURPINA_RING_STEPS && i < n && DURPINA_LOAD(&hashes[i]) < hash;
         step++)
        i++;
    for (uint32_t try = 0; try < DURPINA_SLOT_TRIES; try++, i++) {
        if (i >= n)
            i = 0;

        enum durpina_verdict verdict = durpina_try_peer(p, DURPINA_LOAD(&ids[i]), ret_pick);

        if (verdict != DURPINA_SKIPPED)
            return verdict;
    }
    return DURPINA_SKIPPED;
}

/* Is it one of a set of algorithms, which is a word with a bit for each? */
static inline int durpina_is_in(enum durpina_algorithm algorithm, uint32_t set)
{
    return set >> ((uint32_t) algorithm % 32) & 1;
}

/* Does the algorithm compare latencies, or only tries in flight? */
static inline int durpina_is_timed(enum durpina_algorithm algorithm)
{
    return !durpina_is_in(algorithm, 1U << DURPINA_LEAST_CONN | 1U << DURPINA_RANDOM_TWO |
                                         1U << DURPINA_LEAST_CONN_KERNEL);
}

/*
 * Makes the candidate be compared by what the kernel knows of its address. Where the kernel knows
 * nothing, it is as with DURPINA_LEAST_CONN and without a known latency.
 */
DURPINA_APART void durpina_weigh_kernel(const struct durpina_picking *p,
                                        struct durpina_candidate *candidate)
{
    const struct durpina_peer *record = durpina_peer_at(p->maps, candidate->peer);
    const struct durpina_endpoint *endpoint =
        record && DURPINA_LOAD(&p->maps->meta->observing)
            ? durpina_endpoint_at(p->maps, DURPINA_LOAD(&record->endpoint))
            : NULL;

    if (!endpoint)
        return;
    candidate->active = durpina_connections(p->maps, record);
    if (p->request->algorithm == DURPINA_LEAST_TIME_KERNEL)
        candidate->latency_us = durpina_latency_us(&endpoint->rtt, p->request->now_ms);
}

/* durpina_look() with what the algorithm compares; latency 0: none is known. */
static inline enum durpina_verdict durpina_weigh(const struct durpina_picking *p, uint32_t peer,
                                                 struct durpina_candidate *ret)
{
    enum durpina_algorithm algorithm = p->request->algorithm;
    enum durpina_verdict verdict = durpina_look(p, peer, ret);

    ret->latency_us = 0;
    if (verdict != DURPINA_AVAILABLE ||
        durpina_is_in(algorithm, 1U << DURPINA_LEAST_CONN | 1U << DURPINA_RANDOM_TWO))
        return verdict;
    if (algorithm == DURPINA_LEAST_CONN_KERNEL || algorithm == DURPINA_LEAST_TIME_KERNEL)
        durpina_weigh_kernel(p, ret);
    else
        ret->latency_us =
            durpina_latency_us(algorithm == DURPINA_LEAST_TIME_LAST_BYTE ? &ret->counters->last_byte
                                                                         : &ret->counters->header,
                               p->request->now_ms);
    return verdict;
}

/* Is a the better choice? A peer without a sample is taken to be as fast as the other one. */
static inline int durpina_is_better(const struct durpina_picking *p,
                                    const struct durpina_candidate *a,
                                    const struct durpina_candidate *b)
{
    uint64_t cost_a = a->active, cost_b = b->active;

    if (durpina_is_timed(p->request->algorithm)) {
        int known = a->latency_us != 0 && b->latency_us != 0;

        /* 29 bits of microseconds and 16 of weight leave 19. */
        cost_a = (cost_a < (1U << 18) ? cost_a : (1U << 18)) + 1;
        cost_b = (cost_b < (1U << 18) ? cost_b : (1U << 18)) + 1;
        cost_a *= known ? a->latency_us : 1;
        cost_b *= known ? b->latency_us : 1;
    }
    return cost_a * b->weight < cost_b * a->weight;
}

/* Takes the better one of two: of the peer at slot `first`, and of a random one, by weight. */
static inline enum durpina_verdict durpina_pick_of_two(const struct durpina_picking *p,
                                                       struct durpina_table schedule,
                                                       uint32_t first, uint64_t seed,
                                                       struct durpina_pick *ret_pick)
{
    struct durpina_candidate one, two;
    enum durpina_verdict verdict;
    uint32_t place = first, same = 0;
    int have = 0;

    for (uint32_t i = 0; i < DURPINA_SLOT_TRIES && same < DURPINA_SECOND_TRIES; i++) {
        uint32_t peer = durpina_slot(p->maps, schedule.offset + place);

        seed = durpina_mix(seed + 1);
        place = durpina_place(seed, schedule.length);
        if (have && peer == one.peer) {
            same++;
            continue;
        }
        verdict = durpina_weigh(p, peer, have ? &two : &one);
        if (verdict == DURPINA_OVERTAKEN)
            return verdict;
        if (verdict != DURPINA_AVAILABLE)
            continue;
        have = !have;
        if (have)
            continue;
        verdict = durpina_take(p, durpina_is_better(p, &two, &one) ? &two : &one, ret_pick);
        if (verdict != DURPINA_SKIPPED)
            return verdict;
    }
    return have ? durpina_take(p, &one, ret_pick) : DURPINA_SKIPPED;
}

/*
 * Takes the best one of all members. The peer at slot `first` of the schedule is the first to be
 * looked at: who are equal have their turns by weight. Peers with and without a known latency are
 * compared among themselves first, so that the order does not matter.
 */
static inline enum durpina_verdict durpina_pick_best(const struct durpina_picking *p,
                                                     struct durpina_table members, uint32_t first,
                                                     uint64_t ticket, struct durpina_pick *ret_pick)
{
    for (uint32_t scan = 0; scan < DURPINA_SCANS; scan++) {
        struct durpina_candidate best[2], other;
        int have[2] = {0, 0};
        uint32_t place = durpina_turn(ticket, members.length);

        for (uint32_t i = 0; i <= DURPINA_MEMBER_TRIES && i <= members.length; i++) {
            uint32_t peer = first;

            if (i != 0) {
                peer = durpina_slot(p->maps, members.offset + place);
                if (++place == members.length)
                    place = 0;
                if (peer == first)
                    continue;
            }

            enum durpina_verdict verdict = durpina_weigh(p, peer, &other);

            if (verdict == DURPINA_OVERTAKEN)
                return verdict;
            if (verdict == DURPINA_SKIPPED)
                continue;

            int known = other.latency_us != 0;

            if (have[known] && !durpina_is_better(p, &other, &best[known]))
                continue;
            best[known] = other;
            have[known] = 1;
            if (other.active == 0 && !durpina_is_timed(p->request->algorithm))
                break; /* nobody is better */
        }
        if (!have[0] && !have[1])
            return DURPINA_SKIPPED;

        int known = have[1] && (!have[0] || durpina_is_better(p, &best[1], &best[0]));
        enum durpina_verdict verdict = durpina_take(p, &best[known], ret_pick);

        if (verdict != DURPINA_SKIPPED)
            return verdict;
    }
    return DURPINA_SKIPPED;
}

/* Does the algorithm count its picks, over all processes? */
static inline int durpina_draws(enum durpina_algorithm algorithm)
{
    return !durpina_is_in(algorithm, 1U << DURPINA_HASH | 1U << DURPINA_RING |
                                         1U << DURPINA_RANDOM_TWO | 1U << DURPINA_PEAK_EWMA);
}

/* Compares some peers or all of the tier. */
DURPINA_APART enum durpina_verdict durpina_pick_compared(const struct durpina_picking *p,
                                                         const struct durpina_tier *tier,
                                                         uint64_t ticket,
                                                         struct durpina_pick *ret_pick)
{
    const struct durpina_request *request = p->request;
    struct durpina_table members = durpina_table(p->maps, &tier->members);
    struct durpina_table schedule = durpina_table(p->maps, &tier->schedule);
    uint32_t first;

    if (schedule.length == 0)
        return DURPINA_SKIPPED;
    first = durpina_draws(request->algorithm) ? durpina_turn(ticket, schedule.length)
                                              : durpina_place(request->hash, schedule.length);
    if (durpina_draws(request->algorithm) && members.length <= DURPINA_MEMBER_TRIES)
        return durpina_pick_best(p, members, durpina_slot(p->maps, schedule.offset + first), ticket,
                                 ret_pick);
    return durpina_pick_of_two(p, schedule, first, request->hash, ret_pick);
}

DURPINA_INLINE enum durpina_verdict durpina_pick_tier(const struct durpina_picking *p,
                                                      const struct durpina_tier *tier,
                                                      uint64_t ticket,
                                                      struct durpina_pick *ret_pick)
{
    const struct durpina_request *request = p->request;
    uint64_t at = durpina_draws(request->algorithm) ? ticket : request->hash;
    enum durpina_verdict verdict = DURPINA_SKIPPED;
    struct durpina_table table = {0, 0};

    if (DURPINA_LOAD(&tier->members.length) == 0)
        return DURPINA_SKIPPED;
    switch (request->algorithm) {
    case DURPINA_ROUND_ROBIN:
        table = durpina_table(p->maps, &tier->schedule);
        break;
    case DURPINA_UNWEIGHTED_ROUND_ROBIN:
        table = durpina_table(p->maps, &tier->members);
        break;
    case DURPINA_HASH:
        table = durpina_table(p->maps, &tier->hash);
        break;
    case DURPINA_RING:
        if (!DURPINA_IN_KERNEL)
            verdict = durpina_pick_point(p, tier, (uint32_t) at, ret_pick);
        break;
    default:
        if (!DURPINA_IN_KERNEL)
            verdict = durpina_pick_compared(p, tier, ticket, ret_pick);
        break;
    }
    if (table.length != 0) {
        uint32_t place = request->algorithm == DURPINA_HASH ? durpina_place(at, table.length)
                                                            : durpina_turn(at, table.length);

        verdict = durpina_try_slot(p, table.offset + place, ret_pick);
        if (verdict == DURPINA_SKIPPED)
            verdict = durpina_pick_elsewhere(p, &table, at, ret_pick);
    }
    return verdict == DURPINA_SKIPPED ? durpina_pick_member(p, tier, at, ret_pick) : verdict;
}

#ifdef __bpf__

int durpina_kernel_pick_tier(struct durpina_kernel_picking *k);

__attribute__((noinline)) int durpina_kernel_pick_tier(struct durpina_kernel_picking *k)
{
    if (!k)
        return DURPINA_SKIPPED;

    const struct durpina_request request = DURPINA_KERNEL_REQUEST(k);
    const struct durpina_picking p = DURPINA_PICKING_OF_KERNEL(k, &request);

    if (!p.upstream || p.tier >= DURPINA_TIERS)
        return DURPINA_SKIPPED;
    return durpina_pick_tier(&p, &p.upstream->view[p.word & 1].tier[p.tier], k->at, NULL);
}

#endif

static inline uint64_t durpina_ticket(struct durpina_cursor *cursor,
                                      enum durpina_algorithm algorithm, uint32_t tier)
{
    uint64_t *at = algorithm == DURPINA_UNWEIGHTED_ROUND_ROBIN ? &cursor->unweighted[tier]
                                                               : &cursor->round_robin[tier];

    return __atomic_fetch_add(at, 1, __ATOMIC_RELAXED);
}

/* Tells all processes what is in demand, once. */
static inline void durpina_ask(struct durpina_cursor *cursor, const struct durpina_request *request)
{
    uint32_t bits = request->algorithm == DURPINA_HASH   ? DURPINA_ASKED_HASH
                    : request->algorithm == DURPINA_RING ? DURPINA_ASKED_RING
                                                         : DURPINA_ASKED_NO_TABLE;

    if (request->bound != 0)
        bits |= DURPINA_ASKED_BOUND;
    if ((DURPINA_LOAD(&cursor->asked) & bits) != bits)
        __atomic_fetch_or((uint32_t *) &cursor->asked, bits, __ATOMIC_RELAXED);
}

/*
 * Picks a peer of the upstream (id and generation as found by name) and counts the try as active.
 * A hash or ring that is not laid out (yet) is stood in for by hash modulo members.
 */
static inline enum durpina_pick_error durpina_pick(const struct durpina_maps *maps,
                                                   uint32_t upstream, uint32_t generation,
                                                   const struct durpina_request *request,
                                                   struct durpina_pick *ret_pick)
{
    uint64_t ticket[DURPINA_TIERS] = {0, 0};
    uint32_t drawn = 0; /* a bit for each tier */

    struct durpina_cursor *cursor = durpina_cursor_at(maps, upstream);
    struct durpina_picking p = {.maps = maps,
                                .request = request,
                                .upstream = durpina_upstream_at(maps, upstream),
                                .cursor = cursor,
                                .upstream_id = upstream};

    if (!p.upstream || !cursor)
        return DURPINA_PICK_NO_UPSTREAM;

    for (int attempt = 0; attempt < DURPINA_SEQ_RETRIES; attempt++) {
        enum durpina_verdict verdict = DURPINA_SKIPPED;

        p.last = attempt == DURPINA_SEQ_RETRIES - 1;
        p.word = durpina_seq_begin(&p.upstream->publish);
        if (p.word == 0 || DURPINA_LOAD(&p.upstream->generation) != generation)
            return DURPINA_PICK_NO_UPSTREAM;
        durpina_ask(cursor, request);

        const struct durpina_view *view = &p.upstream->view[p.word & 1];

        p.single = DURPINA_LOAD(&view->peers.length) == 1;
        for (uint32_t t = 0; t < DURPINA_TIERS && verdict == DURPINA_SKIPPED; t++) {
            const struct durpina_tier *tier = &view->tier[t];

            p.tier = t;
            /* An overtaken attempt keeps its ticket: none is lost, the schedule stays exact. */
            if (durpina_draws(request->algorithm) && !(drawn & 1U << t) &&
                DURPINA_LOAD(&tier->members.length) != 0) {
                ticket[t] = durpina_ticket(cursor, request->algorithm, t);
                drawn |= 1U << t;
            }
            p.bound = request->bound;
            if (p.bound != 0) {
                p.active = DURPINA_LOAD(&cursor->active) + 1ULL;
                p.weight = DURPINA_LOAD(&tier->weight);
            }
            for (;; p.bound = 0) { /* rather one above the bound than none */
#ifdef __bpf__
                struct durpina_kernel_picking k = DURPINA_KERNEL_PICKING(&p, ticket[t]);

                verdict = (enum durpina_verdict) durpina_kernel_pick_tier(&k);
                *ret_pick = (struct durpina_pick) DURPINA_PICK_OF_KERNEL(&k);
#else
                verdict = durpina_pick_tier(&p, tier, ticket[t], ret_pick);
#endif
                if (verdict != DURPINA_SKIPPED || p.bound == 0)
                    break;
            }
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
 * Takes a peer that the caller chose (id and generation), if it may take this request. Of the
 * request, algorithm, bound and hash do not matter.
 */
static inline enum durpina_pick_error durpina_pick_peer(const struct durpina_maps *maps,
                                                        uint32_t peer, uint32_t generation,
                                                        const struct durpina_request *request,
                                                        struct durpina_pick *ret_pick)
{
    const struct durpina_peer *record = durpina_peer_at(maps, peer);

    if (!record || DURPINA_LOAD(&record->generation) != generation)
        return DURPINA_PICK_NO_PEER;

    uint32_t upstream = DURPINA_LOAD(&record->upstream);
    struct durpina_picking p = {.maps = maps,
                                .request = request,
                                .upstream = durpina_upstream_at(maps, upstream),
                                .cursor = durpina_cursor_at(maps, upstream),
                                .upstream_id = upstream,
                                .tier = DURPINA_TIERS};

    if (!p.upstream || !p.cursor)
        return DURPINA_PICK_NO_PEER;

    for (int attempt = 0; attempt < DURPINA_SEQ_RETRIES; attempt++) {
        p.last = attempt == DURPINA_SEQ_RETRIES - 1;
        p.word = durpina_seq_begin(&p.upstream->publish);
        if (p.word == 0)
            return DURPINA_PICK_NO_UPSTREAM;
        p.single = DURPINA_LOAD(&p.upstream->view[p.word & 1].peers.length) == 1;

        enum durpina_verdict verdict = durpina_try_peer(&p, peer, ret_pick);

        if (verdict == DURPINA_TAKEN)
            return DURPINA_PICK_OK;
        if (verdict == DURPINA_SKIPPED)
            return DURPINA_PICK_NO_PEER;
    }
    return DURPINA_PICK_NO_PEER;
}

#endif
