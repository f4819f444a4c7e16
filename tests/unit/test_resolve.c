/* SPDX-License-Identifier: MIT */
/* Names as callers see them. */
#include "resolver_scene.h"

/* --- what is handed out ----------------------------------------------------------------------- */

static void localhost_and_addresses_need_no_name_server(void **state)
{
    struct watcher local, v4, v6;

    (void) state;
    watch(&local, "localhost");
    watch(&v4, "127.0.0.9");
    watch(&v6, "::1");
    AWAIT(local.n > 0 && v4.n > 0 && v6.n > 0);
    assert_non_null(strstr(local.text, "127.0.0.1:80"));
    assert_string_equal(v4.text, "127.0.0.9:80");
    assert_string_equal(v6.text, "[::1]:80");
    assert_int_equal(scene.servers[0].n_queries, 0);
}

static void addresses_are_sorted_and_each_is_there_once(void **state)
{
    struct record *many =
        put((struct record){.name = "many.test",
                            .data = {"127.0.0.3", "::1", "127.0.0.1", "127.0.0.2", "127.0.0.1"}});
    struct watcher watcher;

    (void) state;
    watch(&watcher, "Many.Test");
    AWAIT(many->n_queries[0] > 8); /* the server rotates its records */
    assert_string_equal(watcher.text, "127.0.0.1:80 127.0.0.2:80 127.0.0.3:80 [::1]:80");
    assert_int_equal(watcher.n, 1);
}

static void changes_are_handed_out_and_nothing_else(void **state)
{
    struct record *name = put((struct record){.name = "a.test", .data = {"127.0.0.1"}});
    struct watcher watcher;
    unsigned before;

    (void) state;
    watch(&watcher, "a.test");
    AWAIT_TEXT(&watcher, "127.0.0.1:80");
    before = name->n_queries[0];
    AWAIT(name->n_queries[0] > before + 3);
    assert_int_equal(watcher.n, 1);
    name->data[1] = "127.0.0.2";
    AWAIT_TEXT(&watcher, "127.0.0.1:80 127.0.0.2:80");
    name->data[0] = NULL;
    AWAIT_TEXT(&watcher, "127.0.0.2:80");
    assert_int_equal(watcher.n, 3);
}

static void one_question_serves_all_who_look(void **state)
{
    struct record *name =
        put((struct record){.name = "a.test", .ttl_s = 60, .data = {"127.0.0.1"}});
    struct watcher watchers[5], late;

    (void) state;
    use_policy(1000, 60000);
    for (size_t i = 0; i < 5; i++)
        watch(&watchers[i], "a.test");
    for (size_t i = 0; i < 5; i++)
        AWAIT_TEXT(&watchers[i], "127.0.0.1:80");
    watch(&late, "a.test");
    AWAIT_TEXT(&late, "127.0.0.1:80");
    assert_int_equal(name->n_queries[0], 1);
    assert_int_equal(name->n_queries[1], 1);
}

static void answer_that_could_not_be_taken_comes_again(void **state)
{
    struct watcher watcher;

    (void) state;
    put((struct record){.name = "a.test", .ttl_s = 3600, .data = {"127.0.0.1"}});
    use_policy(10, 3600000);
    watch(&watcher, "a.test");
    watcher.refusals = 2;
    AWAIT_TEXT(&watcher, "127.0.0.1:80");
    assert_int_equal(watcher.n, 3);
    assert_true(lookup_is_followed(watcher.lookup));
}

static void addresses_beyond_the_limit_are_left_out(void **state)
{
    struct record *name =
        put((struct record){.name = "a.test",
                            .data = {"127.0.0.4", "127.0.0.2", "127.0.0.3", "127.0.0.1"}});
    struct watcher watcher;

    (void) state;
    policy.max_addresses = 3;
    use_policy(10, 40);
    watch(&watcher, "a.test");
    AWAIT(name->n_queries[0] > 4);
    assert_string_equal(watcher.text, "127.0.0.1:80 127.0.0.2:80 127.0.0.3:80");
    assert_int_equal(watcher.n, 1);
    policy.max_addresses = 4;
    use_policy(10, 40);
    AWAIT(watcher.n_addresses == 4);
}

