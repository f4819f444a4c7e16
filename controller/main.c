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
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api.h"
#include "bpf_state.h"
#include "config.h"
#include "engine.h"
#include "events.h"
#include "http_server.h"
#include "inflight.h"
#include "kernel_health.h"
#include "listen.h"
#include "log.h"
#include "notify.h"
#include "privileges.h"
#include "probe.h"
#include "programs.h"
#include "resolve.h"
#include "state_file.h"

#define STATE_DIRECTORY_MODE 0750
#define SOCKET_DIRECTORY_MODE 0755

struct listener {
    int fd;
    bool writable;
};

/* All of it in the order of creation. */
struct daemon {
    struct invocation invocation;
    struct config config; /* in force */
    struct privileges_user user;
    struct state_file *state_file; /* its directory is open: later it may be out of reach */
    struct listener listeners[1 + CONFIG_LISTEN_MAX];
    size_t n_listeners;
    bool socket_is_ours; /* its file is to be removed at the end */
    bool maps_open;
    struct bpf_state maps;
    struct programs *programs;
    uv_loop_t loop;
    struct inflight *inflight;
    struct prober *prober;
    struct resolver *resolver;
    struct engine *engine;
    struct events *events;
    struct kernel_health *health;
    struct api *api;
    struct http_server *server;
    uv_signal_t signals[3];
};

/* --- with privileges -------------------------------------------------------------------------- */

static int prepare_state(struct daemon *daemon)
{
    const char *path = daemon->config.state;
    char room[PATH_MAX];
    struct failure failure;

    if (!privileges_can_replace(path, &daemon->user)) {
        int err = privileges_make_room(path, &daemon->user, room, sizeof(room));

        if (err < 0) {
            log_error("user %s cannot write %s: %s; chown its directory, or name a directory that "
                      "does not exist yet, which durpinad then creates",
                      daemon->user.name, path, strerror(-err));
            return EXIT_REFUSED;
        }
        log_info("user %s cannot write the directory of %s: it is a link to %s", daemon->user.name,
                 path, room);
        path = room;
    }
    if (state_file_open(path, &daemon->state_file, &failure) < 0 ||
        state_file_lock(daemon->state_file, &failure) < 0) {
        log_error("%s", failure.text);
        return EXIT_REFUSED;
    }
    return 0;
}

/* A device or a directory would be moved out of the way by the first save. */
static bool state_is_no_file(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && !S_ISREG(st.st_mode);
}

static int prepare_directories(struct daemon *daemon)
{
    const struct {
        const char *path;
        mode_t mode;
    } files[] = {
        {daemon->config.state, STATE_DIRECTORY_MODE},
        {daemon->config.socket, SOCKET_DIRECTORY_MODE},
    };

    if (state_is_no_file(daemon->config.state)) {
        log_error("%s is no file: remove it or choose another --state", daemon->config.state);
        return EXIT_REFUSED;
    }
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        int err = privileges_prepare_parent(files[i].path, files[i].mode, &daemon->user);

        if (err < 0) {
            log_error("cannot prepare the directory of %s: %s", files[i].path, strerror(-err));
            return EXIT_REFUSED;
        }
    }
    return prepare_state(daemon);
}

static int open_maps(struct daemon *daemon)
{
    const struct bpf_state_options options = {
        .pin = daemon->config.pin,
        .n_upstreams = daemon->config.upstreams,
        .n_peers = daemon->config.peers,
        .n_slots = daemon->config.slots,
        .n_inflight = daemon->config.inflight,
        .uid = daemon->user.uid,
        .gid = daemon->user.gid,
    };
    struct failure failure;
    int err = bpf_state_open(&options, &daemon->maps, &failure);

    if (err < 0) {
        log_error("%s", failure.text);
        return err == -EPERM || err == -EACCES ? EXIT_REFUSED : EXIT_PINS;
    }
    daemon->maps_open = true;
    return 0;
}

static struct programs_options programs_wanted(const struct config *config)
{
    return (struct programs_options){
        .observe = config->observe,
        .connect = config->connect,
        .cgroup = config->cgroup,
        .all_namespaces = config->all_namespaces,
        .mark = config->mark,
    };
}

static int attach_programs(struct daemon *daemon)
{
    const struct programs_options options = programs_wanted(&daemon->config);
    struct failure failure;

    if (programs_open(&options, &daemon->maps, &daemon->programs, &failure) == 0)
        return 0;
    log_error("%s", failure.text);
    return EXIT_REFUSED;
}

static int add_listener(struct daemon *daemon, int err, int fd, bool writable, const char *error)
{
    if (err < 0) {
        log_error("%s", error);
        return EXIT_REFUSED;
    }
    daemon->listeners[daemon->n_listeners++] = (struct listener){fd, writable};
    return 0;
}

static int open_sockets(struct daemon *daemon)
{
    const struct config *config = &daemon->config;
    char error[PATH_MAX + 256];
    int fd = -1, status;
    int err = notify_listen_fd(&fd);

    if (err == -ENOENT) {
        err = listen_unix(config->socket, config->socket_mode, &fd, error, sizeof(error));
        daemon->socket_is_ours = err == 0;
    } else if (err < 0) {
        snprintf(error, sizeof(error),
                 "systemd did not pass exactly one listening unix stream "
                 "socket: check durpinad.socket");
    }
    status = add_listener(daemon, err, fd, true, error);
    for (size_t i = 0; i < config->listen.n && status == 0; i++) {
        err = listen_tcp(&config->listen.at[i].addr, &fd, error, sizeof(error));
        status = add_listener(daemon, err, fd, config->listen.at[i].writable, error);
    }
    return status;
}

/* Connections take descriptors; the default of 1024 is made for select(2). */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int drop_privileges(const struct daemon *daemon)
{
    int err = privileges_drop(&daemon->user);

    if (err == 0)
        return 0;
    log_error("cannot become user %s: %s; durpinad needs CAP_SETUID and CAP_SETGID to start",
              daemon->user.name, strerror(-err));
    return EXIT_REFUSED;
}

/* --- without ---------------------------------------------------------------------------------- */

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
    raise_descriptor_limit();
    /* The maps last: whoever is refused before leaves no pins behind. */
    status = prepare_directories(daemon);
    if (status == 0)
        status = open_sockets(daemon);
    if (status == 0)
        status = open_maps(daemon);
    if (status == 0)
        status = attach_programs(daemon);
    if (status == 0)
        status = drop_privileges(daemon);
    if (status == 0)
        status = serve(daemon);
    tear_down(daemon);
    return status;
}

/* durpinad -t -v */
static int print_programs(const struct config *config)
{
    const struct programs_options options = programs_wanted(config);
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
