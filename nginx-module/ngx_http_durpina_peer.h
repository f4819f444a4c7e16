/* SPDX-License-Identifier: MIT */
/* One request's picks. To be called in the balancer phase, with r->upstream->upstream set. */
#ifndef NGX_HTTP_DURPINA_PEER_H
#define NGX_HTTP_DURPINA_PEER_H

#include "ngx_http_durpina_module.h"

/*
 * Picks a peer for the try that is about to begin, and has all its tries counted from then on.
 * hash: of the key, for DURPINA_HASH. NGX_OK, or as ngx_http_durpina_ffi_balance() with a static
 * text in *err.
 */
ngx_int_t ngx_http_durpina_balance(ngx_http_request_t *r, enum durpina_algorithm algorithm,
    uint64_t hash, const char **err);

/* The same with a peer that the caller chose. */
ngx_int_t ngx_http_durpina_balance_peer(ngx_http_request_t *r, uint32_t peer, uint32_t generation,
    const char **err);

#endif
