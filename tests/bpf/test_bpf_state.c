/* SPDX-License-Identifier: MIT */
/* Pins: created, adopted or refused by name, with the remedy, and nothing touched. */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "bpf_state.h"
#include "log.h"
#include "pins.h"

#include <cmocka.h> /* last: its macro fail() hides the function of failure.h */

#define UID 54321

static struct pins pins;

static int open_as(struct bpf_state *state, struct failure *failure, uint32_t uid)
{
    const struct bpf_state_options options = {.pin = pins.dir,
                                              .n_upstreams = 4,
                                              .n_peers = 100,
                                              .n_slots = 1000,
                                              .n_inflight = 63,
                                              .uid = uid,
                                              .gid = uid};

    return bpf_state_open(&options, state, failure);
}

static struct bpf_state open_pins(void)
{
    struct bpf_state state;
    struct failure failure;
    int err = open_as(&state, &failure, UID);

    if (err < 0)
        print_error("%s\n", failure.text);
    assert_int_equal(err, 0);
    return state;
}

static void create_pins(void)
{
    struct bpf_state state = open_pins();

    bpf_state_close(&state);
}

static void assert_refused(int expected, const char *say)
{
    struct bpf_state state = {.dir_fd = 77};
    struct failure failure;

    assert_int_equal(open_as(&state, &failure, UID), expected);
    if (strstr(failure.text, say) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", failure.text, say);
    assert_non_null(strstr(failure.text, pins.dir));
    assert_int_equal(state.dir_fd, 77);
}

static const char *entry(const char *name)
{
    static char path[256];

    snprintf(path, sizeof(path), "%s/%s", pins.dir, name);
    return path;
}

static int set_up(void **state)
{
    (void) state;
    pins = pins_choose("state");
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    pins_remove(&pins);
    return 0;
}

static void new_pins_are_mapped_named_and_given_to_the_user(void **state)
{
    static const char *const names[] = {
        "meta",      "upstreams",    "peers", "slots",   "counters", "cursors", "inflight",
        "endpoints", "endpoint_ids", "vips",  "sockets", "events",   "kernel",
    };
    struct bpf_state s = open_pins();
    struct stat st;

    (void) state;
    assert_false(s.adopted);
    assert_int_equal(s.n_slots, 1024); /* whole rows */
    assert_int_equal(s.n_inflight, 2); /* whole pages */
    assert_int_equal(s.meta->controller_pid, getpid());
    assert_true(s.meta->magic == DURPINA_MAGIC);
    s.peers[99].generation = s.upstreams[3].generation = s.slots[1023] = s.counters[99].active = 1;
    s.cursors[3].unweighted[1] = s.inflight[1].tries[DURPINA_TRIES_PER_PAGE - 1].peer = 1;
    s.endpoints[99].open = 1;
    s.kernel->foreign = 1;
    assert_int_equal(sizeof(names) / sizeof(names[0]), BPF_STATE_MAPS);
    for (enum bpf_state_map i = 0; i < BPF_STATE_MAPS; i++) {
        struct bpf_map_info info = {0};
        uint32_t len = sizeof(info);

        assert_int_equal(bpf_obj_get_info_by_fd(bpf_state_fd(&s, i), &info, &len), 0);
        assert_string_equal(info.name, names[i]);
        assert_string_equal(bpf_state_map_name(i), names[i]);
        assert_true(info.btf_id != 0 || i == BPF_STATE_EVENTS); /* a ring has no elements */
        assert_int_equal(stat(entry(names[i]), &st), 0);
        assert_int_equal(st.st_uid, UID);
    }
    assert_int_equal(stat(pins.dir, &st), 0);
    assert_int_equal(st.st_uid, UID);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(access(pins.stage, F_OK), -1);
    bpf_state_close(&s);
}

static void pins_are_adopted_with_what_they_hold(void **state)
{
    struct bpf_state s = open_pins();

    (void) state;
    s.counters[7].unanswered = 42;
    s.inflight[1].owner.pid = 43;
    bpf_state_close(&s);
    s = open_pins();
    assert_true(s.adopted);
    assert_int_equal(s.counters[7].unanswered, 42);
    assert_int_equal(s.inflight[1].owner.pid, 43);
    assert_int_equal(bpf_state_maps(&s).n_inflight, 2);
    assert_ptr_equal(bpf_state_maps(&s).inflight, s.inflight);
    assert_int_equal(bpf_state_maps(&s).n_endpoints, 100);
    assert_ptr_equal(bpf_state_maps(&s).endpoints, s.endpoints);
    bpf_state_close(&s);
}

static void pinned_capacity_wins(void **state)
{
    const struct bpf_state_options options = {.pin = pins.dir,
                                              .n_upstreams = 8,
                                              .n_peers = 8,
                                              .n_slots = 64,
                                              .n_inflight = 1000,
                                              .uid = UID,
                                              .gid = UID};
    struct bpf_state s;
    struct failure failure;

    (void) state;
    create_pins();
    assert_int_equal(bpf_state_open(&options, &s, &failure), 0);
    assert_int_equal(s.n_upstreams, 4);
    assert_int_equal(s.n_peers, 100);
    assert_int_equal(s.n_slots, 1024);
    assert_int_equal(s.n_inflight, 2);
    bpf_state_close(&s);
}

static void capacity_of_nothing_is_refused(void **state)
{
    const struct bpf_state_options options = {
        .pin = pins.dir, .n_upstreams = 4, .n_peers = 100, .n_slots = 1000, .uid = UID, .gid = UID};
    struct bpf_state s;
    struct failure failure;

    (void) state;
    assert_int_equal(bpf_state_open(&options, &s, &failure), -EINVAL);
    assert_non_null(strstr(failure.text, "inflight must not be 0"));
    assert_int_equal(access(pins.dir, F_OK), -1);
}

static void second_controller_is_refused_with_the_pid_of_the_first(void **state)
{
    struct bpf_state s = open_pins();
    char pid[32];

    (void) state;
    snprintf(pid, sizeof(pid), "pid %d:", (int) getpid());
    assert_refused(-EBUSY, pid);
    assert_refused(-EBUSY, "--pin");
    bpf_state_close(&s);
    create_pins();
}

static void other_layout_and_version_are_refused(void **state)
{
    struct bpf_state s = open_pins();

    (void) state;
    s.meta->layout_hash ^= 1;
    bpf_state_close(&s);
    assert_refused(-EINVAL, "another layout");
    assert_refused(-EINVAL, "rm -r");
    pins_remove(&pins);

    s = open_pins();
    s.meta->abi_major++;
    bpf_state_close(&s);
    assert_refused(-EINVAL, "ABI 5.");
    pins_remove(&pins);

    s = open_pins();
    s.meta->abi_minor++;
    bpf_state_close(&s);
    create_pins();
    pins_remove(&pins);

    s = open_pins();
    s.meta->peers = 200;
    bpf_state_close(&s);
    assert_refused(-EINVAL, "damaged");
}

static void pin_that_is_another_map_or_none_is_named(void **state)
{
    LIBBPF_OPTS(bpf_map_create_opts, mmapable, .map_flags = BPF_F_MMAPABLE);
    int fd;

    (void) state;
    create_pins();
    assert_int_equal(unlink(entry("peers")), 0);
    assert_refused(-ENOENT, "peers");

    fd = bpf_map_create(BPF_MAP_TYPE_HASH, "peers", 4, sizeof(struct durpina_peer), 100, NULL);
    assert_true(fd >= 0);
    assert_int_equal(bpf_obj_pin(fd, entry("peers")), 0);
    close(fd);
    assert_refused(-EINVAL, "peers is not the map");
    assert_int_equal(unlink(entry("peers")), 0);

    fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "peers", 4, 8, 100, &mmapable);
    assert_true(fd >= 0);
    assert_int_equal(bpf_obj_pin(fd, entry("peers")), 0);
    close(fd);
    assert_refused(-EINVAL, "peers is not the map");
    assert_int_equal(unlink(entry("peers")), 0);

    assert_int_equal(symlink("counters", entry("peers")), 0);
    assert_refused(-EINVAL, "peers is not the map");
}

