/* SPDX-License-Identifier: MIT */
/*
 * Tables on demand: who needs which, and when those that are made in another thread are.
 *
 * A table is wanted if an nginx or a virtual endpoint names an algorithm that needs it, or a pick
 * has asked for it. What has been asked for is remembered. As long as no pick has been seen of an
 * upstream whose algorithm is not known, both tables are guessed to be needed; the first picks that
 * show that they are not, end that.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "engine_internal.h"
#include "log.h"

/* How much longer than a build the pause is before one that can wait: a tenth of a core at most. */
#define REST_SHARE 9

/* --- who needs what --- */

#define LOOK_MS 200 /* how often what picks have asked for is looked at */

static const unsigned asked_bits[N_DEMANDED] = {
    [DEMANDED_HASH] = DURPINA_ASKED_HASH, [DEMANDED_RING] = DURPINA_ASKED_RING};

void tables_demand(struct upstream *upstream, const struct instance *except, bool names,
                   const struct algorithm *algorithm)
{
    unsigned wanted = upstream->asked | (algorithm != NULL ? (unsigned) algorithm->table : 0);
    bool known = algorithm != NULL, unknown = names && algorithm == NULL;

    for (const struct instance *i = upstream->model->instances; i != NULL; i = i->hh.next) {
        if (i == except || json_object_get(i->upstreams, upstream->name) == NULL)
            continue;

        const struct algorithm *said = model_said_algorithm(i, upstream->name);

        wanted |= said != NULL ? (unsigned) said->table : 0;
        known |= said != NULL;
        unknown |= said == NULL;
    }
    for (const struct vip *v = upstream->model->vips; v != NULL; v = v->hh.next)
        if (v->algorithm == DURPINA_HASH && strcmp(v->upstream, upstream->name) == 0)
            wanted |= DURPINA_ASKED_HASH;
    for (int t = 0; t < N_DEMANDED; t++)
        upstream->demand[t] = (wanted & asked_bits[t]) != 0                 ? DEMAND_WANTED
                              : (unknown || !known) && upstream->asked == 0 ? DEMAND_GUESSED
                                                                            : DEMAND_NONE;
}

void tables_note_asked(struct upstream *upstream)
{
    const struct durpina_cursor *cursors = engine_of(upstream)->maps->cursors;

    if (upstream->id != DURPINA_NONE)
        upstream->asked |= DURPINA_LOAD(&cursors[upstream->id].asked) &
                           (DURPINA_ASKED_HASH | DURPINA_ASKED_RING | DURPINA_ASKED_NO_TABLE);
}

void tables_review(struct upstream *upstream)
{
    struct engine *engine = engine_of(upstream);
    enum demand before[N_DEMANDED];

    memcpy(before, upstream->demand, sizeof(before));
    tables_demand(upstream, NULL, false, NULL);
    if (upstream->unpublished || memcmp(before, upstream->demand, sizeof(before)) == 0)
        return;
    /* What cannot be done now is tried again with the next change, or as a build. */
    publish_states(engine->publish, upstream, NULL, 0, clock_monotonic_ms());
    tables_build(upstream);
}

static void look(struct upstream *upstream)
{
    struct engine *engine = engine_of(upstream);
    unsigned asked = upstream->asked;

    tables_note_asked(upstream);
    if (upstream->asked == asked)
        return;
    engine_touch(engine, engine->state_delay_ms);
    tables_review(upstream);
}

static void look_cb(uv_timer_t *timer)
{
    struct engine *engine = timer->data;

    for (struct upstream *u = engine->model.upstreams; u != NULL; u = u->hh.next)
        look(u);
}

void tables_start(struct engine *engine)
{
    uv_timer_start(&engine->look_timer, look_cb, LOOK_MS, LOOK_MS);
    for (struct upstream *u = engine->model.upstreams; u != NULL; u = u->hh.next)
        tables_build(u);
}

/* --- builds --- */

static void build_next(struct engine *engine);
static void build_cb(uv_timer_t *timer);

struct table_work {
    uv_work_t work;
    struct engine *engine;
    struct build *build;
    char upstream[DURPINA_NAME_SIZE];
    uint64_t took_ms;
};

