/* SPDX-License-Identifier: MIT */
/*
 * Root, and how to stop being it.
 *
 * durpinad opens what needs privilege (maps, sockets, directories) and then, before it reads the
 * first byte from a network, a socket or a backend, becomes an ordinary user without capabilities.
 */
#ifndef DURPINAD_PRIVILEGES_H
#define DURPINAD_PRIVILEGES_H

#include <stdbool.h>
#include <sys/types.h>

struct privileges_user {
    char name[64];
    uid_t uid;
    gid_t gid;
};

/*
 * Finds the user to become: by name or number, else (NULL) "durpina" if there is one, else
 * "nobody". -ENOENT: no such user; -EPERM: it is root.
 */
int privileges_find_user(const char *name, struct privileges_user *ret);

/* "name" or a number; -ENOENT. */
int privileges_parse_uid(const char *text, uid_t *ret_uid);
int privileges_parse_gid(const char *text, gid_t *ret_gid);

/*
 * Prepares the directory that the file path lies in: creates it and what is missing above it, as
 * mkdir -p does. It gets the mode and the owner if it was created now, or if it is root's and holds
 * nothing but that file (which then changes hands too); a directory that anybody else may use stays
 * as it is. 0 or -errno.
 */
int privileges_prepare_parent(const char *path, mode_t mode, const struct privileges_user *owner);

/*
 * Could the user, given its directory open, create or replace the file by renaming another one over
 * it? To be asked by root.
 */
bool privileges_can_replace(const char *path, const struct privileges_user *user);

/*
 * For a file in a directory that the user cannot write and that stays as it is: makes the directory
 * "PATH.d" beside it, for the user alone, moves the file there if it exists, and leaves a link in
 * its place. ret_path (size bytes) is where the file is or will be. -EPERM: others may write the
 * directory, or PATH.d is somebody else's; or another -errno.
 */
int privileges_make_room(const char *path, const struct privileges_user *user, char *ret_path,
                         size_t size);

/*
 * Becomes the user for good: its uid and gid, no supplementary groups, no capabilities (before
 * Linux 5.19 CAP_BPF stays, since bpf(2) on maps held open needs it there), no_new_privs.
 * -EPERM if that is not allowed or something privileged is left.
 */
int privileges_drop(const struct privileges_user *user);

#endif
