/* SPDX-License-Identifier: MIT */
#include "api_parse.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* What nginx assumes where a server has no port. */
#define DEFAULT_PORT 80

#define VALUE_SIZE 96

/* --- members ---------------------------------------------------------------------------------- */

/* The value as it came, cut to what fits into a text. */
static const char *show(const json_t *value, char buffer[VALUE_SIZE])
{
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    size_t len = text == NULL ? 0 : strlen(text);

    snprintf(buffer, VALUE_SIZE, "%.*s%s", VALUE_SIZE - 4, text == NULL ? "?" : text,
             len > VALUE_SIZE - 4 ? "..." : "");
    free(text);
    return buffer;
}

static int wrong_type(const json_t *object, const char *name, const char *type,
                      struct failure *failure)
{
    const json_t *value = json_object_get(object, name);
    char text[VALUE_SIZE];

    if (value == NULL)
        return fail(failure, EINVAL, 400, "UpstreamConfFormatError", "\"%s\" is missing", name);
    return fail(failure, EINVAL, 400, "UpstreamConfFormatError", "\"%s\" is %s, not %s", name,
                show(value, text), type);
}

int api_get_string(const json_t *object, const char *name, const char **ret,
                   struct failure *failure)
{
    const json_t *value = json_object_get(object, name);

    if (!json_is_string(value))
        return wrong_type(object, name, "a string", failure);
    *ret = json_string_value(value);
    return 0;
}

int api_get_bool(const json_t *object, const char *name, bool *ret, struct failure *failure)
{
    const json_t *value = json_object_get(object, name);

    if (!json_is_boolean(value))
        return wrong_type(object, name, "true or false", failure);
    *ret = json_is_true(value);
    return 0;
}

/* A JSON integer, or a string of digits as NGINX Plus clients send them, from 0 to max. */
static int parse_uint(const json_t *value, uint64_t max, uint64_t *ret)
{
    uint64_t number = 0;
    const char *digits;

    if (json_is_integer(value)) {
        if (json_integer_value(value) < 0)
            return -ERANGE;
        number = (uint64_t) json_integer_value(value);
    } else if (json_is_string(value) && *json_string_value(value) != '\0') {
        for (digits = json_string_value(value); *digits != '\0'; digits++) {
            if (*digits < '0' || *digits > '9')
                return -EINVAL;
            number = number * 10 + (uint64_t) (*digits - '0');
            if (number > max)
                return -ERANGE;
        }
    } else {
        return -EINVAL;
    }
    if (number > max)
        return -ERANGE;
    *ret = number;
    return 0;
}

int api_get_uint(const json_t *object, const char *name, uint64_t max, uint64_t *ret,
                 struct failure *failure)
{
    char text[VALUE_SIZE];

    if (parse_uint(json_object_get(object, name), max, ret) == 0)
        return 0;
    snprintf(text, sizeof(text), "an integer from 0 to %" PRIu64, max);
    return wrong_type(object, name, text, failure);
}

int api_get_array(const json_t *object, const char *name, const json_t **ret,
                  struct failure *failure)
{
    const json_t *value = json_object_get(object, name);

    if (!json_is_array(value))
        return wrong_type(object, name, "an array", failure);
    *ret = value;
    return 0;
}

int api_check_fields(const json_t *object, const char *const *names, struct failure *failure)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *) object, key, value)
    {
        const char *const *name = names;

        while (*name != NULL && strcmp(*name, key) != 0)
            name++;
        if (*name == NULL)
            return fail(failure, EINVAL, 400, "UpstreamConfFormatError",
                        "there is no field \"%.100s\" here", key);
    }
    return 0;
}

/* --- servers ---------------------------------------------------------------------------------- */

enum form_bit {
    IN_ADD = 1 << API_SERVER_ADD,
    IN_CHANGE = 1 << API_SERVER_CHANGE,
    IN_FILE = 1 << API_SERVER_FILE,
    IN_ALL = IN_ADD | IN_CHANGE | IN_FILE,
};

struct field {
    const char *name;
    unsigned forms; /* enum form_bit: where it may be given */
    unsigned set;   /* enum server_set */
    const char *code;
    const char *valid; /* in words */
    size_t offset;     /* in struct server_settings */
    uint32_t max;
    /* 0, -EINVAL: the value is bad, or another -errno with *failure filled. */
    int (*parse)(const struct field *field, const json_t *value, struct server_spec *spec,
                 struct failure *failure);
};

static uint32_t *setting(const struct field *field, struct server_spec *spec)
{
    return (uint32_t *) (void *) ((char *) &spec->settings + field->offset);
}

