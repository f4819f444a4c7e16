/* SPDX-License-Identifier: MIT */
/* The programs, attached to cgroups of this test: adopted, replaced, moved, missing. */
#include <cap-ng.h>

#include "probe.h"
#include "programs_scene.h"

static void all_are_attached_pinned_and_given_to_the_user(void **state)
{
    char path[256];
    struct stat st;
    size_t n;

    (void) state;
    assert_int_equal(open_scene(wanted(0)), 0);
    assert_all_attached(0);
    programs_rungs(scene.programs, &n);
    for (size_t i = 0; i < n; i++) {
        const struct programs_rung *rungs = programs_rungs(scene.programs, &n);

        snprintf(path, sizeof(path), "%s/link_%s", scene.pins.dir, rungs[i].name);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_uid, UID);
    }
    close_scene();
    assert_int_equal(attached_in_all(scene.cgroups[0]), N_RUNGS);
    pins_remove(&scene.pins);
    await_detached(scene.cgroups[0]);
}

static void other_settings_replace_the_programs_under_open_connections(void **state)
{
    struct programs_options options = wanted(0);
    struct durpina_endpoint *e;
    uint32_t link, program, sockets, now;
    int before, after;

    (void) state;
    assert_int_equal(open_scene(options), 0);
    link = link_id("observe");
    sockets = sockets_id();
    attached(scene.cgroups[0], 0, &program);
    e = publish_endpoint();
    before = connect_to_endpoint(new_socket());
    assert_int_equal(e->open, 1);

    options.mark = 0x77;
    reopen_scene(options);
    assert_all_attached(0);
    assert_int_equal(link_id("observe"), link);
    assert_int_equal(sockets_id(), sockets);
    attached(scene.cgroups[0], 0, &now);
    assert_true(now != program);
    e = &scene.maps.endpoints[0];
    assert_int_equal(e->open, 1);
    after = connect_to_endpoint(new_socket());
    assert_int_equal(e->open, 2);
    close(before);
    close(after);
    assert_int_equal(e->open, 0);
    assert_int_equal(e->tried, 2);
    assert_int_equal(e->established, 2);
}

static void another_cgroup_is_observed_anew_and_old_connections_are_forgotten(void **state)
{
    struct durpina_endpoint *e;
    uint32_t sockets;
    int before, after;

    (void) state;
    assert_int_equal(open_scene(wanted(0)), 0);
    sockets = sockets_id();
    e = publish_endpoint();
    before = connect_to_endpoint(new_socket());
    e->tried++, e->connecting++; /* as if one were under way */

    reopen_scene(wanted(1));
    e = &scene.maps.endpoints[0];
    assert_all_attached(1);
    assert_int_equal(attached_in_all(scene.cgroups[0]), 0);
    assert_true(sockets_id() != sockets);
    assert_int_equal(e->open, 0);
    assert_int_equal(e->connecting, 0);
    assert_int_equal(e->abandoned, 1); /* tried is still the sum of what became of them */

    join(scene.cgroups[1]);
    after = connect_to_endpoint(new_socket());
    assert_int_equal(e->open, 1);
    close(before); /* its callbacks go on, whatever the socket belongs to now */
    assert_int_equal(e->open, 1);
    close(after);
    assert_int_equal(e->open, 0);
    assert_int_equal(e->tried, 3);
}

static void what_is_turned_off_is_detached(void **state)
{
    struct programs_options options = wanted(0);

    (void) state;
    assert_int_equal(open_scene(options), 0);
    options.connect = false;
    reopen_scene(options);
    assert_int_equal(attached_in_all(scene.cgroups[0]), 1);
    assert_true(programs_observing(scene.programs));
    assert_false(programs_connecting(scene.programs));
    assert_false(rung("connect4")->wanted);
    assert_string_equal(rung("connect4")->why, "");

    options = (struct programs_options){.connect = true, .cgroup = scene.cgroups[0]};
    reopen_scene(options);
    assert_int_equal(attached_in_all(scene.cgroups[0]), N_RUNGS - 1);
    assert_int_equal(scene.maps.meta->observing, 0);
    assert_true(programs_connecting(scene.programs));

    options.connect = false;
    reopen_scene(options);
    assert_int_equal(attached_in_all(scene.cgroups[0]), 0);
    assert_int_equal(link_id("observe") + link_id("connect4"), 0);
}

