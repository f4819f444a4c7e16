/* SPDX-License-Identifier: MIT */
#include "resolve_question.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* One query: of a family, or the only one for SRV. */
struct part {
    struct question *question;
    enum answer_type type;
    struct dns_query *query;
    int status;
    const char *reason;
    uint32_t ttl_s;
    struct addr *addresses;
    struct answer_srv *services;
    size_t n;
};

struct question {
    struct dns *dns;
    char *host;
    question_cb cb;
    void *user;
    size_t next_name; /* of those that the host may mean */
    bool was_there;   /* one of these exists, without what is asked for */
    struct part parts[QUESTION_FAMILIES];
    size_t n_parts;
    size_t n_open;
};

static void ask_next(struct question *question);

static void clear_parts(struct question *question)
{
    for (size_t i = 0; i < question->n_parts; i++) {
        struct part *part = &question->parts[i];

        dns_cancel(part->query);
        free(part->addresses);
        free(part->services);
        *part = (struct part){.question = question, .type = part->type};
    }
}

void question_cancel(struct question *question)
{
    if (question == NULL)
        return;
    clear_parts(question);
    free(question->host);
    free(question);
}

static void answer(struct question *question, const struct question_answer *answer)
{
    question->cb(question->user, answer);
    question_cancel(question);
}

static void answer_failed(struct question *question, int status, const char *reason)
{
    answer(question, &(struct question_answer){.status = status, .reason = reason});
}

/* Both families in one; one that failed does not take the other's addresses away. */
static void answer_addresses_of(struct question *question)
{
    struct question_answer all = {.reason = "", .ttl_s = UINT32_MAX};

    all.addresses = calloc(question->parts[0].n + question->parts[1].n + 1, sizeof(struct addr));
    if (all.addresses == NULL) {
        answer_failed(question, -EAGAIN, "out of memory");
        return;
    }
    for (size_t i = 0; i < question->n_parts; i++) {
        const struct part *part = &question->parts[i];

        all.failed[i] = part->status == -EAGAIN;
        if (part->n == 0)
            continue;
        memcpy(all.addresses + all.n_addresses, part->addresses, part->n * sizeof(struct addr));
        all.n_addresses += part->n;
        if (part->ttl_s < all.ttl_s)
            all.ttl_s = part->ttl_s;
    }
    answer(question, &all);
    free(all.addresses);
}

/* The worst of what was said: a failure says nothing, so what else was said does not count. */
static const struct part *worst_part(const struct question *question)
{
    const struct part *worst = &question->parts[0], *other = &question->parts[1];

    if (question->n_parts == 1 || worst->status == -EAGAIN)
        return worst;
    return other->status == -EAGAIN || worst->status == -ENOENT ? other : worst;
}

static void conclude(struct question *question)
{
    const struct part *parts = question->parts, *worst;

    if (parts[0].services != NULL) {
        const struct question_answer all = {.reason = "",
                                            .ttl_s = parts[0].ttl_s,
                                            .services = parts[0].services,
                                            .n_services = parts[0].n};

        answer(question, &all);
        return;
    }
    if (parts[0].n + parts[1].n > 0) {
        answer_addresses_of(question);
        return;
    }
    worst = worst_part(question);
    /* Another name must not stand in for one whose server only fails to answer. */
    if (worst->status != -ENOENT && worst->status != -ENODATA) {
        answer_failed(question, worst->status, worst->reason);
        return;
    }
    question->was_there |= worst->status == -ENODATA;
    ask_next(question);
}

static void on_message(void *user, int status, const char *reason, const uint8_t *message,
                       size_t len)
{
    struct part *part = user;
    size_t n_unusable = 0;

    part->query = NULL;
    part->reason = reason;
    if (status == 0 && part->type == ANSWER_SRV)
        status =
            answer_services(message, len, &part->services, &part->n, &part->ttl_s, &n_unusable);
    else if (status == 0)
        status =
            answer_addresses(message, len, part->type, &part->addresses, &part->n, &part->ttl_s);
    if (n_unusable > 0 && status == -ENODATA) {
        /* "." says that there is no such service (RFC 2782); no reason to look elsewhere. */
        status = -EINVAL;
        part->reason = "no SRV record names a host and a port";
    } else if (status == -ENODATA) {
        part->reason =
            part->type == ANSWER_SRV ? "the name has no SRV record" : "the name has no address";
    } else if (status == -EBADMSG || status == -ENOMEM) {
        part->reason = status == -ENOMEM ? "out of memory" : "the answer makes no sense";
        status = -EAGAIN;
    }
    part->status = status;
    if (--part->question->n_open == 0)
        conclude(part->question);
}

static void ask_next(struct question *question)
{
    char name[DNS_NAME_SIZE];
    int err;

    clear_parts(question);
    do {
        err = dns_full_name(question->dns, question->host, question->next_name++, name);
    } while (err == -ENAMETOOLONG);
    if (err < 0 && question->was_there) {
        answer_failed(question, -ENODATA,
                      question->n_parts == 1 ? "the name has no SRV record"
                                             : "the name has no address");
        return;
    }
    if (err < 0) {
        answer_failed(question, -ENOENT, "no such name");
        return;
    }
    for (size_t i = 0; i < question->n_parts; i++) {
        struct part *part = &question->parts[i];

        if (dns_ask(question->dns, name, part->type, on_message, part, &part->query) < 0) {
            part->status = -EAGAIN;
            part->reason = "out of memory";
        } else {
            question->n_open++;
        }
    }
    if (question->n_open == 0)
        answer_failed(question, -EAGAIN, "out of memory");
}

/* c-ares 1.18 sends IPv4 addresses to the name server. */
static bool is_literal(const char *host, struct addr *ret)
{
    struct addr addr = {0};

    if (inet_pton(AF_INET, host, &addr.in.sin_addr) == 1) {
        addr.len = sizeof(addr.in);
        addr.in.sin_family = AF_INET;
    } else if (inet_pton(AF_INET6, host, &addr.in6.sin6_addr) == 1) {
        addr.len = sizeof(addr.in6);
        addr.in6.sin6_family = AF_INET6;
    } else {
        return false;
    }
    *ret = addr;
    return true;
}

static bool answer_without_server(struct question *question, struct hosts *hosts)
{
    struct question_answer known = {.reason = "", .ttl_s = UINT32_MAX};
    struct addr literal, *listed = NULL;

    if (is_literal(question->host, &literal)) {
        known.addresses = &literal;
        known.n_addresses = 1;
    } else if (hosts_look_up(hosts, question->host, &listed, &known.n_addresses) == 0) {
        known.addresses = listed;
    } else {
        return false;
    }
    answer(question, &known);
    free(listed);
    return true;
}

int question_ask(struct dns *dns, struct hosts *hosts, const char *host, bool is_service,
                 question_cb cb, void *user, struct question **ret)
{
    struct question *question = calloc(1, sizeof(*question));

    if (question == NULL)
        return -ENOMEM;
    *question = (struct question){.dns = dns, .host = strdup(host), .cb = cb, .user = user};
    if (question->host == NULL) {
        free(question);
        return -ENOMEM;
    }
    question->n_parts = is_service ? 1 : QUESTION_FAMILIES;
    question->parts[QUESTION_IPV4].type = is_service ? ANSWER_SRV : ANSWER_A;
    question->parts[QUESTION_IPV6].type = ANSWER_AAAA;
    *ret = NULL;
    if (!is_service && answer_without_server(question, hosts))
        return 0;
    *ret = question;
    ask_next(question);
    return 0;
}
