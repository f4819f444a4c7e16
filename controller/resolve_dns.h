/* SPDX-License-Identifier: MIT */
/*
 * Single DNS questions with c-ares on the loop. What the answers mean is
 * resolve_answer.h's business, when to ask is resolve.h's.
 */
#ifndef DURPINAD_RESOLVE_DNS_H
#define DURPINAD_RESOLVE_DNS_H

#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "addr.h"
#include "resolve_answer.h"

#define DNS_NAME_SIZE 256 /* a name as text, and NUL */

struct dns;
struct dns_query;

/*
 * status 0: message is the answer, valid in the call. -ENOENT: the name does not exist (NXDOMAIN);
 * -ENODATA: it has nothing of this type; -EINVAL: no name; -EAGAIN: failed. reason: in words, a
 * literal. Never called from inside dns_ask(). The query is gone when this returns.
 */
typedef void (*dns_cb)(void *user, int status, const char *reason, const uint8_t *message,
                       size_t len);

/* 0 or -errno. Name servers are those of resolv.conf. */
int dns_create(uv_loop_t *loop, struct dns **ret);
/*
 * Cancels all queries, which are gone then; returns at once, closing its handles on the loop, whose
 * next run frees the memory. NULL is fine.
 */
void dns_destroy(struct dns *dns);
/*
 * Addresses with optional port; n 0: resolv.conf, read again. Queries under way go on with the new
 * ones. 0, -EINVAL (names no culprit: check with addr_parse), -ENOMEM; failed, nothing changes.
 */
int dns_set_servers(struct dns *dns, const char *const *servers, size_t n);
/* Reads resolv.conf again: for `search` and `ndots` where name servers are set. As above. */
int dns_reload(struct dns *dns);

/* name: in full, copied. 0 or -ENOMEM; other failures come by the callback. */
int dns_ask(struct dns *dns, const char *name, enum answer_type type, dns_cb cb, void *user,
            struct dns_query **ret);
/* No callback after it. Fine for NULL, and from the query's own callback. */
void dns_cancel(struct dns_query *query);

/*
 * The i-th of the names in full that a host may mean by resolv.conf's `search` and `ndots`; one
 * with a dot at its end means itself only. -ENOENT: no more; -ENAMETOOLONG: not that one.
 */
int dns_full_name(const struct dns *dns, const char *host, size_t i, char ret[DNS_NAME_SIZE]);

#endif
