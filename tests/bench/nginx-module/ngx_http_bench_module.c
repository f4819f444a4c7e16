/* SPDX-License-Identifier: MIT */
/*
 * For tests/bench only: what choosing a peer costs a worker, apart from all else of a request.
 *
 *     location = /x { bench_peer UPSTREAM TIME; }
 *
 * A request to the location calls peer.init, peer.get and peer.free of the upstream, as a proxied
 * request with one successful try does, over and over for TIME of wall clock, and is answered
 *
 *     {"upstream": "x", "iterations": 1000, "ns": 41.2, "empty_ns": 9.3}
 *
 * ns is CPU time per iteration without empty_ns, that of the same loop without these three calls:
 * what it takes to give each iteration the peer, module contexts and pool of a fresh request.
 *
 * The variable $bench_key is another one of BENCH_KEYS keys whenever it is evaluated.
 */
#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#define BENCH_KEYS 4096
#define BENCH_KEY_LEN (sizeof("key-0000") - 1)
#define BENCH_POOL_SIZE (64 * 1024)
#define BENCH_BATCH 64 /* iterations between two looks at the clock */

typedef struct {
    ngx_http_upstream_srv_conf_t  *upstream;
    ngx_msec_t                     time;
} ngx_http_bench_loc_conf_t;

