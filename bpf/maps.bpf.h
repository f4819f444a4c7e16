/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The maps, with the types that bpftool prints them by. durpinad sets max_entries before it creates
 * them (one for meta) and pins them under the names they have here.
 */
#ifndef DURPINA_MAPS_BPF_H
#define DURPINA_MAPS_BPF_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "durpina_abi.h"

#define DURPINA_MAP(map, value_type)                                                               \
    struct {                                                                                       \
        __uint(type, BPF_MAP_TYPE_ARRAY);                                                          \
        __uint(map_flags, BPF_F_MMAPABLE);                                                         \
        __uint(max_entries, 1);                                                                    \
        __type(key, uint32_t);                                                                     \
        __type(value, value_type);                                                                 \
    } map SEC(".maps")

DURPINA_MAP(meta, struct durpina_meta);
DURPINA_MAP(upstreams, struct durpina_upstream);
DURPINA_MAP(peers, struct durpina_peer);
DURPINA_MAP(slots, struct durpina_slots);
DURPINA_MAP(counters, struct durpina_counters);
DURPINA_MAP(cursors, struct durpina_cursor);
DURPINA_MAP(inflight, struct durpina_inflight);
DURPINA_MAP(endpoints, struct durpina_endpoint);
DURPINA_MAP(kernel, struct durpina_kernel);

#define DURPINA_HASH_MAP(map, value_type)                                                          \
    struct {                                                                                       \
        __uint(type, BPF_MAP_TYPE_HASH);                                                           \
        __uint(map_flags, BPF_F_NO_PREALLOC);                                                      \
        __uint(max_entries, 1);                                                                    \
        __type(key, struct durpina_address);                                                       \
        __type(value, value_type);                                                                 \
    } map SEC(".maps")

DURPINA_HASH_MAP(endpoint_ids, uint32_t);
DURPINA_HASH_MAP(vips, struct durpina_vip);

struct {
    __uint(type, BPF_MAP_TYPE_SK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct durpina_socket);
} sockets SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, DURPINA_EVENTS_BYTES);
} events SEC(".maps");

#endif
