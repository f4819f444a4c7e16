/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <signal.h>
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(running_process_does_not_end),
        cmocka_unit_test(killed_process_ends_even_if_nobody_has_waited_for_it),
        cmocka_unit_test(process_that_is_not_there_has_ended),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
