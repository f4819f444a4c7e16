/* SPDX-License-Identifier: MIT */
/*
 * Around balancer_by_lua*: its peer callbacks are wrapped by those below, outermost. A pick that
 * Lua makes inside peer.get is finished in peer.free; a balancer that picks none of our peers is
 * left alone.
 *
 * How the peer gets from our pick into nginx's peer connection:
 *
 *     directly     If our get is the only one around ngx_lua's, the pick makes ngx_lua return
 *                  NGX_DECLINED, by its own ngx.exit(), and our get fills in the address.
 *     by ngx_lua   Otherwise, as ngx.balancer does: ngx_lua parses the address as text and fills it
 *                  in, and nginx's `keepalive`, which may stand between, sees it.
 */
#include "ngx_http_durpina_peer.h"

#include <dlfcn.h>

/* Functions that ngx_lua has for its own Lua library; its peer data are private to it. */
typedef int (*ngx_http_durpina_lua_exit_pt)(ngx_http_request_t *r, int status, u_char *err,
    size_t *err_len);
typedef int (*ngx_http_durpina_lua_set_peer_pt)(ngx_http_request_t *r, const u_char *addr,
    size_t addr_len, int port, char **err);

typedef struct {
    ngx_http_durpina_peer_data_t    d;

    /* what is wrapped */
    void                           *data;
    ngx_event_get_peer_pt           get;
    ngx_event_free_peer_pt          free;
    ngx_event_notify_peer_pt        notify;
#if (NGX_HTTP_SSL)
    ngx_event_set_peer_session_pt   set_session;
    ngx_event_save_peer_session_pt  save_session;
#endif
} ngx_http_durpina_lua_peer_data_t;

static ngx_http_durpina_lua_exit_pt ngx_http_durpina_lua_exit;
static ngx_http_durpina_lua_set_peer_pt ngx_http_durpina_lua_set_peer;

/* Whose balancer runs now: it cannot yield, so there is one at most. */
static ngx_http_durpina_peer_data_t *ngx_http_durpina_lua_balancing;

static ngx_uint_t ngx_http_durpina_lua_is_direct(ngx_http_upstream_srv_conf_t *uscf);
static ngx_int_t ngx_http_durpina_lua_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us);
static ngx_int_t ngx_http_durpina_lua_get_peer(ngx_peer_connection_t *pc, void *data);
static void ngx_http_durpina_lua_free_peer(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state);
static void ngx_http_durpina_lua_notify_peer(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t type);
#if (NGX_HTTP_SSL)
static ngx_int_t ngx_http_durpina_lua_set_session(ngx_peer_connection_t *pc, void *data);
static void ngx_http_durpina_lua_save_session(ngx_peer_connection_t *pc, void *data);
#endif

/*
 * nginx does not tell by what a block is balanced. Of the methods there are, only balancer_by_lua*
 * takes neither backup servers nor max_conns.
 */
ngx_uint_t
ngx_http_durpina_is_lua(ngx_http_upstream_srv_conf_t *uscf)
{
    return uscf->peer.init_upstream
           && !(uscf->flags & (NGX_HTTP_UPSTREAM_BACKUP|NGX_HTTP_UPSTREAM_MAX_CONNS));
}

