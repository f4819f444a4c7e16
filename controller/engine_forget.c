/* SPDX-License-Identifier: MIT */
/* nginx instances that have ended: found out, and forgotten. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "engine_internal.h"
#include "log.h"
#include "process.h"

/* An nginx that goes into the background writes its pid file a moment after the introduction. */
#define PID_FILE_GRACE_MS 5000

static int forget(struct engine *engine, struct instance *instance, struct failure *failure)
{
    int err = instance_withdraw(engine, instance, failure);

    if (err < 0)
        return err;
    log_notice("nginx %s is forgotten", instance->name);
    model_free_instance(instance);
    return 0;
}

int engine_forget_nginx(struct engine *engine, const char *name, struct failure *failure)
{
    struct instance *instance = model_instance(&engine->model, name);
    int err;

    if (instance == NULL)
        return fail(failure, ENOENT, 404, "PathNotFound", "no nginx %s has introduced itself",
                    name);
    err = forget(engine, instance, failure);
    if (err == 0)
        engine_touch(engine, 0);
    return err;
}

/*
 * The pid in a pid file, which is a name that an nginx has given: it may be anything. -errno;
 * -EINVAL: not a file with a pid in it.
 */
static int read_pid_file(const char *path, pid_t *ret)
{
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    char text[32], *end;
    struct stat st;
    ssize_t len = -1;
    long pid;

    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        len = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (len <= 0)
        return -EINVAL;
    text[len] = '\0';
    pid = strtol(text, &end, 10);
    if (end == text || pid <= 0 || pid > INT_MAX)
        return -EINVAL;
    *ret = (pid_t) pid;
    return 0;
}

/*
 * Has this nginx ended? In doubt it has not. An nginx removes its pid file, the name, at its end.
 */
static bool is_gone(const struct instance *instance)
{
    pid_t pid = 0;
    int err;

    if (instance->pid == INSTANCE_PID_UNKNOWN)
        return false;
    if (instance->pid != 0)
        return !process_exists((pid_t) instance->pid);
    err = read_pid_file(instance->name, &pid);
    if (err == -ENOENT)
        return clock_monotonic_ms() - instance->introduced_ms > PID_FILE_GRACE_MS;
    return err == 0 && !process_exists(pid);
}

static bool shares_upstream(const struct instance *a, const struct instance *b)
{
    const char *name;
    json_t *value;

    json_object_foreach(a->upstreams, name, value)
    {
        if (json_object_get(b->upstreams, name) != NULL)
            return true;
    }
    return false;
}

/* Not before another nginx wants its upstream: one that is started again finds its runtime changes
 * as they were. */
void instances_forget_gone(struct engine *engine, const struct instance *instance)
{
    struct instance *other, *next;
    struct failure failure;

    HASH_ITER(hh, engine->model.instances, other, next)
    {
        if (other != instance && shares_upstream(instance, other) && is_gone(other) &&
            forget(engine, other, &failure) < 0)
            log_error("nginx %s has ended but cannot be forgotten: %s", other->name, failure.text);
    }
}