/* --- when it is asked ------------------------------------------------------------------------- */

static void ttl_is_honoured_between_floor_and_ceiling(void **state)
{
    struct watcher low, exact, high;
    struct lookup_state at;

    (void) state;
    put((struct record){.name = "low.test", .ttl_s = 0, .data = {"127.0.0.1"}});
    put((struct record){.name = "exact.test", .ttl_s = 20, .data = {"127.0.0.1"}});
    put((struct record){.name = "high.test", .ttl_s = 86400, .data = {"127.0.0.1"}});
    use_policy(1000, 300000);
    watch(&low, "low.test");
    watch(&exact, "exact.test");
    watch(&high, "high.test");
    AWAIT(low.n > 0 && exact.n > 0 && high.n > 0);
    at = lookup_state(low.lookup);
    assert_int_equal(at.ttl_ms, 1000);
    assert_in_range(at.next_ms, 0, 1100);
    at = lookup_state(exact.lookup);
    assert_int_equal(at.ttl_ms, 20000);
    assert_in_range(at.next_ms, 19000, 22000);
    at = lookup_state(high.lookup);
    assert_int_equal(at.ttl_ms, 300000);
    assert_in_range(at.next_ms, 299000, 330000);
    assert_int_equal(at.n_failures, 0);
    assert_string_equal(at.last_reason, "");
    assert_true(at.answered_ms > 1600000000000);
}

static void thousand_names_of_equal_ttl_are_not_asked_for_at_once(void **state)
{
    enum { N = 1000, TENTHS = 10 };
    struct watcher *watchers = calloc(N, sizeof(*watchers));
    unsigned n_due[TENTHS] = {0};

    (void) state;
    assert_non_null(watchers);
    scene.servers[0].address = "127.0.0.1"; /* whatever the name, for 60 s */
    use_policy(1000, 300000);
    for (int i = 0; i < N; i++) {
        char name[32];

        snprintf(name, sizeof(name), "n%d.test", i);
        watch(&watchers[i], name);
    }
    for (int i = 0; i < N; i++)
        AWAIT(watchers[i].n > 0);
    for (int i = 0; i < N; i++) {
        uint64_t next_ms = lookup_state(watchers[i].lookup).next_ms;

        /* From a second or so before 60 s, by now, to 6 s later. */
        assert_in_range(next_ms, 50000, 66000);
        n_due[(next_ms - 50000) * TENTHS / 16001]++;
    }
    for (int i = 0; i < TENTHS; i++)
        assert_in_range(n_due[i], 0, N / 2);
    assert_int_equal(scene.servers[0].n_queries, 2 * N);
    free(watchers);
}

static void whoever_asks_there_is_one_query_a_pace(void **state)
{
    struct record *name = put((struct record){.name = "a.test", .data = {"127.0.0.1"}});
    uint64_t begin = uv_hrtime(), until = begin + 400 * 1000000ull;
    struct watcher watcher;
    unsigned longest;

    (void) state;
    use_policy(100, 60000);
    watch(&watcher, "a.test");
    for (unsigned i = 0; uv_hrtime() < until; i++) {
        if (i % 3 == 0) {
            lookup_cancel(watcher.lookup);
            watch(&watcher, "a.test");
        }
        lookup_hurry(watcher.lookup);
        uv_run(&scene.loop, UV_RUN_NOWAIT);
    }
    longest = (unsigned) ((uv_hrtime() - begin) / 100000000);
    assert_in_range(name->n_queries[0], 2, longest + 1);
}

