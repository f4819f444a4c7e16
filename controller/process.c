/* SPDX-License-Identifier: MIT */
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
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

int process_started(pid_t pid, uint32_t *ret_started)
{
    char path[32], stat[1024];
    uint64_t started;
    ssize_t len = -1;
    char state;
    int fd, err;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int) pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0)
        len = read(fd, stat, sizeof(stat) - 1);
    err = errno;
    if (fd >= 0)
        close(fd);
    /* With hidepid other users' processes seem not to be there. */
    if (len < 0)
        return process_exists(pid) ? -err : -ESRCH;
    stat[len] = '\0';

    /* The second field is the name in parentheses; a process may name itself as it likes. */
    const char *name_end = strrchr(stat, ')');

    if (name_end == NULL || sscanf(name_end + 1,
                                   " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s"
                                   " %*s %*s %*s %*s %" SCNu64,
                                   &state, &started) != 2)
        return -EIO;
    if (state == 'Z' || state == 'X')
        return -ESRCH;
    *ret_started = (uint32_t) started;
    return 0;
}

bool process_is_gone(pid_t pid, uint32_t started)
{
    uint32_t now_started;
    int err = process_started(pid, &now_started);

    return err == -ESRCH || (err == 0 && now_started != started);
}
