/* SPDX-License-Identifier: MIT */
/*
 * Idle connections, kept for each peer and found by its id: the cost of a request is the same with
 * three peers and with 100,000.
 *
 *     upstream x { server ...; durpina round-robin; durpina_keepalive 32; }
 *
 *     get()   inside peer.get, after the pick
 *     put()   inside peer.free
 *
 * Everything here belongs to one worker.
 */
#ifndef NGX_HTTP_DURPINA_KEEPALIVE_H
#define NGX_HTTP_DURPINA_KEEPALIVE_H

#include "ngx_http_durpina_module.h"

#define NGX_HTTP_DURPINA_KEEPALIVE_TIMEOUT 60000 /* ms */
#define NGX_HTTP_DURPINA_KEEPALIVE_REQUESTS 1000
#define NGX_HTTP_DURPINA_KEEPALIVE_TIME 3600000 /* ms */

/* The directive durpina_keepalive. */
char *ngx_http_durpina_keepalive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

/*
 * Whether it stands where it has an effect; to be called when all blocks are complete and before
 * ngx_http_durpina_wrap_lua(). NGX_ERROR: no, logged.
 */
ngx_int_t ngx_http_durpina_keepalive_check(ngx_conf_t *cf);

/* Makes room for what the worker will keep. NGX_ERROR: no memory, logged. */
ngx_int_t ngx_http_durpina_keepalive_init_process(ngx_cycle_t *cycle);

/*
 * Looks for an idle connection to the picked peer that this request may use. NGX_DONE with it in
 * pc->connection and pc->cached set, or NGX_DECLINED with both cleared.
 */
ngx_int_t ngx_http_durpina_keepalive_get(ngx_peer_connection_t *pc, ngx_http_request_t *r,
    ngx_http_durpina_srv_conf_t *dscf, const struct durpina_pick *pick);

/*
 * Keeps the connection of a try that ends with state, and clears pc->connection then; one that
 * cannot be used again stays there for nginx to close.
 */
void ngx_http_durpina_keepalive_put(ngx_peer_connection_t *pc, ngx_http_request_t *r,
    ngx_http_durpina_srv_conf_t *dscf, const struct durpina_pick *pick, ngx_uint_t state);

/* Closes the idle connections to the peer. */
void ngx_http_durpina_keepalive_close_peer(uint32_t peer);

#endif
