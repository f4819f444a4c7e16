/* SPDX-License-Identifier: MIT */
/*
 * One server as somebody wrote it: nginx's `server` syntax (configuration, Lua strings) or the JSON
 * of the API. Pure.
 */
#ifndef DURPINAD_SERVER_LINE_H
#define DURPINAD_SERVER_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "addr.h"
#include "durpina_abi.h"
#include "failure.h"

/* Settings given in a spec. */
enum server_set {
    SERVER_SET_WEIGHT = 1 << 0,
    SERVER_SET_MAX_CONNS = 1 << 1,
    SERVER_SET_MAX_FAILS = 1 << 2,
    SERVER_SET_FAIL_TIMEOUT = 1 << 3,
    SERVER_SET_SLOW_START = 1 << 4,
    SERVER_SET_ADMIN = 1 << 5, /* down, drain, state */
    SERVER_SET_BACKUP = 1 << 6,
    SERVER_SET_NAME = 1 << 7,
};

struct server_settings {
    uint32_t weight;    /* 0..65535; 0 drains */
    uint32_t max_conns; /* 0: no limit */
    uint32_t max_fails; /* 0: failures are not counted */
    uint32_t fail_timeout_ms;
    uint32_t slow_start_ms;
    enum durpina_admin admin;
};

/* nginx's defaults: weight 1, max_fails 1, fail_timeout 10 s. */
extern const struct server_settings server_settings_default;

struct server_spec {
    char name[DURPINA_NAME_SIZE]; /* "host:port", "[IPv6]:port", "unix:/path" */
    char host[DURPINA_NAME_SIZE]; /* without port and brackets; "unix:/path" */
    uint16_t port;                /* 0 for unix */
    bool portless;                /* it was not written: port is the default one */
    bool backup;
    struct server_settings settings;
    unsigned set;           /* enum server_set */
    struct addr *addresses; /* known from the caller; else the name is looked up */
    size_t n_addresses;
};

/* Frees what the spec owns (addresses) and zeroes it. */
void server_spec_clear(struct server_spec *spec);

/* "host", "host:port", "[::1]:80", "unix:/path"; a missing port is default_port. Fills name, host
 * and port and sets SERVER_SET_NAME. -EINVAL with UpstreamBadAddress. */
int server_name_parse(const char *text, uint16_t default_port, struct server_spec *ret,
                      struct failure *failure);

/* "localhost:8080 weight=5 fail_timeout=10s backup"; also max_conns, max_fails, slow_start, down,
 * drain. An unknown or repeated word is an error. -EINVAL with the code of the culprit. */
int server_line_parse(const char *line, uint16_t default_port, struct server_spec *ret,
                      struct failure *failure);

/* nginx time ("10", "10s", "1m30s", "500ms") in ms; -EINVAL; -ERANGE above 2^31-1 ms. */
int time_parse_ms(const char *text, uint32_t *ret_ms);

#endif
