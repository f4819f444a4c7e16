/* SPDX-License-Identifier: MIT */
/* What a host must have for the programs, and what to do where it has not. */
#include <bpf/libbpf.h>
#include <cap-ng.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "programs_internal.h"

#define KERNEL_BTF "/sys/kernel/btf/vmlinux"
#define OLD_KERNEL "the kernel has no %s: Linux 5.15 or later has it"

#define IS_OBSERVE(hook) ((hook) == HOOK_OBSERVE)

int programs_netns_cookie(uint64_t *ret)
{
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), err = 0;
    socklen_t len = sizeof(*ret);

    if (fd < 0)
        return -errno;
    if (getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, ret, &len) < 0)
        err = -errno;
    close(fd);
    return err;
}

static void need_capabilities(struct programs *programs)
{
    static const struct {
        unsigned id;
        const char *name;
    } needed[] = {{CAP_BPF, "CAP_BPF"},
                  {CAP_NET_ADMIN, "CAP_NET_ADMIN"},
                  {CAP_PERFMON, "CAP_PERFMON"}};
    char names[64] = "", why[PROGRAMS_WHY_SIZE];
    size_t at = 0;

    /* CAP_SYS_ADMIN is all of them to bpf(2). */
    if (capng_get_caps_process() != 0 || capng_have_capability(CAPNG_EFFECTIVE, CAP_SYS_ADMIN))
        return;
    for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
        if (!capng_have_capability(CAPNG_EFFECTIVE, needed[i].id))
            at += (size_t) snprintf(names + at, sizeof(names) - at, "%s%s", at > 0 ? ", " : "",
                                    needed[i].name);
    if (at == 0)
        return;
    snprintf(why, sizeof(why), "no privilege (%s): start durpinad as root with all capabilities",
             names);
    programs_lack_all(programs, why);
}

/* Asks the kernel itself; it takes a privilege, and a millisecond each. */
static void need_features(struct programs *programs)
{
    static const struct {
        bool observe; /* which of the programs needs it */
        enum bpf_prog_type type;
        enum bpf_func_id helper;
        const char *name;
    } helpers[] = {
        {true, BPF_PROG_TYPE_SOCK_OPS, BPF_FUNC_sk_storage_get, "memory of sockets for sockops"},
        {true, BPF_PROG_TYPE_SOCK_OPS, BPF_FUNC_skc_to_tcp_sock, "bpf_skc_to_tcp_sock()"},
        {true, BPF_PROG_TYPE_SOCK_OPS, BPF_FUNC_get_netns_cookie, "bpf_get_netns_cookie()"},
        {true, BPF_PROG_TYPE_SOCK_OPS, BPF_FUNC_ringbuf_output, "BPF ring buffer"},
        {false, BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_FUNC_sk_storage_get,
         "memory of sockets for cgroup programs"},
        {false, BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_FUNC_get_netns_cookie,
         "bpf_get_netns_cookie()"},
    };

    /* Capabilities of a user namespace look like any others. */
    if (libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_SOCK_OPS, NULL) != 1)
        programs_lack_all(programs, PROGRAMS_NOT_ALLOWED);
    for (size_t i = 0; i < sizeof(helpers) / sizeof(helpers[0]); i++) {
        if (libbpf_probe_bpf_helper(helpers[i].type, helpers[i].helper, NULL) != 0)
            continue;
        for (enum programs_hook hook = 0; hook < PROGRAMS_HOOKS; hook++)
            if (IS_OBSERVE(hook) == helpers[i].observe)
                programs_lack(&programs->rungs[hook], OLD_KERNEL, helpers[i].name);
    }
}

void programs_need(struct programs *programs, bool thorough)
{
    uint64_t cookie;

    if (programs_netns_cookie(&cookie) < 0)
        programs_lack_all(programs,
                          "the kernel has no SO_NETNS_COOKIE: Linux 5.15 or later has it");
    need_capabilities(programs);
    if (access(KERNEL_BTF, R_OK) < 0)
        programs_lack(&programs->rungs[HOOK_OBSERVE],
                      KERNEL_BTF " cannot be read: a kernel built with CONFIG_DEBUG_INFO_BTF has "
                                 "it");
    if (thorough && programs->rungs[HOOK_CONNECT4].why[0] == '\0')
        need_features(programs);
}
