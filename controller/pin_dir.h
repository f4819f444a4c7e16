/* SPDX-License-Identifier: MIT */
/*
 * The directory on bpffs that pins lie in: found or staged, checked for squatters, and locked.
 *
 *     err = pin_dir_open(path, uid, &dir, &failure);  PATH; or PATH-new, empty and ours
 *     if (err == 0 && !dir.found) {
 *         ... pin things there ...
 *         err = pin_dir_put_in_place(&dir, &failure); renames it to PATH
 *     }
 *
 * The lock (flock) lasts as long as dir.fd. Everything inside is reached through dir.fd, never by
 * walking the path again: it may lie below a directory that only root can search.
 */
#ifndef DURPINAD_PIN_DIR_H
#define DURPINAD_PIN_DIR_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "failure.h"

#define PIN_DIR_CODE "BadPins"

struct pin_dir {
    const char *path; /* borrowed */
    const char *name; /* its last component */
    uid_t uid;        /* who may own it, beside root */
    int parent_fd;
    int fd;
    bool found; /* it was there with something in it; else fd is that of the stage, PATH-new */
};

/*
 * Opens and locks the directory if it is there with something in it, else its stage. Mounts bpffs
 * at /sys/fs/bpf if path is below and nothing is mounted. *ret is valid and to be closed also after
 * an error. -errno with PIN_DIR_CODE: not in a bpffs, not a directory, another's, writable by
 * others, locked (names the pid), no privilege.
 */
int pin_dir_open(const char *path, uid_t uid, struct pin_dir *ret, struct failure *failure);
/* Leaves fd open: it is the lock. */
void pin_dir_close_parent(struct pin_dir *dir);

int pin_dir_put_in_place(struct pin_dir *dir, struct failure *failure);
/* Removes the stage with all there is in it. */
void pin_dir_discard_stage(struct pin_dir *dir);

/* The pin of that name, for syscalls that take nothing but a path. */
void pin_dir_entry(const struct pin_dir *dir, const char *name, char *path, size_t size);

/* "PATH: what: strerror", or that a privilege is missing. Returns -err. */
int pin_dir_refuse(struct failure *failure, const struct pin_dir *dir, int err, const char *what);

#endif
