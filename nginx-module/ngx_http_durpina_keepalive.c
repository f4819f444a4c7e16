/* SPDX-License-Identifier: MIT */
/*
 * Peers lie in an array by their ids, in memory that takes room where it was written to. What there
 * is to know of a connection lies in the connection's own pool, made once when it is kept first.
 *
 * An idle connection is in three queues: of its peer, where the newest is taken first; of its
 * upstream block, by age; and of those that nginx closes when worker_connections run short.
 *
 * Idle connections have no timers of their own. A timer of the worker closes those that are too old
 * and, when an upstream has been published anew, those to peers that do not take requests any more.
 * It does not hold back the exit of the worker, nor do idle connections: nginx closes them first.
 */
#include "ngx_http_durpina_keepalive.h"
#include "ngx_http_durpina_keepalive_item.h"

#include <sys/mman.h>

#define NGX_HTTP_DURPINA_KEEPALIVE_TICK 200 /* ms */

typedef struct {
    ngx_queue_t idle; /* newest first; zeroed: not initialized */
    ngx_uint_t  n;
    uint32_t    generation; /* of the peer they lead to */
} ngx_http_durpina_keepalive_peer_t;

typedef struct {
    ngx_http_durpina_keepalive_peer_t *peers;
    ngx_uint_t                         n_peers; /* 0: nothing can be kept */
    ngx_queue_t                        confs; /* with idle connections */
    ngx_event_t                        timer;
    ngx_connection_t                   nobody; /* what nginx's debug log takes the timer for */
} ngx_http_durpina_keepalive_worker_t;

static ngx_uint_t ngx_http_durpina_keepalive_can_keep(ngx_peer_connection_t *pc,
    ngx_http_upstream_t *u, ngx_http_durpina_keepalive_conf_t *conf, ngx_uint_t state);
static uint64_t ngx_http_durpina_keepalive_up(uint32_t id, uint32_t generation);
static void ngx_http_durpina_keepalive_add(ngx_http_durpina_keepalive_item_t *item);
static void ngx_http_durpina_keepalive_remove(ngx_http_durpina_keepalive_item_t *item);
static void ngx_http_durpina_keepalive_drop(ngx_http_durpina_keepalive_item_t *item);
static void ngx_http_durpina_keepalive_close(ngx_connection_t *c);
static void ngx_http_durpina_keepalive_read_handler(ngx_event_t *ev);
static void ngx_http_durpina_keepalive_write_handler(ngx_event_t *ev);
static void ngx_http_durpina_keepalive_timer_handler(ngx_event_t *ev);
static void ngx_http_durpina_keepalive_sweep(ngx_http_durpina_keepalive_conf_t *conf);

static ngx_http_durpina_keepalive_worker_t ngx_http_durpina_keepalive_worker;

ngx_int_t
ngx_http_durpina_keepalive_init_process(ngx_cycle_t *cycle)
{
    void                                *peers;
    size_t                               n_peers = ngx_http_durpina.maps.n_peers;
    ngx_uint_t                           i, wanted;
    ngx_http_durpina_srv_conf_t         *dscf;
    ngx_http_upstream_srv_conf_t       **uscfp;
    ngx_http_upstream_main_conf_t       *umcf;
    ngx_http_durpina_keepalive_worker_t *w = &ngx_http_durpina_keepalive_worker;

    umcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_upstream_module);

    if (umcf == NULL) {
        return NGX_OK;
    }

    wanted = 0;
    uscfp = umcf->upstreams.elts;

    for (i = 0; i < umcf->upstreams.nelts; i++) {

        if (!(uscfp[i]->flags & NGX_HTTP_UPSTREAM_CREATE)) {
            continue; /* not a block */
        }

        dscf = ngx_http_conf_upstream_srv_conf(uscfp[i], ngx_http_durpina_module);

        if (dscf->keepalive.max) {
            ngx_queue_init(&dscf->keepalive.idle);
            wanted = 1;
        }
    }

    if (!wanted) {
        return NGX_OK;
    }

    peers = mmap(NULL, n_peers * sizeof(*w->peers), PROT_READ|PROT_WRITE,
                 MAP_PRIVATE|MAP_ANONYMOUS, -1, 0);

    if (peers == MAP_FAILED) {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, ngx_errno,
                      "durpina: mmap() of %uz peers' idle connections failed", n_peers);
        return NGX_ERROR;
    }

    w->peers = peers;
    w->n_peers = n_peers;

    ngx_queue_init(&w->confs);

    w->nobody.fd = (ngx_socket_t) -1;
    w->timer.data = &w->nobody;
    w->timer.log = cycle->log;
    w->timer.handler = ngx_http_durpina_keepalive_timer_handler;
    w->timer.cancelable = 1;

    return NGX_OK;
}

