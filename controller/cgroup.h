/* SPDX-License-Identifier: MIT */
/* Where cgroup2 is mounted; it may be beside the old hierarchies, anywhere. */
#ifndef DURPINAD_CGROUP_H
#define DURPINAD_CGROUP_H

#include <stddef.h>
#include <stdint.h>

/*
 * Finds the root of cgroup2 in the text of /proc/self/mountinfo (proc(5)): of several mounts the
 * first one of the whole tree, else the first one of a part of it, which is all that some
 * containers see. 0 and its path with the NUL; -ENOENT: none; -ENAMETOOLONG.
 */
int cgroup_find_root(const char *mountinfo, char *ret_path, size_t size);

#define CGROUP_ERROR_SIZE 320

/*
 * Opens a directory of cgroup2 for reading, which is all that attaching to it needs: path, or the
 * root if that is "". ret_path (size bytes) is which one, ret_id what the kernel calls it.
 * -errno, and error (CGROUP_ERROR_SIZE bytes) says in words what is wrong and what to do.
 */
int cgroup_open(const char *path, int *ret_fd, uint64_t *ret_id, char *ret_path, size_t size,
                char *error);

#endif
