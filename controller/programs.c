/* SPDX-License-Identifier: MIT */
#include "programs.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "durpina_seq.h"
#include "log.h"
#include "pin_dir.h"
#include "programs_internal.h"

#define WATCH_MS 1000

#define COST_CONNECT "virtual endpoints lead nowhere"
#define COST_GETPEERNAME "who has connected to a virtual endpoint sees the peer's address instead"
#define COST_UDP "unconnected UDP sockets do not reach virtual endpoints"

const struct hook programs_hooks[PROGRAMS_HOOKS] = {
    [HOOK_OBSERVE] = {"observe", BPF_CGROUP_SOCK_OPS,
                      "connections are not counted: source=kernel goes by nginx's own counts, and "
                      "a connect() that fails in another program marks no peer as failed"},
    [HOOK_CONNECT4] = {"connect4", BPF_CGROUP_INET4_CONNECT, COST_CONNECT " (IPv4)"},
    [HOOK_CONNECT6] = {"connect6", BPF_CGROUP_INET6_CONNECT, COST_CONNECT " (IPv6)"},
    [HOOK_GETPEERNAME4] = {"getpeername4", BPF_CGROUP_INET4_GETPEERNAME,
                           COST_GETPEERNAME " (IPv4)"},
    [HOOK_GETPEERNAME6] = {"getpeername6", BPF_CGROUP_INET6_GETPEERNAME,
                           COST_GETPEERNAME " (IPv6)"},
    [HOOK_SENDMSG4] = {"sendmsg4", BPF_CGROUP_UDP4_SENDMSG, COST_UDP " (IPv4)"},
    [HOOK_SENDMSG6] = {"sendmsg6", BPF_CGROUP_UDP6_SENDMSG, COST_UDP " (IPv6)"},
    [HOOK_RECVMSG4] = {"recvmsg4", BPF_CGROUP_UDP4_RECVMSG, COST_UDP " (IPv4)"},
    [HOOK_RECVMSG6] = {"recvmsg6", BPF_CGROUP_UDP6_RECVMSG, COST_UDP " (IPv6)"},
};

/* --- the ladder ------------------------------------------------------------------------------- */

struct programs *programs_create(const struct programs_options *options)
{
    struct programs *programs = calloc(1, sizeof(*programs));

    if (programs == NULL)
        return NULL;
    for (enum programs_hook hook = 0; hook < PROGRAMS_HOOKS; hook++) {
        programs->links[hook] = -1;
        programs->rungs[hook].name = programs_hooks[hook].name;
        programs->rungs[hook].cost = programs_hooks[hook].cost;
        programs->rungs[hook].wanted = hook == HOOK_OBSERVE ? options->observe : options->connect;
    }
    return programs;
}

void programs_lack(struct programs_rung *rung, const char *format, ...)
{
    va_list args;

    if (!rung->wanted || rung->attached || rung->why[0] != '\0')
        return;
    va_start(args, format);
    vsnprintf(rung->why, sizeof(rung->why), format, args);
    va_end(args);
}

void programs_lack_all(struct programs *programs, const char *why)
{
    for (enum programs_hook hook = 0; hook < PROGRAMS_HOOKS; hook++)
        programs_lack(&programs->rungs[hook], "%s", why);
}

/* One line for all that lack the same. */
static void log_missing(const struct programs *programs)
{
    for (enum programs_hook hook = 0; hook < PROGRAMS_HOOKS; hook++) {
        const struct programs_rung *rung = &programs->rungs[hook];
        char names[128] = "";
        size_t at = 0;
        bool told = false;

        if (rung->why[0] == '\0')
            continue;
        for (enum programs_hook other = 0; other < PROGRAMS_HOOKS; other++) {
            if (strcmp(programs->rungs[other].why, rung->why) != 0)
                continue;
            told |= other < hook;
            at += (size_t) snprintf(names + at, sizeof(names) - at, "%s%s", at > 0 ? ", " : "",
                                    programs->rungs[other].name);
        }
        if (told)
            continue;
        /* Where all lack it, what the second program is for counts as well. */
        if (hook == HOOK_OBSERVE && strcmp(programs->rungs[HOOK_CONNECT4].why, rung->why) == 0)
            log_notice("not attached: %s: %s. Without: %s; and " COST_CONNECT, names, rung->why,
                       rung->cost);
        else
            log_notice("not attached: %s: %s. Without: %s", names, rung->why, rung->cost);
    }
}

/* --- pinned links ----------------------------------------------------------------------------- */

void programs_pin_name(enum programs_hook hook, char ret_name[PROGRAMS_PIN_SIZE])
{
    snprintf(ret_name, PROGRAMS_PIN_SIZE, "link_%s", programs_hooks[hook].name);
}

