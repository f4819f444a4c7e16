/* SPDX-License-Identifier: MIT */
/* The settings and what is valid for each. */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nginx_conf.h"
#include "privileges.h"
#include "server_line.h"

/* --- values ----------------------------------------------------------------------------------- */

static void *field(const struct setting *setting, struct config *config)
{
    return (char *) config + setting->offset;
}

static int want_one(const struct setting *setting, size_t n_args, struct failure *failure)
{
    if (n_args == 1)
        return 0;
    return config_refuse(failure, "%s takes one value: %s %s", setting->name, setting->name,
                         setting->args);
}

static int parse_path(const struct setting *setting, struct config *config, char *const *args,
                      size_t n_args, struct failure *failure)
{
    int err = want_one(setting, n_args, failure);

    if (err < 0)
        return err;
    if (args[0][0] != '/' || strlen(args[0]) >= setting->size)
        return config_refuse(failure, "%s \"%s\" is no absolute path of less than %zu bytes",
                             setting->name, args[0], setting->size);
    if (args[0][strlen(args[0]) - 1] == '/')
        return config_refuse(failure, "%s \"%s\" ends in '/': name a file in that directory",
                             setting->name, args[0]);
    memset(field(setting, config), 0, setting->size);
    strcpy(field(setting, config), args[0]);
    return 0;
}

/* As the shell completes it: with '/' at its end. */
static int parse_directory(const struct setting *setting, struct config *config, char *const *args,
                           size_t n_args, struct failure *failure)
{
    char *path = n_args == 1 ? strdup(args[0]) : NULL;
    char *trimmed[] = {path, NULL};
    int err;

    if (path == NULL)
        return parse_path(setting, config, args, n_args, failure);
    for (size_t len = strlen(path); len > 1 && path[len - 1] == '/'; len--)
        path[len - 1] = '\0';
    err = parse_path(setting, config, trimmed, 1, failure);
    free(path);
    return err;
}

/* Digits, perhaps with k, m or g behind them if suffixes is set. */
static int parse_digits(const char *text, bool suffixes, uint64_t *ret)
{
    static const char units[] = "kmg";
    const char *unit;
    uint64_t value;
    char *end;

    if (text[0] < '0' || text[0] > '9')
        return -EINVAL;
    errno = 0;
    value = strtoull(text, &end, 10);
    if (errno != 0)
        return -ERANGE;
    if (suffixes && *end != '\0' && (unit = strchr(units, *end | 0x20)) != NULL) {
        for (const char *u = units; u <= unit; u++)
            if (__builtin_mul_overflow(value, 1024, &value))
                return -ERANGE;
        end++;
    }
    if (*end != '\0')
        return -EINVAL;
    *ret = value;
    return 0;
}

static int parse_count(const struct setting *setting, struct config *config, char *const *args,
                       size_t n_args, struct failure *failure)
{
    uint64_t value;
    int err = want_one(setting, n_args, failure);

    if (err < 0)
        return err;
    if (parse_digits(args[0], true, &value) < 0 || value < setting->min || value > setting->max)
        return config_refuse(failure,
                             "%s \"%s\" is no number from %" PRIu64 " to %" PRIu64
                             " (k, m and g multiply by 1024)",
                             setting->name, args[0], setting->min, setting->max);
    *(uint32_t *) field(setting, config) = (uint32_t) value;
    return 0;
}

static int parse_time(const struct setting *setting, struct config *config, char *const *args,
                      size_t n_args, struct failure *failure)
{
    uint32_t ms;
    int err = want_one(setting, n_args, failure);

    if (err < 0)
        return err;
    if (time_parse_ms(args[0], &ms) < 0 || ms < setting->min || ms > setting->max)
        return config_refuse(failure,
                             "%s \"%s\" is no time from %" PRIu64 "ms to %" PRIu64
                             "ms (\"500ms\", \"3s\", \"1m\")",
                             setting->name, args[0], setting->min, setting->max);
    *(uint32_t *) field(setting, config) = ms;
    return 0;
}

static int parse_switch(const struct setting *setting, struct config *config, char *const *args,
                        size_t n_args, struct failure *failure)
{
    int err = want_one(setting, n_args, failure);

    if (err < 0)
        return err;
    if (strcmp(args[0], "on") != 0 && strcmp(args[0], "off") != 0)
        return config_refuse(failure, "%s \"%s\" is neither on nor off", setting->name, args[0]);
    *(bool *) field(setting, config) = args[0][1] == 'n';
    return 0;
}

