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
#include "durpina_algorithms.h"
#include "durpina_seq.h"
#include "durpina_take.h"
#include "durpina_try.h"

/* Why a pick failed. */
enum durpina_pick_error {
    DURPINA_PICK_OK = 0,
    DURPINA_PICK_NO_UPSTREAM = 1, /* the record is free or has another owner */
    DURPINA_PICK_NO_PEER = 2,     /* nobody is available */
};

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

/* As below; the tier is the one that p names. */
static inline enum durpina_verdict durpina_search(const struct durpina_picking *p,
                                                  const struct durpina_tier *tier, uint64_t ticket,
                                                  struct durpina_pick *ret_pick)
{
    struct durpina_kernel_picking k = DURPINA_KERNEL_PICKING(p, ticket);
    enum durpina_verdict verdict = (enum durpina_verdict) durpina_kernel_pick_tier(&k);

    (void) tier;
    *ret_pick = (struct durpina_pick) DURPINA_PICK_OF_KERNEL(&k);
    return verdict;
}

#else

/* Takes a peer of the tier, if one may take this request. */
DURPINA_INLINE enum durpina_verdict durpina_search(const struct durpina_picking *p,
                                                   const struct durpina_tier *tier, uint64_t ticket,
                                                   struct durpina_pick *ret_pick)
{
    return durpina_pick_tier(p, tier, ticket, ret_pick);
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
                verdict = durpina_search(&p, tier, ticket[t], ret_pick);
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
