/* SPDX-License-Identifier: MIT */
#include "metrics.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"

/* A peer as it is when its turn comes. */
struct subject {
    const struct durpina_peer *peer;
    const struct durpina_counters *counters;
    const struct durpina_endpoint *endpoint; /* NULL: the kernel does not count it */
    struct durpina_peer_settings settings;
    struct kernel_verdict verdict;
    uint64_t now_ms;
};

/* Of the series whose label has words[i]. False: there is no such value. */
typedef bool value_of(const struct subject *s, size_t i, double *ret);

struct family {
    const char *name;
    const char *type;
    const char *help;
    value_of *value;
    const char *label;        /* besides those of the peer, or NULL */
    const char *const *words; /* its values, up to a NULL */
};

struct listed {
    uint32_t id;
    uint32_t generation;
};

struct metrics {
    struct metrics_source source;
    struct listed *peers;
    size_t n_peers;
    char *head; /* the totals */
    size_t head_len;
    size_t family; /* the next to write */
    size_t peer;   /* likewise, of this family */
    char part[METRICS_PART];
    size_t part_len;
    size_t part_at; /* what has been read of it, or of head */
};

/* --- values ----------------------------------------------------------------------------------- */

#define NUMBER(name, from, field)                                                                  \
    static bool name(const struct subject *s, size_t i, double *ret)                               \
    {                                                                                              \
        (void) i;                                                                                  \
        if (s->from == NULL)                                                                       \
            return false;                                                                          \
        *ret = (double) DURPINA_LOAD(&s->from->field);                                             \
        return true;                                                                               \
    }

static bool seconds(const struct durpina_ewma *mean, double *ret)
{
    struct durpina_ewma e = durpina_read_ewma(mean);

    *ret = e.mean / (DURPINA_EWMA_US * 1e6);
    return e.samples != 0;
}

#define SECONDS(name, from, field)                                                                 \
    static bool name(const struct subject *s, size_t i, double *ret)                               \
    {                                                                                              \
        (void) i;                                                                                  \
        return s->from != NULL && seconds(&s->from->field, ret);                                   \
    }

#define VERDICT(name, field)                                                                       \
    static bool name(const struct subject *s, size_t i, double *ret)                               \
    {                                                                                              \
        (void) i;                                                                                  \
        *ret = s->verdict.field;                                                                   \
        return s->endpoint != NULL;                                                                \
    }

NUMBER(active, counters, active)
NUMBER(failed, counters, failed)
NUMBER(unavail, counters, unavail)
NUMBER(responses, counters, responses[i])
NUMBER(unanswered, counters, unanswered)
NUMBER(sent, counters, sent)
NUMBER(received, counters, received)
SECONDS(header, counters, header)
SECONDS(last_byte, counters, last_byte)
SECONDS(connect_time, counters, connect)
NUMBER(kernel_connecting, endpoint, connecting)
NUMBER(kernel_open, endpoint, open)
NUMBER(kernel_tried, endpoint, tried)
NUMBER(kernel_established, endpoint, established)
NUMBER(kernel_abandoned, endpoint, abandoned)
NUMBER(kernel_resets, endpoint, resets)
NUMBER(kernel_retransmits, endpoint, retransmits)
NUMBER(kernel_segments, endpoint, segments)
NUMBER(kernel_sent, endpoint, sent)
NUMBER(kernel_received, endpoint, received)
SECONDS(kernel_handshake, endpoint, handshake)
SECONDS(kernel_rtt, endpoint, rtt)
VERDICT(kernel_rate, retransmit_rate)
VERDICT(kernel_slow, slow)
VERDICT(kernel_lossy, lossy)
VERDICT(kernel_drift, drift)

static bool kernel_min_rtt(const struct subject *s, size_t i, double *ret)
{
    uint32_t min_rtt = s->endpoint != NULL ? DURPINA_LOAD(&s->endpoint->min_rtt) : 0;

    (void) i;
    *ret = min_rtt / (DURPINA_EWMA_US * 1e6);
    return min_rtt != 0;
}

static const char *const failure_words[] = {"refused", "timed_out", "unreachable", NULL};

static bool kernel_failed(const struct subject *s, size_t i, double *ret)
{
    if (s->endpoint == NULL)
        return false;

    const uint64_t *counts[] = {&s->endpoint->refused, &s->endpoint->timed_out,
                                &s->endpoint->unreachable};

    *ret = (double) DURPINA_LOAD(counts[i]);
    return true;
}

static bool requests(const struct subject *s, size_t i, double *ret)
{
    (void) i;
    *ret = (double) (durpina_requests(s->counters) + DURPINA_LOAD(&s->counters->active));
    return true;
}

