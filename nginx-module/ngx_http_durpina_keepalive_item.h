/* SPDX-License-Identifier: MIT */
/* What is known of a connection that was kept, and who may use it. */
#ifndef NGX_HTTP_DURPINA_KEEPALIVE_ITEM_H
#define NGX_HTTP_DURPINA_KEEPALIVE_ITEM_H

#include "ngx_http_durpina_module.h"

/*
 * What a connection to a peer must have in common with the request that is to use it. Of TLS ones
 * it is also all that the location says: whom to trust, what to show, whether to verify.
 */
typedef struct {
    void            *tag; /* plain: the protocol; TLS: the location's SSL context */
    unsigned         named:1; /* the name is sent ... */
    unsigned         verified:1; /* ... and the certificate verified */
    socklen_t        local_len; /* 0: no proxy_bind */
    struct sockaddr *local;
    ngx_str_t        name; /* of the peer, as sent or verified in the handshake */
} ngx_http_durpina_keepalive_key_t;

/* Lies in the pool of its connection. */
typedef struct {
    ngx_queue_t                        peer_queue;
    ngx_queue_t                        conf_queue;
    ngx_connection_t                  *connection;
    ngx_http_durpina_keepalive_conf_t *conf;
    ngx_msec_t                         since;
    uint32_t                           peer;
    ngx_http_durpina_keepalive_key_t   key;
} ngx_http_durpina_keepalive_item_t;

/*
 * What is known of pc->connection, made when it is new: it was connected for u. NULL: it can serve
 * no other request, or there is no memory.
 */
ngx_http_durpina_keepalive_item_t *
    ngx_http_durpina_keepalive_item(ngx_peer_connection_t *pc, ngx_http_upstream_t *u);

/*
 * What the request asks of a connection; points into the request and its configuration. NGX_ERROR:
 * its name cannot be told.
 */
ngx_int_t ngx_http_durpina_keepalive_key(ngx_peer_connection_t *pc, ngx_http_request_t *r,
    ngx_http_durpina_keepalive_key_t *key);

/* Whether the connection of one serves the other. */
ngx_uint_t ngx_http_durpina_keepalive_same(const ngx_http_durpina_keepalive_key_t *a,
    const ngx_http_durpina_keepalive_key_t *b);

#endif
