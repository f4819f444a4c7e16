/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>

#include "publish_internal.h"

#define CODE_FULL "UpstreamOutOfMemory"

struct durpina_table *publish_view_table(struct durpina_view *view, size_t table)
{
    if (table == PEERS)
        return &view->peers;

    struct durpina_tier *tier = &view->tier[table_tier(table)];

    switch (table_kind(table)) {
    case SCHEDULE:
        return &tier->schedule;
    case MEMBERS:
        return &tier->members;
    case HASH:
        return &tier->hash;
    default:
        return &tier->ring;
    }
}

static void store_settings(struct durpina_peer_settings *to,
                           const struct durpina_peer_settings *from)
{
    DURPINA_STORE(&to->state, from->state);
    DURPINA_STORE(&to->admin, from->admin);
    DURPINA_STORE(&to->health, from->health);
    DURPINA_STORE(&to->derived, from->derived);
    DURPINA_STORE(&to->weight, from->weight);
    DURPINA_STORE(&to->initial_weight, from->initial_weight);
    DURPINA_STORE(&to->max_fails, from->max_fails);
    DURPINA_STORE(&to->fail_timeout_ms, from->fail_timeout_ms);
    DURPINA_STORE(&to->max_conns, from->max_conns);
    DURPINA_STORE(&to->slow_start_ms, from->slow_start_ms);
}

static void adopt_upstream(struct publish *publish, uint32_t id, uint64_t word, uint64_t now_ms)
{
    struct bpf_state *state = publish->state;
    struct durpina_maps maps = bpf_state_maps(state);
    struct record *record = &publish->records[id];

    record->live = true;
    record->last_word = word;
    publish->n_live++;
    for (size_t i = 0; i < N_TABLES; i++) {
        struct durpina_table table =
            durpina_table(&maps, publish_view_table(&state->upstreams[id].view[word & 1], i));

        /* Runs that overlap are not ours: the table will be written anew. */
        if (table.length > 0 && arena_reserve(publish->arena, table.offset, table.length) == 0)
            record->tables[i].table = table;
    }
    for (uint32_t i = 0; i < record->tables[PEERS].table.length; i++) {
        uint32_t peer = state->slots[record->tables[PEERS].table.offset + i];

        if (peer < state->n_peers && state->peers[peer].upstream == id &&
            state->peers[peer].generation != 0 && publish->use[peer] == USE_NEVER) {
            publish->use[peer] = USE_OWNED;
            publish->n_owned++;
            DURPINA_STORE(&state->peers[peer].endpoint,
                          endpoints_attach(publish->endpoints, peer, &state->peers[peer], now_ms));
        }
    }
}

int publish_create(struct bpf_state *state, uint64_t now_ms, struct publish **ret)
{
    struct publish *publish = calloc(1, sizeof(*publish));
    int err;

    if (publish == NULL)
        return -ENOMEM;
    publish->state = state;
    publish->records = calloc(state->n_upstreams, sizeof(*publish->records));
    publish->use = calloc(state->n_peers, sizeof(*publish->use));
    publish->marks = calloc(state->n_peers, sizeof(*publish->marks));
    publish->freed_at_ms = calloc(state->n_peers, sizeof(*publish->freed_at_ms));
    publish->freed = calloc(state->n_peers, sizeof(*publish->freed));
    if (publish->records == NULL || publish->use == NULL || publish->marks == NULL ||
        publish->freed_at_ms == NULL || publish->freed == NULL ||
        arena_create(state->n_slots, &publish->arena) < 0) {
        publish_destroy(publish);
        return -ENOMEM;
    }
    err = endpoints_create(state, now_ms, &publish->endpoints);
    if (err < 0) {
        publish_destroy(publish);
        return err;
    }

    for (uint32_t id = 0; id < state->n_upstreams; id++) {
        uint64_t word = durpina_seq_begin(&state->upstreams[id].publish);

        publish->records[id].freed_at_ms = now_ms;
        if (word != 0)
            adopt_upstream(publish, id, word, now_ms);
    }
    for (uint32_t id = 0; id < state->n_peers; id++) {
        if (publish->use[id] == USE_OWNED || state->peers[id].generation == 0)
            continue;
        publish_store_free(&state->peers[id]);
        publish_free_peer_id(publish, id, now_ms);
    }
    *ret = publish;
    return 0;
}

