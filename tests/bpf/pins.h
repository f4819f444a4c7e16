/* SPDX-License-Identifier: MIT */
/* A pin directory of the test's own, and how to get rid of it. */
#ifndef DURPINA_TEST_PINS_H
#define DURPINA_TEST_PINS_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <linux/magic.h>

struct pins {
    char dir[128];
    char stage[128 + 8];
};

static inline void pins_remove_dir(const char *path)
{
    DIR *dir = opendir(path);
    const struct dirent *entry;
    char name[512];

    unlink(path);
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
        unlink(name);
    }
    if (dir != NULL)
        closedir(dir);
    rmdir(path);
}

static inline void pins_remove(const struct pins *pins)
{
    pins_remove_dir(pins->dir);
    pins_remove_dir(pins->stage);
}

static inline struct pins pins_choose(const char *test)
{
    const char *run = getenv("DURPINA_TEST_RUN");
    struct pins pins;
    struct statfs fs;

    if (statfs("/sys/fs/bpf", &fs) == 0 && fs.f_type != BPF_FS_MAGIC)
        mount("bpf", "/sys/fs/bpf", "bpf", 0, NULL);
    snprintf(pins.dir, sizeof(pins.dir), "/sys/fs/bpf/%s-%s-%d", run != NULL ? run : "durpina-test",
             test, (int) getpid());
    snprintf(pins.stage, sizeof(pins.stage), "%s-new", pins.dir);
    pins_remove(&pins);
    return pins;
}

#endif
