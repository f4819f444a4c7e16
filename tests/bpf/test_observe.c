/* SPDX-License-Identifier: MIT */
/* observe.bpf.c with real sockets: each way for a connection to begin and to end. */
#include "observe_scene.h"

#include <poll.h>

static void open_and_close(const char *ip, uint32_t endpoint)
{
    int listener = net_listen(strchr(ip, '.') ? "127.0.0.1" : "::1", PORT);
    int fd = dial(ip, PORT, 0), accepted;

    assert_true(fd >= 0);
    assert_counts(endpoint, 1, 1, 1);
    accepted = net_accept(listener);
    close(fd);
    assert_counts(endpoint, 0, 1, 1);
    close(accepted);
    close(listener);
    assert_counts(endpoint, 0, 1, 1);
    assert_true(maps.endpoints[endpoint].handshake.samples > 0);
    assert_event(0, 0, 0);
}

static void established_connection_is_open_until_it_is_closed(void **state)
{
    (void) state;
    open_and_close("127.0.0.1", LOCAL4);
    assert_counts(LOCAL6, 0, 0, 0);
}

static void inet6_connection_likewise(void **state)
{
    (void) state;
    open_and_close("::1", LOCAL6);
    assert_counts(LOCAL4, 0, 0, 0);
}

static void mapped_connection_counts_for_the_inet_endpoint(void **state)
{
    (void) state;
    open_and_close("::ffff:127.0.0.1", LOCAL4);
    assert_counts(LOCAL6, 0, 0, 0);
}

static void peer_that_closes_first_leaves_it_open(void **state)
{
    int listener = net_listen("127.0.0.1", PORT), fd = dial("127.0.0.1", PORT, 0);
    char byte;

    (void) state;
    close(net_accept(listener));
    assert_int_equal(read(fd, &byte, 1), 0);
    assert_counts(LOCAL4, 1, 1, 1); /* CLOSE_WAIT */
    shutdown(fd, SHUT_WR);
    assert_counts(LOCAL4, 0, 1, 1);
    close(fd);
    close(listener);
    assert_counts(LOCAL4, 0, 1, 1);
    assert_int_equal(maps.endpoints[LOCAL4].resets, 0);
}

static void refused_connect_is_told_at_once(void **state)
{
    (void) state;
    assert_int_equal(dial("127.0.0.1", CLOSED_PORT, 0), -ECONNREFUSED);
    assert_counts(CLOSED4, 0, 1, 0);
    assert_int_equal(maps.endpoints[CLOSED4].refused, 1);
    assert_event(1, CLOSED4, DURPINA_CONNECT_REFUSED);
    assert_int_equal(dial("::ffff:127.0.0.1", CLOSED_PORT, 0), -ECONNREFUSED);
    assert_int_equal(maps.endpoints[CLOSED4].refused, 2);
    assert_event(2, CLOSED4, DURPINA_CONNECT_REFUSED);
}

static void unanswered_connect_has_timed_out(void **state)
{
    const int timeout_ms = 100;
    int fd = net_socket(AF_INET, SOCK_STREAM);

    (void) state;
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms));
    assert_int_equal(net_connect(fd, SILENT, PORT), ETIMEDOUT);
    assert_int_equal(maps.endpoints[SILENT4].timed_out, 1);
    assert_true(maps.endpoints[SILENT4].retransmits >= 1);
    assert_true(maps.endpoints[SILENT4].segments >= maps.endpoints[SILENT4].retransmits);
    assert_counts(SILENT4, 0, 1, 0);
    assert_event(1, SILENT4, DURPINA_CONNECT_TIMED_OUT);
    close(fd);
    assert_counts(SILENT4, 0, 1, 0);
}

static void process_that_gives_up_after_a_lost_syn_has_timed_out(void **state)
{
    int fd = dial(SILENT, PORT, SOCK_NONBLOCK);
    struct pollfd never = {.fd = fd, .events = POLLOUT};

    (void) state;
    while (DURPINA_LOAD(&maps.endpoints[SILENT4].retransmits) == 0)
        assert_int_equal(poll(&never, 1, 20), 0);
    close(fd);
    assert_int_equal(maps.endpoints[SILENT4].timed_out, 1);
    assert_counts(SILENT4, 0, 1, 0);
    assert_event(1, SILENT4, DURPINA_CONNECT_TIMED_OUT);
}

