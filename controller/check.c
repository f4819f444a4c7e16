/* SPDX-License-Identifier: MIT */
#include "check.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check_option.h"
#include "server_line.h"

#define SHOWN_VALUE_SIZE 48 /* of a refused value in the failure's text */

static void *field_of(const struct check_option *option, struct check *check)
{
    return (char *) check + option->field;
}

/* A JSON number, or a string that is nothing but one. */
static int number_parse(const json_t *value, double *ret)
{
    const char *text = json_string_value(value);
    char *end;

    if (json_is_number(value)) {
        *ret = json_number_value(value);
        return 0;
    }
    if (text == NULL || *text == '\0' || text[strspn(text, "0123456789.")] != '\0')
        return -EINVAL;

    double number = strtod(text, &end);

    if (*end != '\0')
        return -EINVAL;
    *ret = number;
    return 0;
}

/* Whole numbers only. */
static int bounded_store(const struct check_option *option, double number, struct check *check)
{
    if (!(number >= option->min && number <= option->max) || (uint32_t) number != number)
        return -EINVAL;
    *(uint32_t *) field_of(option, check) = (uint32_t) number;
    return 0;
}

int check_integer_parse(const struct check_option *option, const char *name, const json_t *value,
                        struct check *check)
{
    double number;

    (void) name;
    if (number_parse(value, &number) < 0)
        return -EINVAL;
    return bounded_store(option, number, check);
}

/* A bare number counts units of unit_ms, cut to whole ms; else nginx's time syntax. */
static int time_option_parse(const struct check_option *option, const json_t *value, double unit_ms,
                             struct check *check)
{
    double number;
    uint32_t ms;

    if (number_parse(value, &number) == 0) {
        number *= unit_ms;
        if (!(number >= 0 && number <= option->max))
            return -EINVAL;
        /* Half of a millionth makes 0.01 s the 10 ms it says, which binary fractions are not. */
        ms = (uint32_t) (number + 5e-7);
    } else if (!json_is_string(value) || time_parse_ms(json_string_value(value), &ms) < 0) {
        return -EINVAL;
    }
    return bounded_store(option, ms, check);
}

static int seconds_parse(const struct check_option *option, const char *name, const json_t *value,
                         struct check *check)
{
    (void) name;
    return time_option_parse(option, value, 1000, check);
}

static int milliseconds_parse(const struct check_option *option, const char *name,
                              const json_t *value, struct check *check)
{
    (void) name;
    return time_option_parse(option, value, 1, check);
}

static int selector_parse(const struct check_option *option, const char *name, const json_t *value,
                          struct check *check)
{
    static const char *const selectors[] = {
        "all", "up", "failing", "down", "temporary_down", "permanent_down"};
    const char *text = json_string_value(value);

    (void) name;
    for (size_t i = 0; text != NULL && i < sizeof(selectors) / sizeof(selectors[0]); i++) {
        if (strcmp(selectors[i], text) == 0) {
            strcpy(field_of(option, check), text);
            return 0;
        }
    }
    return -EINVAL;
}

int check_bool_parse(const struct check_option *option, const char *name, const json_t *value,
                     struct check *check)
{
    const char *text = json_string_value(value);
    bool is_true = json_is_true(value) || (text != NULL && strcmp(text, "true") == 0);

    (void) name;
    if (!is_true && !json_is_false(value) && (text == NULL || strcmp(text, "false") != 0))
        return -EINVAL;
    *(bool *) field_of(option, check) = is_true;
    return 0;
}

int check_bytes_parse(const struct check_option *option, const char *name, const json_t *value,
                      struct check *check)
{
    char **field = field_of(option, check);
    size_t length = json_string_length(value);

    (void) name;
    if (!json_is_string(value) || length < option->min || length > option->max ||
        strlen(json_string_value(value)) != length)
        return -EINVAL;
    if (*field != NULL)
        return -EEXIST;
    *field = strdup(json_string_value(value));
    return *field == NULL ? -ENOMEM : 0;
}

/* A word that goes into the request as it is: visible ASCII only. */
int check_word_parse(const struct check_option *option, const char *name, const json_t *value,
                     struct check *check)
{
    for (const char *p = json_string_value(value); p != NULL && *p != '\0'; p++) {
        if (*p <= ' ' || *p >= 0x7f)
            return -EINVAL;
    }
    return check_bytes_parse(option, name, value, check);
}