ngx_int_t
ngx_http_durpina_keepalive_get(ngx_peer_connection_t *pc, ngx_http_request_t *r,
    ngx_http_durpina_srv_conf_t *dscf, const struct durpina_pick *pick)
{
    ngx_queue_t                         *q;
    ngx_connection_t                    *c;
    ngx_http_durpina_keepalive_key_t     key;
    ngx_http_durpina_keepalive_item_t   *item;
    ngx_http_durpina_keepalive_peer_t   *peer;
    ngx_http_durpina_keepalive_worker_t *w = &ngx_http_durpina_keepalive_worker;

    pc->connection = NULL;
    pc->cached = 0;

    if (dscf->keepalive.max == 0 || pick->peer >= w->n_peers) {
        return NGX_DECLINED;
    }

    peer = &w->peers[pick->peer];

    if (peer->n == 0) {
        return NGX_DECLINED;
    }

    if (peer->generation != pick->generation) {
        ngx_http_durpina_keepalive_close_peer(pick->peer);
        return NGX_DECLINED;
    }

    if (ngx_http_durpina_keepalive_key(pc, r, &key) != NGX_OK) {
        return NGX_DECLINED;
    }

    for (q = ngx_queue_head(&peer->idle);
         q != ngx_queue_sentinel(&peer->idle);
         q = ngx_queue_next(q))
    {
        item = ngx_queue_data(q, ngx_http_durpina_keepalive_item_t, peer_queue);

        /* The timer is up to a tick late; those that follow are older. */
        if (ngx_current_msec - item->since >= item->conf->timeout) {
            break;
        }

        if (!ngx_http_durpina_keepalive_same(&item->key, &key)) {
            continue;
        }

        ngx_http_durpina_keepalive_remove(item);

        c = item->connection;

        ngx_log_debug1(NGX_LOG_DEBUG_HTTP, pc->log, 0, "durpina keepalive: using connection %p", c);

        c->sent = 0;
        c->data = NULL;
        c->log = pc->log;
        c->read->log = pc->log;
        c->write->log = pc->log;
        c->pool->log = pc->log;

        pc->connection = c;
        pc->cached = 1;

        return NGX_DONE;
    }

    return NGX_DECLINED;
}

void
ngx_http_durpina_keepalive_put(ngx_peer_connection_t *pc, ngx_http_request_t *r,
    ngx_http_durpina_srv_conf_t *dscf, const struct durpina_pick *pick, ngx_uint_t state)
{
    uint64_t                             word;
    ngx_connection_t                    *c = pc->connection;
    ngx_http_durpina_keepalive_conf_t   *conf = &dscf->keepalive;
    ngx_http_durpina_keepalive_item_t   *item;
    ngx_http_durpina_keepalive_peer_t   *peer;
    ngx_http_durpina_keepalive_worker_t *w = &ngx_http_durpina_keepalive_worker;

    if (conf->max == 0 || c == NULL || pick->peer >= w->n_peers
        || !ngx_http_durpina_keepalive_can_keep(pc, r->upstream, conf, state))
    {
        return;
    }

    word = ngx_http_durpina_keepalive_up(pick->peer, pick->generation);

    if (word == 0) {
        return;
    }

    item = ngx_http_durpina_keepalive_item(pc, r->upstream);

    if (item == NULL || ngx_handle_read_event(c->read, 0) != NGX_OK) {
        return;
    }

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, pc->log, 0, "durpina keepalive: keeping connection %p", c);

    peer = &w->peers[pick->peer];

    if (peer->n && peer->generation != pick->generation) {
        ngx_http_durpina_keepalive_close_peer(pick->peer);
    }

    if (peer->n >= conf->max) {
        ngx_http_durpina_keepalive_drop(ngx_queue_data(ngx_queue_last(&peer->idle),
                                                       ngx_http_durpina_keepalive_item_t,
                                                       peer_queue));
    }

    if (ngx_queue_empty(&conf->idle) || conf->upstream != pick->upstream) {
        conf->upstream = pick->upstream;
        conf->word = word;
        conf->again = 1;
    }

    pc->connection = NULL;

    if (c->read->timer_set) {
        ngx_del_timer(c->read);
    }
    if (c->write->timer_set) {
        ngx_del_timer(c->write);
    }

    c->read->delayed = 0;
    c->read->handler = ngx_http_durpina_keepalive_read_handler;
    c->write->handler = ngx_http_durpina_keepalive_write_handler;

    c->data = item;
    c->log = ngx_cycle->log;
    c->read->log = ngx_cycle->log;
    c->write->log = ngx_cycle->log;
    c->pool->log = ngx_cycle->log;

    peer->generation = pick->generation;
    item->conf = conf;
    item->peer = pick->peer;
    item->since = ngx_current_msec;

    ngx_http_durpina_keepalive_add(item);

    if (c->read->ready) {
        ngx_http_durpina_keepalive_read_handler(c->read);
    }
}

