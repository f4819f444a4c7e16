/* SPDX-License-Identifier: MIT */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl.h"

void ctl_table_add(struct ctl_table *table, char *const *cells)
{
    table->rows = realloc(table->rows, (table->n_rows + 1) * sizeof(*table->rows));
    if (table->rows == NULL)
        abort();
    memcpy(table->rows[table->n_rows++], cells, table->n_columns * sizeof(*cells));
}

static bool is_number(const char *text)
{
    return *text != '\0' && text[strspn(text, "0123456789/-.")] == '\0';
}

static void print_row(char *const *cells, const struct ctl_table *table, const int *width,
                      const bool *right)
{
    for (size_t c = 0; c < table->n_columns; c++) {
        if (right[c])
            printf("%*s", width[c], cells[c]);
        else
            printf("%-*s", c + 1 < table->n_columns ? width[c] : 0, cells[c]);
        fputs(c + 1 < table->n_columns ? "  " : "\n", stdout);
    }
}

void ctl_table_print(struct ctl_table *table, const char *const *titles)
{
    int width[CTL_COLUMNS_MAX];
    bool right[CTL_COLUMNS_MAX];

    for (size_t c = 0; c < table->n_columns; c++) {
        width[c] = (int) strlen(titles[c]);
        right[c] = table->n_rows > 0;
        for (size_t r = 0; r < table->n_rows; r++) {
            int len = (int) strlen(table->rows[r][c]);

            width[c] = len > width[c] ? len : width[c];
            right[c] = right[c] && is_number(table->rows[r][c]);
        }
    }
    print_row((char *const *) titles, table, width, right);
    for (size_t r = 0; r < table->n_rows; r++) {
        print_row(table->rows[r], table, width, right);
        for (size_t c = 0; c < table->n_columns; c++)
            free(table->rows[r][c]);
    }
    free(table->rows);
    table->rows = NULL;
    table->n_rows = 0;
}
