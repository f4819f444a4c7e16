/* SPDX-License-Identifier: MIT */
/*
 * The programs attached to one of two cgroups of this test, which it is in, and a listener that is
 * endpoint 0 once it is published.
 */
#ifndef DURPINA_TEST_PROGRAMS_SCENE_H
#define DURPINA_TEST_PROGRAMS_SCENE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cgroup.h"
#include "log.h"
#include "pins.h"
#include "programs.h"

#include <cmocka.h> /* last: its macro fail() hides the function of failure.h */

#define UID 54321
#define N_RUNGS 9
#define DEADLINE_S 10

static struct scene {
    struct pins pins;
    char home[PATH_MAX]; /* the cgroup that the test came from */
    char cgroups[2][PATH_MAX];
    struct bpf_state maps;
    struct programs *programs;
    bool is_open;
    int listener;
    struct sockaddr_in addr;
} scene;

static const enum bpf_attach_type attach_types[N_RUNGS] = {
    BPF_CGROUP_SOCK_OPS,          BPF_CGROUP_INET4_CONNECT,     BPF_CGROUP_INET6_CONNECT,
    BPF_CGROUP_INET4_GETPEERNAME, BPF_CGROUP_INET6_GETPEERNAME, BPF_CGROUP_UDP4_SENDMSG,
    BPF_CGROUP_UDP6_SENDMSG,      BPF_CGROUP_UDP4_RECVMSG,      BPF_CGROUP_UDP6_RECVMSG,
};

/* --- cgroups ---------------------------------------------------------------------------------- */

static inline void join(const char *cgroup)
{
    char path[PATH_MAX + 16];
    FILE *file;

    snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
    file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file, "0");
    assert_int_equal(fclose(file), 0);
}

static inline void find_home(void)
{
    char root[PATH_MAX / 2], line[PATH_MAX / 2], error[CGROUP_ERROR_SIZE];
    FILE *file = fopen("/proc/self/cgroup", "r");
    uint64_t id;
    int fd;

    if (cgroup_open("", &fd, &id, root, sizeof(root), error) < 0)
        fail_msg("%s", error);
    close(fd);
    assert_non_null(file);
    while (fgets(line, sizeof(line), file) != NULL && strncmp(line, "0::", 3) != 0)
        ;
    fclose(file);
    line[strcspn(line, "\n")] = '\0';
    snprintf(scene.home, sizeof(scene.home), "%s%s", root, line + 3);
    for (int i = 0; i < 2; i++)
        snprintf(scene.cgroups[i], sizeof(scene.cgroups[i]), "%s/%s-%d", root,
                 strrchr(scene.pins.dir, '/') + 1, i);
}

