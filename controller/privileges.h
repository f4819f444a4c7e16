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
 * Finds the user to become: by name or number, else (NULL) "durpina" if there is one, else "nobody".
 * -ENOENT: no such user; -EPERM: it is root.
 */
int privileges_find_user(const char *name, struct privileges_user *ret);

/* "name" or a number; -ENOENT. */
int privileges_parse_uid(const char *text, uid_t *ret_uid);
int privileges_parse_gid(const char *text, gid_t *ret_gid);

/*
 * Creates what is missing of the directory that path (a file) lies in, as mkdir -p does, mode 0755.
 * The last one gets the mode and the owner if it was created now; one that was there before is left
 * as it is. 0 or -errno.
 */
int privileges_make_parent(const char *path, mode_t mode, const struct privileges_user *owner);

/*
 * Becomes the user for good: its uid and gid, no supplementary groups, no capabilities (before
 * Linux 5.19 CAP_BPF stays, since bpf(2) on maps held open needs it there), no_new_privs.
 * -EPERM if that is not allowed or something privileged is left.
 */
int privileges_drop(const struct privileges_user *user);

#endif
