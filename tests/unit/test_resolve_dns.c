/* SPDX-License-Identifier: MIT */
#include "resolve_scene.h"

#include "resolve_dns.h"

static struct dns *dns;

struct reply {
    unsigned n;
    int status;
    char reason[64];
    char address[DURPINA_NAME_SIZE];
};

static void on_reply(void *user, int status, const char *reason, const uint8_t *bytes, size_t len)
{
    struct reply *reply = user;
    struct addr *addresses;
    uint32_t ttl_s;
    size_t n;

    reply->n++;
    reply->status = status;
    snprintf(reply->reason, sizeof(reply->reason), "%s", reason);
    if (status == 0 && answer_addresses(bytes, len, ANSWER_A, &addresses, &n, &ttl_s) == 0) {
        addr_format(&addresses[0], reply->address, sizeof(reply->address));
        free(addresses);
    }
}

static struct dns_query *ask(const char *name, struct reply *reply)
{
    struct dns_query *query = NULL;

    assert_int_equal(dns_ask(dns, name, ANSWER_A, on_reply, reply, &query), 0);
    assert_int_equal(reply->n, 0);
    return query;
}

static struct reply reply_to(const char *name)
{
    struct reply reply = {0};

    ask(name, &reply);
    AWAIT(reply.n > 0);
    assert_int_equal(reply.n, 1);
    return reply;
}

static void use_server(size_t i)
{
    const char *name = scene.servers[i].name;

    assert_int_equal(dns_set_servers(dns, &name, 1), 0);
}

static int set_up(void **state)
{
    (void) state;
    open_loop();
    assert_int_equal(dns_create(&scene.loop, &dns), 0);
    use_server(0);
    put((struct record){.name = "one.test", .data = {"127.0.0.1"}});
    put((struct record){.name = "empty.test"});
    put((struct record){.name = "failed.test", .rcode = RCODE_FAILED});
    put((struct record){.name = "silent.test", .rcode = RCODE_SILENT});
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    dns_destroy(dns);
    close_loop();
    return 0;
}

static void assert_failure(const char *name, int status, const char *reason)
{
    struct reply reply = reply_to(name);

    assert_int_equal(reply.status, status);
    assert_string_equal(reply.reason, reason);
}

static void failures_tell_a_missing_name_from_a_failing_server(void **state)
{
    (void) state;
    assert_failure("none.test", -ENOENT, "no such name");
    assert_failure("empty.test", -ENODATA, "the name has no address");
    assert_failure("failed.test", -EAGAIN, "the name servers failed or cannot be reached");
}

static void malformed_names_are_refused(void **state)
{
    static char longer[300];
    static const char *const names[] = {"a..b", longer};

    (void) state;
    memset(longer, 'a', sizeof(longer) - 1);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        assert_failure(names[i], -EINVAL, "not a host name");
    assert_int_equal(scene.servers[0].n_queries, 0);
}

static void silent_server_is_given_up_and_stops_no_other_query(void **state)
{
    uint64_t begin = uv_hrtime();
    struct reply silent = {0};

    (void) state;
    ask("silent.test", &silent);
    assert_int_equal(reply_to("one.test").status, 0);
    assert_int_equal(silent.n, 0);
    AWAIT(silent.n > 0);
    assert_int_equal(silent.status, -EAGAIN);
    assert_string_equal(silent.reason, "no answer from the name servers");
    assert_in_range((uv_hrtime() - begin) / 1000000, 1000, 15000);
}

static void queries_under_way_move_to_the_new_servers(void **state)
{
    struct reply reply = {0};

    (void) state;
    scene.servers[0].silent = true;
    scene.servers[1].address = "127.0.0.7";
    ask("one.test", &reply);
    AWAIT(scene.servers[0].n_queries > 0);
    use_server(1);
    AWAIT(reply.n > 0);
    assert_string_equal(reply.address, "127.0.0.7:0");
    assert_string_equal(reply_to("two.test").address, "127.0.0.7:0");
}

