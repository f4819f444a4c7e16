/* SPDX-License-Identifier: MIT */
/* What an edit (engine_internal.h) consists of. */
#ifndef DURPINAD_ENGINE_EDIT_H
#define DURPINAD_ENGINE_EDIT_H

#include "engine_internal.h"

/* A server before the edit. Its array of peers is replaced as a whole, never changed, so that the
 * old one is still there to go back to. */
struct change {
    struct server *server;
    struct server before;
    uint32_t *srv_weights; /* of the peers in it; NULL: none has changed */
    bool added;
    bool removed;
};

struct edit {
    struct upstream *upstream;
    bool is_new;
    bool removes_upstream;
    enum demand demand[N_DEMANDED]; /* before the edit */
    struct change *changes;
    size_t n, capacity;
    struct publication *publication;
    bool is_whole; /* of all peers */
};

/* Frees those of the array that the server has not. */
void edit_free_others(struct peer **peers, size_t n, const struct server *server);

#endif
