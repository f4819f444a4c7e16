/* SPDX-License-Identifier: MIT */
#include "process.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

bool process_ends(pid_t pid, int timeout_ms)
{
    int fd = (int) syscall(SYS_pidfd_open, pid, 0);
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    bool ended;

    if (fd < 0)
        return errno == ESRCH;
    ended = poll(&pfd, 1, timeout_ms) > 0;
    close(fd);
    return ended;
}

bool process_exists(pid_t pid)
{
    return kill(pid, 0) == 0 || errno == EPERM;
}
