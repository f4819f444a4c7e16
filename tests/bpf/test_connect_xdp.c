/* SPDX-License-Identifier: MIT */
/* The inner functions of connect.bpf.c, run by the kernel on real maps, with sockets made up. */
#include "kernel_scene.h"

#include "connect_xdp.h"
#include "connect_xdp.skel.h"
#include "durpina_hash.h"
#include "sandbox.h"

#define VIP "127.10.0.1"
#define VIP6 "fd00::10"
#define COOKIE 77
#define MARK 0x123

static struct connect_xdp *programs;
static struct test_call *call;
static size_t call_size;
static int is_inet6;
static const struct bpf_program *program;

enum what { TEST_CONNECT, TEST_DATAGRAM, TEST_NAME };

static const uint32_t weights[] = {5, 3, 2};

static int set_up(void **state)
{
    struct bpf_program *each;

    (void) state;
    programs = connect_xdp__open();
    assert_non_null(programs);
    bpf_object__for_each_program(each, programs->obj)
        bpf_program__set_autoload(each, bpf_program__type(each) == BPF_PROG_TYPE_XDP);
    programs->rodata->exempt_mark = MARK;
    programs->rodata->own_netns_cookie = COOKIE;
    programs_set_capacities(programs->obj);
    programs_load(programs->obj);
    programs_map(programs->obj, 3, weights);
    call_size = programs_map_size(programs->maps.calls);
    call = programs_memory(programs->obj, "calls");
    programs_add_vip(VIP, 80, IPPROTO_TCP, DURPINA_ROUND_ROBIN);
    programs_add_vip(VIP6, 80, IPPROTO_TCP, DURPINA_ROUND_ROBIN);
    programs_add_vip(VIP, 53, IPPROTO_UDP, DURPINA_ROUND_ROBIN);
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    munmap(call, call_size);
    programs_unmap(programs->obj);
    connect_xdp__destroy(programs);
    return 0;
}

static void run(void)
{
    uint8_t packet[64] = {0};
    LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = packet, .data_size_in = sizeof(packet),
                .repeat = 1);

    call->returned = 0;
    assert_int_equal(bpf_prog_test_run_opts(bpf_program__fd(program), &options), 0);
    assert_int_equal(call->returned, 1); /* whatever happens: go on */
}

/* A call of a socket that is new, unless the test says otherwise. */
static void prepare(enum what what, const char *text, uint16_t port, uint32_t protocol)
{
    const union net_address to = net_address(text, port);

    is_inet6 = to.any.sa_family == AF_INET6;
    if (what == TEST_CONNECT)
        program = is_inet6 ? programs->progs.test_connect6 : programs->progs.test_connect4;
    else if (what == TEST_NAME)
        program = is_inet6 ? programs->progs.test_name6 : programs->progs.test_name4;
    else
        program = programs->progs.test_sendmsg4;
    call->protocol = protocol;
    call->netns_cookie = COOKIE;
    call->port_be = htons(port);
    memset(call->addr_be, 0, sizeof(call->addr_be));
    if (is_inet6)
        memcpy(call->addr_be, &to.six.sin6_addr, 16);
    else
        memcpy(call->addr_be, &to.four.sin_addr, 4);
}

static void new_socket(void)
{
    memset(call, 0, sizeof(*call));
}

static const char *went_to(void)
{
    union net_address to = {.any.sa_family = is_inet6 ? AF_INET6 : AF_INET};

    if (is_inet6) {
        memcpy(&to.six.sin6_addr, call->addr_be, 16);
        to.six.sin6_port = call->port_be;
    } else {
        memcpy(&to.four.sin_addr, call->addr_be, 4);
        to.four.sin_port = call->port_be;
    }
    return net_text(&to);
}

static const char *dial(const char *text, uint16_t port)
{
    new_socket();
    prepare(TEST_CONNECT, text, port, IPPROTO_TCP);
    run();
    return went_to();
}

static const char *send_datagram(const char *text, uint16_t port)
{
    prepare(TEST_DATAGRAM, text, port, IPPROTO_UDP);
    run();
    return went_to();
}

static const char *name_of(const char *text, uint16_t port)
{
    prepare(TEST_NAME, text, port, IPPROTO_TCP);
    run();
    return went_to();
}

