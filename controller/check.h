/* SPDX-License-Identifier: MIT */
/*
 * What a built-in monitor checks and when: its options, parsed from JSON. Pure; the checks
 * themselves are behind probe_ops.h, one table entry a type.
 * An unknown type or option is refused by a text that lists the valid ones.
 *
 * Options, from Lua or curl: a number may come as a numeric string, true and false as strings.
 *
 *     interval      seconds (5, 0.5) or an nginx time ("5m", "500ms"); 10 ms to 1 day; 5 s
 *     fastinter     as interval: in force while results contradict the verdict; interval
 *     downinter     as interval: in force while the verdict is "failed"; interval
 *     timeout       ms (500) or an nginx time; 1 ms to 1 hour; the smaller of interval and 5 s.
 *                   It may exceed the interval: checks that would overlap are then left out
 *     jitter        as interval, from 0 to 1 day: each check is late by a random part of it; 0
 *     port          1 to 65535: checked instead of the peer's own
 *     fall, rise    1 to 1000 checks in a row; 1
 *     peers         all, up, failing, down, temporary_down or permanent_down; all
 *     mandatory     true: no traffic before the first pass; false
 *     persistent    true, with mandatory only: what was found before a reboot holds; false
 *   http
 *     url, uri      what is asked for, from "/" on; "/"
 *     ok_codes      "101 102 2xx 3xx"
 *     method, body, host, header_NAME ("_" in NAME stands for "-"; header_Host is host)
 *     http_version  "1.1" or "2"; "1.1"
 *     match_body    a regular expression (body_match.h) for the body's first 256 KiB
 *     tls           true: with sni, tls_verify (true), tls_ca, tls_cert, tls_key: paths of files
 *   http-haproxy-agent-check
 *     as http, without match_body; ok_codes 200
 *   grpc
 *     grpc_service, grpc_status (0), host, tls and the rest of it as http
 *   tcp
 *     send, expect  bytes to send; bytes to find in the first CHECK_TCP_MAX bytes of the answer
 *   haproxy-agent-check
 *     send          bytes to send
 *
 * body, send and expect are the user's own to the last byte but for NUL; in all else that reaches
 * the wire control characters are refused, so that no option can smuggle in a header or a request.
 */
#ifndef DURPINAD_CHECK_H
#define DURPINAD_CHECK_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "durpina_abi.h"
#include "failure.h"

#define CHECK_ID_SIZE 64   /* of a monitor's id, its NUL included */
#define CHECK_NAME_SIZE 64 /* of its name, likewise */
#define CHECK_INTERVAL_DEFAULT_MS 5000
#define CHECK_AGENT_INTERVAL_DEFAULT_MS 2000 /* as in HAProxy */
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
#define CHECK_PATH_MAX 1024   /* bytes of tls_ca, tls_cert, tls_key */
#define CHECK_GRPC_STATUS_MAX 16
#define CHECK_HTTP_CODE_MIN 100
#define CHECK_HTTP_CODE_MAX 599

enum check_type {
    CHECK_HTTP,
    CHECK_TCP,
    CHECK_GRPC,
    CHECK_AGENT,
    CHECK_HTTP_AGENT,
    CHECK_LUA,
    CHECK_TYPES,
};

struct check_tls {
    bool on;
    bool verify;           /* the peer's certificate */
    char *sni;             /* or NULL: the host option, else the peer's name */
    char *ca, *cert, *key; /* paths of PEM files, or NULL */
};

/* Of all checks that make an HTTP request. */
struct check_http {
    char *url;
    char *method;
    char *body;     /* or NULL */
    char *host;     /* or NULL: the peer's name */
    char **headers; /* "Name: value", n_headers of them, without Host */
    size_t n_headers;
    uint32_t ok_codes[16]; /* bitmap, bit (code - CHECK_HTTP_CODE_MIN) */
    bool http2;
    struct check_tls tls;
    char *match_body;         /* or NULL */
    struct body_match *match; /* the same, compiled */
    char *grpc_service;       /* of grpc: or NULL for the server as a whole */
    uint32_t grpc_status;     /* of grpc */
};

struct check_tcp {
    char *send;   /* or NULL */
    char *expect; /* or NULL: a connection is enough */
};

struct check_agent {
    char *send; /* or NULL */
};

/* Written in Lua: whose it is. Its options are in check->specific. */
struct check_lua {
    char upstream[DURPINA_NAME_SIZE];
    char id[CHECK_ID_SIZE]; /* of the monitor */
};

struct check {
    unsigned refs;
    enum check_type type;
    json_t *specific; /* the options that are not common to all types, as given */
    uint32_t interval_ms;
    uint32_t fastinter_ms;
    uint32_t downinter_ms;
    uint32_t timeout_ms;
    uint32_t jitter_ms;
    uint32_t port; /* 0: the peer's own */
    uint32_t fall;
    uint32_t rise;
    bool mandatory;
    bool persistent;
    char peers[16]; /* a get_peers selector */
    union {
        struct check_http http;
        struct check_tcp tcp;
        struct check_agent agent;
        struct check_lua lua;
    };
};

/*
 * options: a JSON object (borrowed) or NULL for none. 0; -EINVAL with MonitorBadOptions naming the
 * culprit; -ENOMEM. *ret is to be freed with check_free().
 */
int check_parse(const char *name, const json_t *options, struct check **ret,
                struct failure *failure);
/*
 * The same for a monitor that is written in Lua, of any name: options that are not the common ones
 * are its own.
 */
int check_parse_lua(const char *name, const char *upstream, const char *id, const json_t *options,
                    struct check **ret, struct failure *failure);

/* One more reference to it. */
struct check *check_ref(struct check *check);
/* Gives a reference back; the last one frees it. NULL is fine. */
void check_free(struct check *check);

/*
 * Are they the same in all that a check does? What only its owner goes by (peers, mandatory,
 * persistent) and the port, which is part of the address then, may differ.
 */
bool check_is_same(const struct check *a, const struct check *b);

/* Does what the backend sees depend on the peer's name? */
bool check_sends_host(const struct check *check);

/* The shortest of interval, fastinter and downinter, in ms. */
uint32_t check_least_interval_ms(const struct check *check);

/* How many bytes of "host", "host:port", "[::1]" or "[::1]:port" are the host. */
size_t check_host_length(const char *text);

/*
 * The name or address that the certificate of a peer ("host:port") has to be for, and that is sent
 * as SNI if it is a name: sni, else host, else the peer's. False if that is no name of a server.
 */
bool check_tls_name(const struct check_http *http, const char *peer, char *buffer, size_t size);

/* Does this status of an answer pass? */
bool check_http_code_ok(const struct check_http *http, long code);

#endif
