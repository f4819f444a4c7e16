/* SPDX-License-Identifier: MIT */
/*
 * durpinad: wiring only. What needs root is opened first, then root is given up, then everything
 * that reads input is started; the tear-down is the same in reverse and leaves the maps in place.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api.h"
#include "daemon.h"
#include "engine.h"
#include "events.h"
#include "http_server.h"
#include "inflight.h"
#include "kernel_health.h"
#include "log.h"
#include "notify.h"
#include "probe.h"
#include "programs.h"
#include "resolve.h"
#include "state_file.h"

/* --- services --------------------------------------------------------------------------------- */

static int set_resolver(struct daemon *daemon)
{
    const struct config_resolver *resolver = &daemon->config.resolver;
    const char *servers[CONFIG_RESOLVER_MAX];
    struct failure failure;

    resolver_set_policy(daemon->resolver, &daemon->config.resolve);
    for (size_t i = 0; i < resolver->n; i++)
        servers[i] = resolver->servers[i];
    if (engine_configure_resolver(daemon->engine, servers, resolver->n, &failure) < 0) {
        log_error("resolver: %s", failure.text);
        return EXIT_REFUSED;
    }
    return 0;
}

static void set_vips(struct daemon *daemon)
{
    const struct config_vips *vips = &daemon->config.vips;

    if (engine_set_configured_vips(daemon->engine, daemon->invocation.file, vips->specs, vips->n) <
        0)
        log_error("out of memory: the virtual endpoints stay as they were");
}

/* What the programs in the kernel count and tell. */
static int start_kernel_watch(struct daemon *daemon, const struct durpina_maps *maps)
{
    struct endpoints *endpoints = engine_endpoints(daemon->engine);
    int err = events_start(&daemon->loop, maps, endpoints, daemon->maps.kernel,
                           bpf_state_fd(&daemon->maps, BPF_STATE_EVENTS), &daemon->events);

    if (err == 0)
        err = kernel_health_create(maps, endpoints, &daemon->health);
    if (err == 0)
        kernel_health_start(daemon->health, &daemon->loop);
    return err;
}

static int exempt_socket(void *user, int fd)
{
    return programs_exempt_socket(user, fd);
}

static int start_services(struct daemon *daemon)
{
    const struct durpina_maps maps = bpf_state_maps(&daemon->maps);
    struct failure failure = {.text = "out of memory"};
    int err = inflight_create(&maps, &daemon->inflight);

    if (err == 0)
        err = prober_create(&daemon->loop, &daemon->prober);
    if (err == 0)
        err = programs_watch(daemon->programs, &daemon->loop);
    if (err == 0 && (programs_observing(daemon->programs) || programs_connecting(daemon->programs)))
        prober_set_socket_hook(daemon->prober, exempt_socket, &daemon->maps);
    if (err == 0)
        err = resolver_create(&daemon->loop, &daemon->resolver);
    if (err == 0) {
        const struct engine_options options = {
            .maps = &daemon->maps,
            .state_file = daemon->state_file,
            .state_delay_ms = daemon->config.state_delay_ms,
            .prober = daemon->prober,
            .resolver = daemon->resolver,
        };

        err = engine_create(&daemon->loop, &options, &daemon->engine, &failure);
    }
    if (err == 0)
        err = start_kernel_watch(daemon, &maps);
    if (err == 0) {
        const struct api_options options = {.engine = daemon->engine,
                                            .maps = &daemon->maps,
                                            .config = &daemon->config,
                                            .programs = daemon->programs,
                                            .health = daemon->health,
                                            .events = daemon->events};

        err = api_create(&options, &daemon->api);
    }
    if (err == 0) {
        const struct http_handler handler = api_http_handler(daemon->api);
        const struct http_limits limits = config_limits(&daemon->config);

        err = http_server_create(&daemon->loop, &handler, &limits, &daemon->server);
    }
    if (err < 0) {
        log_error("cannot start: %s (%s)", failure.text, strerror(-err));
        return EXIT_REFUSED;
    }
    api_set_server(daemon->api, daemon->server);
    set_vips(daemon);
    return set_resolver(daemon);
}

static int start_listening(struct daemon *daemon)
{
    while (daemon->n_listeners > 0) {
        const struct listener *listener = &daemon->listeners[--daemon->n_listeners];
        int err = http_server_listen(daemon->server, listener->fd, listener->writable);

        if (err < 0) {
            log_error("cannot serve the API: %s", strerror(-err));
            return EXIT_REFUSED;
        }
    }
    return 0;
}

static void reload(struct daemon *daemon)
{
    struct config *wanted = malloc(sizeof(*wanted));
    struct failure failure = {.text = "out of memory"};
    struct http_limits limits;
    char names[512];

    notify_reloading();
    if (wanted == NULL || config_load(&daemon->invocation, wanted, &failure) < 0) {
        log_error("the configuration stays as it is: %s", failure.text);
    } else {
        config_restart_needed(&daemon->config, wanted, names, sizeof(names));
        config_adopt(&daemon->config, wanted);
        log_set_level(daemon->config.log_level);
        limits = config_limits(&daemon->config);
        http_server_set_limits(daemon->server, &limits);
        set_resolver(daemon);
        set_vips(daemon);
        api_count_reload(daemon->api);
        if (names[0] != '\0')
            log_warn("configuration reloaded; restart durpinad to change %s", names);
        else
            log_notice("configuration reloaded");
    }
    free(wanted);
    notify("READY=1");
}

static void on_signal(uv_signal_t *handle, int signum)
{
    struct daemon *daemon = handle->data;

    if (signum == SIGHUP) {
        reload(daemon);
        return;
    }
    log_notice("stopping on signal %d; the maps stay, nginx goes on with them", signum);
    uv_stop(&daemon->loop);
}

