/* SPDX-License-Identifier: MIT */
#include "endpoints.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "addr.h"
#include "durpina_address.h"

/* Entries of endpoint_ids that one system call reads. */
#define BATCH 4096

/* Lists are of ids, DURPINA_NONE at their ends. */
struct link {
    uint32_t prev;
    uint32_t next;
};

struct list {
    uint32_t first;
    uint32_t last;
};

enum use {
    RESTING, /* has no address; in `resting`, the one that became so first is the first */
    IDLE,    /* no peer has it; in `idle`, likewise */
    USED,
};

struct record {
    struct durpina_address address;
    struct link link;
    struct list peers;
    uint64_t since_ms; /* RESTING, IDLE */
    enum use use;
};

struct endpoints {
    struct bpf_state *state;
    int ids_fd;
    struct record *records; /* of each endpoint id */
    uint32_t *index;        /* endpoint ids by the hash of their address: open addressing */
    uint32_t index_mask;
    struct list resting;
    struct list idle;
    struct link *peers; /* of each peer id, in the list of its endpoint */
    uint32_t *of_peer;  /* of each peer id: its endpoint */
};

/* --- lists ------------------------------------------------------------------------------------ */

static const struct list empty = {DURPINA_NONE, DURPINA_NONE};

/* The link of an id; of a list of records, or of peers. */
static struct link *record_link(struct endpoints *e, uint32_t id)
{
    return &e->records[id].link;
}

static struct link *peer_link(struct endpoints *e, uint32_t id)
{
    return &e->peers[id];
}

typedef struct link *link_of(struct endpoints *e, uint32_t id);

static void append(struct endpoints *e, struct list *list, link_of *link, uint32_t id)
{
    *link(e, id) = (struct link){list->last, DURPINA_NONE};
    if (list->last != DURPINA_NONE)
        link(e, list->last)->next = id;
    else
        list->first = id;
    list->last = id;
}

static void unlink_id(struct endpoints *e, struct list *list, link_of *link, uint32_t id)
{
    const struct link at = *link(e, id);

    if (at.prev != DURPINA_NONE)
        link(e, at.prev)->next = at.next;
    else
        list->first = at.next;
    if (at.next != DURPINA_NONE)
        link(e, at.next)->prev = at.prev;
    else
        list->last = at.prev;
}

/* --- the index -------------------------------------------------------------------------------- */

static uint32_t home(const struct endpoints *e, const struct durpina_address *address)
{
    return (uint32_t) XXH3_64bits(address, sizeof(*address)) & e->index_mask;
}

/* Where the address is in the index, or would be put. */
static uint32_t find_place(const struct endpoints *e, const struct durpina_address *address)
{
    uint32_t place = home(e, address);

    while (e->index[place] != DURPINA_NONE &&
           !durpina_same_address(&e->records[e->index[place]].address, address))
        place = (place + 1) & e->index_mask;
    return place;
}

/* Those behind the gap move up, unless their own place is behind it: no marks are left. */
static void remove_place(struct endpoints *e, uint32_t gap)
{
    uint32_t place = gap;

    e->index[gap] = DURPINA_NONE;
    for (;;) {
        place = (place + 1) & e->index_mask;
        if (e->index[place] == DURPINA_NONE)
            return;

        uint32_t wanted = home(e, &e->records[e->index[place]].address);

        if (((place - wanted) & e->index_mask) < ((place - gap) & e->index_mask))
            continue;
        e->index[gap] = e->index[place];
        e->index[place] = DURPINA_NONE;
        gap = place;
    }
}

/* --- records ---------------------------------------------------------------------------------- */

static void rest(struct endpoints *e, uint32_t id, uint64_t now_ms)
{
    e->records[id].use = RESTING;
    e->records[id].since_ms = now_ms;
    append(e, &e->resting, record_link, id);
}

static void become_idle(struct endpoints *e, uint32_t id, uint64_t now_ms)
{
    e->records[id].use = IDLE;
    e->records[id].since_ms = now_ms;
    append(e, &e->idle, record_link, id);
}

/* Takes the address out of endpoint_ids and index. */
static void forget_address(struct endpoints *e, uint32_t id, uint64_t now_ms)
{
    struct record *record = &e->records[id];

    /* It is not there if an operator was faster. */
    (void) bpf_map_delete_elem(e->ids_fd, &record->address);
    remove_place(e, find_place(e, &record->address));
    unlink_id(e, &e->idle, record_link, id);
    memset(e->state->endpoints[id].address, 0, sizeof(e->state->endpoints[id].address));
    rest(e, id, now_ms);
}