static void hash_of_the_right_sizes_is_no_ring_and_none_of_other_keys_is_taken(void **state)
{
    static const struct {
        const char *name;
        enum bpf_map_type type;
        uint32_t key_size, value_size, entries;
    } others[] = {
        {"events", BPF_MAP_TYPE_HASH, 4, 8, 16},
        {"vips", BPF_MAP_TYPE_HASH, 4, sizeof(struct durpina_vip), DURPINA_VIPS_MAX},
        {"endpoint_ids", BPF_MAP_TYPE_ARRAY, 4, 4, 100},
        {"sockets", BPF_MAP_TYPE_HASH, 4, sizeof(struct durpina_socket), 16},
    };
    char say[64];

    (void) state;
    create_pins();
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        int fd = bpf_map_create(others[i].type, others[i].name, others[i].key_size,
                                others[i].value_size, others[i].entries, NULL);
        char saved[128 + 16];

        assert_true(fd >= 0);
        snprintf(saved, sizeof(saved), "%s/saved", pins.dir);
        assert_int_equal(rename(entry(others[i].name), saved), 0);
        assert_int_equal(bpf_obj_pin(fd, entry(others[i].name)), 0);
        close(fd);
        snprintf(say, sizeof(say), "%s is not the map", others[i].name);
        assert_refused(-EINVAL, say);
        assert_int_equal(unlink(entry(others[i].name)), 0);
        assert_int_equal(rename(saved, entry(others[i].name)), 0);
    }
    create_pins();
}

