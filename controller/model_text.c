/* SPDX-License-Identifier: MIT */
#include "model_text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "model_json.h"

/* Never changed: a snapshot may refer to it. */
struct text {
    struct text *next; /* of the retired ones */
    size_t len;
    char data[];
};

/* A run of texts, or one text of the snapshot's own. */
struct part {
    struct text **texts;
    size_t n;
    struct text *own;
};

struct snapshot {
    struct model *model;
    struct part *parts;
    size_t n, capacity;
};

/* --- parts of the model --- */

void model_text_retire(struct model *model, struct text *text)
{
    if (text == NULL)
        return;
    if (model->n_snapshots == 0)
        free(text);
    else
        LL_PREPEND(model->retired, text);
}

void model_text_outdate_instance(struct instance *instance)
{
    model_text_retire(instance->model, instance->text);
    instance->text = NULL;
}

void model_text_relist(struct upstream *upstream)
{
    free(upstream->texts);
    upstream->texts = NULL;
    upstream->n_texts = 0;
}

static struct text *new_text(const char *data, size_t len)
{
    struct text *text = malloc(sizeof(*text) + len);

    if (text != NULL) {
        text->len = len;
        memcpy(text->data, data, len);
    }
    return text;
}

/* Takes the JSON. */
static struct text *text_of(json_t *json)
{
    char *data = json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY);
    struct text *text = data == NULL ? NULL : new_text(data, strlen(data));

    free(data);
    json_decref(json);
    return text;
}

static int update_server(struct server *server)
{
    struct upstream *upstream = server->upstream;

    server->text = text_of(server_to_json(server));
    if (server->text == NULL)
        return -ENOMEM;
    if (upstream->texts != NULL)
        upstream->texts[server->text_place] = server->text;
    DL_DELETE2(upstream->outdated, server, text_prev, text_next);
    return 0;
}

void model_text_renew(struct server *server)
{
    struct upstream *upstream = server->upstream;

    if (server->text != NULL) {
        model_text_retire(upstream->model, server->text);
        server->text = NULL;
        DL_APPEND2(upstream->outdated, server, text_prev, text_next);
    }
    update_server(server);
}

static int update_upstream(struct upstream *upstream)
{
    int err = 0;

    while (upstream->outdated != NULL && err == 0)
        err = update_server(upstream->outdated);
    if (err < 0 || upstream->texts != NULL)
        return err;
    upstream->texts = calloc(HASH_COUNT(upstream->servers) + 1U, sizeof(struct text *));
    if (upstream->texts == NULL)
        return -ENOMEM;
    for (struct server *s = upstream->servers; s != NULL; s = s->hh.next) {
        s->text_place = upstream->n_texts;
        upstream->texts[upstream->n_texts++] = s->text;
    }
    return 0;
}

/* --- snapshots --- */

static int add_part(struct snapshot *snapshot, struct part part)
{
    if (snapshot->n == snapshot->capacity) {
        size_t capacity = snapshot->capacity == 0 ? 64 : 2 * snapshot->capacity;
        struct part *parts = reallocarray(snapshot->parts, capacity, sizeof(*parts));

        if (parts == NULL)
            return -ENOMEM;
        snapshot->parts = parts;
        snapshot->capacity = capacity;
    }
    snapshot->parts[snapshot->n++] = part;
    return 0;
}

static int add_own(struct snapshot *snapshot, struct text *own)
{
    int err = own == NULL ? -ENOMEM : add_part(snapshot, (struct part){.own = own});

    if (err < 0)
        free(own);
    return err;
}

static int add_string(struct snapshot *snapshot, const char *string)
{
    return add_own(snapshot, new_text(string, strlen(string)));
}

/* Without its closing brace, so that there can be more in it; takes the JSON. */
static int add_open(struct snapshot *snapshot, json_t *json)
{
    struct text *text = text_of(json);

    if (text != NULL)
        text->len--;
    return add_own(snapshot, text);
}

