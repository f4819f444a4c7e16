/* SPDX-License-Identifier: MIT */
/*
 * The programs in the kernel: loaded, attached to a cgroup, and pinned, so that they outlive
 * durpinad.
 *
 *     err = programs_open(&options, &state, &programs, &failure);    as root
 *     ... give up root ...
 *     programs_watch(programs, loop);
 *     programs_close(programs);                                      the programs go on
 *
 * Each hook is a rung of a ladder: one that cannot be attached says what is missing, what to do
 * about it and what does not work without, and the others are attached all the same.
 *
 *  1. Whatever is attached after programs_open() is pinned as PIN/link_NAME and runs the programs
 *     of this build with these options; what is not wanted or cannot be had is not attached.
 *  2. A pinned link to the wanted cgroup is adopted: its program is replaced by one step of the
 *     kernel's, without a connection in between that none of the two sees.
 *  3. While link_observe is pinned, `sockets` holds what its program knows of connections. If it
 *     has to be attached anew, what was known before is void: `sockets` is then a new map, and no
 *     connection counts as open.
 *  4. A controller that is killed between any two steps leaves nothing attached that is not pinned,
 *     and nothing pinned that the next start does not adopt or replace.
 */
#ifndef DURPINAD_PROGRAMS_H
#define DURPINAD_PROGRAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <uv.h>

#include "bpf_state.h"
#include "failure.h"

#define PROGRAMS_WHY_SIZE 320

struct programs_options {
    bool observe;        /* count the connections to endpoints */
    bool connect;        /* virtual endpoints */
    const char *cgroup;  /* a directory of a cgroup2; "": its root, wherever that is mounted */
    bool all_namespaces; /* act in all network namespaces, not only in this process's */
    uint32_t mark;       /* SO_MARK of sockets that `connect` leaves alone; 0: none */
};

struct programs_rung {
    const char *name; /* of the hook: "observe", "connect4", ...; the pin is link_NAME */
    const char *cost; /* what does not work without it */
    bool wanted;      /* else it is turned off */
    bool attached;
    char why[PROGRAMS_WHY_SIZE]; /* wanted, but not attached: what is missing, and the remedy */
};

struct programs;

/*
 * Attaches what is wanted and can be, detaches what is pinned and not wanted, sets meta.observing,
 * and logs each missing rung once. state is borrowed and must live longer. -ENOMEM is the only
 * error.
 */
int programs_open(const struct programs_options *options, struct bpf_state *state,
                  struct programs **ret, struct failure *failure);

/*
 * The same ladder without a change of anything, for whoever asks before a start: `attached` where
 * the directory pin has the link of a running durpinad or of one that has stopped, else `why` says
 * what this process lacks now, "" if nothing is known to be missing. -ENOMEM.
 */
int programs_probe(const struct programs_options *options, const char *pin, struct programs **ret);
/* Prints it, for people. */
void programs_print(const struct programs *programs, FILE *out);

/* Looks each second whether the programs are still attached: rmdir of the cgroup detaches them. */
int programs_watch(struct programs *programs, uv_loop_t *loop);

/* Closes its handle on the loop and frees it, with the loop's next run if it watches; the programs
 * stay attached. NULL is fine. */
void programs_close(struct programs *programs);

const struct programs_rung *programs_rungs(const struct programs *programs, size_t *ret_n);
bool programs_observing(const struct programs *programs);
bool programs_connecting(const struct programs *programs);
/* The path of the cgroup, "" if it was not found. */
const char *programs_cgroup(const struct programs *programs);

/*
 * Makes the programs leave the socket alone: it is neither counted nor sent elsewhere. To be called
 * before connect(); needs no privilege. 0 or -errno.
 */
int programs_exempt_socket(const struct bpf_state *state, int fd);

#endif
