/* SPDX-License-Identifier: MIT */
/* An engine on real maps, with the real prober and resolver, for the tests of its parts. */
#ifndef DURPINA_TEST_ENGINE_SCENE_H
#define DURPINA_TEST_ENGINE_SCENE_H

#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "bpf_state.h"
#include "engine.h"
#include "log.h"
#include "model_text.h"
#include "pins.h"
#include "probe.h"
#include "resolve.h"
#include "state_file.h"

#include <cmocka.h> /* last: its macro fail() hides the function of failure.h */

#define PATIENCE_MS 10000 /* an event that takes longer will not come */
#define TICK_MS 5
#define NGINX "/run/nginx.pid"

static struct {
    struct pins pins;
    char state_dir[64], state_file[96];
    uint32_t n_peers; /* of new maps; 0: some */
    uint32_t n_slots; /* likewise; 0: plenty */
    uint32_t nginx_pid;
    uv_loop_t loop;
    struct bpf_state maps;
    struct state_file *file;
    struct prober *prober;
    struct resolver *resolver;
    struct engine *engine;
    struct failure failure;
} scene;

#define OK(call) assert_ok((call), #call)

static inline void assert_ok(int err, const char *call)
{
    if (err < 0)
        fail_msg("%s: %s", call, scene.failure.text);
}

static inline void create_engine(void)
{
    OK(state_file_open(scene.state_file, &scene.file, &scene.failure));

    const struct engine_options options = {.maps = &scene.maps,
                                           .state_file = scene.file,
                                           .state_delay_ms = 3600 * 1000,
                                           .prober = scene.prober,
                                           .resolver = scene.resolver};

    OK(engine_create(&scene.loop, &options, &scene.engine, &scene.failure));
    engine_start(scene.engine);
}

static inline void start_engine(void)
{
    const struct bpf_state_options maps = {.pin = scene.pins.dir,
                                           .n_upstreams = 4,
                                           .n_peers = scene.n_peers ? scene.n_peers : 64,
                                           .n_slots = scene.n_slots ? scene.n_slots : 65536,
                                           .n_inflight = DURPINA_TRIES_PER_PAGE};

    assert_int_equal(uv_loop_init(&scene.loop), 0);
    OK(bpf_state_open(&maps, &scene.maps, &scene.failure));
    assert_int_equal(prober_create(&scene.loop, &scene.prober), 0);
    assert_int_equal(resolver_create(&scene.loop, &scene.resolver), 0);
    create_engine();
}

static inline void stop_engine(void)
{
    engine_destroy(scene.engine);
    resolver_destroy(scene.resolver);
    prober_destroy(scene.prober);
    uv_run(&scene.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&scene.loop), 0);
    state_file_close(scene.file);
    bpf_state_close(&scene.maps);
    scene.engine = NULL;
}

static inline void restart_engine(void)
{
    stop_engine();
    start_engine();
}

static inline int set_up(void **state)
{
    (void) state;
    memset(&scene, 0, sizeof(scene));
    scene.nginx_pid = 1; /* runs */
    scene.pins = pins_choose("engine");
    snprintf(scene.state_dir, sizeof(scene.state_dir), "/tmp/%s", strrchr(scene.pins.dir, '/') + 1);
    snprintf(scene.state_file, sizeof(scene.state_file), "%s/state.json", scene.state_dir);
    pins_remove_dir(scene.state_dir);
    assert_int_equal(mkdir(scene.state_dir, 0700), 0);
    start_engine();
    return 0;
}

static inline int tear_down(void **state)
{
    (void) state;
    stop_engine();
    pins_remove(&scene.pins);
    pins_remove_dir(scene.state_dir);
    return 0;
}

/* --- in short --- */

static inline void assert_refused(int err, unsigned status, const char *code)
{
    assert_true(err < 0);
    assert_int_equal(scene.failure.status, status);
    assert_string_equal(scene.failure.code, code);
}

static inline struct upstream *upstream(const char *name)
{
    return model_upstream(engine_model(scene.engine), name);
}

static inline struct server *server(const char *upstream_name, const char *name)
{
    struct upstream *u = upstream(upstream_name);

    return u == NULL ? NULL : model_server(u, name);
}

static inline struct server_spec spec_of(const char *line)
{
    struct server_spec spec = {0};

    OK(server_line_parse(line, 80, &spec, &scene.failure));
    return spec;
}

static inline int add(const char *upstream_name, const char *line)
{
    struct server_spec spec = spec_of(line);
    const struct server *added;
    bool created;

    return engine_add_server(scene.engine, upstream_name, &spec, &created, &added, &scene.failure);
}