static void a_cgroup_that_cannot_be_had_is_named_and_nothing_stays_attached(void **state)
{
    static const struct {
        const char *cgroup, *say;
    } bad[] = {
        {"/nonexistent/cgroup", "/nonexistent/cgroup: No such file or directory"},
        {"/tmp", "/tmp is not on a cgroup2"},
    };

    (void) state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct programs_options options = wanted(0);

        assert_int_equal(open_scene(options), 0);
        options.cgroup = bad[i].cgroup;
        reopen_scene(options);
        assert_non_null(strstr(rung("observe")->why, bad[i].say));
        assert_non_null(strstr(rung("observe")->why, "--cgroup"));
        assert_false(programs_observing(scene.programs));
        assert_int_equal(scene.maps.meta->observing, 0);
        assert_int_equal(attached_in_all(scene.cgroups[0]), 0);
        close_scene();
    }
}

static void a_program_that_has_the_cgroup_alone_is_spoken_of(void **state)
{
    uint32_t flags, n = 1, id;
    int cgroup = open(scene.cgroups[0], O_RDONLY | O_DIRECTORY | O_CLOEXEC), program;
    const struct bpf_insn go_on[] = {
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 1},
        {.code = BPF_JMP | BPF_EXIT},
    };

    (void) state;
    program = bpf_prog_load(BPF_PROG_TYPE_SOCK_OPS, "alone", "GPL", go_on, 2, NULL);
    assert_true(program >= 0);
    assert_int_equal(bpf_prog_attach(program, cgroup, BPF_CGROUP_SOCK_OPS, 0), 0);
    assert_int_equal(open_scene(wanted(0)), 0);
    assert_non_null(strstr(rung("observe")->why, "bpftool cgroup tree"));
    assert_true(programs_connecting(scene.programs)); /* the others are attached */
    assert_int_equal(bpf_prog_query(cgroup, BPF_CGROUP_SOCK_OPS, 0, &flags, &id, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(bpf_prog_detach2(program, cgroup, BPF_CGROUP_SOCK_OPS), 0);
    close(program);
    close(cgroup);

    reopen_scene(wanted(0));
    assert_all_attached(0);
}

static void a_removed_cgroup_ends_observing_and_another_takes_its_place(void **state)
{
    uv_loop_t loop;

    (void) state;
    assert_int_equal(open_scene(wanted(1)), 0);
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(programs_watch(scene.programs, &loop), 0);
    assert_int_equal(rmdir(scene.cgroups[1]), 0);
    signal(SIGALRM, guard_fired);
    alarm(DEADLINE_S);
    while (programs_observing(scene.programs))
        uv_run(&loop, UV_RUN_ONCE);
    alarm(0);
    assert_int_equal(scene.maps.meta->observing, 0);
    assert_non_null(strstr(rung("observe")->why, "was removed"));
    close_scene();
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&loop), 0);

    assert_int_equal(open_scene(wanted(0)), 0);
    assert_all_attached(0);
}

static void a_pin_that_is_no_link_of_ours_is_replaced(void **state)
{
    char path[256];

    (void) state;
    assert_int_equal(open_scene(wanted(0)), 0);
    snprintf(path, sizeof(path), "%s/link_observe", scene.pins.dir);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(bpf_obj_pin(bpf_state_fd(&scene.maps, BPF_STATE_KERNEL), path), 0);
    reopen_scene(wanted(0));
    assert_all_attached(0);
    assert_true(link_id("observe") != 0);
}

