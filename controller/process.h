/* SPDX-License-Identifier: MIT */
/* Other processes of this host. */
#ifndef DURPINAD_PROCESS_H
#define DURPINAD_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * How long a start waits for a controller that holds its socket or pins to end: one that was killed
 * or told to stop a moment ago is on its way out, and a restart must not fail for that.
 */
#define PROCESS_GRACE_MS 1000

/* Waits for the process to end; true if it has, or is not there, within timeout_ms. */
bool process_ends(pid_t pid, int timeout_ms);

/* Whether there is a process with this pid, be it ours or not. */
bool process_exists(pid_t pid);

/*
 * When the process began: clock ticks since boot, modulo 2^32 (field 22 of /proc/PID/stat). With
 * the pid this tells a process from a later one with the same pid. -ESRCH if it has ended, be it
 * waited for or not; another -errno if that cannot be read here.
 */
int process_started(pid_t pid, uint32_t *ret_started);

/*
 * Whether the process that began then has ended. One that may not be looked at (hidepid) counts as
 * the same as long as there is one with its pid.
 */
bool process_is_gone(pid_t pid, uint32_t started);

#endif
