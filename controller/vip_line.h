/* SPDX-License-Identifier: MIT */
/*
 * A virtual endpoint as somebody wrote it: the setting `vip`, the JSON of the API, the command line
 * of durpinactl. Pure.
 */
#ifndef DURPINAD_VIP_LINE_H
#define DURPINAD_VIP_LINE_H

#include <stddef.h>

#include "durpina_abi.h"
#include "failure.h"

#define VIP_NAME_SIZE 64 /* "[IPv6]:65535/udp", with the NUL */

struct vip_spec {
    struct durpina_address address;
    char upstream[DURPINA_NAME_SIZE];
    enum durpina_algorithm algorithm;
};

/*
 * "127.10.0.1:80", "[fd00::1]:80", with "/udp" behind it for UDP. A v4-mapped address is the IPv4
 * one. -EINVAL with VipBadAddress: no such text, port 0, or no address that a connect() could be
 * meant for one host by (unspecified, multicast, broadcast).
 */
int vip_address_parse(const char *text, struct durpina_address *ret, struct failure *failure);
/* The same text back. */
void vip_address_format(const struct durpina_address *address, char ret[VIP_NAME_SIZE]);

/* -EINVAL with VipBadAlgorithm: it is none that the kernel can balance a connect() by. */
int vip_algorithm_parse(const char *word, enum durpina_algorithm *ret, struct failure *failure);
const char *vip_algorithm_word(enum durpina_algorithm algorithm);

/* -EINVAL with UpstreamBadName. The upstream need not be there. */
int vip_upstream_parse(const char *name, struct vip_spec *spec, struct failure *failure);

/*
 * ADDRESS:PORT[/udp] upstream=NAME [algorithm=WORD], as words; algorithm is round-robin unless it
 * is given. -EINVAL with the code of the culprit.
 */
int vip_line_parse(char *const *words, size_t n, struct vip_spec *ret, struct failure *failure);

#endif
