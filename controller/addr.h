/* SPDX-License-Identifier: MIT */
/* A socket address and its text. Pure. */
#ifndef DURPINAD_ADDR_H
#define DURPINAD_ADDR_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "durpina_abi.h"

struct addr {
    socklen_t len;
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
    };
};

/* "127.0.0.1:80", "[::1]:80", "unix:/path"; without a port: default_port. No names: -EINVAL. */
int addr_parse(const char *text, uint16_t default_port, struct addr *ret);
/* The same text back; v4-mapped addresses as IPv4. size DURPINA_NAME_SIZE always suffices. */
void addr_format(const struct addr *addr, char *buffer, size_t size);
bool addr_equal(const struct addr *a, const struct addr *b);
uint16_t addr_port(const struct addr *addr); /* 0 for unix */
void addr_set_port(struct addr *addr, uint16_t port);
/* As the maps go by it; v4-mapped addresses as IPv4. -EINVAL: a unix socket, or no address. */
int addr_key(const struct addr *addr, uint8_t protocol, struct durpina_address *ret);

#endif
