/* SPDX-License-Identifier: MIT */
/* GET /metrics: the controller's own counts, then the peers (metrics.h). */
#include "api_call.h"
#include "events.h"
#include "inflight.h"
#include "metrics.h"
#include "probe.h"

#define TOTALS_MAX 64

struct totals {
    struct metrics_total at[TOTALS_MAX];
    size_t n;
};

/* What does not fit is left out: raise TOTALS_MAX with what is added here. */
static void add(struct totals *totals, const char *name, const char *type, const char *help,
                const char *label, const char *word, double value)
{
    if (totals->n < TOTALS_MAX)
        totals->at[totals->n++] = (struct metrics_total){name, type, help, label, word, value};
}

static void add_gauge(struct totals *totals, const char *name, const char *help, double value)
{
    add(totals, name, "gauge", help, NULL, NULL, value);
}

static void add_counter(struct totals *totals, const char *name, const char *help, double value)
{
    add(totals, name, "counter", help, NULL, NULL, value);
}

static void add_maps(struct totals *totals, const struct api_call *call)
{
    static const char capacity[] = "durpina_map_capacity", used[] = "durpina_map_used";
    struct publish_usage usage = engine_usage(call->api->engine);
    struct inflight_usage inflight = inflight_usage(&call->maps);
    const struct {
        const char *map;
        double capacity, used;
    } maps[] = {
        {"upstreams", call->maps.n_upstreams, usage.upstreams},
        {"peers", call->maps.n_peers, usage.peers},
        {"slots", call->maps.n_slots, usage.slots},
        {"inflight", (double) inflight.capacity, (double) inflight.claimed},
    };
    const size_t n = sizeof(maps) / sizeof(maps[0]);

    for (size_t i = 0; i < n; i++)
        add(totals, capacity, "gauge", "Elements that the map has room for.", "map", maps[i].map,
            maps[i].capacity);
    for (size_t i = 0; i < n; i++)
        add(totals, used, "gauge", "Elements of the map in use.", "map", maps[i].map, maps[i].used);
    add_gauge(totals, "durpina_untracked", "Requests in flight that no page had room for.",
              (double) inflight.untracked);
}

static void add_checks(struct totals *totals, const struct api_call *call)
{
    const struct prober_stats *stats = prober_stats(engine_prober(call->api->engine));

    add_gauge(totals, "durpina_check_targets", "Addresses that are checked, by check.",
              stats->targets);
    add_counter(totals, "durpina_checks_total", "Health checks that came to a result.",
                (double) stats->checks);
    add_counter(totals, "durpina_checks_undecided_total", "Health checks that could not be made.",
                (double) stats->undecided);
    add_counter(totals, "durpina_checks_late_total", "Health checks that began late.",
                (double) stats->late);
}

static void add_api(struct totals *totals, const struct api_call *call)
{
    struct http_stats stats = {0};

    if (call->api->server != NULL)
        stats = http_server_stats(call->api->server);
    add_counter(totals, "durpina_api_connections_total", "Connections to the API.",
                (double) stats.accepted);
    add_counter(totals, "durpina_api_connections_dropped_total",
                "Connections to the API that were refused for a limit.", (double) stats.dropped);
    add_gauge(totals, "durpina_api_connections_open", "Open connections to the API.",
              (double) stats.connections);
    add_counter(totals, "durpina_configuration_loads_total", "Start and reloads.",
                (double) call->api->loads);
}

static void add_kernel(struct totals *totals, const struct api_call *call)
{
    const struct durpina_kernel *kernel = call->api->maps->kernel;
    const struct programs *programs = call->api->programs;
    struct events_stats events = {0};
    size_t n = 0;
    const struct programs_rung *rungs = programs != NULL ? programs_rungs(programs, &n) : NULL;

    if (call->api->events != NULL)
        events = events_stats(call->api->events);
    for (size_t i = 0; i < n; i++)
        add(totals, "durpina_kernel_program_attached", "gauge", "1 if the program is attached.",
            "program", rungs[i].name, rungs[i].attached);
    add_gauge(totals, "durpina_kernel_observing", "1 if connections to peers are counted.",
              DURPINA_LOAD(&call->maps.meta->observing) != 0);
    add_counter(totals, "durpina_kernel_events_dropped_total",
                "Events that the ring had no room for; what they told of is counted all the same.",
                (double) DURPINA_LOAD(&kernel->events_dropped));
    add_counter(totals, "durpina_kernel_foreign_total",
                "Connections to addresses of peers in another network namespace.",
                (double) DURPINA_LOAD(&kernel->foreign));
    add_counter(totals, "durpina_kernel_unobserved_total",
                "Connections that were not counted for want of memory.",
                (double) DURPINA_LOAD(&kernel->unobserved));
    add_counter(totals, "durpina_kernel_exempt_total", "Connections of health checks.",
                (double) DURPINA_LOAD(&kernel->exempt));
    add_counter(totals, "durpina_kernel_marked_total",
                "Connections to virtual endpoints that bear the mark.",
                (double) DURPINA_LOAD(&kernel->marked));
    add_counter(totals, "durpina_kernel_failures_total",
                "Connections that failed and counted against peers.", (double) events.passed);
    add_counter(totals, "durpina_kernel_downs_total", "Peers that became unavailable by them.",
                (double) events.downs);
}

static size_t read_metrics(void *user, char *buffer, size_t size)
{
    return metrics_read(user, buffer, size);
}

static void close_metrics(void *user)
{
    metrics_destroy(user);
}

int api_get_metrics(struct api_call *call)
{
    const struct metrics_source source = {.maps = call->maps, .health = call->api->health};
    struct totals totals = {.n = 0};
    struct metrics *metrics;

    add(&totals, "durpina_info", "gauge", "The controller; always 1.", "version", DURPINA_VERSION,
        1);
    add_maps(&totals, call);
    add_checks(&totals, call);
    add_api(&totals, call);
    add_kernel(&totals, call);
    if (metrics_create(&source, totals.at, totals.n, &metrics) < 0)
        return fail_memory(&call->failure);
    call->stream = (struct http_stream){METRICS_CONTENT_TYPE, read_metrics, close_metrics, metrics};
    return 0;
}