void
ngx_http_durpina_wrap_lua(ngx_conf_t *cf)
{
    ngx_uint_t                       i;
    ngx_http_durpina_srv_conf_t     *dscf;
    ngx_http_upstream_srv_conf_t   **uscfp;
    ngx_http_upstream_main_conf_t   *umcf;

    /* The address is asked anew: a reload may bring another ngx_lua. */
    ngx_http_durpina_lua_exit = (ngx_http_durpina_lua_exit_pt)
                                    dlsym(RTLD_DEFAULT, "ngx_http_lua_ffi_exit");
    ngx_http_durpina_lua_set_peer = (ngx_http_durpina_lua_set_peer_pt)
                                        dlsym(RTLD_DEFAULT,
                                              "ngx_http_lua_ffi_balancer_set_current_peer");

    umcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_upstream_module);
    uscfp = umcf->upstreams.elts;

    for (i = 0; i < umcf->upstreams.nelts; i++) {
        if (!(uscfp[i]->flags & NGX_HTTP_UPSTREAM_CREATE)) {
            continue; /* not a block: "proxy_pass http://address" */
        }

        dscf = ngx_http_conf_upstream_srv_conf(uscfp[i], ngx_http_durpina_module);

        if (ngx_http_durpina_lua_set_peer && ngx_http_durpina_is_lua(uscfp[i])) {
            dscf->direct = ngx_http_durpina_lua_is_direct(uscfp[i]);
            dscf->init_peer = uscfp[i]->peer.init;
            uscfp[i]->peer.init = ngx_http_durpina_lua_init_peer;
        }
    }
}

/*
 * Whether the block's peer.init is in the shared object of ngx_lua, which has only one such
 * function. Where ngx_lua is linked into nginx that proves nothing: `keepalive` is there as well.
 */
static ngx_uint_t
ngx_http_durpina_lua_is_direct(ngx_http_upstream_srv_conf_t *uscf)
{
    Dl_info init, lua, nginx;

    return ngx_http_durpina_lua_exit
           && dladdr((void *) uscf->peer.init, &init)
           && dladdr((void *) ngx_http_durpina_lua_exit, &lua)
           && dladdr((void *) ngx_http_upstream_create, &nginx)
           && init.dli_fbase == lua.dli_fbase
           && init.dli_fbase != nginx.dli_fbase;
}

static ngx_int_t
ngx_http_durpina_lua_init_peer(ngx_http_request_t *r, ngx_http_upstream_srv_conf_t *us)
{
    ngx_peer_connection_t            *pc = &r->upstream->peer;
    ngx_http_durpina_srv_conf_t      *dscf;
    ngx_http_durpina_lua_peer_data_t *ld;

    dscf = ngx_http_conf_upstream_srv_conf(us, ngx_http_durpina_module);

    if (dscf->init_peer(r, us) != NGX_OK) {
        return NGX_ERROR;
    }

    ld = ngx_palloc(r->pool, sizeof(ngx_http_durpina_lua_peer_data_t));
    if (ld == NULL) {
        return NGX_ERROR;
    }

    ngx_http_durpina_prepare(&ld->d, r, us);

    ld->data = pc->data;
    ld->get = pc->get;
    ld->free = pc->free;
    ld->notify = pc->notify;

    pc->data = ld;
    pc->get = ngx_http_durpina_lua_get_peer;
    pc->free = ngx_http_durpina_lua_free_peer;

    if (pc->notify) {
        pc->notify = ngx_http_durpina_lua_notify_peer;
    }

#if (NGX_HTTP_SSL)
    ld->set_session = pc->set_session;
    ld->save_session = pc->save_session;
    pc->set_session = ngx_http_durpina_lua_set_session;
    pc->save_session = ngx_http_durpina_lua_save_session;
#endif

    return NGX_OK;
}

ngx_http_durpina_peer_data_t *
ngx_http_durpina_balancing(ngx_http_request_t *r)
{
    ngx_http_durpina_peer_data_t *d = ngx_http_durpina_lua_balancing;

    return d && d->request == r ? d : NULL;
}

ngx_int_t
ngx_http_durpina_hand_over(ngx_http_durpina_peer_data_t *d, const char **err)
{
    char                      *lua_err = "failed";
    size_t                     len;
    u_char                     exit_err[128];
    const char                *address;
    const struct durpina_peer *peer;

    if (d->conf->direct) {
        len = sizeof(exit_err);

        /* Refused while subrequests are pending. */
        if (ngx_http_durpina_lua_exit(d->request, NGX_DECLINED, exit_err, &len) == NGX_DONE) {
            d->ours = 1;
            return NGX_OK;
        }
    }

    peer = &ngx_http_durpina.maps.peers[d->pick.peer];

    if (DURPINA_LOAD(&peer->family) == DURPINA_FAMILY_UNIX) {
        address = peer->name;
        len = ngx_strnlen((u_char *) peer->name, sizeof(peer->name));

    } else {
        address = peer->address;
        len = ngx_strnlen((u_char *) peer->address, sizeof(peer->address));
    }

    if (ngx_http_durpina_lua_set_peer(d->request, (u_char *) address, len, 0, &lua_err) != NGX_OK) {
        ngx_http_durpina_drop(d);
        *err = lua_err;
        return NGX_ERROR;
    }

    d->ours = 0;

    return NGX_OK;
}

