/* SPDX-License-Identifier: MIT */
/* What durpinad opens as root, up to the moment that it is root no more. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "daemon.h"
#include "listen.h"
#include "log.h"
#include "notify.h"
#include "programs.h"
#include "state_file.h"

#define STATE_DIRECTORY_MODE 0750
#define SOCKET_DIRECTORY_MODE 0755

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

static int attach_programs(struct daemon *daemon)
{
    const struct programs_options options = config_programs(&daemon->config);
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

int daemon_open(struct daemon *daemon)
{
    int status;

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
    return status;
}
