/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "log.h"
#include "resolve_internal.h"

static int compare_addresses(const void *left, const void *right)
{
    const struct addr *a = left, *b = right;

    if (a->sa.sa_family != b->sa.sa_family)
        return a->sa.sa_family == AF_INET ? -1 : 1;
    return a->sa.sa_family == AF_INET
               ? memcmp(&a->in.sin_addr, &b->in.sin_addr, sizeof(a->in.sin_addr))
               : memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, sizeof(a->in6.sin6_addr));
}

static bool same_addresses(const struct name *name, const struct addr *addresses, size_t n)
{
    for (size_t i = 0; i < n && n == name->n_addresses; i++)
        if (!addr_equal(&name->addresses[i], &addresses[i]))
            return false;
    return n == name->n_addresses;
}

/* A family that was not answered keeps what it had. 1: changed; 0; or -ENOMEM. */
static int take_addresses(struct name *name, const struct question_answer *answer)
{
    size_t n = answer->n_addresses, kept = 0, max = name->resolver->policy.max_addresses;
    struct addr *all = calloc(n + name->n_addresses + 1, sizeof(*all));
    bool learned = false;

    if (all == NULL)
        return -ENOMEM;
    for (size_t family = 0; family < QUESTION_FAMILIES; family++) {
        learned |= !answer->failed[family] && !name->knows[family];
        name->knows[family] |= !answer->failed[family];
    }
    memcpy(all, answer->addresses, n * sizeof(*all));
    for (size_t i = 0; i < name->n_addresses; i++)
        if (answer->failed[name->addresses[i].sa.sa_family == AF_INET ? QUESTION_IPV4
                                                                      : QUESTION_IPV6])
            all[n++] = name->addresses[i];
    qsort(all, n, sizeof(*all), compare_addresses);
    for (size_t i = 0; i < n; i++)
        if (kept == 0 || !addr_equal(&all[kept - 1], &all[i]))
            all[kept++] = all[i];
    name->is_cut = kept > max;
    if (kept > max)
        kept = max;
    if (name->answered && !learned && same_addresses(name, all, kept)) {
        free(all);
        return 0;
    }
    free(name->addresses);
    name->addresses = all;
    name->n_addresses = kept;
    return 1;
}

static void cancel_all(struct lookup **lookups, size_t n)
{
    for (size_t i = 0; i < n; i++)
        lookup_cancel(lookups[i]);
    free(lookups);
}

/* 1: changed; 0; or -ENOMEM. */
static int take_services(struct name *name, const struct question_answer *answer)
{
    const struct lookup as = {.owner = name};
    size_t n = answer->n_services, max = name->resolver->policy.max_addresses;
    struct answer_srv *services;
    struct lookup **targets;

    name->is_cut = n > max;
    if (n > max)
        n = max;
    if (name->answered && n == name->n_services &&
        memcmp(name->services, answer->services, n * sizeof(*services)) == 0)
        return 0;
    services = calloc(n + 1, sizeof(*services));
    targets = calloc(n + 1, sizeof(struct lookup *));
    if (services == NULL || targets == NULL)
        goto out_of_memory;
    memcpy(services, answer->services, n * sizeof(*services));
    for (size_t i = 0; i < n; i++) {
        char host[DURPINA_NAME_SIZE + 1];

        /* It is a name in full. */
        snprintf(host, sizeof(host), "%s.", services[i].target);
        if (lookup_start(name->resolver, host, false, &as, &targets[i]) < 0)
            goto out_of_memory;
    }
    /* The old ones only now: a target that stays keeps what is known of it. */
    cancel_all(name->targets, name->n_services);
    free(name->services);
    name->services = services;
    name->targets = targets;
    name->n_services = n;
    return 1;

out_of_memory:
    if (targets != NULL)
        cancel_all(targets, n);
    free(services);
    return -ENOMEM;
}

void name_forget_answer(struct name *name)
{
    cancel_all(name->targets, name->n_services);
    free(name->services);
    free(name->addresses);
    name->targets = NULL;
    name->services = NULL;
    name->addresses = NULL;
    name->n_services = name->n_addresses = 0;
}

/* Once for a row of them; not each time for a name that fails now and then. */
static void report_failure(struct name *name)
{
    char skipped[LOG_SKIPPED_SIZE];

    if (name->n_failures != 1 ||
        !log_throttle(&name->throttle, uv_now(name->resolver->loop), RESOLVE_LOG_MS, skipped))
        return;
    name->is_reported = true;
    log_warn("name %s cannot be looked up: %s; what is known of it stays%s", name_host(name),
             name->reason, skipped);
}

/* Is there news in it? */
static bool note_failure(struct name *name, int status, const char *reason)
{
    const struct resolve_policy *policy = &name->resolver->policy;
    bool is_gone;

    name->reason = reason;
    name->n_failures++;
    report_failure(name);
    name->n_nxdomain = status == -ENOENT ? name->n_nxdomain + 1 : 0;
    is_gone = policy->max_nxdomain != 0 && name->n_nxdomain == policy->max_nxdomain;
    if (is_gone) {
        log_warn("name %s does not exist, by %u answers in a row: its addresses are dropped",
                 name_host(name), name->n_nxdomain);
        name->is_reported = true;
        name_forget_answer(name);
        name->answered = name->knows[QUESTION_IPV4] = name->knows[QUESTION_IPV6] = true;
    }
    return is_gone;
}

static bool note_answer(struct name *name, const struct question_answer *answer)
{
    int changed = name->is_service ? take_services(name, answer) : take_addresses(name, answer);

    if (changed < 0)
        return note_failure(name, -EAGAIN, "out of memory");
    if (name->is_reported)
        log_notice("name %s is looked up again", name_host(name));
    name->is_reported = false;
    name->n_failures = name->n_nxdomain = 0;
    name->reason = "";
    name->answered = true;
    name->answered_ms = clock_wall_ms();
    name->ttl_ms = resolver_clamp_ttl(name->resolver, answer->ttl_s);
    return changed != 0;
}

static void on_answer(void *user, const struct question_answer *answer)
{
    struct name *name = user;
    bool is_news = !name->settled;

    name->question = NULL;
    name->settled = true;
    if (answer->status == 0)
        is_news |= note_answer(name, answer);
    else
        is_news |= note_failure(name, answer->status, answer->reason);
    if (name->n_failures == 0)
        name_ask_at_ttl(name);
    else if (name_is_wanted(name))
        name_ask_again(name);
    name_hand_out(name, is_news);
}

void name_on_time(uv_timer_t *timer)
{
    struct name *name = (struct name *) ((char *) timer - offsetof(struct name, timer));
    struct resolver *resolver = name->resolver;

    if (name->lookups == NULL) {
        name_free(name);
        return;
    }
    name->asked = true;
    name->asked_ms = uv_now(resolver->loop);
    if (question_ask(resolver->dns, resolver->hosts, name_host(name), name->is_service, on_answer,
                     name, &name->question) < 0)
        on_answer(name, &(struct question_answer){.status = -EAGAIN, .reason = "out of memory"});
}

static void on_name_closed(uv_handle_t *handle)
{
    struct name *name = (struct name *) ((char *) handle - offsetof(struct name, timer));

    resolver_on_closed(handle);
    free(name);
}

void name_free(struct name *name)
{
    question_cancel(name->question);
    name->question = NULL;
    name_forget_answer(name);
    HASH_DEL(name->resolver->names, name);
    uv_close((uv_handle_t *) &name->timer, on_name_closed);
}
