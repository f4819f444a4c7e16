/* SPDX-License-Identifier: MIT */
#include "resolve_answer.h"

#include <ares.h>
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_SIZE 12
#define QUESTION_SIZE 4 /* behind the name: type and class */
#define RECORD_SIZE 10  /* behind the name: type, class, TTL and length of the data */
#define SRV_SIZE 6      /* before the target: priority, weight and port */
#define CLASS_IN 1

struct cursor {
    const uint8_t *message;
    size_t len, at;
    unsigned n_left; /* records */
};

struct record {
    unsigned type;
    uint32_t ttl_s;
    const uint8_t *data;
    size_t size;
};

static unsigned get_16(const uint8_t *from)
{
    return (unsigned) from[0] << 8 | from[1];
}

/* RFC 2181: one with the highest bit set is none. */
static uint32_t get_ttl(const uint8_t *from)
{
    uint32_t ttl_s = (uint32_t) get_16(from) << 16 | get_16(from + 2);

    return ttl_s <= INT32_MAX ? ttl_s : 0;
}

/* The name there, or NULL to step over it. *ret_name is to be freed with ares_free_string(). */
static int take_name(struct cursor *cursor, char **ret_name)
{
    char *name;
    long size;
    int status;

    if (cursor->at >= cursor->len)
        return -EBADMSG;
    status = ares_expand_name(cursor->message + cursor->at, cursor->message, (int) cursor->len,
                              &name, &size);
    if (status != ARES_SUCCESS)
        return status == ARES_ENOMEM ? -ENOMEM : -EBADMSG;
    cursor->at += (size_t) size;
    if (ret_name != NULL)
        *ret_name = name;
    else
        ares_free_string(name);
    return 0;
}

static int open_message(const uint8_t *message, size_t len, struct cursor *ret)
{
    struct cursor cursor = {.message = message, .len = len, .at = HEADER_SIZE};
    unsigned n_questions;
    int err = 0;

    if (len < HEADER_SIZE || len > INT_MAX)
        return -EBADMSG;
    n_questions = get_16(message + 4);
    cursor.n_left = get_16(message + 6);
    for (; n_questions > 0 && err == 0; n_questions--) {
        err = take_name(&cursor, NULL);
        cursor.at += QUESTION_SIZE;
    }
    if (err == 0)
        *ret = cursor;
    return err;
}

/* Whatever the header says, no more have room: a name takes a byte at least. */
static size_t max_records(const struct cursor *cursor)
{
    size_t room = cursor->len / (1 + RECORD_SIZE);

    return cursor->n_left < room ? cursor->n_left : room;
}

/* 1: there was one of our class; 0: no more; or -errno. */
static int next_record(struct cursor *cursor, struct record *ret)
{
    while (cursor->n_left > 0) {
        const uint8_t *head;
        int err = take_name(cursor, NULL);

        if (err < 0)
            return err;
        if (cursor->at > cursor->len || cursor->len - cursor->at < RECORD_SIZE)
            return -EBADMSG;
        head = cursor->message + cursor->at;
        *ret = (struct record){.type = get_16(head),
                               .ttl_s = get_ttl(head + 4),
                               .data = head + RECORD_SIZE,
                               .size = get_16(head + 8)};
        cursor->at += RECORD_SIZE;
        if (cursor->len - cursor->at < ret->size)
            return -EBADMSG;
        cursor->at += ret->size;
        cursor->n_left--;
        if (get_16(head + 2) == CLASS_IN)
            return 1;
    }
    return 0;
}

static bool take_address(const struct record *record, enum answer_type type, struct addr *ret)
{
    struct addr addr = {0};

    if (record->type != type ||
        record->size != (type == ANSWER_A ? sizeof(struct in_addr) : sizeof(struct in6_addr)))
        return false;
    if (type == ANSWER_A) {
        addr.len = sizeof(addr.in);
        addr.in.sin_family = AF_INET;
        memcpy(&addr.in.sin_addr, record->data, record->size);
    } else {
        addr.len = sizeof(addr.in6);
        addr.in6.sin6_family = AF_INET6;
        memcpy(&addr.in6.sin6_addr, record->data, record->size);
    }
    *ret = addr;
    return true;
}

