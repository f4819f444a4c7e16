/* SPDX-License-Identifier: MIT */
/*
 * Which peers have which address. The programs in the kernel count by address: what becomes of a
 * connection concerns every peer that has it, in whatever upstream. Writes names and ids of the map
 * `endpoints` and all of `endpoint_ids`; the counts are the kernel's.
 *
 *     identity->endpoint = endpoints_attach(endpoints, peer_id, identity, now_ms);
 *     ... the peer is published, connections to it are counted ...
 *     endpoints_detach(endpoints, peer_id, now_ms);
 *
 * Invariants
 *  E1. One address, one record: whoever connects to it finds this one in endpoint_ids.
 *  E2. A record goes on counting for ENDPOINTS_GRACE_MS after its last peer has left, and as long
 *      as a connection is open: a peer that comes back finds its counts.
 *  E3. A record gets another address no sooner than ENDPOINTS_REST_MS after the former one has gone
 *      from endpoint_ids: no program that found it there is still at it.
 *  E4. Attaching and detaching cost the same at any number of peers.
 */
#ifndef DURPINAD_ENDPOINTS_H
#define DURPINAD_ENDPOINTS_H

#include <stdint.h>

#include "bpf_state.h"

/* Together with the rest less than PUBLISH_GRACE_MS: a peer that takes over the id of another one
 * finds the record of that one's address free, too. */
#define ENDPOINTS_GRACE_MS 3000
#define ENDPOINTS_REST_MS 1000
/* Records that one call looks at, to free those that are not needed any more. */
#define ENDPOINTS_SWEEP 64

struct endpoints;

/*
 * Takes the maps as they are: addresses and counts stay, endpoint_ids is made to agree with them.
 * No peer is attached yet. state is borrowed. 0, -ENOMEM, or what bpf(2) says.
 */
int endpoints_create(struct bpf_state *state, uint64_t now_ms, struct endpoints **ret);
/* Leaves the maps as they are. NULL is fine. */
void endpoints_destroy(struct endpoints *endpoints);

/*
 * Finds or makes the record of the address in identity, which is the peer's. Returns its id;
 * DURPINA_NONE if no connection to it can be counted: it is a unix socket, or not known, or no
 * record is free.
 */
uint32_t endpoints_attach(struct endpoints *endpoints, uint32_t peer_id,
                          const struct durpina_peer *identity, uint64_t now_ms);
/* A peer that is not attached is left alone. */
void endpoints_detach(struct endpoints *endpoints, uint32_t peer_id, uint64_t now_ms);

/* Frees records that are needed no more, ENDPOINTS_SWEEP at most. */
void endpoints_sweep(struct endpoints *endpoints, uint64_t now_ms);

/* The peers of an endpoint, in no order; DURPINA_NONE: there are no more. The ids are in range. */
uint32_t endpoints_first_peer(const struct endpoints *endpoints, uint32_t endpoint_id);
uint32_t endpoints_next_peer(const struct endpoints *endpoints, uint32_t peer_id);
/* What the peer is attached to, or DURPINA_NONE. */
uint32_t endpoints_of_peer(const struct endpoints *endpoints, uint32_t peer_id);

#endif
