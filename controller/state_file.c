/* SPDX-License-Identifier: MIT */
#include "state_file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct state_file {
    char *path;
    const char *name; /* last component of path */
    char *new_name;
    char *damaged_name;
    int dir_fd;
    int lock_fd;
    pthread_mutex_t mutex; /* of writing, and of what follows */
    uint64_t written;      /* order of what is in the file */
};

int state_file_open(const char *path, struct state_file **ret, struct failure *failure)
{
    struct state_file *file = calloc(1, sizeof(*file));
    const char *slash = strrchr(path, '/');
    char *dir = NULL;
    int err = -ENOMEM;

    if (file == NULL)
        return fail(failure, ENOMEM, 500, "BadState", "%s: out of memory", path);
    file->dir_fd = file->lock_fd = -1;
    pthread_mutex_init(&file->mutex, NULL);
    file->path = strdup(path);
    dir = slash == NULL ? strdup(".") : strndup(path, slash == path ? 1 : (size_t) (slash - path));
    if (file->path == NULL || dir == NULL)
        goto out;
    file->name = slash == NULL ? file->path : file->path + (slash + 1 - path);
    if (asprintf(&file->new_name, "%s.new", file->name) < 0) {
        file->new_name = NULL;
        goto out;
    }
    if (asprintf(&file->damaged_name, "%s.damaged", file->name) < 0) {
        file->damaged_name = NULL;
        goto out;
    }
    file->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    err = file->dir_fd < 0 ? -errno : 0;
out:
    free(dir);
    if (err < 0) {
        state_file_close(file);
        return fail(failure, -err, 500, "BadState", "%s: directory: %s", path, strerror(-err));
    }
    *ret = file;
    return 0;
}

int state_file_lock(struct state_file *file, struct failure *failure)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char *name;
    int err = 0;

    /* Not the file itself: each save puts another one in its place. */
    if (asprintf(&name, "%s.lock", file->name) < 0)
        return fail(failure, ENOMEM, 500, "BadState", "%s: out of memory", file->path);
    file->lock_fd = openat(file->dir_fd, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    free(name);
    if (file->lock_fd < 0 || fcntl(file->lock_fd, F_SETLK, &lock) < 0)
        err = errno;
    if ((err == EAGAIN || err == EACCES) && file->lock_fd >= 0 &&
        fcntl(file->lock_fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK)
        return fail(failure, EBUSY, 500, "BadState",
                    "%s: in use by durpinad with pid %ld: stop it, or give this one its own "
                    "--state",
                    file->path, (long) lock.l_pid);
    if (err != 0)
        return fail(failure, err, 500, "BadState", "%s.lock: %s", file->path, strerror(err));
    return 0;
}

const char *state_file_path(const struct state_file *file)
{
    return file->path;
}

void state_file_close(struct state_file *file)
{
    if (file == NULL)
        return;
    if (file->dir_fd >= 0)
        close(file->dir_fd);
    if (file->lock_fd >= 0)
        close(file->lock_fd);
    pthread_mutex_destroy(&file->mutex);
    free(file->path);
    free(file->new_name);
    free(file->damaged_name);
    free(file);
}

int state_file_load(const struct state_file *file, json_t **ret, struct failure *failure)
{
    int fd = openat(file->dir_fd, file->name, O_RDONLY | O_CLOEXEC);
    /* Not json_loadfd(): that reads byte by byte. */
    FILE *stream = fd < 0 ? NULL : fdopen(fd, "r");
    json_error_t error;
    json_t *json;

    if (stream == NULL) {
        int err = errno;

        if (fd >= 0)
            close(fd);
        return fail(failure, err, 500, "BadState", "%s: %s", file->path, strerror(err));
    }
    json = json_loadf(stream, JSON_REJECT_DUPLICATES, &error);
    fclose(stream);
    if (json == NULL)
        return fail(failure, EINVAL, 500, "BadState", "%s:%d: %s", file->path, error.line,
                    error.text);
    *ret = json;
    return 0;
}

int state_file_set_aside(const struct state_file *file)
{
    if (renameat(file->dir_fd, file->name, file->dir_fd, file->damaged_name) < 0)
        return -errno;
    return 0;
}

static int write_all(int fd, const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, text, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        text += n;
        len -= (size_t) n;
    }
    return fsync(fd) < 0 ? -errno : 0;
}

static int replace(struct state_file *file, const char *text, size_t len)
{
    /* Tokens are in it: for our user only. */
    int fd = openat(file->dir_fd, file->new_name,
                    O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    int err;

    if (fd < 0)
        return -errno;
    err = write_all(fd, text, len);
    if (close(fd) < 0 && err == 0)
        err = -errno;
    if (err == 0 && renameat(file->dir_fd, file->new_name, file->dir_fd, file->name) < 0)
        err = -errno;
    if (err == 0 && fsync(file->dir_fd) < 0)
        err = -errno;
    return err;
}

int state_file_write(struct state_file *file, const char *text, size_t len, uint64_t order)
{
    int err = 0;

    pthread_mutex_lock(&file->mutex);
    if (order > file->written) {
        err = replace(file, text, len);
        if (err == 0)
            file->written = order;
    }
    pthread_mutex_unlock(&file->mutex);
    return err;
}