static void not_followed_a_name_is_asked_for_until_it_has_an_answer(void **state)
{
    struct record *later = put((struct record){.name = "later.test", .rcode = RCODE_FAILED});
    struct record *known = put((struct record){.name = "known.test", .data = {"127.0.0.2"}});
    struct watcher waiting, served;

    (void) state;
    policy.follow = false;
    use_policy(10, 40);
    watch_as(&served, "known.test", false, true);
    watch(&waiting, "later.test");
    AWAIT(later->n_queries[0] > 4);
    later->rcode = RCODE_OK;
    later->data[0] = "127.0.0.1";
    AWAIT_TEXT(&waiting, "127.0.0.1:80");
    assert_int_equal(lookup_state(waiting.lookup).next_ms, UINT64_MAX);
    assert_int_equal(known->n_queries[0], 0);
    assert_false(lookup_is_followed(waiting.lookup));
    lookup_hurry(served.lookup);
    AWAIT_TEXT(&served, "127.0.0.2:80");
    policy.follow = true;
    use_policy(10, 40);
    AWAIT(known->n_queries[0] > 2 && later->n_queries[0] > 0);
}

/* --- failures --------------------------------------------------------------------------------- */

static void no_failure_takes_addresses_away(void **state)
{
    static const struct {
        int rcode;
        const char *reason;
    } failures[] = {
        {RCODE_FAILED, "the name servers failed or cannot be reached"},
        {RCODE_OK, "the name has no address"},
        {5 /* REFUSED */, "the name servers failed or cannot be reached"},
        {1 /* FORMERR */, NULL},
    };
    struct record *name = put((struct record){.name = "a.test", .data = {"127.0.0.1"}});
    struct watcher watcher;

    (void) state;
    watch(&watcher, "a.test");
    AWAIT_TEXT(&watcher, "127.0.0.1:80");
    for (size_t i = 0; i < sizeof(failures) / sizeof(failures[0]); i++) {
        name->rcode = failures[i].rcode;
        name->data[0] = NULL;
        AWAIT(lookup_state(watcher.lookup).n_failures > 5);
        if (failures[i].reason != NULL)
            assert_string_equal(lookup_state(watcher.lookup).last_reason, failures[i].reason);
        name->rcode = RCODE_OK;
        name->data[0] = "127.0.0.1";
        AWAIT(lookup_state(watcher.lookup).n_failures == 0);
    }
    assert_int_equal(watcher.n, 1);
}

static void tries_of_a_failing_name_become_rarer(void **state)
{
    struct watcher watcher;

    (void) state;
    put((struct record){.name = "a.test", .rcode = RCODE_FAILED});
    use_policy(20, 3600000);
    watch(&watcher, "a.test");
    AWAIT(lookup_state(watcher.lookup).n_failures == 4 && lookup_state(watcher.lookup).next_ms > 0);
    assert_in_range(lookup_state(watcher.lookup).next_ms, 130, 176);
    assert_int_equal(watcher.n, 0);
}

static void only_nxdomain_in_a_row_takes_addresses_away(void **state)
{
    struct record *name = put((struct record){.name = "a.test", .data = {"127.0.0.1"}});
    struct watcher watcher;

    (void) state;
    watch(&watcher, "a.test");
    AWAIT_TEXT(&watcher, "127.0.0.1:80");
    /* Two, and something else. */
    for (int i = 0; i < 3; i++) {
        name->rcode = RCODE_NO_NAME;
        AWAIT(lookup_state(watcher.lookup).n_failures == 3u * (unsigned) i + 2);
        name->rcode = RCODE_FAILED;
        AWAIT(lookup_state(watcher.lookup).n_failures == 3u * (unsigned) i + 3);
    }
    assert_int_equal(watcher.n, 1);
    name->rcode = RCODE_NO_NAME;
    AWAIT(watcher.n == 2);
    assert_int_equal(watcher.n_addresses, 0);
    assert_int_equal(lookup_state(watcher.lookup).n_failures, 12);
    name->rcode = RCODE_OK;
    AWAIT_TEXT(&watcher, "127.0.0.1:80");
}

