/* SPDX-License-Identifier: MIT */
/* connect.bpf.c and observe.bpf.c, attached to a cgroup of the test's own: real sockets. */
#include "kernel_scene.h"

#include "connect.skel.h"
#include "durpina_hash.h"
#include "observe.skel.h"
#include "sandbox.h"

#define VIP "127.10.0.1"
#define VIP6 "fd00::10"
#define PORT 80
#define DNS 53
#define MARK 0x123
#define PEERS 3

static struct connect *programs;
static struct observe *observer;
static struct bpf_link *links[9];
static uint32_t n_links;
static int listeners[PEERS], listeners6[PEERS];

static const uint32_t weights[PEERS] = {5, 3, 2};

static void attach_all(const struct bpf_object *object)
{
    struct bpf_program *program;

    bpf_object__for_each_program(program, object)
    {
        links[n_links] = bpf_program__attach_cgroup(program, sandbox_cgroup);
        assert_non_null(links[n_links]);
        n_links++;
    }
}

static void set_family(int family)
{
    for (uint32_t i = 0; i < PEERS; i++)
        programs_place(i, family, (uint16_t) (8000 + i));
    programs_publish();
}

static int set_up(void **state)
{
    (void) state;
    programs = connect__open();
    observer = observe__open();
    assert_non_null(programs);
    assert_non_null(observer);
    programs->rodata->netns_cookie = programs->rodata->own_netns_cookie = net_cookie();
    programs->rodata->exempt_mark = MARK;
    programs_set_capacities(programs->obj);
    programs_load(programs->obj);
    programs_set_capacities(observer->obj);
    programs_share_maps(programs->obj, observer->obj);
    programs_load(observer->obj);
    programs_map(programs->obj, PEERS, weights);
    for (uint32_t i = 0; i < PEERS; i++) {
        const struct durpina_address key =
            programs_address("127.0.0.1", (uint16_t) (8000 + i), IPPROTO_TCP);

        maps.endpoints[i].generation = 1;
        assert_int_equal(bpf_map_update_elem(maps.endpoint_ids, &key, &i, BPF_ANY), 0);
        listeners[i] = net_listen("127.0.0.1", (uint16_t) (8000 + i));
        listeners6[i] = net_listen("::1", (uint16_t) (8000 + i));
    }
    programs_add_vip(VIP, PORT, IPPROTO_TCP, DURPINA_ROUND_ROBIN);
    programs_add_vip(VIP6, PORT, IPPROTO_TCP, DURPINA_ROUND_ROBIN);
    programs_add_vip(VIP, DNS, IPPROTO_UDP, DURPINA_ROUND_ROBIN);
    programs_add_vip(VIP6, DNS, IPPROTO_UDP, DURPINA_ROUND_ROBIN);
    n_links = 0;
    attach_all(observer->obj);
    attach_all(programs->obj);
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    while (n_links > 0)
        bpf_link__destroy(links[--n_links]);
    for (uint32_t i = 0; i < PEERS; i++) {
        close(listeners[i]);
        close(listeners6[i]);
    }
    programs_unmap(programs->obj);
    observe__destroy(observer);
    connect__destroy(programs);
    return 0;
}

/* The peer that a connection to the address arrives at, by its number. */
static uint32_t dial(const char *ip, uint16_t port, const char *expected_name)
{
    int fd = net_socket(net_address(ip, port).any.sa_family, SOCK_STREAM);
    union net_address name;
    socklen_t size = sizeof(name);
    struct durpina_socket s;

    assert_int_equal(net_connect(fd, ip, port), 0);
    if (expected_name != NULL)
        assert_string_equal(net_peer(fd), expected_name);
    assert_int_equal(getsockname(fd, &name.any, &size), 0);
    assert_int_equal(bpf_map_lookup_elem(maps.sockets, &fd, &s), 0);
    close(fd);
    return s.peer - SCENE_FIRST;
}

static void drain(int *from)
{
    for (uint32_t i = 0; i < PEERS; i++) {
        int fd;

        fcntl(from[i], F_SETFL, O_NONBLOCK);
        while ((fd = accept(from[i], NULL, NULL)) >= 0)
            close(fd);
    }
}

/* How many connections have arrived. */
static uint32_t arrived(int listener)
{
    uint32_t n = 0;
    int fd;

    fcntl(listener, F_SETFL, O_NONBLOCK);
    while ((fd = accept(listener, NULL, NULL)) >= 0) {
        close(fd);
        n++;
    }
    return n;
}

