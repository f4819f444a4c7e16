/* SPDX-License-Identifier: MIT */
#include "arena.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct run {
    uint32_t offset;
    uint32_t length;
};

/* The free runs by offset; no two of them touch. */
struct arena {
    struct run *free;
    size_t n_free;
    size_t capacity; /* of free */
    size_t n_used;   /* runs */
    uint32_t used;   /* slots */
};

int arena_create(uint32_t n_slots, struct arena **ret)
{
    struct arena *arena = calloc(1, sizeof(*arena));

    if (arena == NULL)
        return -ENOMEM;
    arena->capacity = 16;
    arena->free = calloc(arena->capacity, sizeof(*arena->free));
    if (arena->free == NULL) {
        free(arena);
        return -ENOMEM;
    }
    if (n_slots > 0)
        arena->free[arena->n_free++] = (struct run){0, n_slots};
    *ret = arena;
    return 0;
}

void arena_destroy(struct arena *arena)
{
    if (arena == NULL)
        return;
    free(arena->free);
    free(arena);
}

static void remove_at(struct arena *arena, size_t index)
{
    arena->n_free--;
    memmove(&arena->free[index], &arena->free[index + 1],
            (arena->n_free - index) * sizeof(*arena->free));
}

static void insert_at(struct arena *arena, size_t index, struct run run)
{
    memmove(&arena->free[index + 1], &arena->free[index],
            (arena->n_free - index) * sizeof(*arena->free));
    arena->free[index] = run;
    arena->n_free++;
}

/*
 * Makes room for one more used run. Free runs lie between used ones, so there is at most one more
 * of them, and arena_free() holds two more for a moment: with this much it cannot fail.
 */
static int make_room(struct arena *arena)
{
    size_t capacity = arena->capacity;
    struct run *grown;

    while (capacity < arena->n_used + 4)
        capacity *= 2;
    if (capacity == arena->capacity)
        return 0;
    grown = reallocarray(arena->free, capacity, sizeof(*grown));
    if (grown == NULL)
        return -ENOMEM;
    arena->free = grown;
    arena->capacity = capacity;
    return 0;
}

int arena_alloc(struct arena *arena, uint32_t length, uint32_t *ret_offset)
{
    size_t best = arena->n_free;

    for (size_t i = 0; i < arena->n_free; i++)
        if (arena->free[i].length >= length &&
            (best == arena->n_free || arena->free[i].length < arena->free[best].length))
            best = i;
    if (best == arena->n_free)
        return -ENOSPC;

    uint32_t offset = arena->free[best].offset;
    int err = arena_reserve(arena, offset, length);

    if (err == 0)
        *ret_offset = offset;
    return err;
}

int arena_reserve(struct arena *arena, uint32_t offset, uint32_t length)
{
    uint64_t end = (uint64_t) offset + length;
    int err = make_room(arena);

    if (err < 0)
        return err;
    for (size_t i = 0; i < arena->n_free; i++) {
        struct run run = arena->free[i];
        uint64_t run_end = (uint64_t) run.offset + run.length;

        if (run.offset > offset || end > run_end)
            continue;
        remove_at(arena, i);
        if (end < run_end)
            insert_at(arena, i, (struct run){(uint32_t) end, (uint32_t) (run_end - end)});
        if (run.offset < offset)
            insert_at(arena, i, (struct run){run.offset, offset - run.offset});
        arena->used += length;
        arena->n_used++;
        return 0;
    }
    return -EBUSY;
}

/* Makes these slots free ones. */
static void give_back(struct arena *arena, uint32_t offset, uint32_t length)
{
    size_t at = 0;

    while (at < arena->n_free && arena->free[at].offset < offset)
        at++;
    insert_at(arena, at, (struct run){offset, length});
    arena->used -= length;

    struct run *run = &arena->free[at];

    if (at + 1 < arena->n_free && run[1].offset == offset + length) {
        run->length += run[1].length;
        remove_at(arena, at + 1);
    }
    if (at > 0 && run[-1].offset + run[-1].length == offset) {
        run[-1].length += run->length;
        remove_at(arena, at);
    }
}

void arena_shrink(struct arena *arena, uint32_t offset, uint32_t old_length, uint32_t length)
{
    if (old_length > length)
        give_back(arena, offset + length, old_length - length);
}

void arena_free(struct arena *arena, uint32_t offset, uint32_t length)
{
    if (length == 0)
        return;
    give_back(arena, offset, length);
    arena->n_used--;
}

uint32_t arena_used(const struct arena *arena)
{
    return arena->used;
}
