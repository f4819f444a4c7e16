/* SPDX-License-Identifier: MIT */
#include "schedule.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint32_t gcd(uint32_t a, uint32_t b)
{
    while (b != 0) {
        uint32_t rest = a % b;

        a = b;
        b = rest;
    }
    return a;
}

/* The least number that no more than n_most of the remainders exceed. */
static uint64_t find_threshold(const uint64_t *remainders, size_t n, uint64_t below, size_t n_most)
{
    uint64_t low = 0, high = below;

    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        size_t n_greater = 0;

        for (size_t i = 0; i < n; i++)
            n_greater += remainders[i] > middle;
        if (n_greater <= n_most)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

int schedule_shares(const uint32_t *weights, size_t n, size_t length, uint32_t *shares)
{
    uint64_t sum = 0, given = 0, left = length, threshold;
    size_t n_greater = 0, n_used = 0;
    uint64_t *remainders;
    int raised;

    for (size_t i = 0; i < n; i++) {
        sum += weights[i];
        n_used += weights[i] != 0;
    }
    if (n_used > length)
        return -EINVAL;
    memset(shares, 0, n * sizeof(*shares));
    if (n_used == 0)
        return 0;
    remainders = calloc(n, sizeof(*remainders));
    if (remainders == NULL)
        return -ENOMEM;

    /* A slot for each that would get none leaves less to the rest, some of whom get none then. */
    do {
        uint64_t all = left, weight = sum;

        raised = 0;
        for (size_t i = 0; i < n; i++) {
            if (shares[i] != 0 || weights[i] == 0 || weights[i] * all >= weight)
                continue;
            shares[i] = 1;
            left--;
            sum -= weights[i];
            raised = 1;
        }
    } while (raised);

    for (size_t i = 0; i < n; i++) {
        uint64_t product = weights[i] * left;

        if (shares[i] != 0 || product == 0)
            continue;
        shares[i] = (uint32_t) (product / sum);
        remainders[i] = product % sum;
        given += shares[i];
    }

    threshold = find_threshold(remainders, n, sum, left - given);
    for (size_t i = 0; i < n; i++) {
        n_greater += remainders[i] > threshold;
        shares[i] += remainders[i] > threshold;
    }
    left -= given + n_greater;
    for (size_t i = 0; i < n && left > 0; i++) {
        left -= remainders[i] == threshold;
        shares[i] += remainders[i] == threshold;
    }
    free(remainders);
    return 0;
}

int64_t schedule_turns(const uint32_t *weights, size_t n, uint32_t *turns)
{
    uint64_t sum = 0, cap = n > SCHEDULE_LENGTH_MAX ? n : SCHEDULE_LENGTH_MAX;
    uint32_t divisor = 0;

    for (size_t i = 0; i < n; i++) {
        if (divisor != 1)
            divisor = gcd(divisor, weights[i]);
        sum += weights[i];
    }
    if (divisor > 1)
        sum /= divisor;
    if (sum > cap) {
        int err = schedule_shares(weights, n, cap, turns);

        return err < 0 ? err : (int64_t) cap;
    }
    for (size_t i = 0; i < n; i++)
        turns[i] = divisor > 1 ? weights[i] / divisor : weights[i];
    return (int64_t) sum;
}

/*
 * A peer has one turn ahead: it waits in a list for the slot where the window of that turn opens,
 * then in one for its deadline. The window ends at `end` and rest / turns; there the next begins.
 */
struct ahead {
    uint32_t next; /* peer in the same list */
    uint32_t end;
    uint32_t rest;
    uint32_t step; /* length / turns, and what remains */
    uint32_t step_rest;
    uint32_t turns;
};

#define NO_PEER UINT32_MAX

/* A set of numbers whose least is found in three steps; bits of a level tell which words of the
 * one below are not 0. The last level is one word for up to 2^18 numbers, and searched in order. */
struct set {
    uint64_t *levels[3];
};

static uint64_t bit(size_t i)
{
    return 1ULL << (i % 64);
}

static void set_add(struct set *set, size_t i)
{
    set->levels[0][i >> 6] |= bit(i);
    set->levels[1][i >> 12] |= bit(i >> 6);
    set->levels[2][i >> 18] |= bit(i >> 12);
}

static void set_remove(struct set *set, size_t i)
{
    if ((set->levels[0][i >> 6] &= ~bit(i)) == 0 && (set->levels[1][i >> 12] &= ~bit(i >> 6)) == 0)
        set->levels[2][i >> 18] &= ~bit(i >> 12);
}

/* The set is not empty. */
static size_t set_least(const struct set *set)
{
    size_t i = 0;

    while (set->levels[2][i] == 0)
        i++;
    for (int level = 2; level >= 0; level--)
        i = i * 64 + (size_t) __builtin_ctzll(set->levels[level][i]);
    return i;
}

/* Deadlines that peers wait for, and the lists of these peers. */
struct waiting {
    struct set deadlines;
    uint32_t *peers; /* by deadline: the first one */
    size_t least;    /* deadline, if there is any */
};

static void add_waiting(struct waiting *waiting, struct ahead *peers, uint32_t i)
{
    size_t deadline = peers[i].end + (peers[i].rest != 0);

    if (waiting->peers[deadline] == NO_PEER)
        set_add(&waiting->deadlines, deadline);
    peers[i].next = waiting->peers[deadline];
    waiting->peers[deadline] = i;
    if (deadline < waiting->least)
        waiting->least = deadline;
}

static uint32_t take_first(struct waiting *waiting, const struct ahead *peers)
{
    uint32_t first;

    if (waiting->peers[waiting->least] == NO_PEER)
        waiting->least = set_least(&waiting->deadlines);
    first = waiting->peers[waiting->least];
    waiting->peers[waiting->least] = peers[first].next;
    if (peers[first].next == NO_PEER)
        set_remove(&waiting->deadlines, waiting->least);
    return first;
}

int schedule_layout(const uint32_t *turns, size_t n, uint32_t *slots, size_t length)
{
    size_t n_words[3] = {(length >> 6) + 1, (length >> 12) + 1, (length >> 18) + 1};
    size_t words = n_words[0] + n_words[1] + n_words[2];
    uint64_t *block = malloc(words * sizeof(*block) + n * sizeof(struct ahead) +
                             2 * (length + 1) * sizeof(uint32_t));
    struct waiting waiting = {.least = length};
    struct ahead *peers;
    uint32_t *opening; /* by slot: the first peer whose window opens there */

    if (block == NULL)
        return -ENOMEM;
    waiting.deadlines.levels[0] = block;
    waiting.deadlines.levels[1] = block + n_words[0];
    waiting.deadlines.levels[2] = block + n_words[0] + n_words[1];
    peers = (struct ahead *) (block + words);
    waiting.peers = (uint32_t *) (peers + n);
    opening = waiting.peers + length + 1;
    memset(block, 0, words * sizeof(*block));
    memset(waiting.peers, 0xff, 2 * (length + 1) * sizeof(uint32_t)); /* NO_PEER */

    for (size_t i = n; i-- > 0;) {
        if (turns[i] == 0)
            continue;
        peers[i].turns = turns[i];
        peers[i].end = peers[i].step = (uint32_t) length / turns[i];
        peers[i].rest = peers[i].step_rest = (uint32_t) length % turns[i];
        add_waiting(&waiting, peers, (uint32_t) i);
    }
    for (size_t slot = 0; slot < length; slot++) {
        uint32_t next;

        for (uint32_t i = opening[slot]; i != NO_PEER; i = next) {
            next = peers[i].next;
            add_waiting(&waiting, peers, i);
        }

        uint32_t i = take_first(&waiting, peers);
        struct ahead *peer = &peers[i];

        slots[slot] = i;
        if (peer->end == length)
            continue;

        /* A window overlaps the one before it by one slot at most. */
        size_t opens = peer->end > slot ? peer->end : slot + 1;

        peer->end += peer->step;
        peer->rest += peer->step_rest;
        if (peer->rest >= peer->turns) {
            peer->rest -= peer->turns;
            peer->end++;
        }
        peer->next = opening[opens];
        opening[opens] = i;
    }
    free(block);
    return 0;
}
