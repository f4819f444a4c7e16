/* SPDX-License-Identifier: MIT */
#include "vip_line.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "addr.h"
#include "model.h"

#define UDP_SUFFIX "/udp"

static const struct {
    const char *word;
    enum durpina_algorithm algorithm;
} algorithms[] = {
    {"round-robin", DURPINA_ROUND_ROBIN},
    {"unweighted-round-robin", DURPINA_UNWEIGHTED_ROUND_ROBIN},
    {"ip-hash", DURPINA_HASH},
};
#define N_ALGORITHMS (sizeof(algorithms) / sizeof(algorithms[0]))

/* Why nobody can listen there; NULL: somebody can. */
static const char *misuse_of(const struct addr *addr)
{
    uint32_t v4 = ntohl(addr->in.sin_addr.s_addr);

    if (addr->sa.sa_family == AF_INET)
        return v4 == INADDR_ANY         ? "unspecified"
               : IN_MULTICAST(v4)       ? "multicast"
               : v4 == INADDR_BROADCAST ? "broadcast"
                                        : NULL;
    return IN6_IS_ADDR_UNSPECIFIED(&addr->in6.sin6_addr) ? "unspecified"
           : IN6_IS_ADDR_MULTICAST(&addr->in6.sin6_addr) ? "multicast"
                                                         : NULL;
}

int vip_address_parse(const char *text, struct durpina_address *ret, struct failure *failure)
{
    size_t len = strlen(text), suffix = strlen(UDP_SUFFIX);
    bool is_udp = len > suffix && strcmp(text + len - suffix, UDP_SUFFIX) == 0;
    struct durpina_address address;
    char plain[VIP_NAME_SIZE];
    struct addr addr;
    const char *misuse;

    len -= is_udp ? suffix : 0;
    if (len < sizeof(plain)) {
        memcpy(plain, text, len);
        plain[len] = '\0';
    }
    if (len >= sizeof(plain) || addr_parse(plain, 0, &addr) < 0 || addr_port(&addr) == 0 ||
        addr_key(&addr, is_udp ? IPPROTO_UDP : IPPROTO_TCP, &address) < 0)
        return fail(failure, EINVAL, 400, "VipBadAddress",
                    "vip \"%.100s\" is no ADDRESS:PORT or ADDRESS:PORT/udp with an IPv4 or [IPv6] "
                    "address and a port from 1 to 65535",
                    text);
    misuse = misuse_of(&addr);
    if (misuse != NULL)
        return fail(failure, EINVAL, 400, "VipBadAddress",
                    "vip \"%.100s\" is the %s address, not that of a service", text, misuse);
    *ret = address;
    return 0;
}

void vip_address_format(const struct durpina_address *address, char ret[VIP_NAME_SIZE])
{
    struct addr addr = {.len = sizeof(addr.in6)};
    char text[VIP_NAME_SIZE - sizeof(UDP_SUFFIX)];

    if (address->family == DURPINA_FAMILY_INET) {
        addr.in.sin_family = AF_INET;
        addr.in.sin_port = address->port_be;
        addr.in.sin_addr.s_addr = address->addr_be[0];
    } else {
        addr.in6.sin6_family = AF_INET6;
        addr.in6.sin6_port = address->port_be;
        memcpy(&addr.in6.sin6_addr, address->addr_be, sizeof(address->addr_be));
    }
    addr_format(&addr, text, sizeof(text));
    snprintf(ret, VIP_NAME_SIZE, "%s%s", text, address->protocol == IPPROTO_UDP ? UDP_SUFFIX : "");
}

int vip_algorithm_parse(const char *word, enum durpina_algorithm *ret, struct failure *failure)
{
    for (size_t i = 0; i < N_ALGORITHMS; i++)
        if (strcmp(algorithms[i].word, word) == 0) {
            *ret = algorithms[i].algorithm;
            return 0;
        }
    return fail(failure, EINVAL, 400, "VipBadAlgorithm",
                "algorithm \"%.64s\" is none of round-robin, unweighted-round-robin, ip-hash",
                word);
}

const char *vip_algorithm_word(enum durpina_algorithm algorithm)
{
    for (size_t i = 0; i < N_ALGORITHMS; i++)
        if (algorithms[i].algorithm == algorithm)
            return algorithms[i].word;
    return "?";
}

int vip_upstream_parse(const char *name, struct vip_spec *spec, struct failure *failure)
{
    int err = model_check_name(name, failure);

    if (err == 0)
        snprintf(spec->upstream, sizeof(spec->upstream), "%s", name);
    return err;
}

int vip_line_parse(char *const *words, size_t n, struct vip_spec *ret, struct failure *failure)
{
    static const char upstream[] = "upstream=", algorithm[] = "algorithm=";
    struct vip_spec spec = {.algorithm = DURPINA_ROUND_ROBIN};
    bool has_algorithm = false;
    int err = n == 0 ? fail(failure, EINVAL, 400, "UpstreamConfFormatError",
                            "a vip is ADDRESS:PORT[/udp] upstream=NAME [algorithm=WORD]")
                     : vip_address_parse(words[0], &spec.address, failure);

    for (size_t i = 1; i < n && err == 0; i++) {
        bool names_upstream = strncmp(words[i], upstream, strlen(upstream)) == 0;
        bool names_algorithm = strncmp(words[i], algorithm, strlen(algorithm)) == 0;

        if (names_upstream && spec.upstream[0] == '\0')
            err = vip_upstream_parse(words[i] + strlen(upstream), &spec, failure);
        else if (names_algorithm && !has_algorithm)
            err = vip_algorithm_parse(words[i] + strlen(algorithm), &spec.algorithm, failure);
        else
            err = fail(failure, EINVAL, 400, "UpstreamConfFormatError",
                       names_upstream || names_algorithm
                           ? "vip %.64s: \"%.64s\" comes a second time"
                           : "vip %.64s: \"%.64s\" is neither upstream=NAME nor algorithm=WORD",
                       words[0], words[i]);
        has_algorithm |= names_algorithm;
    }
    if (err == 0 && spec.upstream[0] == '\0')
        err = fail(failure, EINVAL, 400, "UpstreamConfFormatError",
                   "vip %.64s: upstream=NAME is missing", words[0]);
    if (err == 0)
        *ret = spec;
    return err;
}
