/* SPDX-License-Identifier: MIT */
/* What a host may mean: the environment stands for resolv.conf's `search` and `ndots`. */
#include "resolve_scene.h"

#include "resolve_question.h"

static struct dns *dns;
static struct hosts *hosts;

struct said {
    unsigned n;
    int status;
    char reason[64];
    char first[DURPINA_NAME_SIZE]; /* address or target */
    size_t n_items;
    bool failed[QUESTION_FAMILIES];
};

static void on_said(void *user, const struct question_answer *answer)
{
    struct said *said = user;

    said->n++;
    said->status = answer->status;
    snprintf(said->reason, sizeof(said->reason), "%s", answer->reason);
    said->n_items = answer->n_addresses + answer->n_services;
    memcpy(said->failed, answer->failed, sizeof(said->failed));
    if (answer->n_addresses > 0)
        addr_format(&answer->addresses[0], said->first, sizeof(said->first));
    else if (answer->n_services > 0)
        snprintf(said->first, sizeof(said->first), "%s", answer->services[0].target);
}

static struct said said_of(const char *host, bool is_service)
{
    struct question *question;
    struct said said = {0};

    assert_int_equal(question_ask(dns, hosts, host, is_service, on_said, &said, &question), 0);
    AWAIT(said.n > 0);
    return said;
}

static void assert_address(const char *host, const char *address)
{
    struct said said = said_of(host, false);

    assert_int_equal(said.status, 0);
    assert_string_equal(said.first, address);
}

static void assert_failure(const char *host, int status, const char *reason)
{
    struct said said = said_of(host, false);

    assert_int_equal(said.status, status);
    assert_string_equal(said.reason, reason);
}

static int set_up(void **state)
{
    const char *server;

    (void) state;
    setenv("LOCALDOMAIN", "one.test two.test", 1);
    setenv("RES_OPTIONS", "ndots:2", 1);
    open_loop();
    assert_int_equal(dns_create(&scene.loop, &dns), 0);
    assert_int_equal(hosts_create(&hosts), 0);
    server = scene.servers[0].name;
    assert_int_equal(dns_set_servers(dns, &server, 1), 0);
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    hosts_destroy(hosts);
    dns_destroy(dns);
    close_loop();
    return 0;
}

static void short_names_are_searched_for(void **state)
{
    (void) state;
    put((struct record){.name = "a.two.test", .data = {"127.0.0.2"}});
    put((struct record){.name = "b", .data = {"127.0.0.3"}});
    put((struct record){.name = "c.d.e", .data = {"127.0.0.4"}});
    put((struct record){.name = "c.d.e.one.test", .data = {"127.0.0.5"}});
    assert_address("a", "127.0.0.2:0");
    assert_address("b", "127.0.0.3:0"); /* as it is, at last */
    assert_address("c.d.e", "127.0.0.4:0");
    assert_failure("a.", -ENOENT, "no such name");
}

static void search_goes_on_behind_a_name_without_addresses(void **state)
{
    (void) state;
    put((struct record){.name = "a.one.test"});
    put((struct record){.name = "a.two.test", .data = {"127.0.0.2"}});
    put((struct record){.name = "b.one.test"});
    assert_address("a", "127.0.0.2:0");
    assert_failure("b", -ENODATA, "the name has no address");
}

static void nothing_stands_in_for_a_name_whose_server_fails(void **state)
{
    (void) state;
    put((struct record){.name = "a.one.test", .rcode = RCODE_FAILED});
    put((struct record){.name = "a.two.test", .data = {"127.0.0.2"}});
    assert_failure("a", -EAGAIN, "the name servers failed or cannot be reached");
}

static void one_family_may_fail(void **state)
{
    struct said said;

    (void) state;
    put((struct record){.name = "a.one.test", .rcode_v6 = RCODE_FAILED, .data = {"127.0.0.1"}});
    put((struct record){.name = "b.one.test", .rcode_v6 = RCODE_FAILED});
    said = said_of("a", false);
    assert_int_equal(said.status, 0);
    assert_int_equal(said.n_items, 1);
    assert_false(said.failed[QUESTION_IPV4]);
    assert_true(said.failed[QUESTION_IPV6]);
    /* Empty, and nobody knows of the rest. */
    assert_failure("b", -EAGAIN, "the name servers failed or cannot be reached");
}

static void services_are_asked_for_by_their_name(void **state)
{
    struct said said;

    (void) state;
    put((struct record){.name = "_x._tcp.a.test", .data = {"1 1 80 b.test", "2 1 80 c.test"}});
    said = said_of("_x._tcp.a.test", true);
    assert_int_equal(said.status, 0);
    assert_int_equal(said.n_items, 2);
    assert_string_equal(said.first, "b.test");
    said = said_of("_y._tcp.a.test", true);
    assert_int_equal(said.status, -ENOENT);
}

static void hosts_file_and_addresses_are_answered_at_once(void **state)
{
    static const char *const known[] = {"localhost", "localhost.", "127.0.0.1", "::1"};

    (void) state;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        struct question *question;
        struct said said = {0};

        assert_int_equal(question_ask(dns, hosts, known[i], false, on_said, &said, &question), 0);
        assert_null(question);
        assert_int_equal(said.n, 1);
        assert_int_equal(said.status, 0);
    }
    assert_int_equal(scene.servers[0].n_queries, 0);
}

static void cancelled_question_is_silent(void **state)
{
    struct question *question;
    struct said said = {0};

    (void) state;
    assert_int_equal(question_ask(dns, hosts, "a", false, on_said, &said, &question), 0);
    AWAIT(scene.servers[0].n_queries > 0);
    question_cancel(question);
    question_cancel(NULL);
    said_of("b", false);
    assert_int_equal(said.n, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(short_names_are_searched_for),
        TEST(search_goes_on_behind_a_name_without_addresses),
        TEST(nothing_stands_in_for_a_name_whose_server_fails),
        TEST(one_family_may_fail),
        TEST(services_are_asked_for_by_their_name),
        TEST(hosts_file_and_addresses_are_answered_at_once),
        TEST(cancelled_question_is_silent),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