static int parse_number(const struct field *field, const json_t *value, struct server_spec *spec,
                        struct failure *failure)
{
    uint64_t number;

    (void) failure;
    if (parse_uint(value, field->max, &number) < 0)
        return -EINVAL;
    *setting(field, spec) = (uint32_t) number;
    return 0;
}

/* A bare number is in seconds, as in nginx. */
static int parse_time(const struct field *field, const json_t *value, struct server_spec *spec,
                      struct failure *failure)
{
    uint64_t seconds;

    (void) failure;
    if (json_is_string(value))
        return time_parse_ms(json_string_value(value), setting(field, spec)) < 0 ? -EINVAL : 0;
    if (parse_uint(value, field->max / 1000, &seconds) < 0)
        return -EINVAL;
    *setting(field, spec) = (uint32_t) seconds * 1000;
    return 0;
}

static int parse_flag(const struct field *field, const json_t *value, struct server_spec *spec,
                      struct failure *failure)
{
    (void) failure;
    if (!json_is_boolean(value))
        return -EINVAL;
    if (field->set == SERVER_SET_BACKUP)
        spec->backup = json_is_true(value);
    return 0; /* down and drain together: parse_admin() */
}

static int parse_state(const struct field *field, const json_t *value, struct server_spec *spec,
                       struct failure *failure)
{
    enum durpina_admin admin;

    (void) field;
    (void) failure;
    if (!json_is_string(value) || model_admin_parse(json_string_value(value), &admin) < 0)
        return -EINVAL;
    spec->settings.admin = admin;
    return 0;
}

static int parse_name(const struct field *field, const json_t *value, struct server_spec *spec,
                      struct failure *failure)
{
    (void) field;
    if (!json_is_string(value))
        return -EINVAL;
    return server_name_parse(json_string_value(value), DEFAULT_PORT, spec, failure) < 0 ? -EBADMSG
                                                                                        : 0;
}

static int parse_addresses(const struct field *field, const json_t *value, struct server_spec *spec,
                           struct failure *failure)
{
    const json_t *text;
    size_t i;

    if (!json_is_array(value))
        return -EINVAL;
    free(spec->addresses);
    spec->n_addresses = 0;
    spec->addresses = calloc(json_array_size(value) + 1, sizeof(*spec->addresses));
    if (spec->addresses == NULL)
        return fail_memory(failure);
    json_array_foreach(value, i, text)
    {
        char shown[VALUE_SIZE];

        if (!json_is_string(text) ||
            addr_parse(json_string_value(text), DEFAULT_PORT, &spec->addresses[i]) < 0) {
            fail(failure, EINVAL, 400, field->code, "%s is no address", show(text, shown));
            return -EBADMSG;
        }
        spec->n_addresses++;
    }
    return 0;
}

/* What it makes of the name waits for the whole object. "" is none. */
static int parse_service(const struct field *field, const json_t *value, struct server_spec *spec,
                         struct failure *failure)
{
    (void) field;
    (void) failure;
    if (!json_is_string(value) || json_string_length(value) >= sizeof(spec->service))
        return -EINVAL;
    strcpy(spec->service, json_string_value(value));
    return 0;
}

/* A field that NGINX Plus has and that has no meaning here may be said to be empty. */
static int parse_empty(const struct field *field, const json_t *value, struct server_spec *spec,
                       struct failure *failure)
{
    (void) field;
    (void) spec;
    (void) failure;
    return json_is_string(value) && json_string_length(value) == 0 ? 0 : -EINVAL;
}

#define SETTING(name) offsetof(struct server_settings, name)
#define TIME_WORDS "a time like \"10s\" or \"500ms\", or a number of seconds"
#define COUNT_MAX INT32_MAX

