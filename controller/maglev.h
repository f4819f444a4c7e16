/* SPDX-License-Identifier: MIT */
/*
 * Weighted Maglev tables: which peer a hashed key belongs to. Pure.
 *
 * As in Eisenbud et al., Maglev, NSDI 2016, 3.4, each peer has its own permutation of the slots,
 * made of a hash of its key. Unlike there, its share is fixed beforehand (schedule_shares()), it
 * bids for one slot of its permutation after the other, and a bid for a slot that is taken is lost,
 * where the paper goes on to the next free slot at once: so when a peer bids for a slot does not
 * depend on the others, and fewer slots change hands when one of them comes or goes. Peers bid in
 * proportion to their weights.
 *
 * The table depends on keys and weights only: not on the order of the peers, nor on their ids, so
 * that all hosts with the same peers agree.
 *
 * Measured with random peers of equal weight: the share of all slots that moves between peers that
 * stay when one goes, and how far the largest share is above the mean.
 *
 *     peers      slots   moved, mean   most   as in the paper   largest share   built in
 *         3      2,039         0.1 %    2 %             0.3 %          0.05 %    0.02 ms
 *        10      2,039         1.0 %    2 %             1.8 %          0.05 %    0.03 ms
 *       100     16,381         0.6 %    1 %             1.7 %          0.1  %    0.3  ms
 *     1,000    131,071         0.3 %  0.3 %             0.6 %          0.7  %    3    ms
 *   100,000  1,048,573        0.01 % 0.01 %            0.01 %          5    %   50    ms
 *
 * With unequal weights as little moves on average; when a peer goes that had a twentieth of all
 * weight or more, up to 2 %; building takes up to twice as long. Rendezvous hashing would move
 * nothing, but with so many slots its largest share is 10 to 30 % above the mean.
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
 * it grows with the 17th, the 129th and the 1,033rd peer only. 0 for no peers or for more than
 * MAGLEV_SIZE_MAX.
 */
uint32_t maglev_size(size_t n_peers, uint32_t current);

/*
 * Fills slots[0..size) with values; a peer gets its share by weight but for less than one slot, and
 * at least one slot. Sorts peers. size: maglev_size(). 0, -EINVAL if there are more peers than
 * slots, or -ENOMEM.
 */
int maglev_build(struct maglev_peer *peers, size_t n, uint32_t *slots, uint32_t size);

#endif
