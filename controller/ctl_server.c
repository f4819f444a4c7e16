/* SPDX-License-Identifier: MIT */
/* Servers in durpinactl. */
#include <stdio.h>
#include <stdlib.h>

#include "ctl.h"
#include "server_line.h"

/* What was given in a `server` line, as the API takes it. */
static json_t *spec_json(const struct server_spec *spec)
{
    const struct server_settings *s = &spec->settings;
    bool is_service = (spec->set & SERVER_SET_SERVICE) != 0;
    json_t *object = json_pack("{ss sb}", "server", is_service ? spec->host : spec->name, "backup",
                               spec->backup);
    const struct {
        unsigned set;
        const char *name;
        json_t *value;
    } fields[] = {
        {SERVER_SET_WEIGHT, "weight", json_integer(s->weight)},
        {SERVER_SET_MAX_CONNS, "max_conns", json_integer(s->max_conns)},
        {SERVER_SET_MAX_FAILS, "max_fails", json_integer(s->max_fails)},
        {SERVER_SET_FAIL_TIMEOUT, "fail_timeout", json_sprintf("%ums", s->fail_timeout_ms)},
        {SERVER_SET_SLOW_START, "slow_start", json_sprintf("%ums", s->slow_start_ms)},
        {SERVER_SET_ADMIN, s->admin == DURPINA_ADMIN_DOWN ? "down" : "drain", json_true()},
        {SERVER_SET_SERVICE, "service", json_string(spec->service)},
    };

    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        if (spec->set & fields[i].set)
            json_object_set(object, fields[i].name, fields[i].value);
        json_decref(fields[i].value);
    }
    return object;
}

/* The server line as one text, quoted as one word or not. */
static char *join(char **words)
{
    char *line = NULL;
    size_t size;
    FILE *out = open_memstream(&line, &size);

    if (out == NULL)
        abort();
    for (char **word = words; *word != NULL; word++)
        fprintf(out, "%s%s", word > words ? " " : "", *word);
    fclose(out);
    return line;
}

json_t *ctl_server_json(char **words, uint16_t default_port)
{
    char *line = join(words);
    struct server_spec spec;
    struct failure failure;
    json_t *body;
    int err = server_line_parse(line, default_port, &spec, &failure);

    free(line);
    if (err < 0) {
        fprintf(stderr, "durpinactl: %s\n", failure.text);
        return NULL;
    }
    body = spec_json(&spec);
    server_spec_clear(&spec);
    return body;
}
