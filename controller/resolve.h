/* SPDX-License-Identifier: MIT */
/*
 * Name lookups with c-ares on the loop: hosts file first, A and AAAA, TTLs kept. No cache: when to
 * ask again is the caller's business.
 */
#ifndef DURPINAD_RESOLVE_H
#define DURPINAD_RESOLVE_H

#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "addr.h"

struct resolver;
struct lookup;

/*
 * status 0: addresses (n > 0, port filled in, each once, in an order that does not depend on the
 * order of the answer, valid in the call), ttl_s the smallest TTL (hosts file: UINT32_MAX). Else
 * -ENOENT (the name or its addresses do not exist), -EAGAIN (failed, try again) and n is 0; reason
 * in words. Never called from inside resolver_lookup(). The lookup is gone when this returns.
 */
typedef void (*lookup_cb)(void *user, int status, const char *reason, const struct addr *addresses,
                          size_t n, uint32_t ttl_s);

/* 0 or -errno. Name servers are those of resolv.conf. */
int resolver_create(uv_loop_t *loop, struct resolver **ret);
/*
 * Cancels all lookups, which are gone then; returns at once, closing its handles on the loop, whose
 * next run frees the memory. NULL is fine.
 */
void resolver_destroy(struct resolver *resolver);
/*
 * Addresses with optional port; n 0: resolv.conf, read again. Lookups under way go on with the new
 * ones. 0, -EINVAL (names no culprit: check with addr_parse), -ENOMEM; failed, nothing changes.
 */
int resolver_set_servers(struct resolver *resolver, const char *const *servers, size_t n);
/* host: without port and brackets, copied. 0 or -ENOMEM; other failures come by the callback. */
int resolver_lookup(struct resolver *resolver, const char *host, uint16_t port, lookup_cb cb,
                    void *user, struct lookup **ret);
/* No callback after it. Fine for NULL, and from the lookup's own callback. */
void lookup_cancel(struct lookup *lookup);

#endif
