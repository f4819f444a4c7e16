/* SPDX-License-Identifier: MIT */
/* observe.bpf.c with real sockets: whose connections count, and what odd sockets make of it. */
#include "observe_scene.h"

#include <poll.h>
#include <signal.h>

/* The failure of a connect() that was begun without waiting. */
static int wait_for_end(int fd)
{
    struct pollfd ready = {.fd = fd, .events = POLLOUT};
    int err = 0;
    socklen_t size = sizeof(err);

    assert_int_equal(poll(&ready, 1, 30000), 1);
    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &size), 0);
    return err;
}

static void connection_from_before_is_not_counted(void **state)
{
    int listener = net_listen("127.0.0.1", PORT), fd;

    (void) state;
    bpf_link__destroy(attached);
    fd = dial("127.0.0.1", PORT, 0);
    attach();
    close(fd);
    assert_counts(LOCAL4, 0, 0, 0);
    assert_int_equal(maps.endpoints[LOCAL4].connecting, 0);
    close(listener);
}

static void replaced_program_goes_on_counting(void **state)
{
    int listener = net_listen("127.0.0.1", PORT), fd = dial("127.0.0.1", PORT, 0);
    struct observe *next = observe__open();

    (void) state;
    assert_non_null(next);
    programs_set_capacities(next->obj);
    programs_share_maps(programs->obj, next->obj);
    assert_int_equal(bpf_object__load(next->obj), 0);
    assert_int_equal(bpf_link__update_program(attached, next->progs.durpina_observe), 0);
    close(fd);
    assert_counts(LOCAL4, 0, 1, 1);
    observe__destroy(next);
    close(listener);
}

#define CHILDREN 8
#define EACH 50

static void killed_processes_leave_nothing_open(void **state)
{
    int listener = net_listen("127.0.0.1", PORT), ready[2];
    pid_t children[CHILDREN];

    (void) state;
    assert_int_equal(pipe(ready), 0);
    for (int i = 0; i < CHILDREN; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            for (int n = 0; n < EACH; n++)
                if (dial(n % 5 == 4 ? SILENT : "127.0.0.1", PORT, n % 5 == 4 ? SOCK_NONBLOCK : 0) <
                    0)
                    _exit(1);
            if (write(ready[1], "", 1) == 1)
                pause();
            _exit(1);
        }
    }
    for (int i = 0; i < CHILDREN; i++) {
        char byte;

        assert_int_equal(read(ready[0], &byte, 1), 1);
    }
    assert_counts(LOCAL4, CHILDREN * EACH * 4 / 5, CHILDREN * EACH * 4 / 5,
                  CHILDREN * EACH * 4 / 5);
    assert_int_equal(maps.endpoints[SILENT4].connecting, CHILDREN * EACH / 5);
    for (int i = 0; i < CHILDREN; i++) {
        kill(children[i], SIGKILL);
        assert_int_equal(waitpid(children[i], NULL, 0), children[i]);
    }
    assert_int_equal(maps.endpoints[LOCAL4].open, 0);
    assert_int_equal(maps.endpoints[SILENT4].connecting, 0);
    assert_counts(SILENT4, 0, CHILDREN * EACH / 5, 0);
    close(ready[0]);
    close(ready[1]);
    close(listener);
}

static void socket_may_connect_again_and_again(void **state)
{
    const struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
    int listener = net_listen("127.0.0.1", PORT), fd = net_socket(AF_INET, SOCK_STREAM);

    (void) state;
    assert_int_equal(net_connect(fd, "127.0.0.1", CLOSED_PORT), ECONNREFUSED);
    assert_int_equal(net_connect(fd, "127.0.0.1", PORT), 0);
    assert_counts(CLOSED4, 0, 1, 0);
    assert_counts(LOCAL4, 1, 1, 1);
    assert_int_equal(connect(fd, &nowhere, sizeof(nowhere)), 0);
    assert_counts(LOCAL4, 0, 1, 1);
    assert_int_equal(net_connect(fd, "127.0.0.1", PORT), 0);
    assert_counts(LOCAL4, 1, 2, 2);
    close(fd);
    assert_counts(LOCAL4, 0, 2, 2);

    /* Given up in between, with an error that is left of it. */
    fd = dial(SILENT, PORT, SOCK_NONBLOCK);
    assert_int_equal(connect(fd, &nowhere, sizeof(nowhere)), 0);
    assert_int_equal(net_connect(fd, SILENT, PORT), EINPROGRESS);
    close(fd);
    assert_int_equal(maps.endpoints[SILENT4].abandoned, 2);
    assert_counts(SILENT4, 0, 2, 0);
    close(listener);
}

static void connect_without_waiting_counts_when_it_ends(void **state)
{
    int listener = net_listen("127.0.0.1", PORT), fd = dial("127.0.0.1", PORT, SOCK_NONBLOCK);

    (void) state;
    assert_int_equal(wait_for_end(fd), 0);
    assert_counts(LOCAL4, 1, 1, 1);
    close(fd);
    close(listener);
    fd = dial("127.0.0.1", CLOSED_PORT, SOCK_NONBLOCK);
    if (fd >= 0) {
        assert_int_equal(wait_for_end(fd), ECONNREFUSED);
        close(fd);
    }
    assert_counts(CLOSED4, 0, 1, 0);
    assert_counts(LOCAL4, 0, 1, 1);
}

static void socket_connected_to_itself_counts_once(void **state)
{
    int fd = net_socket(AF_INET, SOCK_STREAM);

    (void) state;
    net_bind(fd, "127.0.0.1", PORT);
    assert_int_equal(net_connect(fd, "127.0.0.1", PORT), 0);
    assert_counts(LOCAL4, 1, 1, 1);
    close(fd);
    assert_counts(LOCAL4, 0, 1, 1);
    assert_int_equal(maps.endpoints[LOCAL4].connecting, 0);
}