/* The ids of the programs that a cgroup has of this type. */
static inline uint32_t attached(const char *cgroup, size_t hook, uint32_t *ret_id)
{
    uint32_t ids[8], n = 8, flags;
    int fd = open(cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(bpf_prog_query(fd, attach_types[hook], 0, &flags, ids, &n), 0);
    close(fd);
    if (ret_id != NULL)
        *ret_id = n > 0 ? ids[0] : 0;
    return n;
}

static inline uint32_t attached_in_all(const char *cgroup)
{
    uint32_t n = 0;

    for (size_t i = 0; i < N_RUNGS; i++)
        n += attached(cgroup, i, NULL);
    return n;
}

static inline void guard_fired(int signum)
{
    (void) signum;
    abort();
}

/* The kernel detaches a moment after the last pin is gone. */
static inline void await_detached(const char *cgroup)
{
    signal(SIGALRM, guard_fired);
    alarm(DEADLINE_S);
    while (attached_in_all(cgroup) > 0)
        sched_yield();
    alarm(0);
}

/* --- scene ------------------------------------------------------------------------------------ */

static inline struct programs_options wanted(int cgroup)
{
    return (
        struct programs_options){.observe = true, .connect = true, .cgroup = scene.cgroups[cgroup]};
}

static inline int open_scene(struct programs_options options)
{
    const struct bpf_state_options maps = {.pin = scene.pins.dir,
                                           .n_upstreams = 4,
                                           .n_peers = 8,
                                           .n_slots = 64,
                                           .n_inflight = 62,
                                           .uid = UID,
                                           .gid = UID};
    struct failure failure;
    int err = bpf_state_open(&maps, &scene.maps, &failure);

    if (err == 0)
        err = programs_open(&options, &scene.maps, &scene.programs, &failure);
    if (err < 0)
        print_error("%s\n", failure.text);
    scene.is_open = err == 0;
    return err;
}

static inline void close_scene(void)
{
    if (scene.is_open) {
        programs_close(scene.programs);
        bpf_state_close(&scene.maps);
    }
    scene.is_open = false;
}

static inline void reopen_scene(struct programs_options options)
{
    close_scene();
    assert_int_equal(open_scene(options), 0);
}

static inline const struct programs_rung *rung(const char *name)
{
    size_t n;
    const struct programs_rung *rungs = programs_rungs(scene.programs, &n);

    assert_int_equal(n, N_RUNGS);
    for (size_t i = 0; i < n; i++)
        if (strcmp(rungs[i].name, name) == 0)
            return &rungs[i];
    fail_msg("there is no rung %s", name);
    return NULL;
}

static inline void assert_all_attached(int cgroup)
{
    size_t n;
    const struct programs_rung *rungs = programs_rungs(scene.programs, &n);

    for (size_t i = 0; i < n; i++) {
        if (!rungs[i].attached)
            fail_msg("%s: %s", rungs[i].name, rungs[i].why);
        assert_string_equal(rungs[i].why, "");
        assert_int_equal(attached(scene.cgroups[cgroup], i, NULL), 1);
    }
    assert_true(programs_observing(scene.programs) && programs_connecting(scene.programs));
    assert_int_equal(scene.maps.meta->observing, 1);
    assert_string_equal(programs_cgroup(scene.programs), scene.cgroups[cgroup]);
}

static inline uint32_t link_id(const char *name)
{
    struct bpf_link_info info = {0};
    uint32_t len = sizeof(info);
    char path[256];
    int fd;

    snprintf(path, sizeof(path), "%s/link_%s", scene.pins.dir, name);
    fd = bpf_obj_get(path);
    if (fd < 0)
        return 0;
    assert_int_equal(bpf_obj_get_info_by_fd(fd, &info, &len), 0);
    close(fd);
    return info.id;
}

static inline uint32_t sockets_id(void)
{
    struct bpf_map_info info = {0};
    uint32_t len = sizeof(info);

    assert_int_equal(bpf_obj_get_info_by_fd(bpf_state_fd(&scene.maps, BPF_STATE_SOCKETS), &info,
                                            &len),
                     0);
    return info.id;
}

/* The listener's address is endpoint 0. */
static inline struct durpina_endpoint *publish_endpoint(void)
{
    const struct durpina_address key = {.addr_be = {scene.addr.sin_addr.s_addr},
                                        .port_be = scene.addr.sin_port,
                                        .family = DURPINA_FAMILY_INET,
                                        .protocol = IPPROTO_TCP};
    const uint32_t id = 0;

    scene.maps.endpoints[0].generation = 1;
    assert_int_equal(bpf_map_update_elem(bpf_state_fd(&scene.maps, BPF_STATE_ENDPOINT_IDS), &key,
                                         &id, BPF_ANY),
                     0);
    return &scene.maps.endpoints[0];
}

static inline int new_socket(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    return fd;
}

static inline int connect_to_endpoint(int fd)
{
    assert_int_equal(connect(fd, (struct sockaddr *) &scene.addr, sizeof(scene.addr)), 0);
    return fd;
}

static inline int set_up(void **state)
{
    socklen_t len = sizeof(scene.addr);

    (void) state;
    memset(&scene, 0, sizeof(scene));
    scene.pins = pins_choose("programs");
    find_home();
    for (int i = 0; i < 2; i++)
        assert_int_equal(mkdir(scene.cgroups[i], 0755), 0);
    scene.listener = new_socket();
    scene.addr.sin_family = AF_INET;
    scene.addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(scene.listener, (struct sockaddr *) &scene.addr, len), 0);
    assert_int_equal(listen(scene.listener, 1000), 0);
    assert_int_equal(getsockname(scene.listener, (struct sockaddr *) &scene.addr, &len), 0);
    join(scene.cgroups[0]);
    return 0;
}

static inline int tear_down(void **state)
{
    (void) state;
    close_scene();
    close(scene.listener);
    pins_remove(&scene.pins);
    join(scene.home);
    for (int i = 0; i < 2; i++)
        rmdir(scene.cgroups[i]);
    return 0;
}

#endif
