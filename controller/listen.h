/* SPDX-License-Identifier: MIT */
/* Listening sockets, bound while privileges last. */
#ifndef DURPINAD_LISTEN_H
#define DURPINAD_LISTEN_H

#include <stddef.h>
#include <sys/types.h>

#include "addr.h"

/*
 * Binds a unix stream socket at path with the given mode and listens. A socket file that nobody
 * listens on any more is replaced; one that is in use is refused with the pid of its owner, and so
 * is any other file. Returns 0, or -errno with the reason and remedy in error.
 */
int listen_unix(const char *path, mode_t mode, int *ret_fd, char *error, size_t error_size);

/* Likewise for TCP. */
int listen_tcp(const struct addr *addr, int *ret_fd, char *error, size_t error_size);

#endif
