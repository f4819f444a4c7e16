/* SPDX-License-Identifier: MIT */
/* docs/monitors.md and the tables of options say the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <string.h>

#include "check_option.h"

#include <cmocka.h> /* last: its macro fail() hides the function of failure.h */

#define DOCUMENT "docs/monitors.md"
#define HEADING "## Options of "
#define ALL "all monitors"
#define ROWS_MAX 100

/* A row of a table of options: its name, its value, and the heading above it. */
static struct row {
    char section[128], name[32], value[160];
} rows[ROWS_MAX];
static size_t n_rows;

static int document_read(void **state)
{
    FILE *file = fopen(DOCUMENT, "r");
    char line[1024], section[128] = "";

    (void) state;
    if (file == NULL)
        fail_msg("%s cannot be read: run this from the top of the sources", DOCUMENT);
    while (fgets(line, sizeof(line), file) != NULL) {
        struct row *row = &rows[n_rows];

        if (strncmp(line, "## ", 3) == 0)
            section[0] = '\0';
        if (strncmp(line, HEADING, strlen(HEADING)) == 0)
            snprintf(section, sizeof(section), "%.127s", line + strlen(HEADING));
        if (section[0] == '\0' || sscanf(line, "| `%31[^`]` | %159[^|]", row->name, row->value) < 2)
            continue;
        assert_true(++n_rows < ROWS_MAX);
        memcpy(row->section, section, sizeof(section));
        row->value[strlen(row->value) - 1] = '\0'; /* the space before "|" */
    }
    fclose(file);
    return 0;
}

static bool is_option(const char *name, const struct check_option *option)
{
    size_t length = strlen(option->name);

    if (strcmp(option->name, CHECK_HEADER_PREFIX) == 0)
        return strncmp(name, option->name, length) == 0 && strcmp(name + length, "NAME") == 0;
    return strcmp(name, option->name) == 0;
}

/* whose: what the heading says of a monitor. */
static void assert_documented(const char *whose, const struct check_option *options)
{
    for (const struct check_option *option = options; option->name != NULL; option++) {
        size_t n = 0;

        for (const struct row *row = rows; row < rows + n_rows; row++) {
            if (strstr(row->section, whose) == NULL || !is_option(row->name, option))
                continue;
            n++;
            assert_string_equal(row->value, option->help);
        }
        if (n != 1)
            fail_msg("%s: option %s is documented %zu times", whose, option->name, n);
    }
    for (const struct row *row = rows; row < rows + n_rows; row++) {
        const struct check_option *option = options;

        while (option->name != NULL && !is_option(row->name, option))
            option++;
        if (option->name == NULL && strstr(row->section, whose) != NULL)
            fail_msg("%s: there is no option %s", whose, row->name);
    }
}

static void options_of_all_monitors_are_documented(void **state)
{
    (void) state;
    assert_documented(ALL, check_common_options);
}

static void options_of_each_monitor_are_documented(void **state)
{
    (void) state;
    for (int type = 0; type < CHECK_TYPES; type++) {
        const struct check_kind *kind = check_kind_of((enum check_type) type);
        char whose[64];

        if (kind->name == NULL)
            continue;
        snprintf(whose, sizeof(whose), "`%s`", kind->name);
        assert_documented(whose, kind->options);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_of_all_monitors_are_documented),
        cmocka_unit_test(options_of_each_monitor_are_documented),
    };

    return cmocka_run_group_tests(tests, document_read, NULL);
}
