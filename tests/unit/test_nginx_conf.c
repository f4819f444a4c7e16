/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nginx_conf.h"

#include <cmocka.h> /* last: its macro fail() hides the function of failure.h */

static struct nginx_conf *parse(const char *text)
{
    struct nginx_conf *conf = NULL;
    struct failure failure;
    int err = nginx_conf_parse_text(text, strlen(text), "test.conf", &conf, &failure);

    if (err < 0)
        print_error("%s\n", failure.text);
    assert_int_equal(err, 0);
    return conf;
}

static void assert_refused(const char *text, size_t len, const char *message)
{
    struct nginx_conf *conf = NULL;
    struct failure failure;

    assert_int_equal(nginx_conf_parse_text(text, len, "test.conf", &conf, &failure), -EINVAL);
    if (strstr(failure.text, message) == NULL)
        fail_msg("\"%s\": \"%s\" does not say %s", text, failure.text, message);
    assert_null(conf);
}

static void words_quotes_escapes_and_comments_are_as_in_nginx(void **state)
{
    struct nginx_conf *conf = parse("# first\n"
                                    "a one 'two words' \"three;{}#\" it's#not;\n"
                                    "b a\\;b \"q\\\"q\" \\$x '';# last");
    const struct nginx_directive *a = &conf->directives[0], *b = &conf->directives[1];

    (void) state;
    assert_int_equal(conf->n_directives, 2);
    assert_int_equal(a->n_args, 5);
    assert_string_equal(a->args[0], "a");
    assert_string_equal(a->args[2], "two words");
    assert_string_equal(a->args[3], "three;{}#");
    assert_string_equal(a->args[4], "it's#not");
    assert_null(a->args[5]);
    assert_int_equal(a->line, 2);
    assert_string_equal(a->file, "test.conf");
    assert_string_equal(b->args[1], "a\\;b");
    assert_string_equal(b->args[2], "q\"q");
    assert_string_equal(b->args[3], "\\$x");
    assert_string_equal(b->args[4], "");
    nginx_conf_free(conf);
}

static void blocks_hold_their_directives(void **state)
{
    struct nginx_conf *conf = parse("upstream foo {\n  server a:80 weight=5;\n  inner {}\n}\nz;");
    const struct nginx_directive *foo = &conf->directives[0];

    (void) state;
    assert_int_equal(conf->n_directives, 2);
    assert_true(foo->is_block);
    assert_int_equal(foo->n_args, 2);
    assert_int_equal(foo->n_children, 2);
    assert_string_equal(foo->children[0].args[2], "weight=5");
    assert_int_equal(foo->children[0].line, 2);
    assert_true(foo->children[1].is_block);
    assert_int_equal(foo->children[1].n_children, 0);
    assert_false(conf->directives[1].is_block);
    nginx_conf_free(conf);
}

static void error_names_file_line_and_fault(void **state)
{
    (void) state;
    assert_refused("a;\nb", 4, "test.conf:2: a directive is not ended by ';'");
    assert_refused("a {\nb;\n", 7, "test.conf:1: a block is not closed by '}'");
    assert_refused("a;\n}\n", 5, "test.conf:2: unexpected '}'");
    assert_refused("a; {}", 5, "unexpected '{'");
    assert_refused(";", 1, "unexpected ';'");
    assert_refused("a\n 'b\n\n", 7, "test.conf:2: a quote is not closed");
    assert_refused("a 'b'c;", 7, "quoted word must be followed");
    assert_refused("a\0b;", 4, "NUL");
    assert_refused("a { b }", 7, "not ended by ';'");
    assert_refused("include;", 8, "include takes one file name");
}

static void nesting_is_bounded(void **state)
{
    char text[3 * NGINX_CONF_DEPTH_MAX + 1] = "";

    (void) state;
    for (int i = 0; i < NGINX_CONF_DEPTH_MAX; i++)
        strcat(text, "a{");
    for (int i = 0; i < NGINX_CONF_DEPTH_MAX; i++)
        strcat(text, "}");
    assert_refused(text, strlen(text), "nested too deep");
}

