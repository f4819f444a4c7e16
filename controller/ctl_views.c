/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl.h"

static long long number_of(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static const char *word_of(const json_t *object, const char *key)
{
    const char *word = json_string_value(json_object_get(object, key));

    return word != NULL ? word : "?";
}

/* A cell of a table. */
__attribute__((format(printf, 1, 2))) static char *cell(const char *format, ...)
{
    char *text;
    va_list ap;
    int n;

    va_start(ap, format);
    n = vasprintf(&text, format, ap);
    va_end(ap);
    if (n < 0)
        abort();
    return text;
}

void ctl_print_status(const json_t *status)
{
    const json_t *capacity;
    const char *key;

    printf("durpinad %s, pid %lld, maps in %s\n", word_of(status, "version"),
           number_of(status, "pid"), word_of(status, "pin"));
    json_object_foreach(json_object_get(status, "capacity"), key, capacity)
    {
        printf("%-10s %lld of %lld\n", key, number_of(json_object_get(status, "used"), key),
               (long long) json_integer_value(capacity));
    }
}

void ctl_print_upstreams(const json_t *upstreams)
{
    static const char *const titles[] = {"UPSTREAM", "PEERS", "UP", "ACTIVE", "REQUESTS", "FAILS"};
    struct ctl_table table = {.n_columns = 6};
    const json_t *upstream, *peer;
    const char *name;
    size_t i;

    json_object_foreach((json_t *) upstreams, name, upstream)
    {
        const json_t *peers = json_object_get(upstream, "peers");
        long long up = 0, active = 0, requests = 0, fails = 0;

        json_array_foreach(peers, i, peer)
        {
            up += strcmp(word_of(peer, "state"), "up") == 0;
            active += number_of(peer, "active");
            requests += number_of(peer, "requests");
            fails += number_of(peer, "fails");
        }

        char *cells[] = {cell("%s", name),       cell("%zu", json_array_size(peers)),
                         cell("%lld", up),       cell("%lld", active),
                         cell("%lld", requests), cell("%lld", fails)};

        ctl_table_add(&table, cells);
    }
    ctl_table_print(&table, titles);
}

void ctl_print_server(const json_t *server)
{
    printf("%s: id %lld, weight %lld, %s\n", word_of(server, "server"), number_of(server, "id"),
           number_of(server, "weight"), word_of(server, "state"));
}

void ctl_print_monitors(const json_t *monitors)
{
    static const char *const titles[] = {"MONITOR", "TYPE", "OPTIONS"};
    struct ctl_table table = {.n_columns = 3};
    const json_t *monitor;
    size_t i;

    json_array_foreach(monitors, i, monitor)
    {
        char *cells[] = {cell("%s", word_of(monitor, "id")), cell("%s", word_of(monitor, "name")),
                         json_dumps(json_object_get(monitor, "options"),
                                    JSON_COMPACT | JSON_REAL_PRECISION(15))};

        if (cells[2] == NULL)
            abort();
        ctl_table_add(&table, cells);
    }
    ctl_table_print(&table, titles);
}

/* "3", or "0/3": in force and as configured. */
static char *weight_cell(const json_t *peer, const json_t *servers)
{
    long long weight = number_of(peer, "weight"), initial = weight;
    const json_t *server;
    size_t i;

    json_array_foreach(servers, i, server)
    {
        if (strcmp(word_of(server, "server"), word_of(peer, "name")) == 0)
            initial = number_of(server, "initial_weight");
    }
    return weight == initial ? cell("%lld", weight) : cell("%lld/%lld", weight, initial);
}

static char *checks_cell(const json_t *checks)
{
    long long n = number_of(checks, "checks");

    return n == 0 ? cell("-") : cell("%lld/%lld", number_of(checks, "fails"), n);
}

/* Why peers take no requests. */
static void print_reasons(const json_t *peers)
{
    const json_t *peer;
    size_t i;

    json_array_foreach(peers, i, peer)
    {
        if (json_object_get(peer, "reason") != NULL)
            printf("%s (%s) is %s: %s\n", word_of(peer, "name"), word_of(peer, "server"),
                   word_of(peer, "state"), word_of(peer, "reason"));
    }
}

void ctl_print_checks(const json_t *peers)
{
    static const char *const titles[] = {"SERVER",        "ADDRESS", "STATE", "MONITOR", "VERDICT",
                                         "FAILED/CHECKS", "LAST",    "MS",    "REASON"};
    struct ctl_table table = {.n_columns = 9};
    const json_t *peer, *monitor;
    size_t i, k;

    json_array_foreach(peers, i, peer)
    {
        json_array_foreach(json_object_get(peer, "monitors"), k, monitor)
        {
            const json_t *last = json_object_get(monitor, "last");
            char *cells[] = {
                cell("%s", word_of(peer, "name")),
                cell("%s", word_of(peer, "server")),
                cell("%s", word_of(peer, "state")),
                cell("%s", word_of(monitor, "id")),
                cell("%s", word_of(monitor, "verdict")),
                checks_cell(monitor),
                cell("%s", last != NULL ? word_of(last, "time") : "-"),
                last != NULL ? cell("%lld", number_of(last, "duration")) : cell("-"),
                cell("%s", last != NULL ? word_of(last, "reason") : "-"),
            };

            ctl_table_add(&table, cells);
        }
    }
    ctl_table_print(&table, titles);
}

/* The newest first: times as the API writes them sort as text. */
static int later_first(const void *a, const void *b)
{
    char *const *row_a = a, *const *row_b = b;

    return strcmp(row_b[0], row_a[0]);
}

void ctl_print_history(const json_t *peers)
{
    static const char *const titles[] = {"TIME", "SERVER", "ADDRESS", "FROM", "TO", "CAUSE"};
    struct ctl_table table = {.n_columns = 6};
    const json_t *peer, *transition;
    size_t i, k;

    json_array_foreach(peers, i, peer)
    {
        json_array_foreach(json_object_get(peer, "transitions"), k, transition)
        {
            char *cells[] = {cell("%s", word_of(transition, "time")),
                             cell("%s", word_of(peer, "name")),
                             cell("%s", word_of(peer, "server")),
                             cell("%s", word_of(transition, "from")),
                             cell("%s", word_of(transition, "to")),
                             cell("%s", word_of(transition, "cause"))};

            ctl_table_add(&table, cells);
        }
    }
    if (table.n_rows > 0)
        qsort(table.rows, table.n_rows, sizeof(*table.rows), later_first);
    ctl_table_print(&table, titles);
}

void ctl_print_kernel(const json_t *kernel)
{
    static const char *const titles[] = {"PROGRAM", "STATE", "WITHOUT IT"};
    struct ctl_table table = {.n_columns = 3};
    const json_t *rung, *total;
    const char *key;
    size_t i;

    json_array_foreach(json_object_get(kernel, "programs"), i, rung)
    {
        bool attached = json_is_true(json_object_get(rung, "attached"));
        bool wanted = json_is_true(json_object_get(rung, "wanted"));
        char *cells[] = {cell("%s", word_of(rung, "name")),
                         cell("%s", attached ? "attached"
                                    : wanted ? "missing"
                                             : "off"),
                         cell("%s", attached ? "" : word_of(rung, "cost"))};

        ctl_table_add(&table, cells);
    }
    ctl_table_print(&table, titles);
    json_array_foreach(json_object_get(kernel, "programs"), i, rung)
    {
        if (json_object_get(rung, "why") != NULL)
            printf("%s is missing: %s\n", word_of(rung, "name"), word_of(rung, "why"));
    }
    printf("\ncgroup %s\n", word_of(kernel, "cgroup"));
    json_object_foreach(json_object_get(kernel, "totals"), key, total)
    {
        printf("%-15s %lld\n", key, (long long) json_integer_value(total));
    }
}

/* "slow lossy drift=2" */
static char *says_cell(const json_t *kernel)
{
    long long drift = number_of(kernel, "drift");
    bool slow = json_is_true(json_object_get(kernel, "slow"));
    bool lossy = json_is_true(json_object_get(kernel, "lossy"));
    char text[64] = "";

    if (drift > 0)
        snprintf(text, sizeof(text), "drift=%lld", drift);
    return cell("%s%s%s%s%s", slow ? "slow" : "", slow && (lossy || drift > 0) ? " " : "",
                lossy ? "lossy" : "", lossy && drift > 0 ? " " : "", text);
}

static char *ms_cell(const json_t *kernel, const char *key)
{
    const json_t *ms = json_object_get(kernel, key);

    return ms == NULL ? cell("-") : cell("%.3f", json_number_value(ms));
}

void ctl_print_connections(const json_t *upstream)
{
    static const char *const titles[] = {"ADDRESS", "STATE",  "CONNECTING", "OPEN",    "TRIED",
                                         "FAILED",  "RESETS", "RESENT %",   "SRTT MS", ""};
    struct ctl_table table = {.n_columns = 10};
    const json_t *peer;
    size_t i;

    json_array_foreach(json_object_get(upstream, "peers"), i, peer)
    {
        const json_t *kernel = json_object_get(peer, "kernel");
        char *cells[] = {
            cell("%s", word_of(peer, "server")),
            cell("%s", word_of(peer, "state")),
            cell("%lld", number_of(kernel, "connecting")),
            cell("%lld", number_of(kernel, "open")),
            cell("%lld", number_of(kernel, "tried")),
            cell("%lld", number_of(kernel, "refused") + number_of(kernel, "timed_out") +
                             number_of(kernel, "unreachable")),
            cell("%lld", number_of(kernel, "resets")),
            cell("%.2f", 100 * json_number_value(json_object_get(kernel, "retransmit_rate"))),
            ms_cell(kernel, "srtt_ms"),
            kernel == NULL ? cell("not counted") : says_cell(kernel),
        };

        ctl_table_add(&table, cells);
    }
    ctl_table_print(&table, titles);
}

void ctl_print_upstream(const json_t *upstream)
{
    static const char *const titles[] = {"ID",     "SERVER", "ADDRESS",  "TIER",  "STATE",
                                         "WEIGHT", "ACTIVE", "REQUESTS", "FAILS", "FAILED/CHECKS"};
    struct ctl_table table = {.n_columns = 10};
    const json_t *monitors = json_object_get(upstream, "monitors");
    const json_t *peer;
    size_t i;

    json_array_foreach(json_object_get(upstream, "peers"), i, peer)
    {
        bool backup = json_is_true(json_object_get(peer, "backup"));
        char *cells[] = {
            cell("%lld", number_of(peer, "id")),
            cell("%s", word_of(peer, "name")),
            cell("%s", word_of(peer, "server")),
            cell("%s", backup ? "backup" : "primary"),
            cell("%s", word_of(peer, "state")),
            weight_cell(peer, json_object_get(upstream, "servers")),
            cell("%lld", number_of(peer, "active")),
            cell("%lld", number_of(peer, "requests")),
            cell("%lld", number_of(peer, "fails")),
            checks_cell(json_object_get(peer, "health_checks")),
        };

        ctl_table_add(&table, cells);
    }
    ctl_table_print(&table, titles);
    print_reasons(json_object_get(upstream, "health"));
    if (json_array_size(monitors) == 0)
        return;
    putchar('\n');
    ctl_print_monitors(monitors);
    if (json_is_false(json_object_get(upstream, "active")))
        puts("monitoring is paused");
}
