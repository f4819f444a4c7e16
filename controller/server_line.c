/* SPDX-License-Identifier: MIT */
#include "server_line.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nginx_conf.h"

#define COUNT_MAX INT32_MAX /* of max_conns and max_fails: what nginx's 32 bit builds take */
#define TIME_MAX_MS INT32_MAX

const struct server_settings server_settings_default = {
    .weight = 1,
    .max_fails = 1,
    .fail_timeout_ms = 10000,
    .admin = DURPINA_ADMIN_UP,
};

void server_spec_clear(struct server_spec *spec)
{
    free(spec->addresses);
    memset(spec, 0, sizeof(*spec));
}

/* Digits only, at most max. */
static int parse_number(const char *text, uint32_t max, uint32_t *ret)
{
    uint64_t number = 0;

    if (*text == '\0')
        return -EINVAL;
    for (; *text != '\0'; text++) {
        if (!isdigit((unsigned char) *text))
            return -EINVAL;
        number = number * 10 + (uint64_t) (*text - '0');
        if (number > max)
            return -ERANGE;
    }
    *ret = (uint32_t) number;
    return 0;
}

/* As ngx_parse_time(): units in descending order, each once; the last number may lack its "s". */
int time_parse_ms(const char *text, uint32_t *ret_ms)
{
    static const struct {
        const char *name;
        uint64_t ms;
    } units[] = {
        {"y", 365 * 86400000ULL},
        {"M", 30 * 86400000ULL},
        {"w", 7 * 86400000ULL},
        {"d", 86400000},
        {"h", 3600000},
        {"ms", 1},
        {"m", 60000},
        {"s", 1000},
    };
    uint64_t total_ms = 0, last_ms = UINT64_MAX;

    do {
        uint64_t number = 0, unit_ms = 0;

        if (!isdigit((unsigned char) *text))
            return -EINVAL;
        for (; isdigit((unsigned char) *text); text++)
            if (number <= TIME_MAX_MS) /* larger ones are out of range in any unit */
                number = number * 10 + (uint64_t) (*text - '0');
        if (*text == '\0')
            unit_ms = 1000;
        for (size_t i = 0; i < sizeof(units) / sizeof(units[0]) && unit_ms == 0; i++) {
            size_t len = strlen(units[i].name);

            if (strncmp(text, units[i].name, len) == 0) {
                unit_ms = units[i].ms;
                text += len;
            }
        }
        if (unit_ms == 0 || unit_ms >= last_ms)
            return -EINVAL;
        last_ms = unit_ms;
        total_ms += number * unit_ms;
        if (total_ms > TIME_MAX_MS)
            return -ERANGE;
        if (*text == ' ')
            text++;
    } while (*text != '\0');

    *ret_ms = (uint32_t) total_ms;
    return 0;
}

/* What DNS and the hosts file use, and what cannot end a word in any syntax of ours. */
static bool is_host_name(const char *host)
{
    for (const char *c = host; *c != '\0'; c++)
        if (!isalnum((unsigned char) *c) && strchr("-._", *c) == NULL)
            return false;
    return host[0] != '\0' && host[0] != '.' && host[0] != '-';
}

static int bad_address(struct failure *failure, const char *text, const char *why)
{
    return fail(failure, EINVAL, 400, "UpstreamBadAddress", "server \"%.100s\": %s", text, why);
}

/* Splits "host:port" or "[IPv6]:port"; the port may be missing. */
static int split_host(const char *text, char *host, size_t size, const char **ret_port,
                      struct failure *failure)
{
    bool bracketed = text[0] == '[';
    const char *from = text + bracketed, *to;

    to = bracketed ? strchr(from, ']') : strchrnul(from, ':');
    if (to == NULL)
        return bad_address(failure, text, "']' is missing");
    if ((size_t) (to - from) >= size)
        return bad_address(failure, text, "too long");
    memcpy(host, from, (size_t) (to - from));
    host[to - from] = '\0';
    if (bracketed)
        to++;
    if (*to == '\0') {
        *ret_port = NULL;
    } else if (*to != ':') {
        return bad_address(failure, text, "':' and a port expected behind ']'");
    } else {
        *ret_port = to + 1;
    }
    if (*ret_port != NULL && strchr(*ret_port, ':') != NULL)
        return bad_address(failure, text, "an IPv6 address is written in brackets: [::1]:80");
    return 0;
}

int server_name_parse(const char *text, uint16_t default_port, struct server_spec *ret,
                      struct failure *failure)
{
    char host[DURPINA_NAME_SIZE], name[DURPINA_NAME_SIZE];
    const char *port_text;
    uint32_t port = default_port;
    struct addr addr;
    int err;

    if (strncmp(text, "unix:", 5) == 0) {
        if (addr_parse(text, 0, &addr) < 0)
            return bad_address(failure, text,
                               "a socket is unix:/PATH with a path of at most 107 bytes");
        for (const char *c = text; *c != '\0'; c++)
            if (*c <= ' ' || *c > '~')
                return bad_address(failure, text, "a path is printable ASCII without spaces");
        snprintf(ret->name, sizeof(ret->name), "%s", text);
        snprintf(ret->host, sizeof(ret->host), "%s", text);
        ret->port = 0;
        ret->portless = false;
        ret->set |= SERVER_SET_NAME;
        return 0;
    }

