/* SPDX-License-Identifier: MIT */
/* controller/metrics.c: the text, over maps in plain memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "metrics.h"

#include <cmocka.h>

#define PEERS 4000

static struct durpina_meta meta;
static struct durpina_upstream upstreams[2];
static struct durpina_peer peers[PEERS];
static struct durpina_counters counters[PEERS];
static struct durpina_endpoint endpoints[2];

static const struct metrics_source source = {.maps = {.meta = &meta,
                                                      .upstreams = upstreams,
                                                      .peers = peers,
                                                      .counters = counters,
                                                      .endpoints = endpoints,
                                                      .n_upstreams = 2,
                                                      .n_peers = PEERS,
                                                      .n_endpoints = 2}};

static void add_peer(uint32_t id, const char *name)
{
    struct durpina_peer *peer = &peers[id];

    snprintf(peer->name, sizeof(peer->name), "%s", name);
    strcpy(peer->address, "10.0.0.1:80");
    peer->generation = counters[id].generation = 1;
    peer->endpoint = DURPINA_NONE;
    peer->settings[0].state = peer->settings[1].state = DURPINA_PEER_UP;
    peer->settings[0].weight = peer->settings[1].weight = 3;
}

static int set_up(void **state)
{
    (void) state;
    memset(&meta, 0, sizeof(meta));
    memset(upstreams, 0, sizeof(upstreams));
    memset(peers, 0, sizeof(peers));
    memset(counters, 0, sizeof(counters));
    memset(endpoints, 0, sizeof(endpoints));
    meta.observing = 1;
    strcpy(upstreams[0].name, "foo");
    upstreams[0].publish = 2;
    add_peer(1, "a:80");
    return 0;
}

/* All of it, read in pieces of this size; to be freed. */
static char *read_all(const struct metrics_total *totals, size_t n_totals, size_t piece)
{
    struct metrics *metrics;
    char *text = malloc(1 << 26), *end = text;
    size_t n;

    assert_non_null(text);
    assert_int_equal(metrics_create(&source, totals, n_totals, &metrics), 0);
    while ((n = metrics_read(metrics, end, piece)) > 0)
        end += n;
    metrics_destroy(metrics);
    *end = '\0';
    return text;
}

static void assert_has(const char *line)
{
    char *text = read_all(NULL, 0, METRICS_PART);
    const char *found = strstr(text, line);

    if (found == NULL)
        fail_msg("no line \"%s\" in:\n%s", line, text);
    free(text);
}

static void assert_has_not(const char *part)
{
    char *text = read_all(NULL, 0, METRICS_PART);

    assert_null(strstr(text, part));
    free(text);
}

#define A "{upstream=\"foo\",peer=\"a:80\",address=\"10.0.0.1:80\""

static void families_have_help_and_type(void **state)
{
    (void) state;
    assert_has("# HELP durpina_peer_weight Weight in force.\n# TYPE durpina_peer_weight gauge\n"
               "durpina_peer_weight" A "} 3\n");
}

static void counters_count(void **state)
{
    (void) state;
    counters[1].responses[1] = 40;
    counters[1].responses[4] = 1;
    counters[1].unanswered = 1;
    counters[1].active = 2;
    counters[1].sent = 9007199254740991ULL;
    assert_has("durpina_peer_requests_total" A "} 44\n");
    assert_has("durpina_peer_responses_total" A ",code=\"2xx\"} 40\n");
    assert_has("durpina_peer_responses_total" A ",code=\"5xx\"} 1\n");
    assert_has("durpina_peer_sent_bytes_total" A "} 9007199254740991\n");
}

static void one_state_is_1(void **state)
{
    (void) state;
    assert_has("durpina_peer_state" A ",state=\"up\"} 1\n");
    assert_has("durpina_peer_state" A ",state=\"unavail\"} 0\n");
    counters[1].down_until_ms = UINT64_MAX;
    assert_has("durpina_peer_state" A ",state=\"up\"} 0\n");
    assert_has("durpina_peer_state" A ",state=\"unavail\"} 1\n");
    peers[1].settings[0].state = DURPINA_PEER_DRAINING;
    assert_has("durpina_peer_state" A ",state=\"draining\"} 1\n");
    assert_has("durpina_peer_state" A ",state=\"unavail\"} 0\n");
}

static void times_are_in_seconds(void **state)
{
    (void) state;
    assert_has_not("durpina_peer_header_seconds{");
    counters[1].header = (struct durpina_ewma){.mean = 1500 * DURPINA_EWMA_US, .samples = 1};
    assert_has("durpina_peer_header_seconds" A "} 0.0015\n");
}

static void kernel_counts_are_those_of_the_endpoint(void **state)
{
    (void) state;
    peers[1].endpoint = 1;
    endpoints[1].open = 5;
    endpoints[1].timed_out = 6;
    endpoints[1].min_rtt = 20 * DURPINA_EWMA_US;
    assert_has("durpina_peer_kernel_open" A "} 5\n");
    assert_has("durpina_peer_kernel_failed_total" A ",reason=\"timed_out\"} 6\n");
    assert_has("durpina_peer_kernel_min_rtt_seconds" A "} 2e-05\n");
}

static void what_is_not_counted_is_not_shown(void **state)
{
    (void) state;
    assert_has_not("durpina_peer_kernel_open{");
    peers[1].endpoint = 2; /* out of range */
    assert_has_not("durpina_peer_kernel_open{");
    peers[1].endpoint = 1;
    assert_has("durpina_peer_kernel_open" A "} 0\n");
    meta.observing = 0;
    assert_has_not("durpina_peer_kernel_open{");
}

static void free_records_are_not_shown(void **state)
{
    (void) state;
    peers[1].settings[0].state = DURPINA_PEER_FREE;
    assert_has_not("foo");
}

static void labels_are_escaped(void **state)
{
    (void) state;
    strcpy(peers[1].name, "unix:/a\\b\"c\nd\xff\xc3\xa4:");
    assert_has("peer=\"unix:/a\\\\b\\\"c\\nd?\xc3\xa4:\"");
}

static void longest_names_fit(void **state)
{
    char *text;

    (void) state;
    memset(upstreams[0].name, '"', DURPINA_NAME_SIZE); /* no NUL: root may write anything */
    for (uint32_t i = 1; i < 100; i++) {
        add_peer(i, "");
        memset(peers[i].name, '\\', DURPINA_NAME_SIZE);
        memset(peers[i].address, '\n', DURPINA_ADDRESS_SIZE);
        peers[i].endpoint = 1;
    }
    text = read_all(NULL, 0, 1000);
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n"))
        assert_true(strlen(line) < METRICS_LINE_MAX);
    free(text);
}

static void totals_of_one_family_stand_together(void **state)
{
    const struct metrics_total totals[] = {
        {"durpina_a", "gauge", "A.", "map", "pe\"ers", 1},
        {"durpina_a", "gauge", "A.", "map", "slots", 0.5},
        {"durpina_b_total", "counter", "B.", NULL, NULL, 7},
    };
    char *text = read_all(totals, 3, 1);

    (void) state;
    assert_memory_equal(text,
                        "# HELP durpina_a A.\n# TYPE durpina_a gauge\n"
                        "durpina_a{map=\"pe\\\"ers\"} 1\ndurpina_a{map=\"slots\"} 0.5\n"
                        "# HELP durpina_b_total B.\n# TYPE durpina_b_total counter\n"
                        "durpina_b_total 7\n# HELP durpina_peer_state ",
                        182);
    free(text);
}

static void pieces_of_any_size_make_the_same_text(void **state)
{
    char *whole = read_all(NULL, 0, METRICS_PART), *pieces = read_all(NULL, 0, 7);

    (void) state;
    assert_string_equal(whole, pieces);
    free(whole);
    free(pieces);
}

/* However much is missing in between, a part is never empty before the end. */
static void parts_are_bounded(void **state)
{
    static char buffer[2 * METRICS_PART];
    struct metrics *metrics;
    size_t n, sum = 0;

    (void) state;
    for (uint32_t i = 0; i < PEERS; i++)
        add_peer(i, "a:80");
    assert_int_equal(metrics_create(&source, NULL, 0, &metrics), 0);
    while ((n = metrics_read(metrics, buffer, sizeof(buffer))) > 0) {
        assert_true(n <= METRICS_PART);
        buffer[n < sizeof(buffer) ? n : n - 1] = '\0';
        sum += strstr(buffer, "durpina_peer_kernel_drift gauge") != NULL;
    }
    assert_int_equal(sum, 1);
    metrics_destroy(metrics);
}

static void peers_that_go_meanwhile_are_left_out(void **state)
{
    char buffer[METRICS_LINE_MAX];
    struct metrics *metrics;
    size_t n, seen = 0;

    (void) state;
    for (uint32_t i = 0; i < PEERS; i++)
        add_peer(i, "a:80");
    assert_int_equal(metrics_create(&source, NULL, 0, &metrics), 0);
    while ((n = metrics_read(metrics, buffer, sizeof(buffer) - 1)) > 0) {
        buffer[n] = '\0';
        seen += strstr(buffer, "durpina_peer_weight{") != NULL;
        for (uint32_t i = 0; i < PEERS; i++)
            peers[i].generation = 2;
    }
    assert_int_equal(seen, 0);
    metrics_destroy(metrics);
}

#define TEST(name) cmocka_unit_test_setup(name, set_up)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(families_have_help_and_type),
        TEST(counters_count),
        TEST(one_state_is_1),
        TEST(times_are_in_seconds),
        TEST(kernel_counts_are_those_of_the_endpoint),
        TEST(what_is_not_counted_is_not_shown),
        TEST(free_records_are_not_shown),
        TEST(labels_are_escaped),
        TEST(longest_names_fit),
        TEST(totals_of_one_family_stand_together),
        TEST(pieces_of_any_size_make_the_same_text),
        TEST(parts_are_bounded),
        TEST(peers_that_go_meanwhile_are_left_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
