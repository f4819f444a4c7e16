/* SPDX-License-Identifier: MIT */
/* What the checks that open sockets share: the socket itself, and what its failures mean. */
#include <errno.h>

#include "probe_ops.h"

int probe_socket(struct prober *prober, int family, int *ret_fd)
{
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    if (prober->socket_hook != NULL && family != AF_UNIX &&
        prober->socket_hook(prober->socket_hook_user, fd) < 0)
        prober->stats.unmarked++;
    *ret_fd = fd;
    return 0;
}

bool probe_is_shortage(const struct probe_target *target, int err)
{
    switch (-err) {
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOBUFS:
    case ENOSPC:        /* epoll's limit of watches */
    case EADDRNOTAVAIL: /* no local port left */
        return true;
    case EAGAIN: /* connect(2): no local port left, or a full backlog of a unix socket */
        return target->addr.sa.sa_family != AF_UNIX;
    default:
        return false;
    }
}

void probe_done_errno(struct probe_target *target, int err)
{
    if (err == -EAGAIN && !probe_is_shortage(target, err))
        probe_done(target, target->no_answer, "listen queue is full");
    else
        probe_done(target, probe_is_shortage(target, err) ? PROBE_UNDECIDED : target->no_answer,
                   "%s", uv_strerror(err));
}