static const char seconds_help[] =
    "seconds (5, 0.5) or a time (\"5m\", \"500ms\") of 10 ms to 1 day";

const struct check_option check_common_options[] = {
    {"interval", seconds_parse, CHECK_FIELD(interval_ms), CHECK_INTERVAL_MIN_MS,
     CHECK_INTERVAL_MAX_MS, seconds_help},
    {"fastinter", seconds_parse, CHECK_FIELD(fastinter_ms), CHECK_INTERVAL_MIN_MS,
     CHECK_INTERVAL_MAX_MS, seconds_help},
    {"downinter", seconds_parse, CHECK_FIELD(downinter_ms), CHECK_INTERVAL_MIN_MS,
     CHECK_INTERVAL_MAX_MS, seconds_help},
    {"timeout", milliseconds_parse, CHECK_FIELD(timeout_ms), CHECK_TIMEOUT_MIN_MS,
     CHECK_TIMEOUT_MAX_MS, "milliseconds (500) or a time (\"2s\", \"500ms\") of 1 ms to 1 hour"},
    {"jitter", seconds_parse, CHECK_FIELD(jitter_ms), 0, CHECK_INTERVAL_MAX_MS,
     "seconds (1, 0.5) or a time (\"500ms\") of at most 1 day"},
    {"port", check_integer_parse, CHECK_FIELD(port), 1, 65535, "a port, 1 to 65535"},
    {"fall", check_integer_parse, CHECK_FIELD(fall), 1, CHECK_COUNT_MAX, "a number, 1 to 1000"},
    {"rise", check_integer_parse, CHECK_FIELD(rise), 1, CHECK_COUNT_MAX, "a number, 1 to 1000"},
    {"peers", selector_parse, CHECK_FIELD(peers), 0, 0,
     "all, up, failing, down, temporary_down or permanent_down"},
    {"mandatory", check_bool_parse, CHECK_FIELD(mandatory), 0, 0, "true or false"},
    {"persistent", check_bool_parse, CHECK_FIELD(persistent), 0, 0, "true or false"},
    {0},
};

static const char bytes_help[] = "a string of 1 to 1024 bytes";

static const struct check_option tcp_options[] = {
    {"send", check_bytes_parse, CHECK_FIELD(tcp.send), 1, CHECK_TCP_MAX, bytes_help},
    {"expect", check_bytes_parse, CHECK_FIELD(tcp.expect), 1, CHECK_TCP_MAX, bytes_help},
    {0},
};

static void tcp_clear(struct check *check)
{
    free(check->tcp.send);
    free(check->tcp.expect);
}

static const struct check_kind tcp_kind = {
    .name = "tcp",
    .options = tcp_options,
    .clear = tcp_clear,
};

static const struct check_option agent_options[] = {
    {"send", check_bytes_parse, CHECK_FIELD(agent.send), 1, CHECK_TCP_MAX, bytes_help},
    {0},
};

static void agent_clear(struct check *check)
{
    free(check->agent.send);
}

static const struct check_kind agent_kind = {
    .name = "haproxy-agent-check",
    .options = agent_options,
    .interval_ms = CHECK_AGENT_INTERVAL_DEFAULT_MS,
    .clear = agent_clear,
};

/* It is called with the peer's name. */
static bool lua_sends_host(const struct check *check)
{
    (void) check;
    return true;
}

static const struct check_kind lua_kind = {
    .sends_host = lua_sends_host,
};

static const struct check_kind *const kinds[CHECK_TYPES] = {
    [CHECK_HTTP] = &check_http_kind,
    [CHECK_TCP] = &tcp_kind,
    [CHECK_GRPC] = &check_grpc_kind,
    [CHECK_AGENT] = &agent_kind,
    [CHECK_HTTP_AGENT] = &check_http_agent_kind,
    [CHECK_LUA] = &lua_kind,
};

const struct check_kind *check_kind_of(enum check_type type)
{
    return kinds[type];
}

/* The enum check_type of a built-in monitor, or -ENOENT. */
static int type_of(const char *name)
{
    for (size_t i = 0; i < CHECK_TYPES; i++) {
        if (kinds[i]->name != NULL && strcmp(kinds[i]->name, name) == 0)
            return (int) i;
    }
    return -ENOENT;
}