static void thousand_connects_are_shared_out_exactly(void **state)
{
    uint32_t got[3] = {0};

    (void) state;
    for (int i = 0; i < 1000; i++) {
        dial(VIP, 80);
        assert_in_range(ntohs(call->port_be), 8000, 8002);
        got[ntohs(call->port_be) - 8000]++;
    }
    assert_int_equal(got[0], 500);
    assert_int_equal(got[1], 300);
    assert_int_equal(got[2], 200);
    assert_int_equal(programs_read_vip(VIP, 80, IPPROTO_TCP).selected, 1000);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(maps.counters[SCENE_FIRST + i].active, 0);
}

static void other_addresses_go_on_as_they_are(void **state)
{
    (void) state;
    assert_string_equal(dial("127.10.0.2", 80), "127.10.0.2:80");
    assert_string_equal(dial(VIP, 81), VIP ":81");
    assert_string_equal(dial("fd00::11", 80), "fd00::11:80");
    assert_int_equal(call->has_socket, 0); /* and cost no memory */
    new_socket();
    assert_string_equal(send_datagram(VIP, 80), VIP ":80"); /* that one is for TCP */
}

static void mapped_address_stays_mapped(void **state)
{
    (void) state;
    assert_string_equal(dial("::ffff:" VIP, 80), "::ffff:127.0.0.1:8000");
    assert_string_equal(name_of("::ffff:127.0.0.1", 8000), "::ffff:" VIP ":80");
}

static void inet6_is_sent_to_peers_of_its_own(void **state)
{
    (void) state;
    assert_string_equal(dial(VIP6, 80), VIP6 ":80");
    assert_int_equal(programs_read_vip(VIP6, 80, IPPROTO_TCP).missed, 1);
    programs_place(1, AF_INET6, 8001);
    programs_publish();
    assert_string_equal(dial(VIP6, 80), "::1:8001");
    assert_string_equal(name_of("::1", 8001), VIP6 ":80");
}

/* The reference is what a process that has the maps in its memory picks. */
static void hash_of_the_source_finds_the_peer_of_nginx(void **state)
{
    const struct durpina_maps readable = programs_readable();
    const struct durpina_tried nobody = {0};
    uint64_t seed = scene_seed();

    (void) state;
    programs_add_vip(VIP, 80, IPPROTO_TCP, DURPINA_HASH);
    programs_add_vip(VIP6, 80, IPPROTO_TCP, DURPINA_HASH);
    for (int six = 0; six < 2; six++) {
        for (uint32_t i = 0; i < 3 && six; i++)
            programs_place(i, AF_INET6, (uint16_t) (8000 + i));
        programs_publish();
        for (int i = 0; i < 1000; i++) {
            struct durpina_request request = {.algorithm = DURPINA_HASH, .tried = &nobody};
            struct durpina_pick pick;

            new_socket();
            call->sk.src_ip4 = (uint32_t) scene_random(&seed);
            for (int word = 0; word < 4; word++)
                call->sk.src_ip6[word] = (uint32_t) scene_random(&seed);
            if (i == 0)
                memset(&call->sk, 0, sizeof(call->sk)); /* not bound */
            prepare(TEST_CONNECT, six ? VIP6 : VIP, 80, IPPROTO_TCP);
            run();
            request.hash = six ? durpina_hash_inet6(call->sk.src_ip6[0], call->sk.src_ip6[1],
                                                    call->sk.src_ip6[2], call->sk.src_ip6[3])
                               : durpina_hash_inet(call->sk.src_ip4);
            request.now_ms = programs_now_ms();
            assert_int_equal(durpina_pick(&readable, SCENE_UPSTREAM, SCENE_GENERATION, &request,
                                          &pick),
                             DURPINA_PICK_OK);
            assert_int_equal(call->socket.peer, pick.peer);
            durpina_finish(&readable, &pick, DURPINA_OUTCOME_SUCCESS, NULL, request.now_ms);
        }
    }
}