static int parse_namespaces(const struct setting *setting, struct config *config, char *const *args,
                            size_t n_args, struct failure *failure)
{
    int err = want_one(setting, n_args, failure);

    if (err < 0)
        return err;
    if (strcmp(args[0], "own") != 0 && strcmp(args[0], "all") != 0)
        return config_refuse(failure, "%s \"%s\" is neither own nor all", setting->name, args[0]);
    *(bool *) field(setting, config) = args[0][0] == 'a';
    return 0;
}

static int parse_mark(const struct setting *setting, struct config *config, char *const *args,
                      size_t n_args, struct failure *failure)
{
    bool is_hex = n_args == 1 && strncmp(args[0], "0x", 2) == 0;
    const char *digits = is_hex ? args[0] + 2 : args[0];
    unsigned long long mark;
    int err = want_one(setting, n_args, failure);

    if (err < 0)
        return err;
    errno = 0;
    mark = strtoull(digits, NULL, is_hex ? 16 : 10);
    /* strtoull() would take blanks, a sign and another 0x as well. */
    if (digits[0] == '\0' || errno != 0 || mark > setting->max ||
        digits[strspn(digits, is_hex ? "0123456789abcdefABCDEF" : "0123456789")] != '\0')
        return config_refuse(failure, "%s \"%s\" is no number from 0 to 0xffffffff", setting->name,
                             args[0]);
    *(uint32_t *) field(setting, config) = (uint32_t) mark;
    return 0;
}

static int parse_mode(const struct setting *setting, struct config *config, char *const *args,
                      size_t n_args, struct failure *failure)
{
    unsigned long mode;
    char *end;
    int err = want_one(setting, n_args, failure);

    if (err < 0)
        return err;
    mode = strtoul(args[0], &end, 8);
    if (args[0][0] != '0' || *end != '\0' || mode > 0777)
        return config_refuse(failure, "%s \"%s\" is no octal mode from 0 to 0777", setting->name,
                             args[0]);
    *(uint32_t *) field(setting, config) = (uint32_t) mode;
    return 0;
}

static int parse_user(const struct setting *setting, struct config *config, char *const *args,
                      size_t n_args, struct failure *failure)
{
    struct privileges_user user;
    int err = want_one(setting, n_args, failure);

    if (err < 0)
        return err;
    err = privileges_find_user(args[0], &user);
    if (err == -EPERM)
        return config_refuse(failure,
                             "user \"%s\" is root: durpinad gives up root, name another user",
                             args[0]);
    if (err < 0)
        return config_refuse(failure, "there is no user \"%s\"", args[0]);
    memset(field(setting, config), 0, setting->size);
    strcpy(field(setting, config), user.name);
    return 0;
}

static int parse_ids(const struct setting *setting, struct config *config, char *const *args,
                     size_t n_args, struct failure *failure)
{
    struct config_ids *ids = field(setting, config);
    bool is_user = ids == &config->allow_users;

    if (n_args == 0)
        return config_refuse(failure, "%s takes at least one value: %s %s", setting->name,
                             setting->name, setting->args);
    for (size_t i = 0; i < n_args; i++) {
        uint32_t id;
        int err = is_user ? privileges_parse_uid(args[i], &id) : privileges_parse_gid(args[i], &id);

        if (err < 0)
            return config_refuse(failure, "there is no %s \"%s\"", is_user ? "user" : "group",
                                 args[i]);
        if (ids->n == CONFIG_IDS_MAX)
            return config_refuse(failure, "%s names more than %d", setting->name, CONFIG_IDS_MAX);
        ids->ids[ids->n++] = id;
    }
    return 0;
}

static int parse_listen(const struct setting *setting, struct config *config, char *const *args,
                        size_t n_args, struct failure *failure)
{
    struct config_listen *listen = field(setting, config);
    struct addr addr;

    if (n_args == 0 || n_args > 2 || (n_args == 2 && strcmp(args[1], "writable") != 0))
        return config_refuse(failure, "%s takes an address and perhaps the word \"writable\"",
                             setting->name);
    if (addr_parse(args[0], 0, &addr) < 0 || addr_port(&addr) == 0)
        return config_refuse(failure, "%s \"%s\" is no ADDRESS:PORT", setting->name, args[0]);
    if (listen->n == CONFIG_LISTEN_MAX)
        return config_refuse(failure, "%s is given more than %d times", setting->name,
                             CONFIG_LISTEN_MAX);
    listen->at[listen->n].addr = addr;
    listen->at[listen->n++].writable = n_args == 2;
    return 0;
}

