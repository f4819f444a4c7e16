/* SPDX-License-Identifier: MIT */
/* The resolver against the hosts file and against a name server of a few lines on the same loop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "resolve.h"

#include <cmocka.h>

#define GUARD_MS 20000

enum { TYPE_A = 1, TYPE_AAAA = 28 };
enum { RCODE_OK = 0, RCODE_FAILED = 2, RCODE_NO_NAME = 3, RCODE_SILENT = -1 };

/* What the server says; an unknown name does not exist. */
static const struct record {
    const char *name;
    int rcode;
    uint32_t ttl[4];
    const char *data[4]; /* IPv4 or IPv6 */
} zone[] = {
    {"one.test", RCODE_OK, {60}, {"127.0.0.1"}},
    {"many.test", RCODE_OK, {60, 30, 90, 60}, {"127.0.0.3", "127.0.0.1", "127.0.0.2", "127.0.0.1"}},
    {"dual.test", RCODE_OK, {60, 20}, {"127.0.0.1", "::1"}},
    {"zero.test", RCODE_OK, {0}, {"127.0.0.1"}},
    {"empty.test", RCODE_OK, {0}, {NULL}},
    {"failed.test", RCODE_FAILED, {0}, {NULL}},
    {"silent.test", RCODE_SILENT, {0}, {NULL}},
};

struct name_server {
    uv_udp_t udp;
    char name[32];       /* "127.0.0.1:PORT" */
    const char *address; /* answers every name with it, if not NULL */
    bool silent;
    unsigned n_queries;
    unsigned rotation; /* of the records of an answer */
    char buffer[512];
};

struct answer {
    unsigned n;
    int status;
    char reason[64];
    char addresses[256]; /* "a:1 b:1" */
    uint32_t ttl_s;
};

static struct scene {
    uv_loop_t loop;
    uv_timer_t guard;
    struct resolver *resolver;
    struct name_server servers[2];
} scene;

/* --- name server (RFC 1035) ------------------------------------------------------------------ */

static size_t put_record(char *p, const char *data, unsigned type, uint32_t ttl)
{
    unsigned char address[16];
    bool v4 = inet_pton(AF_INET, data, address) == 1;
    size_t length = v4 ? 4 : 16;
    unsigned char head[12] = {0xc0,
                              12,
                              0,
                              (unsigned char) (v4 ? TYPE_A : TYPE_AAAA),
                              0,
                              1,
                              (unsigned char) (ttl >> 24),
                              (unsigned char) (ttl >> 16),
                              (unsigned char) (ttl >> 8),
                              (unsigned char) ttl,
                              0,
                              (unsigned char) length};

    if (head[3] != type)
        return 0;
    if (!v4)
        assert_int_equal(inet_pton(AF_INET6, data, address), 1);
    memcpy(p, head, sizeof(head));
    memcpy(p + sizeof(head), address, length);
    return sizeof(head) + length;
}

/* The end of the question that begins at query + 12; its name, dotted, in ret_name. */
static size_t get_question(const char *query, char *ret_name)
{
    const char *p = query + 12;

    while (*p != 0) {
        memcpy(ret_name, p + 1, (size_t) *p);
        ret_name += *p;
        p += *p + 1;
        *ret_name++ = *p != 0 ? '.' : '\0';
    }
    return (size_t) (p + 5 - query);
}

static size_t answer_build(struct name_server *server, char *reply, size_t n, unsigned type,
                           const struct record *record)
{
    unsigned n_answers = 0;

    for (unsigned i = 0; i < 4; i++) {
        unsigned j = (i + server->rotation) % 4;
        size_t length = record->data[j] != NULL
                            ? put_record(reply + n, record->data[j], type, record->ttl[j])
                            : 0;

        n += length;
        n_answers += length > 0;
    }
    server->rotation++;
    reply[2] |= (char) 0x80;
    reply[3] = (char) record->rcode;
    reply[7] = (char) n_answers;
    reply[11] = 0; /* no EDNS */
    return n;
}

