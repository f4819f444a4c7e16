/* SPDX-License-Identifier: MIT */
/* The JSON that comes in over the control API (docs/api.md): servers, registrations. Pure. */
#ifndef DURPINAD_API_PARSE_H
#define DURPINAD_API_PARSE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine.h"
#include "failure.h"
#include "model.h"
#include "server_line.h"

/* What may stand in a server object that comes in. */
enum api_server_form {
    API_SERVER_ADD,    /* POST: a new one, `server` is needed */
    API_SERVER_CHANGE, /* PATCH: what is not given stays */
    API_SERVER_FILE,   /* a `server` line as an nginx found it, with addresses */
};

/*
 * Parses a server object. current: the server to be changed (API_SERVER_CHANGE), else NULL: lifting
 * `drain` does not lift `down`. *ret is to be cleared with server_spec_clear(). -EINVAL with the
 * code of the culprit, -ENOMEM.
 */
int api_parse_server(const json_t *object, enum api_server_form form, const struct server *current,
                     struct server_spec *ret, struct failure *failure);

/*
 * Parses one upstream block of an nginx. name: from the path, else NULL and the object names it.
 * The strings of *ret belong to object; free the rest with api_registration_clear().
 */
int api_parse_registration(const json_t *object, const char *name, struct registration *ret,
                           struct failure *failure);
void api_registration_clear(struct registration *registration);

/* Every key of object must be one of names (ended by NULL). -EINVAL names the first that is not. */
int api_check_fields(const json_t *object, const char *const *names, struct failure *failure);

/* A member of the object. -EINVAL with UpstreamConfFormatError if it is missing or another type. */
int api_get_string(const json_t *object, const char *name, const char **ret,
                   struct failure *failure);
int api_get_bool(const json_t *object, const char *name, bool *ret, struct failure *failure);
int api_get_uint(const json_t *object, const char *name, uint64_t max, uint64_t *ret,
                 struct failure *failure);
int api_get_array(const json_t *object, const char *name, const json_t **ret,
                  struct failure *failure);

#endif
