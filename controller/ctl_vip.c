/* SPDX-License-Identifier: MIT */
/* Virtual endpoints in durpinactl. */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl.h"
#include "vip_line.h"

static size_t count(char **words)
{
    size_t n = 0;

    while (words[n] != NULL)
        n++;
    return n;
}

json_t *ctl_vip_json(char **words)
{
    char address[VIP_NAME_SIZE];
    struct failure failure;
    struct vip_spec spec;

    if (vip_line_parse(words, count(words), &spec, &failure) < 0) {
        fprintf(stderr, "durpinactl: %s\n", failure.text);
        return NULL;
    }
    vip_address_format(&spec.address, address);
    return json_pack("{ss ss ss}", "address", address, "upstream", spec.upstream, "algorithm",
                     vip_algorithm_word(spec.algorithm));
}

int ctl_vip_path(const char *address, char path[CTL_PATH_SIZE])
{
    struct durpina_address parsed;
    char name[VIP_NAME_SIZE], *escaped;
    struct failure failure;

    if (vip_address_parse(address, &parsed, &failure) < 0) {
        fprintf(stderr, "durpinactl: %s\n", failure.text);
        return CTL_USAGE;
    }
    vip_address_format(&parsed, name);
    escaped = curl_easy_escape(NULL, name, 0);
    if (escaped == NULL)
        abort();
    snprintf(path, CTL_PATH_SIZE, "/api/9/durpina/vips/%s", escaped);
    curl_free(escaped);
    return 0;
}

static char *text_of(const json_t *vip, const char *key)
{
    const json_t *value = json_object_get(vip, key);
    char number[24], *text;

    snprintf(number, sizeof(number), "%lld", (long long) json_integer_value(value));
    text = strdup(json_is_integer(value)  ? number
                  : json_is_string(value) ? json_string_value(value)
                                          : "-");
    if (text == NULL)
        abort();
    return text;
}

void ctl_print_vips(const json_t *vips)
{
    static const char *const titles[] = {"VIP",      "UPSTREAM", "ALGORITHM", "STATE",
                                         "SELECTED", "MISSED",   "ORIGIN",    "REASON"};
    static const char *const keys[] = {"address",  "upstream", "algorithm", "state",
                                       "selected", "missed",   "origin",    "reason"};
    struct ctl_table table = {.n_columns = sizeof(keys) / sizeof(keys[0])};
    const json_t *vip;
    size_t i;

    json_array_foreach(vips, i, vip)
    {
        char *cells[sizeof(keys) / sizeof(keys[0])];

        for (size_t c = 0; c < table.n_columns; c++)
            cells[c] = text_of(vip, keys[c]);
        ctl_table_add(&table, cells);
    }
    ctl_table_print(&table, titles);
}
