/* SPDX-License-Identifier: MIT */
#include "agent.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define BLANKS " \t,"
#define WEIGHT_PREFIX "weight:"
#define MAXCONN_PREFIX "maxconn:"

static const struct {
    const char *name;
    enum agent_category category;
    unsigned value; /* enum agent_admin, or: is it down? */
} keywords[] = {
    {"up", AGENT_HEALTH, false},         {"down", AGENT_HEALTH, true},
    {"stopped", AGENT_HEALTH, true},     {"fail", AGENT_HEALTH, true},
    {"ready", AGENT_ADMIN, AGENT_READY}, {"drain", AGENT_ADMIN, AGENT_DRAIN},
    {"maint", AGENT_ADMIN, AGENT_MAINT},
};

static bool starts_with(const char *word, const char *prefix)
{
    return strncasecmp(word, prefix, strlen(prefix)) == 0;
}

/* Digits; what exceeds max is max. Returns what follows them, NULL if there are none. */
static const char *number_parse(const char *text, uint32_t max, uint32_t *ret)
{
    const char *end = text + strspn(text, "0123456789");
    uint64_t value = 0;

    if (end == text)
        return NULL;
    for (; text < end; text++) {
        value = value * 10 + (uint64_t) (*text - '0');
        if (value > max)
            value = max;
    }
    *ret = (uint32_t) value;
    return end;
}

static bool keyword_parse(const char *word, struct agent_line *line)
{
    for (size_t i = 0; i < sizeof(keywords) / sizeof(keywords[0]); i++) {
        if (strcasecmp(word, keywords[i].name) != 0)
            continue;
        line->word.said |= keywords[i].category;
        if (keywords[i].category == AGENT_ADMIN) {
            line->word.admin = (enum agent_admin) keywords[i].value;
        } else {
            line->word.down = keywords[i].value;
            strcpy(line->health, keywords[i].name);
        }
        return true;
    }
    return false;
}

/* "75%", "weight:75%", "weight:75" */
static bool weight_parse(const char *word, struct agent_word *ret)
{
    bool has_prefix = starts_with(word, WEIGHT_PREFIX);
    uint32_t weight;
    const char *end =
        number_parse(word + (has_prefix ? strlen(WEIGHT_PREFIX) : 0), AGENT_PERCENT_MAX, &weight);
    bool is_percent = end != NULL && *end == '%';

    if (end == NULL || end[is_percent] != '\0' || (!is_percent && weight > AGENT_WEIGHT_MAX))
        return false;
    ret->said |= AGENT_WEIGHT;
    ret->is_percent = is_percent;
    ret->weight = weight;
    return true;
}

static bool maxconn_parse(const char *word, struct agent_word *ret)
{
    uint32_t maxconn;
    const char *end = number_parse(word + strlen(MAXCONN_PREFIX), AGENT_MAXCONN_MAX, &maxconn);

    if (end == NULL || *end != '\0')
        return false;
    ret->said |= AGENT_MAXCONN;
    ret->maxconn = maxconn;
    return true;
}

static void unknown_append(struct agent_line *line, const char *word)
{
    size_t n = strlen(line->unknown);

    snprintf(line->unknown + n, sizeof(line->unknown) - n, "%s%s", n > 0 ? " " : "", word);
}

int agent_parse(const char *text, size_t len, struct agent_line *ret)
{
    struct agent_line line = {0};
    char words[AGENT_LINE_MAX], *rest = words, *word;
    const char *weight = NULL, *maxconn = NULL;
    size_t n = 0;

    while (n < len && n < sizeof(words) && strchr("\r\n", text[n]) == NULL)
        n++;
    /* A NUL, which strchr() finds too, ends the text for HAProxy: before the end of the line. */
    if (n == len || n == sizeof(words) || text[n] == '\0')
        return -EINVAL;
    memcpy(words, text, n);
    words[n] = '\0';

    for (;;) {
        rest += strspn(rest, BLANKS);
        if (*rest == '#') {
            rest++;
            snprintf(line.description, sizeof(line.description), "%s", rest + strspn(rest, " \t"));
            break;
        }
        if (*rest == '\0')
            break;
        word = rest;
        rest += strcspn(rest, BLANKS);
        if (*rest != '\0')
            *rest++ = '\0';

        /* A weight or limit that makes no sense still takes the place of one before it. */
        if (strchr("0123456789", *word) != NULL && strchr(word, '%') != NULL)
            weight = word;
        else if (starts_with(word, WEIGHT_PREFIX))
            weight = word;
        else if (starts_with(word, MAXCONN_PREFIX))
            maxconn = word;
        else if (!keyword_parse(word, &line))
            unknown_append(&line, word);
    }
    if (weight != NULL && !weight_parse(weight, &line.word))
        unknown_append(&line, weight);
    if (maxconn != NULL && !maxconn_parse(maxconn, &line.word))
        unknown_append(&line, maxconn);
    *ret = line;
    return 0;
}

const char *agent_admin_word(enum agent_admin admin)
{
    static const char *const words[] = {
        [AGENT_READY] = "ready", [AGENT_DRAIN] = "drain", [AGENT_MAINT] = "maint"};

    return words[admin];
}

bool agent_is_same(const struct agent_word *a, const struct agent_word *b)
{
    return a->said == b->said && a->admin == b->admin && a->down == b->down &&
           a->is_percent == b->is_percent && a->weight == b->weight && a->maxconn == b->maxconn;
}

bool agent_apply(struct agent_word *word, const struct agent_word *said)
{
    struct agent_word now = *word;

    now.said |= said->said;
    if (said->said & AGENT_ADMIN)
        now.admin = said->admin;
    if (said->said & AGENT_WEIGHT) {
        now.is_percent = said->is_percent;
        now.weight = said->weight;
    }
    if (said->said & AGENT_MAXCONN)
        now.maxconn = said->maxconn;
    if (said->said & AGENT_HEALTH)
        now.down = said->down;

    bool changed = !agent_is_same(&now, word);

    *word = now;
    return changed;
}

uint32_t agent_weight(const struct agent_word *word, uint32_t initial, uint32_t now)
{
    uint64_t weight = word->weight;
    uint32_t max = initial > AGENT_WEIGHT_MAX ? initial : AGENT_WEIGHT_MAX;

    if (now == 0 || !(word->said & AGENT_WEIGHT))
        return now;
    if (word->is_percent)
        weight = weight * initial / 100;
    return weight < max ? (uint32_t) weight : max;
}
