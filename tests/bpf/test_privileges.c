/* SPDX-License-Identifier: MIT */
/* Needs root: it gives it up, in child processes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "privileges.h"

#include <cmocka.h>

static char dir[64];
static struct privileges_user nobody;

static int make_dir(void **state)
{
    (void) state;
    strcpy(dir, "/tmp/durpina-privileges.XXXXXX");
    return mkdtemp(dir) == NULL || chmod(dir, 0755) < 0 ||
           privileges_find_user("nobody", &nobody) < 0;
}

static int remove_dir(void **state)
{
    static const char *const made[] = {"a/b/state.json", "a/b", "a",          "other",
                                       "own/state.json", "own", "closed/own", "closed/other",
                                       "closed"};
    char path[128];

    (void) state;
    for (size_t i = 0; i < sizeof(made) / sizeof(made[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, made[i]);
        remove(path);
    }
    return rmdir(dir);
}

static char *in_dir(const char *name)
{
    static char path[128];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static uid_t owner(const char *name)
{
    struct stat st;

    assert_int_equal(lstat(in_dir(name), &st), 0);
    return st.st_uid;
}

static void make_file(const char *name)
{
    int fd = open(in_dir(name), O_CREAT | O_WRONLY, 0600);

    assert_true(fd >= 0);
    close(fd);
}

static void users_are_found_by_name_and_number(void **state)
{
    struct privileges_user user;
    char number[16];

    (void) state;
    snprintf(number, sizeof(number), "%u", (unsigned) nobody.uid);
    assert_int_equal(privileges_find_user(number, &user), 0);
    assert_string_equal(user.name, "nobody");
    assert_int_equal(privileges_find_user(NULL, &user), 0);
    assert_int_equal(privileges_find_user("root", &user), -EPERM);
    assert_int_equal(privileges_find_user("0", &user), -EPERM);
    assert_int_equal(privileges_find_user("no-such-user", &user), -ENOENT);
    assert_int_equal(privileges_find_user("-1", &user), -ENOENT);
    assert_int_equal(privileges_find_user("4294967295", &user), -ENOENT);
}

static void missing_directories_are_created_and_the_last_one_given(void **state)
{
    (void) state;
    assert_int_equal(privileges_prepare_parent(in_dir("a/b/state.json"), 0750, &nobody), 0);
    assert_int_equal(owner("a"), 0);
    assert_int_equal(owner("a/b"), nobody.uid);
    assert_true(privileges_can_replace(in_dir("a/b/state.json"), &nobody));
}

static void a_directory_of_others_is_left_alone(void **state)
{
    (void) state;
    make_file("other");
    assert_int_equal(privileges_prepare_parent(in_dir("state.json"), 0750, &nobody), 0);
    assert_int_equal(owner("."), 0);
    assert_int_equal(owner("other"), 0);
    assert_false(privileges_can_replace(in_dir("state.json"), &nobody));
    assert_int_equal(geteuid(), 0);
}

static void what_lies_above_the_directory_may_be_closed_to_the_user(void **state)
{
    (void) state;
    assert_int_equal(mkdir(in_dir("closed"), 0700), 0);
    assert_int_equal(privileges_prepare_parent(in_dir("closed/own/state.json"), 0750, &nobody), 0);
    assert_true(privileges_can_replace(in_dir("closed/own/state.json"), &nobody));
    make_file("closed/other");
    assert_false(privileges_can_replace(in_dir("closed/state.json"), &nobody));
}

static void a_directory_with_nothing_but_the_file_is_taken_over(void **state)
{
    (void) state;
    assert_int_equal(mkdir(in_dir("own"), 0755), 0);
    make_file("own/state.json");
    assert_int_equal(privileges_prepare_parent(in_dir("own/state.json"), 0750, &nobody), 0);
    assert_int_equal(owner("own"), nobody.uid);
    assert_int_equal(owner("own/state.json"), nobody.uid);
}

static void a_link_in_the_place_of_the_file_gives_nothing_away(void **state)
{
    (void) state;
    make_file("other");
    assert_int_equal(mkdir(in_dir("own"), 0755), 0);
    assert_int_equal(symlink("../other", in_dir("own/state.json")), 0);
    assert_int_equal(privileges_prepare_parent(in_dir("own/state.json"), 0750, &nobody), 0);
    assert_int_equal(owner("other"), 0);
}

static void a_directory_that_others_may_write_to_is_not_taken_over(void **state)
{
    (void) state;
    assert_int_equal(mkdir(in_dir("own"), 0700), 0);
    assert_int_equal(chmod(in_dir("own"), 0777), 0);
    assert_int_equal(privileges_prepare_parent(in_dir("own/state.json"), 0750, &nobody), 0);
    assert_int_equal(owner("own"), 0);
}

static bool status_has(const char *line)
{
    char text[8192] = "";
    FILE *in = fopen("/proc/self/status", "r");
    size_t n = in == NULL ? 0 : fread(text, 1, sizeof(text) - 1, in);

    return n > 0 && strstr(text, line) != NULL;
}

/* In a child: 0 if nothing of root is left. */
static int drop_and_look(void)
{
    if (privileges_drop(&nobody) < 0)
        return 1;
    if (getuid() != nobody.uid || geteuid() != nobody.uid || getgid() != nobody.gid)
        return 2;
    if (getgroups(0, NULL) != 0 || setuid(0) == 0 || setgid(0) == 0)
        return 3;
    if (!status_has("\nCapPrm:\t0000000000000000\n") ||
        !status_has("\nCapInh:\t0000000000000000\n") ||
        !status_has("\nCapAmb:\t0000000000000000\n") || !status_has("\nNoNewPrivs:\t1\n"))
        return 4;
    return open("/etc/shadow", O_RDONLY) >= 0 ? 5 : 0;
}

static void nothing_of_root_is_left(void **state)
{
    pid_t pid = fork();
    int status;

    (void) state;
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(drop_and_look());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

#define IN_DIR(test) cmocka_unit_test_setup_teardown(test, make_dir, remove_dir)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_DIR(users_are_found_by_name_and_number),
        IN_DIR(missing_directories_are_created_and_the_last_one_given),
        IN_DIR(a_directory_of_others_is_left_alone),
        IN_DIR(what_lies_above_the_directory_may_be_closed_to_the_user),
        IN_DIR(a_directory_with_nothing_but_the_file_is_taken_over),
        IN_DIR(a_link_in_the_place_of_the_file_gives_nothing_away),
        IN_DIR(a_directory_that_others_may_write_to_is_not_taken_over),
        IN_DIR(nothing_of_root_is_left),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
