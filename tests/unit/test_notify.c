/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "notify.h"

#include <cmocka.h>

/* A socket of systemd's part; its name is in $NOTIFY_SOCKET. */
static int listen_for_states(bool abstract)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    char name[64];
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    snprintf(name, sizeof(name), "%s/tmp/durpina-notify-%d", abstract ? "@" : "", (int) getpid());
    setenv("NOTIFY_SOCKET", name, 1);
    memcpy(un.sun_path, name, strlen(name));
    if (abstract)
        un.sun_path[0] = '\0';
    assert_int_equal(bind(fd, (struct sockaddr *) &un,
                          (socklen_t) (offsetof(struct sockaddr_un, sun_path) + strlen(name))),
                     0);
    return fd;
}

static void states_reach_the_socket(void **state)
{
    char text[128] = "";

    (void) state;
    for (int abstract = 0; abstract <= 1; abstract++) {
        int fd = listen_for_states(abstract);

        assert_int_equal(notify("READY=1"), 0);
        assert_int_equal(recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT), 7);
        assert_memory_equal(text, "READY=1", 7);
        assert_int_equal(notify_reloading(), 0);
        text[recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT)] = '\0';
        assert_ptr_equal(strstr(text, "RELOADING=1\nMONOTONIC_USEC="), text);
        close(fd);
        if (!abstract)
            unlink(getenv("NOTIFY_SOCKET"));
    }
}

static void without_systemd_nothing_is_sent(void **state)
{
    (void) state;
    unsetenv("NOTIFY_SOCKET");
    assert_int_equal(notify("READY=1"), 0);
    setenv("NOTIFY_SOCKET", "", 1);
    assert_int_equal(notify("READY=1"), 0);
}

static void a_bad_socket_is_an_error(void **state)
{
    char name[300];

    (void) state;
    setenv("NOTIFY_SOCKET", "relative", 1);
    assert_int_equal(notify("READY=1"), -EINVAL);
    setenv("NOTIFY_SOCKET", "/nonexistent/socket", 1);
    assert_int_equal(notify("READY=1"), -ENOENT);
    memset(name, 'x', sizeof(name) - 1);
    name[0] = '/';
    name[sizeof(name) - 1] = '\0';
    setenv("NOTIFY_SOCKET", name, 1);
    assert_int_equal(notify("READY=1"), -EINVAL);
}

/* What notify_listen_fd() says in a process that has fd as its descriptor 3. */
static int passed(int fd, const char *n, bool to_us)
{
    pid_t pid = fork();
    int status;

    assert_true(pid >= 0);
    if (pid == 0) {
        char text[16];
        int ret = -1, err;

        snprintf(text, sizeof(text), "%d", to_us ? (int) getpid() : 1);
        setenv("LISTEN_PID", text, 1);
        setenv("LISTEN_FDS", n, 1);
        dup2(fd, 3);
        err = notify_listen_fd(&ret);
        if (err == 0 && (ret != 3 || !(fcntl(3, F_GETFD) & FD_CLOEXEC)))
            _exit(255);
        _exit(-err);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return -WEXITSTATUS(status);
}

static void a_listening_unix_socket_is_taken_over(void **state)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    int tcp = socket(AF_INET, SOCK_STREAM, 0);

    (void) state;
    assert_int_equal(bind(fd, (struct sockaddr *) &un, sizeof(sa_family_t)), 0); /* autobind */
    assert_int_equal(passed(fd, "1", true), -EINVAL);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(passed(fd, "1", true), 0);
    assert_int_equal(passed(fd, "2", true), -EINVAL);
    assert_int_equal(passed(fd, "1", false), -ENOENT);
    assert_int_equal(passed(tcp, "1", true), -EINVAL);
    close(fd);
    close(tcp);
}

static void without_socket_activation_there_is_none(void **state)
{
    int fd = -1;

    (void) state;
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    assert_int_equal(notify_listen_fd(&fd), -ENOENT);
    assert_int_equal(fd, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(states_reach_the_socket),
        cmocka_unit_test(without_systemd_nothing_is_sent),
        cmocka_unit_test(a_bad_socket_is_an_error),
        cmocka_unit_test(a_listening_unix_socket_is_taken_over),
        cmocka_unit_test(without_socket_activation_there_is_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
