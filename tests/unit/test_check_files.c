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

#include "check_files.h"

#include <cmocka.h> /* last: its macro fail() hides the function of failure.h */

static char directory[] = "/tmp/test_check_files.XXXXXX";

static int directory_make(void **state)
{
    (void) state;
    return mkdtemp(directory) != NULL ? 0 : -1;
}

static int directory_remove(void **state)
{
    (void) state;
    return rmdir(directory);
}

static void path_of(const char *name, char *buffer, size_t size)
{
    snprintf(buffer, size, "%s/%s", directory, name);
}

static void file_write(const char *name, const char *text)
{
    char path[64];
    FILE *file;

    path_of(name, path, sizeof(path));
    file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void file_remove(const char *name)
{
    char path[64];

    path_of(name, path, sizeof(path));
    assert_int_equal(unlink(path), 0);
}

/* What a check with this file as `option` is refused for; "" if it is not. */
static const char *refusal(const char *type, const char *option, const char *name)
{
    static struct failure failure;
    struct check *check;
    char path[64];
    json_t *options;

    path_of(name, path, sizeof(path));
    options = json_pack("{sbss}", "tls", true, option, path);
    if (strcmp(option, "tls_key") == 0)
        json_object_set_new(options, "tls_cert", json_sprintf("%s/good", directory));
    assert_int_equal(check_parse(type, options, &check, &failure), 0);
    json_decref(options);
    failure.text[0] = '\0';
    if (check_files(check, &failure) < 0) {
        assert_int_equal(failure.status, 400);
        assert_string_equal(failure.code, "MonitorBadOptions");
        assert_non_null(strstr(failure.text, option));
        assert_non_null(strstr(failure.text, path));
    }
    check_free(check);
    return failure.text;
}

static void pem_files_that_can_be_read_are_accepted(void **state)
{
    static const char *const options[] = {"tls_ca", "tls_cert", "tls_key"};
    static const char *const types[] = {"http", "grpc", "http-haproxy-agent-check"};

    (void) state;
    file_write("good", "my own\n-----BEGIN CERTIFICATE-----\n");
    for (size_t i = 0; i < 9; i++)
        assert_string_equal(refusal(types[i / 3], options[i % 3], "good"), "");
    file_remove("good");
}

static void other_files_are_refused_with_path_and_reason(void **state)
{
    char path[64];

    (void) state;
    assert_non_null(strstr(refusal("http", "tls_ca", "absent"), "No such file or directory"));
    assert_non_null(strstr(refusal("grpc", "tls_cert", "."), "no regular file"));

    file_write("good", "-----BEGIN CERTIFICATE-----\n");
    file_write("text", "hello\n");
    assert_non_null(strstr(refusal("http", "tls_key", "text"), "no PEM file"));
    file_remove("text");
    file_remove("good");

    path_of("fifo", path, sizeof(path));
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_non_null(strstr(refusal("http", "tls_ca", "fifo"), "no regular file"));
    file_remove("fifo");
}

static void unreadable_files_are_refused_with_path_and_reason(void **state)
{
    char path[64];

    (void) state;
    file_write("secret", "-----BEGIN PRIVATE KEY-----\n");
    path_of("secret", path, sizeof(path));
    assert_int_equal(chmod(path, 0), 0);
    /* Root may read anything: as another user. */
    assert_int_equal(chmod(directory, 0755), 0);
    if (getuid() == 0)
        assert_int_equal(seteuid(65534), 0);
    assert_non_null(strstr(refusal("http", "tls_ca", "secret"), "Permission denied"));
    if (getuid() == 0)
        assert_int_equal(seteuid(0), 0);
    file_remove("secret");
}

static void checks_without_tls_need_no_file(void **state)
{
    struct failure failure;
    struct check *check;

    (void) state;
    assert_int_equal(check_parse("tcp", NULL, &check, &failure), 0);
    assert_int_equal(check_files(check, &failure), 0);
    check_free(check);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pem_files_that_can_be_read_are_accepted),
        cmocka_unit_test(other_files_are_refused_with_path_and_reason),
        cmocka_unit_test(unreadable_files_are_refused_with_path_and_reason),
        cmocka_unit_test(checks_without_tls_need_no_file),
    };

    return cmocka_run_group_tests(tests, directory_make, directory_remove);
}