    err = split_host(text, host, sizeof(host), &port_text, failure);
    if (err < 0)
        return err;
    if (port_text != NULL && (parse_number(port_text, UINT16_MAX, &port) < 0 || port == 0))
        return bad_address(failure, text, "the port must be 1 to 65535");

    int len = snprintf(name, sizeof(name), text[0] == '[' ? "[%s]:%u" : "%s:%u", host, port);

    if (len >= (int) sizeof(name))
        return bad_address(failure, text, "too long");
    if (addr_parse(name, (uint16_t) port, &addr) < 0) {
        if (text[0] == '[')
            return bad_address(failure, text, "not an IPv6 address");
        if (!is_host_name(host))
            return bad_address(failure, text, "not a host name");
        /* inet_aton() and getaddrinfo() would take "10.1" and "010.0.0.1" for other hosts. */
        if (strspn(host, "0123456789.") == strlen(host))
            return bad_address(failure, text, "not an IPv4 address");
    }
    memcpy(ret->name, name, sizeof(name));
    memcpy(ret->host, host, sizeof(host));
    ret->port = (uint16_t) port;
    ret->portless = port_text == NULL;
    ret->set |= SERVER_SET_NAME;
    return 0;
}

/* A row of labels; the first dot would begin the name, the last end it. */
static bool is_service(const char *service)
{
    return is_host_name(service) && strlen(service) < SERVER_SERVICE_SIZE &&
           service[strlen(service) - 1] != '.' && strstr(service, "..") == NULL;
}

int server_set_service(struct server_spec *spec, const char *service, struct failure *failure)
{
    bool in_full = strchr(service, '.') != NULL;
    char name[DURPINA_NAME_SIZE], kept[SERVER_SERVICE_SIZE] = "";
    struct addr addr;
    int len;

    if (!is_service(service))
        return fail(failure, EINVAL, 400, "UpstreamConfFormatError",
                    "service \"%.80s\" is no name like http or _http._tcp of at most %d bytes",
                    service, SERVER_SERVICE_SIZE - 1);
    if (!spec->portless || addr_parse(spec->name, 0, &addr) == 0)
        return bad_address(failure, spec->name,
                           "with a service it is a host name without a port: SRV records tell it");
    len = snprintf(name, sizeof(name), in_full ? "%s.%s" : "_%s._tcp.%s", service, spec->host);
    if (len >= (int) sizeof(name))
        return bad_address(failure, spec->name, "too long with the service");
    strcpy(kept, service);
    memcpy(spec->name, name, sizeof(name));
    memcpy(spec->service, kept, sizeof(kept));
    spec->port = 0;
    spec->portless = false;
    spec->set |= SERVER_SET_SERVICE;
    return 0;
}

int server_service_name_parse(const char *name, const char *service, struct server_spec *ret)
{
    char prefix[SERVER_SERVICE_SIZE + sizeof("_._tcp")];
    struct server_spec spec = {0};
    struct failure failure;
    size_t len = 0;

    /* Two labels, and the rest is the host: whatever it was, the name is the same again. */
    if (service[0] == '\0') {
        for (int dots = 0; name[len] != '\0' && (dots += name[len] == '.') < 2;)
            len++;
        snprintf(prefix, sizeof(prefix), "%.*s", (int) len, name);
        service = prefix;
    } else {
        len = (size_t) snprintf(prefix, sizeof(prefix),
                                strchr(service, '.') != NULL ? "%s" : "_%s._tcp", service);
    }
    if (len >= sizeof(prefix) || strncmp(name, prefix, len) != 0 || name[len] != '.' ||
        server_name_parse(name + len + 1, 0, &spec, &failure) < 0 ||
        server_set_service(&spec, service, &failure) < 0 || strcmp(spec.name, name) != 0)
        return -EINVAL;
    *ret = spec;
    return 0;
}

struct parameter;

/* value: what stands behind '=', NULL for a flag. Returns -EINVAL or -ERANGE. */
typedef int (*parameter_fn)(const struct parameter *parameter, const char *value,
                            struct server_spec *spec);

struct parameter {
    const char *name;
    bool has_value;
    unsigned set;
    const char *code;  /* of the API, for a bad value */
    const char *valid; /* in words */
    uint32_t min, max;
    size_t offset; /* in struct server_settings */
    parameter_fn parse;
};

static uint32_t *setting(const struct parameter *parameter, struct server_spec *spec)
{
    return (uint32_t *) (void *) ((char *) &spec->settings + parameter->offset);
}

static int set_number(const struct parameter *parameter, const char *value,
                      struct server_spec *spec)
{
    uint32_t number;
    int err = parse_number(value, parameter->max, &number);

    if (err < 0 || number < parameter->min)
        return -EINVAL;
    *setting(parameter, spec) = number;
    return 0;
}

static int set_time(const struct parameter *parameter, const char *value, struct server_spec *spec)
{
    return time_parse_ms(value, setting(parameter, spec));
}

