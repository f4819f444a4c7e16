/* SPDX-License-Identifier: MIT */
/* The method of blocks with the directive durpina: nginx's callbacks around peer.c, and no Lua. */
#include "ngx_http_durpina_peer.h"

static ngx_int_t ngx_http_durpina_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us);
static ngx_int_t ngx_http_durpina_get_peer(ngx_peer_connection_t *pc, void *data);
static void ngx_http_durpina_free_peer(ngx_peer_connection_t *pc, void *data, ngx_uint_t state);
#if (NGX_HTTP_SSL)
static ngx_int_t ngx_http_durpina_set_session(ngx_peer_connection_t *pc, void *data);
static void ngx_http_durpina_save_session(ngx_peer_connection_t *pc, void *data);
#endif

ngx_int_t
ngx_http_durpina_init_upstream(ngx_conf_t *cf, ngx_http_upstream_srv_conf_t *us)
{
    ngx_http_durpina_srv_conf_t *dscf;

    dscf = ngx_http_conf_upstream_srv_conf(us, ngx_http_durpina_module);
    dscf->native = 1;

    us->peer.init = ngx_http_durpina_init_peer;

#if (NGX_HTTP_UPSTREAM_ZONE)
    /* The zone would share peers of nginx's round robin, and there are none. */
    if (us->shm_zone) {
        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "\"zone\" has no effect beside \"durpina\", which shares its peers anyway, "
                      "in upstream \"%V\" in %s:%ui", &us->host, us->file_name, us->line);
        us->shm_zone = NULL;
    }
#endif

    return NGX_OK;
}

static ngx_int_t
ngx_http_durpina_init_peer(ngx_http_request_t *r, ngx_http_upstream_srv_conf_t *us)
{
    ngx_peer_connection_t        *pc = &r->upstream->peer;
    ngx_http_durpina_peer_data_t *d;

    d = ngx_palloc(r->pool, sizeof(ngx_http_durpina_peer_data_t));
    if (d == NULL) {
        return NGX_ERROR;
    }

    ngx_http_durpina_prepare(d, r, us);

    pc->data = d;
    pc->get = ngx_http_durpina_get_peer;
    pc->free = ngx_http_durpina_free_peer;
    pc->tries = 1;
#if (NGX_HTTP_SSL)
    pc->set_session = ngx_http_durpina_set_session;
    pc->save_session = ngx_http_durpina_save_session;
#endif

    return NGX_OK;
}

/* KEY of the request; key stays as it is if the method has none, or the variable is not found. */
static ngx_int_t
ngx_http_durpina_key(ngx_http_durpina_peer_data_t *d, ngx_str_t *key)
{
    ngx_http_variable_value_t *v;

    if (d->conf->key) {
        return ngx_http_complex_value(d->request, d->conf->key, key);
    }

    if (d->conf->method.key == NGX_HTTP_DURPINA_KEY_TEXT) {
        v = ngx_http_get_flushed_variable(d->request, d->conf->key_variable);

        if (v && !v->not_found) {
            key->data = v->data;
            key->len = v->len;
        }
    }

    return NGX_OK;
}

static ngx_int_t
ngx_http_durpina_get_peer(ngx_peer_connection_t *pc, void *data)
{
    ngx_int_t                     rc;
    ngx_str_t                     key = ngx_null_string;
    const char                   *err;
    ngx_http_durpina_peer_data_t *d = data;
    ngx_http_durpina_srv_conf_t  *dscf = d->conf;

    /* The key is that of the request, chance that of the try. */
    if (!d->begun || dscf->method.key == NGX_HTTP_DURPINA_KEY_NONE) {
        if (ngx_http_durpina_key(d, &key) != NGX_OK) {
            return NGX_ERROR;
        }

        d->hash = ngx_http_durpina_hash(d, &dscf->method, key.data, key.len);
    }

    rc = ngx_http_durpina_pick(d, &dscf->method, d->hash, &err);

    if (rc == NGX_OK) {
        return ngx_http_durpina_connect(d, pc);
    }

    if (rc == NGX_DECLINED && ngx_http_durpina_may_say(NGX_HTTP_DURPINA_SAY_NO_UPSTREAM)) {
        ngx_log_error(NGX_LOG_ERR, pc->log, 0,
                      "durpina: the controller does not know upstream \"%V\": start durpinad and "
                      "reload nginx", &d->block->host);
    }

    pc->name = &d->block->host;

    return NGX_BUSY;
}

static void
ngx_http_durpina_free_peer(ngx_peer_connection_t *pc, void *data, ngx_uint_t state)
{
    ngx_http_durpina_peer_data_t *d = data;

    if (d->picked) {
        ngx_http_durpina_finish(d, pc, state);
    }

    if (pc->tries) {
        pc->tries--;
    }
}

#if (NGX_HTTP_SSL)

static ngx_int_t
ngx_http_durpina_set_session(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_durpina_peer_data_t *d = data;

    return ngx_http_durpina_session_set(pc, d->upstream, &d->pick);
}

static void
ngx_http_durpina_save_session(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_durpina_peer_data_t *d = data;

    ngx_http_durpina_session_save(pc, d->upstream, &d->pick);
}

#endif
