/* SPDX-License-Identifier: MIT */
/* What Lua calls. Everything is checked here: Lua may pass anything. */
#include "ngx_http_durpina_cdef.h"
#include "ngx_http_durpina_peer.h"

#define NGX_HTTP_DURPINA_FFI_TEXT 512

/* What is said when there is nothing to balance. */
static const char ngx_http_durpina_ffi_misuse[] =
    "no upstream is being balanced: to be called in balancer_by_lua*";

/*
 * A method as a number: its algorithm, whose word it was, what its arguments have decided, its key
 * and its bound.
 */
static uint32_t
ngx_http_durpina_ffi_pack(const ngx_http_durpina_method_t *m)
{
    return m->algorithm | m->word << 4 | m->decided << 8 | m->key << 12 | m->bound << 16;
}

static ngx_http_durpina_method_t
ngx_http_durpina_ffi_unpack(uint32_t method)
{
    return (ngx_http_durpina_method_t) {
        .algorithm = method & 0xf,
        .word = method >> 4 & 0xf,
        .decided = method >> 8 & 0xf,
        .key = method >> 12 & 0xf,
        .bound = method >> 16,
    };
}

/* One of those that ngx_http_durpina_ffi_pack() makes? */
static ngx_uint_t
ngx_http_durpina_ffi_is_method(const ngx_http_durpina_method_t *m)
{
    return m->algorithm < DURPINA_ALGORITHMS && ngx_http_durpina_method_word(m->word)
           && m->key <= NGX_HTTP_DURPINA_KEY_TEXT && m->bound <= DURPINA_BOUND_MAX;
}

/* A text that is valid until the next call. */
static char *
ngx_http_durpina_ffi_text(void)
{
    static char text[NGX_HTTP_DURPINA_FFI_TEXT];

    ngx_memzero(text, sizeof(text));

    return text;
}

const char *
ngx_http_durpina_ffi_cdef(void)
{
    return NGX_HTTP_DURPINA_FFI_CDEF;
}

const char *
ngx_http_durpina_ffi_algorithm(uint32_t i)
{
    const ngx_str_t *word = ngx_http_durpina_method_word(i);

    return word ? (const char *) word->data : NULL;
}

int
ngx_http_durpina_ffi_method(const char *word, size_t len, uint32_t *ret_method, const char **err)
{
    char                       *text = ngx_http_durpina_ffi_text();
    ngx_str_t                   name = { len, (u_char *) word };
    ngx_http_durpina_method_t   method;

    *err = text;

    if (ngx_http_durpina_method(&name, &method, text, NGX_HTTP_DURPINA_FFI_TEXT - 1) != NGX_OK) {
        return NGX_ERROR;
    }

    *ret_method = ngx_http_durpina_ffi_pack(&method);

    return NGX_OK;
}

