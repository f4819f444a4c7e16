/* SPDX-License-Identifier: MIT */
/*
 * observe.bpf.c, attached to a cgroup of the test's own, with endpoints for every way to end. The
 * network has to be there: make_network().
 */
#ifndef DURPINA_TEST_OBSERVE_SCENE_H
#define DURPINA_TEST_OBSERVE_SCENE_H

#include "kernel_scene.h"

#include "observe.skel.h"
#include "sandbox.h"

#define PORT 7000        /* of the server that is there */
#define CLOSED_PORT 7001 /* nobody listens */

/* A network whose hosts do not answer: one swallows what is sent, the other one is not found. */
#define SILENT "10.77.0.2"
#define MISSING "10.77.0.3"

enum { LOCAL4, LOCAL6, CLOSED4, SILENT4, MISSING4, ENDPOINTS };

static const struct {
    const char *ip;
    uint16_t port;
} addresses[ENDPOINTS] = {
    [LOCAL4] = {"127.0.0.1", PORT},         [LOCAL6] = {"::1", PORT},
    [CLOSED4] = {"127.0.0.1", CLOSED_PORT}, [SILENT4] = {SILENT, PORT},
    [MISSING4] = {MISSING, PORT},
};

static struct observe *programs;
static struct bpf_link *attached;
static struct ring_buffer *ring;
static struct durpina_event last_event;
static uint32_t n_events;

static inline int note_event(void *context, void *event, size_t size)
{
    (void) context;
    assert_int_equal(size, sizeof(last_event));
    memcpy(&last_event, event, sizeof(last_event));
    n_events++;
    return 0;
}

static inline void attach(void)
{
    attached = bpf_program__attach_cgroup(programs->progs.durpina_observe, sandbox_cgroup);
    assert_non_null(attached);
}

static inline void load(uint64_t netns_cookie)
{
    programs = observe__open();
    assert_non_null(programs);
    programs->rodata->netns_cookie = netns_cookie;
    programs->rodata->own_netns_cookie = net_cookie();
    programs_set_capacities(programs->obj);
    programs_load(programs->obj);
    programs_map(programs->obj, 1, NULL);
    for (uint32_t i = 0; i < ENDPOINTS; i++) {
        const struct durpina_address key =
            programs_address(addresses[i].ip, addresses[i].port, IPPROTO_TCP);

        maps.endpoints[i].generation = 10 + i;
        assert_int_equal(bpf_map_update_elem(maps.endpoint_ids, &key, &i, BPF_ANY), 0);
    }
    n_events = 0;
    ring = ring_buffer__new(maps.events, note_event, NULL, NULL);
    assert_non_null(ring);
    attach();
}

static inline int set_up(void **state)
{
    (void) state;
    load(net_cookie());
    return 0;
}

static inline int tear_down(void **state)
{
    (void) state;
    ring_buffer__free(ring);
    bpf_link__destroy(attached);
    programs_unmap(programs->obj);
    observe__destroy(programs);
    return 0;
}

/* The counts of an endpoint, and its sum. */
static inline void assert_counts(uint32_t endpoint, uint32_t open, uint64_t tried,
                                 uint64_t established)
{
    const struct durpina_endpoint *e = &maps.endpoints[endpoint];

    assert_int_equal(e->open, open);
    assert_int_equal(e->tried, tried);
    assert_int_equal(e->established, established);
    assert_int_equal(e->tried, e->connecting + e->established + e->refused + e->timed_out +
                                   e->unreachable + e->abandoned);
}

static inline void assert_event(uint32_t n, uint32_t endpoint, enum durpina_connect_end how)
{
    ring_buffer__consume(ring);
    assert_int_equal(n_events, n);
    if (n == 0)
        return;
    assert_int_equal(last_event.endpoint, endpoint);
    assert_int_equal(last_event.generation, 10 + endpoint);
    assert_int_equal(last_event.how, how);
    assert_in_range(programs_now_ns() - last_event.at_ns, 0, 60 * 1000000000ULL);
}

static inline int dial(const char *ip, uint16_t port, int type)
{
    int fd = net_socket(net_address(ip, port).any.sa_family, SOCK_STREAM | type);
    int err = net_connect(fd, ip, port);

    if (err != 0 && err != EINPROGRESS) {
        close(fd);
        return -err;
    }
    return fd;
}

/* Returns 0, or 1 with a line for the log. */
static inline int make_network(void)
{
    if (system("ip link add va type veth peer name vb && ip link set va up && ip link set vb up &&"
               "ip address add 10.77.0.1/24 dev va &&"
               "ip neighbour add " SILENT " lladdr 02:00:00:00:00:02 dev va nud permanent &&"
               "echo 1 >/proc/sys/net/ipv4/neigh/va/mcast_solicit &&"
               "echo 20 >/proc/sys/net/ipv4/neigh/va/retrans_time_ms") != 0) {
        printf("Bail out! no network to be lost in\n");
        return 1;
    }
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif
