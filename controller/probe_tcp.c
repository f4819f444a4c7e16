/* SPDX-License-Identifier: MIT */
/*
 * The tcp check: a connection, and if the options say so, bytes sent and bytes expected in the
 * first CHECK_TCP_MAX bytes of the answer.
 */
#include <string.h>

#include "probe_stream.h"

#define SHOWN_ANSWER 40 /* bytes of an unexpected answer in the reason */

_Static_assert(CHECK_TCP_MAX <= PROBE_ANSWER_MAX, "all of what is expected fits into the answer");

static bool is_expected(const struct probe_target *target, const char *answer, size_t n)
{
    const char *expect = target->check->tcp.expect;

    return expect == NULL || memmem(answer, n, expect, strlen(expect)) != NULL;
}

static void tcp_finish(struct probe_target *target, int err, const char *answer, size_t n)
{
    if (err < 0)
        probe_done_errno(target, err);
    else if (target->check->tcp.expect == NULL)
        probe_done(target, PROBE_PASSED, "connected");
    else if (is_expected(target, answer, n))
        probe_done(target, PROBE_PASSED, "expected answer");
    else if (answer[0] == '\0')
        probe_done(target, PROBE_FAILED, "closed without an answer");
    else
        probe_done(target, PROBE_FAILED, "unexpected answer \"%.*s\"", SHOWN_ANSWER, answer);
}

static const struct probe_stream_ops stream_ops = {
    .missing = "expected answer",
    .is_enough = is_expected,
    .finish = tcp_finish,
};

static void tcp_start(struct probe_target *target)
{
    probe_stream_start(target, &stream_ops, target->check->tcp.send);
}

const struct probe_ops probe_tcp_ops = {
    .start = tcp_start,
    .cancel = probe_stream_cancel,
};