void publish_destroy(struct publish *publish)
{
    if (publish == NULL)
        return;
    for (uint32_t id = 0; publish->records != NULL && id < publish->state->n_upstreams; id++)
        free(publish->records[id].placed);
    arena_destroy(publish->arena);
    endpoints_destroy(publish->endpoints);
    free(publish->records);
    free(publish->use);
    free(publish->marks);
    free(publish->freed_at_ms);
    free(publish->freed);
    free(publish);
}

static bool owns(const struct publish *publish, uint32_t upstream_id, uint32_t peer)
{
    return peer < publish->state->n_peers && publish->use[peer] == USE_OWNED &&
           publish->state->peers[peer].upstream == upstream_id;
}

int publish_adopted_peers(struct publish *publish, uint32_t upstream_id, uint32_t **ret_ids,
                          size_t *ret_n)
{
    struct durpina_table table = publish->records[upstream_id].tables[PEERS].table;
    const uint32_t *slots = publish->state->slots + table.offset;
    uint32_t *ids = malloc((table.length + 1) * sizeof(*ids));
    size_t n = 0;

    if (ids == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < table.length; i++) {
        uint32_t id = DURPINA_LOAD(&slots[i]);

        if (owns(publish, upstream_id, id) && !publish->marks[id]) {
            publish->marks[id] = 1;
            ids[n++] = id;
        }
    }
    for (size_t i = 0; i < n; i++)
        publish->marks[ids[i]] = 0;
    *ret_ids = ids;
    *ret_n = n;
    return 0;
}

/* --- preparing --- */

static int take_peer_ids(struct publication *p)
{
    for (size_t i = 0; i < p->n_entries; i++) {
        struct peer *peer = p->entries[i].peer;
        uint32_t id;

        if (peer->id != DURPINA_NONE)
            continue;
        if (publish_take_peer_id(p->publish, p->now_ms, &id) < 0)
            return -ENOSPC;
        peer->id = id;
        p->entries[i].is_new = true;
        p->publish->use[id] = USE_OWNED;
        p->publish->n_owned++;
        publish_write_identity(p->publish, p->upstream, peer, p->now_ms);
    }
    return 0;
}

/* peers NULL: all of them. */
static int prepare(struct publish *publish, struct upstream *upstream, struct peer *const *peers,
                   size_t n_peers, uint64_t now_ms, bool *ret_stale, struct publication **ret,
                   struct failure *failure)
{
    const struct bpf_state *state = publish->state;
    struct publication *p = calloc(1, sizeof(*p));
    int err;

    if (p == NULL)
        return fail_memory(failure);
    *p = (struct publication){.publish = publish, .upstream = upstream, .now_ms = now_ms};

    /* What a former controller or nobody has published is published in full. */
    if (upstream->id == DURPINA_NONE || publish->records[upstream->id].placed == NULL)
        peers = NULL;
    if (publish_list_entries(p, peers, n_peers) < 0) {
        err = fail_memory(failure);
        goto abort;
    }
    if (upstream->id == DURPINA_NONE) {
        if (publish_take_upstream_id(publish, upstream, now_ms) < 0) {
            err =
                fail(failure, ENOSPC, 409, CODE_FULL,
                     "upstream %s: all %u upstreams are in use or just freed: raise \"upstreams\" "
                     "in durpinad.conf",
                     upstream->name, state->n_upstreams);
            goto abort;
        }
        p->is_new = true;
    }
    if (take_peer_ids(p) < 0) {
        err = fail(failure, ENOSPC, 409, CODE_FULL,
                   "upstream %s: all %u peers are in use or just freed: raise \"peers\" in "
                   "durpinad.conf",
                   upstream->name, state->n_peers);
        goto abort;
    }
    if (peers != NULL) {
        publish_change_list(p);
        err = 0;
    } else {
        err = publish_replace_list(p);
    }
    if (err == 0)
        err = publish_make_tables(p, ret_stale);
    if (err == -ENOSPC)
        err = fail(failure, ENOSPC, 409, CODE_FULL,
                   "upstream %s: not enough slots in a row, %u of %u are in use: raise \"slots\" "
                   "in durpinad.conf",
                   upstream->name, arena_used(publish->arena), state->n_slots);
    else if (err < 0)
        err = fail_memory(failure);
    if (err < 0)
        goto abort;
    *ret = p;
    return 0;
abort:
    publish_abort(p);
    return err;
}