static void pin_path(const struct programs *programs, enum programs_hook hook, char *path,
                     size_t size)
{
    const struct pin_dir dir = {.fd = programs->state->dir_fd};
    char name[PROGRAMS_PIN_SIZE];

    programs_pin_name(hook, name);
    pin_dir_entry(&dir, name, path, size);
}

/* Is this a link of the hook, and to which cgroup? That is 0 once it has been removed. */
static bool is_link(int fd, enum programs_hook hook, uint64_t *ret_cgroup)
{
    struct bpf_link_info info = {0};
    uint32_t len = sizeof(info);

    if (bpf_obj_get_info_by_fd(fd, &info, &len) < 0 || info.type != BPF_LINK_TYPE_CGROUP ||
        info.cgroup.attach_type != programs_hooks[hook].attach_type)
        return false;
    *ret_cgroup = info.cgroup.cgroup_id;
    return true;
}

/*
 * Unpinned after it is detached: killed in between, the next start finds a pin that leads to no
 * cgroup.
 */
static void detach(struct programs *programs, enum programs_hook hook, int fd)
{
    char name[PROGRAMS_PIN_SIZE];
    uint64_t cgroup;

    if (hook == HOOK_OBSERVE)
        DURPINA_STORE(&programs->state->meta->observing, 0);
    programs_pin_name(hook, name);
    if (fd >= 0 && is_link(fd, hook, &cgroup) && bpf_link_detach(fd) < 0)
        log_warn("%s cannot be detached: %s", name, strerror(errno));
    if (unlinkat(programs->state->dir_fd, name, 0) < 0 && errno != ENOENT)
        log_warn("%s cannot be unpinned: %s", name, strerror(errno));
    if (fd >= 0)
        close(fd);
}

/* Adopts what is pinned, wanted, and attached to the wanted cgroup; all else goes. */
static void adopt_links(struct programs *programs)
{
    for (enum programs_hook hook = 0; hook < PROGRAMS_HOOKS; hook++) {
        const struct programs_rung *rung = &programs->rungs[hook];
        uint64_t cgroup;
        char path[64];
        int fd;

        pin_path(programs, hook, path, sizeof(path));
        fd = bpf_obj_get(path);
        if (fd < 0 && errno == ENOENT)
            continue;
        if (fd >= 0 && rung->wanted && programs->cgroup_id != 0 && is_link(fd, hook, &cgroup) &&
            cgroup == programs->cgroup_id)
            programs->links[hook] = fd;
        else
            detach(programs, hook, fd);
    }
}

