/* SPDX-License-Identifier: MIT */
#include "ngx_http_durpina_keepalive_item.h"

static void ngx_http_durpina_keepalive_cleanup(void *data);
static void ngx_http_durpina_keepalive_settings(ngx_http_upstream_t *u,
    ngx_http_durpina_keepalive_key_t *key);
static ngx_int_t ngx_http_durpina_keepalive_save_key(ngx_peer_connection_t *pc,
    ngx_http_upstream_t *u, ngx_http_durpina_keepalive_key_t *key);

ngx_http_durpina_keepalive_item_t *
ngx_http_durpina_keepalive_item(ngx_peer_connection_t *pc, ngx_http_upstream_t *u)
{
    ngx_connection_t                  *c = pc->connection;
    ngx_pool_cleanup_t                *cln;
    ngx_http_durpina_keepalive_item_t *item;

    for (cln = c->pool->cleanup; cln; cln = cln->next) {
        if (cln->handler == ngx_http_durpina_keepalive_cleanup) {
            return cln->data;
        }
    }

    if (pc->cached) {
        /* By nginx's `keepalive`: nobody knows how it was made. */
        return NULL;
    }

    cln = ngx_pool_cleanup_add(c->pool, sizeof(ngx_http_durpina_keepalive_item_t));
    if (cln == NULL) {
        return NULL;
    }

    item = cln->data;
    item->connection = c;

    if (ngx_http_durpina_keepalive_save_key(pc, u, &item->key) != NGX_OK) {
        return NULL;
    }

    cln->handler = ngx_http_durpina_keepalive_cleanup;

    return item;
}

/* A mark by which the item is found; who closes an idle connection has removed its item before. */
static void
ngx_http_durpina_keepalive_cleanup(void *data)
{
}

/* Not by u->conf: after ngx.balancer.set_timeouts() it is a copy, in the memory of one request. */
static void
ngx_http_durpina_keepalive_settings(ngx_http_upstream_t *u, ngx_http_durpina_keepalive_key_t *key)
{
    key->tag = u->output.tag;
    key->named = 0;
    key->verified = 0;
    ngx_str_null(&key->name);

#if (NGX_HTTP_SSL)
    if (u->ssl) {
        key->tag = u->conf->ssl;
        key->named = u->conf->ssl_server_name;
        key->verified = u->conf->ssl_verify;
    }
#endif
}

ngx_int_t
ngx_http_durpina_keepalive_key(ngx_peer_connection_t *pc, ngx_http_request_t *r,
    ngx_http_durpina_keepalive_key_t *key)
{
#if (NGX_HTTP_SSL)
    u_char              *p, *last;
#endif
    ngx_http_upstream_t *u = r->upstream;

    ngx_http_durpina_keepalive_settings(u, key);
    key->local = pc->local ? pc->local->sockaddr : NULL;
    key->local_len = pc->local ? pc->local->socklen : 0;

#if (NGX_HTTP_SSL)

    if (!key->named && !key->verified) {
        return NGX_OK;
    }

    key->name = u->ssl_name;

    if (u->conf->ssl_name && ngx_http_complex_value(r, u->conf->ssl_name, &key->name) != NGX_OK) {
        return NGX_ERROR;
    }

    /* Without a port, as nginx is going to use it and as it then stands in u->ssl_name. */

    p = key->name.data;
    last = p + key->name.len;

    if (key->name.len && *p == '[') {
        p = ngx_strlchr(p, last, ']');

        if (p == NULL) {
            p = key->name.data;
        }
    }

    p = ngx_strlchr(p, last, ':');

    if (p) {
        key->name.len = p - key->name.data;
    }

#endif

    return NGX_OK;
}

ngx_uint_t
ngx_http_durpina_keepalive_same(const ngx_http_durpina_keepalive_key_t *a,
    const ngx_http_durpina_keepalive_key_t *b)
{
    if (a->tag != b->tag || a->named != b->named || a->verified != b->verified
        || a->local_len != b->local_len || a->name.len != b->name.len)
    {
        return 0;
    }

    return (a->name.len == 0 || ngx_memcmp(a->name.data, b->name.data, a->name.len) == 0)
           && (a->local_len == 0
               || ngx_cmp_sockaddr(a->local, a->local_len, b->local, b->local_len, 1) == NGX_OK);
}

/* NGX_DECLINED: the connection can serve no other request; NGX_ERROR: no memory. */
static ngx_int_t
ngx_http_durpina_keepalive_save_key(ngx_peer_connection_t *pc, ngx_http_upstream_t *u,
    ngx_http_durpina_keepalive_key_t *key)
{
    ngx_pool_t *pool = pc->connection->pool;

    ngx_http_durpina_keepalive_settings(u, key);
    key->local = NULL;
    key->local_len = 0;

    if (pc->local) {
        key->local = ngx_palloc(pool, pc->local->socklen);
        if (key->local == NULL) {
            return NGX_ERROR;
        }

        ngx_memcpy(key->local, pc->local->sockaddr, pc->local->socklen);
        key->local_len = pc->local->socklen;
    }

#if (NGX_HTTP_SSL)

    if (!u->ssl) {
        return NGX_OK;
    }

    if (ngx_http_durpina_shows_its_own(u)) {
        return NGX_DECLINED;
    }

    if ((key->named || key->verified) && u->ssl_name.len) {
        key->name.data = ngx_pstrdup(pool, &u->ssl_name);
        if (key->name.data == NULL) {
            return NGX_ERROR;
        }

        key->name.len = u->ssl_name.len;
    }

#endif

    return NGX_OK;
}
