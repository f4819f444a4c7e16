/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"

#include <cmocka.h>

/* stderr is this pipe while a test runs. */
static int pipe_fds[2];
static int saved_stderr;
static char text[8192];

static int redirect(void **state)
{
    (void) state;
    unsetenv("JOURNAL_STREAM");
    log_set_level(LOG_LEVEL_INFO);
    saved_stderr = dup(STDERR_FILENO);
    return pipe(pipe_fds) < 0 || dup2(pipe_fds[1], STDERR_FILENO) < 0;
}

static int restore(void **state)
{
    (void) state;
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    return 0;
}

/* What was logged; a word that nobody logs ends it, so that reading never waits. */
static const char *logged(void)
{
    ssize_t n;

    assert_int_equal(write(pipe_fds[1], "$", 1), 1);
    n = read(pipe_fds[0], text, sizeof(text) - 1);
    assert_true(n > 0);
    text[n - 1] = '\0';
    return text;
}

static void a_record_has_a_time_and_its_level_in_words(void **state)
{
    int year, ms;
    char word[16];

    (void) state;
    log_warn("peer %s is %s", "a:80", "down");
    assert_int_equal(sscanf(logged(), "%d-%*d-%*dT%*d:%*d:%*d.%dZ %15[a-z]: ", &year, &ms, word),
                     3);
    assert_string_equal(word, "warn");
    assert_string_equal(strstr(text, "warn"), "warn: peer a:80 is down\n");
}

static void records_below_the_level_are_left_out(void **state)
{
    (void) state;
    log_debug("unheard");
    log_info("heard");
    log_set_level(LOG_LEVEL_ERROR);
    log_warn("unheard");
    log_error("heard too");
    assert_null(strstr(logged(), "unheard"));
    assert_non_null(strstr(text, "info: heard\n"));
    assert_non_null(strstr(text, "error: heard too\n"));
}

static void a_value_cannot_make_a_second_record(void **state)
{
    (void) state;
    log_info("name %s", "a\nerror: b\r\x1b[1m\x7f");
    assert_non_null(strstr(logged(), "name a\\x0aerror: b\\x0d\\x1b[1m\\x7f\n"));
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
}

static void a_long_record_is_cut_and_stays_one(void **state)
{
    static char value[3000];

    (void) state;
    memset(value, 1, sizeof(value) - 1);
    log_info("%s", value);
    logged();
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
    assert_in_range(strlen(text), 4 * 1000, 4 * 1024 + 64);
}

static void the_journal_gets_priorities(void **state)
{
    char stream[64];
    struct stat st;

    (void) state;
    assert_int_equal(fstat(STDERR_FILENO, &st), 0);
    snprintf(stream, sizeof(stream), "%llu:%llu", (unsigned long long) st.st_dev,
             (unsigned long long) st.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
    log_error("a");
    log_notice("b");
    assert_string_equal(logged(), "<3>a\n<5>b\n");
    setenv("JOURNAL_STREAM", "1:1", 1);
    log_error("c");
    assert_non_null(strstr(logged(), "Z error: c\n"));
}

static void errno_is_kept(void **state)
{
    (void) state;
    close(STDERR_FILENO);
    errno = ENOENT;
    log_error("nobody hears this");
    assert_int_equal(errno, ENOENT);
}

static void what_comes_too_often_is_counted(void **state)
{
    struct log_throttle throttle = {0};
    char skipped[LOG_SKIPPED_SIZE];

    (void) state;
    assert_true(log_throttle(&throttle, 5000, 1000, skipped));
    assert_string_equal(skipped, "");
    assert_false(log_throttle(&throttle, 5000, 1000, skipped));
    assert_false(log_throttle(&throttle, 5999, 1000, skipped));
    assert_true(log_throttle(&throttle, 6000, 1000, skipped));
    assert_string_equal(skipped, " (and 2 more before that)");
    assert_true(log_throttle(&throttle, 7000, 1000, skipped));
    assert_string_equal(skipped, "");
}

static void levels_are_words(void **state)
{
    enum log_level level = LOG_LEVEL_ERROR;

    (void) state;
    assert_int_equal(log_level_parse("debug", &level), 0);
    assert_int_equal(level, LOG_LEVEL_DEBUG);
    assert_int_equal(log_level_parse("Debug", &level), -EINVAL);
    assert_int_equal(log_level_parse("", &level), -EINVAL);
    assert_int_equal(level, LOG_LEVEL_DEBUG);
}

#define CAPTURED(test) cmocka_unit_test_setup_teardown(test, redirect, restore)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CAPTURED(a_record_has_a_time_and_its_level_in_words),
        CAPTURED(records_below_the_level_are_left_out),
        CAPTURED(a_value_cannot_make_a_second_record),
        CAPTURED(a_long_record_is_cut_and_stays_one),
        CAPTURED(the_journal_gets_priorities),
        CAPTURED(errno_is_kept),
        cmocka_unit_test(what_comes_too_often_is_counted),
        cmocka_unit_test(levels_are_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
