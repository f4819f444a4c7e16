/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "publish_internal.h"
#include "schedule.h"

bool publish_is_in_table(const struct placed *placed, size_t table)
{
    if (table == PEERS)
        return true;
    return placed->tier == table_tier(table) && (is_on_demand(table) ? placed->hashed : placed->up);
}

/* --- what has changed --- */

/* Does the table come out otherwise with b in place of a? */
static bool differs(const struct placed *a, const struct placed *b, size_t table)
{
    if (publish_is_in_table(a, table) != publish_is_in_table(b, table))
        return true;
    if (!publish_is_in_table(a, table))
        return false;
    if (table == PEERS || table_kind(table) == MEMBERS)
        return a->id != b->id;
    return a->id != b->id || a->weight != b->weight || a->hash != b->hash ||
           a->portless != b->portless;
}

/* The next one of the list, from *i on, that is in the table; NULL: none. */
static const struct placed *next_in(const struct placed *placed, size_t n, size_t table, size_t *i)
{
    while (*i < n && !publish_is_in_table(&placed[*i], table))
        (*i)++;
    return *i < n ? &placed[(*i)++] : NULL;
}

static bool has_changed(const struct publication *p, size_t table)
{
    const struct record *record = publish_record(p);
    const struct placed *a, *b;
    size_t at = 0, at_former = 0;

    if (record->tables[table].stale || (p->is_whole && p->former == NULL))
        return true;
    for (size_t i = 0; i < p->n_entries && !p->is_whole; i++)
        if (differs(&p->entries[i].former, &record->placed[p->entries[i].peer->place], table))
            return true;
    if (!p->is_whole)
        return false;
    do {
        a = next_in(p->former, p->n_former, table, &at_former);
        b = next_in(record->placed, record->n_placed, table, &at);
    } while (a != NULL && b != NULL && !differs(a, b, table));
    return a != b;
}

/* --- making --- */

static int list_ids(const struct record *record, size_t table, uint32_t **ret_slots,
                    uint32_t *ret_length)
{
    uint32_t *slots = malloc((record->n_placed + 1) * sizeof(*slots));
    uint32_t n = 0;

    if (slots == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < record->n_placed; i++)
        if (publish_is_in_table(&record->placed[i], table))
            slots[n++] = record->placed[i].id;
    *ret_slots = slots;
    *ret_length = n;
    return 0;
}

static int make_schedule(const struct record *record, size_t table, uint32_t **ret_slots,
                         uint32_t *ret_length)
{
    uint32_t *ids = malloc((record->n_placed + 1) * 3 * sizeof(*ids)), *slots = NULL;
    uint32_t *weights, *turns;
    int64_t length;
    size_t n = 0;
    int err = -ENOMEM;

    if (ids == NULL)
        return -ENOMEM;
    weights = ids + record->n_placed;
    turns = weights + record->n_placed;
    for (size_t i = 0; i < record->n_placed; i++)
        if (publish_is_in_table(&record->placed[i], table)) {
            ids[n] = record->placed[i].id;
            weights[n++] = record->placed[i].weight;
        }
    length = schedule_turns(weights, n, turns);
    if (length >= 0)
        slots = malloc(((size_t) length + 1) * sizeof(*slots));
    if (slots != NULL)
        err = schedule_layout(turns, n, slots, (size_t) length);
    for (int64_t i = 0; i < length && err == 0; i++)
        slots[i] = ids[slots[i]];
    free(ids);
    if (err < 0) {
        free(slots);
        return err;
    }
    *ret_slots = slots;
    *ret_length = (uint32_t) length;
    return 0;
}

void publish_store_slots(struct publish *publish, uint32_t offset, const uint32_t *slots,
                         uint32_t length)
{
    uint32_t *to = publish->state->slots + offset;

    for (uint32_t i = 0; i < length; i++)
        DURPINA_STORE(&to[i], slots[i]);
}

static void put_table(struct publication *p, size_t table, uint32_t offset, uint32_t length)
{
    p->tables[table].table = (struct durpina_table){offset, length};
    p->tables[table].is_new = true;
}

static void drop_table(struct publication *p, size_t table)
{
    if (p->tables[table].table.length > 0)
        put_table(p, table, 0, 0);
}

