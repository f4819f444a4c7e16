/* SPDX-License-Identifier: MIT */
/*
 * Does the body of an answer match a regular expression (PCRE2, bytes, no UTF)? Whoever sends the
 * body may choose the worst one for the expression, so a search ends after BODY_MATCH_TIME_MS and
 * takes at most BODY_MATCH_HEAP_KIB. Pure, but for the clock that bounds it.
 */
#ifndef DURPINAD_BODY_MATCH_H
#define DURPINAD_BODY_MATCH_H

#include <stddef.h>

#define BODY_MATCH_PATTERN_MAX 1024 /* bytes */
#define BODY_MATCH_TIME_MS 10
#define BODY_MATCH_HEAP_KIB (16 * 1024)

struct body_match;

/*
 * 0; -EINVAL with what is wrong with the pattern, and where, in `error`; -ENOMEM. *ret is to be
 * given to body_match_free().
 */
int body_match_compile(const char *pattern, struct body_match **ret, char *error, size_t size);
void body_match_free(struct body_match *match); /* NULL is fine */

/* 1 if some part of the body matches, 0 if none does; -EOVERFLOW at a limit; -ENOMEM. */
int body_match_run(const struct body_match *match, const char *body, size_t length);

#endif
