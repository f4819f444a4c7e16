/* SPDX-License-Identifier: MIT */
#include "cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define REMEDY "mount -t cgroup2 none /sys/fs/cgroup, or give --cgroup"

/* A field of a line, which ends at a space. */
struct field {
    const char *at;
    size_t len;
};

static bool field_is(struct field field, const char *word)
{
    return field.len == strlen(word) && memcmp(field.at, word, field.len) == 0;
}

/* Takes the next field off the line; an empty one at its end. */
static struct field next_field(const char **line)
{
    struct field field;

    *line += strspn(*line, " ");
    field.at = *line;
    field.len = strcspn(*line, " \n");
    *line += field.len;
    return field;
}

/* Space, tab, line end and backslash are written as \ooo. */
static int unescape(struct field field, char *ret, size_t size)
{
    size_t n = 0;

    if (field.len >= size)
        return -ENAMETOOLONG;
    for (const char *p = field.at; p < field.at + field.len; p++) {
        const char *end = field.at + field.len;

        if (*p == '\\' && end - p > 3 && p[1] >= '0' && p[1] <= '3' && p[2] >= '0' && p[2] <= '7' &&
            p[3] >= '0' && p[3] <= '7') {
            ret[n++] = (char) ((p[1] - '0') * 64 + (p[2] - '0') * 8 + (p[3] - '0'));
            p += 3;
        } else {
            ret[n++] = *p;
        }
    }
    ret[n] = '\0';
    return 0;
}

/* 41 30 0:38 ROOT MOUNT_POINT OPTIONS [TAG...] - TYPE SOURCE OPTIONS */
static bool is_cgroup2(const char *line, struct field *ret_root, struct field *ret_point)
{
    struct field field;

    for (int skip = 0; skip < 3; skip++)
        next_field(&line);
    *ret_root = next_field(&line);
    *ret_point = next_field(&line);
    do
        field = next_field(&line);
    while (field.len > 0 && !field_is(field, "-"));
    return field_is(next_field(&line), "cgroup2");
}

int cgroup_find_root(const char *mountinfo, char *ret_path, size_t size)
{
    struct field root, point, found = {NULL, 0};

    for (const char *line = mountinfo; line != NULL && *line != '\0';) {
        if (is_cgroup2(line, &root, &point)) {
            bool whole = field_is(root, "/");

            if (whole || found.at == NULL)
                found = point;
            if (whole)
                break;
        }
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
    return found.at != NULL ? unescape(found, ret_path, size) : -ENOENT;
}

/* The whole file, of any length, to be freed; NULL with errno. */
static char *read_mountinfo(void)
{
    FILE *file = fopen("/proc/self/mountinfo", "re");
    char *text = NULL;
    size_t size = 0;

    if (file == NULL)
        return NULL;
    if (getdelim(&text, &size, '\0', file) < 0) {
        free(text);
        text = NULL;
    }
    fclose(file);
    return text;
}

static int find_root(char *ret_path, size_t size, char *error)
{
    char *mountinfo = read_mountinfo();
    int err = mountinfo != NULL ? cgroup_find_root(mountinfo, ret_path, size) : -ENOENT;

    if (mountinfo == NULL)
        snprintf(error, CGROUP_ERROR_SIZE, "/proc/self/mountinfo cannot be read: mount /proc");
    else if (err < 0)
        snprintf(error, CGROUP_ERROR_SIZE, "cgroup2 is not mounted: " REMEDY);
    free(mountinfo);
    return err;
}

int cgroup_open(const char *path, int *ret_fd, uint64_t *ret_id, char *ret_path, size_t size,
                char *error)
{
    char found[PATH_MAX];
    struct statfs fs;
    struct stat st;
    int fd, err;

    if (path[0] == '\0') {
        err = find_root(found, sizeof(found), error);
        if (err < 0)
            return err;
        path = found;
    }
    if (strlen(path) >= size) {
        snprintf(error, CGROUP_ERROR_SIZE, "the path of the cgroup is too long");
        return -ENAMETOOLONG;
    }
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fstatfs(fd, &fs) < 0 || fstat(fd, &st) < 0) {
        err = -errno;
        snprintf(error, CGROUP_ERROR_SIZE, "cgroup %.200s: %s: choose another --cgroup", path,
                 strerror(-err));
    } else if (fs.f_type != CGROUP2_SUPER_MAGIC) {
        err = -EINVAL;
        snprintf(error, CGROUP_ERROR_SIZE,
                 "cgroup %.200s is not on a cgroup2: give --cgroup a directory of one", path);
    } else {
        *ret_fd = fd;
        *ret_id = st.st_ino; /* on 64-bit machines the same */
        memcpy(ret_path, path, strlen(path) + 1);
        return 0;
    }
    if (fd >= 0)
        close(fd);
    return err;
}
