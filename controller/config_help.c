/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "config.h"

#define HELP_COLUMN 34
#define HELP_WIDTH 96

/* Prints text from HELP_COLUMN on, broken at spaces; column is where the line stands. */
static void print_wrapped(FILE *out, int column, const char *text)
{
    if (column >= HELP_COLUMN) {
        fputc('\n', out);
        column = 0;
    }
    while (*text != '\0') {
        size_t len = strcspn(text, " ");

        if (column < HELP_COLUMN) {
            fprintf(out, "%*s", HELP_COLUMN - column, "");
            column = HELP_COLUMN;
        } else if (column + 1 + (int) len > HELP_WIDTH) {
            fprintf(out, "\n%*s", HELP_COLUMN, "");
            column = HELP_COLUMN;
        } else {
            fputc(' ', out);
            column++;
        }
        fwrite(text, 1, len, out);
        column += (int) len;
        text += len;
        while (*text == ' ')
            text++;
    }
    fputc('\n', out);
}

void config_print_help(FILE *out)
{
    char text[512];

    fputs("Usage: durpinad [OPTION]...\n"
          "Keeps the peers of nginx upstreams in pinned BPF maps, checks their health and serves\n"
          "the control API. Runs in the foreground and logs to standard error.\n\n"
          "Options:\n",
          out);
    print_wrapped(out, fprintf(out, "  -c FILE"),
                  "read this configuration instead of " CONFIG_FILE_DEFAULT);
    print_wrapped(
        out, fprintf(out, "  -t"),
        "test the configuration and exit; touches nothing; with -v, say which programs in "
        "the kernel could be attached, and what the others lack");
    for (size_t i = 0; i < config_n_settings; i++) {
        const struct setting *setting = &config_settings[i];
        char option[32];

        if (!(setting->flags & SETTING_OPTION))
            continue;
        snprintf(option, sizeof(option), "%s", setting->name);
        for (char *p = option; *p != '\0'; p++)
            *p = *p == '_' ? '-' : *p;
        snprintf(text, sizeof(text), "overrides the setting %s", setting->name);
        print_wrapped(out,
                      fprintf(out, "  --%s %s", option,
                              strchr(setting->args, ' ') == NULL ? setting->args : "WORD"),
                      text);
    }
    print_wrapped(out, fprintf(out, "  -v, --version"), "print the version and exit");
    print_wrapped(out, fprintf(out, "  -h, --help"), "print this and exit");

    fputs("\nSettings of the configuration file, in nginx's syntax (* takes effect on SIGHUP,\n"
          "+ may be given more than once):\n",
          out);
    for (size_t i = 0; i < config_n_settings; i++) {
        const struct setting *setting = &config_settings[i];

        snprintf(text, sizeof(text), "%s; default: %s", setting->help,
                 setting->fallback != NULL ? setting->fallback : setting->absent);
        print_wrapped(out,
                      fprintf(out, "%c%c%s %s;", setting->flags & SETTING_RELOAD ? '*' : ' ',
                              setting->flags & SETTING_REPEAT ? '+' : ' ', setting->name,
                              setting->args),
                      text);
    }
    fputs("\nSignals: HUP reads the configuration again, TERM and INT stop; the maps stay and\n"
          "nginx goes on with them.\n"
          "Exit codes: 0 stopped or tested, 1 cannot start, 2 wrong usage, 78 the pinned maps\n"
          "belong to another controller or have another layout.\n",
          out);
}