static int type_unknown(const char *name, struct failure *failure)
{
    char valid[192] = "";
    size_t n = 0;

    for (size_t i = 0; i < CHECK_TYPES; i++) {
        if (kinds[i]->name != NULL)
            n += (size_t) snprintf(valid + n, sizeof(valid) - n, " %s", kinds[i]->name);
    }
    return fail(failure, EINVAL, 400, "MonitorBadOptions", "unknown monitor \"%.64s\"; there are%s",
                name, valid);
}

static const struct check_option *option_find(const struct check_option *options, const char *name)
{
    for (; options != NULL && options->name != NULL; options++) {
        if (strcmp(options->name, CHECK_HEADER_PREFIX) == 0
                ? strncmp(options->name, name, strlen(CHECK_HEADER_PREFIX)) == 0
                : strcmp(options->name, name) == 0)
            return options;
    }
    return NULL;
}

static size_t names_append(const struct check_option *options, char *buffer, size_t size, size_t n)
{
    for (; options->name != NULL && n < size; options++)
        n += (size_t) snprintf(buffer + n, size - n, " %s%s", options->name,
                               strcmp(options->name, CHECK_HEADER_PREFIX) == 0 ? "NAME" : "");
    return n;
}

static int option_unknown(enum check_type type, const char *name, struct failure *failure)
{
    char valid[448];
    size_t n = names_append(kinds[type]->options, valid, sizeof(valid), 0);

    names_append(check_common_options, valid, sizeof(valid), n);
    return fail(failure, EINVAL, 400, "MonitorBadOptions",
                "monitor %s: unknown option \"%.40s\"; there are%s", kinds[type]->name, name,
                valid);
}

/* Stores one option; those of its kind alone are kept as said, too. */
static int option_store(const char *name, const json_t *value, struct check *check,
                        const struct check_option **ret)
{
    const struct check_option *common = option_find(check_common_options, name);
    const struct check_option *option = option_find(kinds[check->type]->options, name);

    if (option == NULL)
        option = common;
    *ret = option;
    if (option != common || option == NULL) {
        json_t *copy = json_deep_copy(value);

        if (json_object_set_new(check->specific, name, copy) < 0)
            return -ENOMEM;
    }
    return option != NULL ? option->parse(option, name, value, check) : 0;
}

static int option_parse(const char *monitor, const char *name, const json_t *value,
                        struct check *check, struct failure *failure)
{
    const struct check_option *option;
    int err = option_store(name, value, check, &option);

    if (err == -ENOMEM)
        return fail_memory(failure);
    if (option == NULL && check->type != CHECK_LUA)
        return option_unknown(check->type, name, failure);
    if (err == -EEXIST)
        return fail(failure, EINVAL, 400, "MonitorBadOptions",
                    "monitor %s: option \"%.40s\" is given under two names", monitor, name);
    if (err < 0) {
        char *shown = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII);

        fail(failure, EINVAL, 400, "MonitorBadOptions",
             "monitor %s: option \"%.40s\" must be %s; not %.*s", monitor, name, option->help,
             SHOWN_VALUE_SIZE, shown != NULL ? shown : "this");
        free(shown);
        return err;
    }
    return 0;
}

static void default_set(uint32_t *field, uint32_t value)
{
    if (*field == 0)
        *field = value;
}

/* No option's least valid value is 0 but jitter's, whose default it is: 0 means not given. */
static int complete(const char *monitor, struct check *check, struct failure *failure)
{
    const struct check_kind *kind = kinds[check->type];

    default_set(&check->interval_ms,
                kind->interval_ms != 0 ? kind->interval_ms : CHECK_INTERVAL_DEFAULT_MS);
    default_set(&check->fastinter_ms, check->interval_ms);
    default_set(&check->downinter_ms, check->interval_ms);
    default_set(&check->timeout_ms, check->interval_ms < CHECK_TIMEOUT_DEFAULT_MS
                                        ? check->interval_ms
                                        : CHECK_TIMEOUT_DEFAULT_MS);
    default_set(&check->fall, 1);
    default_set(&check->rise, 1);
    if (check->peers[0] == '\0')
        strcpy(check->peers, "all");
    if (check->persistent && !check->mandatory)
        return fail(failure, EINVAL, 400, "MonitorBadOptions",
                    "monitor %s: option \"persistent\" goes with \"mandatory\" only", monitor);
    return kind->complete != NULL ? kind->complete(check, failure) : 0;
}

