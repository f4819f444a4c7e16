/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Who a connect() to a virtual endpoint is sent to. Pure functions, for the programs and the tests.
 *
 * A socket remembers one virtual endpoint, the last one that it was sent to a peer for: a UDP
 * socket that talks to several in turn gets a new peer at each turn, and is shown the dialled
 * address for what the last peer sends only.
 */
#ifndef DURPINA_VIP_H
#define DURPINA_VIP_H

#include "durpina_abi.h"
#include "durpina_address.h"
#include "durpina_select.h"

/* What is known of a connect() to a virtual endpoint, or of a datagram for it. */
struct durpina_dial {
    struct durpina_address address; /* that was dialled */
    uint64_t hash;                  /* of the source, for DURPINA_HASH */
    uint64_t now_ms;                /* CLOCK_MONOTONIC */
    int elsewhere; /* in another network namespace than the peers: not to a loopback address */
};

/* The algorithms that need nothing but what the kernel has. */
static inline int durpina_vip_knows(uint32_t algorithm)
{
    return algorithm == DURPINA_ROUND_ROBIN || algorithm == DURPINA_UNWEIGHTED_ROUND_ROBIN ||
           algorithm == DURPINA_HASH;
}

/* Writes where the peer is. 0: its record has another owner by now. */
static inline int durpina_vip_locate(const struct durpina_maps *maps,
                                     const struct durpina_pick *pick, uint8_t protocol,
                                     struct durpina_address *ret)
{
    const struct durpina_peer *peer = durpina_peer_at(maps, pick->peer);

    if (!peer)
        return 0;
    *ret = (struct durpina_address){.addr_be = {peer->addr_be[0], peer->addr_be[1],
                                                peer->addr_be[2], peer->addr_be[3]},
                                    .port_be = peer->port_be,
                                    .family = peer->family,
                                    .protocol = protocol};
    return DURPINA_LOAD(&peer->generation) == pick->generation;
}

/* The socket is not sent elsewhere (any more). */
static inline void durpina_vip_forget(struct durpina_socket *s)
{
    s->dialled.family = DURPINA_FAMILY_NONE;
    s->probing = 0;
}

/*
 * Picks a peer of the family of the address that was dialled, and notes it in the socket. 0: there
 * is none; the call is to go on as it is, and the socket is not sent elsewhere. Counts either.
 */
static inline int durpina_vip_pick(const struct durpina_maps *maps, struct durpina_vip *vip,
                                   const struct durpina_dial *dial, struct durpina_socket *s)
{
    const struct durpina_request request = {.algorithm = DURPINA_LOAD(&vip->algorithm),
                                            .hash = dial->hash,
                                            .now_ms = dial->now_ms,
                                            .family = dial->address.family,
                                            .uncounted = 1};
    struct durpina_pick pick;
    int found = durpina_vip_knows(request.algorithm) &&
                durpina_pick(maps, DURPINA_LOAD(&vip->upstream), DURPINA_LOAD(&vip->generation),
                             &request, &pick) == DURPINA_PICK_OK &&
                durpina_vip_locate(maps, &pick, dial->address.protocol, &s->sent_to) &&
                !(dial->elsewhere && durpina_is_loopback(&s->sent_to));

    __atomic_fetch_add(found ? &vip->selected : &vip->missed, 1, __ATOMIC_RELAXED);
    if (!found) {
        durpina_vip_forget(s);
        return 0;
    }
    s->dialled = dial->address;
    s->peer = pick.peer;
    s->peer_generation = pick.generation;
    s->probing = (uint8_t) pick.probing;
    return 1;
}

/*
 * May the next datagram for the same virtual endpoint go where the last one went? It may as long as
 * the peer is that of the upstream, up, and not temporarily down.
 */
static inline int durpina_vip_keeps(const struct durpina_maps *maps, const struct durpina_vip *vip,
                                    const struct durpina_address *dialled,
                                    const struct durpina_socket *s, uint64_t now_ms)
{
    if (!durpina_same_address(&s->dialled, dialled))
        return 0;

    uint32_t id = DURPINA_LOAD(&vip->upstream);
    const struct durpina_upstream *upstream = durpina_upstream_at(maps, id);
    const struct durpina_peer *peer = durpina_peer_at(maps, s->peer);
    const struct durpina_counters *c = durpina_counters_at(maps, s->peer);

    if (!upstream || !peer || !c || DURPINA_LOAD(&peer->generation) != s->peer_generation ||
        DURPINA_LOAD(&peer->upstream) != id ||
        DURPINA_LOAD(&upstream->generation) != DURPINA_LOAD(&vip->generation))
        return 0;

    /* One look: overtaken by a publication, it is as old as that, and so is the datagram. */
    uint64_t word = durpina_seq_begin(&upstream->publish);

    return word != 0 && DURPINA_LOAD(&durpina_settings(peer, word)->state) == DURPINA_PEER_UP &&
           !durpina_is_temp_down(c, now_ms);
}

/* The peer that the socket was sent to has answered: if it was temporarily down, it is no more. */
static inline void durpina_vip_answered(const struct durpina_maps *maps, struct durpina_socket *s)
{
    const struct durpina_peer *peer = durpina_peer_at(maps, s->peer);
    struct durpina_counters *c = durpina_counters_at(maps, s->peer);

    if (!s->probing)
        return;
    s->probing = 0;
    if (peer && c && DURPINA_LOAD(&peer->generation) == s->peer_generation)
        durpina_clear_fails(c);
}

#endif
