/* SPDX-License-Identifier: MIT */
/* What durpinactl is made of besides its commands: requests to the controller, tables of text. */
#ifndef DURPINAD_CTL_H
#define DURPINAD_CTL_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#define CTL_PATH_SIZE 1024
#define CTL_COLUMNS_MAX 10

/* Exit codes. */
enum {
    CTL_REFUSED = 1, /* by the controller */
    CTL_USAGE = 2,
    CTL_UNREACHABLE = 3, /* no controller */
};

/*
 * One request to the controller that listens on the unix socket. path begins with "/api"; body is
 * text or NULL. Returns 0 with the decoded answer, to be released, or an exit code after a message
 * on stderr.
 */
int ctl_request(const char *socket, const char *method, const char *path, const char *body,
                json_t **ret_answer);

/* Cells are strings on the heap. */
struct ctl_table {
    size_t n_columns;
    char *(*rows)[CTL_COLUMNS_MAX];
    size_t n_rows;
};

/* Takes the cells over. */
void ctl_table_add(struct ctl_table *table, char *const *cells);
/* Prints it to stdout below its titles, columns of numbers flush right, and frees it. */
void ctl_table_print(struct ctl_table *table, const char *const *titles);

/* Answers of the API as text: of /durpina, /http/upstreams, a server, monitors, the peers of
 * /durpina/upstreams/NAME/peers, and of /durpina/upstreams/NAME with the peers of
 * /http/upstreams/NAME as "peers" and its own as "health" put in. */
void ctl_print_status(const json_t *status);
/* Of /durpina/kernel; of the upstream NAME. */
void ctl_print_kernel(const json_t *kernel);
void ctl_print_connections(const json_t *upstream);
void ctl_print_upstreams(const json_t *upstreams);
void ctl_print_server(const json_t *server);
void ctl_print_monitors(const json_t *monitors);
void ctl_print_checks(const json_t *peers);
void ctl_print_history(const json_t *peers);
void ctl_print_upstream(const json_t *upstream);

/* The words of a `server` line as the API takes it; NULL after a message on stderr. */
json_t *ctl_server_json(char **words, uint16_t default_port);

/* Virtual endpoints: those of /durpina/vips as text; what a line of words asks for as the API takes
 * it, NULL after a message on stderr; the path of one, or a message and CTL_USAGE. */
void ctl_print_vips(const json_t *vips);
json_t *ctl_vip_json(char **words);
int ctl_vip_path(const char *address, char path[CTL_PATH_SIZE]);

#endif