static ngx_uint_t
ngx_http_durpina_keepalive_can_keep(ngx_peer_connection_t *pc, ngx_http_upstream_t *u,
    ngx_http_durpina_keepalive_conf_t *conf, ngx_uint_t state)
{
    ngx_connection_t *c = pc->connection;

    return !(state & NGX_PEER_FAILED)
           && !c->read->eof && !c->read->error && !c->read->timedout
           && !c->write->error && !c->write->timedout
           && c->requests < conf->requests
           && ngx_current_msec - c->start_time <= conf->time
           && u->keepalive && u->request_body_sent
           && !ngx_terminate && !ngx_exiting;
}

/*
 * The publish word if the peer is up, else 0. A publication that overtakes the reads changes the
 * word, and so is seen by the timer.
 */
static uint64_t
ngx_http_durpina_keepalive_up(uint32_t id, uint32_t generation)
{
    uint32_t                   upstream;
    uint64_t                   word;
    const struct durpina_peer *peer = &ngx_http_durpina.maps.peers[id];

    upstream = DURPINA_LOAD(&peer->upstream);

    if (upstream >= ngx_http_durpina.maps.n_upstreams) {
        return 0;
    }

    word = durpina_seq_begin(&ngx_http_durpina.maps.upstreams[upstream].publish);

    return DURPINA_LOAD(&peer->generation) == generation
           && DURPINA_LOAD(&durpina_settings(peer, word)->state) == DURPINA_PEER_UP ? word : 0;
}

/*
 * Not by ngx_reusable_connection(): it counts the connection as that of a waiting client, which
 * stub_status shows.
 */
static void
ngx_http_durpina_keepalive_add(ngx_http_durpina_keepalive_item_t *item)
{
    ngx_cycle_t                         *cycle = (ngx_cycle_t *) ngx_cycle;
    ngx_connection_t                    *c = item->connection;
    ngx_http_durpina_keepalive_peer_t   *peer;
    ngx_http_durpina_keepalive_worker_t *w = &ngx_http_durpina_keepalive_worker;

    peer = &w->peers[item->peer];

    if (peer->idle.next == NULL) {
        ngx_queue_init(&peer->idle);
    }

    if (ngx_queue_empty(&item->conf->idle)) {
        ngx_queue_insert_tail(&w->confs, &item->conf->queue);
    }

    ngx_queue_insert_head(&peer->idle, &item->peer_queue);
    ngx_queue_insert_head(&item->conf->idle, &item->conf_queue);
    peer->n++;

    c->idle = 1;
    c->reusable = 1;
    ngx_queue_insert_head(&cycle->reusable_connections_queue, &c->queue);
    cycle->reusable_connections_n++;

    if (!w->timer.timer_set) {
        ngx_add_timer(&w->timer, NGX_HTTP_DURPINA_KEEPALIVE_TICK);
    }
}

static void
ngx_http_durpina_keepalive_remove(ngx_http_durpina_keepalive_item_t *item)
{
    ngx_connection_t *c = item->connection;

    ngx_queue_remove(&item->peer_queue);
    ngx_queue_remove(&item->conf_queue);
    ngx_http_durpina_keepalive_worker.peers[item->peer].n--;

    if (ngx_queue_empty(&item->conf->idle)) {
        ngx_queue_remove(&item->conf->queue);
    }

    c->idle = 0;
    c->reusable = 0;
    ngx_queue_remove(&c->queue);
    ngx_cycle->reusable_connections_n--;
}