static void fast_open_counts_like_any_other(void **state)
{
    const union net_address to = net_address("127.0.0.1", PORT);
    int listener = net_listen("127.0.0.1", PORT), fd = net_socket(AF_INET, SOCK_STREAM);
    int accepted;

    (void) state;
    assert_int_equal(sendto(fd, "x", 1, MSG_FASTOPEN, &to.any, sizeof(to)), 1);
    accepted = net_accept(listener);
    assert_counts(LOCAL4, 1, 1, 1);
    close(fd);
    assert_counts(LOCAL4, 0, 1, 1);
    close(accepted);
    close(listener);
}

static void multipath_counts_its_first_path(void **state)
{
    int listener = net_listen("127.0.0.1", PORT);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_MPTCP);

    (void) state;
    if (fd < 0) { /* a kernel without it */
        close(listener);
        return;
    }
    assert_int_equal(net_connect(fd, "127.0.0.1", PORT), 0);
    assert_counts(LOCAL4, 1, 1, 1);
    close(fd);
    assert_counts(LOCAL4, 0, 1, 1);
    close(listener);
}

static void exempt_socket_is_not_counted(void **state)
{
    const struct durpina_socket exempt = {.exempt = 1};
    int fd = net_socket(AF_INET, SOCK_STREAM);

    (void) state;
    assert_int_equal(bpf_map_update_elem(maps.sockets, &fd, &exempt, BPF_ANY), 0);
    assert_int_equal(net_connect(fd, "127.0.0.1", CLOSED_PORT), ECONNREFUSED);
    close(fd);
    assert_counts(CLOSED4, 0, 0, 0);
    assert_int_equal(maps.kernel->exempt, 1);
    assert_event(0, 0, 0);
}

static void connect_in_another_namespace(void)
{
    pid_t pid = fork();
    int status;

    if (pid == 0)
        _exit(sandbox_enter() < 0 || dial("127.0.0.1", CLOSED_PORT, 0) != -ECONNREFUSED);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void same_address_in_another_namespace_is_another_one(void **state)
{
    (void) state;
    connect_in_another_namespace();
    assert_counts(CLOSED4, 0, 0, 0);
    assert_int_equal(maps.kernel->foreign, 1);
    assert_event(0, 0, 0);

    /* So is a loopback address where all namespaces are observed. */
    tear_down(NULL);
    load(0);
    connect_in_another_namespace();
    assert_counts(CLOSED4, 0, 0, 0);
    assert_int_equal(maps.kernel->foreign, 1);
    assert_int_equal(dial("127.0.0.1", CLOSED_PORT, 0), -ECONNREFUSED);
    assert_counts(CLOSED4, 0, 1, 0);
}

static void endpoint_with_another_owner_is_left_alone(void **state)
{
    int listener = net_listen("127.0.0.1", PORT), fd = dial("127.0.0.1", PORT, 0);
    struct durpina_endpoint *e = &maps.endpoints[LOCAL4];

    (void) state;
    memset(e, 0, sizeof(*e));
    e->generation = 99;
    close(fd);
    close(listener);
    assert_int_equal(e->open, 0);
    assert_int_equal(e->connecting, 0);
    assert_int_equal(e->tried, 0);
}

static void full_ring_drops_events_but_no_counts(void **state)
{
    const uint32_t room = DURPINA_EVENTS_BYTES / (8 + sizeof(struct durpina_event));
    const uint32_t beyond = 100;

    (void) state;
    for (uint32_t i = 0; i < room + beyond; i++)
        assert_int_equal(dial("127.0.0.1", CLOSED_PORT, 0), -ECONNREFUSED);
    assert_int_equal(maps.endpoints[CLOSED4].refused, room + beyond);
    assert_in_range(maps.kernel->events_dropped, beyond, beyond + 1);
    ring_buffer__consume(ring);
    assert_int_equal(n_events + maps.kernel->events_dropped, room + beyond);
}

/* As if another program had taken our callbacks away. */
static void lost_end_of_a_connection_is_made_up_for(void **state)
{
    int listener = net_listen("127.0.0.1", PORT), fd = dial("127.0.0.1", PORT, 0);
    const struct sockaddr nowhere = {.sa_family = AF_UNSPEC};

    (void) state;
    bpf_link__destroy(attached);
    assert_int_equal(connect(fd, &nowhere, sizeof(nowhere)), 0);
    attach();
    assert_counts(LOCAL4, 1, 1, 1); /* not seen */
    assert_int_equal(net_connect(fd, "127.0.0.1", PORT), 0);
    assert_counts(LOCAL4, 1, 2, 2);
    close(fd);
    assert_counts(LOCAL4, 0, 2, 2);
    close(listener);
}

static int tests_of_sockets(void)
{
    const struct CMUnitTest tests[] = {
        TEST(connection_from_before_is_not_counted),
        TEST(replaced_program_goes_on_counting),
        TEST(killed_processes_leave_nothing_open),
        TEST(socket_may_connect_again_and_again),
        TEST(connect_without_waiting_counts_when_it_ends),
        TEST(socket_connected_to_itself_counts_once),
        TEST(fast_open_counts_like_any_other),
        TEST(multipath_counts_its_first_path),
        TEST(exempt_socket_is_not_counted),
        TEST(same_address_in_another_namespace_is_another_one),
        TEST(endpoint_with_another_owner_is_left_alone),
        TEST(full_ring_drops_events_but_no_counts),
        TEST(lost_end_of_a_connection_is_made_up_for),
    };

    return make_network() != 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void)
{
    return sandbox_run(tests_of_sockets);
}
