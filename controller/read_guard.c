/* SPDX-License-Identifier: MIT */
#include "read_guard.h"

#include <errno.h>
#include <linux/tcp.h> /* not the C library's, whose struct tcp_info ends early */
#include <netinet/in.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PERIOD_NS 1000000 /* few calls take longer */
#define FDS_MAX (1 << 20) /* sockets above are not guarded */

enum fd_state { NOT_GUARDED, GUARDED, ENDED };

static timer_t timer;
static bool created, armed;
static uint64_t read_max; /* written while no signal comes */

/* By descriptor; the handler may look at any time. Of a fixed size, since it can be in use then. */
static volatile unsigned char *states;
static int n_states;
static volatile sig_atomic_t end; /* no guarded one from here on */

uint64_t read_guard_bytes(int fd)
{
    struct tcp_info info;
    socklen_t length = sizeof(info);
    int unread = 0;

    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) < 0 ||
        length < offsetof(struct tcp_info, tcpi_segs_out) || ioctl(fd, FIONREAD, &unread) < 0 ||
        info.tcpi_bytes_received < (uint64_t) unread)
        return 0;
    return info.tcpi_bytes_received - (uint64_t) unread;
}

static void on_signal(int number)
{
    const int saved = errno;

    (void) number;
    for (int fd = 0; fd < end; fd++) {
        if (states[fd] != GUARDED || read_guard_bytes(fd) <= read_max)
            continue;
        shutdown(fd, SHUT_RDWR);
        states[fd] = ENDED;
    }
    errno = saved;
}

int read_guard_create(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    /* To this thread, so that no descriptor changes hands meanwhile. Time alone ends nothing: the
     * clock need not be that of the processor, which the kernel looks at every 4 ms only. */
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN};
    struct rlimit limit;
    void *table;

    if (created)
        return 0;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return -errno;
    n_states = limit.rlim_max < FDS_MAX ? (int) limit.rlim_max : FDS_MAX;
    table = calloc((size_t) n_states, 1);
    if (table == NULL)
        return -ENOMEM;
    event._sigev_un._tid = gettid();
    if (sigaction(SIGRTMIN, &action, NULL) < 0 ||
        timer_create(CLOCK_MONOTONIC, &event, &timer) < 0) {
        int err = -errno;

        free(table);
        return err;
    }
    states = table;
    created = true;
    return 0;
}

void read_guard_set(int fd, bool guarded)
{
    if (fd >= n_states)
        return;
    states[fd] = guarded ? GUARDED : NOT_GUARDED;
    if (guarded && fd >= end)
        end = fd + 1;
    while (end > 0 && states[end - 1] == NOT_GUARDED)
        end--;
}

static void timer_arm(long period_ns)
{
    const struct itimerspec period = {{0, period_ns}, {0, period_ns}};

    timer_settime(timer, 0, &period, NULL);
}

void read_guard_enter(uint64_t max)
{
    armed = end > 0;
    read_max = max;
    if (armed)
        timer_arm(PERIOD_NS);
}

void read_guard_leave(void)
{
    if (armed)
        timer_arm(0);
}

bool read_guard_has_ended(int fd)
{
    return fd < n_states && states[fd] == ENDED;
}
