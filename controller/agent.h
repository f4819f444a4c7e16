/* SPDX-License-Identifier: MIT */
/*
 * The line that a HAProxy agent answers with (HAProxy's configuration manual, "agent-check"), and
 * what it makes of what agents have said before. Pure.
 *
 *     up 75% maxconn:30 # all is well
 *
 * Words are separated by space, tab or comma and mean the same in any case. In a category the last
 * word wins. A word that begins with '#' ends the words: what follows is a description.
 */
#ifndef DURPINAD_AGENT_H
#define DURPINAD_AGENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AGENT_LINE_MAX 1024 /* bytes, its end included */
#define AGENT_WEIGHT_MAX 256
#define AGENT_PERCENT_MAX (100 * AGENT_WEIGHT_MAX) /* more says the same */
#define AGENT_MAXCONN_MAX INT32_MAX                /* likewise, as max_conns */
#define AGENT_TEXT_SIZE 128

enum agent_category {
    AGENT_ADMIN = 1 << 0,
    AGENT_WEIGHT = 1 << 1,
    AGENT_MAXCONN = 1 << 2,
    AGENT_HEALTH = 1 << 3,
};

enum agent_admin { AGENT_READY, AGENT_DRAIN, AGENT_MAINT };

/* What is not in `said` was never said: zero. */
struct agent_word {
    unsigned said; /* enum agent_category */
    enum agent_admin admin;
    bool down;       /* health */
    bool is_percent; /* weight: of the initial one, else absolute */
    uint32_t weight;
    uint32_t maxconn; /* 0: no limit */
};

struct agent_line {
    struct agent_word word;
    char health[8];                    /* "up", "down", "stopped", "fail"; "" */
    char description[AGENT_TEXT_SIZE]; /* as sent: to be escaped where it is shown */
    char unknown[AGENT_TEXT_SIZE];     /* words that mean nothing, a space between them; as sent */
};

/*
 * Parses the first line of len bytes. 0; -EINVAL: no CR or LF within AGENT_LINE_MAX bytes, or a NUL
 * before it: all of it is to be ignored. A weight or maxconn that makes no sense is unknown, but is
 * the last word of its category all the same: one before it does not count. Texts that are too long
 * are cut.
 */
int agent_parse(const char *text, size_t len, struct agent_line *ret);

/* "ready", "drain", "maint" */
const char *agent_admin_word(enum agent_admin admin);

bool agent_is_same(const struct agent_word *a, const struct agent_word *b);

/* Adds what was said to *word; the rest of it stays. True if that changed anything. Health, which
 * counts by rise and fall, is for the caller to leave out of `said` until there is a verdict. */
bool agent_apply(struct agent_word *word, const struct agent_word *said);

/* The weight in force: that of the operator (`now`, where 0 drains whatever an agent says), or the
 * agent's, where a percentage is of `initial` and rounded down. It exceeds AGENT_WEIGHT_MAX only if
 * `initial` does, and never that. */
uint32_t agent_weight(const struct agent_word *word, uint32_t initial, uint32_t now);

#endif
