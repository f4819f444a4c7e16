/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* One try of a slot: in a process a call like any other, in the kernel a step that the verifier
 * walks through on its own. */
#ifndef DURPINA_TRY_H
#define DURPINA_TRY_H

#include "durpina_abi.h"
#include "durpina_maps.h"
#include "durpina_take.h"

#ifdef __bpf__

/*
 * The verifier walks through a static function at each call, through loops as often as they may
 * turn, and would never come to an end. Through a global function it walks once. Such a one can be
 * given no pointers but to plain memory: this is what durpina_picking says without them.
 */
struct durpina_kernel_picking {
    uint64_t word;
    uint64_t now_ms;
    uint64_t at; /* the ticket, or the hash */
    uint32_t upstream;
    uint32_t slot; /* whose peer is to be tried */
    uint32_t peer; /* the result: */
    uint32_t generation;
    uint8_t probing;
    uint8_t tier;
    uint8_t family;
    uint8_t algorithm;
    uint8_t single;
    uint8_t last;
    uint8_t reserved[2];
};

#define DURPINA_KERNEL_PICKING(p, ticket)                                                          \
    {                                                                                              \
        .word = (p)->word, .now_ms = (p)->request->now_ms,                                         \
        .at = durpina_draws((p)->request->algorithm) ? (ticket) : (p)->request->hash,              \
        .upstream = (p)->upstream_id, .tier = (uint8_t) (p)->tier,                                 \
        .family = (uint8_t) (p)->request->family, .algorithm = (uint8_t) (p)->request->algorithm,  \
        .single = (uint8_t) (p)->single, .last = (uint8_t) (p)->last                               \
    }

#define DURPINA_KERNEL_REQUEST(k)                                                                  \
    {                                                                                              \
        .algorithm = (enum durpina_algorithm)(k)->algorithm, .hash = (k)->at,                      \
        .now_ms = (k)->now_ms, .family = (k)->family, .uncounted = 1                               \
    }

#define DURPINA_PICK_OF_KERNEL(k)                                                                  \
    {                                                                                              \
        .peer = (k)->peer, .generation = (k)->generation, .upstream = (k)->upstream,               \
        .probing = (k)->probing                                                                    \
    }

/* And back. */
#define DURPINA_PICKING_OF_KERNEL(k, its_request)                                                  \
    {                                                                                              \
        .kernel = (k), .request = (its_request),                                                   \
        .upstream = durpina_upstream_at(NULL, (k)->upstream), .upstream_id = (k)->upstream,        \
        .tier = (k)->tier, .single = (k)->single, .last = (k)->last, .word = (k)->word             \
    }

int durpina_kernel_try(struct durpina_kernel_picking *k);

__attribute__((noinline)) int durpina_kernel_try(struct durpina_kernel_picking *k)
{
    if (!k)
        return DURPINA_SKIPPED;

    const struct durpina_request request = DURPINA_KERNEL_REQUEST(k);
    const struct durpina_picking p = DURPINA_PICKING_OF_KERNEL(k, &request);

    struct durpina_pick pick;
    enum durpina_verdict verdict = DURPINA_SKIPPED;

    if (p.upstream)
        verdict = durpina_try_peer(&p, durpina_slot(NULL, k->slot), &pick);
    if (verdict == DURPINA_TAKEN) {
        k->peer = pick.peer;
        k->generation = pick.generation;
        k->probing = (uint8_t) pick.probing;
    }
    return verdict;
}

/* As below. */
static inline enum durpina_verdict durpina_try_slot(const struct durpina_picking *p, uint32_t slot,
                                                    struct durpina_pick *ret_pick)
{
    (void) ret_pick; /* durpina_pick() makes it from the result */
    p->kernel->slot = slot;
    return (enum durpina_verdict) durpina_kernel_try(p->kernel);
}

#else

/* Takes the peer at a slot, if it may take this request. */
DURPINA_INLINE enum durpina_verdict durpina_try_slot(const struct durpina_picking *p, uint32_t slot,
                                                     struct durpina_pick *ret_pick)
{
    return durpina_try_peer(p, durpina_slot(p->maps, slot), ret_pick);
}

#endif

#endif
