/* SPDX-License-Identifier: MIT */
/*
 * Name lookups with c-ares on the loop: hosts file first, A and AAAA, TTLs kept.
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
 * status 0: addresses (n > 0, port filled in, valid in the call), ttl_s the smallest TTL (hosts file:
 * UINT32_MAX). Else -ENOENT (the name does not exist), -EAGAIN (failed, try again) and n is 0;
 * reason in words. Never called from inside resolver_lookup().
 */
typedef void (*lookup_cb)(void *user, int status, const char *reason, const struct addr *addresses,
                          size_t n, uint32_t ttl_s);

int resolver_create(uv_loop_t *loop, struct resolver **ret);
void resolver_destroy(struct resolver *resolver);
/* Addresses with optional port; n 0: resolv.conf. -EINVAL names no culprit: check with addr_parse. */
int resolver_set_servers(struct resolver *resolver, const char *const *servers, size_t n);
int resolver_lookup(struct resolver *resolver, const char *host, uint16_t port, lookup_cb cb,
                    void *user, struct lookup **ret);
/* No callback after it. NULL is fine. */
void lookup_cancel(struct lookup *lookup);

#endif