int publish_prepare(struct publish *publish, struct upstream *upstream, uint64_t now_ms,
                    struct publication **ret, struct failure *failure)
{
    return prepare(publish, upstream, NULL, 0, now_ms, NULL, ret, failure);
}

/* These peers only, which may be none. */
static int prepare_peers(struct publish *publish, struct upstream *upstream,
                         struct peer *const *peers, size_t n_peers, uint64_t now_ms,
                         bool *ret_stale, struct publication **ret, struct failure *failure)
{
    static struct peer *const nobody[1]; /* not NULL */

    return prepare(publish, upstream, n_peers == 0 ? nobody : peers, n_peers, now_ms, ret_stale,
                   ret, failure);
}

int publish_prepare_peers(struct publish *publish, struct upstream *upstream,
                          struct peer *const *peers, size_t n_peers, uint64_t now_ms,
                          struct publication **ret, struct failure *failure)
{
    return prepare_peers(publish, upstream, peers, n_peers, now_ms, NULL, ret, failure);
}

static void free_run(struct publish *publish, struct durpina_table run)
{
    if (run.length > 0)
        arena_free(publish->arena, run.offset, run.length);
}

void publish_abort(struct publication *p)
{
    if (p == NULL)
        return;

    struct publish *publish = p->publish;

    for (size_t i = 0; i < N_TABLES; i++) {
        if (p->tables[i].is_new)
            free_run(publish, p->tables[i].table);
        free_run(publish, p->tables[i].reserved);
    }
    publish_revert_list(p);
    for (size_t i = 0; i < p->n_entries; i++) {
        struct peer *peer = p->entries[i].peer;

        if (!p->entries[i].is_new)
            continue;
        /* Nobody has seen it, but its generation is spent. */
        publish_untake_peer_id(publish, peer->id, p->now_ms);
        publish->n_owned--;
        peer->id = DURPINA_NONE;
        peer->generation = 0;
    }
    if (p->is_new) {
        publish_free_upstream_id(publish, p->upstream->id, p->now_ms - PUBLISH_GRACE_MS);
        p->upstream->id = DURPINA_NONE;
        p->upstream->generation = 0;
    }
    free(p->entries);
    free(p);
}

/* --- commit --- */

static void free_unmarked(struct publish *publish, uint32_t id, uint64_t now_ms)
{
    if (publish->marks[id])
        return;
    publish_store_free(&publish->state->peers[id]);
    publish_free_peer_id(publish, id, now_ms);
    publish->n_owned--;
}

/* Frees the peers of the list that are not marked. What a former controller has published has none
 * (NULL): those of the table in force, if they are its own. */
static void free_leaving(struct publish *publish, uint32_t upstream_id, const struct placed *placed,
                         size_t n_placed, uint64_t now_ms)
{
    struct durpina_table table = publish->records[upstream_id].tables[PEERS].table;

    for (size_t i = 0; placed != NULL && i < n_placed; i++)
        free_unmarked(publish, placed[i].id, now_ms);
    for (uint32_t i = 0; placed == NULL && i < table.length; i++) {
        uint32_t id = DURPINA_LOAD(&publish->state->slots[table.offset + i]);

        if (owns(publish, upstream_id, id))
            free_unmarked(publish, id, now_ms);
    }
}

/* Brings one copy of the state up to date: the view and the settings of the entries. */
static void write_copy(const struct publication *p, unsigned copy)
{
    struct bpf_state *state = p->publish->state;
    struct durpina_view *view = &state->upstreams[p->upstream->id].view[copy];

    for (size_t i = 0; i < N_TABLES; i++) {
        struct durpina_table *table = publish_view_table(view, i);

        DURPINA_STORE(&table->offset, p->tables[i].table.offset);
        DURPINA_STORE(&table->length, p->tables[i].table.length);
    }
    for (size_t i = 0; i < DURPINA_TIERS; i++)
        DURPINA_STORE(&view->tier[i].weight, publish_record(p)->sums[i].weight);
    for (size_t i = 0; i < p->n_entries; i++)
        store_settings(&state->peers[p->entries[i].peer->id].settings[copy],
                       &p->entries[i].settings);
}

