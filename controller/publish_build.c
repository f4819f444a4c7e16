/* SPDX-License-Identifier: MIT */
/* Tables on demand: what they are made from, and their builds in another thread. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "maglev.h"
#include "publish_internal.h"
#include "ring.h"

#define RING_SLOTS_PER_POINT 3 /* about */

struct build {
    struct publish *publish;
    const struct upstream *upstream;
    uint32_t upstream_id;
    uint32_t generation;
    size_t table;
    uint32_t changes; /* of what was in force */
    struct durpina_table run;
    struct inputs inputs;
    uint32_t *slots;
    uint32_t length;
    int err;
};

/* --- inputs --- */

uint64_t publish_table_size(const struct record *record, size_t table)
{
    const struct tier_sums *sums = &record->sums[table_tier(table)];

    if (sums->n_hashed == 0)
        return 0;
    if (table_kind(table) == RING) {
        uint64_t points = sums->hashed_weight * RING_POINTS_PER_WEIGHT;

        return DURPINA_RING_HEADER +
               RING_SLOTS_PER_POINT * (points < RING_POINTS_MAX ? points : RING_POINTS_MAX);
    }

    uint32_t size = maglev_size(sums->n_hashed, record->tables[table].table.length);

    return size != 0 ? size : UINT64_MAX;
}

static int take_hashed(const struct record *record, size_t table, struct inputs *inputs)
{
    inputs->hashed = malloc((inputs->n + 1) * sizeof(*inputs->hashed));
    if (inputs->hashed == NULL)
        return -ENOMEM;
    inputs->n = 0;
    for (size_t i = 0; i < record->n_placed; i++) {
        const struct placed *placed = &record->placed[i];

        if (publish_is_in_table(placed, table))
            inputs->hashed[inputs->n++] = (struct maglev_peer){.hash = placed->hash,
                                                               .weight = placed->weight,
                                                               .value = placed->id};
    }
    return 0;
}

/* As it was written: a port that was not is no part of it. */
static size_t written_length(const struct server *server)
{
    const char *port = server->portless ? strrchr(server->name, ':') : NULL;

    return port == NULL ? strlen(server->name) : (size_t) (port - server->name);
}

static int take_ring(const struct record *record, size_t table, struct inputs *inputs)
{
    size_t size = 0, n = 0;
    char *at;

    for (size_t i = 0; i < record->n_placed; i++)
        if (publish_is_in_table(&record->placed[i], table))
            size += written_length(record->placed[i].peer->server) + 1;
    inputs->ring = malloc((inputs->n + 1) * sizeof(*inputs->ring));
    inputs->names = at = malloc(size + 1);
    if (inputs->ring == NULL || inputs->names == NULL) {
        publish_inputs_clear(inputs);
        return -ENOMEM;
    }
    for (size_t i = 0; i < record->n_placed; i++) {
        const struct placed *placed = &record->placed[i];
        const struct server *server = placed->peer->server;
        size_t len = written_length(server);

        if (!publish_is_in_table(placed, table))
            continue;
        memcpy(at, server->name, len);
        at[len] = '\0';
        inputs->ring[n++] =
            (struct ring_peer){.name = at, .weight = placed->weight, .value = placed->id};
        at += len + 1;
    }
    inputs->n = n;
    return 0;
}

int publish_inputs_take(const struct record *record, size_t table, struct inputs *ret)
{
    *ret = (struct inputs){.kind = table_kind(table),
                           .size = (uint32_t) publish_table_size(record, table),
                           .n = record->sums[table_tier(table)].n_hashed};
    return ret->kind == RING ? take_ring(record, table, ret) : take_hashed(record, table, ret);
}

void publish_inputs_clear(struct inputs *inputs)
{
    free(inputs->hashed);
    free(inputs->ring);
    free(inputs->names);
    *inputs = (struct inputs){0};
}

int publish_inputs_lay_out(const struct inputs *inputs, uint32_t **ret_slots, uint32_t *ret_length)
{
    uint32_t *slots;
    int err;

    if (inputs->kind == RING) {
        err = ring_build(inputs->ring, inputs->n, ret_slots, ret_length);
        return err == -E2BIG ? -ENOSPC : err;
    }
    slots = malloc(((size_t) inputs->size + 1) * sizeof(*slots));
    err = slots == NULL ? -ENOMEM : maglev_build(inputs->hashed, inputs->n, slots, inputs->size);
    if (err < 0) {
        free(slots);
        return err;
    }
    *ret_slots = slots;
    *ret_length = inputs->size;
    return 0;
}

/* --- builds --- */

static struct record *record_of(const struct publish *publish, const struct upstream *upstream)
{
    if (upstream->id == DURPINA_NONE || publish->records[upstream->id].upstream != upstream)
        return NULL;
    return &publish->records[upstream->id];
}

/* The table that lags most: one that is not there at all, if there is one. PEERS: none. */
static size_t lagging_table(const struct record *record)
{
    size_t found = PEERS;

    for (size_t i = N_TABLES; --i > PEERS;)
        if (is_on_demand(i) && record->tables[i].stale &&
            (found == PEERS || record->tables[i].table.length == 0))
            found = i;
    return found;
}