static void connects_arrive_at_the_peers_by_weight(void **state)
{
    (void) state;
    for (int i = 0; i < 100; i++)
        dial(VIP, PORT, VIP ":80");
    assert_int_equal(arrived(listeners[0]), 50);
    assert_int_equal(arrived(listeners[1]), 30);
    assert_int_equal(arrived(listeners[2]), 20);
    assert_int_equal(maps.endpoints[0].established, 50);
    assert_int_equal(maps.endpoints[0].open, 0);
    assert_int_equal(programs_read_vip(VIP, PORT, IPPROTO_TCP).selected, 100);
}

static void inet6_connects_too(void **state)
{
    (void) state;
    set_family(AF_INET6);
    for (int i = 0; i < 10; i++)
        dial(VIP6, PORT, VIP6 ":80");
    assert_int_equal(arrived(listeners6[0]), 5);
    assert_int_equal(arrived(listeners6[1]), 3);
    assert_int_equal(arrived(listeners6[2]), 2);
}

static void mapped_connects_go_to_inet_peers(void **state)
{
    (void) state;
    for (int i = 0; i < 10; i++)
        dial("::ffff:" VIP, PORT, "::ffff:" VIP ":80");
    assert_int_equal(arrived(listeners[0]), 5);
    assert_int_equal(arrived(listeners[1]), 3);
    assert_int_equal(arrived(listeners[2]), 2);
    assert_int_equal(maps.endpoints[0].established, 5);
}

static void other_connects_go_where_they_say(void **state)
{
    int fd = net_socket(AF_INET, SOCK_STREAM);

    (void) state;
    assert_int_equal(net_connect(fd, "127.0.0.1", 8001), 0);
    assert_string_equal(net_peer(fd), "127.0.0.1:8001");
    close(fd);
    fd = net_socket(AF_INET, SOCK_STREAM);
    assert_int_equal(net_connect(fd, "127.0.0.1", 9), ECONNREFUSED);
    close(fd);
    drain(listeners);
}

static void miss_is_the_connect_as_it_would_have_been(void **state)
{
    int listener = net_listen(VIP, PORT), fd = net_socket(AF_INET, SOCK_STREAM);

    (void) state;
    for (uint32_t i = 0; i < PEERS; i++)
        scene->want[i].state = DURPINA_PEER_DOWN;
    programs_publish();
    assert_int_equal(net_connect(fd, VIP, PORT), 0);
    assert_string_equal(net_peer(fd), VIP ":80");
    assert_int_equal(arrived(listener), 1);
    assert_int_equal(programs_read_vip(VIP, PORT, IPPROTO_TCP).missed, 1);
    close(fd);
    close(listener);
    fd = net_socket(AF_INET, SOCK_STREAM);
    assert_int_equal(net_connect(fd, VIP, PORT), ECONNREFUSED);
    close(fd);
}

static void failed_peer_is_tried_once_per_fail_timeout_and_comes_back(void **state)
{
    const struct durpina_maps readable = programs_readable();
    struct durpina_counters *c = &maps.counters[SCENE_FIRST];

    (void) state;
    durpina_fail(&readable, SCENE_FIRST, DURPINA_KERNEL, programs_now_ms());
    for (int i = 0; i < 20; i++)
        assert_int_not_equal(dial(VIP, PORT, NULL), 0);
    c->down_until_ms = programs_now_ms(); /* fail_timeout is over */
    while (dial(VIP, PORT, NULL) != 0)
        ;
    assert_int_equal(c->down_until_ms, 0);
    assert_int_equal(c->fails, 0);
    drain(listeners);
}

static void hash_goes_by_the_address_that_is_bound(void **state)
{
    const struct durpina_maps readable = programs_readable();
    const struct durpina_tried nobody = {0};
    struct durpina_pick pick;

    (void) state;
    programs_add_vip(VIP, PORT, IPPROTO_TCP, DURPINA_HASH);
    for (uint32_t i = 0; i < 60; i++) {
        struct durpina_request request = {.algorithm = DURPINA_HASH, .tried = &nobody};
        int mapped = i % 2 == 1, fd = net_socket(mapped ? AF_INET6 : AF_INET, SOCK_STREAM);
        struct durpina_socket s;
        char ip[32];

        snprintf(ip, sizeof(ip), "%s127.0.%u.9", mapped ? "::ffff:" : "", i / 2);
        if (i / 2 != 0)
            net_bind(fd, ip, 0);
        request.hash = durpina_hash_inet(i / 2 != 0 ? htonl(0x7f000009 + (i / 2 << 8)) : 0);
        request.now_ms = programs_now_ms();
        assert_int_equal(net_connect(fd, mapped ? "::ffff:" VIP : VIP, PORT), 0);
        assert_int_equal(bpf_map_lookup_elem(maps.sockets, &fd, &s), 0);
        assert_int_equal(durpina_pick(&readable, SCENE_UPSTREAM, SCENE_GENERATION, &request, &pick),
                         DURPINA_PICK_OK);
        durpina_finish(&readable, &pick, DURPINA_OUTCOME_SUCCESS, NULL, request.now_ms);
        assert_int_equal(s.peer, pick.peer);
        close(fd);
    }
    drain(listeners);
}

