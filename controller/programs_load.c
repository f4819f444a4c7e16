/* SPDX-License-Identifier: MIT */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "connect.skel.h"
#include "log.h"
#include "observe.skel.h"
#include "programs_internal.h"

#define VERIFIER_LOG_BYTES (64 * 1024)

/* One of the embedded objects, opened with its settings. */
struct image {
    struct observe *observe;
    struct connect *connect; /* one of the two */
    struct bpf_object *object;
};

static int open_observe(const struct programs_options *options, uint64_t netns_cookie,
                        struct image *ret)
{
    struct observe *observe = observe__open();

    if (observe == NULL)
        return -errno;
    observe->rodata->netns_cookie = options->all_namespaces ? 0 : netns_cookie;
    observe->rodata->own_netns_cookie = netns_cookie;
    *ret = (struct image){.observe = observe, .object = observe->obj};
    return 0;
}

static int open_connect(const struct programs_options *options, uint64_t netns_cookie,
                        struct image *ret)
{
    struct connect *connect = connect__open();

    if (connect == NULL)
        return -errno;
    connect->rodata->netns_cookie = options->all_namespaces ? 0 : netns_cookie;
    connect->rodata->own_netns_cookie = netns_cookie;
    connect->rodata->exempt_mark = options->mark;
    *ret = (struct image){.connect = connect, .object = connect->obj};
    return 0;
}

static void close_image(struct image *image)
{
    observe__destroy(image->observe);
    connect__destroy(image->connect);
}

static struct bpf_program *program_of(const struct image *image, enum programs_hook hook)
{
    struct bpf_program *program = NULL;

    while ((program = bpf_object__next_program(image->object, program)) != NULL)
        if (bpf_program__expected_attach_type(program) == programs_hooks[hook].attach_type)
            return program;
    return NULL;
}

/* The verifier's verdict is its last line but for the statistics behind it. Of several programs,
 * each is loaded anew alone, so it is enough to name the first. */
static void log_verdict(const bool *hooks, char *text)
{
    char *line = text, *last = text;
    enum programs_hook first = 0;

    while (!hooks[first])
        first++;
    for (; line != NULL && *line != '\0'; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (*line != '\0' && strncmp(line, "processed ", 10) != 0)
            last = line;
    }
    last[strcspn(last, "\n")] = '\0';
    log_debug("program %s: %s", programs_hooks[first].name, last);
}

/* Has the object use the pinned maps. */
static int reuse_maps(const struct image *image, const struct bpf_state *state)
{
    int err = 0;

    for (enum bpf_state_map map = 0; map < BPF_STATE_MAPS && err == 0; map++) {
        struct bpf_map *known =
            bpf_object__find_map_by_name(image->object, bpf_state_map_name(map));

        if (known != NULL)
            err = bpf_map__reuse_fd(known, bpf_state_fd(state, map));
    }
    return err;
}

/* Has the object load the programs of these hooks only; the verifier says why not in `verdict`. */
static int choose_programs(const struct image *image, const bool *hooks, char *verdict)
{
    struct bpf_program *program = NULL;
    int err = 0;

    while ((program = bpf_object__next_program(image->object, program)) != NULL)
        bpf_program__set_autoload(program, false);
    for (enum programs_hook hook = 0; hook < PROGRAMS_HOOKS && err == 0; hook++) {
        if (!hooks[hook])
            continue;
        program = program_of(image, hook);
        err = program != NULL ? bpf_program__set_autoload(program, true) : -ENOENT;
        if (err == 0)
            err = bpf_program__set_log_buf(program, verdict, VERIFIER_LOG_BYTES);
    }
    return err;
}

/* Loads the programs of these hooks out of one object. 0 or -errno. */
static int load_image(const struct image *image, const struct programs *programs, const bool *hooks,
                      int fds[PROGRAMS_HOOKS])
{
    char *verdict = calloc(1, VERIFIER_LOG_BYTES);
    int err = verdict != NULL ? reuse_maps(image, programs->state) : -ENOMEM;

    if (err == 0)
        err = choose_programs(image, hooks, verdict);
    if (err == 0)
        err = bpf_object__load(image->object);
    if (err < 0 && verdict != NULL && verdict[0] != '\0')
        log_verdict(hooks, verdict);
    for (enum programs_hook hook = 0; hook < PROGRAMS_HOOKS && err == 0; hook++) {
        if (!hooks[hook])
            continue;
        fds[hook] = fcntl(bpf_program__fd(program_of(image, hook)), F_DUPFD_CLOEXEC, 3);
        if (fds[hook] < 0)
            err = -errno;
    }
    free(verdict);
    return err;
}

typedef int open_image_fn(const struct programs_options *options, uint64_t netns_cookie,
                          struct image *ret);

static int try_load(open_image_fn *open_image, struct programs *programs,
                    const struct programs_options *options, uint64_t netns_cookie,
                    const bool *hooks, int fds[PROGRAMS_HOOKS])
{
    struct image image = {0};
    int err = open_image(options, netns_cookie, &image);

    if (err == 0)
        err = load_image(&image, programs, hooks, fds);
    close_image(&image);
    return err;
}

static void refused(struct programs_rung *rung, int err)
{
    struct utsname uts = {.release = "?"};

    uname(&uts);
    if (err == -EPERM || err == -EACCES)
        programs_lack(rung, PROGRAMS_NOT_ALLOWED);
    else
        programs_lack(rung,
                      "the kernel (%.60s) does not take the program (%s): Linux 5.15 or later "
                      "does; log_level debug shows its words",
                      uts.release, strerror(-err));
}

/* All at once; if the kernel refuses that, one by one, so that those it takes are there. */
static void load_all(open_image_fn *open_image, enum programs_hook first, enum programs_hook last,
                     struct programs *programs, const struct programs_options *options,
                     uint64_t netns_cookie, int fds[PROGRAMS_HOOKS])
{
    bool hooks[PROGRAMS_HOOKS] = {false}, any = false;

    for (enum programs_hook hook = first; hook <= last; hook++) {
        hooks[hook] = programs->rungs[hook].wanted && programs->rungs[hook].why[0] == '\0';
        any |= hooks[hook];
    }
    if (!any || try_load(open_image, programs, options, netns_cookie, hooks, fds) == 0)
        return;
    for (enum programs_hook hook = first; hook <= last; hook++) {
        bool one[PROGRAMS_HOOKS] = {false};
        int err;

        if (!hooks[hook])
            continue;
        one[hook] = true;
        err = try_load(open_image, programs, options, netns_cookie, one, fds);
        if (err < 0)
            refused(&programs->rungs[hook], err);
    }
}

void programs_load(struct programs *programs, const struct programs_options *options,
                   int ret_fds[PROGRAMS_HOOKS])
{
    uint64_t netns_cookie = 0;

    (void) programs_netns_cookie(&netns_cookie); /* without one, programs_need() lets none load */
    for (enum programs_hook hook = 0; hook < PROGRAMS_HOOKS; hook++)
        ret_fds[hook] = -1;
    load_all(open_observe, HOOK_OBSERVE, HOOK_OBSERVE, programs, options, netns_cookie, ret_fds);
    load_all(open_connect, HOOK_CONNECT4, HOOK_RECVMSG6, programs, options, netns_cookie, ret_fds);
}
