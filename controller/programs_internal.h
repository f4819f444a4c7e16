/* SPDX-License-Identifier: MIT */
/* Between programs.c, which attaches, programs_load.c, which loads, and those that only look. */
#ifndef DURPINAD_PROGRAMS_INTERNAL_H
#define DURPINAD_PROGRAMS_INTERNAL_H

#include <limits.h>
#include <linux/bpf.h>

#include "cgroup.h"
#include "programs.h"

/*
 * They are attached from last to first, so that nobody is sent elsewhere before the hooks that hide
 * it are there, and detached from first to last.
 */
enum programs_hook {
    HOOK_OBSERVE,
    HOOK_CONNECT4,
    HOOK_CONNECT6,
    HOOK_GETPEERNAME4,
    HOOK_GETPEERNAME6,
    HOOK_SENDMSG4,
    HOOK_SENDMSG6,
    HOOK_RECVMSG4,
    HOOK_RECVMSG6,
    PROGRAMS_HOOKS
};

/* The pin of a hook is called "link_" and its name. */
#define PROGRAMS_PIN_SIZE 32

struct hook {
    const char *name;
    enum bpf_attach_type attach_type; /* by which its program is found, too */
    const char *cost;
};

extern const struct hook programs_hooks[PROGRAMS_HOOKS];

struct programs {
    struct bpf_state *state; /* NULL: only probed */
    char cgroup[PATH_MAX];
    uint64_t cgroup_id;
    struct programs_rung rungs[PROGRAMS_HOOKS];
    int links[PROGRAMS_HOOKS]; /* pinned and attached, or -1 */
    uv_timer_t timer;
    bool watches;
};

#define PROGRAMS_NOT_ALLOWED                                                                       \
    "the kernel does not let this process load it: run durpinad with CAP_BPF, CAP_NET_ADMIN and "  \
    "CAP_PERFMON, outside of containers with a user namespace"

void programs_pin_name(enum programs_hook hook, char ret_name[PROGRAMS_PIN_SIZE]);

/* A ladder of what is wanted, with nothing attached. NULL: no memory. */
struct programs *programs_create(const struct programs_options *options);

/* Fills the rung's reason; the first one stays. */
void programs_lack(struct programs_rung *rung, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The same for all that are wanted and attached to nothing yet. */
void programs_lack_all(struct programs *programs, const char *why);

/*
 * Finds the capabilities and kernel features that wanted hooks lack: their rungs say so. Those that
 * only loading a program would show are looked for if thorough.
 */
void programs_need(struct programs *programs, bool thorough);

/* This process's network namespace, as the kernel calls it. 0 or -errno. */
int programs_netns_cookie(uint64_t *ret);

/*
 * Loads the programs of the hooks that are wanted and lack nothing, after programs_need().
 * ret_fds: what to attach, to be closed by the caller; -1 where there is none, and the rung says
 * why.
 */
void programs_load(struct programs *programs, const struct programs_options *options,
                   int ret_fds[PROGRAMS_HOOKS]);

#endif
