/* SPDX-License-Identifier: MIT */
/*
 * The text of the state file, kept in parts: one for each server, which is made anew when the
 * server changes. So a save costs the loop next to nothing, however many servers there are: it
 * notes which parts there are; putting them together is for another thread. Pure.
 */
#ifndef DURPINAD_MODEL_TEXT_H
#define DURPINAD_MODEL_TEXT_H

#include <stddef.h>

#include "model.h"

struct snapshot;

/*
 * To be called when something of it has changed that model_json.h writes. Cannot fail: what cannot
 * be done now is done by the next snapshot, or fails that.
 */
void model_text_renew(struct server *server);
void model_text_outdate_instance(struct instance *instance);
/* Of something that goes, or has changed. NULL is fine. */
void model_text_retire(struct model *model, struct text *text);
/* Servers of the upstream have come or gone. */
void model_text_relist(struct upstream *upstream);

/* The model as it is now, until it is freed: before the model is. 0 or -ENOMEM. */
int snapshot_create(struct model *model, struct snapshot **ret);
/* The whole text, to be freed; NULL when out of memory. In any thread, once. */
char *snapshot_join(const struct snapshot *snapshot, size_t *ret_len);
/* NULL is fine. */
void snapshot_free(struct snapshot *snapshot);

#endif