static const struct field fields[] = {
    {"server", IN_ALL, SERVER_SET_NAME, "UpstreamBadAddress",
     "a string: host, host:port, "
     "[IPv6]:port or unix:/path",
     0, 0, parse_name},
    {"weight", IN_ALL, SERVER_SET_WEIGHT, "UpstreamBadWeight", "an integer from 0 to 65535",
     SETTING(weight), DURPINA_WEIGHT_MAX, parse_number},
    {"max_conns", IN_ALL, SERVER_SET_MAX_CONNS, "UpstreamBadMaxConns",
     "an integer from 0 to 2147483647", SETTING(max_conns), COUNT_MAX, parse_number},
    {"max_fails", IN_ALL, SERVER_SET_MAX_FAILS, "UpstreamBadMaxFails",
     "an integer from 0 to 2147483647", SETTING(max_fails), COUNT_MAX, parse_number},
    {"fail_timeout", IN_ADD | IN_CHANGE, SERVER_SET_FAIL_TIMEOUT, "UpstreamBadFailTimeout",
     TIME_WORDS, SETTING(fail_timeout_ms), COUNT_MAX, parse_time},
    {"slow_start", IN_ADD | IN_CHANGE, SERVER_SET_SLOW_START, "UpstreamBadSlowStart", TIME_WORDS,
     SETTING(slow_start_ms), COUNT_MAX, parse_time},
    {"fail_timeout_ms", IN_FILE, SERVER_SET_FAIL_TIMEOUT, "UpstreamBadFailTimeout",
     "an integer from 0 to 2147483647", SETTING(fail_timeout_ms), COUNT_MAX, parse_number},
    {"slow_start_ms", IN_FILE, SERVER_SET_SLOW_START, "UpstreamBadSlowStart",
     "an integer from 0 to 2147483647", SETTING(slow_start_ms), COUNT_MAX, parse_number},
    {"down", IN_ALL, SERVER_SET_ADMIN, "UpstreamConfFormatError", "true or false", 0, 0,
     parse_flag},
    {"drain", IN_ADD | IN_CHANGE, SERVER_SET_ADMIN, "UpstreamConfFormatError", "true or false", 0,
     0, parse_flag},
    {"state", IN_CHANGE, SERVER_SET_ADMIN, "BadState", "\"up\", \"down\", \"drain\" or \"maint\"",
     0, 0, parse_state},
    {"backup", IN_ADD | IN_FILE, SERVER_SET_BACKUP, "UpstreamConfFormatError", "true or false", 0,
     0, parse_flag},
    {"addresses", IN_FILE, 0, "UpstreamBadAddress", "an array of addresses", 0, 0, parse_addresses},
    {"route", IN_ADD | IN_CHANGE, 0, "UpstreamConfFormatError", "supported (only \"\")", 0, 0,
     parse_empty},
    {"service", IN_ADD, 0, "UpstreamConfFormatError",
     "a name like \"http\" or \"_http._tcp\" of at most 63 bytes", 0, 0, parse_service},
};

/* What a server object shows and nobody can set. */
static const char *const immutable_fields[] = {"id",   "service", "backup",         "parent",
                                               "host", "origin",  "initial_weight", "operator",
                                               NULL};

static int unknown_field(const char *key, struct failure *failure)
{
    for (const char *const *name = immutable_fields; *name != NULL; name++)
        if (strcmp(*name, key) == 0)
            return fail(failure, EINVAL, 400, "UpstreamServerImmutable",
                        "\"%s\" of a server cannot be set", key);
    return fail(failure, EINVAL, 400, "UpstreamConfFormatError",
                "a server has no field \"%.100s\" here", key);
}

static int parse_field(const char *key, const json_t *value, enum api_server_form form,
                       struct server_spec *spec, struct failure *failure)
{
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        const struct field *field = &fields[i];
        char shown[VALUE_SIZE];
        int err;

        if (strcmp(field->name, key) != 0 || !(field->forms & (1U << form)))
            continue;
        err = field->parse(field, value, spec, failure);
        if (err == -EINVAL)
            return fail(failure, EINVAL, 400, field->code, "%s %s is not %s", field->name,
                        show(value, shown), field->valid);
        if (err < 0)
            return err == -EBADMSG ? -EINVAL : err;
        /* down and drain count once it is known what they change. */
        if (field->parse != parse_flag || field->set != SERVER_SET_ADMIN)
            spec->set |= field->set;
        return 0;
    }
    return unknown_field(key, failure);
}

/* A server in maintenance is shown as down. */
static enum durpina_admin shown_as(enum durpina_admin admin)
{
    return admin == DURPINA_ADMIN_MAINT ? DURPINA_ADMIN_DOWN : admin;
}

/*
 * down and drain are two switches over one word. true puts it; false takes away its own only, so
 * that "drain": false does not bring a server up that an operator has put down.
 */
static int parse_admin(const json_t *object, const struct server *current, struct server_spec *spec,
                       struct failure *failure)
{
    static const struct {
        const char *name;
        enum durpina_admin admin;
    } switches[] = {{"drain", DURPINA_ADMIN_DRAIN}, {"down", DURPINA_ADMIN_DOWN}};
    const json_t *down = json_object_get(object, "down");
    const json_t *drain = json_object_get(object, "drain");

    if (json_is_true(down) && json_is_true(drain))
        return fail(failure, EINVAL, 400, "UpstreamConfFormatError",
                    "\"down\" and \"drain\" cannot both be true");
    if ((spec->set & SERVER_SET_ADMIN) && (json_is_true(down) || json_is_true(drain)))
        return fail(failure, EINVAL, 400, "UpstreamConfFormatError",
                    "\"state\" excludes \"down\" and \"drain\"");
    if (spec->set & SERVER_SET_ADMIN)
        return 0;
    for (size_t i = 0; i < sizeof(switches) / sizeof(switches[0]); i++) {
        const json_t *value = json_object_get(object, switches[i].name);

        if (json_is_true(value))
            spec->settings.admin = switches[i].admin;
        else if (json_is_false(value) && current != NULL &&
                 shown_as(current->now.admin) == switches[i].admin &&
                 !(spec->set & SERVER_SET_ADMIN))
            spec->settings.admin = DURPINA_ADMIN_UP;
        else
            continue;
        spec->set |= SERVER_SET_ADMIN;
    }
    return 0;
}

int api_parse_server(const json_t *object, enum api_server_form form, const struct server *current,
                     struct server_spec *ret, struct failure *failure)
{
    struct server_spec spec = {.settings = server_settings_default};
    const char *key;
    json_t *value;
    int err = 0;

    if (!json_is_object(object))
        return fail(failure, EINVAL, 400, "UpstreamConfFormatError", "a server is a JSON object");
    json_object_foreach((json_t *) object, key, value)
    {
        err = parse_field(key, value, form, &spec, failure);
        if (err < 0)
            break;
    }
    if (err == 0 && form != API_SERVER_CHANGE && !(spec.set & SERVER_SET_NAME))
        err = fail(failure, EINVAL, 400, "UpstreamBadAddress", "\"server\" is missing");
    if (err == 0)
        err = parse_admin(object, current, &spec, failure);
    if (err == 0 && spec.service[0] != '\0')
        err = server_set_service(&spec, spec.service, failure);
    if (err < 0) {
        server_spec_clear(&spec);
        return err;
    }
    *ret = spec;
    return 0;
}

/* --- registrations ---------------------------------------------------------------------------- */

void api_registration_clear(struct registration *registration)
{
    for (size_t i = 0; i < registration->n_specs; i++)
        server_spec_clear(&registration->specs[i]);
    free(registration->specs);
    memset(registration, 0, sizeof(*registration));
}

/* NULL if it is not said. */
static int parse_algorithm(const json_t *object, const char *upstream, const struct algorithm **ret,
                           struct failure *failure)
{
    const char *word = "";
    bool ketama = false;
    int err;

    *ret = NULL;
    if (json_object_get(object, "algorithm") == NULL && json_object_get(object, "ketama") == NULL)
        return 0;
    err = api_get_string(object, "algorithm", &word, failure);
    if (err == 0 && json_object_get(object, "ketama") != NULL)
        err = api_get_bool(object, "ketama", &ketama, failure);
    if (err < 0)
        return err;
    *ret = model_algorithm(word, ketama);
    if (*ret == NULL)
        return fail(failure, EINVAL, 400, "UpstreamConfFormatError",
                    "upstream \"%.64s\": there is no algorithm \"%.64s\"%s", upstream, word,
                    ketama ? " with ketama" : "");
    return 0;
}

int api_parse_registration(const json_t *object, const char *name, struct registration *ret,
                           struct failure *failure)
{
    struct registration registration = {.upstream = name, .durpina = true};
    const json_t *servers, *server;
    size_t i;
    int err = 0;

    if (!json_is_object(object))
        return fail(failure, EINVAL, 400, "UpstreamConfFormatError",
                    "an upstream is a JSON object");
    if (name == NULL)
        err = api_get_string(object, "name", &registration.upstream, failure);
    if (err == 0 && json_object_get(object, "durpina") != NULL)
        err = api_get_bool(object, "durpina", &registration.durpina, failure);
    if (err == 0)
        err = parse_algorithm(object, registration.upstream, &registration.algorithm, failure);
    if (err == 0)
        err = api_get_array(object, "servers", &servers, failure);
    if (err < 0)
        return err;

    registration.specs = calloc(json_array_size(servers) + 1, sizeof(*registration.specs));
    if (registration.specs == NULL)
        return fail_memory(failure);
    json_array_foreach(servers, i, server)
    {
        struct failure reason;

        err = api_parse_server(server, API_SERVER_FILE, NULL, &registration.specs[i], &reason);
        if (err < 0) {
            fail(failure, -err, reason.status, reason.code, "upstream \"%.64s\": %s",
                 registration.upstream, reason.text);
            api_registration_clear(&registration);
            return err;
        }
        registration.n_specs++;
    }
    *ret = registration;
    return 0;
}