static void second_server_answers_for_a_silent_first(void **state)
{
    const char *names[] = {scene.servers[0].name, scene.servers[1].name};

    (void) state;
    scene.servers[0].silent = true;
    assert_int_equal(dns_set_servers(dns, names, 2), 0);
    assert_int_equal(reply_to("one.test").status, 0);
}

static void wrong_servers_are_refused_and_the_old_ones_stay(void **state)
{
    static const char *const wrong[] = {"dns.example",   "127.0.0.1:0",         "",
                                        "unix:/tmp/dns", "127.0.0.1,127.0.0.2", "[::1"};

    (void) state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        const char *names[] = {scene.servers[1].name, wrong[i]};

        assert_int_equal(dns_set_servers(dns, names, 2), -EINVAL);
    }
    assert_int_equal(reply_to("one.test").status, 0);
    assert_int_equal(scene.servers[1].n_queries, 0);
}

static void cancelled_queries_are_silent(void **state)
{
    struct reply asked = {0}, refused = {0};

    (void) state;
    dns_cancel(ask("one.test", &asked));
    dns_cancel(ask("a..b", &refused));
    dns_cancel(NULL);
    assert_int_equal(reply_to("one.test").status, 0);
    assert_int_equal(asked.n + refused.n, 0);
}

struct actor {
    struct reply reply;
    struct dns_query *own, *other;
};

static void act(void *user, int status, const char *reason, const uint8_t *bytes, size_t len)
{
    struct actor *actor = user;

    on_reply(&actor->reply, status, reason, bytes, len);
    dns_cancel(actor->own);
    dns_cancel(actor->other);
    use_server(1);
    actor->reply.n = 0;
    actor->own = ask("two.test", &actor->reply);
}

static void callback_may_cancel_switch_and_ask(void **state)
{
    struct reply other = {0};
    struct actor actor = {0};

    (void) state;
    scene.servers[1].address = "127.0.0.5";
    actor.other = ask("silent.test", &other);
    assert_int_equal(dns_ask(dns, "one.test", ANSWER_A, act, &actor, &actor.own), 0);
    AWAIT(actor.reply.n == 1 && strcmp(actor.reply.address, "127.0.0.5:0") == 0);
    assert_int_equal(other.n, 0);
}

static void name_with_a_dot_at_its_end_means_itself_only(void **state)
{
    char name[DNS_NAME_SIZE];

    (void) state;
    assert_int_equal(dns_full_name(dns, "one.test.", 0, name), 0);
    assert_string_equal(name, "one.test.");
    assert_int_equal(dns_full_name(dns, "one.test.", 1, name), -ENOENT);
    assert_int_equal(dns_full_name(dns, "one.test", 0, name), 0);
}

static void destroyed_it_leaves_nothing_of_queries(void **state)
{
    struct reply reply = {0};

    (void) state;
    ask("silent.test", &reply);
    dns_cancel(ask("one.test", &reply));
    AWAIT(scene.servers[0].n_queries > 0);
    ask("a..b", &reply);
    dns_destroy(dns);
    dns = NULL;
    uv_run(&scene.loop, UV_RUN_NOWAIT);
    assert_int_equal(reply.n, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(failures_tell_a_missing_name_from_a_failing_server),
        TEST(malformed_names_are_refused),
        TEST(silent_server_is_given_up_and_stops_no_other_query),
        TEST(queries_under_way_move_to_the_new_servers),
        TEST(second_server_answers_for_a_silent_first),
        TEST(wrong_servers_are_refused_and_the_old_ones_stay),
        TEST(cancelled_queries_are_silent),
        TEST(callback_may_cancel_switch_and_ask),
        TEST(name_with_a_dot_at_its_end_means_itself_only),
        TEST(destroyed_it_leaves_nothing_of_queries),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
