/* SPDX-License-Identifier: MIT */
#include "privileges.h"

#include <cap-ng.h>
#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

static const char *const default_users[] = {"durpina", "nobody"};

/* An id as a number; 2^32-1 means "none" to the kernel. */
static int parse_id(const char *text, uint32_t *ret_id)
{
    char *end;
    unsigned long long id;

    if (text[0] < '0' || text[0] > '9')
        return -ENOENT;
    errno = 0;
    id = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || id >= UINT32_MAX)
        return -ENOENT;
    *ret_id = (uint32_t) id;
    return 0;
}

int privileges_parse_uid(const char *text, uid_t *ret_uid)
{
    struct passwd *pw = getpwnam(text);

    if (pw == NULL)
        return parse_id(text, ret_uid);
    *ret_uid = pw->pw_uid;
    return 0;
}

int privileges_parse_gid(const char *text, gid_t *ret_gid)
{
    struct group *gr = getgrnam(text);

    if (gr == NULL)
        return parse_id(text, ret_gid);
    *ret_gid = gr->gr_gid;
    return 0;
}

int privileges_find_user(const char *name, struct privileges_user *ret)
{
    struct passwd *pw = NULL;
    uid_t uid;

    if (name != NULL) {
        if (privileges_parse_uid(name, &uid) == 0)
            pw = getpwuid(uid);
    } else {
        for (size_t i = 0; i < sizeof(default_users) / sizeof(default_users[0]) && !pw; i++)
            pw = getpwnam(default_users[i]);
    }
    if (pw == NULL)
        return -ENOENT;
    if (pw->pw_uid == 0)
        return -EPERM;
    snprintf(ret->name, sizeof(ret->name), "%s", pw->pw_name);
    ret->uid = pw->pw_uid;
    ret->gid = pw->pw_gid;
    return 0;
}

int privileges_make_parent(const char *path, mode_t mode, const struct privileges_user *owner)
{
    char dir[PATH_MAX];
    char *slash;
    bool created = false;

    if (strlen(path) >= sizeof(dir))
        return -ENAMETOOLONG;
    strcpy(dir, path);
    slash = strrchr(dir, '/');
    if (slash == NULL || slash == dir)
        return 0;
    *slash = '\0';

    for (char *p = dir; p != NULL; p = slash) {
        slash = strchr(p + 1, '/');
        if (slash != NULL)
            *slash = '\0';
        created = mkdir(dir, 0755) == 0;
        if (!created && errno != EEXIST)
            return -errno;
        if (slash != NULL)
            *slash = '/';
    }
    if (created && (chmod(dir, mode) < 0 || chown(dir, owner->uid, owner->gid) < 0))
        return -errno;
    return 0;
}

/* bpf(2) on a held descriptor asks for no capability from 5.19 on (unprivileged_bpf_disabled). */
static bool kernel_needs_cap_bpf(void)
{
    struct utsname uts;
    int major, minor;

    return uname(&uts) == 0 && sscanf(uts.release, "%d.%d", &major, &minor) == 2 &&
           (major < 5 || (major == 5 && minor < 19));
}

int privileges_drop(const struct privileges_user *user)
{
    int flags = CAPNG_DROP_SUPP_GRP;

    if (capng_get_caps_process() != 0)
        return -EPERM;
    /* Without CAP_SETPCAP, as in some containers, the bounding set stays: no_new_privs suffices. */
    if (capng_have_capability(CAPNG_EFFECTIVE, CAP_SETPCAP))
        flags |= CAPNG_CLEAR_BOUNDING;
    capng_clear(CAPNG_SELECT_BOTH);
    if (kernel_needs_cap_bpf() &&
        capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, CAP_BPF) != 0)
        return -EPERM;
    if (capng_change_id((int) user->uid, (int) user->gid, (capng_flags_t) flags) != 0)
        return -EPERM;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -errno;
    /* Trust nothing: what is dropped cannot be taken back. */
    if (setresuid((uid_t) -1, 0, (uid_t) -1) == 0 || getuid() != user->uid ||
        geteuid() != user->uid || getgid() != user->gid || getgroups(0, NULL) != 0)
        return -EPERM;
    return 0;
}
