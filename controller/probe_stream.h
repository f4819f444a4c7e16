/* SPDX-License-Identifier: MIT */
/*
 * A connection of its own for one check that speaks no HTTP: bytes sent, if there are any, and the
 * answer, read until its kind is content.
 */
#ifndef DURPINAD_PROBE_STREAM_H
#define DURPINAD_PROBE_STREAM_H

#include "probe_ops.h"

#define PROBE_ANSWER_MAX 1024 /* bytes */

/* The answer: n bytes, and a NUL behind them. */
struct probe_stream_ops {
    const char *missing; /* what it waits for once there is some of the answer */
    /* Once connected and all is sent (n is 0 then), and after each read. */
    bool (*is_enough)(const struct probe_target *target, const char *answer, size_t n);
    /*
     * The connection is over: to end the check by probe_done(). err: 0, and the answer is enough or
     * all that there will be; or -errno.
     */
    void (*finish)(struct probe_target *target, int err, const char *answer, size_t n);
};

/* What probe_ops.start and .cancel are to do. send: borrowed until the end; or NULL. */
void probe_stream_start(struct probe_target *target, const struct probe_stream_ops *ops,
                        const char *send);
void probe_stream_cancel(struct probe_target *target);

#endif