static void query_received(uv_udp_t *udp, ssize_t n, const uv_buf_t *buffer,
                           const struct sockaddr *from, unsigned flags)
{
    struct name_server *server = udp->data;
    const struct record fixed = {.ttl = {60}, .data = {server->address}};
    const struct record *record = server->address != NULL ? &fixed : NULL;
    static const struct record none = {.rcode = RCODE_NO_NAME};
    char name[256], reply[512];
    size_t length;
    uv_buf_t out;

    (void) flags;
    if (n <= 0)
        return;
    server->n_queries++;
    length = get_question(buffer->base, name);
    for (size_t i = 0; i < sizeof(zone) / sizeof(zone[0]) && record == NULL; i++) {
        if (strcmp(zone[i].name, name) == 0)
            record = &zone[i];
    }
    if (record == NULL)
        record = &none;
    if (server->silent || record->rcode == RCODE_SILENT)
        return;
    memcpy(reply, buffer->base, length);
    length = answer_build(server, reply, length, (unsigned char) buffer->base[length - 3], record);
    out = uv_buf_init(reply, (unsigned) length);
    uv_udp_try_send(udp, &out, 1, from);
}

static void get_buffer(uv_handle_t *handle, size_t size, uv_buf_t *ret)
{
    struct name_server *server = handle->data;

    (void) size;
    *ret = uv_buf_init(server->buffer, sizeof(server->buffer));
}

static void server_open(struct name_server *server)
{
    struct addr addr;
    int length = sizeof(addr.un);

    assert_int_equal(addr_parse("127.0.0.1:1", 0, &addr), 0);
    addr_set_port(&addr, 0);
    uv_udp_init(&scene.loop, &server->udp);
    server->udp.data = server;
    assert_int_equal(uv_udp_bind(&server->udp, &addr.sa, 0), 0);
    assert_int_equal(uv_udp_getsockname(&server->udp, &addr.sa, &length), 0);
    addr_format(&addr, server->name, sizeof(server->name));
    uv_udp_recv_start(&server->udp, get_buffer, query_received);
}

/* --- the scene ------------------------------------------------------------------------------- */

static void guard_fired(uv_timer_t *timer)
{
    (void) timer;
    fail_msg("nothing happened in %d ms", GUARD_MS);
}

static void use_server(size_t i)
{
    const char *name = scene.servers[i].name;

    assert_int_equal(resolver_set_servers(scene.resolver, &name, 1), 0);
}

static int scene_open(void **state)
{
    (void) state;
    memset(&scene, 0, sizeof(scene));
    assert_int_equal(uv_loop_init(&scene.loop), 0);
    uv_timer_init(&scene.loop, &scene.guard);
    uv_timer_start(&scene.guard, guard_fired, GUARD_MS, 0);
    for (size_t i = 0; i < 2; i++)
        server_open(&scene.servers[i]);
    assert_int_equal(resolver_create(&scene.loop, &scene.resolver), 0);
    use_server(0);
    return 0;
}

/* Nothing may be left on the loop; ASan looks for the memory. */
static int scene_close(void **state)
{
    (void) state;
    resolver_destroy(scene.resolver);
    for (size_t i = 0; i < 2; i++)
        uv_close((uv_handle_t *) &scene.servers[i].udp, NULL);
    uv_close((uv_handle_t *) &scene.guard, NULL);
    uv_run(&scene.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&scene.loop), 0);
    return 0;
}

static void on_answer(void *user, int status, const char *reason, const struct addr *addresses,
                      size_t n, uint32_t ttl_s)
{
    struct answer *answer = user;
    size_t used = 0;

    answer->n++;
    answer->status = status;
    answer->ttl_s = ttl_s;
    snprintf(answer->reason, sizeof(answer->reason), "%s", reason);
    answer->addresses[0] = '\0';
    for (size_t i = 0; i < n; i++) {
        char text[DURPINA_NAME_SIZE];

        addr_format(&addresses[i], text, sizeof(text));
        used += (size_t) snprintf(answer->addresses + used, sizeof(answer->addresses) - used,
                                  "%s%s", i > 0 ? " " : "", text);
    }
    /* uv_run() would sleep on: it runs timers before it waits. */
    uv_stop(&scene.loop);
}

static struct lookup *look_up(const char *host, struct answer *answer)
{
    struct lookup *lookup = NULL;

    assert_int_equal(resolver_lookup(scene.resolver, host, 80, on_answer, answer, &lookup), 0);
    assert_non_null(lookup);
    return lookup;
}

static void await(const struct answer *answer)
{
    while (answer->n == 0)
        uv_run(&scene.loop, UV_RUN_ONCE);
}

