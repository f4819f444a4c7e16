/* SPDX-License-Identifier: MIT */
/* Lines of agents: agent.h's promises hold for any bytes. */
#include <stdlib.h>
#include <string.h>

#include "agent.h"

#define ENSURE(what) ((what) ? (void) 0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_word(const struct agent_word *word)
{
    ENSURE(word->said <= (AGENT_ADMIN | AGENT_WEIGHT | AGENT_MAXCONN | AGENT_HEALTH));
    ENSURE(word->admin <= AGENT_MAINT);
    ENSURE(word->said & AGENT_ADMIN || word->admin == AGENT_READY);
    ENSURE(word->said & AGENT_HEALTH || !word->down);
    ENSURE(word->said & AGENT_WEIGHT || (word->weight == 0 && !word->is_percent));
    ENSURE(word->said & AGENT_MAXCONN || word->maxconn == 0);
    ENSURE(word->maxconn <= AGENT_MAXCONN_MAX);
    ENSURE(word->weight <= (word->is_percent ? AGENT_PERCENT_MAX : AGENT_WEIGHT_MAX));
    for (uint32_t initial = 0; initial <= 65535; initial = initial * 2 + 1) {
        uint32_t weight = agent_weight(word, initial, initial);

        ENSURE(weight <= AGENT_WEIGHT_MAX || weight <= initial);
        ENSURE(agent_weight(word, initial, 0) == 0);
    }
}

static void check_text(const char text[AGENT_TEXT_SIZE])
{
    ENSURE(memchr(text, '\0', AGENT_TEXT_SIZE) != NULL);
    ENSURE(strpbrk(text, "\r\n") == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct agent_line line, again;
    struct agent_word word = {0};
    const uint8_t *end = data;
    size_t room = size < AGENT_LINE_MAX ? size : AGENT_LINE_MAX;

    while ((size_t) (end - data) < room && *end != '\0' && *end != '\r' && *end != '\n')
        end++;
    bool is_line = (size_t) (end - data) < room && *end != '\0';

    ENSURE((agent_parse((const char *) data, size, &line) == 0) == is_line);
    if (!is_line)
        return 0;
    check_word(&line.word);
    check_text(line.description);
    check_text(line.unknown);
    ENSURE((line.word.said & AGENT_HEALTH) == (line.health[0] != '\0' ? AGENT_HEALTH : 0U));

    ENSURE(agent_apply(&word, &line.word) == (line.word.said != 0));
    ENSURE(!agent_apply(&word, &line.word));
    check_word(&word);

    /* What follows the line means nothing. */
    ENSURE(agent_parse((const char *) data, (size_t) (end - data) + 1, &again) == 0);
    ENSURE(memcmp(&again.word.said, &line.word.said, sizeof(again.word.said)) == 0 &&
           strcmp(again.unknown, line.unknown) == 0);
    return 0;
}