void endpoints_sweep(struct endpoints *e, uint64_t now_ms)
{
    for (uint32_t n = 0; n < ENDPOINTS_SWEEP && e->idle.first != DURPINA_NONE; n++) {
        uint32_t id = e->idle.first;
        const struct durpina_endpoint *endpoint = &e->state->endpoints[id];

        if (now_ms - e->records[id].since_ms < ENDPOINTS_GRACE_MS)
            return;
        if (DURPINA_LOAD(durpina_alias(&endpoint->open)) == 0) {
            forget_address(e, id, now_ms);
        } else {
            /* Its turn comes again after all others. */
            unlink_id(e, &e->idle, record_link, id);
            become_idle(e, id, now_ms);
        }
    }
}

/* A record without an address, or DURPINA_NONE. */
static uint32_t take_record(struct endpoints *e, uint64_t now_ms)
{
    uint32_t id = e->resting.first;

    if (id == DURPINA_NONE)
        endpoints_sweep(e, now_ms); /* for who comes later */
    if (id == DURPINA_NONE || now_ms - e->records[id].since_ms < ENDPOINTS_REST_MS)
        return DURPINA_NONE;
    unlink_id(e, &e->resting, record_link, id);
    return id;
}

static uint32_t next_generation(uint32_t generation)
{
    return generation + 1 != 0 ? generation + 1 : 1;
}

/* The generation first: what a socket of the former address still has to tell counts no more. */
static void write_record(struct durpina_endpoint *endpoint, const char *address)
{
    size_t counts = offsetof(struct durpina_endpoint, open);

    DURPINA_STORE(&endpoint->generation, next_generation(endpoint->generation));
    durpina_seq_open();
    memset((char *) endpoint + counts, 0, sizeof(*endpoint) - counts);
    memcpy(endpoint->address, address, sizeof(endpoint->address));
}

/* Makes a record for the address, which has none. */
static uint32_t make_record(struct endpoints *e, const struct durpina_address *address,
                            const char *text, uint64_t now_ms)
{
    uint32_t id = take_record(e, now_ms);

    if (id == DURPINA_NONE)
        return DURPINA_NONE;
    write_record(&e->state->endpoints[id], text);
    if (bpf_map_update_elem(e->ids_fd, address, &id, BPF_ANY) < 0) {
        memset(e->state->endpoints[id].address, 0, sizeof(e->state->endpoints[id].address));
        rest(e, id, now_ms);
        return DURPINA_NONE;
    }
    e->records[id].address = *address;
    e->index[find_place(e, address)] = id;
    become_idle(e, id, now_ms);
    return id;
}

/* --- peers ------------------------------------------------------------------------------------ */

static bool address_of(const struct durpina_peer *identity, struct durpina_address *ret)
{
    const uint32_t *a = identity->addr_be;

    if (identity->family == DURPINA_FAMILY_INET)
        durpina_address_inet(ret, a[0], identity->port_be, IPPROTO_TCP);
    else if (identity->family == DURPINA_FAMILY_INET6)
        durpina_address_inet6(ret, a[0], a[1], a[2], a[3], identity->port_be, IPPROTO_TCP);
    else
        return false;
    return true;
}

uint32_t endpoints_attach(struct endpoints *e, uint32_t peer_id,
                          const struct durpina_peer *identity, uint64_t now_ms)
{
    struct durpina_address address;
    struct record *record;
    uint32_t id;

    if (!address_of(identity, &address))
        return DURPINA_NONE;
    id = e->index[find_place(e, &address)];
    if (id == DURPINA_NONE)
        id = make_record(e, &address, identity->address, now_ms);
    if (id == DURPINA_NONE)
        return DURPINA_NONE;

    record = &e->records[id];
    if (record->use == IDLE) {
        unlink_id(e, &e->idle, record_link, id);
        record->use = USED;
    }
    append(e, &record->peers, peer_link, peer_id);
    e->of_peer[peer_id] = id;
    e->state->endpoints[id].peers++;
    return id;
}

void endpoints_detach(struct endpoints *e, uint32_t peer_id, uint64_t now_ms)
{
    uint32_t id = e->of_peer[peer_id];

    if (id == DURPINA_NONE)
        return;
    unlink_id(e, &e->records[id].peers, peer_link, peer_id);
    e->of_peer[peer_id] = DURPINA_NONE;
    e->state->endpoints[id].peers--;
    if (e->records[id].peers.first == DURPINA_NONE)
        become_idle(e, id, now_ms);
}

uint32_t endpoints_first_peer(const struct endpoints *e, uint32_t endpoint_id)
{
    return e->records[endpoint_id].peers.first;
}

uint32_t endpoints_next_peer(const struct endpoints *e, uint32_t peer_id)
{
    return e->peers[peer_id].next;
}

uint32_t endpoints_of_peer(const struct endpoints *e, uint32_t peer_id)
{
    return e->of_peer[peer_id];
}

/* --- what a former controller has left -------------------------------------------------------- */

