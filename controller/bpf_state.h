/* SPDX-License-Identifier: MIT */
/*
 * The maps: created, pinned, adopted or refused, and mapped writable.
 *
 * open: creates what is not pinned yet (staged in a directory beside PIN and renamed into place),
 * adopts pins of the same magic, major version, layout hash and capacity, refuses anything else by
 * name with the remedy. Holds an flock on the pin directory for its life: a second controller is
 * refused with the pid of the first. Mounts bpffs at /sys/fs/bpf if nothing is mounted there.
 */
#ifndef DURPINAD_BPF_STATE_H
#define DURPINAD_BPF_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "durpina_abi.h"
#include "durpina_select.h"
#include "failure.h"

/* In the order of durpina_abi.h. */
enum bpf_state_map {
    BPF_STATE_META,
    BPF_STATE_UPSTREAMS,
    BPF_STATE_PEERS,
    BPF_STATE_SLOTS,
    BPF_STATE_COUNTERS,
    BPF_STATE_CURSORS,
    BPF_STATE_INFLIGHT,
    BPF_STATE_ENDPOINTS,
    BPF_STATE_ENDPOINT_IDS,
    BPF_STATE_VIPS,
    BPF_STATE_SOCKETS,
    BPF_STATE_EVENTS,
    BPF_STATE_KERNEL,
    BPF_STATE_MAPS
};

/* The arrays are mapped; the other maps are reached by their descriptors. */
struct bpf_state {
    int dir_fd; /* the pin directory, locked */
    int map_fds[BPF_STATE_MAPS];
    struct durpina_meta *meta;
    struct durpina_upstream *upstreams;
    struct durpina_peer *peers;
    uint32_t *slots;
    struct durpina_counters *counters;
    struct durpina_cursor *cursors;
    struct durpina_inflight *inflight;
    struct durpina_endpoint *endpoints;
    struct durpina_kernel *kernel;
    uint32_t n_upstreams;
    uint32_t n_peers;
    uint32_t n_slots;
    uint32_t n_inflight; /* pages */
    uint32_t n_endpoints;
    uint32_t uid, gid; /* who owns the pins */
    bool adopted;      /* the pins were there before */
};

struct bpf_state_options {
    const char *pin;      /* directory, below a bpffs */
    uint32_t n_upstreams; /* capacities */
    uint32_t n_peers;
    uint32_t n_slots;    /* rounded up to whole rows */
    uint32_t n_inflight; /* tries, rounded up to whole pages */
    uint32_t uid, gid;   /* who owns the directory and the pins afterwards */
};

int bpf_state_open(const struct bpf_state_options *options, struct bpf_state *ret,
                   struct failure *failure);
/* Unmaps and closes; the pins stay. */
void bpf_state_close(struct bpf_state *state);
/* The maps as a reader sees them. */
struct durpina_maps bpf_state_maps(const struct bpf_state *state);
/* The descriptor of a map; it stays the state's. */
int bpf_state_fd(const struct bpf_state *state, enum bpf_state_map map);
/* The name that a map is pinned by. */
const char *bpf_state_map_name(enum bpf_state_map map);

/*
 * Puts an empty map in the place of `sockets`, which thereby forgets all of them; descriptors and
 * programs that have the former one keep that. -errno with PIN_DIR_CODE: no privilege, no memory.
 */
int bpf_state_renew_sockets(struct bpf_state *state, struct failure *failure);

/* Waits, for some milliseconds, until no program runs any more that runs now. */
void bpf_state_await_programs(void);

#endif