static inline int change(const char *upstream_name, const char *name, struct server_spec spec)
{
    const struct server *changed;

    return engine_change_server(scene.engine, upstream_name, server(upstream_name, name)->id, &spec,
                                &changed, &scene.failure);
}

static inline struct server_spec weight(uint32_t value)
{
    return (struct server_spec){.settings.weight = value, .set = SERVER_SET_WEIGHT};
}

static inline struct server_spec admin(enum durpina_admin word)
{
    return (struct server_spec){.settings.admin = word, .set = SERVER_SET_ADMIN};
}

static char token[33];
static uint64_t epoch;

/* Introduces an nginx with one upstream block; lines end with NULL. */
static inline int introduce_as(const char *instance, const char *name, bool durpina,
                               const char *const *lines)
{
    struct server_spec specs[80];
    struct registration registration = {.upstream = name, .durpina = durpina, .specs = specs};

    for (; lines != NULL && lines[registration.n_specs] != NULL; registration.n_specs++)
        specs[registration.n_specs] = spec_of(lines[registration.n_specs]);
    return engine_introduce_nginx(scene.engine, instance, scene.nginx_pid, 33, &registration,
                                  name != NULL, token, &epoch, &scene.failure);
}

#define LINES(...) ((const char *const[]){__VA_ARGS__, NULL})
#define introduce(name, ...) introduce_as(NGINX, name, true, LINES(__VA_ARGS__))

static inline const struct durpina_peer *record(const struct peer *peer)
{
    return &scene.maps.peers[peer->id];
}

static inline struct durpina_peer_settings published(const struct peer *peer)
{
    const struct durpina_maps maps = bpf_state_maps(&scene.maps);

    return durpina_read_settings(&maps, peer->id);
}

static inline struct durpina_peer_settings published_of(const char *upstream_name, const char *name)
{
    return published(server(upstream_name, name)->peers[0]);
}

static inline unsigned n_servers(const char *upstream_name)
{
    return HASH_COUNT(upstream(upstream_name)->servers);
}

static inline void on_tick(uv_timer_t *timer)
{
    (void) timer;
}

/*
 * Runs the loop until the condition holds. uv_run() runs what is due and then still waits for what
 * comes next: the tick ends that, else what has come true would be seen only after the patience.
 */
#define AWAIT(condition)                                                                           \
    do {                                                                                           \
        const uint64_t late_ns_ = uv_hrtime() + PATIENCE_MS * 1000000ull;                          \
        uv_timer_t tick_;                                                                          \
        bool holds_;                                                                               \
        uv_timer_init(&scene.loop, &tick_);                                                        \
        uv_timer_start(&tick_, on_tick, TICK_MS, TICK_MS);                                         \
        while (!(holds_ = (condition)) && uv_hrtime() < late_ns_)                                  \
            uv_run(&scene.loop, UV_RUN_ONCE);                                                      \
        uv_close((uv_handle_t *) &tick_, NULL);                                                    \
        uv_run(&scene.loop, UV_RUN_NOWAIT);                                                        \
        assert_true(holds_);                                                                       \
    } while (0)

static inline void register_localhost(const char *const *texts, size_t n)
{
    struct addr addresses[4];
    struct server_spec spec = spec_of("localhost:8080 weight=3");
    const struct registration registration = {.upstream = "foo",
                                              .durpina = true,
                                              .specs = &spec,
                                              .n_specs = 1};

    for (size_t i = 0; i < n; i++)
        OK(addr_parse(texts[i], 0, &addresses[i]));
    spec.addresses = addresses;
    spec.n_addresses = n;
    OK(engine_introduce_nginx(scene.engine, NGINX, 1, 33, &registration, 1, token, &epoch,
                              &scene.failure));
}

static inline int listen_on(struct sockaddr_in *addr)
{
    socklen_t len = sizeof(*addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

    addr->sin_family = AF_INET;
    addr->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    assert_int_equal(bind(fd, (struct sockaddr *) addr, sizeof(*addr)), 0);
    assert_int_equal(listen(fd, 16), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *) addr, &len), 0);
    return fd;
}

static inline int add_monitor(const char *id, const char *type, const char *options, bool *created)
{
    json_t *json = json_loads(options, 0, NULL);
    const struct monitor_spec spec = {.id = id, .name = type, .options = json};
    const struct monitor *monitor;
    int err = engine_add_monitor(scene.engine, "foo", &spec, created, &monitor, &scene.failure);

    json_decref(json);
    return err;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif
