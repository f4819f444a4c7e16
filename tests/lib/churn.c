/* SPDX-License-Identifier: MIT */
/*
 * churn N HOLD PORT...: opens connections to the ports of 127.0.0.1 and closes them, in a random
 * order, never more than HOLD at a time; some are closed by a RST. After N connect() it prints
 * "done" and keeps what is open until it is ended (by SIGTERM it closes them); N 0: goes on for
 * ever, some hundred a second.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define HOLD_MAX 1000
#define PAUSE_US 2000

static int fds[HOLD_MAX];

static int open_one(uint16_t port)
{
    const struct sockaddr_in to = {.sin_family = AF_INET,
                                   .sin_port = htons(port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0 || (connect(fd, (const struct sockaddr *) &to, sizeof(to)) < 0 &&
                   errno != EINPROGRESS && errno != ECONNREFUSED)) {
        perror("connect");
        exit(1);
    }
    return fd;
}

static void close_one(int fd)
{
    const struct linger at_once = {.l_onoff = 1};

    if (rand() % 4 == 0)
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    close(fd);
}

static void end(int signum)
{
    (void) signum;
    _exit(0);
}

int main(int argc, char **argv)
{
    unsigned long n = argc > 3 ? strtoul(argv[1], NULL, 10) : 0, opened = 0;
    int hold = argc > 3 ? atoi(argv[2]) : 0;

    if (hold < 1 || hold > HOLD_MAX) {
        fprintf(stderr, "Usage: churn N HOLD PORT...\n");
        return 2;
    }
    signal(SIGTERM, end);
    srand((unsigned) getpid());
    for (int i = 0; i < hold; i++)
        fds[i] = -1;
    while (n == 0 || opened < n) {
        int i = rand() % hold;

        if (fds[i] >= 0) {
            close_one(fds[i]);
            fds[i] = -1;
        } else {
            fds[i] = open_one((uint16_t) atoi(argv[3 + rand() % (argc - 3)]));
            opened++;
        }
        if (n == 0)
            usleep(PAUSE_US);
    }
    puts("done");
    fflush(stdout);
    for (;;)
        pause();
}