static int parse(enum check_type type, const char *name, const json_t *options, struct check **ret,
                 struct failure *failure)
{
    struct check *check;
    const char *key;
    json_t *value;
    int err = 0;

    if (options != NULL && !json_is_object(options))
        return fail(failure, EINVAL, 400, "MonitorBadOptions",
                    "monitor %s: options must be an object", name);

    check = calloc(1, sizeof(*check));
    if (check != NULL)
        check->specific = json_object();
    if (check == NULL || check->specific == NULL) {
        free(check);
        return fail_memory(failure);
    }
    check->refs = 1;
    check->type = type;

    /* The macro wants it writable only to hand out the iterator. */
    json_object_foreach((json_t *) options, key, value)
    {
        err = option_parse(name, key, value, check, failure);
        if (err < 0)
            break;
    }
    if (err == 0)
        err = complete(name, check, failure);
    if (err < 0) {
        check_free(check);
        return err;
    }
    *ret = check;
    return 0;
}

int check_parse(const char *name, const json_t *options, struct check **ret,
                struct failure *failure)
{
    int type = type_of(name);

    /* An example of Durpina's manual has it so. */
    if (type == CHECK_AGENT && json_object_get(options, "url") != NULL)
        type = CHECK_HTTP_AGENT;
    return type < 0 ? type_unknown(name, failure)
                    : parse((enum check_type) type, name, options, ret, failure);
}

int check_parse_lua(const char *name, const char *upstream, const char *id, const json_t *options,
                    struct check **ret, struct failure *failure)
{
    struct check *check;
    int err;

    if (type_of(name) >= 0)
        return fail(failure, EINVAL, 400, "MonitorBadOptions",
                    "monitor \"%s\" is built in: one written in Lua needs another name", name);
    if (name[0] == '\0' || strlen(name) >= CHECK_NAME_SIZE)
        return fail(failure, EINVAL, 400, "MonitorBadOptions",
                    "a monitor's name must be 1 to %d bytes", CHECK_NAME_SIZE - 1);
    err = parse(CHECK_LUA, name, options, &check, failure);
    if (err < 0)
        return err;
    snprintf(check->lua.upstream, sizeof(check->lua.upstream), "%s", upstream);
    snprintf(check->lua.id, sizeof(check->lua.id), "%s", id);
    *ret = check;
    return 0;
}

struct check *check_ref(struct check *check)
{
    check->refs++;
    return check;
}

void check_free(struct check *check)
{
    if (check == NULL || --check->refs > 0)
        return;
    if (kinds[check->type]->clear != NULL)
        kinds[check->type]->clear(check);
    json_decref(check->specific);
    free(check);
}

bool check_sends_host(const struct check *check)
{
    const struct check_kind *kind = kinds[check->type];

    return kind->sends_host != NULL && kind->sends_host(check);
}

uint32_t check_least_interval_ms(const struct check *check)
{
    uint32_t ms = check->interval_ms;

    ms = check->fastinter_ms < ms ? check->fastinter_ms : ms;
    return check->downinter_ms < ms ? check->downinter_ms : ms;
}

size_t check_host_length(const char *text)
{
    const char *colon = strrchr(text, ':');

    return colon != NULL && strchr(colon, ']') == NULL ? (size_t) (colon - text) : strlen(text);
}

bool check_is_same(const struct check *a, const struct check *b)
{
    if (a == b)
        return true;
    return a->type == b->type && a->interval_ms == b->interval_ms &&
           a->fastinter_ms == b->fastinter_ms && a->downinter_ms == b->downinter_ms &&
           a->timeout_ms == b->timeout_ms && a->jitter_ms == b->jitter_ms && a->fall == b->fall &&
           a->rise == b->rise && json_equal(a->specific, b->specific) &&
           (a->type != CHECK_LUA ||
            (strcmp(a->lua.upstream, b->lua.upstream) == 0 && strcmp(a->lua.id, b->lua.id) == 0));
}
