/* SPDX-License-Identifier: MIT */
/*
 * The nginx module: maps durpinad's BPF maps into the workers and picks peers by them.
 *
 *     module.c  directives, life cycle          map.c    pins opened, checked, mapped (master)
 *     intro.c   introduction to the controller  peer.c   one request: pick, retries, finish
 *     ffi.c     what Lua calls (ngx_http_durpina_ffi.h)
 *
 * Who holds what: the master, being root, opens the pins, maps them and closes the descriptors;
 * workers inherit mappings and nothing that could make the configuration writable. No process of
 * nginx ever does a bpf(2) call after that, and no request waits for the controller.
 */
#ifndef NGX_HTTP_DURPINA_MODULE_H
#define NGX_HTTP_DURPINA_MODULE_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "durpina_select.h"
#include "ngx_http_durpina_ffi.h"

#define NGX_HTTP_DURPINA_PIN "/sys/fs/bpf/durpina"
#define NGX_HTTP_DURPINA_SOCKET "/run/durpina/api.sock"

/*
 * How long the master waits for the controller at a start or reload. Laying out 100,000 peers takes
 * a second; the workers there are serve meanwhile.
 */
#define NGX_HTTP_DURPINA_TIMEOUT 5000 /* ms */

#define NGX_HTTP_DURPINA_TOKEN_LEN 32 /* hex digits */

typedef struct {
    ngx_str_t socket; /* both end in NUL */
    ngx_str_t pin;
} ngx_http_durpina_main_conf_t;

/* Where an upstream block stands in the maps, as last looked up. */
typedef struct {
    uint32_t id; /* DURPINA_NONE: not there */
    uint32_t generation;
    uint64_t epoch; /* durpina_meta.epoch of the look-up; 0: none yet */
} ngx_http_durpina_srv_conf_t;

/* What a process of nginx knows besides its configuration; inherited by workers. */
typedef struct {
    struct durpina_maps maps; /* maps.meta is NULL until they are mapped */
    u_char token[NGX_HTTP_DURPINA_TOKEN_LEN + 1];
    uint64_t epoch; /* of the introduction */
    ngx_queue_t picks; /* that this worker has not finished */
} ngx_http_durpina_state_t;

extern ngx_module_t ngx_http_durpina_module;
extern ngx_http_durpina_state_t ngx_http_durpina;

/*
 * Maps the pins below pin, unless they are what is mapped already. NGX_ERROR with a text of why and
 * what to do in err (size bytes); what was mapped stays.
 */
ngx_int_t ngx_http_durpina_map(ngx_str_t *pin, char *err, size_t size);

/*
 * Sends the upstream blocks to the controller and keeps the token that comes back. NGX_ERROR with a
 * text in err.
 */
ngx_int_t ngx_http_durpina_introduce(ngx_cycle_t *cycle, ngx_http_durpina_main_conf_t *dmcf,
                                     char *err, size_t size);

/* Whether the controller answers; NGX_ERROR with a text in err if not. */
ngx_int_t ngx_http_durpina_reach(ngx_http_durpina_main_conf_t *dmcf, char *err, size_t size);

/*
 * Sends request on the unix socket at path and reads the answer until the other side closes, all
 * within timeout_ms. *ret_len bytes are in response. Blocks: not for a worker that serves requests.
 */
ngx_int_t ngx_http_durpina_exchange(const char *path, const u_char *request, size_t len,
                                    u_char *response, size_t response_size, ngx_msec_t timeout_ms,
                                    size_t *ret_len, char *err, size_t size);

/* The block as the body of PUT .../nginx, allocated from pool. NGX_ERROR: no memory. */
ngx_int_t ngx_http_durpina_upstream_block(ngx_cycle_t *cycle, ngx_http_upstream_srv_conf_t *uscf,
                                          ngx_pool_t *pool, ngx_str_t *ret_json);

/* Finishes what this worker still has in flight: it is about to exit. */
void ngx_http_durpina_finish_all(void);

#endif
