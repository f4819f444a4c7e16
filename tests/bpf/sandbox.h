/* SPDX-License-Identifier: MIT */
/*
 * sandbox_run() keeps live programs away from the machine: the tests run in a cgroup2 child and a
 * network namespace of their own. net_*() are sockets there, by addresses as text: IPv4 or IPv6,
 * mapped ones included.
 */
#ifndef DURPINA_TEST_SANDBOX_H
#define DURPINA_TEST_SANDBOX_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* --- away from the machine --- */

static int sandbox_cgroup = -1; /* a descriptor of its directory */

static inline int sandbox_make_cgroup(char *path, size_t size)
{
    const char *run = getenv("DURPINA_TEST_RUN");
    FILE *mounts = fopen("/proc/self/mountinfo", "re");
    char line[1024], root[256] = "";

    while (mounts != NULL && root[0] == '\0' && fgets(line, sizeof(line), mounts) != NULL)
        if (strstr(line, " - cgroup2 ") != NULL)
            sscanf(line, "%*s %*s %*s %*s %255s", root);
    if (mounts != NULL)
        fclose(mounts);
    if (root[0] == '\0')
        return -ENOENT;
    snprintf(path, size, "%s/%s-%d", root, run != NULL ? run : "durpina-test", (int) getpid());
    return mkdir(path, 0755) < 0 ? -errno : open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static inline int sandbox_enter(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd = openat(sandbox_cgroup, "cgroup.procs", O_WRONLY | O_CLOEXEC);
    int err = fd < 0 || write(fd, "0", 1) != 1 || unshare(CLONE_NEWNET) < 0 ? -errno : 0;

    close(fd);
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (err == 0 && ioctl(fd, SIOCSIFFLAGS, &request) < 0)
        err = -errno;
    close(fd);
    return err;
}

/* Runs the tests as a child in a cgroup and a network namespace that end with it. */
static inline int sandbox_run(int (*tests_main)(void))
{
    char path[512];
    int status = 1;
    pid_t pid;

    sandbox_cgroup = sandbox_make_cgroup(path, sizeof(path));
    if (sandbox_cgroup < 0) {
        printf("Bail out! no cgroup2 child: %s\n", strerror(-sandbox_cgroup));
        return 1;
    }
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        int err = sandbox_enter();

        if (err < 0)
            printf("Bail out! no network namespace: %s\n", strerror(-err));
        exit(err < 0 ? 1 : tests_main());
    }
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    close(sandbox_cgroup);
    if (rmdir(path) < 0)
        printf("# %s: %s\n", path, strerror(errno));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/* --- sockets --- */

union net_address {
    struct sockaddr any;
    struct sockaddr_in four;
    struct sockaddr_in6 six;
};

/* An IPv4 or an IPv6 address, mapped ones included. */
static inline union net_address net_address(const char *text, uint16_t port)
{
    union net_address address = {.any.sa_family = AF_UNSPEC};

    if (inet_pton(AF_INET, text, &address.four.sin_addr) == 1) {
        address.any.sa_family = AF_INET;
        address.four.sin_port = htons(port);
    } else {
        assert_int_equal(inet_pton(AF_INET6, text, &address.six.sin6_addr), 1);
        address.any.sa_family = AF_INET6;
        address.six.sin6_port = htons(port);
    }
    return address;
}

static inline uint16_t net_port(const union net_address *address)
{
    return ntohs(address->any.sa_family == AF_INET ? address->four.sin_port
                                                   : address->six.sin6_port);
}

static inline int net_socket(int family, int type)
{
    int fd = socket(family, type | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    return fd;
}

/* 0 or the error. */
static inline int net_connect(int fd, const char *text, uint16_t port)
{
    const union net_address address = net_address(text, port);

    return connect(fd, &address.any, sizeof(address)) < 0 ? errno : 0;
}

static inline void net_bind(int fd, const char *text, uint16_t port)
{
    const union net_address address = net_address(text, port);
    const int on = 1;

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, &address.any, sizeof(address)) < 0)
        fail_msg("bind %s:%u: %s", text, port, strerror(errno));
}

static inline int net_listen(const char *text, uint16_t port)
{
    int fd = net_socket(net_address(text, port).any.sa_family, SOCK_STREAM);

    net_bind(fd, text, port);
    assert_int_equal(listen(fd, 1024), 0);
    return fd;
}

static inline int net_accept(int fd)
{
    int accepted = accept4(fd, NULL, NULL, SOCK_CLOEXEC);

    assert_true(accepted >= 0);
    return accepted;
}

/* Who the socket says that it talks to, as "127.0.0.1:80". */
static inline const char *net_text(const union net_address *address)
{
    static char text[64];
    char ip[INET6_ADDRSTRLEN];

    inet_ntop(address->any.sa_family,
              address->any.sa_family == AF_INET ? (const void *) &address->four.sin_addr
                                                : (const void *) &address->six.sin6_addr,
              ip, sizeof(ip));
    snprintf(text, sizeof(text), "%s:%u", ip, net_port(address));
    return text;
}

static inline const char *net_peer(int fd)
{
    union net_address address;
    socklen_t size = sizeof(address);

    assert_int_equal(getpeername(fd, &address.any, &size), 0);
    return net_text(&address);
}

static inline uint64_t net_cookie(void)
{
    int fd = net_socket(AF_INET, SOCK_DGRAM);
    uint64_t cookie = 0;
    socklen_t size = sizeof(cookie);

    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &size), 0);
    close(fd);
    return cookie;
}

#endif