static void nxdomain_takes_nothing_away_if_it_is_not_to(void **state)
{
    struct record *name = put((struct record){.name = "a.test", .data = {"127.0.0.1"}});
    struct watcher watcher;

    (void) state;
    policy.max_nxdomain = 0;
    use_policy(5, 10);
    watch(&watcher, "a.test");
    AWAIT_TEXT(&watcher, "127.0.0.1:80");
    name->rcode = RCODE_NO_NAME;
    AWAIT(lookup_state(watcher.lookup).n_failures > 10);
    assert_int_equal(watcher.n, 1);
}

static void family_that_fails_keeps_its_addresses(void **state)
{
    struct record *name = put((struct record){.name = "a.test", .data = {"127.0.0.1", "::1"}});
    struct watcher watcher, broken;
    unsigned before;

    (void) state;
    put((struct record){.name = "v4.test", .rcode_v6 = RCODE_FAILED, .data = {"127.0.0.4"}});
    watch(&watcher, "a.test");
    watch(&broken, "v4.test"); /* a server that cannot do AAAA at all */
    AWAIT_TEXT(&watcher, "127.0.0.1:80 [::1]:80");
    AWAIT_TEXT(&broken, "127.0.0.4:80");
    name->rcode_v6 = RCODE_FAILED;
    name->data[0] = "127.0.0.2";
    AWAIT_TEXT(&watcher, "127.0.0.2:80 [::1]:80");
    before = name->n_queries[1];
    AWAIT(name->n_queries[1] > before + 6);
    assert_int_equal(watcher.n, 2);
    name->rcode_v6 = RCODE_OK;
    name->data[1] = NULL;
    AWAIT_TEXT(&watcher, "127.0.0.2:80");
}

static void half_of_all_answers_may_fail(void **state)
{
    static const int rcodes[] = {RCODE_OK, RCODE_FAILED, RCODE_OK, 5};
    struct record *a =
        put((struct record){.name = "a.test", .data = {"127.0.0.1", "127.0.0.2", "::1"}});
    struct record *srv =
        put((struct record){.name = "_x._tcp.test", .data = {"1 1 80 a.test", "2 1 81 a.test"}});
    struct record whole_a = *a, whole_srv = *srv;
    struct watcher name, service;
    char first[512];

    (void) state;
    use_policy(2, 5);
    watch(&name, "a.test");
    watch_service(&service, "_x._tcp.test");
    AWAIT(name.n > 0 && service.n_addresses == 6);
    strcpy(first, service.text);
    srandom(1);
    for (int i = 0; i < 3000; i++) {
        long dice = random() % 8;

        memcpy(a->data, whole_a.data, sizeof(a->data));
        memcpy(srv->data, whole_srv.data, sizeof(srv->data));
        a->rcode = srv->rcode = dice < 4 ? RCODE_OK : rcodes[dice % 4];
        if (dice >= 4 && a->rcode == RCODE_OK) { /* an empty answer */
            memset(a->data, 0, sizeof(a->data));
            memset(srv->data, 0, sizeof(srv->data));
        }
        uv_run(&scene.loop, UV_RUN_ONCE);
    }
    assert_int_equal(name.n, 1);
    assert_int_equal(service.n, 1);
    assert_string_equal(service.text, first);
}

static void other_name_servers_are_asked_at_once(void **state)
{
    const char *first = scene.servers[0].name, *second = scene.servers[1].name;
    struct watcher watcher;

    (void) state;
    put((struct record){.name = "a.test", .rcode = RCODE_FAILED});
    use_policy(10, 3600000);
    watch(&watcher, "a.test");
    AWAIT(lookup_state(watcher.lookup).n_failures > 3);
    scene.servers[1].address = "127.0.0.7";
    assert_int_equal(resolver_set_servers(resolver, &second, 1), 0);
    AWAIT_TEXT(&watcher, "127.0.0.7:80");

    /* Of a name that has an answer for the next hour, too. */
    scene.servers[0].address = "127.0.0.6";
    assert_int_equal(resolver_set_servers(resolver, &first, 1), 0);
    AWAIT_TEXT(&watcher, "127.0.0.6:80");
}

