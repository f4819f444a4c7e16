/* SPDX-License-Identifier: MIT */
/*
 * One host or service asked for once: the hosts file, then the names that it may mean, A and AAAA
 * together. When to ask, and what to do with a failure, is resolve.h's business.
 */
#ifndef DURPINAD_RESOLVE_QUESTION_H
#define DURPINAD_RESOLVE_QUESTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "resolve_dns.h"
#include "resolve_hosts.h"

enum { QUESTION_IPV4, QUESTION_IPV6, QUESTION_FAMILIES };

struct question_answer {
    int status;         /* 0, or as that of dns_cb */
    const char *reason; /* of a failure: in words, a literal */
    uint32_t ttl_s;     /* the smallest; UINT32_MAX: no server said one */
    struct addr *addresses;
    size_t n_addresses;
    bool failed[QUESTION_FAMILIES]; /* this family, while the other has addresses */
    struct answer_srv *services;    /* as answer_services() leaves them */
    size_t n_services;
};

struct question;

/* The question is gone when it returns; what the answer holds is valid in the call. */
typedef void (*question_cb)(void *user, const struct question_answer *answer);

/*
 * host: without port and brackets; for SRV records the name they are under. 0 or -ENOMEM. What
 * needs no server is answered inside the call, and *ret is NULL then.
 */
int question_ask(struct dns *dns, struct hosts *hosts, const char *host, bool is_service,
                 question_cb cb, void *user, struct question **ret);
/* No callback after it. NULL is fine. */
void question_cancel(struct question *question);

#endif
