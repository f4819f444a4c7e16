/* SPDX-License-Identifier: MIT */
/* Name servers of a few lines (RFC 1035, RFC 2782) on a test's loop, and the zone it writes. */
#ifndef TESTS_NAME_SERVER_H
#define TESTS_NAME_SERVER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "addr.h"
#include "resolve_answer.h"

#include <cmocka.h>

#define RECORDS_MAX 8
#define ZONE_MAX 16

enum { RCODE_OK = 0, RCODE_FAILED = 2, RCODE_NO_NAME = 3, RCODE_SILENT = -1 };

/* What the servers say; an unknown name does not exist. */
struct record {
    const char *name;
    int rcode;    /* of all questions ... */
    int rcode_v6; /* ... or of AAAA, if it is not 0 */
    uint32_t ttl_s;
    const char *data[RECORDS_MAX]; /* "127.0.0.1", "::1", "PRIORITY WEIGHT PORT TARGET" */
    unsigned n_queries[2];         /* of all types but AAAA; of AAAA */
};

struct name_server {
    uv_udp_t udp;
    char name[32];       /* "127.0.0.1:PORT" */
    const char *address; /* answers every name with it, if not NULL */
    bool silent;
    unsigned n_queries;
    unsigned rotation; /* of the records of an answer */
    char buffer[512];
};

static struct record zone[ZONE_MAX];

static size_t put_16(uint8_t *p, unsigned value)
{
    p[0] = (uint8_t) (value >> 8);
    p[1] = (uint8_t) value;
    return 2;
}

static size_t put_name(uint8_t *p, const char *name)
{
    uint8_t *at = p;

    while (*name != '\0') {
        size_t len = strcspn(name, ".");

        *at++ = (uint8_t) len;
        memcpy(at, name, len);
        at += len;
        name += len + (name[len] == '.');
    }
    *at++ = 0;
    return (size_t) (at - p);
}

/* Data behind its length; 0: not of this type. */
static size_t put_data(uint8_t *p, const char *text, unsigned type)
{
    unsigned priority, weight, port;
    char target[128];

    if (type == ANSWER_A && inet_pton(AF_INET, text, p + 2) == 1)
        return put_16(p, 4) + 4;
    if (type == ANSWER_AAAA && inet_pton(AF_INET6, text, p + 2) == 1)
        return put_16(p, 16) + 16;
    if (type == ANSWER_SRV &&
        sscanf(text, "%u %u %u %127s", &priority, &weight, &port, target) == 4) {
        size_t n = 8 + put_name(p + 8, strcmp(target, ".") == 0 ? "" : target);

        put_16(p, (unsigned) n - 2);
        put_16(p + 2, priority);
        put_16(p + 4, weight);
        put_16(p + 6, port);
        return n;
    }
    return 0;
}

static size_t put_record(uint8_t *p, const char *text, unsigned type, uint32_t ttl_s)
{
    size_t n = 0, size;

    n += put_16(p + n, 0xc00c);
    n += put_16(p + n, type);
    n += put_16(p + n, 1);
    n += put_16(p + n, ttl_s >> 16);
    n += put_16(p + n, ttl_s & 0xffff);
    size = put_data(p + n, text, type);
    return size == 0 ? 0 : n + size;
}

/* The end of the question that begins at query + 12; its name, dotted, in ret_name. */
static size_t get_question(const uint8_t *query, char *ret_name)
{
    const uint8_t *p = query + 12;

    while (*p != 0) {
        memcpy(ret_name, p + 1, *p);
        ret_name += *p;
        p += *p + 1;
        *ret_name++ = *p != 0 ? '.' : '\0';
    }
    return (size_t) (p + 5 - query);
}

static size_t build_answer(struct name_server *server, uint8_t *reply, size_t n, unsigned type,
                           const struct record *record, int rcode)
{
    unsigned n_answers = 0;

    for (unsigned i = 0; i < RECORDS_MAX && rcode == RCODE_OK; i++) {
        const char *text = record->data[(i + server->rotation) % RECORDS_MAX];
        size_t length = text != NULL ? put_record(reply + n, text, type, record->ttl_s) : 0;

        n += length;
        n_answers += length > 0;
    }
    server->rotation++;
    reply[2] |= 0x80;
    reply[3] = (uint8_t) rcode;
    reply[7] = (uint8_t) n_answers;
    reply[11] = 0; /* no EDNS */
    return n;
}

static struct record *find_record(const char *name)
{
    for (size_t i = 0; i < ZONE_MAX; i++)
        if (zone[i].name != NULL && strcmp(zone[i].name, name) == 0)
            return &zone[i];
    return NULL;
}

static void on_query(uv_udp_t *udp, ssize_t n, const uv_buf_t *buffer, const struct sockaddr *from,
                     unsigned flags)
{
    struct name_server *server = udp->data;
    struct record fixed = {.ttl_s = 60, .data = {server->address}};
    struct record none = {.rcode = RCODE_NO_NAME}, *record;
    uint8_t reply[1024];
    char name[256] = "";
    unsigned type;
    size_t length;
    uv_buf_t out;
    int rcode;

    (void) flags;
    if (n <= 0)
        return;
    server->n_queries++;
    length = get_question((const uint8_t *) buffer->base, name);
    type = (uint8_t) buffer->base[length - 3];
    record = server->address != NULL ? &fixed : find_record(name);
    if (record == NULL)
        record = &none;
    record->n_queries[type == ANSWER_AAAA]++;
    rcode = type == ANSWER_AAAA && record->rcode_v6 != 0 ? record->rcode_v6 : record->rcode;
    if (server->silent || rcode == RCODE_SILENT)
        return;
    memcpy(reply, buffer->base, length);
    length = build_answer(server, reply, length, type, record, rcode);
    out = uv_buf_init((char *) reply, (unsigned) length);
    uv_udp_try_send(udp, &out, 1, from);
}

static void get_buffer(uv_handle_t *handle, size_t size, uv_buf_t *ret)
{
    struct name_server *server = handle->data;

    (void) size;
    *ret = uv_buf_init(server->buffer, sizeof(server->buffer));
}

static inline void name_server_open(uv_loop_t *loop, struct name_server *server)
{
    struct addr addr;
    int length = sizeof(addr.un);

    assert_int_equal(addr_parse("127.0.0.1:1", 0, &addr), 0);
    addr_set_port(&addr, 0);
    uv_udp_init(loop, &server->udp);
    server->udp.data = server;
    assert_int_equal(uv_udp_bind(&server->udp, &addr.sa, 0), 0);
    assert_int_equal(uv_udp_getsockname(&server->udp, &addr.sa, &length), 0);
    addr_format(&addr, server->name, sizeof(server->name));
    uv_udp_recv_start(&server->udp, get_buffer, on_query);
}

/* Puts the record in place of that of the same name. */
static inline struct record *put(struct record record)
{
    struct record *at = find_record(record.name);

    for (size_t i = 0; at == NULL && i < ZONE_MAX; i++)
        if (zone[i].name == NULL)
            at = &zone[i];
    assert_non_null(at);
    *at = record;
    return at;
}

#endif
