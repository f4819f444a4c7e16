/* SPDX-License-Identifier: MIT */
/* The target of a request: its path, cut and matched against patterns, and ?fields=. Pure. */
#ifndef DURPINAD_API_TARGET_H
#define DURPINAD_API_TARGET_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#define API_PARTS_MAX 8
#define API_ARGS_MAX 2
#define API_ARG_SIZE 256 /* of one part of a path, decoded, with the NUL */
#define API_FIELDS_MAX 64

/* Between two slashes, as sent. */
struct api_part {
    const char *text;
    size_t len;
};

/* Cuts the path of a target at its slashes, leaving out an empty last part. Returns the number of
 * parts, or -1: it does not begin with a slash or has too many. */
int api_split_path(const char *target, struct api_part parts[API_PARTS_MAX]);
bool api_part_is(const struct api_part *part, const char *word);

/*
 * Do the parts match a pattern like "upstreams/STAR/servers", with an asterisk where STAR is? What
 * asterisks stand for goes to args, percent-decoded; what is no proper escape, or NUL, matches
 * none.
 */
bool api_path_matches(const char *pattern, const struct api_part *parts, int n,
                      char args[API_ARGS_MAX][API_ARG_SIZE]);

/* Percent-encodes a part of a path; what does not fit into size bytes with the NUL is cut off. */
void api_encode(const char *text, char *ret, size_t size);

/* The names behind ?fields=, as strings in buffer. Returns their number, or -1: all are wanted. */
int api_parse_fields(const char *target, char *buffer, size_t size,
                     const char *ret[API_FIELDS_MAX]);

/* Takes all other members out of the object, or of each object of the array. */
void api_keep_fields(json_t *value, const char *const *fields, int n);

#endif
