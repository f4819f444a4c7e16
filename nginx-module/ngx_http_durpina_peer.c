/* SPDX-License-Identifier: MIT */
/*
 * Picks and their ends.
 *
 * With a peer, peer.get sets pc->sockaddr; from then on nginx ends the try by exactly one
 * peer.free, whatever happens to the request. What a worker that exits has not freed is finished by
 * ngx_http_durpina_finish_all().
 */
#include "ngx_http_durpina_keepalive.h"
#include "ngx_http_durpina_peer.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

static ngx_int_t ngx_http_durpina_picked(ngx_http_durpina_peer_data_t *d,
    enum durpina_pick_error rc, struct durpina_try *entry, const char **err);
static ngx_int_t ngx_http_durpina_unix_address(ngx_pool_t *pool, const struct durpina_peer *peer,
    ngx_http_durpina_address_t *address, ngx_peer_connection_t *pc);
static void ngx_http_durpina_end(ngx_http_durpina_peer_data_t *d, enum durpina_outcome outcome,
    const struct durpina_sample *sample);

/* Who was tried before the first failure; never written to. */
static struct durpina_tried ngx_http_durpina_nobody;

void
ngx_http_durpina_prepare(ngx_http_durpina_peer_data_t *d, ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *block)
{
    d->request = r;
    d->upstream = r->upstream;
    d->block = block;
    d->conf = ngx_http_conf_upstream_srv_conf(block, ngx_http_durpina_module);
    d->picked = 0;
    d->begun = 0;
    d->addressed = 0;
    d->ours = 0;
    d->tried = &ngx_http_durpina_nobody;
}

/* --- picking --- */

/*
 * What hashes go by instead of a key. As nginx's ip_hash: the first three octets of an IPv4
 * address, all of an IPv6 one, and the same for all clients of a unix socket.
 */
static size_t
ngx_http_durpina_client(struct sockaddr *sa, const u_char **ret_key)
{
#if (NGX_HAVE_INET6)
    struct sockaddr_in6 *sin6;
#endif

    switch (sa->sa_family) {

    case AF_INET:
        *ret_key = (u_char *) &((struct sockaddr_in *) sa)->sin_addr;
        return 3;

#if (NGX_HAVE_INET6)
    case AF_INET6:
        sin6 = (struct sockaddr_in6 *) sa;

        /* An IPv4 client of a dual-stack listener is the same client. */
        if (IN6_IS_ADDR_V4MAPPED(&sin6->sin6_addr)) {
            *ret_key = &sin6->sin6_addr.s6_addr[12];
            return 3;
        }

        *ret_key = sin6->sin6_addr.s6_addr;
        return 16;
#endif

    default:
        *ret_key = (u_char *) "";
        return 0;
    }
}

uint64_t
ngx_http_durpina_hash(ngx_http_durpina_peer_data_t *d, const ngx_http_durpina_method_t *method,
    const u_char *key, size_t len)
{
    ngx_connection_t *c = d->request->connection;

    switch (method->algorithm) {

    case DURPINA_ROUND_ROBIN:
    case DURPINA_UNWEIGHTED_ROUND_ROBIN:
        return 0;

    case DURPINA_HASH:
    case DURPINA_RING:
        break;

    default:
        if (method->algorithm == DURPINA_LEAST_CONN_KERNEL
            || method->algorithm == DURPINA_LEAST_TIME_KERNEL)
        {
            ngx_http_durpina_check_observed(d);
        }

        return ngx_http_durpina_random();
    }

    if (method->key == NGX_HTTP_DURPINA_KEY_TEXT && len == 0
        && ngx_http_durpina_may_say(NGX_HTTP_DURPINA_SAY_NO_KEY))
    {
        ngx_log_error(NGX_LOG_WARN, c->log, 0,
                      "durpina: consistent-hash without a key goes by the client's address, in "
                      "upstream \"%V\"", &d->block->host);
    }

    if (method->key == NGX_HTTP_DURPINA_KEY_CLIENT || len == 0) {
        len = ngx_http_durpina_client(c->sockaddr, &key);
    }

    return method->algorithm == DURPINA_RING ? ngx_crc32_long((u_char *) key, len)
                                             : XXH3_64bits(key, len);
}

