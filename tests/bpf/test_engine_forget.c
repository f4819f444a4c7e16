/* SPDX-License-Identifier: MIT */
/* The engine: nginx instances that have ended. */
#include "engine_scene.h"

#include <fcntl.h>
#include <sys/stat.h>

static bool is_known(const char *instance)
{
    return model_instance(engine_model(scene.engine), instance) != NULL;
}

/* The pid of a process that has ended. */
static uint32_t dead_pid(void)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0)
        _exit(0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    return (uint32_t) pid;
}

static void introduce_gone(const char *const *lines)
{
    scene.nginx_pid = dead_pid();
    OK(introduce_as("gone", "foo", true, lines));
    scene.nginx_pid = 1;
}

static void what_both_nginx_name_stays_as_it_was(void **state)
{
    uint32_t id;
    bool created;

    (void) state;
    introduce_gone(LINES("10.0.0.1 weight=5", "10.0.0.2"));
    OK(change("foo", "10.0.0.1:80", weight(9)));
    OK(add_monitor("m", "tcp", "{\"interval\": 3600}", &created));
    id = server("foo", "10.0.0.1:80")->peers[0]->id;
    OK(introduce_as("next", "foo", true, LINES("10.0.0.1 weight=5", "10.0.0.3")));
    assert_false(is_known("gone"));
    assert_null(server("foo", "10.0.0.2:80"));
    assert_int_equal(server("foo", "10.0.0.1:80")->peers[0]->id, id);
    assert_int_equal(server("foo", "10.0.0.1:80")->n_instances, 1);
    assert_int_equal(published_of("foo", "10.0.0.1:80").weight, 9);
    assert_int_equal(upstream("foo")->n_monitors, 1);
}

static void introduction_that_is_refused_forgets_nobody(void **state)
{
    char text[65][16];
    const char *lines[66] = {NULL};

    (void) state;
    introduce_gone(LINES("10.0.0.1 weight=5"));
    OK(change("foo", "10.0.0.1:80", weight(9)));
    for (int i = 0; i < 65; i++) {
        snprintf(text[i], sizeof(text[i]), "10.1.0.%d", i);
        lines[i] = text[i];
    }
    assert_refused(introduce_as("next", "foo", true, lines), 409, "UpstreamOutOfMemory");
    assert_true(is_known("gone"));
    assert_int_equal(published_of("foo", "10.0.0.1:80").weight, 9);
}

static void upstream_that_was_not_taken_forgets_nobody(void **state)
{
    (void) state;
    introduce_gone(LINES("10.0.0.1"));
    OK(introduce_as("next", "foo", false, LINES("10.0.0.2")));
    assert_true(is_known("gone"));
    assert_non_null(server("foo", "10.0.0.1:80"));
}

static void write_pid(const char *path, uint32_t pid)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    fprintf(file, "%u\n", pid);
    fclose(file);
}

static void pid_file_tells_of_an_nginx_that_gave_no_pid(void **state)
{
    char path[128];

    (void) state;
    snprintf(path, sizeof(path), "%s/nginx.pid", scene.state_dir);
    scene.nginx_pid = 0;
    OK(introduce_as(path, "foo", true, LINES("10.0.0.1")));
    scene.nginx_pid = 1;
    OK(introduce("foo", "10.0.0.2"));
    assert_true(is_known(path)); /* has not come to write it */

    write_pid(path, (uint32_t) getpid());
    OK(introduce("foo", "10.0.0.2"));
    assert_true(is_known(path));

    write_pid(path, dead_pid());
    OK(introduce("foo", "10.0.0.2"));
    assert_false(is_known(path));
    assert_null(server("foo", "10.0.0.1:80"));
}

static void name_that_is_no_pid_file_leaves_the_doubt_and_does_not_block(void **state)
{
    char path[128];

    (void) state;
    snprintf(path, sizeof(path), "%s/nginx.pid", scene.state_dir);
    scene.nginx_pid = 0;
    OK(introduce_as(path, "foo", true, LINES("10.0.0.1")));
    scene.nginx_pid = 1;
    assert_int_equal(mkfifo(path, 0600), 0);
    alarm(PATIENCE_MS / 1000); /* a FIFO that nobody writes */
    OK(introduce("foo", "10.0.0.2"));
    alarm(0);
    assert_true(is_known(path));

    assert_int_equal(unlink(path), 0);
    write_pid(path, 0);
    OK(introduce("foo", "10.0.0.2"));
    assert_true(is_known(path));
}

static void forgetting_by_name_takes_what_only_its_files_named(void **state)
{
    (void) state;
    OK(introduce_as("a", "foo", true, LINES("10.0.0.1", "10.0.0.2")));
    OK(introduce_as("b", "foo", true, LINES("10.0.0.2")));
    OK(engine_forget_nginx(scene.engine, "a", &scene.failure));
    assert_int_equal(n_servers("foo"), 1);
    assert_refused(engine_forget_nginx(scene.engine, "a", &scene.failure), 404, "PathNotFound");
    OK(engine_forget_nginx(scene.engine, "b", &scene.failure));
    assert_null(upstream("foo"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_both_nginx_name_stays_as_it_was),
        TEST(introduction_that_is_refused_forgets_nobody),
        TEST(upstream_that_was_not_taken_forgets_nobody),
        TEST(pid_file_tells_of_an_nginx_that_gave_no_pid),
        TEST(name_that_is_no_pid_file_leaves_the_doubt_and_does_not_block),
        TEST(forgetting_by_name_takes_what_only_its_files_named),
    };

    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