static void no_peer_is_a_miss_that_changes_nothing(void **state)
{
    (void) state;
    for (uint32_t i = 0; i < 3; i++)
        scene->want[i].state = DURPINA_PEER_DOWN;
    programs_publish();
    assert_string_equal(dial(VIP, 80), VIP ":80");
    assert_int_equal(programs_read_vip(VIP, 80, IPPROTO_TCP).missed, 1);
    assert_string_equal(name_of(VIP, 80), VIP ":80");
}

static void bad_ids_in_a_virtual_endpoint_are_misses(void **state)
{
    const struct durpina_address address = programs_address(VIP, 80, IPPROTO_TCP);
    const struct durpina_vip bad[] = {
        {.upstream = SCENE_UPSTREAMS, .generation = SCENE_GENERATION},
        {.upstream = UINT32_MAX, .generation = SCENE_GENERATION},
        {.upstream = SCENE_UPSTREAM, .generation = SCENE_GENERATION + 1},
        {.upstream = 0}, /* a free record */
        {.upstream = SCENE_UPSTREAM, .generation = SCENE_GENERATION, .algorithm = DURPINA_RING},
        {.upstream = SCENE_UPSTREAM,
         .generation = SCENE_GENERATION,
         .algorithm = (enum durpina_algorithm) UINT32_MAX},
    };

    (void) state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(bpf_map_update_elem(maps.vips, &address, &bad[i], BPF_ANY), 0);
        assert_string_equal(dial(VIP, 80), VIP ":80");
        assert_int_equal(programs_read_vip(VIP, 80, IPPROTO_TCP).missed, 1);
        assert_int_equal(programs_read_vip(VIP, 80, IPPROTO_TCP).selected, 0);
    }
}

static void exempt_and_marked_sockets_go_on_as_they_are(void **state)
{
    (void) state;
    new_socket();
    call->has_socket = 1;
    call->socket.exempt = 1;
    prepare(TEST_CONNECT, VIP, 80, IPPROTO_TCP);
    run();
    assert_string_equal(went_to(), VIP ":80");
    assert_int_equal(maps.kernel->exempt, 1);
    new_socket();
    call->sk.mark = MARK;
    prepare(TEST_CONNECT, VIP, 80, IPPROTO_TCP);
    run();
    assert_string_equal(went_to(), VIP ":80");
    assert_int_equal(maps.kernel->marked, 1);
    new_socket();
    call->no_memory = 1;
    prepare(TEST_CONNECT, VIP, 80, IPPROTO_TCP);
    run();
    assert_string_equal(went_to(), VIP ":80");
    assert_int_equal(maps.kernel->unobserved, 1);
}

static void loopback_addresses_are_those_of_the_own_namespace(void **state)
{
    const uint32_t far_be = htonl(0x0a000001);

    (void) state;
    new_socket();
    prepare(TEST_CONNECT, VIP, 80, IPPROTO_TCP);
    call->netns_cookie = COOKIE + 1;
    run();
    assert_string_equal(went_to(), VIP ":80");
    assert_int_equal(maps.kernel->foreign, 1);

    /* Others are for any, but not with a peer that is not there. */
    programs_add_vip("10.9.9.9", 80, IPPROTO_TCP, DURPINA_ROUND_ROBIN);
    new_socket();
    prepare(TEST_CONNECT, "10.9.9.9", 80, IPPROTO_TCP);
    call->netns_cookie = COOKIE + 1;
    run();
    assert_string_equal(went_to(), "10.9.9.9:80");
    assert_int_equal(programs_read_vip("10.9.9.9", 80, IPPROTO_TCP).missed, 1);
    for (uint32_t i = 0; i < 3; i++)
        scene->peers[SCENE_FIRST + i].addr_be[0] = far_be;
    programs_publish();
    prepare(TEST_CONNECT, "10.9.9.9", 80, IPPROTO_TCP);
    call->netns_cookie = COOKIE + 1;
    run();
    assert_int_equal(call->addr_be[0], far_be);
    assert_int_equal(maps.kernel->foreign, 1);
}

