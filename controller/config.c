/* SPDX-License-Identifier: MIT */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nginx_conf.h"

/* name may use '-' for '_', as options do. */
static const struct setting *find_setting(const char *name, size_t len)
{
    for (size_t i = 0; i < config_n_settings; i++) {
        const struct setting *setting = &config_settings[i];
        size_t at = 0;

        while (at < len && (name[at] == '-' ? '_' : name[at]) == setting->name[at])
            at++;
        if (at == len && setting->name[at] == '\0')
            return setting;
    }
    return NULL;
}

/* --- command line ----------------------------------------------------------------------------- */

/* The value of an option at argv[*i], given as its rest (or NULL) or as the next word. */
static int take_value(int argc, char *const *argv, int *i, const char *rest, const char **ret,
                      struct failure *failure)
{
    const char *option = argv[*i];

    if (rest == NULL) {
        if (*i + 1 == argc)
            return config_refuse(failure, "option %s needs a value", option);
        rest = argv[++*i];
    }
    *ret = rest;
    return 0;
}

int invocation_parse(int argc, char *const *argv, struct invocation *ret, struct failure *failure)
{
    struct invocation invocation = {.file = CONFIG_FILE_DEFAULT};
    int err = 0;

    for (int i = 1; i < argc && err == 0; i++) {
        const char *word = argv[i];
        const char *equals = strchr(word, '=');
        const struct setting *setting = NULL;

        if (strcmp(word, "-t") == 0) {
            invocation.test = true;
        } else if (strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0) {
            invocation.help = true;
        } else if (strcmp(word, "-v") == 0 || strcmp(word, "--version") == 0) {
            invocation.version = true;
            invocation.verbose = word[1] == 'v';
        } else if (strncmp(word, "-c", 2) == 0) {
            err = take_value(argc, argv, &i, word[2] != '\0' ? word + 2 : NULL, &invocation.file,
                             failure);
            invocation.file_given = true;
        } else {
            size_t len = equals != NULL ? (size_t) (equals - word) : strlen(word);

            if (len > 2 && strncmp(word, "--", 2) == 0)
                setting = find_setting(word + 2, len - 2);
            if (setting == NULL || !(setting->flags & SETTING_OPTION))
                return config_refuse(failure, "there is no option \"%.*s\"", (int) len, word);
            if (invocation.n_given == sizeof(invocation.given) / sizeof(invocation.given[0]))
                return config_refuse(failure, "too many options");
            err = take_value(argc, argv, &i, equals != NULL ? equals + 1 : NULL,
                             &invocation.given[invocation.n_given].value, failure);
            invocation.given[invocation.n_given++].setting = setting;
        }
    }
    if (invocation.test && invocation.verbose)
        invocation.version = false;
    if (err == 0)
        *ret = invocation;
    return err;
}

/* --- file ------------------------------------------------------------------------------------- */

static int apply_directive(const struct nginx_directive *directive, bool *seen,
                           struct config *config, struct failure *failure)
{
    const char *name = directive->args[0];
    const struct setting *setting =
        strchr(name, '-') == NULL ? find_setting(name, strlen(name)) : NULL;
    struct failure reason;

    if (setting == NULL)
        return config_refuse(failure, "%s:%u: there is no setting \"%s\"", directive->file,
                             directive->line, name);
    if (directive->is_block)
        return config_refuse(failure, "%s:%u: %s is no block", directive->file, directive->line,
                             name);
    if (seen[setting - config_settings] && !(setting->flags & SETTING_REPEAT))
        return config_refuse(failure, "%s:%u: %s is given twice", directive->file, directive->line,
                             name);
    seen[setting - config_settings] = true;
    if (setting->parse(setting, config, directive->args + 1, directive->n_args - 1, &reason) < 0)
        return config_refuse(failure, "%s:%u: %s", directive->file, directive->line, reason.text);
    return 0;
}

static int load_file(const char *file, struct config *config, struct failure *failure)
{
    struct nginx_conf *conf;
    bool *seen;
    int err = nginx_conf_parse_file(file, &conf, failure);

    if (err < 0)
        return err;
    seen = calloc(config_n_settings, sizeof(*seen));
    if (seen == NULL)
        err = fail_memory(failure);
    for (size_t i = 0; i < conf->n_directives && err == 0; i++)
        err = apply_directive(&conf->directives[i], seen, config, failure);
    free(seen);
    nginx_conf_free(conf);
    return err;
}

int config_load(const struct invocation *invocation, struct config *ret, struct failure *failure)
{
    struct config *config = calloc(1, sizeof(*config));
    struct failure reason;
    int err = 0;

    if (config == NULL)
        return fail_memory(failure);
    for (size_t i = 0; i < config_n_settings; i++) {
        const struct setting *setting = &config_settings[i];
        char *args[] = {(char *) setting->fallback, NULL};

        if (setting->fallback != NULL && setting->parse(setting, config, args, 1, failure) < 0)
            abort(); /* the table contradicts itself; the unit test would have shown it */
    }
    /* A file that may be there but is out of reach is no missing one. */
    if (invocation->file_given || access(invocation->file, F_OK) == 0 || errno != ENOENT)
        err = load_file(invocation->file, config, failure);
    for (size_t i = 0; i < invocation->n_given && err == 0; i++) {
        const struct setting *setting = invocation->given[i].setting;
        char *args[] = {(char *) invocation->given[i].value, NULL};

        err = setting->parse(setting, config, args, 1, &reason);
        if (err < 0)
            config_refuse(failure, "option --%s: %s", setting->name, reason.text);
    }
    if (err == 0)
        *ret = *config;
    free(config);
    return err;
}

/* --- reload ----------------------------------------------------------------------------------- */

static bool differs(const struct setting *setting, const struct config *a, const struct config *b)
{
    return memcmp((const char *) a + setting->offset, (const char *) b + setting->offset,
                  setting->size) != 0;
}

void config_restart_needed(const struct config *running, const struct config *wanted, char *ret,
                           size_t size)
{
    size_t at = 0;

    ret[0] = '\0';
    for (size_t i = 0; i < config_n_settings; i++) {
        const struct setting *setting = &config_settings[i];

        if (!(setting->flags & SETTING_RELOAD) && differs(setting, running, wanted) && at < size)
            at += (size_t) snprintf(ret + at, size - at, "%s%s", at > 0 ? ", " : "", setting->name);
    }
}

void config_adopt(struct config *running, const struct config *wanted)
{
    for (size_t i = 0; i < config_n_settings; i++) {
        const struct setting *setting = &config_settings[i];

        if (setting->flags & SETTING_RELOAD)
            memcpy((char *) running + setting->offset, (const char *) wanted + setting->offset,
                   setting->size);
    }
}

struct http_limits config_limits(const struct config *config)
{
    return (struct http_limits){
        .max_body = config->max_body_size,
        .request_timeout_ms = config->request_timeout_ms,
        .max_connections = config->max_connections,
    };
}

struct programs_options config_programs(const struct config *config)
{
    return (struct programs_options){
        .observe = config->observe,
        .connect = config->connect,
        .cgroup = config->cgroup,
        .all_namespaces = config->all_namespaces,
        .mark = config->mark,
    };
}
