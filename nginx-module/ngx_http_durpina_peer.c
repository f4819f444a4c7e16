/* SPDX-License-Identifier: MIT */
/*
 * One request: its picks, and the end of each of them exactly once.
 *
 * The balancer phase runs inside peer.get of ngx_lua, perhaps itself inside keepalive's. With the
 * first pick the request's peer callbacks are replaced by those below, which wrap whatever was there.
 * From then on every end of a try passes through free(): success, failure, retry, a client that goes
 * away. What never gets there (a balancer that raises after its pick, a worker that exits) is
 * finished by the cleanup of the request's pool and at the exit of the process.
 */
#include "ngx_http_durpina_peer.h"

#include <dlfcn.h>

/* ngx_lua's own way to name the peer; its peer data are private to it. */
typedef int (*ngx_http_durpina_set_peer_pt)(ngx_http_request_t *r, const u_char *addr,
    size_t addr_len, int port, char **err);

typedef struct {
    ngx_http_upstream_t          *upstream;

    struct durpina_tried          tried;
    struct durpina_pick           pick;
    ngx_queue_t                   queue; /* in ngx_http_durpina.picks while picked */
    unsigned                      picked:1;

    /* what was there before */
    void                         *data;
    ngx_event_get_peer_pt         get;
    ngx_event_free_peer_pt        free;
    ngx_event_notify_peer_pt      notify;
#if (NGX_HTTP_SSL)
    ngx_event_set_peer_session_pt set_session;
    ngx_event_save_peer_session_pt save_session;
#endif
} ngx_http_durpina_peer_data_t;

static ngx_http_durpina_peer_data_t *ngx_http_durpina_peer_data(ngx_http_request_t *r);
static void ngx_http_durpina_take_over(ngx_http_request_t *r,
    ngx_http_durpina_peer_data_t *d);
static ngx_int_t ngx_http_durpina_use(ngx_http_request_t *r, ngx_http_durpina_peer_data_t *d,
    const char **err);
static void ngx_http_durpina_end(ngx_http_durpina_peer_data_t *d, enum durpina_outcome outcome);
static void ngx_http_durpina_forget(ngx_http_durpina_peer_data_t *d);
static void ngx_http_durpina_account(ngx_http_durpina_peer_data_t *d);
static ngx_int_t ngx_http_durpina_get_peer(ngx_peer_connection_t *pc, void *data);
static void ngx_http_durpina_free_peer(ngx_peer_connection_t *pc, void *data, ngx_uint_t state);
static void ngx_http_durpina_notify_peer(ngx_peer_connection_t *pc, void *data, ngx_uint_t type);
#if (NGX_HTTP_SSL)
static ngx_int_t ngx_http_durpina_set_session(ngx_peer_connection_t *pc, void *data);
static void ngx_http_durpina_save_session(ngx_peer_connection_t *pc, void *data);
#endif
static void ngx_http_durpina_cleanup(void *data);

/* Finds the upstream of the request in the maps; a change of upstreams makes it look again. */
static ngx_http_durpina_srv_conf_t *
ngx_http_durpina_find(ngx_http_upstream_srv_conf_t *uscf, ngx_uint_t again)
{
    uint64_t                     epoch;
    ngx_http_durpina_srv_conf_t *dscf;

    dscf = ngx_http_conf_upstream_srv_conf(uscf, ngx_http_durpina_module);
    epoch = __atomic_load_n(&ngx_http_durpina.maps.meta->epoch, __ATOMIC_ACQUIRE);

    if (dscf->epoch != epoch || again) {
        if (ngx_http_durpina_ffi_find_upstream((char *) uscf->host.data, uscf->host.len, &dscf->id,
                                               &dscf->generation)
            != NGX_OK)
        {
            dscf->id = DURPINA_NONE;
        }

        dscf->epoch = epoch;
    }

    return dscf;
}

ngx_int_t
ngx_http_durpina_balance(ngx_http_request_t *r, enum durpina_algorithm algorithm, uint64_t hash,
    const char **err)
{
    ngx_uint_t                    i;
    enum durpina_pick_error       rc;
    ngx_http_durpina_srv_conf_t  *dscf;
    ngx_http_durpina_peer_data_t *d;

    d = ngx_http_durpina_peer_data(r);
    if (d == NULL) {
        *err = "no memory";
        return NGX_ERROR;
    }

    rc = DURPINA_PICK_NO_UPSTREAM;

    for (i = 0; i < 2 && rc == DURPINA_PICK_NO_UPSTREAM; i++) {
        dscf = ngx_http_durpina_find(r->upstream->upstream, i);

        rc = durpina_pick(&ngx_http_durpina.maps, dscf->id, dscf->generation, algorithm, hash,
                          &d->tried, ngx_current_msec, &d->pick);
    }

    switch (rc) {

    case DURPINA_PICK_OK:
        return ngx_http_durpina_use(r, d, err);

    case DURPINA_PICK_NO_PEER:
        *err = "no peer is available";
        return NGX_BUSY;

    case DURPINA_PICK_NO_UPSTREAM:
        break;
    }

    *err = "unknown upstream";
    return NGX_DECLINED;
}

