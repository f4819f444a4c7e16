/* SPDX-License-Identifier: MIT */
/*
 * What a DNS answer says (RFC 1035, RFC 2782), with the TTLs that c-ares's own parsers of SRV leave
 * out. Pure: any bytes are fine.
 */
#ifndef DURPINAD_RESOLVE_ANSWER_H
#define DURPINAD_RESOLVE_ANSWER_H

#include <stddef.h>
#include <stdint.h>

#include "addr.h"

enum answer_type { ANSWER_A = 1, ANSWER_CNAME = 5, ANSWER_AAAA = 28, ANSWER_SRV = 33 };

struct answer_srv {
    uint16_t priority; /* lower ones go first */
    uint16_t weight;
    uint16_t port;
    char target[DURPINA_NAME_SIZE]; /* lower case, without the dot at its end */
};

/*
 * The addresses of a message that answers A or AAAA, with port 0 and as they come, and the smallest
 * TTL in seconds of them and of the aliases that lead to them. *ret is to be freed. -ENODATA: there
 * are none; -EBADMSG: not a DNS answer; -ENOMEM.
 */
int answer_addresses(const uint8_t *message, size_t len, enum answer_type type, struct addr **ret,
                     size_t *ret_n, uint32_t *ret_ttl_s);

/*
 * Likewise the records of one that answers SRV, by priority, target, port and weight. Records that
 * name no place to connect to are left out: target "." or no host name, port 0. *ret_n_unusable:
 * how many; set with -ENODATA too.
 */
int answer_services(const uint8_t *message, size_t len, struct answer_srv **ret, size_t *ret_n,
                    uint32_t *ret_ttl_s, size_t *ret_n_unusable);

#endif