static struct answer ask(const char *host)
{
    struct answer answer = {0};

    look_up(host, &answer);
    assert_int_equal(answer.n, 0);
    await(&answer);
    assert_int_equal(answer.n, 1);
    return answer;
}

static void assert_answer(const char *host, const char *addresses, uint32_t ttl_s)
{
    struct answer answer = ask(host);

    assert_int_equal(answer.status, 0);
    assert_string_equal(answer.addresses, addresses);
    assert_int_equal(answer.ttl_s, ttl_s);
}

static void assert_failure(const char *host, int status, const char *reason)
{
    struct answer answer = ask(host);

    assert_int_equal(answer.status, status);
    assert_string_equal(answer.reason, reason);
    assert_string_equal(answer.addresses, "");
}

/* --- tests ----------------------------------------------------------------------------------- */

static void localhost_needs_no_name_server(void **state)
{
    struct answer answer = ask("localhost");

    (void) state;
    assert_int_equal(answer.status, 0);
    assert_non_null(strstr(answer.addresses, "127.0.0.1:80"));
    assert_int_equal(answer.ttl_s, UINT32_MAX);
    assert_int_equal(scene.servers[0].n_queries, 0);
}

static void address_is_its_own_answer(void **state)
{
    (void) state;
    assert_answer("127.0.0.9", "127.0.0.9:80", UINT32_MAX);
    assert_answer("::1", "[::1]:80", UINT32_MAX);
    assert_int_equal(scene.servers[0].n_queries, 0);
}

static void answer_carries_the_smallest_ttl_and_each_address_once(void **state)
{
    (void) state;
    assert_answer("one.test", "127.0.0.1:80", 60);
    assert_answer("many.test", "127.0.0.1:80 127.0.0.2:80 127.0.0.3:80", 30);
    assert_answer("zero.test", "127.0.0.1:80", 0);
}

static void rotated_answers_are_the_same(void **state)
{
    (void) state;
    for (int i = 0; i < 8; i++)
        assert_answer("many.test", "127.0.0.1:80 127.0.0.2:80 127.0.0.3:80", 30);
}

static void both_families_are_asked(void **state)
{
    struct answer answer = ask("dual.test");

    (void) state;
    assert_int_equal(answer.status, 0);
    assert_int_equal(answer.ttl_s, 20);
    /* Which comes first is the system's choice (RFC 6724). */
    assert_non_null(strstr(answer.addresses, "127.0.0.1:80"));
    assert_non_null(strstr(answer.addresses, "[::1]:80"));
}

static void failures_tell_a_missing_name_from_a_failing_server(void **state)
{
    (void) state;
    assert_failure("none.test", -ENOENT, "no such name");
    assert_failure("empty.test", -ENOENT, "the name has no address");
    assert_failure("failed.test", -EAGAIN, "the name servers failed or cannot be reached");
}

static void malformed_names_do_not_exist(void **state)
{
    static char longer[300];
    static const char *const names[] = {"", ".", "a..b", "-", "a b", "a\nb", "\xff\xfe", longer};

    (void) state;
    memset(longer, 'a', sizeof(longer) - 1);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct answer answer = ask(names[i]);

        assert_int_not_equal(answer.status, 0);
        assert_string_not_equal(answer.reason, "");
    }
}

static void silent_server_is_given_up_and_stops_no_other_lookup(void **state)
{
    struct answer silent = {0};
    uint64_t begin = uv_hrtime();

    (void) state;
    look_up("silent.test", &silent);
    assert_answer("one.test", "127.0.0.1:80", 60);
    assert_int_equal(silent.n, 0);
    await(&silent);
    assert_int_equal(silent.status, -EAGAIN);
    assert_string_equal(silent.reason, "no answer from the name servers");
    assert_in_range((uv_hrtime() - begin) / 1000000, 1000, 15000);
}

static void lookups_under_way_move_to_the_new_servers(void **state)
{
    struct answer answer = {0};

    (void) state;
    scene.servers[0].silent = true;
    scene.servers[1].address = "127.0.0.7";
    look_up("one.test", &answer);
    while (scene.servers[0].n_queries == 0)
        uv_run(&scene.loop, UV_RUN_ONCE);
    use_server(1);
    await(&answer);
    assert_string_equal(answer.addresses, "127.0.0.7:80");
    assert_answer("two.test", "127.0.0.7:80", 60);
}