int
ngx_http_durpina_ffi_method_option(uint32_t packed, const char *word, size_t len,
    uint32_t *ret_method, const char **err)
{
    char                       *text = ngx_http_durpina_ffi_text();
    ngx_str_t                   option = { len, (u_char *) word };
    ngx_http_durpina_method_t   method = ngx_http_durpina_ffi_unpack(packed);

    *err = text;

    if (!ngx_http_durpina_ffi_is_method(&method)
        || ngx_http_durpina_method_option(&method, &option, text, NGX_HTTP_DURPINA_FFI_TEXT - 1)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    *ret_method = ngx_http_durpina_ffi_pack(&method);

    return NGX_OK;
}

int
ngx_http_durpina_ffi_method_has_key(uint32_t method)
{
    return ngx_http_durpina_ffi_unpack(method).key == NGX_HTTP_DURPINA_KEY_TEXT;
}

int
ngx_http_durpina_ffi_balance(ngx_http_request_t *r, uint32_t packed, const char *key,
    size_t key_len, const char **err)
{
    uint64_t                      hash;
    ngx_int_t                     rc;
    ngx_http_durpina_method_t     method = ngx_http_durpina_ffi_unpack(packed);
    ngx_http_durpina_peer_data_t *d = ngx_http_durpina_balancing(r);

    if (d == NULL || !ngx_http_durpina_ffi_is_method(&method)) {
        *err = ngx_http_durpina_ffi_misuse;
        return NGX_ERROR;
    }

    hash = ngx_http_durpina_hash(d, &method, (const u_char *) key, key_len);

    rc = ngx_http_durpina_pick(d, &method, hash, err);

    return rc == NGX_OK ? ngx_http_durpina_hand_over(d, err) : rc;
}

int
ngx_http_durpina_ffi_balance_peer(ngx_http_request_t *r, uint32_t peer, uint32_t generation,
    const char **err)
{
    ngx_int_t                     rc;
    ngx_http_durpina_peer_data_t *d = ngx_http_durpina_balancing(r);

    if (d == NULL) {
        *err = ngx_http_durpina_ffi_misuse;
        return NGX_ERROR;
    }

    rc = ngx_http_durpina_pick_peer(d, peer, generation, err);

    return rc == NGX_OK ? ngx_http_durpina_hand_over(d, err) : NGX_BUSY;
}

int
ngx_http_durpina_ffi_current_upstream(ngx_http_request_t *r, const char **ret_name,
    size_t *ret_len)
{
    ngx_http_durpina_peer_data_t *d = ngx_http_durpina_balancing(r);

    if (d == NULL) {
        return NGX_DECLINED;
    }

    *ret_name = (const char *) d->block->host.data;
    *ret_len = d->block->host.len;

    return NGX_OK;
}

uint32_t
ngx_http_durpina_ffi_upstreams(void)
{
    return ngx_http_durpina.maps.n_upstreams;
}

int
ngx_http_durpina_ffi_find_upstream(const char *name, size_t len, uint32_t *ret_id,
    uint32_t *ret_generation)
{
    uint32_t                       id, generation;
    const struct durpina_upstream *u;

    if (len == 0 || len >= DURPINA_NAME_SIZE) {
        return NGX_DECLINED;
    }

    for (id = 0; id < ngx_http_durpina.maps.n_upstreams; id++) {
        u = &ngx_http_durpina.maps.upstreams[id];

        if (durpina_seq_begin(&u->publish) == 0) {
            continue;
        }

        generation = DURPINA_LOAD(&u->generation);

        if (ngx_memcmp(u->name, name, len) == 0 && u->name[len] == '\0') {
            *ret_id = id;
            *ret_generation = generation;
            return NGX_OK;
        }
    }

    return NGX_DECLINED;
}

int
ngx_http_durpina_ffi_upstream(uint32_t id, char *name, uint32_t *ret_generation,
    uint64_t *ret_revision)
{
    uint64_t                       word;
    const struct durpina_upstream *u;

    if (id >= ngx_http_durpina.maps.n_upstreams) {
        return NGX_DECLINED;
    }

    u = &ngx_http_durpina.maps.upstreams[id];

    word = durpina_seq_begin(&u->publish);
    if (word == 0) {
        return NGX_DECLINED;
    }

    ngx_cpystrn((u_char *) name, (u_char *) u->name, DURPINA_NAME_SIZE);
    *ret_generation = DURPINA_LOAD(&u->generation);
    *ret_revision = word;

    return NGX_OK;
}

int
ngx_http_durpina_ffi_upstream_peers(uint32_t id, uint32_t generation, uint32_t *ids, uint32_t max,
    uint32_t *ret_n)
{
    int                            i;
    uint32_t                       j;
    uint64_t                       word;
    struct durpina_table           table;
    const struct durpina_upstream *u;

    if (id >= ngx_http_durpina.maps.n_upstreams) {
        return NGX_DECLINED;
    }

    u = &ngx_http_durpina.maps.upstreams[id];

    for (i = 0; i < DURPINA_SEQ_RETRIES; i++) {
        word = durpina_seq_begin(&u->publish);

        if (word == 0 || DURPINA_LOAD(&u->generation) != generation) {
            return NGX_DECLINED;
        }

        table = durpina_table(&ngx_http_durpina.maps, &u->view[word & 1].peers);

        for (j = 0; j < table.length && j < max; j++) {
            ids[j] = DURPINA_LOAD(&ngx_http_durpina.maps.slots[table.offset + j]);
        }

        if (!durpina_seq_retry(&u->publish, word)) {
            break;
        }
    }

    *ret_n = table.length;

    return NGX_OK;
}

/* The record of a peer that is in use and has this generation (0: any), or NULL. */
static const struct durpina_peer *
ngx_http_durpina_ffi_find_peer(uint32_t id, uint32_t generation)
{
    uint32_t                   now;
    const struct durpina_peer *p;

    if (id >= ngx_http_durpina.maps.n_peers) {
        return NULL;
    }

    p = &ngx_http_durpina.maps.peers[id];
    now = DURPINA_LOAD(&p->generation);

    if (now == 0 || (generation != 0 && now != generation)
        || DURPINA_LOAD(&ngx_http_durpina.maps.counters[id].generation) != now)
    {
        return NULL;
    }

    return p;
}

int
ngx_http_durpina_ffi_peer(uint32_t id, uint32_t generation, struct ngx_http_durpina_ffi_peer *ret)
{
    ngx_uint_t                    i;
    const struct durpina_peer    *p;
    struct durpina_counters      *c;
    struct durpina_peer_settings  s;

    p = ngx_http_durpina_ffi_find_peer(id, generation);
    if (p == NULL) {
        return NGX_DECLINED;
    }

    s = durpina_read_settings(&ngx_http_durpina.maps, id);
    if (s.state == DURPINA_PEER_FREE) {
        return NGX_DECLINED;
    }

    c = &ngx_http_durpina.maps.counters[id];

    ngx_cpystrn((u_char *) ret->name, (u_char *) p->name, sizeof(p->name));

    if (DURPINA_LOAD(&p->family) == DURPINA_FAMILY_UNIX) {
        ngx_cpystrn((u_char *) ret->address, (u_char *) p->name, sizeof(p->name));
    } else {
        ngx_cpystrn((u_char *) ret->address, (u_char *) p->address, sizeof(p->address));
    }

    ret->generation = DURPINA_LOAD(&p->generation);
    ret->server = DURPINA_LOAD(&p->server);
    ret->backup = DURPINA_LOAD(&p->tier) == DURPINA_TIER_BACKUP;
    ret->state = s.state;
    ret->admin = s.admin;
    ret->health = s.health;
    ret->weight = s.weight;
    ret->initial_weight = s.initial_weight;
    ret->max_fails = s.max_fails;
    ret->fail_timeout_ms = s.fail_timeout_ms;
    ret->max_conns = s.max_conns;
    ret->slow_start_ms = s.slow_start_ms;
    ret->active = DURPINA_LOAD(&c->active);
    ret->fails = durpina_fails(c, s.fail_timeout_ms, ngx_current_msec);
    ret->temp_down = durpina_is_temp_down(c, ngx_current_msec);
    ret->reserved = 0;
    ret->requests = durpina_requests(c) + ret->active;
    ret->failed = DURPINA_LOAD(&c->failed);
    ret->unavail = DURPINA_LOAD(&c->unavail);

    for (i = 0; i < 5; i++) {
        ret->responses[i] = DURPINA_LOAD(&c->responses[i]);
    }

    ret->sent = DURPINA_LOAD(&c->sent);
    ret->received = DURPINA_LOAD(&c->received);
    ret->header_us = durpina_mean_us(&c->header);
    ret->last_byte_us = durpina_mean_us(&c->last_byte);
    ret->connect_us = durpina_mean_us(&c->connect);

    return NGX_OK;
}

int
ngx_http_durpina_ffi_add_fail(uint32_t id, uint32_t generation, uint32_t *ret_fails)
{
    if (ngx_http_durpina_ffi_find_peer(id, generation) == NULL) {
        return NGX_DECLINED;
    }

    *ret_fails = durpina_fail(&ngx_http_durpina.maps, id, DURPINA_WORKER, ngx_current_msec);

    return NGX_OK;
}

int
ngx_http_durpina_ffi_set_temp_down(uint32_t id, uint32_t generation, int on)
{
    struct durpina_peer_settings s;

    if (ngx_http_durpina_ffi_find_peer(id, generation) == NULL) {
        return NGX_DECLINED;
    }

    if (on) {
        s = durpina_read_settings(&ngx_http_durpina.maps, id);
        durpina_set_temp_down(&ngx_http_durpina.maps.counters[id], s.fail_timeout_ms,
                              ngx_current_msec);
    } else {
        durpina_clear_fails(&ngx_http_durpina.maps.counters[id]);
    }

    return NGX_OK;
}

const char *
ngx_http_durpina_ffi_socket(void)
{
    ngx_http_durpina_main_conf_t *dmcf;

    dmcf = ngx_http_cycle_get_module_main_conf(ngx_cycle, ngx_http_durpina_module);

    return (const char *) dmcf->socket.data;
}

const char *
ngx_http_durpina_ffi_token(void)
{
    return (const char *) ngx_http_durpina.token;
}

int
ngx_http_durpina_ffi_upstream_block(const char *name, size_t len, const char **ret_json,
    size_t *ret_len)
{
    ngx_str_t                        json;
    ngx_uint_t                       i;
    ngx_http_upstream_srv_conf_t   **uscfp;
    ngx_http_upstream_main_conf_t   *umcf;

    static ngx_pool_t *pool;

    umcf = ngx_http_cycle_get_module_main_conf(ngx_cycle, ngx_http_upstream_module);
    uscfp = umcf->upstreams.elts;

    for (i = 0; i < umcf->upstreams.nelts; i++) {
        if (!(uscfp[i]->flags & NGX_HTTP_UPSTREAM_CREATE) || uscfp[i]->host.len != len
            || ngx_memcmp(uscfp[i]->host.data, name, len) != 0)
        {
            continue;
        }

        if (pool) {
            ngx_destroy_pool(pool);
        }

        pool = ngx_create_pool(NGX_DEFAULT_POOL_SIZE, ngx_cycle->log);

        if (pool == NULL
            || ngx_http_durpina_upstream_block((ngx_cycle_t *) ngx_cycle, uscfp[i], pool, &json)
               != NGX_OK)
        {
            return NGX_ERROR;
        }

        *ret_json = (const char *) json.data;
        *ret_len = json.len;

        return NGX_OK;
    }

    return NGX_DECLINED;
}

int
ngx_http_durpina_ffi_exchange(const char *request, size_t len, char *response, size_t size,
    uint32_t timeout_ms, size_t *ret_len, const char **err)
{
    char *text = ngx_http_durpina_ffi_text();

    *err = text;

    return ngx_http_durpina_exchange(ngx_http_durpina_ffi_socket(), (const u_char *) request, len,
                                     (u_char *) response, size, timeout_ms, ret_len, text,
                                     NGX_HTTP_DURPINA_FFI_TEXT - 1);
}
