/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "cgroup.h"

#include <cmocka.h>

#define PROC "22 27 0:20 / /proc rw,nosuid shared:13 - proc proc rw\n"
#define V1 "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
#define V2                                                                                         \
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:4 master:1 - cgroup2 cgroup2 rw\n"
#define PART "50 31 0:38 /user.slice /mnt/part rw - cgroup2 cgroup2 rw\n"

static char path[PATH_MAX];

static void assert_found(const char *mountinfo, const char *expected)
{
    assert_int_equal(cgroup_find_root(mountinfo, path, sizeof(path)), 0);
    assert_string_equal(path, expected);
}

static void the_root_is_found_beside_the_old_hierarchies(void **state)
{
    (void) state;
    assert_found(PROC V1 V2, "/sys/fs/cgroup/unified");
    assert_found("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n" PROC,
                 "/sys/fs/cgroup");
    assert_found("30 23 0:26 / /c rw - cgroup2 cgroup2 rw", "/c"); /* no line end */
}

static void a_mount_of_the_whole_tree_goes_before_one_of_a_part(void **state)
{
    (void) state;
    assert_found(PART V2, "/sys/fs/cgroup/unified");
    assert_found(V2 PART, "/sys/fs/cgroup/unified");
    assert_found(V1 PART, "/mnt/part");
    assert_found(V2 "60 31 0:38 / /later rw - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup/unified");
}

static void escaped_bytes_of_a_mount_point_are_taken_for_what_they_are(void **state)
{
    (void) state;
    assert_found("41 31 0:38 / /a\\040b\\011c\\134d\\012e rw - cgroup2 cgroup2 rw\n",
                 "/a b\tc\\d\ne");
    assert_found("41 31 0:38 / /a\\04 rw - cgroup2 cgroup2 rw\n", "/a\\04");
    assert_found("41 31 0:38 / /a\\999 rw - cgroup2 cgroup2 rw\n", "/a\\999");
}

static void words_that_look_like_a_cgroup2_are_none(void **state)
{
    (void) state;
    strcpy(path, "untouched");
    assert_int_equal(cgroup_find_root("", path, sizeof(path)), -ENOENT);
    assert_int_equal(cgroup_find_root(PROC V1, path, sizeof(path)), -ENOENT);
    assert_int_equal(cgroup_find_root("41 31 0:38 / /cgroup2 rw - tmpfs cgroup2 rw\n", path,
                                      sizeof(path)),
                     -ENOENT);
    assert_int_equal(cgroup_find_root("41 31 0:38 / /x rw - cgroup2x cgroup2 rw\n", path,
                                      sizeof(path)),
                     -ENOENT);
    assert_int_equal(cgroup_find_root("41\n31 - cgroup\n - \n\n", path, sizeof(path)), -ENOENT);
    /* A line that breaks off does not borrow from the next one. */
    assert_int_equal(cgroup_find_root("41 31 0:38 / /x rw -\ncgroup2 a b c d - e f\n", path,
                                      sizeof(path)),
                     -ENOENT);
    assert_string_equal(path, "untouched");
}

static void path_that_does_not_fit_is_not_cut(void **state)
{
    static const char line[] = "41 31 0:38 / /123456 rw - cgroup2 cgroup2 rw\n";

    (void) state;
    strcpy(path, "untouched");
    assert_int_equal(cgroup_find_root(line, path, 7), -ENAMETOOLONG);
    assert_string_equal(path, "untouched");
    assert_int_equal(cgroup_find_root(line, path, 8), 0);
    assert_string_equal(path, "/123456");
}

static void directory_that_is_no_cgroup2_is_named_with_the_option(void **state)
{
    static const struct {
        const char *path, *say;
        int err;
    } bad[] = {
        {"/nonexistent/cgroup", "cgroup /nonexistent/cgroup: No such file", -ENOENT},
        {"/proc/self/status", "/proc/self/status: Not a directory", -ENOTDIR},
        {"/tmp", "cgroup /tmp is not on a cgroup2", -EINVAL},
    };
    char error[CGROUP_ERROR_SIZE];
    uint64_t id;
    int fd = 77;

    (void) state;
    strcpy(path, "untouched");
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(cgroup_open(bad[i].path, &fd, &id, path, sizeof(path), error), bad[i].err);
        assert_non_null(strstr(error, bad[i].say));
        assert_non_null(strstr(error, "--cgroup"));
    }
    assert_int_equal(fd, 77);
    assert_string_equal(path, "untouched");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_root_is_found_beside_the_old_hierarchies),
        cmocka_unit_test(a_mount_of_the_whole_tree_goes_before_one_of_a_part),
        cmocka_unit_test(escaped_bytes_of_a_mount_point_are_taken_for_what_they_are),
        cmocka_unit_test(words_that_look_like_a_cgroup2_are_none),
        cmocka_unit_test(path_that_does_not_fit_is_not_cut),
        cmocka_unit_test(directory_that_is_no_cgroup2_is_named_with_the_option),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
