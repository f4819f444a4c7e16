/* SPDX-License-Identifier: MIT */
/* A controller killed between any two steps of attaching, pinning and replacing. */
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "programs_scene.h"

/* --- killed ----------------------------------------------------------------------------------- */

static bool is_step(const struct __ptrace_syscall_info *info)
{
    if (info->op != PTRACE_SYSCALL_INFO_ENTRY)
        return false;
    switch (info->entry.nr) {
    case SYS_bpf:
        return info->entry.args[0] == BPF_OBJ_PIN || info->entry.args[0] == BPF_LINK_CREATE ||
               info->entry.args[0] == BPF_LINK_UPDATE || info->entry.args[0] == BPF_LINK_DETACH;
    case SYS_unlinkat:
    case SYS_renameat:
    case SYS_renameat2:
    case SYS_fchownat:
        return true;
    default:
        return false;
    }
}

/* Starts a controller and kills it before the step'th thing it does; false: it has done all. */
static bool kill_at(struct programs_options options, unsigned step)
{
    struct __ptrace_syscall_info info;
    unsigned n = 0;
    pid_t pid = fork();
    int status;

    assert_true(pid >= 0);
    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0 || raise(SIGSTOP) != 0)
            _exit(2);
        _exit(open_scene(options) == 0 ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(ptrace(PTRACE_SETOPTIONS, pid, NULL,
                            PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL),
                     0);
    for (;;) {
        assert_int_equal(ptrace(PTRACE_SYSCALL, pid, NULL, NULL), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (WIFEXITED(status)) {
            assert_int_equal(WEXITSTATUS(status), 0);
            return false;
        }
        assert_true(ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info), &info) > 0);
        if (is_step(&info) && n++ == step)
            break;
    }
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return true;
}

static void assert_counts_exactly(void)
{
    struct durpina_endpoint *e = publish_endpoint();
    uint64_t tried = e->tried;
    int fd;

    assert_int_equal(e->open, 0);
    fd = connect_to_endpoint(new_socket());
    assert_int_equal(e->open, 1);
    close(fd);
    assert_int_equal(e->open, 0);
    assert_int_equal(e->tried, tried + 1);
}

static uint32_t observers(void)
{
    return attached(scene.cgroups[0], 0, NULL) + attached(scene.cgroups[1], 0, NULL);
}

/* What is attached is pinned, and who reads meta.observing is not misled. */
static void assert_nothing_stray(void)
{
    struct durpina_meta meta = {0};
    uint32_t key = 0;
    char path[256];
    int fd;

    assert_true(observers() <= (link_id("observe") != 0));
    snprintf(path, sizeof(path), "%s/meta", scene.pins.dir);
    fd = bpf_obj_get(path);
    if (fd < 0)
        return; /* not even the maps are there */
    assert_int_equal(bpf_map_lookup_elem(fd, &key, &meta), 0);
    assert_true(meta.observing <= observers());
    close(fd);
}

static void killed_at_any_step_it_leaves_nothing_that_the_next_start_does_not_mend(void **state)
{
    unsigned step = 0;
    bool killed;

    (void) state;
    /* Each time from no pins at all to one cgroup, to the other, and to other settings there. */
    do {
        struct programs_options options = {.observe = true, .cgroup = scene.cgroups[0]};

        options.observe = false;
        reopen_scene(options);
        close_scene();
        pins_remove(&scene.pins);
        options.observe = true;
        join(scene.cgroups[0]);
        killed = kill_at(options, step);
        assert_nothing_stray();
        assert_int_equal(open_scene(options), 0);
        assert_true(programs_observing(scene.programs));
        assert_int_equal(observers(), 1);
        assert_counts_exactly();
        close_scene();

        options.cgroup = scene.cgroups[1];
        killed |= kill_at(options, step);
        assert_nothing_stray();
        assert_int_equal(open_scene(options), 0);
        assert_int_equal(observers(), 1);
        join(scene.cgroups[1]);
        assert_counts_exactly();
        close_scene();

        options.all_namespaces = true;
        killed |= kill_at(options, step);
        assert_int_equal(observers(), 1);
        assert_int_equal(open_scene(options), 0);
        assert_int_equal(observers(), 1);
        assert_counts_exactly();
        close_scene();
        step++;
    } while (killed);
    assert_true(step > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            killed_at_any_step_it_leaves_nothing_that_the_next_start_does_not_mend, set_up,
            tear_down),
    };

    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
