/* SPDX-License-Identifier: MIT */
/* The ladder for who has not started durpinad yet. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "programs_internal.h"

static bool is_pinned(const char *pin, enum programs_hook hook)
{
    char name[PROGRAMS_PIN_SIZE], path[PATH_MAX + PROGRAMS_PIN_SIZE];

    programs_pin_name(hook, name);
    snprintf(path, sizeof(path), "%s/%s", pin, name);
    return access(path, F_OK) == 0;
}

int programs_probe(const struct programs_options *options, const char *pin, struct programs **ret)
{
    struct programs *programs = programs_create(options);
    char error[CGROUP_ERROR_SIZE];
    int cgroup;

    if (programs == NULL)
        return -ENOMEM;
    for (enum programs_hook hook = 0; hook < PROGRAMS_HOOKS; hook++)
        programs->rungs[hook].attached = is_pinned(pin, hook);
    if (cgroup_open(options->cgroup, &cgroup, &programs->cgroup_id, programs->cgroup,
                    sizeof(programs->cgroup), error) < 0)
        programs_lack_all(programs, error);
    else
        close(cgroup);
    programs_need(programs, true);
    *ret = programs;
    return 0;
}

/* The first hook that lacks the same. */
static enum programs_hook first_like(const struct programs *programs, enum programs_hook hook)
{
    enum programs_hook first = 0;

    while (strcmp(programs->rungs[first].why, programs->rungs[hook].why) != 0)
        first++;
    return first;
}

void programs_print(const struct programs *programs, FILE *out)
{
    fprintf(out, "programs in the kernel, for processes in %s:\n",
            programs->cgroup[0] != '\0' ? programs->cgroup : "no cgroup");
    for (enum programs_hook hook = 0; hook < PROGRAMS_HOOKS; hook++) {
        const struct programs_rung *rung = &programs->rungs[hook];
        enum programs_hook like = first_like(programs, hook);

        fprintf(out, "  %-13s ", rung->name);
        if (rung->why[0] != '\0')
            fprintf(out, "missing%s%s: %s\n%-16swithout: %s\n", like != hook ? " as " : "",
                    like != hook ? programs->rungs[like].name : "", rung->why, "", rung->cost);
        else
            fprintf(out, "%s\n",
                    rung->attached ? "attached"
                    : rung->wanted ? "can be attached"
                                   : "off");
    }
}
