/* SPDX-License-Identifier: MIT */
/* A publisher on real maps and a model, for the tests of its parts. */
#ifndef DURPINA_TEST_PUBLISH_SCENE_H
#define DURPINA_TEST_PUBLISH_SCENE_H

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "pins.h"
#include "maglev.h"
#include "publish.h"
#include "ring.h"

#include <cmocka.h> /* last: its macro fail() hides the function of failure.h */

#define T0 100000ULL /* a monotonic time, ms */

static struct pins pins;
static struct bpf_state maps;
static struct publish *publish;
static struct model model;

static inline void open_maps(uint32_t n_upstreams, uint32_t n_peers, uint32_t n_slots)
{
    const struct bpf_state_options options = {.pin = pins.dir,
                                              .n_upstreams = n_upstreams,
                                              .n_peers = n_peers,
                                              .n_slots = n_slots,
                                              .n_inflight = DURPINA_TRIES_PER_PAGE};
    struct failure failure;

    assert_int_equal(bpf_state_open(&options, &maps, &failure), 0);
    assert_int_equal(publish_create(&maps, T0, &publish), 0);
}

static inline int set_up(void **state)
{
    (void) state;
    pins = pins_choose("publish");
    memset(&model, 0, sizeof(model));
    return 0;
}

static inline int tear_down(void **state)
{
    (void) state;
    model_clear(&model);
    publish_destroy(publish);
    publish = NULL;
    bpf_state_close(&maps);
    pins_remove(&pins);
    return 0;
}

static inline struct server *add_server(struct upstream *upstream, const char *line)
{
    struct server_spec spec;
    struct failure failure;
    struct server *server;
    struct addr addr;

    assert_int_equal(server_line_parse(line, 80, &spec, &failure), 0);
    server = model_new_server(upstream, &spec);
    assert_non_null(server);
    server->peers = calloc(1, sizeof(*server->peers));
    assert_non_null(server->peers);
    server->peers[0] =
        model_new_peer(server, addr_parse(spec.name, spec.port, &addr) == 0 ? &addr : NULL);
    assert_non_null(server->peers[0]);
    server->n_peers = 1;
    model_link_server(server);
    return server;
}

static inline void remove_server(struct server *server)
{
    model_unlink_server(server);
    model_free_server(server);
}

static inline int try_publish(struct upstream *upstream, uint64_t now_ms, struct failure *failure)
{
    struct publication *publication;
    int err = publish_prepare(publish, upstream, now_ms, &publication, failure);

    if (err == 0)
        publish_commit(publication);
    return err;
}

static inline void put_in_force(struct upstream *upstream, uint64_t now_ms)
{
    struct failure failure;
    int err = try_publish(upstream, now_ms, &failure);

    if (err < 0)
        print_error("%s\n", failure.text);
    assert_int_equal(err, 0);
}

static inline const struct durpina_view *view_of(const struct upstream *upstream)
{
    const struct durpina_upstream *u = &maps.upstreams[upstream->id];

    return &u->view[u->publish & 1];
}

static inline enum durpina_pick_error pick(const struct upstream *upstream,
                                           enum durpina_algorithm algorithm, uint64_t hash,
                                           struct durpina_pick *ret)
{
    const struct durpina_maps readable = bpf_state_maps(&maps);
    const struct durpina_tried nobody = {0};
    const struct durpina_request request = {.algorithm = algorithm,
                                            .hash = hash,
                                            .tried = &nobody,
                                            .now_ms = T0};

    return durpina_pick(&readable, upstream->id, upstream->generation, &request, ret);
}

static inline void finish(const struct durpina_pick *p)
{
    const struct durpina_maps readable = bpf_state_maps(&maps);

    durpina_finish(&readable, p, DURPINA_OUTCOME_SUCCESS, NULL, T0);
}

static inline void assert_at_rest(const struct upstream *upstream)
{
    const struct durpina_upstream *u = &maps.upstreams[upstream->id];
    const struct durpina_table peers = view_of(upstream)->peers;

    assert_memory_equal(&u->view[0], &u->view[1], sizeof(u->view[0]));
    for (uint32_t i = 0; i < peers.length; i++) {
        const struct durpina_peer *peer = &maps.peers[maps.slots[peers.offset + i]];

        assert_memory_equal(&peer->settings[0], &peer->settings[1], sizeof(peer->settings[0]));
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif
