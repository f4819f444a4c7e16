/* SPDX-License-Identifier: MIT */
/* The http check: an answer passes by its status, and by its body if the options say so. */
#include <errno.h>

#include "body_match.h"
#include "probe_http.h"

static void judge(struct probe_target *target, const struct http_answer *answer)
{
    const struct check_http *options = &target->check->http;
    bool passed = check_http_code_ok(options, answer->status);
    int matches = 1;

    if (passed && options->match != NULL)
        matches = body_match_run(options->match, answer->body, answer->n_body);
    if (matches == 0)
        probe_done(target, PROBE_FAILED, "body does not match");
    else if (matches == -EOVERFLOW)
        probe_done(target, PROBE_FAILED, "body takes too long to match");
    else if (matches < 0)
        probe_done_errno(target, matches);
    else
        probe_done(target, passed ? PROBE_PASSED : PROBE_FAILED, "HTTP %ld", answer->status);
}

static void http_start(struct probe_target *target)
{
    static const struct http_kind plain = {.body_max = HTTP_BODY_MAX, .judge = judge};
    static const struct http_kind matching = {
        .body_max = HTTP_BODY_MAX,
        .keeps_body = true,
        .judge = judge,
    };

    http_check_start(target, target->check->http.match != NULL ? &matching : &plain);
}

const struct probe_ops probe_http_ops = {
    .start = http_start,
    .cancel = http_check_cancel,
};
