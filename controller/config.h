/* SPDX-License-Identifier: MIT */
/*
 * What durpinad is told: command line and configuration file. One table of settings drives parsing,
 * --help, -t, what a reload may change, and the tests of the documentation.
 *
 *     struct invocation invocation;
 *     struct config config;
 *     err = invocation_parse(argc, argv, &invocation, &failure);
 *     err = config_load(&invocation, &config, &failure);
 *
 * A config holds no pointers: it is copied and compared as a whole.
 */
#ifndef DURPINAD_CONFIG_H
#define DURPINAD_CONFIG_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "addr.h"
#include "failure.h"
#include "http_server.h"
#include "log.h"
#include "programs.h"
#include "resolve.h"
#include "vip_line.h"

#define CONFIG_FILE_DEFAULT "/etc/durpina/durpinad.conf"

#define CONFIG_IDS_MAX 64
#define CONFIG_LISTEN_MAX 8
#define CONFIG_RESOLVER_MAX 8

/* Exit codes of durpinad (docs/durpinad.md). */
enum {
    EXIT_REFUSED = 1, /* it cannot start as it is configured here */
    EXIT_USAGE = 2,
    EXIT_PINS = 78, /* EX_CONFIG: the pinned maps belong to somebody else or have another layout */
};

struct config_ids {
    uint32_t ids[CONFIG_IDS_MAX];
    size_t n;
};

struct config_listen {
    struct {
        struct addr addr;
        bool writable;
    } at[CONFIG_LISTEN_MAX];
    size_t n;
};

struct config_resolver {
    char servers[CONFIG_RESOLVER_MAX][DURPINA_ADDRESS_SIZE];
    size_t n;
};

struct config_vips {
    struct vip_spec specs[DURPINA_VIPS_MAX];
    size_t n;
};

struct config {
    char pin[PATH_MAX];
    char socket[PATH_MAX];
    uint32_t socket_mode;
    char state[PATH_MAX];
    uint32_t state_delay_ms;
    char user[64]; /* "": the default one */
    struct config_ids allow_users;
    struct config_ids allow_groups;
    struct config_listen listen;
    uint32_t upstreams;
    uint32_t peers;
    uint32_t slots;
    uint32_t inflight;
    bool observe;
    bool connect;
    char cgroup[PATH_MAX]; /* "": the root of cgroup2 */
    bool all_namespaces;
    uint32_t mark; /* 0: none */
    struct config_resolver resolver;
    struct resolve_policy resolve;
    struct config_vips vips;
    enum log_level log_level;
    uint32_t max_body_size;
    uint32_t request_timeout_ms;
    uint32_t max_connections;
};

enum setting_flags {
    SETTING_OPTION = 1 << 0, /* also an option: --name VALUE */
    SETTING_RELOAD = 1 << 1, /* SIGHUP puts a new value in force */
    SETTING_REPEAT = 1 << 2, /* may be given more than once; each adds */
};

struct setting {
    const char *name;
    const char *args;     /* as shown in --help: "DIRECTORY" */
    const char *fallback; /* its default as it would be written, or NULL: none */
    const char *absent;   /* what having none means, in words */
    const char *help;
    unsigned flags; /* enum setting_flags */
    /* 0, or -EINVAL with a text that names the culprit but not the place. */
    int (*parse)(const struct setting *setting, struct config *config, char *const *args,
                 size_t n_args, struct failure *failure);
    size_t offset, size; /* in struct config */
    uint64_t min, max;   /* of numbers, sizes and times (ms) */
};

/* What fail() wants besides the text; nobody sees it. */
#define config_refuse(failure, ...) fail(failure, EINVAL, 400, "ConfigError", __VA_ARGS__)

extern const struct setting config_settings[];
extern const size_t config_n_settings;

struct invocation {
    const char *file;
    bool file_given; /* else a missing file is fine */
    bool test, verbose, help, version;
    struct {
        const struct setting *setting;
        const char *value;
    } given[16];
    size_t n_given;
};

/* -EINVAL with the culprit in failure. Strings belong to argv. */
int invocation_parse(int argc, char *const *argv, struct invocation *ret, struct failure *failure);

/*
 * Defaults, then the file, then the options. -EINVAL, -ENOENT or another -errno; failure names file
 * and line, or the option.
 */
int config_load(const struct invocation *invocation, struct config *ret, struct failure *failure);

/* The settings that differ and take no effect before a restart, separated by ", "; "" if none. */
void config_restart_needed(const struct config *running, const struct config *wanted, char *ret,
                           size_t size);

/* Puts in force what a reload may change. */
void config_adopt(struct config *running, const struct config *wanted);

struct http_limits config_limits(const struct config *config);
/* The options borrow from config. */
struct programs_options config_programs(const struct config *config);

/* durpinad --help */
void config_print_help(FILE *out);

#endif
