/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "maglev.h"
#include "publish_internal.h"
#include "schedule.h"

/* What a table is made from; a digest of these tells whether it has to be made again. */
struct member {
    uint32_t id;
    uint32_t generation;
    uint32_t weight;
    uint32_t index; /* in publication->entries */
};

struct members {
    struct member *items;
    size_t n;
};

/* The entries that belong into the table, in the order of `server` lines. */
static void select_members(const struct publication *p, size_t table, struct members *members)
{
    members->n = 0;
    for (size_t i = 0; i < p->n_entries; i++) {
        const struct entry *e = &p->entries[i];
        bool up = e->settings.state == DURPINA_PEER_UP;
        bool in_tier = table == PEERS || (table - 1) / TIER_TABLES == e->peer->server->backup;
        bool in_table = table == PEERS || (table - 1) % TIER_TABLES != HASH
                            ? table == PEERS || up
                            : e->peer->resolved && e->settings.weight != 0;

        if (in_tier && in_table)
            members->items[members->n++] = (struct member){
                .id = e->peer->id,
                .generation = e->peer->generation,
                .weight = table == PEERS ? 0 : e->settings.weight,
                .index = (uint32_t) i,
            };
    }
}

static int list_ids(const struct members *members, uint32_t **ret_slots, uint32_t *ret_length)
{
    uint32_t *slots = malloc((members->n + 1) * sizeof(*slots));

    if (slots == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < members->n; i++)
        slots[i] = members->items[i].id;
    *ret_slots = slots;
    *ret_length = (uint32_t) members->n;
    return 0;
}

static int make_schedule(const struct members *members, uint32_t **ret_slots, uint32_t *ret_length)
{
    uint32_t *weights = malloc((members->n + 1) * 2 * sizeof(*weights));
    uint32_t *turns, *slots = NULL;
    int64_t length = -ENOMEM;
    int err = -ENOMEM;

    if (weights == NULL)
        return -ENOMEM;
    turns = weights + members->n;
    for (size_t i = 0; i < members->n; i++)
        weights[i] = members->items[i].weight;
    length = schedule_turns(weights, members->n, turns);
    if (length >= 0)
        slots = malloc(((size_t) length + 1) * sizeof(*slots));
    if (slots != NULL)
        err = schedule_layout(turns, members->n, slots, (size_t) length);
    free(weights);
    if (err < 0) {
        free(slots);
        return err;
    }
    for (int64_t i = 0; i < length; i++)
        slots[i] = members->items[slots[i]].id;
    *ret_slots = slots;
    *ret_length = (uint32_t) length;
    return 0;
}

/* current: length of the table in force. */
static int make_hash(const struct publication *p, const struct members *members, uint32_t current,
                     uint32_t **ret_slots, uint32_t *ret_length)
{
    struct maglev_peer *peers = malloc((members->n + 1) * sizeof(*peers));
    uint32_t size = maglev_size(members->n, current);
    uint32_t *slots = malloc(((size_t) size + 1) * sizeof(*slots));
    int err = -ENOMEM;

    if (peers != NULL && slots != NULL) {
        for (size_t i = 0; i < members->n; i++) {
            const struct peer *peer = p->entries[members->items[i].index].peer;
            char address[DURPINA_NAME_SIZE];

            addr_format(&peer->addr, address, sizeof(address));
            peers[i] = (struct maglev_peer){.hash = maglev_hash(peer->server->name, address),
                                            .weight = members->items[i].weight,
                                            .value = members->items[i].id};
        }
        err = members->n > 0 && size == 0 ? -ENOSPC : 0;
        if (err == 0 && size > 0)
            err = maglev_build(peers, members->n, slots, size);
    }
    free(peers);
    if (err < 0) {
        free(slots);
        return err;
    }
    *ret_slots = slots;
    *ret_length = size;
    return 0;
}

/* Writes the table into a run of its own, unless the one in force is just like it. */
static int place_table(struct publication *p, size_t table, const uint32_t *slots, uint32_t length)
{
    struct publish *publish = p->publish;
    struct durpina_table in_force = publish->records[p->upstream->id].tables[table];
    uint32_t *to = publish->state->slots, offset;
    int err;

    if (in_force.length == length &&
        memcmp(to + in_force.offset, slots, length * sizeof(*slots)) == 0)
        return 0;
    if (length == 0) {
        p->tables[table].table = (struct durpina_table){0, 0};
        p->tables[table].is_new = true;
        return 0;
    }
    err = arena_alloc(publish->arena, length, &offset);
    if (err < 0)
        return err;
    for (uint32_t i = 0; i < length; i++)
        DURPINA_STORE(&to[offset + i], slots[i]);
    p->tables[table].table = (struct durpina_table){offset, length};
    p->tables[table].is_new = true;
    return 0;
}

static int make_table(struct publication *p, size_t table, struct members *members)
{
    const struct record *record = &p->publish->records[p->upstream->id];
    uint32_t *slots = NULL, length = 0;
    uint64_t digest;
    int err;

    select_members(p, table, members);
    digest = XXH3_64bits(members->items, members->n * sizeof(*members->items)) | 1;
    p->tables[table].table = record->tables[table];
    p->tables[table].digest = digest;
    if (digest == record->digests[table])
        return 0;

    if (table == PEERS || (table - 1) % TIER_TABLES == MEMBERS)
        err = list_ids(members, &slots, &length);
    else if ((table - 1) % TIER_TABLES == SCHEDULE)
        err = make_schedule(members, &slots, &length);
    else
        err = make_hash(p, members, record->tables[table].length, &slots, &length);
    if (err == 0)
        err = place_table(p, table, slots, length);
    free(slots);
    return err;
}

int publish_make_tables(struct publication *p, bool *ret_stale)
{
    struct members members = {.items = malloc((p->n_entries + 1) * sizeof(struct member))};
    int err = members.items == NULL ? -ENOMEM : 0;

    for (size_t i = 0; i < N_TABLES && err == 0; i++) {
        err = make_table(p, i, &members);
        if (err == -ENOSPC && ret_stale != NULL && i != PEERS) {
            p->tables[i].digest = 0;
            *ret_stale = true;
            err = 0;
        }
    }
    free(members.items);
    return err;
}
