/* SPDX-License-Identifier: MIT */
/*
 * Ends a call into a library that reads from a socket and does not return as long as more comes:
 * libcurl 7.88 does so with frames of HTTP/2 that carry nothing, such as WINDOW_UPDATE. A peer that
 * sends them as fast as they are read would stop the loop for good.
 *
 *     read_guard_set(fd, true);
 *     ...
 *     read_guard_enter(1 << 20);
 *     ... call that reads from any of the sockets ...
 *     read_guard_leave();
 *     if (read_guard_has_ended(fd)) ...
 *
 * While the call runs, a signal comes every millisecond, whose handler closes both directions of
 * those TCP sockets from which more than `max` bytes have been read in all; the next read of them
 * fails. For one thread of a process, and not nested.
 */
#ifndef DURPINAD_READ_GUARD_H
#define DURPINAD_READ_GUARD_H

#include <stdbool.h>
#include <stdint.h>

/* Once, by the thread that is to be guarded; again does nothing. 0 or -errno. */
int read_guard_create(void);

/* Whether this socket is one of those; no longer is when it is closed. */
void read_guard_set(int fd, bool guarded);

void read_guard_enter(uint64_t max);
void read_guard_leave(void);

/* True if the socket, which is one of those, has been ended. */
bool read_guard_has_ended(int fd);

/* How much has been read from a TCP socket so far, in bytes; 0 of any other socket. */
uint64_t read_guard_bytes(int fd);

#endif