static int parse_resolver(const struct setting *setting, struct config *config, char *const *args,
                          size_t n_args, struct failure *failure)
{
    struct config_resolver *resolver = field(setting, config);

    if (n_args == 0 || n_args > CONFIG_RESOLVER_MAX)
        return config_refuse(failure, "%s takes 1 to %d addresses", setting->name,
                             CONFIG_RESOLVER_MAX);
    for (size_t i = 0; i < n_args; i++) {
        struct addr addr;

        if (addr_parse(args[i], 53, &addr) < 0 || addr_port(&addr) == 0 ||
            strlen(args[i]) >= sizeof(resolver->servers[0]))
            return config_refuse(failure, "%s \"%s\" is no address", setting->name, args[i]);
        strcpy(resolver->servers[i], args[i]);
    }
    resolver->n = n_args;
    return 0;
}

static int parse_vip(const struct setting *setting, struct config *config, char *const *args,
                     size_t n_args, struct failure *failure)
{
    struct config_vips *vips = field(setting, config);
    struct vip_spec *spec = &vips->specs[vips->n];
    int err;

    if (vips->n == DURPINA_VIPS_MAX)
        return config_refuse(failure, "%s is given more than %d times", setting->name,
                             DURPINA_VIPS_MAX);
    err = vip_line_parse(args, n_args, spec, failure);
    if (err < 0)
        return err;
    for (size_t i = 0; i < vips->n; i++)
        if (memcmp(&vips->specs[i].address, &spec->address, sizeof(spec->address)) == 0)
            return config_refuse(failure, "vip %s is given twice", args[0]);
    vips->n++;
    return 0;
}

static int parse_level(const struct setting *setting, struct config *config, char *const *args,
                       size_t n_args, struct failure *failure)
{
    int err = want_one(setting, n_args, failure);

    if (err < 0)
        return err;
    if (log_level_parse(args[0], &config->log_level) < 0)
        return config_refuse(failure, "%s \"%s\" is none of: %s", setting->name, args[0],
                             setting->args);
    return 0;
}

/* --- the table -------------------------------------------------------------------------------- */

#define IN(member) offsetof(struct config, member), sizeof(((struct config *) NULL)->member)

