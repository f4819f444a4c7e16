/* SPDX-License-Identifier: MIT */
/* Other processes of this host. */
#ifndef DURPINAD_PROCESS_H
#define DURPINAD_PROCESS_H

#include <stdbool.h>
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

#endif
