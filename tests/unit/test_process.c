/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "process.h"

#include <cmocka.h>

static pid_t start_waiting_child(void)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0)
        for (;;)
            pause();
    return pid;
}

static void running_process_does_not_end(void **state)
{
    pid_t pid = start_waiting_child();

    (void) state;
    assert_false(process_ends(pid, 20));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void killed_process_ends_even_if_nobody_has_waited_for_it(void **state)
{
    pid_t pid = start_waiting_child();

    (void) state;
    kill(pid, SIGKILL);
    assert_true(process_ends(pid, PROCESS_GRACE_MS));
    waitpid(pid, NULL, 0);
}

static void process_that_is_not_there_has_ended(void **state)
{
    pid_t pid = start_waiting_child();

    (void) state;
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    assert_true(process_ends(pid, 0));
}

static void process_is_known_by_its_start(void **state)
{
    pid_t pid = start_waiting_child();
    uint32_t mine = 0, started = 0;

    (void) state;
    assert_int_equal(process_started(getpid(), &mine), 0);
    assert_int_equal(process_started(pid, &started), 0);
    assert_true(started >= mine);
    assert_false(process_is_gone(pid, started));
    assert_true(process_is_gone(pid, started + 1));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void stopped_process_is_not_gone(void **state)
{
    pid_t pid = start_waiting_child();
    uint32_t started = 0;

    (void) state;
    kill(pid, SIGSTOP);
    assert_int_equal(waitpid(pid, NULL, WUNTRACED), pid);
    assert_int_equal(process_started(pid, &started), 0);
    assert_false(process_is_gone(pid, started));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void process_that_nobody_has_waited_for_is_gone(void **state)
{
    pid_t pid = start_waiting_child();
    uint32_t started = 0, unchanged = 42;

    (void) state;
    assert_int_equal(process_started(pid, &started), 0);
    kill(pid, SIGKILL);
    assert_true(process_ends(pid, PROCESS_GRACE_MS));
    assert_int_equal(process_started(pid, &unchanged), -ESRCH);
    assert_true(process_is_gone(pid, started));
    waitpid(pid, NULL, 0);
    assert_int_equal(process_started(pid, &unchanged), -ESRCH);
    assert_true(process_is_gone(pid, started));
    assert_int_equal(unchanged, 42);
}

static void name_of_a_process_does_not_disturb(void **state)
{
    static const char *const names[] = {"a b", ")", ") Z 1 (", "((", "a\nb) X 1"};
    uint32_t wanted = 0, started = 0;
    char before[16];

    (void) state;
    assert_int_equal(process_started(getpid(), &wanted), 0);
    assert_int_equal(prctl(PR_GET_NAME, before), 0);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        assert_int_equal(prctl(PR_SET_NAME, names[i]), 0);
        assert_int_equal(process_started(getpid(), &started), 0);
        assert_int_equal(started, wanted);
    }
    assert_int_equal(prctl(PR_SET_NAME, before), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(running_process_does_not_end),
        cmocka_unit_test(killed_process_ends_even_if_nobody_has_waited_for_it),
        cmocka_unit_test(process_that_is_not_there_has_ended),
        cmocka_unit_test(process_is_known_by_its_start),
        cmocka_unit_test(stopped_process_is_not_gone),
        cmocka_unit_test(process_that_nobody_has_waited_for_is_gone),
        cmocka_unit_test(name_of_a_process_does_not_disturb),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