static void write_file(const char *dir, const char *name, const char *text)
{
    char path[256];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void remove_file(const char *dir, const char *name)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    unlink(path);
}

static void included_files_come_in_place_and_keep_their_lines(void **state)
{
    char dir[] = "/tmp/durpina-conf-XXXXXX", path[64];
    struct nginx_conf *conf;
    struct failure failure;

    (void) state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/main.conf", dir);
    write_file(dir, "main.conf", "first;\nblock {\n include in-*.conf;\n include none-*.conf; }");
    write_file(dir, "in-1.conf", "\none;");
    write_file(dir, "in-2.conf", "two;");

    assert_int_equal(nginx_conf_parse_file(path, &conf, &failure), 0);
    assert_int_equal(conf->n_files, 3);
    assert_int_equal(conf->directives[1].n_children, 2);
    assert_string_equal(conf->directives[1].children[0].args[0], "one");
    assert_int_equal(conf->directives[1].children[0].line, 2);
    assert_string_equal(strrchr(conf->directives[1].children[0].file, '/'), "/in-1.conf");
    nginx_conf_free(conf);

    write_file(dir, "in-2.conf", "two;\n}");
    assert_int_equal(nginx_conf_parse_file(path, &conf, &failure), -EINVAL);
    assert_non_null(strstr(failure.text, "in-2.conf:2: unexpected '}'"));

    write_file(dir, "main.conf", "\ninclude missing.conf;");
    assert_int_equal(nginx_conf_parse_file(path, &conf, &failure), -ENOENT);
    assert_non_null(strstr(failure.text, "main.conf:2: include"));
    assert_non_null(strstr(failure.text, "missing.conf"));

    write_file(dir, "main.conf", "include main.conf;");
    assert_int_equal(nginx_conf_parse_file(path, &conf, &failure), -EINVAL);
    assert_non_null(strstr(failure.text, "nested too deep"));

    remove_file(dir, "main.conf");
    assert_int_equal(nginx_conf_parse_file(path, &conf, &failure), -ENOENT);
    assert_int_equal(nginx_conf_parse_file(dir, &conf, &failure), -EISDIR);
    remove_file(dir, "in-1.conf");
    remove_file(dir, "in-2.conf");
    assert_int_equal(rmdir(dir), 0);
}

static void any_prefix_of_a_file_ends_in_an_answer(void **state)
{
    static const char text[] = "a 'b\\'c' \"d\\\\\" { e\\ f; # g\n h { } } i;\n";

    (void) state;
    for (size_t len = 0; len < sizeof(text); len++) {
        char *copy = malloc(len); /* of this very size, so that reading on is seen */
        struct nginx_conf *conf;
        struct failure failure;

        assert_true(copy != NULL || len == 0);
        memcpy(copy, text, len);
        if (nginx_conf_parse_text(copy, len, "test.conf", &conf, &failure) == 0)
            nginx_conf_free(conf);
        free(copy);
    }
}

static void line_splits_into_words_and_nothing_else(void **state)
{
    struct failure failure;
    char **words;
    size_t n;

    (void) state;
    assert_int_equal(nginx_conf_split(" a:80 'b c' ; ", &words, &n, &failure), 0);
    assert_int_equal(n, 2);
    assert_string_equal(words[1], "b c");
    nginx_conf_free_words(words);
    assert_int_equal(nginx_conf_split("a; b", &words, &n, &failure), -EINVAL);
    assert_int_equal(nginx_conf_split("a }", &words, &n, &failure), -EINVAL);
    assert_int_equal(nginx_conf_split(" # a", &words, &n, &failure), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_quotes_escapes_and_comments_are_as_in_nginx),
        cmocka_unit_test(blocks_hold_their_directives),
        cmocka_unit_test(error_names_file_line_and_fault),
        cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(included_files_come_in_place_and_keep_their_lines),
        cmocka_unit_test(any_prefix_of_a_file_ends_in_an_answer),
        cmocka_unit_test(line_splits_into_words_and_nothing_else),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