ngx_int_t
ngx_http_durpina_balance_peer(ngx_http_request_t *r, uint32_t peer, uint32_t generation,
    const char **err)
{
    ngx_http_durpina_peer_data_t *d;

    d = ngx_http_durpina_peer_data(r);
    if (d == NULL) {
        *err = "no memory";
        return NGX_ERROR;
    }

    if (durpina_pick_peer(&ngx_http_durpina.maps, peer, generation, &d->tried, ngx_current_msec,
                          &d->pick)
        != DURPINA_PICK_OK)
    {
        *err = "the peer is not available";
        return NGX_BUSY;
    }

    return ngx_http_durpina_use(r, d, err);
}

/* What the request has from its earlier tries, or something new that take_over() will keep. */
static ngx_http_durpina_peer_data_t *
ngx_http_durpina_peer_data(ngx_http_request_t *r)
{
    ngx_pool_cleanup_t           *cln;
    ngx_http_durpina_peer_data_t *d;

    if (r->upstream->peer.get == ngx_http_durpina_get_peer) {
        d = r->upstream->peer.data;

        if (d->picked) {
            /* A balancer that picks twice in one try: the first peer was not tried. */
            ngx_http_durpina_forget(d);
            ngx_http_durpina_end(d, DURPINA_OUTCOME_NEUTRAL);
        }

        return d;
    }

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_http_durpina_peer_data_t));
    if (cln == NULL) {
        return NULL;
    }

    d = cln->data;
    d->upstream = r->upstream;
    d->tried.n = 0;
    d->picked = 0;

    cln->handler = ngx_http_durpina_cleanup;

    return d;
}

static void
ngx_http_durpina_take_over(ngx_http_request_t *r, ngx_http_durpina_peer_data_t *d)
{
    ngx_uint_t                  tries, limit;
    ngx_peer_connection_t      *pc = &r->upstream->peer;
    const struct durpina_view  *view;
    const struct durpina_peer  *peer;

    d->data = pc->data;
    d->get = pc->get;
    d->free = pc->free;
    pc->data = d;
    pc->get = ngx_http_durpina_get_peer;
    pc->free = ngx_http_durpina_free_peer;

    d->notify = pc->notify;
    if (pc->notify) {
        pc->notify = ngx_http_durpina_notify_peer;
    }

#if (NGX_HTTP_SSL)
    d->set_session = pc->set_session;
    d->save_session = pc->save_session;
    pc->set_session = ngx_http_durpina_set_session;
    pc->save_session = ngx_http_durpina_save_session;
#endif

    /* nginx counted `server` lines; what can be tried is what is up. */
    peer = &ngx_http_durpina.maps.peers[d->pick.peer];
    tries = 1;

    if (peer->upstream < ngx_http_durpina.maps.n_upstreams) {
        const struct durpina_upstream *u = &ngx_http_durpina.maps.upstreams[peer->upstream];

        view = &u->view[durpina_seq_begin(&u->publish) & 1];
        tries = (ngx_uint_t) DURPINA_LOAD(&view->tier[DURPINA_TIER_PRIMARY].members.length)
                + DURPINA_LOAD(&view->tier[DURPINA_TIER_BACKUP].members.length);
    }

    limit = r->upstream->conf->next_upstream_tries;
    if (limit == 0 || limit > DURPINA_TRIES_MAX) {
        limit = DURPINA_TRIES_MAX;
    }

    pc->tries = ngx_max(1, ngx_min(tries, limit));
}

/* Makes the picked peer the current one. */
static ngx_int_t
ngx_http_durpina_use(ngx_http_request_t *r, ngx_http_durpina_peer_data_t *d, const char **err)
{
    char                       *lua_err;
    size_t                      len;
    const char                 *addr;
    const struct durpina_peer  *peer;

    static ngx_http_durpina_set_peer_pt set_peer;

    if (set_peer == NULL) {
        set_peer = (ngx_http_durpina_set_peer_pt)
                       dlsym(RTLD_DEFAULT, "ngx_http_lua_ffi_balancer_set_current_peer");
    }

    d->picked = 1;
    ngx_queue_insert_tail(&ngx_http_durpina.picks, &d->queue);

    if (d->tried.n < DURPINA_TRIES_MAX) {
        d->tried.peers[d->tried.n++] = d->pick.peer;
    }

    peer = &ngx_http_durpina.maps.peers[d->pick.peer];

    if (DURPINA_LOAD(&peer->family) == DURPINA_FAMILY_UNIX) {
        addr = peer->name;
        len = ngx_strnlen((u_char *) peer->name, sizeof(peer->name));

    } else {
        addr = peer->address;
        len = ngx_strnlen((u_char *) peer->address, sizeof(peer->address));
    }

    lua_err = "ngx_http_lua_module is not loaded";

    if (set_peer == NULL
        || set_peer(r, (const u_char *) addr, len, 0, &lua_err) != NGX_OK)
    {
        ngx_http_durpina_end(d, DURPINA_OUTCOME_NEUTRAL);
        *err = lua_err;
        return NGX_ERROR;
    }

    if (r->upstream->peer.get != ngx_http_durpina_get_peer) {
        ngx_http_durpina_take_over(r, d);
    }

    return NGX_OK;
}

