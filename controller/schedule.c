/* SPDX-License-Identifier: MIT */
#include "schedule.h"

#include <errno.h>
#include <stdbool.h>
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

struct share {
    uint32_t index;
    uint32_t weight;
    uint64_t remainder;
};

static int by_weight(const void *first, const void *second)
{
    const struct share *a = first, *b = second;

    if (a->weight != b->weight)
        return a->weight < b->weight ? -1 : 1;
    return a->index < b->index ? -1 : 1;
}

static int by_remainder(const void *first, const void *second)
{
    const struct share *a = first, *b = second;

    if (a->remainder != b->remainder)
        return a->remainder > b->remainder ? -1 : 1;
    return a->index < b->index ? -1 : 1;
}

/* Largest remainder over length slots, after those that would get none have got one. */
static int quantise(const uint32_t *weights, size_t n, size_t n_used, uint64_t sum, uint64_t length,
                    uint32_t *turns)
{
    struct share *shares = malloc(n_used * sizeof(*shares));
    size_t used = 0, first = 0;

    if (shares == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        if (weights[i] != 0)
            shares[used++] = (struct share){.index = (uint32_t) i, .weight = weights[i]};
    qsort(shares, used, sizeof(*shares), by_weight);

    uint64_t left = length;

    for (; first < used && shares[first].weight * left < sum; first++) {
        turns[shares[first].index] = 1;
        sum -= shares[first].weight;
        left--;
    }

    uint64_t given = 0;

    for (size_t i = first; i < used; i++) {
        uint64_t product = shares[i].weight * left;

        turns[shares[i].index] = (uint32_t) (product / sum);
        shares[i].remainder = product % sum;
        given += product / sum;
    }
    if (first < used)
        qsort(shares + first, used - first, sizeof(*shares), by_remainder);
    for (size_t i = first; given < left; i++, given++)
        turns[shares[i].index]++;
    free(shares);
    return 0;
}

int64_t schedule_turns(const uint32_t *weights, size_t n, uint32_t *turns)
{
    uint64_t sum = 0, cap = n > SCHEDULE_LENGTH_MAX ? n : SCHEDULE_LENGTH_MAX;
    uint32_t divisor = 0;
    size_t n_used = 0;

    for (size_t i = 0; i < n; i++) {
        divisor = gcd(divisor, weights[i]);
        sum += weights[i];
        n_used += weights[i] != 0;
    }
    memset(turns, 0, n * sizeof(*turns));
    if (n_used == 0)
        return 0;
    if (sum / divisor > cap) {
        int err = quantise(weights, n, n_used, sum, cap, turns);

        return err < 0 ? err : (int64_t) cap;
    }
    for (size_t i = 0; i < n; i++)
        turns[i] = weights[i] / divisor;
    return (int64_t) (sum / divisor);
}

/* Each peer has one turn ahead of it: waiting for its window, or in the heap by deadline. */
struct turn {
    uint32_t number;   /* from 0 */
    uint32_t deadline; /* last slot + 1 */
    uint32_t next;     /* in the list of those whose window opens in the same slot */
};

#define NO_TURN UINT32_MAX

struct heap {
    uint32_t *items;
    size_t n;
    const struct turn *turns;
};

static bool earlier(const struct heap *heap, uint32_t a, uint32_t b)
{
    if (heap->turns[a].deadline != heap->turns[b].deadline)
        return heap->turns[a].deadline < heap->turns[b].deadline;
    return a < b;
}

static void heap_push(struct heap *heap, uint32_t item)
{
    size_t at = heap->n++;

    while (at > 0 && earlier(heap, item, heap->items[(at - 1) / 2])) {
        heap->items[at] = heap->items[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap->items[at] = item;
}

static uint32_t heap_pop(struct heap *heap)
{
    uint32_t first = heap->items[0], last = heap->items[--heap->n];
    size_t at = 0, child;

    while ((child = 2 * at + 1) < heap->n) {
        if (child + 1 < heap->n && earlier(heap, heap->items[child + 1], heap->items[child]))
            child++;
        if (!earlier(heap, heap->items[child], last))
            break;
        heap->items[at] = heap->items[child];
        at = child;
    }
    heap->items[at] = last;
    return first;
}

int schedule_layout(const uint32_t *turns, size_t n, uint32_t *slots, size_t length)
{
    struct turn *ahead = malloc((n + 1) * sizeof(*ahead));
    uint32_t *opening = malloc((length + 1) * sizeof(*opening));
    struct heap heap = {.items = malloc((n + 1) * sizeof(*heap.items)), .turns = ahead};
    int err = ahead != NULL && opening != NULL && heap.items != NULL ? 0 : -ENOMEM;

    if (err < 0)
        goto out;
    memset(opening, 0xff, (length + 1) * sizeof(*opening)); /* NO_TURN */
    for (size_t i = n; i-- > 0;) {
        if (turns[i] == 0)
            continue;
        ahead[i] = (struct turn){.deadline = (uint32_t) ((length + turns[i] - 1) / turns[i]),
                                 .next = opening[0]};
        opening[0] = (uint32_t) i;
    }
    for (size_t slot = 0; slot < length; slot++) {
        for (uint32_t i = opening[slot]; i != NO_TURN; i = ahead[i].next)
            heap_push(&heap, i);

        uint32_t i = heap_pop(&heap);
        struct turn *turn = &ahead[i];
        uint64_t turns_i = turns[i];

        slots[slot] = i;
        if (++turn->number == turns_i)
            continue;

        /* A window overlaps the one before it by one slot at most. */
        size_t opens = turn->number * length / turns_i;

        if (opens <= slot)
            opens = slot + 1;
        turn->deadline = (uint32_t) (((turn->number + 1ULL) * length + turns_i - 1) / turns_i);
        turn->next = opening[opens];
        opening[opens] = i;
    }
out:
    free(heap.items);
    free(opening);
    free(ahead);
    return err;
}
