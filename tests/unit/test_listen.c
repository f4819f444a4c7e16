/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "listen.h"

#include <cmocka.h>

static char path[64];
static char error[512];

static int name_socket(void **state)
{
    (void) state;
    snprintf(path, sizeof(path), "/tmp/durpina-listen-%d", (int) getpid());
    return 0;
}

static int remove_socket(void **state)
{
    (void) state;
    unlink(path);
    return 0;
}

static void a_socket_has_the_mode_asked_for(void **state)
{
    mode_t mask = umask(077);
    struct stat st;
    int fd;

    (void) state;
    assert_int_equal(listen_unix(path, 0666, &fd, error, sizeof(error)), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode, S_IFSOCK | 0666);
    assert_int_equal(umask(mask), 077);
    close(fd);
}

static void a_stale_socket_is_replaced(void **state)
{
    int fd;

    (void) state;
    assert_int_equal(listen_unix(path, 0600, &fd, error, sizeof(error)), 0);
    close(fd);
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(listen_unix(path, 0600, &fd, error, sizeof(error)), 0);
    close(fd);
}

static void a_socket_in_use_is_refused_with_the_pid_of_its_owner(void **state)
{
    char pid[32];
    int fd, other = -1;

    (void) state;
    assert_int_equal(listen_unix(path, 0600, &fd, error, sizeof(error)), 0);
    assert_int_equal(listen_unix(path, 0600, &other, error, sizeof(error)), -EADDRINUSE);
    snprintf(pid, sizeof(pid), "process %d:", (int) getpid());
    assert_non_null(strstr(error, path));
    assert_non_null(strstr(error, pid));
    assert_int_equal(other, -1);
    close(fd);
}

static void another_file_is_left_alone(void **state)
{
    int fd = open(path, O_CREAT | O_WRONLY, 0600), other;

    (void) state;
    close(fd);
    assert_int_equal(listen_unix(path, 0600, &other, error, sizeof(error)), -EEXIST);
    assert_non_null(strstr(error, path));
    assert_int_equal(access(path, F_OK), 0);
}

static void a_path_that_cannot_be_is_named(void **state)
{
    char longer[200];
    int fd;

    (void) state;
    assert_int_equal(listen_unix("/nonexistent/x.sock", 0600, &fd, error, sizeof(error)), -ENOENT);
    assert_non_null(strstr(error, "/nonexistent/x.sock"));
    memset(longer, 'x', sizeof(longer) - 1);
    longer[0] = '/';
    longer[sizeof(longer) - 1] = '\0';
    assert_int_equal(listen_unix(longer, 0600, &fd, error, sizeof(error)), -ENAMETOOLONG);
}

static void tcp_listens_and_refuses_a_port_in_use(void **state)
{
    socklen_t len = sizeof(struct sockaddr_in);
    struct addr addr;
    int fd, other = -1;

    (void) state;
    assert_int_equal(addr_parse("127.0.0.1:1", 0, &addr), 0);
    addr_set_port(&addr, 0); /* any */
    assert_int_equal(listen_tcp(&addr, &fd, error, sizeof(error)), 0);
    assert_int_equal(getsockname(fd, &addr.sa, &len), 0);
    assert_int_equal(listen_tcp(&addr, &other, error, sizeof(error)), -EADDRINUSE);
    assert_non_null(strstr(error, "127.0.0.1:"));
    assert_int_equal(other, -1);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_socket_has_the_mode_asked_for, remove_socket),
        cmocka_unit_test_teardown(a_stale_socket_is_replaced, remove_socket),
        cmocka_unit_test_teardown(a_socket_in_use_is_refused_with_the_pid_of_its_owner,
                                  remove_socket),
        cmocka_unit_test_teardown(another_file_is_left_alone, remove_socket),
        cmocka_unit_test(a_path_that_cannot_be_is_named),
        cmocka_unit_test(tcp_listens_and_refuses_a_port_in_use),
    };

    return cmocka_run_group_tests(tests, name_socket, NULL);
}