/* Text that durpinad has written; root may have written another one. */
static bool parse_address(const struct durpina_endpoint *endpoint, struct durpina_address *ret)
{
    char text[DURPINA_ADDRESS_SIZE];
    struct addr addr;

    memcpy(text, endpoint->address, sizeof(text));
    text[sizeof(text) - 1] = '\0';
    return addr_parse(text, 0, &addr) == 0 && addr_key(&addr, IPPROTO_TCP, ret) == 0;
}

static void adopt_records(struct endpoints *e, uint64_t now_ms)
{
    for (uint32_t id = 0; id < e->state->n_endpoints; id++) {
        struct durpina_endpoint *endpoint = &e->state->endpoints[id];
        struct durpina_address address;
        uint32_t place;

        e->records[id].peers = empty;
        DURPINA_STORE(&endpoint->peers, 0);
        if (endpoint->address[0] != '\0' && parse_address(endpoint, &address)) {
            place = find_place(e, &address);
            if (e->index[place] == DURPINA_NONE) {
                e->records[id].address = address;
                e->index[place] = id;
                become_idle(e, id, now_ms);
                continue;
            }
        }
        memset(endpoint->address, 0, sizeof(endpoint->address));
        rest(e, id, now_ms - ENDPOINTS_REST_MS); /* endpoints_create() waits instead */
    }
}

struct batch {
    struct durpina_address addresses[BATCH];
    uint32_t ids[BATCH];
    struct durpina_address wrong[BATCH];
    bool seen[];
};

/*
 * Reads endpoint_ids, notes which records it names rightly, and takes out what is wrong, which may
 * be some other record's address. Deleting while it is read would make it begin anew.
 */
static int weed_ids(struct endpoints *e, struct batch *b)
{
    uint32_t n_wrong;

    do {
        uint32_t cursor, next, n;
        void *from = NULL;
        int err = 0;

        n_wrong = 0;
        while (err == 0) {
            n = BATCH;
            err = bpf_map_lookup_batch(e->ids_fd, from, &next, b->addresses, b->ids, &n, NULL);
            if (err < 0 && errno != ENOENT)
                return -errno;
            for (uint32_t i = 0; i < n; i++) {
                uint32_t id = e->index[find_place(e, &b->addresses[i])];

                if (id != DURPINA_NONE && id == b->ids[i])
                    b->seen[id] = true;
                else if (n_wrong < BATCH)
                    b->wrong[n_wrong++] = b->addresses[i];
            }
            cursor = next;
            from = &cursor;
        }
        for (uint32_t i = 0; i < n_wrong; i++)
            (void) bpf_map_delete_elem(e->ids_fd, &b->wrong[i]);
    } while (n_wrong == BATCH);
    return 0;
}

static int repair_ids(struct endpoints *e)
{
    struct batch *b = calloc(1, sizeof(*b) + e->state->n_endpoints * sizeof(b->seen[0]));
    int err = b == NULL ? -ENOMEM : weed_ids(e, b);

    for (uint32_t id = e->idle.first; id != DURPINA_NONE && err == 0; id = e->records[id].link.next)
        if (!b->seen[id] &&
            bpf_map_update_elem(e->ids_fd, &e->records[id].address, &id, BPF_ANY) < 0)
            err = -errno;
    free(b);
    return err;
}

/* --- life ------------------------------------------------------------------------------------- */

int endpoints_create(struct bpf_state *state, uint64_t now_ms, struct endpoints **ret)
{
    struct endpoints *e = calloc(1, sizeof(*e));
    size_t places = 2;
    int err;

    if (e == NULL)
        return -ENOMEM;
    while (places < 2 * (size_t) state->n_endpoints)
        places *= 2;
    e->state = state;
    e->ids_fd = bpf_state_fd(state, BPF_STATE_ENDPOINT_IDS);
    e->resting = e->idle = empty;
    e->records = calloc(state->n_endpoints, sizeof(*e->records));
    e->index = malloc(places * sizeof(*e->index));
    e->index_mask = (uint32_t) places - 1;
    e->peers = calloc(state->n_peers, sizeof(*e->peers));
    e->of_peer = malloc(state->n_peers * sizeof(*e->of_peer));
    if (e->records == NULL || e->index == NULL || e->peers == NULL || e->of_peer == NULL) {
        endpoints_destroy(e);
        return -ENOMEM;
    }
    memset(e->index, 0xff, places * sizeof(*e->index));
    memset(e->of_peer, 0xff, state->n_peers * sizeof(*e->of_peer));
    adopt_records(e, now_ms);
    err = repair_ids(e);
    if (err < 0) {
        endpoints_destroy(e);
        return err;
    }
    bpf_state_await_programs();
    *ret = e;
    return 0;
}

void endpoints_destroy(struct endpoints *e)
{
    if (e == NULL)
        return;
    free(e->records);
    free(e->index);
    free(e->peers);
    free(e->of_peer);
    free(e);
}