static bool weight(const struct subject *s, size_t i, double *ret)
{
    (void) i;
    *ret = s->settings.weight;
    return true;
}

static bool max_conns(const struct subject *s, size_t i, double *ret)
{
    (void) i;
    *ret = s->settings.max_conns;
    return true;
}

/* The words of the API. */
enum state_word { UP, UNAVAIL, CHECKING, UNHEALTHY, DRAINING, DOWN };
static const char *const state_words[] = {"up",       "unavail", "checking", "unhealthy",
                                          "draining", "down",    NULL};

static bool state(const struct subject *s, size_t i, double *ret)
{
    static const enum state_word words[] = {
        [DURPINA_PEER_FREE] = DOWN,          [DURPINA_PEER_UP] = UP,
        [DURPINA_PEER_DOWN] = DOWN,          [DURPINA_PEER_UNHEALTHY] = UNHEALTHY,
        [DURPINA_PEER_DRAINING] = DRAINING,  [DURPINA_PEER_CHECKING] = CHECKING,
        [DURPINA_PEER_UNRESOLVED] = UNAVAIL,
    };
    enum state_word word =
        s->settings.state < sizeof(words) / sizeof(words[0]) ? words[s->settings.state] : DOWN;

    if (word == UP && durpina_is_temp_down(s->counters, s->now_ms))
        word = UNAVAIL;
    *ret = word == i;
    return true;
}

static const char *const class_words[] = {"1xx", "2xx", "3xx", "4xx", "5xx", NULL};

#define PEER "durpina_peer_"
#define KERNEL "durpina_peer_kernel_"
#define COUNTER "counter"
#define GAUGE "gauge"
#define PLAIN NULL, NULL

static const struct family families[] = {
    {PEER "state", GAUGE, "1 in the state that the peer is in.", state, "state", state_words},
    {PEER "weight", GAUGE, "Weight in force.", weight, PLAIN},
    {PEER "max_conns", GAUGE, "Requests in flight at most; 0: no limit.", max_conns, PLAIN},
    {PEER "active", GAUGE, "Requests in flight.", active, PLAIN},
    {PEER "requests_total", COUNTER, "Requests sent to the peer.", requests, PLAIN},
    {PEER "responses_total", COUNTER, "Responses by class of their status.", responses, "code",
     class_words},
    {PEER "unanswered_total", COUNTER, "Requests that ended without a response.", unanswered,
     PLAIN},
    {PEER "fails_total", COUNTER, "Requests that failed.", failed, PLAIN},
    {PEER "unavail_total", COUNTER, "Times it became unavailable by failures.", unavail, PLAIN},
    {PEER "sent_bytes_total", COUNTER, "Bytes sent by nginx.", sent, PLAIN},
    {PEER "received_bytes_total", COUNTER, "Bytes received by nginx.", received, PLAIN},
    {PEER "header_seconds", GAUGE, "Mean time to the response header.", header, PLAIN},
    {PEER "response_seconds", GAUGE, "Mean time to the end of the response.", last_byte, PLAIN},
    {PEER "connect_seconds", GAUGE, "Mean time to connect, as nginx sees it.", connect_time, PLAIN},
    {KERNEL "connecting", GAUGE, "Connections of any process that wait for an answer.",
     kernel_connecting, PLAIN},
    {KERNEL "open", GAUGE, "Open connections of any process.", kernel_open, PLAIN},
    {KERNEL "tried_total", COUNTER, "Connections tried by any process.", kernel_tried, PLAIN},
    {KERNEL "established_total", COUNTER, "Those that succeeded.", kernel_established, PLAIN},
    {KERNEL "failed_total", COUNTER, "Those that failed.", kernel_failed, "reason", failure_words},
    {KERNEL "abandoned_total", COUNTER, "Those that the process gave up.", kernel_abandoned, PLAIN},
    {KERNEL "resets_total", COUNTER, "Open connections that the peer has reset.", kernel_resets,
     PLAIN},
    {KERNEL "retransmits_total", COUNTER, "Segments sent again.", kernel_retransmits, PLAIN},
    {KERNEL "segments_total", COUNTER, "Segments sent.", kernel_segments, PLAIN},
    {KERNEL "sent_bytes_total", COUNTER, "Bytes that the peer has acknowledged.", kernel_sent,
     PLAIN},
    {KERNEL "received_bytes_total", COUNTER, "Bytes received.", kernel_received, PLAIN},
    {KERNEL "handshake_seconds", GAUGE, "Mean time to connect.", kernel_handshake, PLAIN},
    {KERNEL "srtt_seconds", GAUGE, "Mean of the smoothed round trip times.", kernel_rtt, PLAIN},
    {KERNEL "min_rtt_seconds", GAUGE, "Least round trip time.", kernel_min_rtt, PLAIN},
    {KERNEL "retransmit_ratio", GAUGE, "Segments sent again over those sent, in the last seconds.",
     kernel_rate, PLAIN},
    {KERNEL "slow", GAUGE, "1 if its round trips are much longer than those of other peers.",
     kernel_slow, PLAIN},
    {KERNEL "lossy", GAUGE, "1 if much of what is sent to it is sent again.", kernel_lossy, PLAIN},
    {KERNEL "drift", GAUGE, "Requests in flight that no connection carries.", kernel_drift, PLAIN},
};
#define N_FAMILIES (sizeof(families) / sizeof(families[0]))

