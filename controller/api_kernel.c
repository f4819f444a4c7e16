/* SPDX-License-Identifier: MIT */
/* What the programs in the kernel count, of peers and in all, and which of them are attached. */
#include <errno.h>

#include "api_call.h"
#include "events.h"
#include "kernel_health.h"

/* Milliseconds to a microsecond, where there has been a sample. */
static void add_ms(json_t *object, const char *key, double us)
{
    if (us > 0)
        json_object_set_new(object, key, json_real((double) (uint64_t) us / 1000));
}

static void add_mean(json_t *object, const char *key, const struct durpina_ewma *mean)
{
    add_ms(object, key, (double) durpina_mean_us(mean));
}

static void add_counts(json_t *object, const struct durpina_endpoint *e)
{
    const struct {
        const char *key;
        uint64_t value;
    } counts[] = {
        {"connecting", DURPINA_LOAD(&e->connecting)},
        {"open", DURPINA_LOAD(&e->open)},
        {"tried", DURPINA_LOAD(&e->tried)},
        {"established", DURPINA_LOAD(&e->established)},
        {"refused", DURPINA_LOAD(&e->refused)},
        {"timed_out", DURPINA_LOAD(&e->timed_out)},
        {"unreachable", DURPINA_LOAD(&e->unreachable)},
        {"abandoned", DURPINA_LOAD(&e->abandoned)},
        {"resets", DURPINA_LOAD(&e->resets)},
        {"retransmits", DURPINA_LOAD(&e->retransmits)},
        {"segments", DURPINA_LOAD(&e->segments)},
        {"sent", DURPINA_LOAD(&e->sent)},
        {"received", DURPINA_LOAD(&e->received)},
    };

    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
        json_object_set_new(object, counts[i].key, json_integer((json_int_t) counts[i].value));
    add_mean(object, "handshake_ms", &e->handshake);
    add_mean(object, "srtt_ms", &e->rtt);
    add_ms(object, "min_rtt_ms", DURPINA_LOAD(&e->min_rtt) / (double) DURPINA_EWMA_US);
}

static void add_verdict(json_t *object, const struct kernel_verdict *verdict)
{
    json_object_set_new(object, "retransmit_rate", json_real(verdict->retransmit_rate));
    json_object_set_new(object, "slow", json_boolean(verdict->slow));
    json_object_set_new(object, "lossy", json_boolean(verdict->lossy));
    json_object_set_new(object, "drift", json_integer(verdict->drift));
}

void api_add_kernel(json_t *object, const struct peer *peer, const struct api_call *call)
{
    const struct durpina_peer *record = durpina_peer_at(&call->maps, peer->id);
    const struct durpina_endpoint *endpoint;
    json_t *kernel;

    if (record == NULL || DURPINA_LOAD(&record->generation) != peer->generation ||
        DURPINA_LOAD(&call->maps.meta->observing) == 0)
        return;
    endpoint = durpina_endpoint_at(&call->maps, DURPINA_LOAD(&record->endpoint));
    if (endpoint == NULL)
        return;
    kernel = json_object();
    add_counts(kernel, endpoint);
    if (call->api->health != NULL) {
        struct kernel_verdict verdict = kernel_health_verdict(call->api->health, peer->id);

        add_verdict(kernel, &verdict);
    }
    json_object_set_new(object, "kernel", kernel);
}

static json_t *programs_json(const struct programs *programs)
{
    json_t *array = json_array();
    size_t n = 0;
    const struct programs_rung *rungs = programs != NULL ? programs_rungs(programs, &n) : NULL;

    for (size_t i = 0; i < n; i++) {
        json_t *rung = json_pack("{ss sb sb}", "name", rungs[i].name, "attached", rungs[i].attached,
                                 "wanted", rungs[i].wanted);

        if (!rungs[i].attached && rungs[i].why[0] != '\0')
            json_object_set_new(rung, "why", json_string(rungs[i].why));
        if (!rungs[i].attached)
            json_object_set_new(rung, "cost", json_string(rungs[i].cost));
        json_array_append_new(array, rung);
    }
    return array;
}

static int get_kernel(struct api_call *call)
{
    const struct api *api = call->api;
    const struct durpina_kernel *kernel = api->maps->kernel;
    struct events_stats events = {0};

    if (api->events != NULL)
        events = events_stats(api->events);
    call->result = json_pack("{sb ss so s{sI sI sI sI sI} s{sI sI}}", "observing",
                             DURPINA_LOAD(&call->maps.meta->observing) != 0, "cgroup",
                             api->programs != NULL ? programs_cgroup(api->programs) : "",
                             "programs", programs_json(api->programs), "totals", "events_dropped",
                             (json_int_t) DURPINA_LOAD(&kernel->events_dropped), "foreign",
                             (json_int_t) DURPINA_LOAD(&kernel->foreign), "unobserved",
                             (json_int_t) DURPINA_LOAD(&kernel->unobserved), "exempt",
                             (json_int_t) DURPINA_LOAD(&kernel->exempt), "marked",
                             (json_int_t) DURPINA_LOAD(&kernel->marked), "failures", "passed",
                             (json_int_t) events.passed, "downs", (json_int_t) events.downs);
    return 0;
}

const struct api_route api_kernel_routes[] = {
    {"durpina/kernel", {[API_GET] = get_kernel}, false, false},
    {NULL, {NULL}, false, false},
};