static void second_server_answers_for_a_silent_first(void **state)
{
    const char *names[] = {scene.servers[0].name, scene.servers[1].name};

    (void) state;
    scene.servers[0].silent = true;
    assert_int_equal(resolver_set_servers(scene.resolver, names, 2), 0);
    assert_answer("one.test", "127.0.0.1:80", 60);
}

static void wrong_servers_are_refused_and_the_old_ones_stay(void **state)
{
    static const char *const wrong[] = {"dns.example",   "127.0.0.1:0",         "",
                                        "unix:/tmp/dns", "127.0.0.1,127.0.0.2", "[::1"};

    (void) state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        const char *names[] = {scene.servers[1].name, wrong[i]};

        assert_int_equal(resolver_set_servers(scene.resolver, names, 2), -EINVAL);
    }
    assert_answer("one.test", "127.0.0.1:80", 60);
    assert_int_equal(scene.servers[1].n_queries, 0);
}

static void no_servers_mean_resolv_conf(void **state)
{
    struct answer answer;

    (void) state;
    assert_int_equal(resolver_set_servers(scene.resolver, NULL, 0), 0);
    answer = ask("localhost");
    assert_int_equal(answer.status, 0);
    assert_int_equal(scene.servers[0].n_queries, 0);
}

static void cancelled_lookups_are_silent(void **state)
{
    struct answer literal = {0}, asked = {0}, other = {0};

    (void) state;
    lookup_cancel(look_up("127.0.0.1", &literal));
    lookup_cancel(look_up("one.test", &asked));
    lookup_cancel(NULL);
    look_up("many.test", &other);
    await(&other);
    assert_answer("one.test", "127.0.0.1:80", 60);
    assert_int_equal(literal.n, 0);
    assert_int_equal(asked.n, 0);
}

struct actor {
    struct answer answer;
    struct lookup *own, *other;
};

static void act(void *user, int status, const char *reason, const struct addr *addresses, size_t n,
                uint32_t ttl_s)
{
    struct actor *actor = user;

    on_answer(&actor->answer, status, reason, addresses, n, ttl_s);
    lookup_cancel(actor->own);
    lookup_cancel(actor->other);
    use_server(1);
    actor->own = look_up("127.0.0.5", &actor->answer);
}

static void callback_may_cancel_switch_and_ask(void **state)
{
    struct answer other = {0};
    struct actor actor = {0};

    (void) state;
    actor.other = look_up("silent.test", &other);
    assert_int_equal(resolver_lookup(scene.resolver, "one.test", 80, act, &actor, &actor.own), 0);
    while (actor.answer.n < 2)
        uv_run(&scene.loop, UV_RUN_ONCE);
    assert_string_equal(actor.answer.addresses, "127.0.0.5:80");
    assert_int_equal(other.n, 0);
}

static void destroyed_resolver_leaves_nothing_of_lookups(void **state)
{
    struct answer answer = {0};

    (void) state;
    look_up("127.0.0.1", &answer);
    look_up("silent.test", &answer);
    lookup_cancel(look_up("one.test", &answer));
    while (scene.servers[0].n_queries == 0)
        uv_run(&scene.loop, UV_RUN_ONCE);
    look_up("127.0.0.1", &answer);
    answer.n = 0;
    resolver_destroy(scene.resolver);
    scene.resolver = NULL;
    uv_run(&scene.loop, UV_RUN_NOWAIT);
    assert_int_equal(answer.n, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scene_open, scene_close)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(localhost_needs_no_name_server),
        TEST(address_is_its_own_answer),
        TEST(answer_carries_the_smallest_ttl_and_each_address_once),
        TEST(rotated_answers_are_the_same),
        TEST(both_families_are_asked),
        TEST(failures_tell_a_missing_name_from_a_failing_server),
        TEST(malformed_names_do_not_exist),
        TEST(silent_server_is_given_up_and_stops_no_other_lookup),
        TEST(lookups_under_way_move_to_the_new_servers),
        TEST(second_server_answers_for_a_silent_first),
        TEST(wrong_servers_are_refused_and_the_old_ones_stay),
        TEST(no_servers_mean_resolv_conf),
        TEST(cancelled_lookups_are_silent),
        TEST(callback_may_cancel_switch_and_ask),
        TEST(destroyed_resolver_leaves_nothing_of_lookups),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
