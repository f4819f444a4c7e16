/* SPDX-License-Identifier: MIT */
#include "listen.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "process.h"

#define BACKLOG 511

static int report(char *error, size_t size, int err, const char *what, const char *name)
{
    snprintf(error, size, "cannot %s %s: %s", what, name, strerror(err));
    return -err;
}

/* 0: nobody is there and the path is free to be bound. */
static int remove_stale(const struct sockaddr_un *un, char *error, size_t size)
{
    struct ucred owner = {0};
    socklen_t len = sizeof(owner);
    struct stat st;
    int fd, err = 0;
    bool alive;

    if (lstat(un->sun_path, &st) < 0)
        return errno == ENOENT ? 0 : report(error, size, errno, "look at", un->sun_path);
    if (!S_ISSOCK(st.st_mode)) {
        snprintf(error, size, "%s exists and is no socket: remove it or choose another --socket",
                 un->sun_path);
        return -EEXIST;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return report(error, size, errno, "create a socket for", un->sun_path);
    /* EAGAIN: its backlog is full, so it is alive as well. */
    alive = connect(fd, (const struct sockaddr *) un, sizeof(*un)) == 0 || errno == EAGAIN;
    if (alive)
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &owner, &len);
    if (alive && !(owner.pid > 0 && process_ends(owner.pid, PROCESS_GRACE_MS))) {
        snprintf(error, size,
                 "%s is in use by process %ld: stop that controller or choose another --socket",
                 un->sun_path, (long) owner.pid);
        err = -EADDRINUSE;
    } else if (unlink(un->sun_path) < 0 && errno != ENOENT) {
        err = report(error, size, errno, "remove the stale socket", un->sun_path);
    }
    close(fd);
    return err;
}

int listen_unix(const char *path, mode_t mode, int *ret_fd, char *error, size_t error_size)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    mode_t mask;
    int fd, err;

    if (strlen(path) >= sizeof(un.sun_path)) {
        snprintf(error, error_size, "%s is too long for a socket: at most %zu bytes", path,
                 sizeof(un.sun_path) - 1);
        return -ENAMETOOLONG;
    }
    strcpy(un.sun_path, path);
    err = remove_stale(&un, error, error_size);
    if (err < 0)
        return err;

    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return report(error, error_size, errno, "create a socket for", path);
    mask = umask(0777 & ~mode);
    err = bind(fd, (struct sockaddr *) &un, sizeof(un)) < 0 ? errno : 0;
    umask(mask);
    if (err == 0 && listen(fd, BACKLOG) < 0)
        err = errno;
    if (err != 0) {
        close(fd);
        return report(error, error_size, err, "listen on", path);
    }
    *ret_fd = fd;
    return 0;
}

int listen_tcp(const struct addr *addr, int *ret_fd, char *error, size_t error_size)
{
    char name[DURPINA_NAME_SIZE];
    int fd, on = 1;

    addr_format(addr, name, sizeof(name));
    fd = socket(addr->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return report(error, error_size, errno, "create a socket for", name);
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        (addr->sa.sa_family == AF_INET6 &&
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0) ||
        bind(fd, &addr->sa, addr->len) < 0 || listen(fd, BACKLOG) < 0) {
        int err = errno;

        close(fd);
        return report(error, error_size, err, "listen on", name);
    }
    *ret_fd = fd;
    return 0;
}