enum publish_lag publish_lag(const struct publish *publish, const struct upstream *upstream)
{
    const struct record *record = record_of(publish, upstream);
    size_t table = record == NULL ? PEERS : lagging_table(record);

    if (table == PEERS)
        return PUBLISH_UP_TO_DATE;
    return record->tables[table].table.length == 0 ? PUBLISH_MISSING : PUBLISH_LAGS;
}

uint32_t publish_table_slots(const struct publish *publish, const struct upstream *upstream,
                             enum demanded table)
{
    const struct record *record = record_of(publish, upstream);
    uint32_t slots = 0;

    for (unsigned tier = 0; record != NULL && tier < DURPINA_TIERS; tier++)
        slots += record->tables[TABLE(tier, HASH + table)].table.length;
    return slots;
}

void publish_build_drop(struct build *build)
{
    if (build->run.length > 0)
        arena_free(build->publish->arena, build->run.offset, build->run.length);
    publish_inputs_clear(&build->inputs);
    free(build->slots);
    free(build);
}

int publish_build_begin(struct publish *publish, const struct upstream *upstream,
                        struct build **ret)
{
    struct record *record = record_of(publish, upstream);
    size_t table = lagging_table(record);
    uint64_t size = publish_table_size(record, table);
    struct build *build;
    int err = 0;

    if (upstream->demand[table_kind(table) - HASH] == DEMAND_GUESSED &&
        record->tables[table].table.length == 0 &&
        !publish_may_guess(publish, record, table, size)) {
        record->tables[table].stale = false;
        *ret = NULL;
        return 0;
    }
    if (size > publish->state->n_slots)
        return -ENOSPC;
    build = calloc(1, sizeof(*build));
    if (build == NULL)
        return -ENOMEM;
    *build = (struct build){.publish = publish,
                            .upstream = upstream,
                            .upstream_id = upstream->id,
                            .generation = upstream->generation,
                            .table = table,
                            .changes = record->tables[table].changes,
                            .run = record->reserved[table]};
    record->reserved[table] = (struct durpina_table){0, 0};
    if (build->run.length < size) {
        uint32_t offset;

        if (build->run.length > 0)
            arena_free(publish->arena, build->run.offset, build->run.length);
        build->run.length = 0;
        err = arena_alloc(publish->arena, (uint32_t) size, &offset);
        if (err == 0)
            build->run = (struct durpina_table){offset, (uint32_t) size};
    }
    if (err == 0)
        err = publish_inputs_take(record, table, &build->inputs);
    if (err < 0) {
        publish_build_drop(build);
        return err;
    }
    /* Whatever changes from now on makes it lag again. */
    record->tables[table].stale = false;
    record->building = table;
    *ret = build;
    return 0;
}

void publish_build_run(struct build *build)
{
    build->err = publish_inputs_lay_out(&build->inputs, &build->slots, &build->length);
}

/* The run for what has come out, which may be longer than thought. */
static int fit_run(struct build *build)
{
    uint32_t offset;
    int err;

    if (build->length <= build->run.length) {
        arena_shrink(build->publish->arena, build->run.offset, build->run.length, build->length);
        build->run.length = build->length;
        return 0;
    }
    err = arena_alloc(build->publish->arena, build->length, &offset);
    if (err < 0)
        return err;
    arena_free(build->publish->arena, build->run.offset, build->run.length);
    build->run = (struct durpina_table){offset, build->length};
    return 0;
}

static int put_in_force(struct build *build, struct upstream *upstream, uint64_t now_ms)
{
    struct publish *publish = build->publish;
    const struct record *record = &publish->records[build->upstream_id];
    struct publication *p = calloc(1, sizeof(*p));
    int err = p == NULL ? -ENOMEM : fit_run(build);

    if (err < 0) {
        free(p);
        return err;
    }
    publish_store_slots(publish, build->run.offset, build->slots, build->length);
    *p = (struct publication){.publish = publish, .upstream = upstream, .now_ms = now_ms};
    for (size_t i = 0; i < N_TABLES; i++)
        p->tables[i] =
            (struct new_table){.table = record->tables[i].table, .stale = record->tables[i].stale};
    p->tables[build->table].table = build->run;
    p->tables[build->table].is_new = true;
    build->run.length = 0;
    publish_commit(p);
    return 0;
}

int publish_build_end(struct build *build, uint64_t now_ms)
{
    struct record *record = &build->publish->records[build->upstream_id];
    bool is_there = record->upstream == build->upstream && record->building == build->table &&
                    record->upstream->generation == build->generation;
    int err = 0;

    if (is_there) {
        record->building = PEERS;
        /* One that a publication has put in force, or taken out, meanwhile is newer. */
        if (record->tables[build->table].changes == build->changes) {
            err = build->err < 0 ? build->err : put_in_force(build, record->upstream, now_ms);
            record->tables[build->table].stale |= err < 0;
        }
    }
    publish_build_drop(build);
    return err;
}
