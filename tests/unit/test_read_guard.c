/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "read_guard.h"

#include <cmocka.h>

#define READ_MAX (1 << 20)
/* Far more than can be read before the signal comes, also of a thread that has to wait. */
#define READ_AT_MOST (1ULL << 30)

/* A connection: ret[0] is ours, and whoever writes to ret[1] is the peer. */
static void connection_open(int ret[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM, 0);

    assert_true(listener >= 0);
    assert_int_equal(bind(listener, (struct sockaddr *) &address, length), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *) &address, &length), 0);
    ret[0] = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(ret[0], (struct sockaddr *) &address, length), 0);
    ret[1] = accept(listener, NULL, NULL);
    assert_true(ret[1] >= 0);
    close(listener);
}

static void *write_without_end(void *user)
{
    static const char chunk[64 * 1024];
    sigset_t all;

    /* As libuv's threads do. */
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    while (send(*(int *) user, chunk, sizeof(chunk), MSG_NOSIGNAL) > 0)
        ;
    return NULL;
}

/* A library that returns only when there is nothing to read. */
static uint64_t read_all(int fd)
{
    static char buffer[4096];
    uint64_t total = 0;
    ssize_t n;

    while ((n = recv(fd, buffer, sizeof(buffer), 0)) > 0 && total < READ_AT_MOST)
        total += (uint64_t) n;
    return total;
}

static void call_that_would_read_for_ever_is_ended(void **state)
{
    pthread_t writer;
    int ends[2];
    uint64_t n;

    (void) state;
    assert_int_equal(read_guard_create(), 0);
    assert_int_equal(read_guard_create(), 0);
    connection_open(ends);
    assert_int_equal(pthread_create(&writer, NULL, write_without_end, &ends[1]), 0);
    read_guard_set(ends[0], true);
    assert_false(read_guard_has_ended(ends[0]));
    read_guard_enter(READ_MAX);
    n = read_all(ends[0]);
    read_guard_leave();
    assert_true(read_guard_has_ended(ends[0]));
    assert_in_range(n, READ_MAX, READ_AT_MOST - 1);
    assert_int_equal(pthread_join(writer, NULL), 0);

    /* The next one with this number is another. */
    read_guard_set(ends[0], false);
    assert_false(read_guard_has_ended(ends[0]));
    close(ends[0]);
    close(ends[1]);
}

static void burn(uint64_t ms)
{
    struct timespec begin, now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
    do
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    while ((uint64_t) (now.tv_sec - begin.tv_sec) * 1000 +
               (uint64_t) (now.tv_nsec - begin.tv_nsec) / 1000000 <
           ms);
}

/* Whatever it takes to work on it. */
static void connection_that_has_not_read_too_much_stays(void **state)
{
    static const char text[] = "hello";
    char buffer[sizeof(text)];
    int guarded[2], other[2];

    (void) state;
    assert_int_equal(read_guard_create(), 0);
    connection_open(guarded);
    connection_open(other);
    read_guard_set(guarded[0], true);
    assert_int_equal(send(guarded[1], text, sizeof(text), 0), sizeof(text));
    assert_int_equal(send(other[1], text, sizeof(text), 0), sizeof(text));
    assert_int_equal(recv(guarded[0], buffer, sizeof(buffer), MSG_WAITALL), sizeof(text));
    assert_int_equal(recv(other[0], buffer, sizeof(buffer), MSG_WAITALL), sizeof(text));

    read_guard_enter(sizeof(text));
    burn(50);
    read_guard_leave();
    assert_false(read_guard_has_ended(guarded[0]));
    assert_int_equal(send(guarded[0], text, sizeof(text), 0), sizeof(text));

    /* One byte less is too little, for the guarded one. */
    read_guard_enter(sizeof(text) - 1);
    burn(50);
    read_guard_leave();
    assert_true(read_guard_has_ended(guarded[0]));
    assert_int_equal(send(guarded[0], text, sizeof(text), MSG_NOSIGNAL), -1);
    assert_int_equal(send(other[0], text, sizeof(text), 0), sizeof(text));

    read_guard_set(guarded[0], false);
    for (int i = 0; i < 2; i++) {
        close(guarded[i]);
        close(other[i]);
    }
}

static void bytes_are_counted_when_they_are_read(void **state)
{
    char buffer[100] = {0};
    int ends[2], pair[2];

    (void) state;
    connection_open(ends);
    assert_int_equal(read_guard_bytes(ends[0]), 0);
    assert_int_equal(send(ends[1], buffer, 100, 0), 100);
    assert_int_equal(recv(ends[0], buffer, 100, MSG_WAITALL | MSG_PEEK), 100);
    assert_int_equal(read_guard_bytes(ends[0]), 0);
    assert_int_equal(recv(ends[0], buffer, 60, MSG_WAITALL), 60);
    assert_int_equal(read_guard_bytes(ends[0]), 60);

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(send(pair[1], buffer, 100, 0), 100);
    assert_int_equal(recv(pair[0], buffer, 100, MSG_WAITALL), 100);
    assert_int_equal(read_guard_bytes(pair[0]), 0);
    for (int i = 0; i < 2; i++) {
        close(ends[i]);
        close(pair[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(call_that_would_read_for_ever_is_ended),
        cmocka_unit_test(connection_that_has_not_read_too_much_stays),
        cmocka_unit_test(bytes_are_counted_when_they_are_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