static void process_that_leaves_at_once_has_learned_nothing(void **state)
{
    int fd = dial(SILENT, PORT, SOCK_NONBLOCK);

    (void) state;
    assert_int_equal(maps.endpoints[SILENT4].connecting, 1);
    assert_counts(SILENT4, 0, 1, 0);
    close(fd);
    assert_int_equal(maps.endpoints[SILENT4].abandoned, 1);
    assert_int_equal(maps.endpoints[SILENT4].connecting, 0);
    assert_counts(SILENT4, 0, 1, 0);
    assert_event(0, 0, 0);
}

static void host_that_is_not_found_is_unreachable(void **state)
{
    (void) state;
    assert_int_equal(dial(MISSING, PORT, 0), -EHOSTUNREACH);
    assert_int_equal(maps.endpoints[MISSING4].unreachable, 1);
    assert_counts(MISSING4, 0, 1, 0);
    assert_event(1, MISSING4, DURPINA_CONNECT_UNREACHABLE);
}

static void reset_by_the_peer_is_counted(void **state)
{
    const struct linger abort_now = {.l_onoff = 1};
    int listener = net_listen("127.0.0.1", PORT), fd = dial("127.0.0.1", PORT, 0);
    int accepted = net_accept(listener);
    char byte;

    (void) state;
    setsockopt(accepted, SOL_SOCKET, SO_LINGER, &abort_now, sizeof(abort_now));
    close(accepted);
    assert_int_equal(read(fd, &byte, 1), -1);
    assert_int_equal(errno, ECONNRESET);
    assert_counts(LOCAL4, 0, 1, 1);
    assert_int_equal(maps.endpoints[LOCAL4].resets, 1);
    close(fd);

    /* By this side: none of the peer's. */
    fd = dial("127.0.0.1", PORT, 0);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &abort_now, sizeof(abort_now));
    close(fd);
    assert_counts(LOCAL4, 0, 2, 2);
    assert_int_equal(maps.endpoints[LOCAL4].resets, 1);
    close(listener);
}

static void bytes_segments_and_round_trip_times_are_counted(void **state)
{
    const struct durpina_endpoint *e = &maps.endpoints[LOCAL4];
    int listener = net_listen("127.0.0.1", PORT), fd = dial("127.0.0.1", PORT, 0);
    int accepted = net_accept(listener);
    char block[10000] = {0};

    (void) state;
    assert_int_equal(write(fd, block, sizeof(block)), sizeof(block));
    assert_int_equal(recv(accepted, block, sizeof(block), MSG_WAITALL), sizeof(block));
    assert_int_equal(write(accepted, block, 3000), 3000);
    assert_int_equal(recv(fd, block, 3000, MSG_WAITALL), 3000);
    close(accepted);
    assert_int_equal(read(fd, block, 1), 0);
    close(fd);
    close(listener);
    assert_in_range(e->sent, sizeof(block), sizeof(block) + 2); /* SYN and FIN */
    assert_in_range(e->received, 3000, 3001);
    assert_true(e->segments >= 4);
    assert_true(e->rtt.mean > 0 && e->rtt.samples > 0);
    assert_true(e->min_rtt > 0 && e->min_rtt <= e->rtt.mean);
    assert_int_equal(e->retransmits, 0);
}

static int tests_of_ends(void)
{
    const struct CMUnitTest tests[] = {
        TEST(established_connection_is_open_until_it_is_closed),
        TEST(inet6_connection_likewise),
        TEST(mapped_connection_counts_for_the_inet_endpoint),
        TEST(peer_that_closes_first_leaves_it_open),
        TEST(refused_connect_is_told_at_once),
        TEST(unanswered_connect_has_timed_out),
        TEST(process_that_gives_up_after_a_lost_syn_has_timed_out),
        TEST(process_that_leaves_at_once_has_learned_nothing),
        TEST(host_that_is_not_found_is_unreachable),
        TEST(reset_by_the_peer_is_counted),
        TEST(bytes_segments_and_round_trip_times_are_counted),
    };

    return make_network() != 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void)
{
    return sandbox_run(tests_of_ends);
}