/* Finds the block's upstream in the maps, once it has come or gone. */
static ngx_http_durpina_srv_conf_t *
ngx_http_durpina_find(ngx_http_durpina_peer_data_t *d, ngx_uint_t again)
{
    uint64_t                     epoch;
    ngx_str_t                   *name = &d->block->host;
    ngx_http_durpina_srv_conf_t *dscf = d->conf;

    epoch = __atomic_load_n(&ngx_http_durpina.maps.meta->epoch, __ATOMIC_ACQUIRE);

    if (dscf->epoch != epoch || again) {
        if (ngx_http_durpina_ffi_find_upstream((char *) name->data, name->len, &dscf->id,
                                               &dscf->generation)
            != NGX_OK)
        {
            dscf->id = DURPINA_NONE;
        }

        dscf->epoch = epoch;
    }

    return dscf;
}

static ngx_inline struct durpina_request
ngx_http_durpina_request(ngx_http_durpina_peer_data_t *d)
{
    if (d->picked) {
        /* A balancer in Lua that picks twice in one try. */
        ngx_http_durpina_drop(d);
    }

    return (struct durpina_request) {
        .tried = d->tried,
        .entry = ngx_http_durpina_inflight_get(),
        .now_ms = ngx_current_msec,
    };
}

ngx_int_t
ngx_http_durpina_pick(ngx_http_durpina_peer_data_t *d, const ngx_http_durpina_method_t *method,
    uint64_t hash, const char **err)
{
    enum durpina_pick_error       rc;
    struct durpina_request        request = ngx_http_durpina_request(d);
    ngx_http_durpina_srv_conf_t  *dscf = ngx_http_durpina_find(d, 0);

    request.algorithm = method->algorithm;
    request.bound = method->bound;
    request.hash = hash;

    rc = durpina_pick(&ngx_http_durpina.maps, dscf->id, dscf->generation, &request, &d->pick);

    if (rc == DURPINA_PICK_NO_UPSTREAM && dscf->id != DURPINA_NONE) {
        /* Its record has another owner, but the epoch that says so is not there yet. */
        dscf = ngx_http_durpina_find(d, 1);
        rc = durpina_pick(&ngx_http_durpina.maps, dscf->id, dscf->generation, &request, &d->pick);
    }

    return ngx_http_durpina_picked(d, rc, request.entry, err);
}

ngx_int_t
ngx_http_durpina_pick_peer(ngx_http_durpina_peer_data_t *d, uint32_t peer, uint32_t generation,
    const char **err)
{
    enum durpina_pick_error  rc;
    struct durpina_request   request = ngx_http_durpina_request(d);

    rc = durpina_pick_peer(&ngx_http_durpina.maps, peer, generation, &request, &d->pick);

    return ngx_http_durpina_picked(d, rc, request.entry, err);
}

/* nginx counted `server` lines; what can be tried is what is up. */
static void
ngx_http_durpina_set_tries(ngx_http_durpina_peer_data_t *d)
{
    ngx_uint_t                     tries, limit;
    ngx_http_upstream_t           *u = d->upstream;
    const struct durpina_view     *view;
    const struct durpina_upstream *upstream;

    upstream = &ngx_http_durpina.maps.upstreams[d->pick.upstream];
    view = &upstream->view[durpina_seq_begin(&upstream->publish) & 1];

    tries = (ngx_uint_t) DURPINA_LOAD(&view->tier[DURPINA_TIER_PRIMARY].members.length)
            + DURPINA_LOAD(&view->tier[DURPINA_TIER_BACKUP].members.length);

    limit = u->conf ? u->conf->next_upstream_tries : 0;
    if (limit == 0 || limit > DURPINA_TRIES_MAX) {
        limit = DURPINA_TRIES_MAX;
    }

    u->peer.tries = ngx_max(1, ngx_min(tries, limit));
}

static ngx_int_t
ngx_http_durpina_picked(ngx_http_durpina_peer_data_t *d, enum durpina_pick_error rc,
    struct durpina_try *entry, const char **err)
{
    if (rc != DURPINA_PICK_OK) {
        ngx_http_durpina_inflight_put(entry);

        *err = rc == DURPINA_PICK_NO_PEER ? "no peer is available" : "unknown upstream";
        return rc == DURPINA_PICK_NO_PEER ? NGX_BUSY : NGX_DECLINED;
    }

    d->picked = 1;
    ngx_queue_insert_tail(&ngx_http_durpina.picks, &d->queue);

    if (!d->begun) {
        d->begun = 1;
        ngx_http_durpina_set_tries(d);
    }

    return NGX_OK;
}

/* --- connecting --- */