const struct setting config_settings[] = {
    {"pin", "DIRECTORY", "/sys/fs/bpf/durpina", NULL,
     "where the maps are pinned: a directory on a bpffs", SETTING_OPTION, parse_directory, IN(pin),
     0, 0},
    {"socket", "PATH", "/run/durpina/api.sock", NULL, "the control socket", SETTING_OPTION,
     parse_path, IN(socket), 0, 0},
    {"socket_mode", "MODE", "0666", NULL,
     "mode of the control socket: who may connect may read, changes are authorised one by one", 0,
     parse_mode, IN(socket_mode), 0, 0},
    {"state", "FILE", "/var/lib/durpina/state.json", NULL,
     "where upstreams, servers and monitors outlive a restart of the machine", SETTING_OPTION,
     parse_path, IN(state), 0, 0},
    {"state_delay", "TIME", "1s", NULL, "a change is in the state file at most this much later", 0,
     parse_time, IN(state_delay_ms), 0, 3600 * 1000},
    {"user", "NAME", NULL, "durpina if there is such a user, else nobody",
     "what durpinad becomes before it reads any input", SETTING_OPTION, parse_user, IN(user), 0, 0},
    {"allow_user", "NAME...", NULL, "only root and the workers of an introduced nginx",
     "users, by name or number, who may change things over the control socket",
     SETTING_RELOAD | SETTING_REPEAT, parse_ids, IN(allow_users), 0, 0},
    {"allow_group", "NAME...", NULL, "no group", "likewise their groups",
     SETTING_RELOAD | SETTING_REPEAT, parse_ids, IN(allow_groups), 0, 0},
    {"listen", "ADDRESS:PORT [writable]", NULL, "no TCP",
     "also serves the API over TCP, read-only; \"writable\" lets everybody who reaches that "
     "address change everything",
     SETTING_REPEAT, parse_listen, IN(listen), 0, 0},
    {"upstreams", "NUMBER", "1024", NULL, "capacity of the maps in upstreams", 0, parse_count,
     IN(upstreams), 1, 1 << 16},
    {"peers", "NUMBER", "64k", NULL, "capacity of the maps in peers (addresses)", 0, parse_count,
     IN(peers), 1, 1 << 24},
    {"slots", "NUMBER", "4m", NULL, "capacity of the maps in slots of pick tables, 4 bytes each", 0,
     parse_count, IN(slots), 1024, 1 << 28},
    {"inflight", "NUMBER", "62k", NULL,
     "capacity of the maps in requests that workers have in flight at once, 8 bytes each; of those "
     "beyond, a worker that is killed leaves its share counted as active",
     0, parse_count, IN(inflight), 1, 1 << 24},
    {"observe", "on | off", "on", NULL,
     "a program in the kernel counts the connections to peers, of all processes", 0, parse_switch,
     IN(observe), 0, 0},
    {"connect", "on | off", "on", NULL,
     "programs in the kernel send whoever connects to a virtual endpoint to a peer", 0,
     parse_switch, IN(connect), 0, 0},
    {"cgroup", "DIRECTORY", NULL, "the root of cgroup2, wherever it is mounted",
     "the programs see the processes of this cgroup2 directory and below", SETTING_OPTION,
     parse_directory, IN(cgroup), 0, 0},
    {"network_namespaces", "own | all", "own", NULL,
     "the programs act in the network namespace of durpinad only, or in all", 0, parse_namespaces,
     IN(all_namespaces), 0, 0},
    {"mark", "NUMBER", "0", NULL,
     "SO_MARK of sockets that are never sent to a peer, decimal or 0x...; 0: none", 0, parse_mark,
     IN(mark), 0, UINT32_MAX},
    {"resolver", "ADDRESS[:PORT]...", NULL, "those of /etc/resolv.conf",
     "name servers, unless others were set over the API", SETTING_RELOAD, parse_resolver,
     IN(resolver), 0, 0},
    {"resolve", "on | off", "on", NULL,
     "names are looked up again when their TTL has passed; off: once, and when somebody asks",
     SETTING_RELOAD, parse_switch, IN(resolve.follow), 0, 0},
    {"resolve_min_ttl", "TIME", "1s", NULL,
     "a shorter TTL is taken for this one; a name that fails is asked for again this soon at first",
     SETTING_RELOAD, parse_time, IN(resolve.min_ttl_ms), 1, 24 * 3600 * 1000},
    {"resolve_max_ttl", "TIME", "5m", NULL, "a longer TTL is taken for this one", SETTING_RELOAD,
     parse_time, IN(resolve.max_ttl_ms), 1, 24 * 3600 * 1000},
    {"resolve_nxdomain", "NUMBER", "3", NULL,
     "so many answers in a row that a name does not exist take its addresses away; 0: never",
     SETTING_RELOAD, parse_count, IN(resolve.max_nxdomain), 0, 1000},
    {"resolve_addresses", "NUMBER", "256", NULL, "addresses of a name that are used at most",
     SETTING_RELOAD, parse_count, IN(resolve.max_addresses), 1, 4096},
    {"vip", "ADDRESS:PORT[/udp] upstream=NAME [algorithm=WORD]", NULL, "none",
     "a virtual endpoint: who connects to this address is sent to a peer of the upstream, by "
     "round-robin, unweighted-round-robin or ip-hash",
     SETTING_RELOAD | SETTING_REPEAT, parse_vip, IN(vips), 0, 0},
    {"log_level", "error | warn | notice | info | debug", "notice", NULL,
     "least important records that are logged", SETTING_OPTION | SETTING_RELOAD, parse_level,
     IN(log_level), 0, 0},
    {"max_body_size", "SIZE", "16m", NULL,
     "largest body of a request; an nginx with 10,000 servers introduces itself with 2m",
     SETTING_RELOAD, parse_count, IN(max_body_size), 1024, 1 << 30},
    {"request_timeout", "TIME", "3s", NULL,
     "a request must have arrived whole, and its answer have been taken, within this time",
     SETTING_RELOAD, parse_time, IN(request_timeout_ms), 10, 3600 * 1000},
    {"max_connections", "NUMBER", "64", NULL,
     "connections that one user may hold at once; all clients over TCP count as one",
     SETTING_RELOAD, parse_count, IN(max_connections), 1, HTTP_CONNECTIONS_MAX},
};
const size_t config_n_settings = sizeof(config_settings) / sizeof(config_settings[0]);
