/* SPDX-License-Identifier: MIT */
/*
 * The model as JSON, for the state file. Pure. What the maps know better (states, generations,
 * counters) is not in it.
 */
#ifndef DURPINAD_MODEL_JSON_H
#define DURPINAD_MODEL_JSON_H

#include <jansson.h>

#include "model.h"

#define MODEL_JSON_VERSION 1

/* The settings, one entry for each field: whoever treats them alike goes by this. */
struct setting_field {
    const char *name;
    unsigned set;  /* enum server_set */
    size_t offset; /* of a uint32_t in struct server_settings */
};
#define N_SETTING_FIELDS 6
extern const struct setting_field setting_fields[N_SETTING_FIELDS];

static inline uint32_t *setting_field(struct server_settings *settings, size_t field)
{
    return (uint32_t *) (void *) ((char *) settings + setting_fields[field].offset);
}

/* Of settings in full; NULL when out of memory. */
json_t *settings_to_json(const struct server_settings *settings);
/* -EINVAL if a field is missing, no integer or out of range. */
int settings_from_json(const json_t *json, struct server_settings *ret);

/* Parts of the state file, each without what model_text.h puts into it: the upstreams and instances
 * of the model, the servers of an upstream. NULL when out of memory. */
json_t *model_to_json(const struct model *model);
json_t *upstream_to_json(const struct upstream *upstream);
json_t *server_to_json(const struct server *server);
json_t *instance_to_json(const struct instance *instance);

/*
 * Fills an empty model. Peers get no ids: those are in the maps. -EINVAL with what is wrong in
 * failure, -ENOMEM; the model is empty then.
 */
int model_from_json(const json_t *json, struct model *model, struct failure *failure);

#endif