/* --- life ------------------------------------------------------------------------------------- */

struct actor {
    struct watcher other, own, again;
};

static int act(void *user, const struct resolved *resolved, size_t n)
{
    struct actor *actor = user;

    (void) resolved;
    assert_int_equal(n, 1);
    lookup_cancel(actor->other.lookup);
    lookup_cancel(actor->own.lookup);
    watch(&actor->again, "a.test");
    return -ENOSPC; /* nobody is left to hear that */
}

static void callback_may_cancel_and_look_up(void **state)
{
    struct actor actor = {0};

    (void) state;
    put((struct record){.name = "a.test", .data = {"127.0.0.1"}});
    assert_int_equal(resolver_look_up(resolver, "a.test", false, 80, false, act, &actor,
                                      &actor.own.lookup),
                     0);
    watch(&actor.other, "a.test");
    AWAIT_TEXT(&actor.again, "127.0.0.1:80");
    assert_int_equal(actor.other.n, 0);
}

static void cancelled_lookups_are_silent(void **state)
{
    struct watcher cancelled, other;

    (void) state;
    put((struct record){.name = "a.test", .data = {"127.0.0.1"}});
    watch(&cancelled, "a.test");
    lookup_cancel(cancelled.lookup);
    lookup_cancel(NULL);
    watch(&other, "a.test");
    AWAIT(other.n > 0);
    assert_int_equal(cancelled.n, 0);
}

static void destroyed_resolver_leaves_nothing_of_lookups(void **state)
{
    struct watcher watchers[4];
    struct record *silent = put((struct record){.name = "silent.test", .rcode = RCODE_SILENT});

    (void) state;
    put((struct record){.name = "a.test", .data = {"127.0.0.1"}});
    put((struct record){.name = "_x._tcp.test", .data = {"1 1 80 a.test", "1 2 80 silent.test"}});
    watch(&watchers[0], "silent.test");
    watch_service(&watchers[1], "_x._tcp.test");
    watch(&watchers[2], "127.0.0.1");
    AWAIT(silent->n_queries[0] > 0);
    lookup_cancel(watchers[0].lookup);
    watch(&watchers[3], "127.0.0.1");
    resolver_destroy(resolver);
    resolver = NULL;
    uv_run(&scene.loop, UV_RUN_NOWAIT);
    assert_int_equal(watchers[1].n + watchers[3].n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(localhost_and_addresses_need_no_name_server),
        TEST(addresses_are_sorted_and_each_is_there_once),
        TEST(changes_are_handed_out_and_nothing_else),
        TEST(one_question_serves_all_who_look),
        TEST(answer_that_could_not_be_taken_comes_again),
        TEST(addresses_beyond_the_limit_are_left_out),
        TEST(ttl_is_honoured_between_floor_and_ceiling),
        TEST(thousand_names_of_equal_ttl_are_not_asked_for_at_once),
        TEST(whoever_asks_there_is_one_query_a_pace),
        TEST(not_followed_a_name_is_asked_for_until_it_has_an_answer),
        TEST(no_failure_takes_addresses_away),
        TEST(tries_of_a_failing_name_become_rarer),
        TEST(only_nxdomain_in_a_row_takes_addresses_away),
        TEST(nxdomain_takes_nothing_away_if_it_is_not_to),
        TEST(family_that_fails_keeps_its_addresses),
        TEST(half_of_all_answers_may_fail),
        TEST(other_name_servers_are_asked_at_once),
        TEST(callback_may_cancel_and_look_up),
        TEST(cancelled_lookups_are_silent),
        TEST(destroyed_resolver_leaves_nothing_of_lookups),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
