/* SPDX-License-Identifier: MIT */
#include "maglev.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define FREE_SLOT UINT32_MAX

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

/* Where a peer stands in its permutation of the slots, and when it has its next turn. */
struct cursor {
    uint32_t slot;
    uint32_t skip;
    uint32_t turns; /* taken */
    uint32_t next;  /* peer with a turn in the same round */
};

#define NO_PEER UINT32_MAX

/*
 * Turn k of a peer is in round ceil(k * heaviest / weight): the heaviest peer has one each round, so
 * there are at most as many rounds as slots. Peers wait in a list for each round. The order in a list
 * follows from the order of the hashes and the weights, so it is the same for any order of peers.
 */
int maglev_build(struct maglev_peer *peers, size_t n, uint32_t *slots, uint32_t size)
{
    struct cursor *cursors = malloc((n + 1) * sizeof(*cursors));
    uint32_t *rounds = malloc((size + 1) * sizeof(*rounds));
    uint32_t heaviest = 0, filled = 0;

    if (cursors == NULL || rounds == NULL) {
        free(cursors);
        free(rounds);
        return -ENOMEM;
    }
    memset(slots, 0xff, size * sizeof(*slots));   /* FREE_SLOT */
    memset(rounds, 0xff, size * sizeof(*rounds)); /* NO_PEER */
    qsort(peers, n, sizeof(*peers), by_hash);
    for (size_t i = n; i-- > 0;) {
        uint64_t hash = peers[i].hash;

        cursors[i] = (struct cursor){
            .slot = (uint32_t) (hash % size),
            .skip = (uint32_t) (XXH3_64bits(&hash, sizeof(hash)) % (size - 1)) + 1,
            .next = rounds[0],
        };
        rounds[0] = (uint32_t) i;
        if (peers[i].weight > heaviest)
            heaviest = peers[i].weight;
    }

    for (uint32_t round = 0; filled < size && n > 0; round++) {
        uint32_t next;

        for (uint32_t i = rounds[round]; i != NO_PEER && filled < size; i = next) {
            struct cursor *c = &cursors[i];

            while (slots[c->slot] != FREE_SLOT)
                c->slot = (uint32_t) (((uint64_t) c->slot + c->skip) % size);
            slots[c->slot] = peers[i].value;
            filled++;

            uint64_t due = ++c->turns * (uint64_t) heaviest;
            uint64_t due_round = (due + peers[i].weight - 1) / peers[i].weight;

            next = c->next;
            if (due_round < size) {
                c->next = rounds[due_round];
                rounds[due_round] = i;
            }
        }
    }
    free(rounds);
    free(cursors);
    return 0;
}