static int pin_link(const struct programs *programs, enum programs_hook hook, int fd)
{
    char name[PROGRAMS_PIN_SIZE], path[64];

    programs_pin_name(hook, name);
    pin_path(programs, hook, path, sizeof(path));
    if (bpf_obj_pin(fd, path) < 0 || fchownat(programs->state->dir_fd, name, programs->state->uid,
                                              programs->state->gid, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    return 0;
}

/* Until it is pinned, the link dies with this process. */
static void attach_new(struct programs *programs, enum programs_hook hook, int program, int cgroup)
{
    struct programs_rung *rung = &programs->rungs[hook];
    int fd = bpf_link_create(program, cgroup, programs_hooks[hook].attach_type, NULL);
    int err = fd < 0 ? -errno : pin_link(programs, hook, fd);

    if (err == 0) {
        programs->links[hook] = fd;
        return;
    }
    if (fd >= 0) {
        programs_lack(rung, "its link cannot be pinned: %s", strerror(-err));
        detach(programs, hook, fd);
    } else if (err == -EPERM) {
        programs_lack(rung,
                      "another program has cgroup %.160s, or one above it, for itself alone: "
                      "bpftool cgroup tree shows which; detach it or choose another --cgroup",
                      programs->cgroup);
    } else {
        programs_lack(rung, "cgroup %.200s does not take it: %s", programs->cgroup, strerror(-err));
    }
}

static void attach(struct programs *programs, enum programs_hook hook, int program, int cgroup)
{
    int *link = &programs->links[hook];

    if (program < 0 && *link >= 0) {
        /* It runs what a former durpinad was told. */
        detach(programs, hook, *link);
        *link = -1;
    }
    if (program < 0)
        return;
    if (*link < 0) {
        attach_new(programs, hook, program, cgroup);
    } else if (bpf_link_update(*link, program, NULL) < 0) {
        programs_lack(&programs->rungs[hook],
                      "the pinned program cannot be replaced (%s): restart durpinad",
                      strerror(errno));
        detach(programs, hook, *link);
        *link = -1;
    }
}

/* --- connections that nobody has counted ------------------------------------------------------ */

/*
 * Nothing is attached, and once what still runs has ended nothing counts: plain stores do. Doing it
 * twice changes nothing more.
 */
static void forget_connections(const struct bpf_state *state)
{
    bpf_state_await_programs();
    for (uint32_t i = 0; i < state->n_endpoints; i++) {
        struct durpina_endpoint *e = &state->endpoints[i];

        e->abandoned = e->tried - e->established - e->refused - e->timed_out - e->unreachable;
        e->open = e->connecting = 0;
    }
}

static void set_observing(const struct programs *programs)
{
    DURPINA_STORE(&programs->state->meta->observing,
                  (uint32_t) programs->rungs[HOOK_OBSERVE].attached);
}

/* --- open, watch, close ----------------------------------------------------------------------- */

/* What observe has known before is void unless its link was adopted. */
static void begin_anew(struct programs *programs)
{
    struct programs_rung *observe = &programs->rungs[HOOK_OBSERVE];
    struct failure failure;

    if (programs->links[HOOK_OBSERVE] >= 0)
        return;
    DURPINA_STORE(&programs->state->meta->observing, 0);
    forget_connections(programs->state);
    if (observe->wanted && observe->why[0] == '\0' &&
        bpf_state_renew_sockets(programs->state, &failure) < 0)
        programs_lack(observe, "%.300s", failure.text);
}

static void attach_all(struct programs *programs, const struct programs_options *options,
                       int cgroup)
{
    int loaded[PROGRAMS_HOOKS];

    programs_need(programs, false);
    begin_anew(programs);
    programs_load(programs, options, loaded);
    for (enum programs_hook hook = PROGRAMS_HOOKS; hook-- > 0;) {
        attach(programs, hook, loaded[hook], cgroup);
        if (loaded[hook] >= 0)
            close(loaded[hook]);
    }
    if (programs->links[HOOK_OBSERVE] < 0)
        forget_connections(programs->state);
}

int programs_open(const struct programs_options *options, struct bpf_state *state,
                  struct programs **ret, struct failure *failure)
{
    struct programs *programs = programs_create(options);
    char error[CGROUP_ERROR_SIZE];
    int cgroup = -1;

    if (programs == NULL)
        return fail_memory(failure);
    programs->state = state;
    if (cgroup_open(options->cgroup, &cgroup, &programs->cgroup_id, programs->cgroup,
                    sizeof(programs->cgroup), error) < 0)
        programs_lack_all(programs, error);
    adopt_links(programs);
    attach_all(programs, options, cgroup);
    for (enum programs_hook hook = 0; hook < PROGRAMS_HOOKS; hook++)
        programs->rungs[hook].attached = programs->links[hook] >= 0;
    set_observing(programs);
    log_missing(programs);
    if (cgroup >= 0)
        close(cgroup);
    *ret = programs;
    return 0;
}

static void on_watch(uv_timer_t *timer)
{
    struct programs *programs = timer->data;
    bool observed = programs_observing(programs);

    for (enum programs_hook hook = 0; hook < PROGRAMS_HOOKS; hook++) {
        struct programs_rung *rung = &programs->rungs[hook];
        uint64_t cgroup;

        if (!rung->attached || (is_link(programs->links[hook], hook, &cgroup) && cgroup != 0))
            continue;
        rung->attached = false;
        programs_lack(rung,
                      "cgroup %.200s was removed, or the program detached by hand: restart "
                      "durpinad",
                      programs->cgroup);
        log_warn("%s is not attached any more: %s", rung->name, rung->why);
    }
    if (observed && !programs_observing(programs)) {
        set_observing(programs);
        forget_connections(programs->state);
    }
}

int programs_watch(struct programs *programs, uv_loop_t *loop)
{
    int err = uv_timer_init(loop, &programs->timer);

    if (err < 0)
        return err;
    programs->watches = true;
    programs->timer.data = programs;
    return uv_timer_start(&programs->timer, on_watch, WATCH_MS, WATCH_MS);
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void programs_close(struct programs *programs)
{
    if (programs == NULL)
        return;
    for (enum programs_hook hook = 0; hook < PROGRAMS_HOOKS; hook++)
        if (programs->links[hook] >= 0)
            close(programs->links[hook]);
    if (programs->watches)
        uv_close((uv_handle_t *) &programs->timer, on_closed);
    else
        free(programs);
}

/* --- what others ask -------------------------------------------------------------------------- */

const struct programs_rung *programs_rungs(const struct programs *programs, size_t *ret_n)
{
    *ret_n = PROGRAMS_HOOKS;
    return programs->rungs;
}

bool programs_observing(const struct programs *programs)
{
    return programs->rungs[HOOK_OBSERVE].attached;
}

bool programs_connecting(const struct programs *programs)
{
    return programs->rungs[HOOK_CONNECT4].attached || programs->rungs[HOOK_CONNECT6].attached;
}

const char *programs_cgroup(const struct programs *programs)
{
    return programs->cgroup;
}

int programs_exempt_socket(const struct bpf_state *state, int fd)
{
    const struct durpina_socket socket = {.exempt = 1};

    return bpf_map_update_elem(bpf_state_fd(state, BPF_STATE_SOCKETS), &fd, &socket, BPF_ANY);
}