static uint32_t id_of_pinned(const char *name)
{
    struct bpf_map_info info = {0};
    uint32_t len = sizeof(info);
    int fd = bpf_obj_get(entry(name));

    assert_true(fd >= 0);
    assert_int_equal(bpf_obj_get_info_by_fd(fd, &info, &len), 0);
    close(fd);
    return info.id;
}

static void renewed_sockets_are_another_map_in_the_same_place(void **state)
{
    struct bpf_state s = open_pins();
    struct failure failure;
    struct stat st;
    uint32_t former = id_of_pinned("sockets");

    (void) state;
    /* What a controller that was killed in the midst of it has left. */
    assert_int_equal(bpf_obj_pin(bpf_state_fd(&s, BPF_STATE_KERNEL), entry("sockets_new")), 0);
    assert_int_equal(bpf_state_renew_sockets(&s, &failure), 0);
    assert_true(id_of_pinned("sockets") != former);
    assert_int_equal(stat(entry("sockets"), &st), 0);
    assert_int_equal(st.st_uid, UID);
    assert_int_equal(access(entry("sockets_new"), F_OK), -1);
    bpf_state_close(&s);
    create_pins();
}

static void larger_meta_of_a_stranger_does_not_overflow(void **state)
{
    LIBBPF_OPTS(bpf_map_create_opts, mmapable, .map_flags = BPF_F_MMAPABLE);
    int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "meta", 4, 4096, 1, &mmapable);

    (void) state;
    assert_true(fd >= 0);
    assert_int_equal(mkdir(pins.dir, 0700), 0);
    assert_int_equal(bpf_obj_pin(fd, entry("meta")), 0);
    close(fd);
    assert_refused(-EINVAL, "meta is not the map");
}

