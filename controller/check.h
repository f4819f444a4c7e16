/* SPDX-License-Identifier: MIT */
/*
 * What a built-in monitor checks and when: its options, parsed from JSON. Pure.
 * Types so far: "http" and "tcp". "grpc", "haproxy-agent-check" and "http-haproxy-agent-check"
 * are refused by name, as is any unknown one (the text lists the valid ones).
 */
#ifndef DURPINAD_CHECK_H
#define DURPINAD_CHECK_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "failure.h"

struct check_ops;

struct check {
    const struct check_ops *ops; /* by type */
    uint32_t interval_ms;        /* default 5000 */
    uint32_t timeout_ms;         /* default min(interval, 5000) */
    uint32_t jitter_ms;          /* default 0 */
    uint16_t port;               /* 0: the peer's own */
    uint32_t fall;               /* default 1 */
    uint32_t rise;               /* default 1 */
    char peers[16];              /* a get_peers selector, default "all" */
    union {
        struct {
            char *url;     /* default "/" */
            char *method;  /* default "GET" */
            char *body;    /* or NULL */
            char *host;    /* or NULL: the peer's name */
            char **headers; /* "Name: value", NULL terminated; from header_NAME */
            uint32_t ok_codes[16]; /* bitmap over 100..599, bit (code - 100) */
        } http;
        struct {
            char *send;   /* or NULL */
            char *expect; /* or NULL: a connection is enough */
        } tcp;
    };
};

/* 0, or -EINVAL with MonitorBadOptions naming the option. *ret is to be freed with check_free(). */
int check_parse(const char *name, const json_t *options, struct check **ret,
                struct failure *failure);
void check_free(struct check *check);

#endif