ngx_int_t
ngx_http_durpina_connect(ngx_http_durpina_peer_data_t *d, ngx_peer_connection_t *pc)
{
    ngx_int_t                   rc = NGX_OK;
    const struct durpina_peer  *peer = &ngx_http_durpina.maps.peers[d->pick.peer];
    ngx_http_durpina_address_t *address = &d->first;

    if (d->addressed) {
        address = ngx_palloc(d->request->pool, sizeof(ngx_http_durpina_address_t));
        if (address == NULL) {
            ngx_http_durpina_drop(d);
            return NGX_ERROR;
        }
    }

    d->addressed = 1;
    pc->sockaddr = &address->addr.sockaddr;

    switch (DURPINA_LOAD(&peer->family)) {

    case DURPINA_FAMILY_INET:
        ngx_memzero(&address->addr.sin, sizeof(struct sockaddr_in));
        address->addr.sin.sin_family = AF_INET;
        address->addr.sin.sin_port = peer->port_be;
        address->addr.sin.sin_addr.s_addr = peer->addr_be[0];
        pc->socklen = sizeof(struct sockaddr_in);
        break;

#if (NGX_HAVE_INET6)
    case DURPINA_FAMILY_INET6:
        ngx_memzero(&address->addr.sin6, sizeof(struct sockaddr_in6));
        address->addr.sin6.sin6_family = AF_INET6;
        address->addr.sin6.sin6_port = peer->port_be;
        ngx_memcpy(&address->addr.sin6.sin6_addr, peer->addr_be, sizeof(peer->addr_be));
        pc->socklen = sizeof(struct sockaddr_in6);
        break;
#endif

    case DURPINA_FAMILY_UNIX:
        rc = ngx_http_durpina_unix_address(d->request->pool, peer, address, pc);
        break;

    default:
        rc = NGX_ERROR;
    }

    if (rc != NGX_OK) {
        pc->sockaddr = NULL;
        ngx_http_durpina_drop(d);
        return NGX_ERROR;
    }

    /* Copied: the record may have another owner when nginx logs the request. */
    if (pc->sockaddr->sa_family != AF_UNIX) {
        ngx_memcpy(address->text, peer->address, sizeof(address->text));
        address->name.data = address->text;
        address->name.len = strnlen((char *) address->text, sizeof(address->text));
    }

    pc->name = &address->name;
    pc->cached = 0;
    pc->connection = NULL;

    return ngx_http_durpina_reuse(d, pc);
}

static ngx_int_t
ngx_http_durpina_unix_address(ngx_pool_t *pool, const struct durpina_peer *peer,
    ngx_http_durpina_address_t *address, ngx_peer_connection_t *pc)
{
    size_t              len, prefix = sizeof("unix:") - 1;
    struct sockaddr_un *sun;

    len = ngx_strnlen((u_char *) peer->name, sizeof(peer->name));

    if (len <= prefix || len - prefix >= sizeof(sun->sun_path)) {
        return NGX_ERROR;
    }

    sun = ngx_pcalloc(pool, sizeof(struct sockaddr_un) + len);
    if (sun == NULL) {
        return NGX_ERROR;
    }

    sun->sun_family = AF_UNIX;
    ngx_memcpy(sun->sun_path, peer->name + prefix, len - prefix);

    address->name.len = len;
    address->name.data = (u_char *) (sun + 1);
    ngx_memcpy(address->name.data, peer->name, len);

    pc->sockaddr = (struct sockaddr *) sun;
    pc->socklen = sizeof(struct sockaddr_un);

    return NGX_OK;
}

ngx_int_t
ngx_http_durpina_reuse(ngx_http_durpina_peer_data_t *d, ngx_peer_connection_t *pc)
{
    if (d->conf->keepalive.max
        && ngx_http_durpina_keepalive_get(pc, d->request, d->conf, &d->pick) == NGX_DONE)
    {
        return NGX_DONE;
    }

    return NGX_OK;
}

/* --- the end of a try --- */

static void
ngx_http_durpina_end(ngx_http_durpina_peer_data_t *d, enum durpina_outcome outcome,
    const struct durpina_sample *sample)
{
    durpina_finish(&ngx_http_durpina.maps, &d->pick, outcome, sample, ngx_current_msec);
    ngx_http_durpina_inflight_put(d->pick.entry);
    ngx_queue_remove(&d->queue);
    d->picked = 0;
}

