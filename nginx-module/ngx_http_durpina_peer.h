/* SPDX-License-Identifier: MIT */
/*
 * One request: its picks, and the end of each of them exactly once. The native method (native.c)
 * and what is around balancer_by_lua* (lua.c) share it.
 */
#ifndef NGX_HTTP_DURPINA_PEER_H
#define NGX_HTTP_DURPINA_PEER_H

#include "ngx_http_durpina_module.h"

/* Where a try connects to. nginx keeps the name until it has logged the request. */
typedef struct {
    union {
        struct sockaddr     sockaddr;
        struct sockaddr_in  sin;
        struct sockaddr_in6 sin6;
    } addr;
    ngx_str_t name;
    u_char    text[DURPINA_ADDRESS_SIZE];
} ngx_http_durpina_address_t;

typedef struct {
    ngx_http_request_t           *request;
    ngx_http_upstream_t          *upstream; /* the request may get another one later */
    ngx_http_upstream_srv_conf_t *block;
    ngx_http_durpina_srv_conf_t  *conf; /* of the block */

    struct durpina_pick           pick;
    ngx_queue_t                   queue; /* in ngx_http_durpina.picks while picked */
    uint64_t                      hash; /* native: durpina_request.hash */
    unsigned                      picked:1; /* a try is in flight */
    unsigned                      begun:1; /* there was a pick before */
    unsigned                      addressed:1; /* `first` is in use */
    unsigned                      ours:1; /* this try's address is ours, not ngx_lua's */

    /* Few requests are tried again: what these need comes from the pool, and most pools have one
     * block only. */
    struct durpina_tried         *tried;
    ngx_http_durpina_address_t    first;
} ngx_http_durpina_peer_data_t;

/* Prepares d for the request: nothing is picked. */
void ngx_http_durpina_prepare(ngx_http_durpina_peer_data_t *d, ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *block);

/* durpina_request.hash as the method wants it: of the key, which may be empty, or random. */
uint64_t ngx_http_durpina_hash(ngx_http_durpina_peer_data_t *d,
    const ngx_http_durpina_method_t *method, const u_char *key, size_t len);

/*
 * Picks a peer for the try that is about to begin; the first time also sets how often the request
 * may be tried. NGX_OK; NGX_BUSY: nobody is available; NGX_DECLINED: the controller does not know
 * the upstream. *err is a static text then.
 */
ngx_int_t ngx_http_durpina_pick(ngx_http_durpina_peer_data_t *d,
    const ngx_http_durpina_method_t *method, uint64_t hash, const char **err);

/* The same with a peer that the caller chose. */
ngx_int_t ngx_http_durpina_pick_peer(ngx_http_durpina_peer_data_t *d, uint32_t peer,
    uint32_t generation, const char **err);

/* Takes the pick back: the peer was not tried, and may be picked again. */
void ngx_http_durpina_drop(ngx_http_durpina_peer_data_t *d);

/*
 * Has pc connect to the picked peer, or gives it an idle connection: NGX_OK, NGX_DONE as peer.get
 * does. NGX_ERROR: no memory, or a peer whose address is none; the pick is dropped then.
 */
ngx_int_t ngx_http_durpina_connect(ngx_http_durpina_peer_data_t *d, ngx_peer_connection_t *pc);

/* An idle connection to the picked peer, whose address pc has: NGX_DONE, else NGX_OK. */
ngx_int_t ngx_http_durpina_reuse(ngx_http_durpina_peer_data_t *d, ngx_peer_connection_t *pc);

/* Ends the try as state says, and keeps its connection if it can be kept. */
void ngx_http_durpina_finish(ngx_http_durpina_peer_data_t *d, ngx_peer_connection_t *pc,
    ngx_uint_t state);

/* Says once that nothing is counted, to an algorithm that goes by what the kernel counts. */
void ngx_http_durpina_check_observed(ngx_http_durpina_peer_data_t *d);

/* Whether the try, which has failed, is a failure to connect that the kernel counts as well. */
ngx_uint_t ngx_http_durpina_is_unconnected(ngx_http_durpina_peer_data_t *d,
    ngx_peer_connection_t *pc);

/* peer.init_upstream of blocks with the directive durpina. */
ngx_int_t ngx_http_durpina_init_upstream(ngx_conf_t *cf, ngx_http_upstream_srv_conf_t *us);

/* For Lua, in its balancer: the request's picks, or NULL outside of it. */
ngx_http_durpina_peer_data_t *ngx_http_durpina_balancing(ngx_http_request_t *r);

/* Tells ngx_lua where the picked peer is. NGX_ERROR with *err: the pick is dropped. */
ngx_int_t ngx_http_durpina_hand_over(ngx_http_durpina_peer_data_t *d, const char **err);

#if (NGX_HTTP_SSL)

/* peer.set_session and peer.save_session, for the picked peer. */
ngx_int_t ngx_http_durpina_session_set(ngx_peer_connection_t *pc, ngx_http_upstream_t *u,
    const struct durpina_pick *pick);
void ngx_http_durpina_session_save(ngx_peer_connection_t *pc, ngx_http_upstream_t *u,
    const struct durpina_pick *pick);

#endif

/* The algorithm of this name without arguments. NGX_ERROR with a text in err (size bytes). */
ngx_int_t ngx_http_durpina_method(const ngx_str_t *word, ngx_http_durpina_method_t *ret_method,
    char *err, size_t size);

/* One argument more. NGX_ERROR with a text in err: method is as before. */
ngx_int_t ngx_http_durpina_method_option(ngx_http_durpina_method_t *method, const ngx_str_t *word,
    char *err, size_t size);

#endif
