/* SPDX-License-Identifier: MIT */
/*
 * Names and what they stand for, kept up to date: each name is asked for at its TTL, once for all
 * who want to know it. docs/names.md says what users see.
 *
 *     err = resolver_look_up(resolver, "example.com", NULL, 80, has_addresses, cb, user, &lookup);
 *     ... cb(user, resolved, n) with the first answer and whenever it has changed ...
 *     lookup_cancel(lookup);
 *
 * Invariants
 *  R1. The addresses last known are those of the last answer that had any: no failure (SERVFAIL, no
 *      answer, an empty one, one that makes no sense) takes them away, but NXDOMAIN so often in a
 *      row as the policy says.
 *  R2. No name is asked for twice within a second (within resolve_min_ttl, if that is shorter),
 *      whoever wants it.
 *  R3. The order of addresses does not depend on the order of the answer.
 *  R4. The targets of SRV records are names like others, each with its own TTL and failures. A
 *      change of the records is handed out once each new target has been asked for.
 */
#ifndef DURPINAD_RESOLVE_H
#define DURPINAD_RESOLVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "addr.h"

#define RESOLVE_RETRY_MAX_MS 30000 /* between tries of a name that fails */
#define RESOLVE_PACE_MS 1000       /* R2 */
#define RESOLVE_FILES_MS 2000      /* how soon changes of resolv.conf and hosts are noticed */

struct resolver;
struct lookup;

struct resolve_policy {
    bool follow;         /* false: a name is asked for until it has an answer, then never */
    uint32_t min_ttl_ms; /* a TTL is taken for at least and at most this long */
    uint32_t max_ttl_ms;
    uint32_t max_nxdomain;  /* so many in a row take the addresses away; 0: never */
    uint32_t max_addresses; /* of a name; others are left out */
};
/* What durpinad.conf has by default. */
extern const struct resolve_policy resolve_policy_default;

struct resolved {
    struct addr addr;
    bool backup;         /* of SRV records that are not of the lowest priority */
    uint32_t srv_weight; /* of its SRV record, at least 1; 0: it has none */
};

/*
 * The addresses, each once, valid in the call; n 0: there are none any more. Never called from
 * inside resolver_look_up(). Not 0: it could not take them; they are handed out again after the
 * next answer, which is asked for soon.
 */
typedef int (*lookup_cb)(void *user, const struct resolved *resolved, size_t n);

/* What is known of a name. */
struct lookup_state {
    uint64_t answered_ms;    /* wall clock, of the last good answer; 0: none yet */
    uint64_t next_ms;        /* from now to the next question; UINT64_MAX: none is planned */
    uint32_t ttl_ms;         /* of the last good answer, as it is taken */
    uint32_t n_failures;     /* since then */
    const char *last_reason; /* of the last failure, in words; "" if the last answer was good */
};

/* 0 or -errno. Name servers are those of resolv.conf, whose changes are followed. */
int resolver_create(uv_loop_t *loop, struct resolver **ret);
/*
 * Cancels all lookups, which are gone then; returns at once, closing its handles on the loop, whose
 * next run frees the memory. NULL is fine.
 */
void resolver_destroy(struct resolver *resolver);
/*
 * Addresses with optional port; n 0: resolv.conf. All names are asked for again at once. 0,
 * -EINVAL (names no culprit: check with addr_parse), -ENOMEM; failed, nothing changes.
 */
int resolver_set_servers(struct resolver *resolver, const char *const *servers, size_t n);
void resolver_set_policy(struct resolver *resolver, const struct resolve_policy *policy);

/*
 * host: without port and brackets, copied; for SRV records (is_service) the name they are under,
 * and port is not used. has_addresses: the caller knows some already, there is no hurry. 0 or
 * -ENOMEM; failures of the name are logged, once for a row of them, and kept in its state.
 */
int resolver_look_up(struct resolver *resolver, const char *host, bool is_service, uint16_t port,
                     bool has_addresses, lookup_cb cb, void *user, struct lookup **ret);
/* No callback after it. Fine for NULL, and from any callback. */
void lookup_cancel(struct lookup *lookup);
/* Has the name asked for now, or as soon as R2 lets it. */
void lookup_hurry(struct lookup *lookup);
/*
 * Has this family (AF_INET, AF_INET6) been answered, with addresses or none? Until then what the
 * caller knows of it from elsewhere is the last answer. Of SRV records: that of all their targets;
 * once it has been, it stays so.
 */
bool lookup_knows(const struct lookup *lookup, int family);
/* Has its callback had an answer that is being followed? */
bool lookup_is_followed(const struct lookup *lookup);
struct lookup_state lookup_state(const struct lookup *lookup);

#endif