int answer_addresses(const uint8_t *message, size_t len, enum answer_type type, struct addr **ret,
                     size_t *ret_n, uint32_t *ret_ttl_s)
{
    struct cursor cursor;
    struct record record;
    struct addr *addresses;
    uint32_t ttl_s = INT32_MAX;
    size_t n = 0;
    int err = open_message(message, len, &cursor);

    if (err < 0)
        return err;
    addresses = calloc(max_records(&cursor) + 1, sizeof(*addresses));
    if (addresses == NULL)
        return -ENOMEM;
    while ((err = next_record(&cursor, &record)) > 0) {
        bool is_address = take_address(&record, type, &addresses[n]);

        n += is_address;
        if ((is_address || record.type == ANSWER_CNAME) && record.ttl_s < ttl_s)
            ttl_s = record.ttl_s;
    }
    if (err == 0 && n == 0)
        err = -ENODATA;
    if (err < 0) {
        free(addresses);
        return err;
    }
    *ret = addresses;
    *ret_n = n;
    *ret_ttl_s = ttl_s;
    return 0;
}

/* c-ares writes dots and unprintable bytes in labels with '\': such a name is no host's. */
static bool is_host_name(const char *name)
{
    size_t len = strlen(name);

    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char) name[i]) && strchr("-._", name[i]) == NULL)
            return false;
    return len > 0 && len < DURPINA_NAME_SIZE && name[0] != '.';
}

/* 1: usable; 0: not; or -errno. */
static int take_service(const struct cursor *cursor, const struct record *record,
                        struct answer_srv *ret)
{
    struct cursor at_target = *cursor;
    struct answer_srv srv = {0};
    char *target;
    int err;

    if (record->size <= SRV_SIZE)
        return -EBADMSG;
    srv.priority = (uint16_t) get_16(record->data);
    srv.weight = (uint16_t) get_16(record->data + 2);
    srv.port = (uint16_t) get_16(record->data + 4);
    at_target.at = (size_t) (record->data - cursor->message) + SRV_SIZE;
    err = take_name(&at_target, &target);
    if (err < 0)
        return err;
    if (srv.port != 0 && is_host_name(target)) {
        for (size_t i = 0; target[i] != '\0'; i++)
            srv.target[i] = (char) tolower((unsigned char) target[i]);
        *ret = srv;
        err = 1;
    }
    ares_free_string(target);
    return err;
}

static int compare_services(const void *left, const void *right)
{
    const struct answer_srv *a = left, *b = right;
    int order = (a->priority > b->priority) - (a->priority < b->priority);

    if (order == 0)
        order = strcmp(a->target, b->target);
    if (order == 0)
        order = (a->port > b->port) - (a->port < b->port);
    return order != 0 ? order : (a->weight > b->weight) - (a->weight < b->weight);
}

int answer_services(const uint8_t *message, size_t len, struct answer_srv **ret, size_t *ret_n,
                    uint32_t *ret_ttl_s, size_t *ret_n_unusable)
{
    struct cursor cursor;
    struct record record;
    struct answer_srv *services;
    uint32_t ttl_s = INT32_MAX;
    size_t n = 0, n_unusable = 0;
    int err = open_message(message, len, &cursor);

    if (err < 0)
        return err;
    services = calloc(max_records(&cursor) + 1, sizeof(*services));
    if (services == NULL)
        return -ENOMEM;
    while ((err = next_record(&cursor, &record)) > 0) {
        if (record.type != ANSWER_SRV && record.type != ANSWER_CNAME)
            continue;
        if (record.ttl_s < ttl_s)
            ttl_s = record.ttl_s;
        if (record.type == ANSWER_CNAME)
            continue;
        err = take_service(&cursor, &record, &services[n]);
        if (err < 0)
            break;
        n += err == 1;
        n_unusable += err == 0;
    }
    if (err == 0 && n == 0) {
        err = -ENODATA;
        *ret_n_unusable = n_unusable;
    }
    if (err < 0) {
        free(services);
        return err;
    }
    qsort(services, n, sizeof(*services), compare_services);
    *ret = services;
    *ret_n = n;
    *ret_ttl_s = ttl_s;
    *ret_n_unusable = n_unusable;
    return 0;
}
