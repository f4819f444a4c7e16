/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "state_file.h"

#include <cmocka.h> /* last: its macro fail() hides the function of failure.h */

static struct {
    char dir[32], path[64];
    struct state_file *file;
    struct failure failure;
} scene;

static int set_up(void **state)
{
    (void) state;
    strcpy(scene.dir, "/tmp/durpina-state-XXXXXX");
    assert_non_null(mkdtemp(scene.dir));
    snprintf(scene.path, sizeof(scene.path), "%s/state.json", scene.dir);
    assert_int_equal(state_file_open(scene.path, &scene.file, &scene.failure), 0);
    return 0;
}

static const char *path_of(const char *suffix)
{
    static char path[96];

    snprintf(path, sizeof(path), "%s%s", scene.path, suffix);
    return path;
}

static int tear_down(void **state)
{
    (void) state;
    state_file_close(scene.file);
    unlink(path_of(""));
    unlink(path_of(".damaged"));
    rmdir(path_of(".new")); /* a test makes it */
    assert_int_equal(rmdir(scene.dir), 0);
    return 0;
}

static int write_text(const char *text, uint64_t order)
{
    return state_file_write(scene.file, text, strlen(text), order);
}

static json_int_t load_value(void)
{
    json_int_t value;
    json_t *json;

    assert_int_equal(state_file_load(scene.file, &json, &scene.failure), 0);
    value = json_integer_value(json_object_get(json, "value"));
    json_decref(json);
    return value;
}

static void what_is_written_is_loaded_and_is_for_its_user_only(void **state)
{
    struct stat st;
    json_t *json;

    (void) state;
    assert_int_equal(state_file_load(scene.file, &json, &scene.failure), -ENOENT);
    assert_int_equal(write_text("{\"value\": 1}", 1), 0);
    assert_int_equal(load_value(), 1);
    assert_int_equal(stat(scene.path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(access(path_of(".new"), F_OK), -1);
}

static void older_state_does_not_replace_a_newer_one(void **state)
{
    (void) state;
    assert_int_equal(write_text("{\"value\": 2}", 2), 0);
    assert_int_equal(write_text("{\"value\": 1}", 1), 0);
    assert_int_equal(load_value(), 2);
}

static void failed_write_leaves_the_old_state(void **state)
{
    (void) state;
    assert_int_equal(write_text("{\"value\": 1}", 1), 0);
    assert_int_equal(mkdir(path_of(".new"), 0700), 0);
    assert_int_equal(write_text("{\"value\": 2}", 2), -EISDIR);
    assert_int_equal(load_value(), 1);
    assert_int_equal(rmdir(path_of(".new")), 0);
    assert_int_equal(write_text("{\"value\": 2}", 2),
                     0); /* the same order, since it has not been */
    assert_int_equal(load_value(), 2);
}

static void damaged_file_names_its_line_and_is_set_aside(void **state)
{
    json_t *json;

    (void) state;
    assert_int_equal(write_text("{\"value\":\n 1, \"value\": 2}", 1), 0);
    assert_int_equal(state_file_load(scene.file, &json, &scene.failure), -EINVAL);
    assert_non_null(strstr(scene.failure.text, "state.json:2:"));
    assert_int_equal(state_file_set_aside(scene.file), 0);
    assert_int_equal(access(path_of(".damaged"), F_OK), 0);
    assert_int_equal(state_file_load(scene.file, &json, &scene.failure), -ENOENT);
}

static void one_process_has_it_at_a_time(void **state)
{
    char holder[32];
    int status;

    (void) state;
    assert_int_equal(state_file_lock(scene.file, &scene.failure), 0);
    snprintf(holder, sizeof(holder), "pid %d:", (int) getpid());
    pid_t child = fork();
    if (child == 0) {
        struct state_file *file;

        _exit(state_file_open(scene.path, &file, &scene.failure) != 0 ||
              state_file_lock(file, &scene.failure) != -EBUSY ||
              strstr(scene.failure.text, holder) == NULL);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(unlink(path_of(".lock")), 0);
}

static void missing_directory_is_named(void **state)
{
    struct state_file *file;

    (void) state;
    assert_int_equal(state_file_open("/nonexistent/state.json", &file, &scene.failure), -ENOENT);
    assert_non_null(strstr(scene.failure.text, "/nonexistent/state.json"));
}

static void *write_many(void *arg)
{
    for (uint64_t order = *(uint64_t *) arg; order <= 200; order += 2) {
        char text[64];

        snprintf(text, sizeof(text), "{\"value\": %d}", (int) order);
        if (write_text(text, order) < 0)
            return arg;
    }
    return NULL;
}

static void two_threads_that_write_end_with_the_newest(void **state)
{
    uint64_t first[2] = {1, 2};
    pthread_t threads[2];
    void *failed;

    (void) state;
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_many, &first[i]), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    assert_int_equal(load_value(), 200);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_written_is_loaded_and_is_for_its_user_only),
        TEST(older_state_does_not_replace_a_newer_one),
        TEST(failed_write_leaves_the_old_state),
        TEST(damaged_file_names_its_line_and_is_set_aside),
        TEST(one_process_has_it_at_a_time),
        TEST(missing_directory_is_named),
        TEST(two_threads_that_write_end_with_the_newest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