static void grow_epoch(struct bpf_state *state)
{
    __atomic_fetch_add(&state->meta->epoch, 1, __ATOMIC_RELEASE);
}

/* The list is in force: those who are not in it are free. */
static void settle_list(struct publication *p)
{
    struct publish *publish = p->publish;

    for (size_t i = 0; i < p->n_entries; i++) {
        p->entries[i].peer->place = (uint32_t) i;
        publish->marks[p->entries[i].peer->id] = 1;
    }
    free_leaving(publish, p->upstream->id, p->former, p->n_former, p->now_ms);
    for (size_t i = 0; i < p->n_entries; i++)
        publish->marks[p->entries[i].peer->id] = 0;
    free(p->former);
}

static void settle_table(struct publication *p, size_t table)
{
    struct laid *laid = &publish_record(p)->tables[table];
    struct durpina_table *reserved = &publish_record(p)->reserved[table];
    const struct new_table *new = &p->tables[table];

    if (new->is_new) {
        free_run(p->publish, laid->table);
        laid->changes++;
    }
    laid->table = new->table;
    laid->stale = new->stale;
    if (new->reserved.length > 0)
        *reserved = new->reserved;
    if (!laid->stale) {
        free_run(p->publish, *reserved);
        *reserved = (struct durpina_table){0, 0};
    }
}

void publish_commit(struct publication *p)
{
    struct publish *publish = p->publish;
    struct upstream *upstream = p->upstream;
    struct record *record = publish_record(p);
    uint64_t word = record->last_word > upstream->revision ? record->last_word : upstream->revision;

    /* durpina_seq.h. The copy that is written first is the one not in force, whatever word the
     * state file has brought along. */
    uint64_t in_force = publish->state->upstreams[upstream->id].publish;

    word = word < PUBLISH_WORD_MAX ? word + 1 : 1;
    if (in_force != 0 && ((word ^ in_force) & 1) == 0)
        word++;
    write_copy(p, word & 1);
    durpina_seq_publish(&publish->state->upstreams[upstream->id].publish, word);
    durpina_seq_open();
    write_copy(p, (word & 1) ^ 1);

    if (p->is_new)
        grow_epoch(publish->state);
    if (p->is_whole)
        settle_list(p);
    for (size_t i = 0; i < N_TABLES; i++)
        settle_table(p, i);
    if (p->made)
        record->made_ms = p->now_ms;
    record->upstream = upstream;
    record->last_word = word;
    upstream->revision = word;
    free(p->entries);
    free(p);
}

int publish_states(struct publish *publish, struct upstream *upstream, struct peer *const *peers,
                   size_t n_peers, uint64_t now_ms)
{
    struct publication *publication;
    struct failure failure;
    bool stale = false;
    int err =
        prepare_peers(publish, upstream, peers, n_peers, now_ms, &stale, &publication, &failure);

    if (err < 0)
        return err;
    publish_commit(publication);
    return stale ? -ENOSPC : 0;
}

void publish_remove(struct publish *publish, uint32_t upstream_id, uint64_t now_ms)
{
    struct record *record = &publish->records[upstream_id];

    durpina_seq_publish(&publish->state->upstreams[upstream_id].publish, 0);
    durpina_seq_open();
    grow_epoch(publish->state);
    free_leaving(publish, upstream_id, record->placed, record->n_placed, now_ms);
    for (size_t i = 0; i < N_TABLES; i++) {
        free_run(publish, record->tables[i].table);
        free_run(publish, record->reserved[i]);
    }
    publish_free_upstream_id(publish, upstream_id, now_ms);
}

struct endpoints *publish_endpoints(const struct publish *publish)
{
    return publish->endpoints;
}

struct publish_usage publish_usage(const struct publish *publish)
{
    return (struct publish_usage){.upstreams = publish->n_live,
                                  .peers = publish->n_owned,
                                  .slots = arena_used(publish->arena)};
}
