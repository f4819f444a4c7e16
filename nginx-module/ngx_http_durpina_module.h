/* SPDX-License-Identifier: MIT */
/*
 * The nginx module: maps durpinad's BPF maps into the workers and picks peers by them.
 *
 *     module.c      directives, life cycle          map.c      pins opened, checked, mapped
 *     intro.c       introduction to the controller  method.c   "durpina ALGORITHM", in words
 *     peer.c        one request: picks, finishes    native.c   that as a method of nginx
 *     lua.c         that around balancer_by_lua*    ffi.c      what Lua calls (..._ffi.h)
 *     inflight.c    tries in flight, noted          session.c  TLS sessions by peer
 *     keepalive*.c  idle connections by peer        kernel.c   what the kernel counts, too
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

/* durpina_keepalive; max 0: off */
typedef struct {
    ngx_uint_t max; /* idle connections of a peer and worker */
    ngx_uint_t requests;
    ngx_msec_t timeout;
    ngx_msec_t time;

    /* of the worker */
    ngx_queue_t idle;    /* connections, the newest first */
    ngx_queue_t queue;   /* of blocks with idle connections */
    uint32_t upstream;   /* by whose publications their peers are looked at ... */
    uint64_t word;       /* ... and were last ... */
    ngx_uint_t again;    /* ... and are to be once more */
} ngx_http_durpina_keepalive_conf_t;

/* What decides the peer, besides chance. */
typedef enum {
    NGX_HTTP_DURPINA_KEY_NONE = 0,
    NGX_HTTP_DURPINA_KEY_CLIENT = 1, /* the client's address */
    NGX_HTTP_DURPINA_KEY_TEXT = 2,
} ngx_http_durpina_key_e;

/* How to pick, as said in words (method.c). */
typedef struct {
    enum durpina_algorithm algorithm;
    ngx_http_durpina_key_e key;
    uint32_t bound; /* of durpina_request */
    uint32_t word; /* its number in method.c */
    uint32_t decided; /* bits: what its arguments have decided so far */
} ngx_http_durpina_method_t;

/* An upstream block. */
typedef struct {
    /* where it stands in the maps, as last looked up */
    uint32_t id; /* DURPINA_NONE: not there */
    uint32_t generation;
    uint64_t epoch; /* durpina_meta.epoch of the look-up; 0: none yet */

    ngx_http_durpina_method_t method; /* of the directive durpina ... */
    ngx_http_complex_value_t *key; /* ... and its KEY ... */
    ngx_int_t key_variable; /* ... or, without a script, the one variable that it is */
    ngx_uint_t named; /* it was there */
    ngx_uint_t native; /* and no other method came after it */

    ngx_http_upstream_init_peer_pt init_peer; /* that lua.c wraps, or NULL */
    ngx_uint_t direct; /* that is ngx_lua's own: nothing is in between */

    ngx_http_durpina_keepalive_conf_t keepalive;
} ngx_http_durpina_srv_conf_t;

/* What is said once a minute at most, by each worker. */
typedef enum {
    NGX_HTTP_DURPINA_SAY_NO_UPSTREAM,
    NGX_HTTP_DURPINA_SAY_NO_KEY,
    NGX_HTTP_DURPINA_SAY_NO_PAGE,
    NGX_HTTP_DURPINA_SAYINGS
} ngx_http_durpina_saying_e;

/* What a process of nginx knows besides its configuration; inherited by workers. */
typedef struct {
    struct durpina_maps maps; /* maps.meta is NULL until they are mapped */
    u_char token[NGX_HTTP_DURPINA_TOKEN_LEN + 1];
    uint64_t epoch; /* of the introduction */
    ngx_queue_t picks; /* that this worker has not finished */
    uint64_t random; /* of this worker: ngx_http_durpina_random() */
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

/* The directive durpina. */
char *ngx_http_durpina_directive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

/* Puts lua.c around the blocks that Lua balances; to be called when all of them are complete. */
void ngx_http_durpina_wrap_lua(ngx_conf_t *cf);

/* Whether Lua balances the block. */
ngx_uint_t ngx_http_durpina_is_lua(ngx_http_upstream_srv_conf_t *uscf);

/* The word of algorithm i, from 0; NULL: there are no more. */
const ngx_str_t *ngx_http_durpina_method_word(ngx_uint_t i);

#if (NGX_HTTP_SSL)
/*
 * Whether the request shows a certificate that depends on variables: no later one can be known to
 * show the same, so none may use its connection or its session.
 */
ngx_uint_t ngx_http_durpina_shows_its_own(ngx_http_upstream_t *u);
#endif

/*
 * An entry in which to note a try, FREE, or NULL if there is none; and one that is FREE again (or
 * NULL) back.
 */
struct durpina_try *ngx_http_durpina_inflight_get(void);
void ngx_http_durpina_inflight_put(struct durpina_try *entry);

/* Gives this worker's pages back. What it had in flight is finished. */
void ngx_http_durpina_inflight_release(void);

/* Finishes what this worker still has in flight: it is about to exit, or to lose the maps. */
void ngx_http_durpina_finish_all(void);

/* Whether it was not said in the last minute. */
ngx_uint_t ngx_http_durpina_may_say(ngx_http_durpina_saying_e what);

static ngx_inline uint64_t
ngx_http_durpina_random(void)
{
    ngx_http_durpina.random += 0x9e3779b97f4a7c15ULL; /* SplitMix64 */

    return durpina_mix(ngx_http_durpina.random);
}

#endif
