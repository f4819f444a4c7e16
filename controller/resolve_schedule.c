/* SPDX-License-Identifier: MIT */
#include <utlist.h>

#include "resolve_internal.h"

#define JITTER_SHARE 10 /* a TTL is stretched by at most its tenth */

uint64_t resolver_random(uint64_t max)
{
    uint32_t value = 0;

    /* Without, everything comes a little closer together. */
    uv_random(NULL, NULL, &value, sizeof(value), 0, NULL);
    return value % (max + 1);
}

uint64_t resolver_pace_ms(const struct resolver *resolver)
{
    return resolver->policy.min_ttl_ms < RESOLVE_PACE_MS ? resolver->policy.min_ttl_ms
                                                         : RESOLVE_PACE_MS;
}

void name_ask_within(struct name *name, uint64_t delay_ms)
{
    uint64_t now_ms = uv_now(name->resolver->loop);
    uint64_t free_ms = name->asked_ms + resolver_pace_ms(name->resolver);

    if (name->question != NULL)
        return;
    if (name->asked && free_ms > now_ms + delay_ms)
        delay_ms = free_ms - now_ms;
    if (!uv_is_active((uv_handle_t *) &name->timer) || uv_timer_get_due_in(&name->timer) > delay_ms)
        uv_timer_start(&name->timer, name_on_time, delay_ms, 0);
}

uint32_t resolver_clamp_ttl(const struct resolver *resolver, uint32_t ttl_s)
{
    const struct resolve_policy *policy = &resolver->policy;
    uint64_t ttl_ms = ttl_s == UINT32_MAX ? UINT64_MAX : (uint64_t) ttl_s * 1000;

    if (ttl_ms > policy->max_ttl_ms)
        ttl_ms = policy->max_ttl_ms;
    return ttl_ms < policy->min_ttl_ms ? policy->min_ttl_ms : (uint32_t) ttl_ms;
}

/*
 * Never before the TTL: a cache would tell the rest of it, and be asked again when that ends. The
 * stretch parts names whose TTLs ended together.
 */
void name_ask_at_ttl(struct name *name)
{
    if (name->resolver->policy.follow)
        name_ask_within(name, name->ttl_ms + resolver_random(name->ttl_ms / JITTER_SHARE));
}

static uint64_t retry_ms(const struct name *name)
{
    const struct resolve_policy *policy = &name->resolver->policy;
    uint64_t delay_ms = policy->min_ttl_ms, max_ms = RESOLVE_RETRY_MAX_MS;

    if (max_ms > policy->max_ttl_ms)
        max_ms = policy->max_ttl_ms;
    for (uint32_t i = 1; i < name->n_failures && delay_ms < max_ms; i++)
        delay_ms *= 2;
    if (delay_ms > max_ms)
        delay_ms = max_ms;
    if (delay_ms < policy->min_ttl_ms)
        delay_ms = policy->min_ttl_ms;
    return delay_ms + resolver_random(delay_ms / JITTER_SHARE);
}

void name_ask_again(struct name *name)
{
    name_ask_within(name, retry_ms(name));
}

bool name_is_wanted(const struct name *name)
{
    const struct lookup *lookup;

    if (name->resolver->policy.follow)
        return true;
    if (name->answered)
        return false;
    DL_FOREACH(name->lookups, lookup)
    {
        if (!lookup->has_addresses)
            return true;
    }
    return false;
}

/*
 * A name that nobody waits for has a second, others none; where there are thousands, they spread
 * out so that the answers fit into the socket's buffer.
 */
void name_ask_first(struct name *name, bool has_addresses)
{
    uint64_t spread_ms = HASH_COUNT(name->resolver->names) - 1;

    if (!name_is_wanted(name))
        return;
    if (has_addresses && spread_ms < RESOLVE_PACE_MS)
        spread_ms = RESOLVE_PACE_MS;
    name_ask_within(name, resolver_random(spread_ms));
}
