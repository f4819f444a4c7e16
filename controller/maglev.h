/* SPDX-License-Identifier: MIT */
/*
 * Weighted Maglev tables: which peer a hashed key belongs to. Pure.
 *
 * Each peer has its own permutation of the slots, made of a hash of its key; peers take turns to
 * claim the next free slot of theirs until the table is full (Eisenbud et al., Maglev, NSDI 2016,
 * 3.4). A peer gets turns in proportion to its weight, the first one whatever its weight. The table
 * depends on keys and weights only: not on the order of the peers, nor on their ids, so that all
 * hosts with the same peers agree. A peer that comes or goes moves few keys besides its own.
 */
#ifndef DURPINAD_MAGLEV_H
#define DURPINAD_MAGLEV_H

#include <stddef.h>
#include <stdint.h>

#define MAGLEV_SLOTS_PER_PEER 127 /* at least, up to MAGLEV_SIZE_MAX */
#define MAGLEV_SIZE_MIN 2039
#define MAGLEV_SIZE_MAX 1048573 /* and so the most peers of one table */

struct maglev_peer {
    uint64_t hash;   /* maglev_hash() of what names the peer */
    uint32_t weight; /* 1..65535 */
    uint32_t value;  /* what the table shows for it */
};

/* Of the peer's name and its address as text; both matter. */
uint64_t maglev_hash(const char *name, const char *address);

/*
 * The smallest prime of a fixed list with MAGLEV_SLOTS_PER_PEER slots a peer and no less than
 * current (0: none yet): another size moves nearly all keys. So a table never shrinks, and
 * it grows with the 17th, the 129th and the 1,025th peer only. 0 for no peers or for more than
 * MAGLEV_SIZE_MAX.
 */
uint32_t maglev_size(size_t n_peers, uint32_t current);

/* Fills slots[0..size) with values. Sorts peers. size: maglev_size(). 0 or -ENOMEM. */
int maglev_build(struct maglev_peer *peers, size_t n, uint32_t *slots, uint32_t size);

#endif