static void
ngx_http_durpina_end(ngx_http_durpina_peer_data_t *d, enum durpina_outcome outcome)
{
    durpina_finish(&ngx_http_durpina.maps, &d->pick, outcome, ngx_current_msec);
    ngx_queue_remove(&d->queue);
    d->picked = 0;
}

/* Lets the picked peer, the last one tried, be picked again for this request. */
static void
ngx_http_durpina_forget(ngx_http_durpina_peer_data_t *d)
{
    if (d->tried.n && d->tried.peers[d->tried.n - 1] == d->pick.peer) {
        d->tried.n--;
    }
}

void
ngx_http_durpina_finish_all(void)
{
    ngx_queue_t                  *q;
    ngx_http_durpina_peer_data_t *d;

    while (!ngx_queue_empty(&ngx_http_durpina.picks)) {
        q = ngx_queue_head(&ngx_http_durpina.picks);
        d = ngx_queue_data(q, ngx_http_durpina_peer_data_t, queue);
        ngx_http_durpina_end(d, DURPINA_OUTCOME_NEUTRAL);
    }
}

static void
ngx_http_durpina_cleanup(void *data)
{
    ngx_http_durpina_peer_data_t *d = data;

    if (d->picked) {
        ngx_http_durpina_end(d, DURPINA_OUTCOME_NEUTRAL);
    }
}

static ngx_int_t
ngx_http_durpina_get_peer(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_durpina_peer_data_t *d = data;

    return d->get(pc, d->data);
}

static void
ngx_http_durpina_free_peer(ngx_peer_connection_t *pc, void *data, ngx_uint_t state)
{
    ngx_connection_t             *c = pc->connection;
    ngx_http_upstream_t          *u;
    ngx_http_durpina_peer_data_t *d = data;

    if (d->picked) {
        u = d->upstream;

        ngx_http_durpina_account(d);

        if (!(state & NGX_PEER_FAILED)) {
            /* Without a response it was the client who left, and the peer showed nothing. */
            ngx_http_durpina_end(d, u->headers_in.status_n ? DURPINA_OUTCOME_SUCCESS
                                                           : DURPINA_OUTCOME_NEUTRAL);

        } else if (pc->cached && u->state->bytes_received == 0
                   && !(c && (c->read->timedout || c->write->timedout)))
        {
            /*
             * An idle connection that the peer had closed says nothing about it. nginx grants such
             * a request another try; the same peer may serve it.
             */
            ngx_http_durpina_forget(d);
            ngx_http_durpina_end(d, DURPINA_OUTCOME_NEUTRAL);

        } else {
            ngx_http_durpina_end(d, DURPINA_OUTCOME_FAILURE);
        }
    }

    d->free(pc, d->data, state);
}

/* Adds what the try cost and brought to the counters of its peer. */
static void
ngx_http_durpina_account(ngx_http_durpina_peer_data_t *d)
{
    ngx_uint_t                  status = d->upstream->headers_in.status_n;
    ngx_http_upstream_t        *u = d->upstream;
    struct durpina_counters    *c;
    ngx_http_upstream_state_t  *state = u->state;

    c = &ngx_http_durpina.maps.counters[d->pick.peer];

    if (DURPINA_LOAD(&c->generation) != d->pick.generation) {
        return;
    }

    if (u->peer.connection) {
        __atomic_fetch_add(&c->sent, (uint64_t) u->peer.connection->sent, __ATOMIC_RELAXED);
    }

    __atomic_fetch_add(&c->received, (uint64_t) state->bytes_received, __ATOMIC_RELAXED);

    if (status < 100 || status > 599) {
        return;
    }

    __atomic_fetch_add(&c->responses[status / 100 - 1], 1, __ATOMIC_RELAXED);

    if (state->header_time != (ngx_msec_t) -1) {
        __atomic_fetch_add(&c->header_ms, (uint64_t) state->header_time, __ATOMIC_RELAXED);
    }

    __atomic_fetch_add(&c->response_ms,
                       (uint64_t) (state->response_time != (ngx_msec_t) -1
                                   ? state->response_time : ngx_current_msec - u->start_time),
                       __ATOMIC_RELAXED);
}

static void
ngx_http_durpina_notify_peer(ngx_peer_connection_t *pc, void *data, ngx_uint_t type)
{
    ngx_http_durpina_peer_data_t *d = data;

    d->notify(pc, d->data, type);
}

#if (NGX_HTTP_SSL)

static ngx_int_t
ngx_http_durpina_set_session(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_durpina_peer_data_t *d = data;

    return d->set_session(pc, d->data);
}

static void
ngx_http_durpina_save_session(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_durpina_peer_data_t *d = data;

    d->save_session(pc, d->data);
}

#endif
