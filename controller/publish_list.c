/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "maglev.h"
#include "publish_internal.h"

static struct durpina_peer_settings settings_of(const struct peer *peer)
{
    const struct server *server = peer->server;

    return (struct durpina_peer_settings){
        .state = model_peer_state(peer),
        .weight = (uint16_t) model_peer_weight(peer),
        .admin = server->now.admin,
        .health = peer->health,
        .derived = model_peer_derived(peer),
        .initial_weight = (uint16_t) model_peer_initial_weight(peer),
        .max_fails = server->now.max_fails,
        .fail_timeout_ms = server->now.fail_timeout_ms,
        .max_conns = model_peer_max_conns(peer),
        .slow_start_ms = server->now.slow_start_ms,
    };
}

int publish_list_entries(struct publication *p, struct peer *const *peers, size_t n)
{
    const struct server *s = p->upstream->servers;

    n = peers == NULL ? 0 : n;
    for (; s != NULL && peers == NULL; s = s->hh.next)
        n += s->n_peers;
    p->entries = calloc(n + 1, sizeof(*p->entries));
    if (p->entries == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < n && peers != NULL; i++)
        p->entries[p->n_entries++] =
            (struct entry){.peer = peers[i], .settings = settings_of(peers[i])};
    for (s = p->upstream->servers; s != NULL && peers == NULL; s = s->hh.next)
        for (size_t i = 0; i < s->n_peers; i++)
            p->entries[p->n_entries++] =
                (struct entry){.peer = s->peers[i], .settings = settings_of(s->peers[i])};
    return 0;
}

static uint64_t hash_of(const struct peer *peer)
{
    char address[DURPINA_NAME_SIZE];

    addr_format(&peer->addr, address, sizeof(address));
    return maglev_hash(peer->server->name, address);
}

/* Its hash does not change as long as it is there. */
static struct placed place(const struct entry *entry, uint64_t hash)
{
    struct peer *peer = entry->peer;

    return (struct placed){
        .peer = peer,
        .hash = hash,
        .id = peer->id,
        .weight = entry->settings.weight,
        .tier = peer->backup,
        .up = entry->settings.state == DURPINA_PEER_UP,
        .hashed = peer->resolved && entry->settings.weight != 0,
        .portless = peer->server->portless,
    };
}

static void add_to_sums(struct tier_sums *sums, const struct placed *placed)
{
    struct tier_sums *of_tier = &sums[placed->tier];

    of_tier->weight += placed->up ? placed->weight : 0;
    of_tier->hashed_weight += placed->hashed ? placed->weight : 0;
    of_tier->n_hashed += placed->hashed;
}

static void take_from_sums(struct tier_sums *sums, const struct placed *placed)
{
    struct tier_sums *of_tier = &sums[placed->tier];

    of_tier->weight -= placed->up ? placed->weight : 0;
    of_tier->hashed_weight -= placed->hashed ? placed->weight : 0;
    of_tier->n_hashed -= placed->hashed;
}

int publish_replace_list(struct publication *p)
{
    struct record *record = publish_record(p);
    struct placed *placed = malloc((p->n_entries + 1) * sizeof(*placed));

    if (placed == NULL)
        return -ENOMEM;
    memcpy(p->former_sums, record->sums, sizeof(p->former_sums));
    memset(record->sums, 0, sizeof(record->sums));
    for (size_t i = 0; i < p->n_entries; i++) {
        const struct entry *entry = &p->entries[i];
        uint32_t at = entry->peer->place;
        bool known = at < record->n_placed && record->placed[at].peer == entry->peer;

        placed[i] = place(entry, known ? record->placed[at].hash : hash_of(entry->peer));
        add_to_sums(record->sums, &placed[i]);
    }
    p->listed = true;
    p->is_whole = true;
    p->former = record->placed;
    p->n_former = record->n_placed;
    record->placed = placed;
    record->n_placed = p->n_entries;
    return 0;
}

void publish_change_list(struct publication *p)
{
    struct record *record = publish_record(p);

    memcpy(p->former_sums, record->sums, sizeof(p->former_sums));
    p->listed = true;
    for (size_t i = 0; i < p->n_entries; i++) {
        struct entry *entry = &p->entries[i];
        struct placed *placed = &record->placed[entry->peer->place];

        entry->former = *placed;
        *placed = place(entry, placed->hash);
        take_from_sums(record->sums, &entry->former);
        add_to_sums(record->sums, placed);
    }
}

void publish_revert_list(struct publication *p)
{
    struct record *record;

    if (!p->listed)
        return;
    record = publish_record(p);
    if (p->is_whole) {
        free(record->placed);
        record->placed = p->former;
        record->n_placed = p->n_former;
    }
    for (size_t i = p->n_entries; i-- > 0 && !p->is_whole;)
        record->placed[p->entries[i].peer->place] = p->entries[i].former;
    memcpy(record->sums, p->former_sums, sizeof(record->sums));
}
