/* SPDX-License-Identifier: MIT */
#include "resolve.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "log.h"
#include "resolve_internal.h"

const struct resolve_policy resolve_policy_default = {
    .follow = true,
    .min_ttl_ms = 1000,
    .max_ttl_ms = 300000,
    .max_nxdomain = 3,
    .max_addresses = 256,
};

void resolver_on_closed(uv_handle_t *handle)
{
    struct resolver *resolver = handle->data;

    if (--resolver->n_open == 0)
        free(resolver);
}

static int name_find_or_add(struct resolver *resolver, const char *host, bool is_service,
                            struct name **ret)
{
    size_t len = strlen(host) + 1;
    struct name *name = calloc(1, sizeof(*name) + len + 1), *known;

    if (name == NULL)
        return -ENOMEM;
    name->key[0] = is_service ? 'S' : 'A';
    for (size_t i = 0; i < len; i++)
        name->key[i + 1] = (char) tolower((unsigned char) host[i]);
    HASH_FIND_STR(resolver->names, name->key, known);
    if (known != NULL) {
        free(name);
        *ret = known;
        return 0;
    }
    name->resolver = resolver;
    name->is_service = is_service;
    name->reason = "";
    uv_timer_init(resolver->loop, &name->timer);
    name->timer.data = resolver;
    resolver->n_open++;
    HASH_ADD_STR(resolver->names, key, name);
    *ret = name;
    return 0;
}

int lookup_start(struct resolver *resolver, const char *host, bool is_service,
                 const struct lookup *as, struct lookup **ret)
{
    struct lookup *lookup = malloc(sizeof(*lookup));
    struct name *name;

    if (lookup == NULL)
        return -ENOMEM;
    if (name_find_or_add(resolver, host, is_service, &name) < 0) {
        free(lookup);
        return -ENOMEM;
    }
    *lookup = *as;
    lookup->name = name;
    DL_APPEND(name->lookups, lookup);
    if (name->answered && lookup->owner == NULL)
        lookup_set_due(lookup);
    else if (name->settled && !lookup->has_addresses)
        name_ask_within(name, 0);
    if (name->question == NULL && !uv_is_active((uv_handle_t *) &name->timer))
        name_ask_first(name, lookup->has_addresses);
    *ret = lookup;
    return 0;
}

int resolver_look_up(struct resolver *resolver, const char *host, bool is_service, uint16_t port,
                     bool has_addresses, lookup_cb cb, void *user, struct lookup **ret)
{
    const struct lookup as = {
        .has_addresses = has_addresses,
        .port = port,
        .cb = cb,
        .user = user,
    };

    return lookup_start(resolver, host, is_service, &as, ret);
}

void lookup_cancel(struct lookup *lookup)
{
    struct resolver *resolver;
    struct name *name;
    uint64_t now_ms, free_ms;

    if (lookup == NULL)
        return;
    name = lookup->name;
    resolver = name->resolver;
    lookup_clear_due(lookup);
    if (resolver->delivering == lookup)
        resolver->delivering = NULL;
    DL_DELETE(name->lookups, lookup);
    free(lookup);
    if (name->lookups != NULL || resolver->closing)
        return;
    now_ms = uv_now(resolver->loop);
    free_ms = name->asked_ms + resolver_pace_ms(resolver);
    if (!name->asked || free_ms <= now_ms) {
        name_free(name);
        return;
    }
    /* R2: whoever takes it away and brings it back at once would have it asked for each time. */
    question_cancel(name->question);
    name->question = NULL;
    uv_timer_start(&name->timer, name_on_time, free_ms - now_ms, 0);
}

void lookup_hurry(struct lookup *lookup)
{
    struct name *name = lookup->name;

    name_ask_within(name, 0);
    for (size_t i = 0; i < name->n_services; i++)
        name_ask_within(name->targets[i]->name, 0);
}

bool lookup_knows(const struct lookup *lookup, int family)
{
    return lookup->is_whole ||
           name_knows(lookup->name, family == AF_INET ? QUESTION_IPV4 : QUESTION_IPV6);
}

bool lookup_is_followed(const struct lookup *lookup)
{
    return lookup != NULL && lookup->served && lookup->name->resolver->policy.follow;
}

struct lookup_state lookup_state(const struct lookup *lookup)
{
    const struct name *name = lookup->name;
    struct lookup_state state = {
        .answered_ms = name->answered_ms,
        .next_ms = UINT64_MAX,
        .ttl_ms = name->ttl_ms,
        .n_failures = name->n_failures,
        .last_reason = name->reason,
    };

