/* SPDX-License-Identifier: MIT */
#include "privileges.h"

#include <cap-ng.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
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

/* mkdir -p; *ret_created: the last one was not there before. */
static int make_directories(char *dir, bool *ret_created)
{
    for (char *slash = dir, *p = dir; slash != NULL; p = slash) {
        slash = strchr(p + 1, '/');
        if (slash != NULL)
            *slash = '\0';
        *ret_created = mkdir(dir, 0755) == 0;
        if (!*ret_created && errno != EEXIST)
            return -errno;
        if (slash != NULL)
            *slash = '/';
    }
    return 0;
}

/* Is this a directory of root's, closed to others, that holds nothing but perhaps that file? */
static bool is_free_to_take(int dir_fd, const char *file)
{
    struct dirent *entry;
    struct stat st;
    bool taken = false;
    DIR *dir;

    if (fstat(dir_fd, &st) < 0 || st.st_uid != 0 || (st.st_mode & 0022) != 0)
        return false;
    dir = fdopendir(dup(dir_fd));
    if (dir == NULL)
        return false;
    while (!taken && (entry = readdir(dir)) != NULL)
        taken = strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
                strcmp(entry->d_name, file) != 0;
    closedir(dir);
    return !taken;
}

static int give(int dir_fd, const char *file, mode_t mode, const struct privileges_user *owner)
{
    struct stat st;

    if (fchmod(dir_fd, mode) < 0 || fchown(dir_fd, owner->uid, owner->gid) < 0)
        return -errno;
    if (fstatat(dir_fd, file, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
        st.st_nlink == 1 && fchownat(dir_fd, file, owner->uid, owner->gid, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    return 0;
}

int privileges_prepare_parent(const char *path, mode_t mode, const struct privileges_user *owner)
{
    char dir[PATH_MAX];
    char *slash;
    bool created = false;
    int fd, err;

    if (strlen(path) >= sizeof(dir))
        return -ENAMETOOLONG;
    strcpy(dir, path);
    slash = strrchr(dir, '/');
    if (slash == NULL || slash == dir)
        return 0;
    *slash = '\0';

    err = make_directories(dir, &created);
    if (err < 0)
        return err;
    fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (created || is_free_to_take(fd, slash + 1))
        err = give(fd, slash + 1, mode, owner);
    close(fd);
    return err;
}

bool privileges_can_replace(const char *path, const struct privileges_user *user)
{
    char dir[PATH_MAX];
    bool can = false;
    int fd;

    if (strlen(path) >= sizeof(dir))
        return false;
    strcpy(dir, path);
    *(strrchr(dir, '/') + 1) = '\0';
    /* By descriptor: the directory stays open, so what lies above it may be closed to the user. */
    fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return false;
    if (setegid(user->gid) == 0 && seteuid(user->uid) == 0)
        can = faccessat(fd, ".", W_OK | X_OK, AT_EACCESS) == 0;
    if (seteuid(0) < 0 || setegid(0) < 0)
        abort(); /* root may always come back; going on as anything else would be worse */
    close(fd);
    return can;
}

/* Makes name.d and moves name into it, both in the directory dir_fd. */
static int move_into_room(int dir_fd, const char *name, const struct privileges_user *user)
{
    char room[NAME_MAX + 1], target[2 * NAME_MAX + 2];
    struct stat st;
    int fd, err = 0;

    if (fstat(dir_fd, &st) < 0)
        return -errno;
    if (st.st_uid != 0 || (st.st_mode & 0022) != 0)
        return -EPERM;
    if (snprintf(room, sizeof(room), "%s.d", name) >= (int) sizeof(room))
        return -ENAMETOOLONG;
    if (mkdirat(dir_fd, room, 0700) < 0 && errno != EEXIST)
        return -errno;
    fd = openat(dir_fd, room, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) < 0)
        err = -errno;
    else if (st.st_uid != 0 && st.st_uid != user->uid)
        err = -EPERM;
    if (err == 0 && fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
        renameat(dir_fd, name, fd, name) < 0)
        err = -errno;
    if (err == 0)
        err = give(fd, name, 0700, user);
    close(fd);

    snprintf(target, sizeof(target), "%s/%s", room, name);
    if (err == 0 && symlinkat(target, dir_fd, name) < 0 && errno != EEXIST)
        err = -errno;
    return err;
}

int privileges_make_room(const char *path, const struct privileges_user *user, char *ret_path,
                         size_t size)
{
    const char *name = strrchr(path, '/') + 1;
    char dir[PATH_MAX], room[PATH_MAX];
    int fd, err;

    if (snprintf(dir, sizeof(dir), "%.*s", (int) (name - path), path) >= (int) sizeof(dir) ||
        snprintf(room, sizeof(room), "%s.d/%s", path, name) >= (int) sizeof(room) ||
        strlen(room) >= size)
        return -ENAMETOOLONG;
    fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    err = move_into_room(fd, name, user);
    close(fd);
    if (err == 0)
        memcpy(ret_path, room, strlen(room) + 1);
    return err;
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
