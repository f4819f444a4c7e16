/* SPDX-License-Identifier: MIT */
/*
 * The grpc check: a call of grpc.health.v1.Health/Check. It passes by the status of the call, and
 * if that is 0 by the health that the reply tells.
 */
#include "grpc_health.h"
#include "probe_http.h"

#define REPLY_MAX 4096 /* bytes; a reply of today has 7 */

static void judge_reply(struct probe_target *target, const struct http_answer *answer)
{
    static const char *const names[GRPC_HEALTHS] = {"UNKNOWN", "SERVING", "NOT_SERVING",
                                                    "SERVICE_UNKNOWN"};
    int health = grpc_health_reply(answer->body, answer->n_body);

    if (health < 0)
        probe_done(target, PROBE_FAILED, "reply is not that of a health service");
    else
        probe_done(target, health == GRPC_HEALTH_SERVING ? PROBE_PASSED : PROBE_FAILED,
                   "health is %s", names[health]);
}

static void judge(struct probe_target *target, const struct http_answer *answer)
{
    const unsigned wanted = target->check->http.grpc_status;

    if (answer->status != 200)
        probe_done(target, PROBE_FAILED, "HTTP %ld", answer->status);
    else if (answer->grpc_status == HTTP_GRPC_STATUS_NONE)
        probe_done(target, PROBE_FAILED, "no grpc-status in the answer");
    else if (answer->grpc_status == 0 && wanted == 0)
        judge_reply(target, answer);
    else
        probe_done(target, answer->grpc_status == wanted ? PROBE_PASSED : PROBE_FAILED,
                   "grpc-status %u (%s)", answer->grpc_status,
                   grpc_status_name(answer->grpc_status));
}

static void grpc_start(struct probe_target *target)
{
    static const struct http_kind kind = {.body_max = REPLY_MAX,
                                          .keeps_body = true,
                                          .judge = judge};

    http_check_start(target, &kind);
}

const struct probe_ops probe_grpc_ops = {
    .start = grpc_start,
    .cancel = http_check_cancel,
};
