/* SPDX-License-Identifier: MIT */
/*
 * Why a request was refused, in the words that its sender gets: the API's status, code and text
 * (docs/api.md), the CLI and nginx show the text.
 */
#ifndef DURPINAD_FAILURE_H
#define DURPINAD_FAILURE_H

#include <stdarg.h>
#include <stddef.h>

struct failure {
    unsigned status;  /* of HTTP: 400, 403, 404, 405, 409, 413, 415, 500, 503 */
    const char *code; /* a literal: "UpstreamNotFound" */
    char text[512];   /* names the culprit; see escape_text() */
};

/* Fills *failure and returns -err, so that callers can `return fail(failure, EINVAL, 400, ...)`. */
int fail(struct failure *failure, int err, unsigned status, const char *code, const char *format,
         ...) __attribute__((format(printf, 5, 6)));
/* The same for a request that there is no memory for: -ENOMEM. */
int fail_memory(struct failure *failure);

/*
 * Makes text fit for a line of a log, a terminal and JSON: copies what of `from` fits into size
 * bytes with the NUL, printable ASCII as it is, any other byte as \xHH, never cut. The two must
 * not overlap. Returns the length.
 */
size_t escape_text(const char *from, char *to, size_t size);

#endif