static void
ngx_http_durpina_keepalive_drop(ngx_http_durpina_keepalive_item_t *item)
{
    ngx_http_durpina_keepalive_remove(item);
    ngx_http_durpina_keepalive_close(item->connection);
}

static void
ngx_http_durpina_keepalive_close(ngx_connection_t *c)
{
    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, c->log, 0, "durpina keepalive: closing connection %p", c);

#if (NGX_HTTP_SSL)

    if (c->ssl) {
        c->ssl->no_wait_shutdown = 1;
        c->ssl->no_send_shutdown = 1;

        if (ngx_ssl_shutdown(c) == NGX_AGAIN) {
            c->ssl->handler = ngx_http_durpina_keepalive_close;
            return;
        }
    }

#endif

    ngx_destroy_pool(c->pool);
    ngx_close_connection(c);
}

void
ngx_http_durpina_keepalive_close_peer(uint32_t peer)
{
    ngx_queue_t                         *q;
    ngx_http_durpina_keepalive_worker_t *w = &ngx_http_durpina_keepalive_worker;

    if (peer >= w->n_peers) {
        return;
    }

    while (w->peers[peer].n) {
        q = ngx_queue_last(&w->peers[peer].idle);
        ngx_http_durpina_keepalive_drop(ngx_queue_data(q, ngx_http_durpina_keepalive_item_t,
                                                       peer_queue));
    }
}

/* The peer closed the connection, or sent what nobody asked for, or nginx wants it closed. */
static void
ngx_http_durpina_keepalive_read_handler(ngx_event_t *ev)
{
    u_char            buf[1];
    ngx_connection_t *c = ev->data;

    if (!c->close && recv(c->fd, buf, 1, MSG_PEEK) == -1 && ngx_socket_errno == NGX_EAGAIN) {
        ev->ready = 0;

        if (ngx_handle_read_event(ev, 0) == NGX_OK) {
            return;
        }
    }

    ngx_http_durpina_keepalive_drop(c->data);
}

static void
ngx_http_durpina_keepalive_write_handler(ngx_event_t *ev)
{
    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, ev->log, 0, "durpina keepalive: write event");
}

static void
ngx_http_durpina_keepalive_timer_handler(ngx_event_t *ev)
{
    ngx_queue_t                         *q, *next;
    ngx_http_durpina_keepalive_worker_t *w = &ngx_http_durpina_keepalive_worker;

    for (q = ngx_queue_head(&w->confs); q != ngx_queue_sentinel(&w->confs); q = next) {
        next = ngx_queue_next(q);
        ngx_http_durpina_keepalive_sweep(ngx_queue_data(q, ngx_http_durpina_keepalive_conf_t,
                                                        queue));
    }

    if (!ngx_queue_empty(&w->confs)) {
        ngx_add_timer(ev, NGX_HTTP_DURPINA_KEEPALIVE_TICK);
    }
}

/*
 * Closes the idle connections of a block that are too old, and after a publication those to peers
 * that are not up. durpinad marks the records of removed peers a moment after the publication that
 * removes them, so all are looked at once more a tick later.
 */
static void
ngx_http_durpina_keepalive_sweep(ngx_http_durpina_keepalive_conf_t *conf)
{
    uint64_t                             word;
    ngx_queue_t                         *q, *next;
    ngx_http_durpina_keepalive_item_t   *item;
    ngx_http_durpina_keepalive_worker_t *w = &ngx_http_durpina_keepalive_worker;

    while (!ngx_queue_empty(&conf->idle)) {
        q = ngx_queue_last(&conf->idle);
        item = ngx_queue_data(q, ngx_http_durpina_keepalive_item_t, conf_queue);

        if (ngx_current_msec - item->since < conf->timeout) {
            break;
        }

        ngx_http_durpina_keepalive_drop(item);
    }

    word = durpina_seq_begin(&ngx_http_durpina.maps.upstreams[conf->upstream].publish);

    if (word == conf->word && !conf->again) {
        return;
    }

    conf->again = word != conf->word;
    conf->word = word;

    for (q = ngx_queue_head(&conf->idle); q != ngx_queue_sentinel(&conf->idle); q = next) {
        next = ngx_queue_next(q);
        item = ngx_queue_data(q, ngx_http_durpina_keepalive_item_t, conf_queue);

        if (ngx_http_durpina_keepalive_up(item->peer, w->peers[item->peer].generation) == 0) {
            ngx_http_durpina_keepalive_drop(item);
        }
    }
}