static int set_admin(const struct parameter *parameter, const char *value, struct server_spec *spec)
{
    (void) value;
    spec->settings.admin = parameter->name[1] == 'o' ? DURPINA_ADMIN_DOWN : DURPINA_ADMIN_DRAIN;
    return 0;
}

static int set_backup(const struct parameter *parameter, const char *value,
                      struct server_spec *spec)
{
    (void) parameter;
    (void) value;
    spec->backup = true;
    return 0;
}

/* What it makes of the name waits for the whole line. */
static int set_service(const struct parameter *parameter, const char *value,
                       struct server_spec *spec)
{
    (void) parameter;
    if (value[0] == '\0' || strlen(value) >= sizeof(spec->service))
        return -EINVAL;
    strcpy(spec->service, value);
    return 0;
}

/* A word of nginx's: names are looked up again here without it. */
static int set_resolve(const struct parameter *parameter, const char *value,
                       struct server_spec *spec)
{
    (void) parameter;
    (void) value;
    (void) spec;
    return 0;
}

#define SETTING(field) offsetof(struct server_settings, field)

static const struct parameter parameters[] = {
    {"weight", true, SERVER_SET_WEIGHT, "UpstreamBadWeight", "1 to 65535", 1, DURPINA_WEIGHT_MAX,
     SETTING(weight), set_number},
    {"max_conns", true, SERVER_SET_MAX_CONNS, "UpstreamBadMaxConns", "0 to 2147483647", 0,
     COUNT_MAX, SETTING(max_conns), set_number},
    {"max_fails", true, SERVER_SET_MAX_FAILS, "UpstreamBadMaxFails", "0 to 2147483647", 0,
     COUNT_MAX, SETTING(max_fails), set_number},
    {"fail_timeout", true, SERVER_SET_FAIL_TIMEOUT, "UpstreamBadFailTimeout",
     "a time like 10, 10s, 1m30s or 500ms", 0, 0, SETTING(fail_timeout_ms), set_time},
    {"slow_start", true, SERVER_SET_SLOW_START, "UpstreamBadSlowStart",
     "a time like 10, 10s, 1m30s or 500ms", 0, 0, SETTING(slow_start_ms), set_time},
    {"backup", false, SERVER_SET_BACKUP, NULL, NULL, 0, 0, 0, set_backup},
    {"down", false, SERVER_SET_ADMIN, NULL, NULL, 0, 0, 0, set_admin},
    {"drain", false, SERVER_SET_ADMIN, NULL, NULL, 0, 0, 0, set_admin},
    {"service", true, SERVER_SET_SERVICE, "UpstreamConfFormatError",
     "a name like http or _http._tcp of at most 63 bytes", 0, 0, 0, set_service},
    {"resolve", false, SERVER_SET_RESOLVE, NULL, NULL, 0, 0, 0, set_resolve},
};
#define N_PARAMETERS (sizeof(parameters) / sizeof(parameters[0]))

static int unknown_parameter(const char *word, struct failure *failure)
{
    char known[160];
    size_t at = 0;

    for (size_t i = 0; i < N_PARAMETERS; i++)
        at += (size_t) snprintf(known + at, sizeof(known) - at, "%s%s%s", i > 0 ? ", " : "",
                                parameters[i].name, parameters[i].has_value ? "=" : "");
    return fail(failure, EINVAL, 400, "UpstreamConfFormatError",
                "unknown parameter \"%.80s\": known are %s", word, known);
}

static int parse_parameter(const char *word, struct server_spec *spec, struct failure *failure)
{
    size_t len = strcspn(word, "=");

    for (size_t i = 0; i < N_PARAMETERS; i++) {
        const struct parameter *p = &parameters[i];

        if (strlen(p->name) != len || strncmp(p->name, word, len) != 0 ||
            p->has_value != (word[len] == '='))
            continue;
        if ((spec->set & p->set) != 0)
            return fail(failure, EINVAL, 400, "UpstreamConfFormatError",
                        p->set == SERVER_SET_ADMIN ? "\"%.80s\": down or drain, once"
                                                   : "\"%.80s\": given twice",
                        word);
        if (p->parse(p, p->has_value ? word + len + 1 : NULL, spec) < 0)
            return fail(failure, EINVAL, 400, p->code, "\"%.80s\": must be %s", word, p->valid);
        spec->set |= p->set;
        return 0;
    }
    return unknown_parameter(word, failure);
}

int server_line_parse(const char *line, uint16_t default_port, struct server_spec *ret,
                      struct failure *failure)
{
    struct server_spec spec = {.settings = server_settings_default};
    char **words;
    size_t n;
    int err = nginx_conf_split(line, &words, &n, failure);

    if (err < 0)
        return err;
    err = server_name_parse(words[0], default_port, &spec, failure);
    for (size_t i = 1; i < n && err == 0; i++)
        err = parse_parameter(words[i], &spec, failure);
    if (err == 0 && spec.service[0] != '\0')
        err = server_set_service(&spec, spec.service, failure);
    nginx_conf_free_words(words);
    if (err == 0)
        *ret = spec;
    return err;
}