static void *ngx_http_bench_create_loc_conf(ngx_conf_t *cf);
static ngx_int_t ngx_http_bench_add_variables(ngx_conf_t *cf);
static ngx_int_t ngx_http_bench_key(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data);
static char *ngx_http_bench_peer(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
static ngx_int_t ngx_http_bench_handler(ngx_http_request_t *r);

static u_char      ngx_http_bench_keys[BENCH_KEYS][BENCH_KEY_LEN + 1];
static ngx_uint_t  ngx_http_bench_next_key;

static ngx_command_t  ngx_http_bench_commands[] = {

    { ngx_string("bench_peer"),
      NGX_HTTP_LOC_CONF|NGX_CONF_TAKE2,
      ngx_http_bench_peer,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};

static ngx_http_module_t  ngx_http_bench_module_ctx = {
    ngx_http_bench_add_variables,   /* preconfiguration */
    NULL,                           /* postconfiguration */

    NULL,                           /* create main configuration */
    NULL,                           /* init main configuration */

    NULL,                           /* create server configuration */
    NULL,                           /* merge server configuration */

    ngx_http_bench_create_loc_conf, /* create location configuration */
    NULL                            /* merge location configuration */
};

ngx_module_t  ngx_http_bench_module = {
    NGX_MODULE_V1,
    &ngx_http_bench_module_ctx, /* module context */
    ngx_http_bench_commands,    /* module directives */
    NGX_HTTP_MODULE,            /* module type */
    NULL,                       /* init master */
    NULL,                       /* init module */
    NULL,                       /* init process */
    NULL,                       /* init thread */
    NULL,                       /* exit thread */
    NULL,                       /* exit process */
    NULL,                       /* exit master */
    NGX_MODULE_V1_PADDING
};


static void *
ngx_http_bench_create_loc_conf(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(ngx_http_bench_loc_conf_t));
}


static ngx_int_t
ngx_http_bench_add_variables(ngx_conf_t *cf)
{
    ngx_str_t             name = ngx_string("bench_key");
    ngx_uint_t            i;
    ngx_http_variable_t  *var;

    for (i = 0; i < BENCH_KEYS; i++) {
        ngx_sprintf(ngx_http_bench_keys[i], "key-%04uxi", i);
    }

    var = ngx_http_add_variable(cf, &name, NGX_HTTP_VAR_NOCACHEABLE);
    if (var == NULL) {
        return NGX_ERROR;
    }

    var->get_handler = ngx_http_bench_key;

    return NGX_OK;
}


static ngx_int_t
ngx_http_bench_key(ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data)
{
    v->data = ngx_http_bench_keys[ngx_http_bench_next_key++ % BENCH_KEYS];
    v->len = BENCH_KEY_LEN;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    return NGX_OK;
}


static char *
ngx_http_bench_peer(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_url_t                   url;
    ngx_int_t                   time;
    ngx_str_t                  *value = cf->args->elts;
    ngx_http_core_loc_conf_t   *clcf;
    ngx_http_bench_loc_conf_t  *blcf = conf;

    if (blcf->upstream) {
        return "is duplicate";
    }

    ngx_memzero(&url, sizeof(ngx_url_t));
    url.url = value[1];
    url.no_resolve = 1;

    blcf->upstream = ngx_http_upstream_add(cf, &url, 0);
    if (blcf->upstream == NULL) {
        return NGX_CONF_ERROR;
    }

    time = ngx_parse_time(&value[2], 0);
    if (time <= 0) {
        return "takes a time";
    }

    blcf->time = time;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    clcf->handler = ngx_http_bench_handler;

    return NGX_CONF_OK;
}


static double
ngx_http_bench_clock(clockid_t clock)
{
    struct timespec  t;

    clock_gettime(clock, &t);

    return (double) t.tv_sec * 1e9 + (double) t.tv_nsec;
}


/* The pool as of a request that begins, after the end of the one before. */
static void
ngx_http_bench_reset_pool(ngx_pool_t *pool)
{
    ngx_pool_cleanup_t  *cln;

    for (cln = pool->cleanup; cln; cln = cln->next) {
        if (cln->handler) {
            cln->handler(cln->data);
        }
    }

    pool->cleanup = NULL;
    ngx_reset_pool(pool);
}


/* Nanoseconds per iteration; negative if there was no peer. uscf NULL: nothing is called. */
static double
ngx_http_bench_loop(ngx_http_request_t *r, ngx_http_upstream_srv_conf_t *uscf, ngx_msec_t time,
    ngx_uint_t *ret_iterations)
{
    double                 start, until;
    ngx_uint_t             i, n;
    ngx_http_upstream_t   *u = r->upstream;

    n = 0;
    start = ngx_http_bench_clock(CLOCK_THREAD_CPUTIME_ID);
    until = ngx_http_bench_clock(CLOCK_MONOTONIC) + (double) time * 1e6;

    do {
        for (i = 0; i < BENCH_BATCH; i++) {
            ngx_memzero(r->ctx, sizeof(void *) * ngx_http_max_module);
            ngx_memzero(&u->peer, sizeof(ngx_peer_connection_t));
            u->peer.log = r->connection->log;

            /* Times that vary: a sample like all others would change no mean. */
            u->state->header_time = i & 1;
            u->state->response_time = 1 + (i & 1);

            if (uscf) {
                if (uscf->peer.init(r, uscf) != NGX_OK) {
                    return -1;
                }

                u->peer.start_time = ngx_current_msec;

                if (u->peer.get(&u->peer, u->peer.data) != NGX_OK) {
                    return -1;
                }

                u->peer.free(&u->peer, u->peer.data, 0);
            }

            ngx_http_bench_reset_pool(r->pool);
        }

        n += BENCH_BATCH;
        ngx_time_update();

    } while (ngx_http_bench_clock(CLOCK_MONOTONIC) < until);

    *ret_iterations = n;

    return (ngx_http_bench_clock(CLOCK_THREAD_CPUTIME_ID) - start) / n;
}


/* Measures with a pool, an upstream and module contexts that only the measurement has. */
static ngx_int_t
ngx_http_bench_measure(ngx_http_request_t *r, ngx_http_bench_loc_conf_t *blcf, double *ret_ns,
    double *ret_empty_ns, ngx_uint_t *ret_iterations)
{
    void                      **ctx = r->ctx;
    double                      empty_ns, ns;
    ngx_int_t                   rc;
    ngx_pool_t                 *pool = r->pool;
    ngx_http_upstream_t        *u;
    ngx_http_upstream_conf_t   *conf;
    ngx_http_upstream_state_t  *state;

    u = ngx_pcalloc(pool, sizeof(ngx_http_upstream_t));
    conf = ngx_pcalloc(pool, sizeof(ngx_http_upstream_conf_t));
    state = ngx_pcalloc(pool, sizeof(ngx_http_upstream_state_t));
    r->ctx = ngx_pcalloc(pool, sizeof(void *) * ngx_http_max_module);
    r->pool = ngx_create_pool(BENCH_POOL_SIZE, r->connection->log);

    rc = NGX_ERROR;

    if (u && conf && state && r->ctx && r->pool) {
        /* As after a try that was answered 200 within some milliseconds. */
        u->conf = conf;
        u->upstream = blcf->upstream;
        u->state = state;
        u->start_time = ngx_current_msec;
        u->headers_in.status_n = NGX_HTTP_OK;
        state->status = NGX_HTTP_OK;
        state->connect_time = 0;
        state->bytes_received = 1000;
        r->upstream = u;

        empty_ns = ngx_http_bench_loop(r, NULL, blcf->time / 4 + 1, ret_iterations);
        ns = ngx_http_bench_loop(r, blcf->upstream, blcf->time, ret_iterations);

        if (ns >= 0) {
            *ret_ns = ns - empty_ns;
            *ret_empty_ns = empty_ns;
            rc = NGX_OK;
        }
    }

    if (r->pool) {
        ngx_destroy_pool(r->pool);
    }

    r->upstream = NULL;
    r->pool = pool;
    r->ctx = ctx;

    return rc;
}


static ngx_int_t
ngx_http_bench_handler(ngx_http_request_t *r)
{
    double                      ns, empty_ns;
    ngx_int_t                   rc;
    ngx_buf_t                  *b;
    ngx_uint_t                  iterations;
    ngx_chain_t                 out;
    ngx_http_bench_loc_conf_t  *blcf;

    rc = ngx_http_discard_request_body(r);
    if (rc != NGX_OK) {
        return rc;
    }

    blcf = ngx_http_get_module_loc_conf(r, ngx_http_bench_module);

    if (ngx_http_bench_measure(r, blcf, &ns, &empty_ns, &iterations) != NGX_OK) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0, "no peer of \"%V\"",
                      &blcf->upstream->host);
        return NGX_HTTP_BAD_GATEWAY;
    }

    b = ngx_create_temp_buf(r->pool, blcf->upstream->host.len + 200);
    if (b == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    b->last = ngx_slprintf(b->last, b->end, "{\"upstream\": \"%V\", \"iterations\": %ui, "
                           "\"ns\": %.1f, \"empty_ns\": %.1f}" CRLF,
                           &blcf->upstream->host, iterations, ns, empty_ns);
    b->last_buf = 1;
    b->last_in_chain = 1;

    r->headers_out.status = NGX_HTTP_OK;
    r->headers_out.content_length_n = b->last - b->pos;

    rc = ngx_http_send_header(r);
    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    out.buf = b;
    out.next = NULL;

    return ngx_http_output_filter(r, &out);
}
