/* SPDX-License-Identifier: MIT */
#include "history.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct history {
    size_t n;    /* transitions there are */
    size_t next; /* where the next one goes */
    struct transition *transitions[HISTORY_SIZE];
};

int history_add(struct history **history, uint64_t at_ms, enum durpina_peer_state from,
                enum durpina_peer_state to, const char *cause)
{
    struct transition *transition = malloc(sizeof(*transition) + strlen(cause) + 1);
    struct history *h = *history;

    if (h == NULL)
        h = calloc(1, sizeof(*h));
    if (transition == NULL || h == NULL) {
        free(transition);
        if (*history == NULL)
            free(h);
        return -ENOMEM;
    }
    *transition = (struct transition){.at_ms = at_ms, .from = from, .to = to};
    strcpy(transition->cause, cause);
    free(h->transitions[h->next]);
    h->transitions[h->next] = transition;
    h->next = (h->next + 1) % HISTORY_SIZE;
    if (h->n < HISTORY_SIZE)
        h->n++;
    *history = h;
    return 0;
}

size_t history_count(const struct history *history)
{
    return history == NULL ? 0 : history->n;
}

const struct transition *history_at(const struct history *history, size_t age)
{
    return history->transitions[(history->next + HISTORY_SIZE - 1 - age) % HISTORY_SIZE];
}

struct history *history_copy(const struct history *history)
{
    struct history *copy = NULL;

    for (size_t age = history_count(history); age-- > 0;) {
        const struct transition *t = history_at(history, age);

        if (history_add(&copy, t->at_ms, t->from, t->to, t->cause) < 0) {
            history_free(copy);
            return NULL;
        }
    }
    return copy;
}

void history_free(struct history *history)
{
    for (size_t i = 0; history != NULL && i < HISTORY_SIZE; i++)
        free(history->transitions[i]);
    free(history);
}