/*
 * What get answers when nothing is picked. Of NGX_DECLINED, which a balancer's ngx.exit() can make
 * of it, nginx would ask again for ever: no try is over, so none is counted.
 */
static ngx_int_t
ngx_http_durpina_lua_unpicked(ngx_http_durpina_peer_data_t *d, ngx_peer_connection_t *pc,
    ngx_int_t rc)
{
    if (rc == NGX_DECLINED) {
        rc = NGX_BUSY;
    }

    if (rc == NGX_BUSY) {
        pc->name = &d->block->host; /* rather than the peer tried before */
    }

    return rc;
}

static ngx_int_t
ngx_http_durpina_lua_get_peer(ngx_peer_connection_t *pc, void *data)
{
    size_t                            len;
    u_char                            exit_err[128];
    ngx_int_t                         rc;
    ngx_http_durpina_lua_peer_data_t *ld = data;
    ngx_http_durpina_peer_data_t     *d = &ld->d;

    d->ours = 0;

    ngx_http_durpina_lua_balancing = d;
    rc = ld->get(pc, ld->data);
    ngx_http_durpina_lua_balancing = NULL;

    if (!d->picked) {
        return ngx_http_durpina_lua_unpicked(d, pc, rc);
    }

    if (d->ours) {
        /* The balancer's own ngx.exit(ngx.OK) after the pick changes nothing. */
        if (rc == NGX_DECLINED || rc == NGX_OK) {
            len = sizeof(exit_err);
            (void) ngx_http_durpina_lua_exit(d->request, NGX_OK, exit_err, &len);

            return ngx_http_durpina_connect(d, pc);
        }

    } else if (rc == NGX_OK) {
        return ngx_http_durpina_reuse(d, pc);

    } else if (rc == NGX_DONE) {
        return NGX_DONE;
    }

    /* It raised, or refused the request, after its pick: there will be no free. */
    ngx_http_durpina_drop(d);
    d->ours = 0;

    return ngx_http_durpina_lua_unpicked(d, pc, rc);
}

static void
ngx_http_durpina_lua_free_peer(ngx_peer_connection_t *pc, void *data, ngx_uint_t state)
{
    ngx_http_durpina_lua_peer_data_t *ld = data;

    if (ld->d.picked) {
        ngx_http_durpina_finish(&ld->d, pc, state);
    }

    if (!ld->d.ours) {
        ld->free(pc, ld->data, state);

    } else if (pc->tries) {
        pc->tries--;
    }
}

static void
ngx_http_durpina_lua_notify_peer(ngx_peer_connection_t *pc, void *data, ngx_uint_t type)
{
    ngx_http_durpina_lua_peer_data_t *ld = data;

    ld->notify(pc, ld->data, type);
}

#if (NGX_HTTP_SSL)

static ngx_int_t
ngx_http_durpina_lua_set_session(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_durpina_lua_peer_data_t *ld = data;

    if (ld->d.picked) {
        return ngx_http_durpina_session_set(pc, ld->d.upstream, &ld->d.pick);
    }

    return ld->set_session(pc, ld->data);
}

static void
ngx_http_durpina_lua_save_session(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_durpina_lua_peer_data_t *ld = data;

    if (ld->d.picked) {
        ngx_http_durpina_session_save(pc, ld->d.upstream, &ld->d.pick);
        return;
    }

    ld->save_session(pc, ld->data);
}

#endif
