/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The hash of a client's address, as ip-hash goes by it: XXH3_64bits() without a seed, for the two
 * lengths that there are, and without the 128-bit product, which BPF does not have. So a process
 * that connects to a virtual endpoint finds the peer that nginx picks for a client of its address.
 * The constants are those of XXH3's default secret, from the specification of xxHash 0.8.
 */
#ifndef DURPINA_HASH_H
#define DURPINA_HASH_H

#include <stdint.h>

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define DURPINA_LITTLE32(x) (x)
#else
#define DURPINA_LITTLE32(x) __builtin_bswap32(x)
#endif

/* The low half of the 128-bit product, xor its high one. */
static inline uint64_t durpina_fold(uint64_t a, uint64_t b)
{
    uint64_t a_low = (uint32_t) a, a_high = a >> 32, b_low = (uint32_t) b, b_high = b >> 32;
    uint64_t low = a_low * b_low, cross = a_high * b_low;
    uint64_t middle = a_low * b_high + (low >> 32) + (uint32_t) cross;

    return (a * b) ^ (a_high * b_high + (cross >> 32) + (middle >> 32));
}

/* Of the first three octets, as nginx's ip_hash. */
static inline uint64_t durpina_hash_inet(uint32_t addr_be)
{
    uint32_t octets = DURPINA_LITTLE32(addr_be);
    /* The last octet, the length, the first and the middle one. */
    uint64_t h =
        ((octets >> 16) & 0xff) | 3 << 8 | (octets & 0xff) << 16 | ((octets >> 8) & 0xff) << 24;

    h ^= 0x87275a9bULL;
    h ^= h >> 33;
    h *= 0xc2b2ae3d27d4eb4fULL;
    h ^= h >> 29;
    h *= 0x165667b19e3779f9ULL;
    return h ^ (h >> 32);
}

/* Of all 16 octets. */
static inline uint64_t durpina_hash_inet6(uint32_t a_be, uint32_t b_be, uint32_t c_be,
                                          uint32_t d_be)
{
    uint64_t low = DURPINA_LITTLE32(a_be) | (uint64_t) DURPINA_LITTLE32(b_be) << 32;
    uint64_t high = DURPINA_LITTLE32(c_be) | (uint64_t) DURPINA_LITTLE32(d_be) << 32;
    uint64_t h;

    low ^= 0x6782737bea4239b9ULL;
    high ^= 0xaf56bc3b0996523aULL;
    h = 16 + __builtin_bswap64(low) + high + durpina_fold(low, high);
    h ^= h >> 37;
    h *= 0x165667919e3779f9ULL;
    return h ^ (h >> 32);
}

#endif