static int add_texts(struct snapshot *snapshot, struct text *const *texts, size_t n)
{
    struct text **copy = malloc((n + 1) * sizeof(struct text *));
    int err = -ENOMEM;

    if (copy != NULL) {
        memcpy(copy, texts, n * sizeof(struct text *));
        err = add_part(snapshot, (struct part){.texts = copy, .n = n});
    }
    if (err < 0)
        free(copy);
    return err;
}

static int add_upstream(struct snapshot *snapshot, struct upstream *upstream)
{
    int err = update_upstream(upstream);

    if (err == 0)
        err = add_open(snapshot, upstream_to_json(upstream));
    if (err == 0)
        err = add_string(snapshot, ",\"servers\":[");
    if (err == 0)
        err = add_texts(snapshot, upstream->texts, upstream->n_texts);
    return err < 0 ? err : add_string(snapshot, upstream->hh.next != NULL ? "]},\n" : "]}\n");
}

static int add_instances(struct snapshot *snapshot, struct model *model)
{
    size_t n = 0;
    struct text **texts = calloc(HASH_COUNT(model->instances) + 1U, sizeof(struct text *));
    int err = texts == NULL ? -ENOMEM : 0;

    for (struct instance *i = model->instances; i != NULL && err == 0; i = i->hh.next) {
        if (i->text == NULL)
            i->text = text_of(instance_to_json(i));
        if (i->text == NULL)
            err = -ENOMEM;
        texts[n++] = i->text;
    }
    if (err == 0)
        err = add_texts(snapshot, texts, n);
    free(texts);
    return err;
}

int snapshot_create(struct model *model, struct snapshot **ret)
{
    struct snapshot *snapshot = calloc(1, sizeof(*snapshot));
    int err;

    if (snapshot == NULL)
        return -ENOMEM;
    snapshot->model = model;
    model->n_snapshots++;
    err = add_open(snapshot, model_to_json(model));
    if (err == 0)
        err = add_string(snapshot, ",\"upstreams\":[\n");
    for (struct upstream *u = model->upstreams; u != NULL && err == 0; u = u->hh.next)
        err = add_upstream(snapshot, u);
    if (err == 0)
        err = add_string(snapshot, "],\"instances\":[");
    if (err == 0)
        err = add_instances(snapshot, model);
    if (err == 0)
        err = add_string(snapshot, "]}\n");
    if (err < 0) {
        snapshot_free(snapshot);
        return err;
    }
    *ret = snapshot;
    return 0;
}

/* Of a part, with commas and line ends between texts. Returns how long it is. */
static size_t write_part(const struct part *part, char *to)
{
    size_t len = 0;

    if (part->own != NULL) {
        if (to != NULL)
            memcpy(to, part->own->data, part->own->len);
        return part->own->len;
    }
    for (size_t i = 0; i < part->n; i++) {
        if (to != NULL) {
            memcpy(to + len, part->texts[i]->data, part->texts[i]->len);
            memcpy(to + len + part->texts[i]->len, i + 1 < part->n ? ",\n" : "\n\n", 2);
        }
        len += part->texts[i]->len + 2;
    }
    return len;
}

char *snapshot_join(const struct snapshot *snapshot, size_t *ret_len)
{
    size_t len = 0, at = 0;
    char *text;

    for (size_t i = 0; i < snapshot->n; i++)
        len += write_part(&snapshot->parts[i], NULL);
    text = malloc(len + 1);
    if (text == NULL)
        return NULL;
    for (size_t i = 0; i < snapshot->n; i++)
        at += write_part(&snapshot->parts[i], text + at);
    text[len] = '\0';
    *ret_len = len;
    return text;
}

void snapshot_free(struct snapshot *snapshot)
{
    struct text *text, *next;

    if (snapshot == NULL)
        return;
    for (size_t i = 0; i < snapshot->n; i++) {
        free(snapshot->parts[i].texts);
        free(snapshot->parts[i].own);
    }
    if (--snapshot->model->n_snapshots == 0) {
        LL_FOREACH_SAFE(snapshot->model->retired, text, next)
        free(text);
        snapshot->model->retired = NULL;
    }
    free(snapshot->parts);
    free(snapshot);
}
