/* SPDX-License-Identifier: MIT */
/* What is handed out of SRV records and their targets. */
#include "resolver_scene.h"

static void lowest_priority_is_primary_and_the_rest_is_backup(void **state)
{
    struct record *srv = put((struct record){.name = "_http._tcp.test",
                                             .data = {"20 1 8003 b.test", "10 5 8001 a.test",
                                                      "10 0 8002 b.test", "30 1 8004 a.test"}});
    struct watcher watcher;

    (void) state;
    put((struct record){.name = "a.test", .data = {"127.0.0.1", "127.0.0.3"}});
    put((struct record){.name = "b.test", .data = {"127.0.0.2"}});
    watch_service(&watcher, "_http._tcp.test");
    AWAIT(watcher.n > 0);
    assert_string_equal(watcher.text, "127.0.0.1:8001*5 127.0.0.3:8001*5 127.0.0.2:8002*1 "
                                      "127.0.0.2:8003*1! 127.0.0.1:8004*1! 127.0.0.3:8004*1!");
    assert_int_equal(watcher.n, 1); /* not before all of it was known */
    srv->data[1] = "20 7 8001 a.test";
    AWAIT_TEXT(&watcher, "127.0.0.2:8002*1 127.0.0.1:8001*7! 127.0.0.3:8001*7! "
                         "127.0.0.2:8003*1! 127.0.0.1:8004*1! 127.0.0.3:8004*1!");
}

/* The service _x._tcp.test has one target, and the watcher knows it. */
static struct record *watch_one_target(struct watcher *watcher)
{
    struct record *srv = put((struct record){.name = "_x._tcp.test", .data = {"1 1 80 a.test"}});

    put((struct record){.name = "a.test", .data = {"127.0.0.1"}});
    watch_service(watcher, "_x._tcp.test");
    AWAIT_TEXT(watcher, "127.0.0.1:80*1");
    return srv;
}

static void targets_are_asked_for_at_their_own_ttl(void **state)
{
    struct record *a = put((struct record){.name = "a.test", .data = {"127.0.0.1"}}), *srv;
    struct watcher watcher;

    (void) state;
    srv = put((struct record){.name = "_x._tcp.test", .ttl_s = 3600, .data = {"1 1 80 a.test"}});
    use_policy(10, 3600000);
    watch_service(&watcher, "_x._tcp.test");
    AWAIT_TEXT(&watcher, "127.0.0.1:80*1");
    a->data[0] = "127.0.0.2";
    AWAIT_TEXT(&watcher, "127.0.0.2:80*1");
    assert_int_equal(srv->n_queries[0], 1);
}

static void new_targets_count_once_they_have_been_asked_for(void **state)
{
    struct record *srv, *b = put((struct record){.name = "b.test", .rcode = RCODE_FAILED});
    struct watcher watcher;

    (void) state;
    srv = watch_one_target(&watcher);
    /* The only target fails: what there was stays. */
    srv->data[0] = "1 1 80 b.test";
    AWAIT(b->n_queries[0] > 5);
    assert_int_equal(watcher.n, 1);
    b->rcode = RCODE_OK;
    b->data[0] = "127.0.0.2";
    AWAIT_TEXT(&watcher, "127.0.0.2:80*1");
}

static void records_that_name_no_place_change_nothing(void **state)
{
    static const char *const useless[] = {"0 0 0 .", "1 1 0 a.test"};
    struct record *srv;
    struct watcher watcher;

    (void) state;
    srv = watch_one_target(&watcher);
    for (size_t i = 0; i < 2; i++) {
        srv->data[0] = useless[i];
        AWAIT(lookup_state(watcher.lookup).n_failures > 3);
        assert_string_equal(lookup_state(watcher.lookup).last_reason,
                            "no SRV record names a host and a port");
        srv->data[0] = "1 1 80 a.test";
        AWAIT(lookup_state(watcher.lookup).n_failures == 0);
    }
    assert_int_equal(watcher.n, 1);
}

static void target_that_is_gone_takes_only_its_own_peers(void **state)
{
    struct record *a = put((struct record){.name = "a.test", .data = {"127.0.0.1"}});
    struct watcher watcher;

    (void) state;
    put((struct record){.name = "b.test", .data = {"127.0.0.2"}});
    put((struct record){.name = "_x._tcp.test", .data = {"1 1 80 a.test", "1 2 80 b.test"}});
    watch_service(&watcher, "_x._tcp.test");
    AWAIT_TEXT(&watcher, "127.0.0.1:80*1 127.0.0.2:80*2");
    a->rcode = RCODE_NO_NAME;
    AWAIT_TEXT(&watcher, "127.0.0.2:80*2");
}

static void addresses_of_a_service_have_the_limit_together(void **state)
{
    struct watcher watcher;

    (void) state;
    put((struct record){.name = "a.test", .data = {"127.0.0.1", "127.0.0.2"}});
    put((struct record){.name = "b.test", .data = {"127.0.0.3", "127.0.0.4"}});
    put((struct record){.name = "_x._tcp.test", .data = {"1 1 80 a.test", "2 1 80 b.test"}});
    policy.max_addresses = 3;
    use_policy(10, 40);
    watch_service(&watcher, "_x._tcp.test");
    AWAIT_TEXT(&watcher, "127.0.0.1:80*1 127.0.0.2:80*1 127.0.0.3:80*1!");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(lowest_priority_is_primary_and_the_rest_is_backup),
        TEST(targets_are_asked_for_at_their_own_ttl),
        TEST(new_targets_count_once_they_have_been_asked_for),
        TEST(records_that_name_no_place_change_nothing),
        TEST(target_that_is_gone_takes_only_its_own_peers),
        TEST(addresses_of_a_service_have_the_limit_together),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
