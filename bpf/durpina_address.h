/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Addresses as endpoint_ids and vips go by them, the same however the socket spells them. */
#ifndef DURPINA_ADDRESS_H
#define DURPINA_ADDRESS_H

#include "durpina_abi.h"

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define DURPINA_BIG32(x) __builtin_bswap32(x)
#else
#define DURPINA_BIG32(x) (x)
#endif

static inline void durpina_address_inet(struct durpina_address *ret, uint32_t addr_be,
                                        uint16_t port_be, uint8_t protocol)
{
    *ret = (struct durpina_address){.addr_be = {addr_be},
                                    .port_be = port_be,
                                    .family = DURPINA_FAMILY_INET,
                                    .protocol = protocol};
}

/* "::ffff:0:0/96", the prefix of IPv4 addresses that an IPv6 socket uses. */
static inline int durpina_is_mapped(uint32_t a_be, uint32_t b_be, uint32_t c_be)
{
    return (a_be | b_be) == 0 && c_be == DURPINA_BIG32(0x0000ffff);
}

static inline void durpina_address_inet6(struct durpina_address *ret, uint32_t a_be, uint32_t b_be,
                                         uint32_t c_be, uint32_t d_be, uint16_t port_be,
                                         uint8_t protocol)
{
    if (durpina_is_mapped(a_be, b_be, c_be)) {
        durpina_address_inet(ret, d_be, port_be, protocol);
        return;
    }
    *ret = (struct durpina_address){.addr_be = {a_be, b_be, c_be, d_be},
                                    .port_be = port_be,
                                    .family = DURPINA_FAMILY_INET6,
                                    .protocol = protocol};
}

static inline int durpina_same_address(const struct durpina_address *a,
                                       const struct durpina_address *b)
{
    return a->addr_be[0] == b->addr_be[0] && a->addr_be[1] == b->addr_be[1] &&
           a->addr_be[2] == b->addr_be[2] && a->addr_be[3] == b->addr_be[3] &&
           a->port_be == b->port_be && a->family == b->family && a->protocol == b->protocol;
}

/* 127.0.0.0/8 or ::1: each network namespace has its own. */
static inline int durpina_is_loopback(const struct durpina_address *a)
{
    if (a->family == DURPINA_FAMILY_INET)
        return (a->addr_be[0] & DURPINA_BIG32(0xff000000)) == DURPINA_BIG32(0x7f000000);
    return a->family == DURPINA_FAMILY_INET6 &&
           (a->addr_be[0] | a->addr_be[1] | a->addr_be[2]) == 0 &&
           a->addr_be[3] == DURPINA_BIG32(1);
}

#endif