    if (name->question != NULL)
        state.next_ms = 0;
    else if (uv_is_active((const uv_handle_t *) &name->timer))
        state.next_ms = uv_timer_get_due_in(&name->timer);
    return state;
}

/* --- the resolver ----------------------------------------------------------------------------- */

/* Other name servers, or another hosts file, may know something else. */
static void hurry_all(struct resolver *resolver, bool services_too)
{
    uint64_t spread_ms = HASH_COUNT(resolver->names);

    for (struct name *name = resolver->names; name != NULL; name = name->hh.next)
        if (name_is_wanted(name) && (services_too || !name->is_service))
            name_ask_within(name, resolver_random(spread_ms));
}

static void on_resolv_conf(uv_fs_poll_t *poll, int status, const uv_stat_t *before,
                           const uv_stat_t *now)
{
    struct resolver *resolver = poll->data;

    (void) before;
    (void) now;
    if (status < 0)
        return;
    if (dns_reload(resolver->dns) < 0) {
        log_error("resolv.conf has changed and cannot be read: out of memory");
        return;
    }
    log_notice("resolv.conf has changed and is read again");
    hurry_all(resolver, true);
}

static void on_hosts(uv_fs_poll_t *poll, int status, const uv_stat_t *before, const uv_stat_t *now)
{
    (void) status;
    (void) before;
    (void) now;
    hurry_all(poll->data, false);
}

int resolver_create(uv_loop_t *loop, struct resolver **ret)
{
    static const struct {
        const char *path;
        uv_fs_poll_cb cb;
    } files[RESOLVE_FILES] = {{"/etc/resolv.conf", on_resolv_conf}, {"/etc/hosts", on_hosts}};
    struct resolver *resolver = calloc(1, sizeof(*resolver));
    int err;

    if (resolver == NULL)
        return -ENOMEM;
    err = dns_create(loop, &resolver->dns);
    if (err == 0)
        err = hosts_create(&resolver->hosts);
    if (err < 0) {
        dns_destroy(resolver->dns);
        free(resolver);
        return err;
    }
    resolver->loop = loop;
    resolver->policy = resolve_policy_default;
    uv_timer_init(loop, &resolver->deliver);
    resolver->deliver.data = resolver;
    resolver->n_open = 1;
    for (size_t i = 0; i < RESOLVE_FILES; i++) {
        uv_fs_poll_init(loop, &resolver->files[i]);
        resolver->files[i].data = resolver;
        resolver->n_open++;
        if (uv_fs_poll_start(&resolver->files[i], files[i].cb, files[i].path, RESOLVE_FILES_MS) < 0)
            log_error("changes of %s will not be noticed: out of memory", files[i].path);
    }
    *ret = resolver;
    return 0;
}

void resolver_destroy(struct resolver *resolver)
{
    struct name *name, *next;

    if (resolver == NULL)
        return;
    resolver->closing = true; /* names stay, whoever lets go of them */
    HASH_ITER(hh, resolver->names, name, next)
    {
        struct lookup *lookup, *after;

        DL_FOREACH_SAFE(name->lookups, lookup, after)
        {
            if (lookup->owner == NULL)
                lookup_cancel(lookup);
        }
        name_forget_answer(name);
    }
    HASH_ITER(hh, resolver->names, name, next)
    name_free(name);
    hosts_destroy(resolver->hosts);
    dns_destroy(resolver->dns);
    uv_close((uv_handle_t *) &resolver->deliver, resolver_on_closed);
    for (size_t i = 0; i < RESOLVE_FILES; i++)
        uv_close((uv_handle_t *) &resolver->files[i], resolver_on_closed);
}

int resolver_set_servers(struct resolver *resolver, const char *const *servers, size_t n)
{
    int err = dns_set_servers(resolver->dns, servers, n);

    if (err < 0)
        return err;
    hurry_all(resolver, true);
    return 0;
}

void resolver_set_policy(struct resolver *resolver, const struct resolve_policy *policy)
{
    resolver->policy = *policy;
    for (struct name *name = resolver->names; name != NULL; name = name->hh.next) {
        if (!name_is_wanted(name)) {
            if (name->lookups != NULL)
                uv_timer_stop(&name->timer);
            continue;
        }
        if (name->n_failures == 0 && name->answered) {
            name->ttl_ms = resolver_clamp_ttl(resolver, (name->ttl_ms + 999) / 1000);
            name_ask_at_ttl(name);
        } else if (!uv_is_active((uv_handle_t *) &name->timer)) {
            name_ask_first(name, true);
        }
    }
}
