/* SPDX-License-Identifier: MIT */
#include "addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "durpina_address.h"

/* Digits only, 1 to 65535. */
static int parse_port(const char *text, uint16_t *ret_port)
{
    unsigned long port = 0;

    if (*text == '\0')
        return -EINVAL;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9')
            return -EINVAL;
        port = port * 10 + (unsigned long) (*text - '0');
        if (port > UINT16_MAX)
            return -EINVAL;
    }
    if (port == 0)
        return -EINVAL;
    *ret_port = (uint16_t) port;
    return 0;
}

static int parse_unix(const char *path, struct addr *ret)
{
    struct addr addr = {.len = sizeof(addr.un)};
    size_t len = strlen(path);

    if (path[0] != '/' || len >= sizeof(addr.un.sun_path))
        return -EINVAL;
    addr.un.sun_family = AF_UNIX;
    memcpy(addr.un.sun_path, path, len + 1);
    *ret = addr;
    return 0;
}

/* The IPv4 address inside a v4-mapped one, which is the same peer; anything else as it is. */
static struct addr unmap(const struct addr *addr)
{
    struct addr v4 = {.len = sizeof(v4.in)};

    if (addr->sa.sa_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&addr->in6.sin6_addr))
        return *addr;
    v4.in.sin_family = AF_INET;
    v4.in.sin_port = addr->in6.sin6_port;
    memcpy(&v4.in.sin_addr, &addr->in6.sin6_addr.s6_addr[12], sizeof(v4.in.sin_addr));
    return v4;
}

int addr_parse(const char *text, uint16_t default_port, struct addr *ret)
{
    char host[INET6_ADDRSTRLEN];
    struct addr addr = {0};
    uint16_t port = default_port;
    bool bracketed = text[0] == '[';
    size_t len;

    if (strncmp(text, "unix:", 5) == 0)
        return parse_unix(text + 5, ret);

    text += bracketed;
    len = strcspn(text, bracketed ? "]" : ":");
    if (len >= sizeof(host))
        return -EINVAL;
    memcpy(host, text, len);
    host[len] = '\0';
    text += len;
    if (bracketed && *text++ != ']')
        return -EINVAL;
    if (*text != '\0' && (*text != ':' || parse_port(text + 1, &port) < 0))
        return -EINVAL;

    if (bracketed) {
        if (inet_pton(AF_INET6, host, &addr.in6.sin6_addr) != 1)
            return -EINVAL;
        addr.len = sizeof(addr.in6);
        addr.in6.sin6_family = AF_INET6;
    } else {
        if (inet_pton(AF_INET, host, &addr.in.sin_addr) != 1)
            return -EINVAL;
        addr.len = sizeof(addr.in);
        addr.in.sin_family = AF_INET;
    }
    addr_set_port(&addr, port);
    *ret = unmap(&addr);
    return 0;
}

void addr_format(const struct addr *addr, char *buffer, size_t size)
{
    struct addr a = unmap(addr);
    char host[INET6_ADDRSTRLEN];

    switch (a.sa.sa_family) {
    case AF_INET:
        inet_ntop(AF_INET, &a.in.sin_addr, host, sizeof(host));
        snprintf(buffer, size, "%s:%u", host, addr_port(&a));
        break;
    case AF_INET6:
        inet_ntop(AF_INET6, &a.in6.sin6_addr, host, sizeof(host));
        snprintf(buffer, size, "[%s]:%u", host, addr_port(&a));
        break;
    case AF_UNIX:
        snprintf(buffer, size, "unix:%s", a.un.sun_path);
        break;
    default:
        snprintf(buffer, size, "?");
    }
}

bool addr_equal(const struct addr *first, const struct addr *second)
{
    struct addr a = unmap(first), b = unmap(second);

    if (a.sa.sa_family != b.sa.sa_family)
        return false;
    switch (a.sa.sa_family) {
    case AF_INET:
        return a.in.sin_port == b.in.sin_port && a.in.sin_addr.s_addr == b.in.sin_addr.s_addr;
    case AF_INET6:
        return a.in6.sin6_port == b.in6.sin6_port &&
               memcmp(&a.in6.sin6_addr, &b.in6.sin6_addr, sizeof(a.in6.sin6_addr)) == 0;
    case AF_UNIX:
        return strcmp(a.un.sun_path, b.un.sun_path) == 0;
    default:
        return true;
    }
}

uint16_t addr_port(const struct addr *addr)
{
    switch (addr->sa.sa_family) {
    case AF_INET:
        return ntohs(addr->in.sin_port);
    case AF_INET6:
        return ntohs(addr->in6.sin6_port);
    default:
        return 0;
    }
}

void addr_set_port(struct addr *addr, uint16_t port)
{
    if (addr->sa.sa_family == AF_INET)
        addr->in.sin_port = htons(port);
    else if (addr->sa.sa_family == AF_INET6)
        addr->in6.sin6_port = htons(port);
}

int addr_key(const struct addr *addr, uint8_t protocol, struct durpina_address *ret)
{
    uint32_t a[4];

    switch (addr->sa.sa_family) {
    case AF_INET:
        durpina_address_inet(ret, addr->in.sin_addr.s_addr, addr->in.sin_port, protocol);
        return 0;
    case AF_INET6:
        memcpy(a, &addr->in6.sin6_addr, sizeof(a));
        durpina_address_inet6(ret, a[0], a[1], a[2], a[3], addr->in6.sin6_port, protocol);
        return 0;
    default:
        return -EINVAL;
    }
}
