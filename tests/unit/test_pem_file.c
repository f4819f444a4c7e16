/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pem_file.h"

#include <cmocka.h>

#define BEGIN "-----BEGIN CERTIFICATE-----\n"

static char path[] = "/tmp/test_pem_file.XXXXXX";

static int path_make(void **state)
{
    int fd = mkstemp(path);

    (void) state;
    return fd < 0 ? -1 : close(fd);
}

static int path_remove(void **state)
{
    (void) state;
    return unlink(path);
}

/* `size` bytes of it, with a PEM block at the end. */
static void file_write(size_t size)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    for (size_t i = strlen(BEGIN); i < size; i++)
        fputc('#', file);
    fputs(BEGIN, file);
    assert_int_equal(fclose(file), 0);
}

static const char *fault(void)
{
    char *text = NULL;
    size_t size;
    const char *words = pem_file_read(path, &text, &size);

    free(text);
    return words;
}

static void file_is_read_whole_up_to_its_limit(void **state)
{
    char *text;
    size_t size;

    (void) state;
    file_write(strlen(BEGIN));
    assert_null(pem_file_read(path, &text, &size));
    assert_int_equal(size, strlen(BEGIN));
    assert_memory_equal(text, BEGIN, size);
    free(text);

    file_write(PEM_FILE_MAX);
    assert_null(pem_file_read(path, &text, &size));
    assert_int_equal(size, PEM_FILE_MAX);
    free(text);
    file_write(PEM_FILE_MAX + 1);
    assert_string_equal(fault(), "too long a file");
}

static void other_files_are_refused_without_waiting(void **state)
{
    (void) state;
    assert_int_equal(truncate(path, 0), 0);
    assert_string_equal(fault(), "no PEM file");
    assert_int_equal(unlink(path), 0);
    assert_string_equal(fault(), "No such file or directory");
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_string_equal(fault(), "no regular file");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(file_is_read_whole_up_to_its_limit),
        cmocka_unit_test(other_files_are_refused_without_waiting),
    };

    return cmocka_run_group_tests(tests, path_make, path_remove);
}