static void marked_and_exempt_sockets_go_where_they_say(void **state)
{
    const struct durpina_socket exempt = {.exempt = 1};
    const uint32_t mark = MARK;
    int fd = net_socket(AF_INET, SOCK_STREAM);

    (void) state;
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)), 0);
    assert_int_equal(net_connect(fd, VIP, PORT), ECONNREFUSED);
    assert_int_equal(maps.kernel->marked, 1);
    close(fd);
    fd = net_socket(AF_INET, SOCK_STREAM);
    assert_int_equal(bpf_map_update_elem(maps.sockets, &fd, &exempt, BPF_ANY), 0);
    assert_int_equal(net_connect(fd, VIP, PORT), ECONNREFUSED);
    assert_int_equal(maps.kernel->exempt, 1);
    close(fd);
    assert_int_equal(programs_read_vip(VIP, PORT, IPPROTO_TCP).selected, 0);
}

static void other_namespaces_are_left_alone(void **state)
{
    int status;
    pid_t pid = fork();

    (void) state;
    if (pid == 0) {
        int fd = sandbox_enter() == 0 ? socket(AF_INET, SOCK_STREAM, 0) : -1;

        _exit(fd < 0 || net_connect(fd, VIP, PORT) != ECONNREFUSED);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(maps.kernel->foreign, 1);
    assert_int_equal(programs_read_vip(VIP, PORT, IPPROTO_TCP).selected, 0);
}

static void socket_tells_the_truth_after_it_is_connected_anew(void **state)
{
    const struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
    int fd = net_socket(AF_INET, SOCK_STREAM);

    (void) state;
    assert_int_equal(net_connect(fd, VIP, PORT), 0);
    assert_string_equal(net_peer(fd), VIP ":80");
    assert_int_equal(connect(fd, &nowhere, sizeof(nowhere)), 0);
    assert_int_equal(net_connect(fd, "127.0.0.1", 8000), 0); /* the peer, by its own name */
    assert_string_equal(net_peer(fd), "127.0.0.1:8000");
    close(fd);
    drain(listeners);
}

/* --- UDP --- */

/* The peers' sockets, bound. */
static void serve_datagrams(int family, int *ret_fds)
{
    for (uint32_t i = 0; i < PEERS; i++) {
        ret_fds[i] = net_socket(family, SOCK_DGRAM);
        net_bind(ret_fds[i], family == AF_INET ? "127.0.0.1" : "::1", (uint16_t) (8000 + i));
    }
}

static void close_all(const int *fds)
{
    for (uint32_t i = 0; i < PEERS; i++)
        close(fds[i]);
}

/* Takes the datagram that waits at this peer, answers it, and returns whom the client sees. */
static const char *answer(int peer, int client)
{
    static union net_address from;
    socklen_t size = sizeof(from);
    char byte;

    assert_int_equal(recvfrom(peer, &byte, 1, 0, &from.any, &size), 1);
    assert_int_equal(sendto(peer, &byte, 1, 0, &from.any, size), 1);
    size = sizeof(from);
    assert_int_equal(recvfrom(client, &byte, 1, 0, &from.any, &size), 1);
    return net_text(&from);
}

static void send_one(int fd, const char *ip, uint16_t port)
{
    const union net_address to = net_address(ip, port);

    assert_int_equal(sendto(fd, "x", 1, 0, &to.any, sizeof(to)), 1);
}

static void connected_datagrams_go_to_one_peer(void **state)
{
    int peers[PEERS], fd = net_socket(AF_INET, SOCK_DGRAM);

    (void) state;
    serve_datagrams(AF_INET, peers);
    assert_int_equal(net_connect(fd, VIP, DNS), 0);
    assert_string_equal(net_peer(fd), VIP ":53");
    for (int i = 0; i < 3; i++) {
        assert_int_equal(write(fd, "x", 1), 1);
        assert_string_equal(answer(peers[0], fd), VIP ":53");
    }
    close(fd);
    close_all(peers);
    assert_int_equal(programs_read_vip(VIP, DNS, IPPROTO_UDP).selected, 1);
}

static void exchange_unconnected(int family, const char *vip, const char *text)
{
    int peers[PEERS], fd = net_socket(strchr(vip, ':') ? AF_INET6 : AF_INET, SOCK_DGRAM);

    serve_datagrams(family, peers);
    for (int i = 0; i < 3; i++) {
        send_one(fd, vip, DNS);
        assert_string_equal(answer(peers[0], fd), text);
    }
    maps.counters[SCENE_FIRST].down_until_ms = programs_now_ms() + 60000;
    send_one(fd, vip, DNS);
    assert_string_equal(answer(peers[1], fd), text);
    close(fd);
    close_all(peers);
}

static void unconnected_datagrams_stay_while_their_peer_is_available(void **state)
{
    (void) state;
    exchange_unconnected(AF_INET, VIP, VIP ":53");
}

static void inet6_datagrams_too(void **state)
{
    (void) state;
    set_family(AF_INET6);
    exchange_unconnected(AF_INET6, VIP6, VIP6 ":53");
}

static void mapped_datagrams_too(void **state)
{
    (void) state;
    exchange_unconnected(AF_INET, "::ffff:" VIP, "::ffff:" VIP ":53");
}

static void answer_to_a_datagram_brings_its_peer_back(void **state)
{
    int peers[PEERS], fd = net_socket(AF_INET, SOCK_DGRAM);
    struct durpina_counters *c = &maps.counters[SCENE_FIRST];

    (void) state;
    serve_datagrams(AF_INET, peers);
    c->fails = 1;
    c->fails_at_ms = (uint32_t) programs_now_ms();
    c->down_until_ms = 1; /* over long ago */
    send_one(fd, VIP, DNS);
    assert_true(c->down_until_ms > programs_now_ms()); /* one probe at a time */
    answer(peers[0], fd);
    assert_int_equal(c->down_until_ms, 0);
    assert_int_equal(c->fails, 0);
    close(fd);
    close_all(peers);
}

static void peer_that_is_sent_to_by_its_own_name_has_it(void **state)
{
    int peers[PEERS], fd = net_socket(AF_INET, SOCK_DGRAM);

    (void) state;
    serve_datagrams(AF_INET, peers);
    send_one(fd, VIP, DNS);
    assert_string_equal(answer(peers[0], fd), VIP ":53");
    send_one(fd, "127.0.0.1", 8001); /* another one */
    assert_string_equal(answer(peers[1], fd), "127.0.0.1:8001");
    send_one(fd, VIP, DNS);
    assert_string_equal(answer(peers[0], fd), VIP ":53");
    send_one(fd, "127.0.0.1", 8000);
    assert_string_equal(answer(peers[0], fd), "127.0.0.1:8000");
    close(fd);
    close_all(peers);
}

/* --- whatever happens --- */

static void garbage_in_the_maps_fails_no_other_connect(void **state)
{
    uint64_t seed = scene_seed();

    (void) state;
    for (int round = 0; round < 200; round++) {
        uint8_t *view = (uint8_t *) maps.upstreams[SCENE_UPSTREAM].view;
        int fd;

        for (size_t i = 0; i < sizeof(maps.upstreams[0].view); i++)
            view[i] = (uint8_t) scene_random(&seed);
        fd = net_socket(AF_INET, SOCK_STREAM);
        /* No error but those of an address where nobody listens. */
        assert_int_not_equal(net_connect(fd, VIP, PORT), EPERM);
        close(fd);
        fd = net_socket(AF_INET, SOCK_STREAM);
        assert_int_equal(net_connect(fd, "127.0.0.1", 8000), 0);
        close(fd);
        drain(listeners);
    }
}

static void detached_programs_leave_connects_as_they_are(void **state)
{
    int fd = net_socket(AF_INET, SOCK_STREAM);

    (void) state;
    while (n_links > 0)
        bpf_link__destroy(links[--n_links]);
    assert_int_equal(net_connect(fd, VIP, PORT), ECONNREFUSED);
    close(fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

static int tests_of_connect(void)
{
    const struct CMUnitTest tests[] = {
        TEST(connects_arrive_at_the_peers_by_weight),
        TEST(inet6_connects_too),
        TEST(mapped_connects_go_to_inet_peers),
        TEST(other_connects_go_where_they_say),
        TEST(miss_is_the_connect_as_it_would_have_been),
        TEST(failed_peer_is_tried_once_per_fail_timeout_and_comes_back),
        TEST(hash_goes_by_the_address_that_is_bound),
        TEST(marked_and_exempt_sockets_go_where_they_say),
        TEST(other_namespaces_are_left_alone),
        TEST(socket_tells_the_truth_after_it_is_connected_anew),
        TEST(connected_datagrams_go_to_one_peer),
        TEST(unconnected_datagrams_stay_while_their_peer_is_available),
        TEST(inet6_datagrams_too),
        TEST(mapped_datagrams_too),
        TEST(answer_to_a_datagram_brings_its_peer_back),
        TEST(peer_that_is_sent_to_by_its_own_name_has_it),
        TEST(garbage_in_the_maps_fails_no_other_connect),
        TEST(detached_programs_leave_connects_as_they_are),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void)
{
    return sandbox_run(tests_of_connect);
}
