/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * How the algorithms search a tier: slot by slot, along a ring, or by comparing peers. Each ends
 * with the verdict on the last peer that it tried; what it may cost at most is a constant below.
 */
#ifndef DURPINA_ALGORITHMS_H
#define DURPINA_ALGORITHMS_H

#include "durpina_abi.h"
#include "durpina_maps.h"
#include "durpina_take.h"
#include "durpina_try.h"

#define DURPINA_SLOT_TRIES 32
#define DURPINA_MEMBER_TRIES 64
#define DURPINA_SECOND_TRIES 8 /* draws of one peer when another one is looked for */
#define DURPINA_SCANS 4        /* of all members, when others take the best one meanwhile */
#define DURPINA_RING_STEPS 64  /* most points between two entries of a ring's index */

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

#endif