/* Errors come in rows: the first of a row is logged. */
static void note_built(struct upstream *upstream, int err)
{
    if (err < 0 && upstream->tables_retry_ms == 0)
        log_error("upstream %s: %s for the table of its hash: it stays as it was; raise \"slots\" "
                  "in durpinad.conf",
                  upstream->name, err == -ENOSPC ? "there is no room" : strerror(-err));
    upstream->tables_retry_ms = err < 0 ? clock_monotonic_ms() + PUBLISH_RETRY_MS : 0;
}

static void build_work(uv_work_t *work)
{
    struct table_work *table = work->data;
    uint64_t began_ms = clock_monotonic_ms();

    publish_build_run(table->build);
    table->took_ms = clock_monotonic_ms() - began_ms;
}

static void build_done(uv_work_t *work, int status)
{
    struct table_work *table = work->data;
    struct engine *engine = table->engine;
    struct upstream *upstream = model_upstream(&engine->model, table->upstream);

    (void) status; /* nobody cancels it */
    engine->building = false;
    if (engine->closing) {
        publish_build_drop(table->build);
    } else {
        int err = publish_build_end(table->build, clock_monotonic_ms());

        engine->build_next_ms = clock_monotonic_ms() + REST_SHARE * (table->took_ms + 1);
        if (upstream != NULL)
            note_built(upstream, err);
        engine_touch(engine, engine->state_delay_ms);
        build_next(engine);
    }
    free(table);
    engine_unref(engine);
}

static int begin_build(struct engine *engine, struct upstream *upstream)
{
    struct table_work *table = calloc(1, sizeof(*table));
    int err =
        table == NULL ? -ENOMEM : publish_build_begin(engine->publish, upstream, &table->build);

    if (err < 0 || table->build == NULL) {
        free(table);
        return err;
    }
    table->work.data = table;
    table->engine = engine;
    memcpy(table->upstream, upstream->name, sizeof(table->upstream));
    upstream->tables_turn = ++engine->build_turns;
    err = uv_queue_work(engine->loop, &table->work, build_work, build_done);
    if (err < 0) {
        publish_build_drop(table->build);
        free(table);
        return -ENOMEM;
    }
    engine->building = true;
    engine->refs++;
    return 0;
}

/* When the upstream's next build may begin; 0: there is none to make. */
static uint64_t due_ms(const struct upstream *upstream)
{
    const struct engine *engine = engine_of(upstream);
    enum publish_lag lag = publish_lag(engine->publish, upstream);
    uint64_t at_ms = lag == PUBLISH_MISSING ? 0 : engine->build_next_ms;

    if (lag == PUBLISH_UP_TO_DATE)
        return 0;
    if (upstream->tables_retry_ms > at_ms)
        at_ms = upstream->tables_retry_ms;
    return at_ms != 0 ? at_ms : 1;
}

static void build_later(struct engine *engine, uint64_t at_ms)
{
    uint64_t now_ms = clock_monotonic_ms();
    uint64_t delay_ms = at_ms > now_ms ? at_ms - now_ms : 0;

    if (!uv_is_active((uv_handle_t *) &engine->build_timer) ||
        uv_timer_get_due_in(&engine->build_timer) > delay_ms)
        uv_timer_start(&engine->build_timer, build_cb, delay_ms, 0);
}

/* One at a time, the upstream first that has waited for longest. */
static void build_next(struct engine *engine)
{
    uint64_t now_ms = clock_monotonic_ms(), next_ms = 0;
    struct upstream *found = NULL;

    for (struct upstream *u = engine->model.upstreams; u != NULL; u = u->hh.next) {
        uint64_t at_ms = due_ms(u);

        if (at_ms == 0)
            continue;
        if (at_ms > now_ms)
            next_ms = next_ms == 0 || at_ms < next_ms ? at_ms : next_ms;
        else if (found == NULL || u->tables_turn < found->tables_turn)
            found = u;
    }
    if (found != NULL) {
        int err = begin_build(engine, found);

        if (engine->building)
            return; /* build_done() looks again */
        if (err < 0)
            note_built(found, err);
        next_ms = now_ms;
    }
    if (next_ms != 0)
        build_later(engine, next_ms);
}

static void build_cb(uv_timer_t *timer)
{
    struct engine *engine = timer->data;

    if (!engine->building)
        build_next(engine);
}

void tables_build(const struct upstream *upstream)
{
    struct engine *engine = engine_of(upstream);
    uint64_t at_ms = engine->building ? 0 : due_ms(upstream);

    if (at_ms != 0)
        build_later(engine, at_ms);
}