/* The request does not go to this peer again. */
static void
ngx_http_durpina_exclude(ngx_http_durpina_peer_data_t *d)
{
    struct durpina_tried *tried;

    if (d->tried == &ngx_http_durpina_nobody) {
        tried = ngx_palloc(d->request->pool, sizeof(struct durpina_tried));
        if (tried == NULL) {
            return;
        }

        tried->n = 0;
        d->tried = tried;
    }

    if (d->tried->n < DURPINA_TRIES_MAX) {
        d->tried->peers[d->tried->n++] = d->pick.peer;
    }
}

void
ngx_http_durpina_drop(ngx_http_durpina_peer_data_t *d)
{
    ngx_http_durpina_end(d, DURPINA_OUTCOME_NEUTRAL, NULL);
}

void
ngx_http_durpina_finish_all(void)
{
    ngx_queue_t *q;

    while (!ngx_queue_empty(&ngx_http_durpina.picks)) {
        q = ngx_queue_head(&ngx_http_durpina.picks);
        ngx_http_durpina_end(ngx_queue_data(q, ngx_http_durpina_peer_data_t, queue),
                             DURPINA_OUTCOME_NEUTRAL, NULL);
    }
}

static uint32_t
ngx_http_durpina_ms(ngx_msec_t time)
{
    return time == (ngx_msec_t) -1 ? DURPINA_NO_TIME : (uint32_t) time;
}

/* What nginx has measured of the try. The response header is that of this try if it has a time. */
static struct durpina_sample
ngx_http_durpina_sample(ngx_http_upstream_t *u, ngx_peer_connection_t *pc)
{
    struct durpina_sample      sample;
    ngx_http_upstream_state_t *state = u->state;

    if (state == NULL) {
        /* Whoever called us measured nothing. */
        return (struct durpina_sample) {
            .connect_ms = DURPINA_NO_TIME,
            .header_ms = DURPINA_NO_TIME,
            .response_ms = DURPINA_NO_TIME,
        };
    }

    sample.status = state->header_time != (ngx_msec_t) -1 ? (uint32_t) u->headers_in.status_n : 0;
    sample.connect_ms = pc->cached ? DURPINA_NO_TIME : ngx_http_durpina_ms(state->connect_time);
    sample.header_ms = ngx_http_durpina_ms(state->header_time);
    sample.sent = pc->connection ? (uint64_t) pc->connection->sent : 0;
    sample.received = (uint64_t) state->bytes_received;
    sample.unconnected = 0;

    if (sample.status == NGX_HTTP_SWITCHING_PROTOCOLS) {
        /* What comes behind it may last for hours, and is no part of the response. */
        sample.response_ms = sample.header_ms;

    } else if (state->response_time != (ngx_msec_t) -1) {
        sample.response_ms = (uint32_t) state->response_time;

    } else {
        sample.response_ms = (uint32_t) (ngx_current_msec - u->start_time);
    }

    return sample;
}

void
ngx_http_durpina_finish(ngx_http_durpina_peer_data_t *d, ngx_peer_connection_t *pc,
    ngx_uint_t state)
{
    enum durpina_outcome   outcome;
    ngx_connection_t      *c = pc->connection;
    struct durpina_sample  sample = ngx_http_durpina_sample(d->upstream, pc);

    if (!(state & NGX_PEER_FAILED)) {
        /* Without a response it was the client who left, and the peer showed nothing. */
        outcome = sample.status ? DURPINA_OUTCOME_SUCCESS : DURPINA_OUTCOME_NEUTRAL;

        if (state & NGX_PEER_NEXT) {
            ngx_http_durpina_exclude(d);
        }

    } else if (pc->cached && sample.received == 0
               && !(c && (c->read->timedout || c->write->timedout)))
    {
        /*
         * An idle connection that the peer had closed says nothing about it. nginx grants such a
         * request another try; the same peer may serve it.
         */
        outcome = DURPINA_OUTCOME_NEUTRAL;

    } else {
        outcome = DURPINA_OUTCOME_FAILURE;
        sample.unconnected = ngx_http_durpina_is_unconnected(d, pc);
        ngx_http_durpina_exclude(d);
    }

    if (d->conf->keepalive.max) {
        ngx_http_durpina_keepalive_put(pc, d->request, d->conf, &d->pick, state);
    }

    ngx_http_durpina_end(d, outcome, &sample);

    if (outcome == DURPINA_OUTCOME_FAILURE && d->conf->keepalive.max
        && durpina_is_temp_down(&ngx_http_durpina.maps.counters[d->pick.peer], ngx_current_msec))
    {
        ngx_http_durpina_keepalive_close_peer(d->pick.peer);
    }
}
