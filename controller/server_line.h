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
    SERVER_SET_SERVICE = 1 << 8,
    SERVER_SET_RESOLVE = 1 << 9,
};

struct server_settings {
    uint32_t weight;    /* 0..65535; 0 drains */
    uint32_t max_conns; /* 0: no limit */
    uint32_t max_fails; /* 0: failures are not counted */
    uint32_t fail_timeout_ms;
    uint32_t slow_start_ms;
    uint32_t admin; /* enum durpina_admin */
};

/* nginx's defaults: weight 1, max_fails 1, fail_timeout 10 s. */
extern const struct server_settings server_settings_default;

#define SERVER_SERVICE_SIZE 64

struct server_spec {
    char name[DURPINA_NAME_SIZE]; /* "host:port", "[IPv6]:port", "unix:/path", or the name that SRV
                                     records are under */
    char host[DURPINA_NAME_SIZE]; /* without port and brackets; "unix:/path" */
    uint16_t port;                /* 0 for unix and SRV records */
    bool portless;                /* it was not written: port is the default one */
    char service[SERVER_SERVICE_SIZE]; /* as it was written; "": no SRV records are asked for */
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

/*
 * Makes the spec, whose name has been parsed, one of the SRV records of a service of its host:
 * "http" is _http._tcp.HOST, one with dots stands before the host as it is. service may be
 * spec->service. -EINVAL, and the name is as it was: the host is none or has a port, or the service
 * is no such name.
 */
int server_set_service(struct server_spec *spec, const char *service, struct failure *failure);
/* Back from the name of such a server. service "": as good as any. -EINVAL: they do not match. */
int server_service_name_parse(const char *name, const char *service, struct server_spec *ret);

/* "localhost:8080 weight=5 fail_timeout=10s backup"; also max_conns, max_fails, slow_start, down,
 * drain, service, resolve. An unknown or repeated word is an error. -EINVAL with the code of the
 * culprit. */
int server_line_parse(const char *line, uint16_t default_port, struct server_spec *ret,
                      struct failure *failure);

/* nginx time ("10", "10s", "1m30s", "500ms") in ms; -EINVAL; -ERANGE above 2^31-1 ms. */
int time_parse_ms(const char *text, uint32_t *ret_ms);

#endif
