/* SPDX-License-Identifier: MIT */
/* The state file: what is written to it, and when. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine_internal.h"
#include "log.h"
#include "model_text.h"

#define SAVE_RETRY_MS 5000

struct save {
    uv_work_t work;
    struct engine *engine;
    struct snapshot *snapshot;
    uint64_t order;
    int err;
};

static int write_snapshot(struct state_file *file, const struct snapshot *snapshot, uint64_t order)
{
    size_t len;
    char *text = snapshot_join(snapshot, &len);
    int err = text == NULL ? -ENOMEM : state_file_write(file, text, len, order);

    free(text);
    return err;
}

static void save_work(uv_work_t *work)
{
    struct save *save = work->data;

    save->err = write_snapshot(save->engine->state_file, save->snapshot, save->order);
}

static void save_timer_cb(uv_timer_t *timer);

/* Errors come in rows: the first of a row is logged. */
static void note_saved(struct engine *engine, uint64_t order, int err)
{
    if (err < 0 && !engine->save_failed)
        log_error("the state file cannot be written: %s; trying again", strerror(-err));
    if (err == 0 && engine->save_failed)
        log_notice("the state file is written again");
    engine->save_failed = err < 0;
    if (err == 0 && order > engine->saved)
        engine->saved = order;
}

static void save_done(uv_work_t *work, int status)
{
    struct save *save = work->data;
    struct engine *engine = save->engine;

    engine->saving = false;
    if (!engine->closing) {
        note_saved(engine, save->order, status < 0 ? status : save->err);
        if (engine->saved < engine->changes)
            uv_timer_start(&engine->save_timer, save_timer_cb,
                           engine->save_failed ? SAVE_RETRY_MS : engine->save_next_ms, 0);
    }
    snapshot_free(save->snapshot);
    free(save);
    engine_unref(engine);
}

/* The text is put together and synced by a thread of the pool, so that neither many servers nor a
 * slow disk hold anybody up. */
static void save_timer_cb(uv_timer_t *timer)
{
    struct engine *engine = timer->data;
    struct save *save;

    if (engine->saving || engine->saved == engine->changes)
        return; /* save_done() looks what has changed meanwhile; or engine_save() was first */
    save = calloc(1, sizeof(*save));
    if (save != NULL) {
        *save = (struct save){.engine = engine, .order = engine->changes};
        save->work.data = save;
    }
    if (save == NULL || snapshot_create(&engine->model, &save->snapshot) < 0 ||
        uv_queue_work(engine->loop, &save->work, save_work, save_done) < 0) {
        if (save != NULL)
            snapshot_free(save->snapshot);
        free(save);
        note_saved(engine, 0, -ENOMEM);
        uv_timer_start(timer, save_timer_cb, SAVE_RETRY_MS, 0);
        return;
    }
    engine->saving = true;
    engine->save_next_ms = engine->state_delay_ms;
    engine->refs++;
}

void engine_touch(struct engine *engine, uint32_t delay_ms)
{
    engine->changes++;
    if (engine->state_file == NULL)
        return;
    /* Not in the maps: it is to be in the file before the call is answered, and so is then what a
     * timer was to save. */
    if (delay_ms == 0 && engine_save(engine) == 0)
        return;
    if (engine->saving) {
        if (delay_ms < engine->save_next_ms)
            engine->save_next_ms = delay_ms;
        return;
    }
    if (!uv_is_active((uv_handle_t *) &engine->save_timer) ||
        uv_timer_get_due_in(&engine->save_timer) > delay_ms)
        uv_timer_start(&engine->save_timer, save_timer_cb, delay_ms, 0);
}

int engine_save(struct engine *engine)
{
    uint64_t order = engine->changes;
    struct snapshot *snapshot;
    int err;

    if (engine->state_file == NULL || engine->saved == order)
        return 0;
    err = snapshot_create(&engine->model, &snapshot);
    if (err < 0)
        return err;
    err = write_snapshot(engine->state_file, snapshot, order);
    snapshot_free(snapshot);
    note_saved(engine, order, err);
    return err;
}
