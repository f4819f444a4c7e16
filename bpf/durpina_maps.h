/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * How elements of the maps are found. Processes have the maps in their memory; programs in the
 * kernel look them up, which costs them an instruction or two more. Either way an id that is out of
 * range finds NULL: rule 5 of durpina_abi.h is kept here.
 */
#ifndef DURPINA_MAPS_H
#define DURPINA_MAPS_H

#include "durpina_abi.h"
#include "durpina_seq.h"

/* Capacities in elements, and, but in the kernel, where the maps are mapped. */
struct durpina_maps {
    const struct durpina_meta *meta;
    const struct durpina_upstream *upstreams;
    const struct durpina_peer *peers;
    const uint32_t *slots;
    struct durpina_counters *counters; /* of each peer */
    struct durpina_cursor *cursors;    /* of each upstream */
    struct durpina_inflight *inflight;
    const struct durpina_endpoint *endpoints;
    uint32_t n_upstreams;
    uint32_t n_peers;
    uint32_t n_slots;
    uint32_t n_inflight; /* pages */
    uint32_t n_endpoints;
};

#ifdef __bpf__

#include "maps.bpf.h"

#define DURPINA_ELEMENT(name, type, map, n)                                                        \
    static inline type *durpina_##name(const struct durpina_maps *maps, uint32_t id)               \
    {                                                                                              \
        (void) maps;                                                                               \
        return bpf_map_lookup_elem(&(map), &id);                                                   \
    }

/* Rows that are not there are not found either. */
static inline uint32_t durpina_n_slots(const struct durpina_maps *maps)
{
    (void) maps;
    return UINT32_MAX;
}

/* Returns the slot, of a table that durpina_table() has returned. */
static inline uint32_t durpina_slot(const struct durpina_maps *maps, uint32_t index)
{
    uint32_t at = index / DURPINA_SLOTS_PER_ROW;
    const struct durpina_slots *row = bpf_map_lookup_elem(&slots, &at);

    (void) maps;
    return row ? DURPINA_LOAD(&row->peers[index % DURPINA_SLOTS_PER_ROW]) : DURPINA_NONE;
}

#else

/* That an element is never at NULL spares the callers, which test for it, that test. */
#define DURPINA_ELEMENT(name, type, map, n)                                                        \
    static inline type *durpina_##name(const struct durpina_maps *maps, uint32_t id)               \
    {                                                                                              \
        if (id >= maps->n)                                                                         \
            return NULL;                                                                           \
                                                                                                   \
        type *element = &maps->map[id];                                                            \
                                                                                                   \
        if (!element)                                                                              \
            __builtin_unreachable();                                                               \
        return element;                                                                            \
    }

static inline uint32_t durpina_n_slots(const struct durpina_maps *maps)
{
    return maps->n_slots;
}

static inline uint32_t durpina_slot(const struct durpina_maps *maps, uint32_t index)
{
    return DURPINA_LOAD(&maps->slots[index]);
}

#endif

DURPINA_ELEMENT(upstream_at, const struct durpina_upstream, upstreams, n_upstreams)
DURPINA_ELEMENT(cursor_at, struct durpina_cursor, cursors, n_upstreams)
DURPINA_ELEMENT(peer_at, const struct durpina_peer, peers, n_peers)
DURPINA_ELEMENT(counters_at, struct durpina_counters, counters, n_peers)
DURPINA_ELEMENT(endpoint_at, const struct durpina_endpoint, endpoints, n_endpoints)

#endif
