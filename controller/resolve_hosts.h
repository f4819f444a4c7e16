/* SPDX-License-Identifier: MIT */
/* The hosts file, as it is when it is asked. c-ares's library must be initialised. */
#ifndef DURPINAD_RESOLVE_HOSTS_H
#define DURPINAD_RESOLVE_HOSTS_H

#include <stddef.h>

#include "addr.h"

struct hosts;

/* 0, -ENOMEM or -EIO. */
int hosts_create(struct hosts **ret);
/* NULL is fine. */
void hosts_destroy(struct hosts *hosts);

/*
 * The addresses of a host, each with port 0; those of localhost without the file, too. *ret is to
 * be freed. -ENOENT: nothing; -ENOMEM.
 */
int hosts_look_up(struct hosts *hosts, const char *host, struct addr **ret, size_t *ret_n);

#endif