/* In a child: whether it is so with these capabilities only. */
static void in_child_with(bool (*check)(void), const unsigned *capabilities, size_t n)
{
    pid_t pid = fork();
    int status;

    assert_true(pid >= 0);
    if (pid == 0) {
        capng_clear(CAPNG_SELECT_BOTH);
        for (size_t i = 0; i < n; i++)
            capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, capabilities[i]);
        _exit(capng_apply(CAPNG_SELECT_CAPS) == 0 && check() ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static bool lacks_net_admin(void)
{
    return open_scene(wanted(0)) == 0 && !programs_observing(scene.programs) &&
           strstr(rung("observe")->why, "no privilege (CAP_NET_ADMIN)") != NULL &&
           strcmp(rung("connect6")->why, rung("observe")->why) == 0;
}

static bool attaches(void)
{
    return open_scene(wanted(0)) == 0 && programs_observing(scene.programs) &&
           rung("connect4")->attached && rung("recvmsg6")->attached;
}

static void missing_capabilities_are_named_and_three_suffice(void **state)
{
    static const unsigned capabilities[] = {CAP_BPF, CAP_PERFMON, CAP_CHOWN, CAP_DAC_OVERRIDE,
                                            CAP_NET_ADMIN};

    (void) state;
    in_child_with(lacks_net_admin, capabilities, 4);
    assert_int_equal(attached_in_all(scene.cgroups[0]), 0);
    in_child_with(attaches, capabilities, 5);
    assert_int_equal(attached_in_all(scene.cgroups[0]), N_RUNGS);
    in_child_with(lacks_net_admin, capabilities, 4); /* nor does an older program go on unasked */
    assert_int_equal(attached_in_all(scene.cgroups[0]), 0);
}

static bool exempts(void)
{
    int fd = new_socket();

    return setuid(UID) == 0 && programs_exempt_socket(&scene.maps, fd) == 0 &&
           connect_to_endpoint(fd) == fd;
}

static void exempt_sockets_are_not_counted_and_need_no_privilege(void **state)
{
    static const unsigned capabilities[] = {CAP_SETUID};
    struct durpina_endpoint *e;

    (void) state;
    assert_int_equal(open_scene(wanted(0)), 0);
    e = publish_endpoint();
    in_child_with(exempts, capabilities, 1);
    assert_int_equal(scene.maps.kernel->exempt, 1);
    assert_int_equal(e->tried, 0);
    close(connect_to_endpoint(new_socket()));
    assert_int_equal(e->tried, 1);
    assert_int_equal(programs_exempt_socket(&scene.maps, STDIN_FILENO), -ENOTSOCK);
}

static int exempt(void *user, int fd)
{
    return programs_exempt_socket(user, fd);
}

static void on_report(void *user, struct probe *probe, const struct probe_report *report)
{
    (void) user, (void) probe, (void) report;
}

static void no_check_of_any_kind_is_counted(void **state)
{
    static const char *const types[] = {"http", "tcp", "grpc", "haproxy-agent-check",
                                        "http-haproxy-agent-check"};
    const size_t n = sizeof(types) / sizeof(types[0]);
    struct durpina_endpoint *e;
    struct prober *prober;
    struct check *checks[5];
    struct probe *probes[5];
    struct addr addr = {.len = sizeof(scene.addr)};
    struct failure failure;
    uv_loop_t loop;

    (void) state;
    assert_int_equal(open_scene(wanted(0)), 0);
    e = publish_endpoint();
    memcpy(&addr.sa, &scene.addr, sizeof(scene.addr));
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(prober_create(&loop, &prober), 0);
    prober_set_socket_hook(prober, exempt, &scene.maps);
    signal(SIGALRM, guard_fired);
    alarm(DEADLINE_S);
    for (size_t i = 0; i < n; i++) {
        json_t *options = json_pack("{sf si}", "interval", 0.02, "timeout", 1000);
        uint64_t before = scene.maps.kernel->exempt;

        assert_int_equal(check_parse(types[i], options, &checks[i], &failure), 0);
        json_decref(options);
        assert_int_equal(probe_start(prober, checks[i], &addr, "backend:80", on_report, NULL,
                                     &probes[i]),
                         0);
        while (scene.maps.kernel->exempt == before)
            uv_run(&loop, UV_RUN_ONCE);
        probe_cancel(probes[i]);
    }
    alarm(0);
    assert_int_equal(e->tried, 0);
    assert_int_equal(prober_stats(prober)->unmarked, 0);
    prober_destroy(prober);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    for (size_t i = 0; i < n; i++)
        check_free(checks[i]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(all_are_attached_pinned_and_given_to_the_user),
        TEST(other_settings_replace_the_programs_under_open_connections),
        TEST(another_cgroup_is_observed_anew_and_old_connections_are_forgotten),
        TEST(what_is_turned_off_is_detached),
        TEST(a_cgroup_that_cannot_be_had_is_named_and_nothing_stays_attached),
        TEST(a_program_that_has_the_cgroup_alone_is_spoken_of),
        TEST(a_removed_cgroup_ends_observing_and_another_takes_its_place),
        TEST(a_pin_that_is_no_link_of_ours_is_replaced),
        TEST(missing_capabilities_are_named_and_three_suffice),
        TEST(exempt_sockets_are_not_counted_and_need_no_privilege),
        TEST(no_check_of_any_kind_is_counted),
    };

    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