static void squatters_are_refused_and_left_alone(void **state)
{
    struct stat st;

    (void) state;
    assert_int_equal(symlink("/sys/fs/bpf", pins.dir), 0);
    assert_refused(-ENOTDIR, "remove it");
    assert_int_equal(lstat(pins.dir, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_int_equal(unlink(pins.dir), 0);

    assert_int_equal(mkdir(pins.dir, 0700), 0);
    assert_int_equal(chown(pins.dir, UID + 1, 0), 0);
    assert_refused(-EPERM, "belongs to uid 54322");
    assert_int_equal(chown(pins.dir, UID, 0), 0);
    assert_int_equal(chmod(pins.dir, 0777), 0);
    assert_refused(-EPERM, "writable by others");
    assert_int_equal(rmdir(pins.dir), 0);

    assert_int_equal(mkdir(pins.stage, 0700), 0);
    assert_int_equal(chown(pins.stage, UID + 1, 0), 0);
    assert_refused(-EPERM, "-new belongs to uid 54322");
}

static void empty_directory_and_half_made_stage_are_taken_over(void **state)
{
    int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "meta", 4, 8, 1, NULL);
    char path[256];

    (void) state;
    assert_true(fd >= 0);
    assert_int_equal(mkdir(pins.dir, 0700), 0);
    assert_int_equal(mkdir(pins.stage, 0700), 0);
    snprintf(path, sizeof(path), "%s/meta", pins.stage);
    assert_int_equal(bpf_obj_pin(fd, path), 0);
    close(fd);
    create_pins();
    assert_int_equal(access(pins.stage, F_OK), -1);
}

/* Another start has the stage and puts it in place while this one waits for its lock. */
static void stage_that_became_the_pins_meanwhile_is_adopted(void **state)
{
    struct bpf_state s;
    int ready[2], status;
    char byte;
    pid_t pid;

    (void) state;
    assert_int_equal(pipe(ready), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        char event[sizeof(struct inotify_event) + NAME_MAX + 1];
        int watch = inotify_init1(IN_CLOEXEC);
        struct failure failure;

        if (open_as(&s, &failure, UID) < 0 || rename(pins.dir, pins.stage) < 0 ||
            inotify_add_watch(watch, pins.stage, IN_OPEN) < 0 || write(ready[1], "", 1) != 1 ||
            read(watch, event, sizeof(event)) <= 0 || rename(pins.stage, pins.dir) < 0)
            _exit(1);
        s.counters[7].unanswered = 42;
        _exit(0);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    s = open_pins();
    assert_true(s.adopted);
    assert_int_equal(s.counters[7].unanswered, 42);
    bpf_state_close(&s);
    close(ready[0]);
    close(ready[1]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(access(pins.stage, F_OK), -1);
}

static void place_that_is_no_bpffs_is_refused_with_the_remedy(void **state)
{
    struct pins saved = pins;

    (void) state;
    strcpy(pins.dir, "/tmp/durpina-no-bpffs");
    assert_refused(-EINVAL, "mount -t bpf");
    strcpy(pins.dir, "/sys/fs/bpf/with.dot");
    assert_refused(-EINVAL, "without a dot");
    strcpy(pins.dir, "relative");
    assert_refused(-EINVAL, "absolute");
    strcpy(pins.dir, "/sys/fs/bpf/none/none");
    assert_refused(-ENOENT, "parent");
    pins = saved;
}

static void missing_privilege_is_said(void **state)
{
    int status;
    pid_t pid;

    (void) state;
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct bpf_state s;
        struct failure failure;

        if (setgid(UID) < 0 || setuid(UID) < 0)
            _exit(2);
        _exit(open_as(&s, &failure, UID) < 0 && strstr(failure.text, "no privilege") != NULL ? 0
                                                                                             : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(access(pins.dir, F_OK), -1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(new_pins_are_mapped_named_and_given_to_the_user),
        TEST(pins_are_adopted_with_what_they_hold),
        TEST(pinned_capacity_wins),
        TEST(capacity_of_nothing_is_refused),
        TEST(second_controller_is_refused_with_the_pid_of_the_first),
        TEST(other_layout_and_version_are_refused),
        TEST(pin_that_is_another_map_or_none_is_named),
        TEST(hash_of_the_right_sizes_is_no_ring_and_none_of_other_keys_is_taken),
        TEST(renewed_sockets_are_another_map_in_the_same_place),
        TEST(larger_meta_of_a_stranger_does_not_overflow),
        TEST(squatters_are_refused_and_left_alone),
        TEST(empty_directory_and_half_made_stage_are_taken_over),
        TEST(stage_that_became_the_pins_meanwhile_is_adopted),
        TEST(place_that_is_no_bpffs_is_refused_with_the_remedy),
        TEST(missing_privilege_is_said),
    };

    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
