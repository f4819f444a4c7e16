/* SPDX-License-Identifier: MIT */
/*
 * Ketama rings: which peer a hashed key belongs to, as in nginx's `hash KEY consistent`. Pure.
 *
 * A server with weight w has 160 w points on the ring of CRC-32 values; a key belongs to the first
 * point at or behind its own CRC-32. The points of HOST:PORT are
 *
 *     p(0) = 0, p(k) = crc32(HOST \0 PORT p(k - 1)), the last in 4 bytes, little endian
 *
 * where PORT is empty if it is not written, brackets belong to HOST, and HOST of "unix:/path" is
 * "/path" (ngx_http_upstream_hash_module.c). Where points of two servers fall together, the first
 * server keeps the place.
 *
 * A ring is what durpina_abi.h describes, ready for its run of slots.
 */
#ifndef DURPINAD_RING_H
#define DURPINAD_RING_H

#include <stddef.h>
#include <stdint.h>

#define RING_POINTS_PER_WEIGHT 160

/*
 * Points of one ring, and so its most peers. A ring takes three slots a point at most (unless names
 * are made up to crowd the points), 6 MB for so many: an old and a new one fit into the default
 * capacity of the slots map. Servers with 3,276 units of weight together stay below it.
 */
#define RING_POINTS_MAX 524288

struct ring_peer {
    const char *name; /* of the server, as in its `server` line */
    uint32_t weight;  /* 1..65535; only that of the first address of a server matters */
    uint32_t value;   /* what the ring shows for it */
};

/*
 * Makes a ring. Peers that follow each other with the same name are the addresses of one server;
 * its points are dealt to them in turn (nginx chooses an address anew for each request). Servers
 * that would need more than RING_POINTS_MAX points share these in proportion to their weights; in
 * any case an address gets at least one.
 * ret_slots: to be freed by the caller, ret_length slots; NULL and 0 if there are no peers.
 * 0, -E2BIG for more than RING_POINTS_MAX peers, or -ENOMEM.
 */
int ring_build(const struct ring_peer *peers, size_t n, uint32_t **ret_slots, uint32_t *ret_length);

#endif
