/* SPDX-License-Identifier: MIT */
/*
 * A file that always holds one whole state: written beside, synced, renamed into place, and the
 * directory synced. It is reached through a descriptor of its directory that was opened at the
 * start, so it can be written after privileges were dropped, if the user may write into that
 * directory.
 */
#ifndef DURPINAD_STATE_FILE_H
#define DURPINAD_STATE_FILE_H

#include <stdint.h>

#include <jansson.h>

#include "failure.h"

struct state_file;

/* The directory must exist. 0 or -errno with "PATH: why" in failure. */
int state_file_open(const char *path, struct state_file **ret, struct failure *failure);
/*
 * Keeps other controllers out, until it is closed or the process ends; FILE.lock stays. -EBUSY:
 * another process has it, failure says which; or another -errno.
 */
int state_file_lock(struct state_file *file, struct failure *failure);
/* As it was opened. */
const char *state_file_path(const struct state_file *file);
/* NULL is fine. */
void state_file_close(struct state_file *file);

/*
 * -ENOENT: there is none. -EINVAL: it is damaged, failure says where; the caller, who may find
 * more that is wrong with it, calls state_file_set_aside(). Another -errno: it cannot be read.
 */
int state_file_load(const struct state_file *file, json_t **ret, struct failure *failure);

/* Renames it to FILE.damaged. 0 or -errno. */
int state_file_set_aside(const struct state_file *file);

/*
 * Writes the text. May be called from any thread: of two that write, the one with the larger order
 * wins whatever the time. 0 or -errno.
 */
int state_file_write(struct state_file *file, const char *text, size_t len, uint64_t order);

#endif
