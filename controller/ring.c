/* SPDX-License-Identifier: MIT */
#include "ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>

#include "durpina_select.h"

/* Entries of an index for each point. */
#define INDEX_PER_POINT_MAX 8

struct point {
    uint32_t hash;
    uint32_t value;
};

/* CRC-32 of HOST \0 PORT. */
static uint32_t hash_name(const char *name)
{
    size_t length = strlen(name), host = length;
    uint32_t crc;

    if (strncasecmp(name, "unix:", 5) == 0) {
        name += 5;
        host = length -= 5;
    } else {
        size_t digits = length;

        while (digits > 0 && name[digits - 1] >= '0' && name[digits - 1] <= '9')
            digits--;
        if (digits > 0 && name[digits - 1] == ':')
            host = digits - 1;
    }
    crc = (uint32_t) crc32(0, (const Bytef *) name, (uInt) host);
    crc = (uint32_t) crc32(crc, (const Bytef *) "", 1);
    if (host < length)
        crc = (uint32_t) crc32(crc, (const Bytef *) name + host + 1, (uInt) (length - host - 1));
    return crc;
}

/* Addresses of the server that begins with the first of n peers. */
static size_t count_addresses(const struct ring_peer *peers, size_t n)
{
    size_t k = 1;

    while (k < n && strcmp(peers[k].name, peers[0].name) == 0)
        k++;
    return k;
}

/* Makes the points of the server whose k addresses begin at peers. Returns their end. */
static struct point *add_server(struct point *points, const struct ring_peer *peers, size_t k,
                                uint64_t n_points)
{
    uint32_t base = hash_name(peers->name), previous = 0;

    for (uint64_t i = 0, address = 0; i < n_points; i++) {
        Bytef bytes[4] = {(Bytef) previous, (Bytef) (previous >> 8), (Bytef) (previous >> 16),
                          (Bytef) (previous >> 24)};

        previous = (uint32_t) crc32(base, bytes, sizeof(bytes));
        *points++ = (struct point){.hash = previous, .value = peers[address].value};
        if (++address == k)
            address = 0;
    }
    return points;
}

/* By hash, in ascending order, else as they were: byte by byte, from the lowest. */
static void sort(struct point *points, struct point *spare, size_t n)
{
    for (unsigned shift = 0; shift < 32; shift += 8) {
        size_t at[256] = {0}, sum = 0;
        struct point *swap = points;

        for (size_t i = 0; i < n; i++)
            at[points[i].hash >> shift & 0xff]++;
        for (size_t i = 0; i < 256; i++) {
            size_t count = at[i];

            at[i] = sum;
            sum += count;
        }
        for (size_t i = 0; i < n; i++)
            spare[at[points[i].hash >> shift & 0xff]++] = points[i];
        points = spare;
        spare = swap;
    }
}

static size_t remove_duplicates(struct point *points, size_t n)
{
    size_t kept = 1;

    for (size_t i = 1; i < n; i++)
        if (points[i].hash != points[kept - 1].hash)
            points[kept++] = points[i];
    return kept;
}

/* Are there at most DURPINA_RING_STEPS points between two entries of an index of so many bits? */
static int is_fine(const struct point *points, size_t n, uint32_t bits)
{
    for (size_t i = DURPINA_RING_STEPS; i < n; i++)
        if (points[i].hash >> (32 - bits) == points[i - DURPINA_RING_STEPS].hash >> (32 - bits))
            return 0;
    return 1;
}

/*
 * One to two points for each entry, more entries if points are crowded: by names made up for that.
 * Where the largest index does not help either, readers find a point near the one they look for.
 */
static uint32_t choose_bits(const struct point *points, size_t n)
{
    uint32_t bits = 1;

    while (bits < DURPINA_RING_BITS_MAX && 2ULL << bits <= n)
        bits++;
    while (bits < DURPINA_RING_BITS_MAX && 2ULL << bits <= INDEX_PER_POINT_MAX * (uint64_t) n &&
           !is_fine(points, n, bits))
        bits++;
    return bits;
}

static int write_ring(const struct point *points, size_t n, uint32_t **ret_slots,
                      uint32_t *ret_length)
{
    uint32_t bits = choose_bits(points, n), entries = 1U << bits;
    size_t length = DURPINA_RING_HEADER + (size_t) entries + 2 * n, first = 0;
    uint32_t *slots = malloc(length * sizeof(*slots)), *index, *hashes, *values;

    if (slots == NULL)
        return -ENOMEM;
    index = slots + DURPINA_RING_HEADER;
    hashes = index + entries;
    values = hashes + n;
    slots[0] = bits;
    slots[1] = (uint32_t) n;
    for (uint32_t i = 0; i < entries; i++) {
        while (first < n && points[first].hash >> (32 - bits) < i)
            first++;
        index[i] = (uint32_t) first;
    }
    for (size_t i = 0; i < n; i++) {
        hashes[i] = points[i].hash;
        values[i] = points[i].value;
    }
    *ret_slots = slots;
    *ret_length = (uint32_t) length;
    return 0;
}

/* Points for each unit of weight: times / over. */
struct rate {
    uint64_t times;
    uint64_t over;
};

static uint64_t count_points(uint32_t weight, size_t n_addresses, struct rate rate)
{
    uint64_t n_points = weight * rate.times / rate.over;

    return n_points > n_addresses ? n_points : n_addresses;
}

int ring_build(const struct ring_peer *peers, size_t n, uint32_t **ret_slots, uint32_t *ret_length)
{
    struct rate rate = {.times = RING_POINTS_PER_WEIGHT, .over = 1};
    uint64_t weight = 0, n_points = 0;
    struct point *points, *end;
    int err;

    if (n > RING_POINTS_MAX)
        return -E2BIG;
    if (n == 0) {
        *ret_slots = NULL;
        *ret_length = 0;
        return 0;
    }
    for (size_t i = 0, k; i < n; i += k) {
        k = count_addresses(peers + i, n - i);
        weight += peers[i].weight;
        n_points += count_points(peers[i].weight, k, rate);
    }
    if (n_points > RING_POINTS_MAX) {
        /* The rest is for those who get less than one point an address by their weight. */
        rate = (struct rate){.times = RING_POINTS_MAX - n, .over = weight};
        n_points = RING_POINTS_MAX;
    }

    points = malloc(2 * n_points * sizeof(*points));
    if (points == NULL)
        return -ENOMEM;
    end = points;
    for (size_t i = 0, k; i < n; i += k) {
        k = count_addresses(peers + i, n - i);
        end = add_server(end, peers + i, k, count_points(peers[i].weight, k, rate));
    }
    n_points = (uint64_t) (end - points);
    sort(points, end, n_points);
    err = write_ring(points, remove_duplicates(points, n_points), ret_slots, ret_length);
    free(points);
    return err;
}
