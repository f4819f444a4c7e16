/* SPDX-License-Identifier: MIT */
/*
 * TLS sessions with peers, so that a new connection resumes the last one's; nginx keeps one in each
 * of its peers. Here they lie in a table of this worker. A session is used again with the same
 * peer, TLS settings and name only: what was verified under others proves nothing.
 */
#include "ngx_http_durpina_peer.h"

#if (NGX_HTTP_SSL)

#define XXH_INLINE_ALL
#include <xxhash.h>

/* A power of two. Peers beyond it share places, the later one stays. */
#define NGX_HTTP_DURPINA_SESSIONS 4096

/* RFC 1035, 2.3.4. Sessions under longer names are not kept. */
#define NGX_HTTP_DURPINA_SESSION_NAME 255

typedef struct {
    ngx_ssl_session_t *session; /* or NULL */
    ngx_ssl_t         *ssl;
    uint32_t           peer;
    uint32_t           generation;
    size_t             name_len;
    u_char             name[NGX_HTTP_DURPINA_SESSION_NAME];
} ngx_http_durpina_session_t;

static ngx_http_durpina_session_t ngx_http_durpina_sessions[NGX_HTTP_DURPINA_SESSIONS];

ngx_uint_t
ngx_http_durpina_shows_its_own(ngx_http_upstream_t *u)
{
    ngx_http_complex_value_t *certificate = u->conf->ssl_certificate;
    ngx_http_complex_value_t *key = u->conf->ssl_certificate_key;

    return certificate && certificate->value.len
           && (certificate->lengths || (key && key->lengths));
}

/* The place of the session; a name that a client chose shares it at worst. */
static ngx_http_durpina_session_t *
ngx_http_durpina_session(ngx_http_upstream_t *u, const struct durpina_pick *pick)
{
    uint64_t hash = XXH3_64bits_withSeed(u->ssl_name.data, u->ssl_name.len,
                                         (XXH64_hash_t) (uintptr_t) u->conf->ssl);

    return &ngx_http_durpina_sessions[(pick->peer + hash) & (NGX_HTTP_DURPINA_SESSIONS - 1)];
}

ngx_int_t
ngx_http_durpina_session_set(ngx_peer_connection_t *pc, ngx_http_upstream_t *u,
    const struct durpina_pick *pick)
{
    ngx_http_durpina_session_t *s = ngx_http_durpina_session(u, pick);

    if (s->session == NULL || s->ssl != u->conf->ssl || s->peer != pick->peer
        || s->generation != pick->generation || s->name_len != u->ssl_name.len
        || ngx_memcmp(s->name, u->ssl_name.data, s->name_len) != 0)
    {
        return NGX_OK;
    }

    return ngx_ssl_set_session(pc->connection, s->session);
}

void
ngx_http_durpina_session_save(ngx_peer_connection_t *pc, ngx_http_upstream_t *u,
    const struct durpina_pick *pick)
{
    ngx_ssl_session_t          *session;
    ngx_http_durpina_session_t *s = ngx_http_durpina_session(u, pick);

    if (ngx_http_durpina_shows_its_own(u) || u->ssl_name.len > NGX_HTTP_DURPINA_SESSION_NAME) {
        return;
    }

    session = ngx_ssl_get_session(pc->connection);
    if (session == NULL) {
        return;
    }

    if (s->session) {
        ngx_ssl_free_session(s->session);
    }

    s->session = session;
    s->ssl = u->conf->ssl;
    s->peer = pick->peer;
    s->generation = pick->generation;
    s->name_len = u->ssl_name.len;
    ngx_memcpy(s->name, u->ssl_name.data, s->name_len);
}

#endif
