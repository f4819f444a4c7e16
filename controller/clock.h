/* SPDX-License-Identifier: MIT */
#ifndef DURPINAD_CLOCK_H
#define DURPINAD_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t clock_ms(clockid_t id)
{
    struct timespec now;

    clock_gettime(id, &now);
    return (uint64_t) now.tv_sec * 1000 + (uint64_t) now.tv_nsec / 1000000;
}

/* As workers use it in the maps. */
static inline uint64_t clock_monotonic_ms(void)
{
    return clock_ms(CLOCK_MONOTONIC);
}

/* What people read: since 1970. */
static inline uint64_t clock_wall_ms(void)
{
    return clock_ms(CLOCK_REALTIME);
}

#endif
