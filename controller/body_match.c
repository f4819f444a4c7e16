/* SPDX-License-Identifier: MIT */
#include "body_match.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <errno.h>
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"

#define CLOCK_EVERY 32 /* steps of a search between two looks at the clock */

struct body_match {
    pcre2_code *code;
};

struct search {
    uint64_t end_ms;
    unsigned steps;
};

int body_match_compile(const char *pattern, struct body_match **ret, char *error, size_t size)
{
    struct body_match *match = calloc(1, sizeof(*match));
    PCRE2_UCHAR text[128];
    PCRE2_SIZE offset;
    int code;

    if (match == NULL)
        return -ENOMEM;
    /*
     * PCRE2's limits count anew from each byte of the body, so they do not bound a search; callouts
     * let us see its steps, of which none takes longer than to look through the body once.
     */
    match->code = pcre2_compile((PCRE2_SPTR) pattern, PCRE2_ZERO_TERMINATED,
                                PCRE2_AUTO_CALLOUT | PCRE2_NEVER_UTF | PCRE2_NEVER_UCP |
                                    PCRE2_NEVER_BACKSLASH_C,
                                &code, &offset, NULL);
    if (match->code == NULL) {
        free(match);
        if (code == PCRE2_ERROR_HEAP_FAILED)
            return -ENOMEM;
        pcre2_get_error_message(code, text, sizeof(text));
        snprintf(error, size, "%s at offset %zu", (const char *) text, offset);
        return -EINVAL;
    }
    *ret = match;
    return 0;
}

void body_match_free(struct body_match *match)
{
    if (match == NULL)
        return;
    pcre2_code_free(match->code);
    free(match);
}

static int on_step(pcre2_callout_block *block, void *user)
{
    struct search *search = user;

    (void) block;
    if (++search->steps % CLOCK_EVERY != 0)
        return 0;
    return clock_monotonic_ms() < search->end_ms ? 0 : PCRE2_ERROR_MATCHLIMIT;
}

int body_match_run(const struct body_match *match, const char *body, size_t length)
{
    struct search search = {.end_ms = clock_monotonic_ms() + BODY_MATCH_TIME_MS};
    pcre2_match_context *context = pcre2_match_context_create(NULL);
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    int result = PCRE2_ERROR_NOMEMORY;

    if (context != NULL && data != NULL) {
        pcre2_set_callout(context, on_step, &search);
        pcre2_set_heap_limit(context, BODY_MATCH_HEAP_KIB);
        result = pcre2_match(match->code, (PCRE2_SPTR) (body != NULL ? body : ""), length, 0, 0,
                             data, context);
    }
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    if (result >= 0)
        return 1;
    if (result == PCRE2_ERROR_NOMATCH)
        return 0;
    return result == PCRE2_ERROR_NOMEMORY ? -ENOMEM : -EOVERFLOW;
}
