/* SPDX-License-Identifier: MIT */
#include "notify.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define LISTEN_FDS_START 3

int notify(const char *state)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    const char *path = getenv("NOTIFY_SOCKET");
    size_t len = path == NULL ? 0 : strlen(path);
    int fd, err = 0;

    if (len == 0)
        return 0;
    if ((path[0] != '/' && path[0] != '@') || len >= sizeof(un.sun_path))
        return -EINVAL;
    memcpy(un.sun_path, path, len);
    if (path[0] == '@')
        un.sun_path[0] = '\0';

    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *) &un,
               (socklen_t) (offsetof(struct sockaddr_un, sun_path) + len)) < 0)
        err = -errno;
    close(fd);
    return err;
}

int notify_reloading(void)
{
    struct timespec now;
    char state[64];

    clock_gettime(CLOCK_MONOTONIC, &now);
    snprintf(state, sizeof(state), "RELOADING=1\nMONOTONIC_USEC=%" PRIu64,
             (uint64_t) now.tv_sec * 1000000 + (uint64_t) now.tv_nsec / 1000);
    return notify(state);
}

int notify_listen_fd(int *ret_fd)
{
    const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
    struct sockaddr_storage ss;
    socklen_t len = sizeof(ss), int_len = sizeof(int);
    int type, listening, fd = LISTEN_FDS_START;

    if (pid == NULL || fds == NULL || strtol(pid, NULL, 10) != getpid())
        return -ENOENT;
    if (strcmp(fds, "1") != 0 || getsockname(fd, (struct sockaddr *) &ss, &len) < 0 ||
        ss.ss_family != AF_UNIX || getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &int_len) < 0 ||
        type != SOCK_STREAM ||
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &int_len) < 0 || !listening)
        return -EINVAL;
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
        return -errno;
    *ret_fd = fd;
    return 0;
}
