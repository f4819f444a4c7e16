/* SPDX-License-Identifier: MIT */
/*
 * What systemd is told and what it hands over: sd_notify(3) and sd_listen_fds(3), without
 * libsystemd.
 */
#ifndef DURPINAD_NOTIFY_H
#define DURPINAD_NOTIFY_H

/* Sends state ("READY=1", "STOPPING=1") to $NOTIFY_SOCKET. 0, also without one, or -errno. */
int notify(const char *state);

/* "RELOADING=1" with the time stamp that Type=notify-reload asks for. */
int notify_reloading(void);

/*
 * The listening unix stream socket that systemd passed ($LISTEN_FDS of this process), close-on-exec
 * from now on; -ENOENT if there is none, -EINVAL if what was passed is not exactly one such socket.
 */
int notify_listen_fd(int *ret_fd);

#endif
