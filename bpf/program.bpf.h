/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What the programs have in common: the maps, whose sockets are theirs, and the totals. */
#ifndef DURPINA_PROGRAM_BPF_H
#define DURPINA_PROGRAM_BPF_H

#include "maps.bpf.h"

#include <bpf/bpf_endian.h>
#include <linux/in.h>

#include "durpina_address.h"
#include "durpina_maps.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define GO_ON 1 /* what all programs return, whatever happens */

/* Set by durpinad before it loads the programs: SO_NETNS_COOKIE of a socket of ... */
const volatile uint64_t netns_cookie = 0;     /* ... the network namespace to act in; 0: in any */
const volatile uint64_t own_netns_cookie = 0; /* ... durpinad's own, where loopback addresses are
                                               * the peers'; 0: unknown, so they are in any */

/* Is ctx (of a program type that has the helper) of a network namespace not to act in? */
#define IS_FOREIGN(ctx, address)                                                                   \
    ({                                                                                             \
        uint64_t ours_ = netns_cookie;                                                             \
                                                                                                   \
        if (ours_ == 0 && durpina_is_loopback(address))                                            \
            ours_ = own_netns_cookie;                                                              \
        ours_ != 0 && bpf_get_netns_cookie(ctx) != ours_;                                          \
    })

/* Adds one to a field of struct durpina_kernel. */
#define COUNT_TOTAL(field)                                                                         \
    do {                                                                                           \
        uint32_t zero_ = 0;                                                                        \
        struct durpina_kernel *totals_ = bpf_map_lookup_elem(&kernel, &zero_);                     \
                                                                                                   \
        if (totals_)                                                                               \
            __atomic_fetch_add(&totals_->field, 1, __ATOMIC_RELAXED);                              \
    } while (0)

#endif