/* Writes the table into a run of its own, unless the one in force is just like it. */
static int place_table(struct publication *p, size_t table, const uint32_t *slots, uint32_t length)
{
    struct publish *publish = p->publish;
    struct durpina_table in_force = publish_record(p)->tables[table].table;
    uint32_t offset;
    int err;

    if (length == 0) {
        drop_table(p, table);
        return 0;
    }
    if (in_force.length == length &&
        memcmp(publish->state->slots + in_force.offset, slots, length * sizeof(*slots)) == 0)
        return 0;
    err = arena_alloc(publish->arena, length, &offset);
    if (err < 0)
        return err;
    publish_store_slots(publish, offset, slots, length);
    put_table(p, table, offset, length);
    return 0;
}

static int make_table(struct publication *p, size_t table)
{
    const struct record *record = publish_record(p);
    uint32_t *slots = NULL, length = 0;
    int err;

    if (table == PEERS || table_kind(table) == MEMBERS)
        err = list_ids(record, table, &slots, &length);
    else
        err = make_schedule(record, table, &slots, &length);
    if (err == 0)
        err = place_table(p, table, slots, length);
    free(slots);
    return err;
}

/* --- tables on demand --- */

static int make_on_demand(struct publication *p, size_t table)
{
    struct inputs inputs;
    uint32_t *slots = NULL, length = 0;
    int err = publish_inputs_take(publish_record(p), table, &inputs);

    if (err < 0)
        return err;
    err = publish_inputs_lay_out(&inputs, &slots, &length);
    publish_inputs_clear(&inputs);
    if (err == 0)
        err = place_table(p, table, slots, length);
    free(slots);
    p->made |= err == 0;
    return err;
}

/* A table that is wanted, not there and too large to be made here: room for it is kept. */
static int reserve(struct publication *p, size_t table, uint64_t size)
{
    const struct record *record = publish_record(p);
    uint32_t offset;
    int err;

    if (record->reserved[table].length > 0 || record->building == table)
        return 0;
    err = size > p->publish->state->n_slots
              ? -ENOSPC
              : arena_alloc(p->publish->arena, (uint32_t) size, &offset);
    if (err == 0)
        p->tables[table].reserved = (struct durpina_table){offset, (uint32_t) size};
    return err;
}

bool publish_may_guess(const struct publish *publish, const struct record *record, size_t table,
                       uint64_t size)
{
    uint64_t used = arena_used(publish->arena) - record->tables[table].table.length;

    /* One that is being made has been allowed, and its room is in use already. */
    return record->building == table ||
           used + size <= publish->state->n_slots / PUBLISH_GUESS_SHARE;
}

static int supply(struct publication *p, size_t table)
{
    const struct record *record = publish_record(p);
    enum demand demand = p->upstream->demand[table_kind(table) - HASH];
    uint64_t size = demand == DEMAND_NONE ? 0 : publish_table_size(record, table);
    bool missing = record->tables[table].table.length == 0;
    int err = 0;

    if (size == 0 ||
        (demand == DEMAND_GUESSED && !publish_may_guess(p->publish, record, table, size))) {
        drop_table(p, table);
        return 0;
    }
    if (!missing && !has_changed(p, table))
        return 0;
    if (size <= PUBLISH_SMALL_SLOTS &&
        (missing || p->now_ms - record->made_ms >= PUBLISH_PAUSE_MS)) {
        err = make_on_demand(p, table);
        if (err == 0)
            return 0;
        if (err == -ENOSPC && demand == DEMAND_GUESSED) {
            drop_table(p, table);
            return 0;
        }
    } else if (missing && demand != DEMAND_GUESSED) {
        err = reserve(p, table, size);
    }
    if (err == -ENOMEM || (err < 0 && missing && demand == DEMAND_REQUIRED))
        return err;
    p->tables[table].stale = true;
    return 0;
}

/* A table on demand that is not there is there when this is answered, or on its way. */
int publish_make_tables(struct publication *p, bool *ret_stale)
{
    const struct record *record = publish_record(p);
    int err = 0;

    for (size_t i = 0; i < N_TABLES; i++)
        p->tables[i].table = record->tables[i].table;
    for (size_t i = 0; i < N_TABLES && err == 0; i++) {
        if (is_on_demand(i))
            err = supply(p, i);
        else if (has_changed(p, i))
            err = make_table(p, i);
        if (err == -ENOSPC && ret_stale != NULL && i != PEERS) {
            p->tables[i].stale = true;
            *ret_stale = true;
            err = 0;
        }
    }
    return err;
}
