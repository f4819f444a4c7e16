/* SPDX-License-Identifier: MIT */
/* A resolver that counts in milliseconds instead of seconds, and who looks names up. */
#ifndef TESTS_RESOLVER_SCENE_H
#define TESTS_RESOLVER_SCENE_H

#include "resolve_scene.h"

#include "resolve.h"

static struct resolver *resolver;
static struct resolve_policy policy;

struct watcher {
    struct lookup *lookup;
    unsigned n;
    char text[512]; /* "a:1 b:1", with "*WEIGHT" of an SRV record, and "!" if it is a backup */
    size_t n_addresses;
    unsigned refusals; /* so many answers are not taken */
};

static int on_resolved(void *user, const struct resolved *resolved, size_t n)
{
    struct watcher *watcher = user;
    size_t used = 0;

    watcher->n++;
    if (watcher->refusals > 0) {
        watcher->refusals--;
        return -ENOSPC;
    }
    watcher->text[0] = '\0';
    watcher->n_addresses = n;
    for (size_t i = 0; i < n && i < 8; i++) {
        char address[DURPINA_NAME_SIZE], weight[16] = "";

        addr_format(&resolved[i].addr, address, sizeof(address));
        if (resolved[i].srv_weight != 0)
            snprintf(weight, sizeof(weight), "*%u", resolved[i].srv_weight);
        used += (size_t) snprintf(watcher->text + used, sizeof(watcher->text) - used, "%s%s%s%s",
                                  i > 0 ? " " : "", address, weight, resolved[i].backup ? "!" : "");
    }
    return 0;
}

static void watch_as(struct watcher *watcher, const char *host, bool is_service, bool has_addresses)
{
    memset(watcher, 0, sizeof(*watcher));
    assert_int_equal(resolver_look_up(resolver, host, is_service, 80, has_addresses, on_resolved,
                                      watcher, &watcher->lookup),
                     0);
    assert_int_equal(watcher->n, 0);
}

static inline void watch(struct watcher *watcher, const char *host)
{
    watch_as(watcher, host, false, false);
}

static inline void watch_service(struct watcher *watcher, const char *name)
{
    watch_as(watcher, name, true, false);
}

#define AWAIT_TEXT(watcher, wanted) AWAIT(strcmp((watcher)->text, wanted) == 0)

static void use_policy(uint32_t min_ttl_ms, uint32_t max_ttl_ms)
{
    policy.min_ttl_ms = min_ttl_ms;
    policy.max_ttl_ms = max_ttl_ms;
    resolver_set_policy(resolver, &policy);
}

static int set_up(void **state)
{
    const char *server;

    (void) state;
    open_loop();
    assert_int_equal(resolver_create(&scene.loop, &resolver), 0);
    server = scene.servers[0].name;
    assert_int_equal(resolver_set_servers(resolver, &server, 1), 0);
    policy = resolve_policy_default;
    use_policy(10, 40);
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    resolver_destroy(resolver);
    close_loop();
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif
