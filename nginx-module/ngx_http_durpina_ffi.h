/* SPDX-License-Identifier: MIT */
/*
 * What the nginx module offers to Lua, as C functions that LuaJIT calls by FFI. The preprocessed
 * text of this header is what Lua declares (ngx_http_durpina_ffi_cdef()), so the two cannot differ.
 *
 * Strings that come out point into mapped or static memory unless said otherwise and end in NUL.
 * An upstream or peer is named by id and generation: with an older generation, calls answer
 * NGX_DECLINED (-5). Other results: NGX_OK (0), NGX_ERROR (-1), NGX_BUSY (-3).
 */
#ifndef NGX_HTTP_DURPINA_FFI_H
#define NGX_HTTP_DURPINA_FFI_H

#include <stddef.h>
#include <stdint.h>

struct ngx_http_request_s;

/* A peer as a reader sees it: one published state and the counters beside it. */
struct ngx_http_durpina_ffi_peer {
    char name[128];
    char address[128]; /* "?" while unresolved; "unix:/path" */
    uint32_t generation;
    uint32_t server; /* id of the server in the API; the addresses of one name share it */
    uint32_t backup;
    uint32_t state; /* enum durpina_peer_state */
    uint32_t admin; /* enum durpina_admin */
    uint32_t health;
    uint32_t weight;
    uint32_t initial_weight;
    uint32_t max_fails;
    uint32_t fail_timeout_ms;
    uint32_t max_conns;
    uint32_t slow_start_ms;
    uint32_t active;
    uint32_t fails;     /* failures inside fail_timeout */
    uint32_t temp_down; /* passive failures keep it out now */
    uint32_t reserved;
    uint64_t requests;
    uint64_t failed;
    uint64_t unavail;
    uint64_t responses[5];
    uint64_t sent;
    uint64_t received;
    uint64_t header_us; /* moving means; 0: none yet */
    uint64_t last_byte_us;
    uint64_t connect_us;
};

/* The C declarations of this header, for ffi.cdef(). */
const char *ngx_http_durpina_ffi_cdef(void);

/* Word of the algorithm i, from 0; NULL: there are no more. */
const char *ngx_http_durpina_ffi_algorithm(uint32_t i);

/* The method that an algorithm's word stands for; NGX_ERROR with *err, a text valid until the next
 * call. */
int ngx_http_durpina_ffi_method(const char *word, size_t len, uint32_t *ret_method,
                                const char **err);

/* The method with one argument more; likewise. */
int ngx_http_durpina_ffi_method_option(uint32_t method, const char *word, size_t len,
                                       uint32_t *ret_method, const char **err);

/* Whether the method goes by a key. */
int ngx_http_durpina_ffi_method_has_key(uint32_t method);

/*
 * Picks a peer for the request in its balancer phase and makes it the current one. From the first
 * call on the request is ours: each try ends in the counters exactly once, each retry calls the
 * balancer again and goes to a peer not yet tried. An empty key stands for the client's address.
 * NGX_OK; NGX_BUSY: no peer is available; NGX_DECLINED: the upstream is not known to the
 * controller; NGX_ERROR: misuse. *err is a static text for all but NGX_OK.
 */
int ngx_http_durpina_ffi_balance(struct ngx_http_request_s *r, uint32_t method, const char *key,
                                 size_t key_len, const char **err);

/* As above for a peer that Lua chose (Balancer.add): by id and generation. NGX_BUSY if it may not
 * be taken now. */
int ngx_http_durpina_ffi_balance_peer(struct ngx_http_request_s *r, uint32_t peer,
                                      uint32_t generation, const char **err);

/* Name of the upstream that is being balanced, not ending in NUL. NGX_DECLINED: none. */
int ngx_http_durpina_ffi_current_upstream(struct ngx_http_request_s *r, const char **ret_name,
                                          size_t *ret_len);

/* Capacity of the upstreams map: ids are below it. */
uint32_t ngx_http_durpina_ffi_upstreams(void);

/* Finds a published upstream by name. */
int ngx_http_durpina_ffi_find_upstream(const char *name, size_t len, uint32_t *ret_id,
                                       uint32_t *ret_generation);

/* Name (at least 128 bytes are written to), generation and revision of the upstream with this id;
 * NGX_DECLINED if the record is free. */
int ngx_http_durpina_ffi_upstream(uint32_t id, char *name, uint32_t *ret_generation,
                                  uint64_t *ret_revision);

/* Ids of its peers in the order of their servers, at most max; *ret_n is their number, which may
 * exceed max. */
int ngx_http_durpina_ffi_upstream_peers(uint32_t id, uint32_t generation, uint32_t *ids,
                                        uint32_t max, uint32_t *ret_n);

/* generation 0: whatever is there now. */
int ngx_http_durpina_ffi_peer(uint32_t id, uint32_t generation,
                              struct ngx_http_durpina_ffi_peer *ret);

/* Counts a failure; *ret_fails is the new number inside fail_timeout. */
int ngx_http_durpina_ffi_add_fail(uint32_t id, uint32_t generation, uint32_t *ret_fails);

/* Temporarily down for its fail_timeout (on non-zero), or its failures forgotten (0). */
int ngx_http_durpina_ffi_set_temp_down(uint32_t id, uint32_t generation, int on);

/* The control socket of this nginx and the token of its workers ("" if not introduced). */
const char *ngx_http_durpina_ffi_socket(void);
const char *ngx_http_durpina_ffi_token(void);

/* The body for PUT /api/9/durpina/upstreams/NAME/nginx: the upstream block of that name. *ret_json
 * is valid until the next call. NGX_DECLINED: nginx.conf has no such block. */
int ngx_http_durpina_ffi_upstream_block(const char *name, size_t len, const char **ret_json,
                                        size_t *ret_len);

/*
 * One blocking exchange on the control socket, for phases that cannot yield and that serve no
 * request (init_worker): sends request and reads until the controller closes the connection.
 * timeout_ms bounds it all. *ret_len bytes of the answer are in response; NGX_ERROR with *err, a
 * text valid until the next call.
 */
int ngx_http_durpina_ffi_exchange(const char *request, size_t len, char *response, size_t size,
                                  uint32_t timeout_ms, size_t *ret_len, const char **err);

#endif
