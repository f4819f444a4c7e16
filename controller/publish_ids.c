/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "publish_internal.h"

void publish_store_free(struct durpina_peer *peer)
{
    DURPINA_STORE(&peer->settings[0].state, DURPINA_PEER_FREE);
    DURPINA_STORE(&peer->settings[1].state, DURPINA_PEER_FREE);
}

static void detach(struct publish *publish, uint32_t id, uint64_t now_ms)
{
    endpoints_detach(publish->endpoints, id, now_ms);
    DURPINA_STORE(&publish->state->peers[id].endpoint, DURPINA_NONE);
}

void publish_free_peer_id(struct publish *publish, uint32_t id, uint64_t now_ms)
{
    uint32_t n = publish->state->n_peers;

    detach(publish, id, now_ms);
    publish->freed[(publish->first_freed + publish->n_freed++) % n] = id;
    publish->freed_at_ms[id] = now_ms;
    publish->use[id] = USE_FREED;
}

void publish_untake_peer_id(struct publish *publish, uint32_t id, uint64_t now_ms)
{
    uint32_t n = publish->state->n_peers;

    detach(publish, id, now_ms);
    publish->first_freed = (publish->first_freed + n - 1) % n;
    publish->freed[publish->first_freed] = id;
    publish->n_freed++;
    publish->freed_at_ms[id] = now_ms - PUBLISH_GRACE_MS;
    publish->use[id] = USE_FREED;
}

/* Takes the oldest freed id off the ring. */
static uint32_t pop_freed(struct publish *publish)
{
    uint32_t id = publish->freed[publish->first_freed];

    publish->first_freed = (publish->first_freed + 1) % publish->state->n_peers;
    publish->n_freed--;
    return id;
}

static bool can_be_reused(const struct publish *publish, uint32_t id, uint64_t now_ms)
{
    return now_ms - publish->freed_at_ms[id] >= PUBLISH_GRACE_MS &&
           DURPINA_LOAD(&publish->state->counters[id].active) == 0;
}

int publish_take_peer_id(struct publish *publish, uint64_t now_ms, uint32_t *ret_id)
{
    uint32_t n = publish->state->n_peers;

    if (publish->n_freed > 0 &&
        can_be_reused(publish, publish->freed[publish->first_freed], now_ms)) {
        *ret_id = pop_freed(publish);
        return 0;
    }
    for (; publish->first_never < n; publish->first_never++)
        if (publish->use[publish->first_never] == USE_NEVER) {
            *ret_id = publish->first_never++;
            return 0;
        }
    /* The oldest is still in use by a request; another may not be. */
    for (uint32_t left = publish->n_freed; left > 0; left--) {
        uint32_t id = pop_freed(publish);

        if (can_be_reused(publish, id, now_ms)) {
            *ret_id = id;
            return 0;
        }
        publish_free_peer_id(publish, id, publish->freed_at_ms[id]);
    }
    return -ENOSPC;
}

static uint32_t next_generation(uint32_t generation)
{
    return generation + 1 != 0 ? generation + 1 : 1;
}

void publish_write_identity(struct publish *publish, const struct upstream *upstream,
                            struct peer *peer, uint64_t now_ms)
{
    struct durpina_peer *record = &publish->state->peers[peer->id];
    struct durpina_counters *counters = &publish->state->counters[peer->id];
    const struct server *server = peer->server;

    publish_store_free(record);
    peer->generation = next_generation(record->generation);

    memset(record->name, 0, sizeof(record->name));
    memset(record->address, 0, sizeof(record->address));
    memset(record->addr_be, 0, sizeof(record->addr_be));
    snprintf(record->name, sizeof(record->name), "%s", server->name);
    record->family = DURPINA_FAMILY_NONE;
    record->port_be = 0;
    snprintf(record->address, sizeof(record->address), "?");
    if (peer->resolved && peer->addr.sa.sa_family == AF_UNIX) {
        record->family = DURPINA_FAMILY_UNIX;
        snprintf(record->address, sizeof(record->address), "unix:");
    } else if (peer->resolved) {
        bool v4 = peer->addr.sa.sa_family == AF_INET;

        record->family = v4 ? DURPINA_FAMILY_INET : DURPINA_FAMILY_INET6;
        record->port_be = v4 ? peer->addr.in.sin_port : peer->addr.in6.sin6_port;
        if (v4)
            record->addr_be[0] = peer->addr.in.sin_addr.s_addr;
        else
            memcpy(record->addr_be, &peer->addr.in6.sin6_addr, sizeof(record->addr_be));
        addr_format(&peer->addr, record->address, sizeof(record->address));
    }
    record->upstream = upstream->id;
    record->server = server->id;
    DURPINA_STORE(&record->endpoint,
                  endpoints_attach(publish->endpoints, peer->id, record, now_ms));
    record->tier = peer->backup ? DURPINA_TIER_BACKUP : DURPINA_TIER_PRIMARY;

    /* A finish of the last owner that comes this late finds a generation that is not its own. */
    DURPINA_STORE(&counters->generation, 0);
    memset((char *) counters + sizeof(counters->generation), 0,
           sizeof(*counters) - sizeof(counters->generation));
    DURPINA_STORE(&counters->generation, peer->generation);
    DURPINA_STORE(&record->generation, peer->generation);
}

int publish_take_upstream_id(struct publish *publish, struct upstream *upstream, uint64_t now_ms)
{
    for (uint32_t id = 0; id < publish->state->n_upstreams; id++) {
        struct record *record = &publish->records[id];
        struct durpina_upstream *u = &publish->state->upstreams[id];

        if (record->live || (u->generation != 0 && now_ms - record->freed_at_ms < PUBLISH_GRACE_MS))
            continue;
        upstream->id = id;
        upstream->generation = next_generation(u->generation);
        memset(u->name, 0, sizeof(u->name));
        snprintf(u->name, sizeof(u->name), "%s", upstream->name);
        DURPINA_STORE(&u->generation, upstream->generation);
        /*
         * Nobody picks by this record now: what picks of its last owner asked for does not count.
         */
        DURPINA_STORE(&publish->state->cursors[id].asked, DURPINA_ASKED_NONE);
        record->live = true;
        publish->n_live++;
        return 0;
    }
    return -ENOSPC;
}

void publish_free_upstream_id(struct publish *publish, uint32_t id, uint64_t now_ms)
{
    struct record *record = &publish->records[id];
    uint64_t last_word = record->last_word;

    free(record->placed);
    memset(record, 0, sizeof(*record));
    record->last_word = last_word;
    record->freed_at_ms = now_ms;
    publish->n_live--;
}
