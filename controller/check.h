/* SPDX-License-Identifier: MIT */
/*
 * What a built-in monitor checks and when: its options, parsed from JSON. Pure; the checks
 * themselves are behind probe_ops.h, one table entry a type.
 * Types so far: "http" and "tcp". "grpc", "haproxy-agent-check" and "http-haproxy-agent-check"
 * are refused by name, as is any unknown one (the text lists the valid ones).
 *
 * Options, from Lua or curl: a number may come as a numeric string.
 *
 *     interval      seconds (5, 0.5) or an nginx time ("5m", "500ms"); 10 ms to 1 day; 5 s
 *     timeout       ms (500) or an nginx time; 1 ms to 1 hour; the smaller of interval and 5 s.
 *                   It may exceed the interval: checks that would overlap are then left out
 *     jitter        as interval, from 0 to 1 day: each check is late by a random part of it; 0
 *     port          1 to 65535: checked instead of the peer's own
 *     fall, rise    1 to 1000 checks in a row; 1
 *     peers         all, up, failing, down, temporary_down or permanent_down; all
 *   http
 *     url, uri      what is asked for, from "/" on; "/"
 *     ok_codes      "101 102 2xx 3xx"
 *     method, body, host, header_NAME ("_" in NAME stands for "-"; header_Host is host)
 *   tcp
 *     send, expect  bytes to send; bytes to find in the first CHECK_TCP_MAX bytes of the answer
 *
 * body, send and expect are the user's own to the last byte but for NUL; in all else that reaches
 * the wire control characters are refused, so that no option can smuggle in a header or a request.
 */
#ifndef DURPINAD_CHECK_H
#define DURPINAD_CHECK_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "failure.h"

#define CHECK_INTERVAL_DEFAULT_MS 5000
#define CHECK_INTERVAL_MIN_MS 10
#define CHECK_INTERVAL_MAX_MS (24 * 3600 * 1000)
#define CHECK_TIMEOUT_DEFAULT_MS 5000
#define CHECK_TIMEOUT_MIN_MS 1
#define CHECK_TIMEOUT_MAX_MS (3600 * 1000)
#define CHECK_COUNT_MAX 1000 /* fall, rise */
#define CHECK_URL_MAX 2048   /* bytes */
#define CHECK_METHOD_MAX 16
#define CHECK_HOST_MAX 255
#define CHECK_BODY_MAX (64 * 1024)
#define CHECK_HEADERS_MAX 32  /* header_NAME options */
#define CHECK_HEADER_MAX 4096 /* bytes of one of them */
#define CHECK_TCP_MAX 1024    /* bytes of send, of expect, and read of an answer */
#define CHECK_HTTP_CODE_MIN 100
#define CHECK_HTTP_CODE_MAX 599

enum check_type {
    CHECK_HTTP,
    CHECK_TCP,
    CHECK_TYPES,
};

struct check_http {
    char *url;
    char *method;
    char *body;     /* or NULL */
    char *host;     /* or NULL: the peer's name */
    char **headers; /* "Name: value", n_headers of them, without Host */
    size_t n_headers;
    uint32_t ok_codes[16]; /* bitmap, bit (code - CHECK_HTTP_CODE_MIN) */
};

struct check_tcp {
    char *send;   /* or NULL */
    char *expect; /* or NULL: a connection is enough */
};

struct check {
    enum check_type type;
    uint32_t interval_ms;
    uint32_t timeout_ms;
    uint32_t jitter_ms;
    uint32_t port; /* 0: the peer's own */
    uint32_t fall;
    uint32_t rise;
    char peers[16]; /* a get_peers selector */
    union {
        struct check_http http;
        struct check_tcp tcp;
    };
};

/*
 * options: a JSON object (borrowed) or NULL for none. 0; -EINVAL with MonitorBadOptions naming the
 * culprit; -ENOMEM. *ret is to be freed with check_free().
 */
int check_parse(const char *name, const json_t *options, struct check **ret,
                struct failure *failure);
void check_free(struct check *check);

/* Does this status of an answer pass? */
bool check_http_code_ok(const struct check_http *http, long code);

#endif
