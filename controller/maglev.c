/* SPDX-License-Identifier: MIT */
#include "maglev.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "schedule.h"

/* The largest primes below every third power of two. */
static const uint32_t sizes[] = {MAGLEV_SIZE_MIN, 16381, 131071, MAGLEV_SIZE_MAX};
#define N_SIZES (sizeof(sizes) / sizeof(sizes[0]))

uint64_t maglev_hash(const char *name, const char *address)
{
    XXH3_state_t state;

    XXH3_64bits_reset(&state);
    XXH3_64bits_update(&state, name, strlen(name));
    XXH3_64bits_update(&state, " ", 1);
    XXH3_64bits_update(&state, address, strlen(address));
    return XXH3_64bits_digest(&state);
}

uint32_t maglev_size(size_t n_peers, uint32_t current)
{
    if (n_peers == 0 || n_peers > MAGLEV_SIZE_MAX)
        return 0;
    for (size_t i = 0; i < N_SIZES; i++)
        if (sizes[i] >= current && sizes[i] >= n_peers * MAGLEV_SLOTS_PER_PEER)
            return sizes[i];
    return MAGLEV_SIZE_MAX;
}

static int by_hash(const void *first, const void *second)
{
    const struct maglev_peer *a = first, *b = second;

    if (a->hash != b->hash)
        return a->hash < b->hash ? -1 : 1;
    return (a->weight > b->weight) - (a->weight < b->weight);
}

/* A peer, as it bids for slots. */
struct bidder {
    uint32_t slot; /* the next one of its permutation */
    uint32_t skip; /* from each slot of the permutation to the one after it */
    uint32_t wanted;
    uint32_t weight;
    uint32_t credit; /* weight that has not made up a bid yet */
    uint32_t value;
};

/*
 * Most bids of a peer of mean weight in a round; it makes more than half of these. A bid is worth a
 * power of two of weight: it seldom becomes worth another one because a peer came or went.
 */
#define BIDS_PER_ROUND 4

/* After so many bids for each slot all peers bid in each round: nobody waits for the lightest. */
#define BIDS_PER_SLOT 3

/* Lets the peer bid so many times, or until it has all it wanted. */
static void bid(struct bidder *bidder, uint32_t n_bids, uint64_t *taken, uint32_t *slots,
                uint32_t size)
{
    uint32_t slot = bidder->slot, skip = bidder->skip, wanted = bidder->wanted;

    for (; n_bids > 0 && wanted > 0; n_bids--) {
        uint64_t bit = 1ULL << (slot % 64);

        if ((taken[slot / 64] & bit) == 0) {
            taken[slot / 64] |= bit;
            slots[slot] = bidder->value;
            wanted--;
        }
        slot += slot < size - skip ? skip : skip - size;
    }
    bidder->slot = slot;
    bidder->wanted = wanted;
}

/* All get what they want: together it is what there is, and a permutation has all slots. sum: of
 * the weights. */
static void auction(struct bidder *bidders, size_t n, uint64_t sum, uint64_t *taken,
                    uint32_t *slots, uint32_t size)
{
    uint32_t shift = 0;

    while (sum >> shift > n)
        shift++;
    for (uint64_t n_bids = 0; n > 0; n_bids += BIDS_PER_ROUND * sum >> shift) {
        size_t n_left = 0;

        for (size_t i = 0; i < n; i++) {
            struct bidder b = bidders[i];
            uint32_t bids;

            b.credit += BIDS_PER_ROUND * b.weight;
            bids = b.credit >> shift;
            b.credit -= bids << shift;
            if (bids == 0 && n_bids >= (uint64_t) BIDS_PER_SLOT * size)
                bids = 1;
            bid(&b, bids, taken, slots, size);
            if (b.wanted > 0)
                bidders[n_left++] = b;
        }
        n = n_left;
    }
}

int maglev_build(struct maglev_peer *peers, size_t n, uint32_t *slots, uint32_t size)
{
    size_t n_words = size / 64 + 1;
    uint64_t *taken =
        calloc(1, n_words * sizeof(*taken) + n * sizeof(struct bidder) + 2 * n * sizeof(uint32_t));
    struct bidder *bidders;
    uint32_t *weights, *shares;
    uint64_t sum = 0;
    int err;

    if (taken == NULL)
        return -ENOMEM;
    bidders = (struct bidder *) (taken + n_words);
    weights = (uint32_t *) (bidders + n);
    shares = weights + n;
    qsort(peers, n, sizeof(*peers), by_hash);
    for (size_t i = 0; i < n; i++)
        sum += weights[i] = peers[i].weight;
    err = schedule_shares(weights, n, size, shares);
    if (err < 0)
        goto out;
    for (size_t i = 0; i < n; i++) {
        uint64_t hash = peers[i].hash;

        bidders[i] = (struct bidder){
            .slot = (uint32_t) (hash % size),
            .skip = (uint32_t) (XXH3_64bits(&hash, sizeof(hash)) % (size - 1)) + 1,
            .wanted = shares[i],
            .weight = weights[i],
            .value = peers[i].value,
        };
    }
    auction(bidders, n, sum, taken, slots, size);
out:
    free(taken);
    return err;
}
