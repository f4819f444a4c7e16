/* SPDX-License-Identifier: MIT */
/* A loop with two name servers on it. */
#ifndef TESTS_RESOLVE_SCENE_H
#define TESTS_RESOLVE_SCENE_H

#include "name_server.h"

#include <errno.h>

#define GUARD_MS 20000

static struct scene {
    uv_loop_t loop;
    uv_timer_t guard;
    struct name_server servers[2];
} scene;

static void on_guard(uv_timer_t *timer)
{
    (void) timer;
    fail_msg("nothing happened in %d ms", GUARD_MS);
}

static void open_loop(void)
{
    memset(&scene, 0, sizeof(scene));
    memset(zone, 0, sizeof(zone));
    assert_int_equal(uv_loop_init(&scene.loop), 0);
    uv_timer_init(&scene.loop, &scene.guard);
    uv_timer_start(&scene.guard, on_guard, GUARD_MS, 0);
    for (size_t i = 0; i < 2; i++)
        name_server_open(&scene.loop, &scene.servers[i]);
}

/* Nothing may be left on the loop; ASan looks for the memory. */
static void close_loop(void)
{
    for (size_t i = 0; i < 2; i++)
        uv_close((uv_handle_t *) &scene.servers[i].udp, NULL);
    uv_close((uv_handle_t *) &scene.guard, NULL);
    uv_run(&scene.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&scene.loop), 0);
}

static void on_tick(uv_timer_t *timer)
{
    (void) timer;
}

/* Runs the loop until the condition holds, at most GUARD_MS; the tick keeps it from waiting on. */
#define AWAIT(condition)                                                                           \
    do {                                                                                           \
        uv_timer_t tick_;                                                                          \
        uv_timer_init(&scene.loop, &tick_);                                                        \
        uv_timer_start(&tick_, on_tick, 1, 1);                                                     \
        while (!(condition))                                                                       \
            uv_run(&scene.loop, UV_RUN_ONCE);                                                      \
        uv_close((uv_handle_t *) &tick_, NULL);                                                    \
        uv_run(&scene.loop, UV_RUN_NOWAIT);                                                        \
    } while (0)

#endif