static void watch_signals(struct daemon *daemon)
{
    static const int signums[] = {SIGHUP, SIGTERM, SIGINT};

    for (size_t i = 0; i < sizeof(signums) / sizeof(signums[0]); i++) {
        uv_signal_init(&daemon->loop, &daemon->signals[i]);
        daemon->signals[i].data = daemon;
        uv_signal_start(&daemon->signals[i], on_signal, signums[i]);
    }
}

static const char *programs_word(const struct programs *programs)
{
    bool observes = programs_observing(programs), connects = programs_connecting(programs);

    return observes ? connects ? "observe and connect" : "observe" : connects ? "connect" : "none";
}

static void log_ready(const struct daemon *daemon)
{
    const struct model *model = engine_model(daemon->engine);
    unsigned servers = 0, monitors = 0;

    for (const struct upstream *u = model->upstreams; u != NULL; u = u->hh.next) {
        servers += HASH_COUNT(u->servers);
        monitors += (unsigned) u->n_monitors;
    }
    log_notice("ready: durpinad %s, pid %d, user %s, maps %s (%s), programs %s, socket %s, "
               "%u upstreams, %u servers, %u monitors",
               DURPINA_VERSION, (int) getpid(), daemon->user.name, daemon->config.pin,
               daemon->maps.adopted ? "adopted" : "new", programs_word(daemon->programs),
               daemon->config.socket, HASH_COUNT(model->upstreams), servers, monitors);
}

static int serve(struct daemon *daemon)
{
    int status = start_services(daemon);

    if (status == 0)
        status = start_listening(daemon);
    if (status != 0)
        return status;
    watch_signals(daemon);
    inflight_start(daemon->inflight, &daemon->loop);
    engine_start(daemon->engine);
    log_ready(daemon);
    notify("READY=1");
    uv_run(&daemon->loop, UV_RUN_DEFAULT);
    notify("STOPPING=1");
    return 0;
}

static void close_handle(uv_handle_t *handle, void *user)
{
    (void) user;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

static void tear_down(struct daemon *daemon)
{
    /*
     * While it is still ours: once it is closed, the next controller may have put its own there.
     * Not possible in a directory of root's once we are not root: the next start replaces it.
     */
    if (daemon->socket_is_ours)
        unlink(daemon->config.socket);
    http_server_destroy(daemon->server);
    api_destroy(daemon->api);
    kernel_health_destroy(daemon->health);
    events_stop(daemon->events);
    engine_destroy(daemon->engine);
    resolver_destroy(daemon->resolver);
    prober_destroy(daemon->prober);
    programs_close(daemon->programs);
    inflight_destroy(daemon->inflight);
    for (size_t i = 0; i < sizeof(daemon->signals) / sizeof(daemon->signals[0]); i++)
        if (daemon->signals[i].data != NULL)
            close_handle((uv_handle_t *) &daemon->signals[i], NULL);
    uv_run(&daemon->loop, UV_RUN_DEFAULT);
    uv_loop_close(&daemon->loop);
    state_file_close(daemon->state_file);

    if (daemon->maps_open)
        bpf_state_close(&daemon->maps);
    while (daemon->n_listeners > 0)
        close(daemon->listeners[--daemon->n_listeners].fd);
}

static int run(struct daemon *daemon)
{
    const char *user = daemon->config.user[0] != '\0' ? daemon->config.user : NULL;
    int status;

    if (geteuid() != 0) {
        log_error("durpinad must be started as root: it opens the maps, then becomes an ordinary "
                  "user; use sudo or the systemd unit");
        return EXIT_REFUSED;
    }
    if (privileges_find_user(user, &daemon->user) < 0) {
        log_error("there is neither a user durpina nor nobody: create one, or set user");
        return EXIT_REFUSED;
    }
    if (uv_loop_init(&daemon->loop) < 0) {
        log_error("cannot start: no event loop: %s", strerror(errno));
        return EXIT_REFUSED;
    }
    status = daemon_open(daemon);
    if (status == 0)
        status = serve(daemon);
    tear_down(daemon);
    return status;
}

/* durpinad -t -v */
static int print_programs(const struct config *config)
{
    const struct programs_options options = config_programs(config);
    struct programs *programs;

    if (programs_probe(&options, config->pin, &programs) < 0)
        return EXIT_REFUSED;
    programs_print(programs, stdout);
    programs_close(programs);
    return 0;
}

int main(int argc, char **argv)
{
    static struct daemon daemon;
    struct failure failure;

    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN); /* until there is something to reload */
    /* What scripts that rotate logs send: there is no log file to open again. */
    signal(SIGUSR1, SIG_IGN);
    if (invocation_parse(argc, argv, &daemon.invocation, &failure) < 0) {
        fprintf(stderr, "durpinad: %s; see durpinad --help\n", failure.text);
        return EXIT_USAGE;
    }
    if (daemon.invocation.help) {
        config_print_help(stdout);
        return 0;
    }
    if (daemon.invocation.version) {
        printf("durpinad %s\n", DURPINA_VERSION);
        return 0;
    }
    if (config_load(&daemon.invocation, &daemon.config, &failure) < 0) {
        fprintf(stderr, "durpinad: %s\n", failure.text);
        return EXIT_REFUSED;
    }
    if (daemon.invocation.test) {
        fprintf(stderr, "durpinad: %s: %s\n", daemon.invocation.file,
                access(daemon.invocation.file, F_OK) == 0 ? "the configuration is good"
                                                          : "not there: the defaults are in force");
        return daemon.invocation.verbose ? print_programs(&daemon.config) : 0;
    }
    log_set_level(daemon.config.log_level);
    return run(&daemon);
}