/* --- text ------------------------------------------------------------------------------------- */

/* The bytes of the UTF-8 character that text begins with; 0: there is none. */
static size_t character(const char *text, size_t len)
{
    const unsigned char *t = (const unsigned char *) text;
    size_t n = t[0] < 0x80                    ? 1
               : t[0] >= 0xc2 && t[0] <= 0xdf ? 2
               : (t[0] & 0xf0) == 0xe0        ? 3
               : t[0] >= 0xf0 && t[0] <= 0xf4 ? 4
                                              : 0;

    if (n > len)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((t[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

/* A label's value; what is no UTF-8 becomes '?'. text: up to size bytes or a NUL. Returns the
 * bytes written: twice the size at most. */
static size_t escape(char *to, const char *text, size_t size)
{
    size_t len = strnlen(text, size), at = 0;

    for (size_t i = 0; i < len;) {
        size_t n = character(text + i, len - i);

        if (text[i] == '\\' || text[i] == '"' || text[i] == '\n') {
            to[at++] = '\\';
            to[at++] = text[i] == '\n' ? 'n' : text[i];
        } else if (n == 0) {
            to[at++] = '?';
        } else {
            memcpy(to + at, text + i, n);
            at += n;
        }
        i += n > 0 ? n : 1;
    }
    return at;
}

/* Counts are whole numbers; a double holds them up to 2^53. */
static size_t write_number(char *to, size_t size, double value)
{
    bool is_whole = value < 9007199254740992.0 && value == (double) (uint64_t) value;

    return (size_t) snprintf(to, size, is_whole ? "%.0f\n" : "%.9g\n", value);
}

static size_t write_header(char *to, const char *name, const char *type, const char *help)
{
    return (size_t) snprintf(to, METRICS_LINE_MAX, "# HELP %s %s\n# TYPE %s %s\n", name, help, name,
                             type);
}

/* --- totals ----------------------------------------------------------------------------------- */

static size_t write_total(char *to, const struct metrics_total *total)
{
    size_t at = (size_t) sprintf(to, "%s", total->name);

    if (total->label != NULL) {
        at += (size_t) sprintf(to + at, "{%s=\"", total->label);
        at += escape(to + at, total->word, DURPINA_NAME_SIZE);
        at += (size_t) sprintf(to + at, "\"}");
    }
    to[at++] = ' ';
    return at + write_number(to + at, METRICS_LINE_MAX - at, total->value);
}

static size_t write_totals(char *to, const struct metrics_total *totals, size_t n)
{
    size_t at = 0;

    for (size_t i = 0; i < n; i++) {
        if (i == 0 || strcmp(totals[i].name, totals[i - 1].name) != 0)
            at += write_header(to + at, totals[i].name, totals[i].type, totals[i].help);
        at += write_total(to + at, &totals[i]);
    }
    return at;
}

/* --- peers ------------------------------------------------------------------------------------ */

static bool is_free(const struct durpina_peer *peer)
{
    return DURPINA_LOAD(&peer->settings[0].state) == DURPINA_PEER_FREE;
}

static int list_peers(struct metrics *m)
{
    const struct durpina_maps *maps = &m->source.maps;

    m->peers = malloc((maps->n_peers + 1) * sizeof(*m->peers));
    if (m->peers == NULL)
        return -ENOMEM;
    for (uint32_t id = 0; id < maps->n_peers; id++)
        if (!is_free(&maps->peers[id]))
            m->peers[m->n_peers++] = (struct listed){id, DURPINA_LOAD(&maps->peers[id].generation)};
    return 0;
}

/* False: the peer has gone. */
static bool look_up(const struct metrics *m, const struct listed *listed, struct subject *ret)
{
    const struct durpina_maps *maps = &m->source.maps;
    const struct durpina_peer *peer = &maps->peers[listed->id];

    if (is_free(peer) || DURPINA_LOAD(&peer->generation) != listed->generation ||
        DURPINA_LOAD(&peer->upstream) >= maps->n_upstreams)
        return false;
    *ret = (struct subject){.peer = peer,
                            .counters = &maps->counters[listed->id],
                            .settings = durpina_read_settings(maps, listed->id),
                            .now_ms = clock_monotonic_ms()};
    if (DURPINA_LOAD(&maps->meta->observing) != 0)
        ret->endpoint = durpina_endpoint_at(maps, DURPINA_LOAD(&peer->endpoint));
    if (ret->endpoint != NULL && m->source.health != NULL)
        ret->verdict = kernel_health_verdict(m->source.health, listed->id);
    return true;
}

/* {upstream="foo",peer="host:80",address="10.0.0.1:80"; the end is left open. */
static size_t write_labels(char *to, const struct metrics *m, const struct subject *s)
{
    const char *upstream = m->source.maps.upstreams[s->peer->upstream].name;
    size_t at = (size_t) sprintf(to, "{upstream=\"");

    at += escape(to + at, upstream, DURPINA_NAME_SIZE);
    at += (size_t) sprintf(to + at, "\",peer=\"");
    at += escape(to + at, s->peer->name, DURPINA_NAME_SIZE);
    at += (size_t) sprintf(to + at, "\",address=\"");
    at += escape(to + at, s->peer->address, DURPINA_ADDRESS_SIZE);
    to[at++] = '"';
    return at;
}

/* The series of one peer; METRICS_LINE_MAX each. */
static size_t write_peer(char *to, const struct metrics *m, const struct family *family,
                         const struct listed *listed)
{
    char labels[METRICS_LINE_MAX];
    struct subject s;
    size_t at = 0, labels_len, i = 0;
    double value;

    if (!look_up(m, listed, &s))
        return 0;
    labels_len = write_labels(labels, m, &s);
    do {
        if (!family->value(&s, i, &value))
            continue;
        at += (size_t) sprintf(to + at, "%s%.*s", family->name, (int) labels_len, labels);
        if (family->label != NULL)
            at += (size_t) sprintf(to + at, ",%s=\"%s\"", family->label, family->words[i]);
        at += (size_t) sprintf(to + at, "} ");
        at += write_number(to + at, 32, value);
    } while (family->label != NULL && family->words[++i] != NULL);
    return at;
}

/* The most series of one peer in a family, and the header of the next one. */
#define ROOM ((sizeof(state_words) / sizeof(state_words[0]) + 1) * METRICS_LINE_MAX)

static void write_part(struct metrics *m)
{
    unsigned looks = 0;

    m->part_len = 0;
    while (m->family < N_FAMILIES && METRICS_PART - m->part_len >= ROOM &&
           looks++ < METRICS_LOOKS) {
        const struct family *family = &families[m->family];

        if (m->peer == 0)
            m->part_len +=
                write_header(m->part + m->part_len, family->name, family->type, family->help);
        if (m->peer < m->n_peers)
            m->part_len += write_peer(m->part + m->part_len, m, family, &m->peers[m->peer++]);
        if (m->peer >= m->n_peers) {
            m->peer = 0;
            m->family++;
        }
    }
    /* Nothing would be the end; an empty line is ignored. */
    if (m->part_len == 0 && m->family < N_FAMILIES)
        m->part[m->part_len++] = '\n';
}

/* --- public ----------------------------------------------------------------------------------- */

int metrics_create(const struct metrics_source *source, const struct metrics_total *totals,
                   size_t n_totals, struct metrics **ret)
{
    struct metrics *m = calloc(1, sizeof(*m));

    if (m == NULL)
        return -ENOMEM;
    m->source = *source;
    m->head = malloc((2 * n_totals + 1) * METRICS_LINE_MAX);
    if (m->head == NULL || list_peers(m) < 0) {
        metrics_destroy(m);
        return -ENOMEM;
    }
    m->head_len = write_totals(m->head, totals, n_totals);
    *ret = m;
    return 0;
}

size_t metrics_read(struct metrics *m, char *buffer, size_t size)
{
    const char *from = m->head != NULL ? m->head : m->part;
    size_t *len = m->head != NULL ? &m->head_len : &m->part_len;
    size_t n;

    if (m->part_at == *len) {
        free(m->head);
        m->head = NULL;
        write_part(m);
        m->part_at = 0;
        from = m->part;
        len = &m->part_len;
    }
    n = *len - m->part_at < size ? *len - m->part_at : size;
    memcpy(buffer, from + m->part_at, n);
    m->part_at += n;
    return n;
}

void metrics_destroy(struct metrics *m)
{
    if (m == NULL)
        return;
    free(m->head);
    free(m->peers);
    free(m);
}
