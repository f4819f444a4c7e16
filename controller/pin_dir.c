/* SPDX-License-Identifier: MIT */
#include "pin_dir.h"

#include <bpf/bpf.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "durpina_abi.h"
#include "process.h"

#define BPFFS "/sys/fs/bpf"
#define OPEN_DIR (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

int pin_dir_refuse(struct failure *failure, const struct pin_dir *dir, int err, const char *what)
{
    if (err == EPERM || err == EACCES)
        return fail(failure, err, 500, PIN_DIR_CODE,
                    "%s: %s: no privilege: start durpinad as root (it needs CAP_BPF)", dir->path,
                    what);
    return fail(failure, err, 500, PIN_DIR_CODE, "%s: %s: %s", dir->path, what, strerror(err));
}

void pin_dir_entry(const struct pin_dir *dir, const char *name, char *path, size_t size)
{
    snprintf(path, size, "/proc/self/fd/%d/%s", dir->fd, name);
}

static int open_parent(struct pin_dir *dir, struct failure *failure)
{
    const char *slash = strrchr(dir->path, '/');
    struct statfs fs;
    char *parent;
    int err = 0;

    if (dir->path[0] != '/' || slash[1] == '\0' || strchr(slash, '.') != NULL)
        return fail(failure, EINVAL, 500, PIN_DIR_CODE,
                    "%s: the pin directory must be an absolute path that ends in a name without "
                    "a dot",
                    dir->path);
    dir->name = slash + 1;
    parent = strndup(dir->path, slash == dir->path ? 1 : (size_t) (slash - dir->path));
    if (parent == NULL)
        return pin_dir_refuse(failure, dir, ENOMEM, "parent directory");

    if (strcmp(parent, BPFFS) == 0 && statfs(parent, &fs) == 0 && fs.f_type != BPF_FS_MAGIC &&
        mount("bpf", BPFFS, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") < 0)
        err = pin_dir_refuse(failure, dir, errno,
                             "bpffs is not mounted and cannot be (mount -t bpf bpf " BPFFS ")");
    if (err == 0) {
        dir->parent_fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dir->parent_fd < 0)
            err = pin_dir_refuse(failure, dir, errno, "parent directory");
        else if (fstatfs(dir->parent_fd, &fs) < 0 || fs.f_type != BPF_FS_MAGIC)
            err = fail(failure, EINVAL, 500, PIN_DIR_CODE,
                       "%s: not in a bpffs: choose a directory below " BPFFS
                       ", or mount -t bpf bpf %s",
                       dir->path, parent);
    }
    free(parent);
    return err;
}

/* A plain mount of bpffs is writable by all: whoever made this directory must be root or our user,
 * and nobody else may change it. */
static int check_owner(const struct pin_dir *dir, const char *name, struct failure *failure)
{
    struct stat st;

    if (fstat(dir->fd, &st) < 0)
        return pin_dir_refuse(failure, dir, errno, name);
    if (st.st_uid != 0 && st.st_uid != dir->uid)
        return fail(failure, EPERM, 500, PIN_DIR_CODE,
                    "%s: %s belongs to uid %u, not to root or uid %u: remove or chown it",
                    dir->path, name, st.st_uid, dir->uid);
    if ((st.st_mode & (S_IWGRP | S_IWOTH)) != 0)
        return fail(failure, EPERM, 500, PIN_DIR_CODE,
                    "%s: %s is writable by others: remove or chmod it", dir->path, name);
    return 0;
}

/* The pid that a controller has left in the meta map; 0 if there is none to read. */
static uint32_t former_pid(const struct pin_dir *dir)
{
    struct bpf_map_info info = {0};
    uint32_t info_len = sizeof(info), key = 0;
    struct durpina_meta meta = {0};
    char path[64];
    int fd;

    pin_dir_entry(dir, "meta", path, sizeof(path));
    fd = bpf_obj_get(path);
    if (fd < 0)
        return 0;
    if (bpf_obj_get_info_by_fd(fd, &info, &info_len) < 0 || info.value_size != sizeof(meta) ||
        bpf_map_lookup_elem(fd, &key, &meta) < 0)
        meta.controller_pid = 0;
    close(fd);
    return meta.controller_pid;
}

static int wait_for_lock(const struct pin_dir *dir, struct failure *failure)
{
    if (flock(dir->fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    if (errno != EWOULDBLOCK)
        return pin_dir_refuse(failure, dir, errno, "flock");

    uint32_t pid = former_pid(dir);

    if (pid != 0 && process_ends((pid_t) pid, PROCESS_GRACE_MS) &&
        flock(dir->fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    if (pid == 0)
        return fail(failure, EBUSY, 500, PIN_DIR_CODE,
                    "%s: another durpinad is just starting or stopping here", dir->path);
    return fail(failure, EBUSY, 500, PIN_DIR_CODE,
                "%s: in use by durpinad with pid %u: stop it, or give this one its own --pin and "
                "--socket",
                dir->path, pid);
}

/*
 * Whoever had the lock may have put its stage in place or removed it before it let go: -ESTALE if
 * the directory is not called that any more.
 */
static int lock(const struct pin_dir *dir, const char *name, struct failure *failure)
{
    int err = wait_for_lock(dir, failure);
    struct stat locked, named;

    if (err < 0)
        return err;
    if (fstat(dir->fd, &locked) < 0)
        return pin_dir_refuse(failure, dir, errno, name);
    if (fstatat(dir->parent_fd, name, &named, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? -ESTALE : pin_dir_refuse(failure, dir, errno, name);
    return locked.st_dev == named.st_dev && locked.st_ino == named.st_ino ? 0 : -ESTALE;
}

/* Returns the number of entries, or -errno; removes them if told so. */
static int list(int dir_fd, bool remove)
{
    int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), n = 0;
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;

    if (stream == NULL) {
        int err = -errno;

        if (fd >= 0)
            close(fd);
        return err;
    }
    while ((entry = readdir(stream)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        n++;
        if (remove)
            unlinkat(dir_fd, entry->d_name, 0);
    }
    closedir(stream);
    return n;
}

static int find(struct pin_dir *dir, struct failure *failure)
{
    int n, err;

    dir->fd = openat(dir->parent_fd, dir->name, OPEN_DIR);
    if (dir->fd < 0 && errno == ENOENT)
        return 0;
    if (dir->fd < 0 && (errno == ELOOP || errno == ENOTDIR))
        return fail(failure, ENOTDIR, 500, PIN_DIR_CODE,
                    "%s: not a directory but a link or something else that durpinad did not "
                    "make: remove it",
                    dir->path);
    if (dir->fd < 0)
        return pin_dir_refuse(failure, dir, errno, "open");

    err = check_owner(dir, "the directory", failure);
    if (err == 0)
        err = lock(dir, dir->name, failure);
    if (err < 0)
        return err;
    n = list(dir->fd, false);
    if (n < 0)
        return pin_dir_refuse(failure, dir, -n, "reading the directory");
    dir->found = n > 0;
    if (n == 0) {
        /* Somebody prepared it: the stage will take its place. */
        close(dir->fd);
        dir->fd = -1;
    }
    return 0;
}

static void stage_name(const struct pin_dir *dir, char name[NAME_MAX + 1])
{
    snprintf(name, NAME_MAX + 1, "%s-new", dir->name);
}

static int stage(struct pin_dir *dir, struct failure *failure)
{
    char name[NAME_MAX + 1];
    int err;

    if (strlen(dir->name) + strlen("-new") > NAME_MAX)
        return pin_dir_refuse(failure, dir, ENAMETOOLONG, "pin directory");
    stage_name(dir, name);
    if (mkdirat(dir->parent_fd, name, 0700) < 0 && errno != EEXIST)
        return pin_dir_refuse(failure, dir, errno, "mkdir");
    dir->fd = openat(dir->parent_fd, name, OPEN_DIR);
    if (dir->fd < 0)
        return pin_dir_refuse(failure, dir, errno, name);
    err = check_owner(dir, name, failure);
    if (err == 0)
        err = lock(dir, name, failure);
    if (err < 0)
        return err;
    /* What a killed start has left. */
    err = list(dir->fd, true);
    return err < 0 ? pin_dir_refuse(failure, dir, -err, name) : 0;
}

int pin_dir_open(const char *path, uid_t uid, struct pin_dir *ret, struct failure *failure)
{
    int err;

    *ret = (struct pin_dir){.path = path, .uid = uid, .parent_fd = -1, .fd = -1};
    err = open_parent(ret, failure);
    if (err < 0)
        return err;
    for (;;) {
        err = find(ret, failure);
        if (err == 0 && !ret->found)
            err = stage(ret, failure);
        if (err != -ESTALE)
            return err;
        close(ret->fd);
        ret->fd = -1;
    }
}

void pin_dir_close_parent(struct pin_dir *dir)
{
    if (dir->parent_fd >= 0)
        close(dir->parent_fd);
    dir->parent_fd = -1;
}

int pin_dir_put_in_place(struct pin_dir *dir, struct failure *failure)
{
    char name[NAME_MAX + 1];

    stage_name(dir, name);
    if (renameat(dir->parent_fd, name, dir->parent_fd, dir->name) < 0)
        return pin_dir_refuse(failure, dir, errno, "renaming the new pins into place");
    return 0;
}

void pin_dir_discard_stage(struct pin_dir *dir)
{
    char name[NAME_MAX + 1];

    stage_name(dir, name);
    list(dir->fd, true);
    unlinkat(dir->parent_fd, name, AT_REMOVEDIR);
}