static void connect_elsewhere_forgets_what_was_dialled(void **state)
{
    (void) state;
    assert_string_equal(dial(VIP, 80), "127.0.0.1:8000");
    assert_string_equal(name_of("127.0.0.1", 8000), VIP ":80");
    assert_string_equal(name_of("127.0.0.1", 8001), "127.0.0.1:8001");
    call->socket.probing = 1;
    prepare(TEST_CONNECT, "127.0.0.1", 8000, IPPROTO_TCP); /* the very peer, by its own name */
    run();
    assert_string_equal(went_to(), "127.0.0.1:8000");
    assert_string_equal(name_of("127.0.0.1", 8000), "127.0.0.1:8000");
    assert_int_equal(call->socket.probing, 0);
}

static void datagrams_stay_until_their_peer_is_gone(void **state)
{
    (void) state;
    new_socket();
    for (int i = 0; i < 5; i++)
        assert_string_equal(send_datagram(VIP, 53), "127.0.0.1:8000");
    assert_int_equal(programs_read_vip(VIP, 53, IPPROTO_UDP).selected, 1);
    assert_string_equal(send_datagram("127.0.0.53", 53), "127.0.0.53:53");
    assert_string_equal(send_datagram(VIP, 53), "127.0.0.1:8000");
    maps.counters[SCENE_FIRST].down_until_ms = programs_now_ms() + 60000;
    assert_string_equal(send_datagram(VIP, 53), "127.0.0.1:8001");
    scene->want[1].state = DURPINA_PEER_DOWN;
    programs_publish();
    assert_string_equal(send_datagram(VIP, 53), "127.0.0.1:8002");
    assert_string_equal(send_datagram("127.0.0.1", 8002), "127.0.0.1:8002");
    prepare(TEST_NAME, "127.0.0.1", 8002, IPPROTO_UDP);
    run();
    assert_string_equal(went_to(), "127.0.0.1:8002"); /* by its own name from then on */
}

static void fill(void *to, size_t size, uint64_t *seed)
{
    uint8_t *bytes = to;

    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t) scene_random(seed);
}

static void garbage_in_the_maps_harms_nobody(void **state)
{
    const struct durpina_address address = programs_address(VIP, 80, IPPROTO_TCP);
    uint64_t seed = scene_seed();

    (void) state;
    for (int round = 0; round < 300; round++) {
        struct durpina_vip vip = programs_read_vip(VIP, 80, IPPROTO_TCP);
        const uint64_t chance = scene_random(&seed);

        if (chance & 1)
            fill(maps.upstreams[SCENE_UPSTREAM].view, sizeof(maps.upstreams[0].view), &seed);
        if (chance & 2)
            fill(&maps.peers[SCENE_FIRST], 3 * sizeof(maps.peers[0]), &seed);
        if (chance & 4)
            fill(maps.slots, 4096, &seed);
        if (chance & 8)
            fill(&maps.counters[SCENE_FIRST], 3 * sizeof(maps.counters[0]), &seed);
        if (chance & 16)
            fill(&maps.cursors[SCENE_UPSTREAM], sizeof(maps.cursors[0]), &seed);
        if (chance & 32)
            fill(&vip, sizeof(vip), &seed);
        vip.algorithm = (enum durpina_algorithm)(chance >> 8 & 3);
        assert_int_equal(bpf_map_update_elem(maps.vips, &address, &vip, BPF_ANY), 0);
        for (int what = TEST_CONNECT; what <= TEST_NAME; what++) {
            new_socket();
            fill(&call->socket, sizeof(call->socket), &seed);
            call->has_socket = chance >> 10 & 1;
            prepare((enum what) what, VIP, 80, IPPROTO_TCP);
            run();
        }
        programs_publish();
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(thousand_connects_are_shared_out_exactly),
        TEST(other_addresses_go_on_as_they_are),
        TEST(mapped_address_stays_mapped),
        TEST(inet6_is_sent_to_peers_of_its_own),
        TEST(hash_of_the_source_finds_the_peer_of_nginx),
        TEST(no_peer_is_a_miss_that_changes_nothing),
        TEST(bad_ids_in_a_virtual_endpoint_are_misses),
        TEST(exempt_and_marked_sockets_go_on_as_they_are),
        TEST(loopback_addresses_are_those_of_the_own_namespace),
        TEST(connect_elsewhere_forgets_what_was_dialled),
        TEST(datagrams_stay_until_their_peer_is_gone),
        TEST(garbage_in_the_maps_harms_nobody),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
