/* SPDX-License-Identifier: MIT */
/*
 * Between check.c, which walks the options of a check, and the files that know those of one kind.
 * A kind lists its options in a table that ends with an empty entry.
 */
#ifndef DURPINAD_CHECK_OPTION_H
#define DURPINAD_CHECK_OPTION_H

#include "check.h"

#define CHECK_HEADER_PREFIX "header_"

struct check_option {
    const char *name; /* CHECK_HEADER_PREFIX: any name that begins so */
    /* 0, -EINVAL (the value is not what help says), -EEXIST (given before), -ENOMEM. */
    int (*parse)(const struct check_option *option, const char *name, const json_t *value,
                 struct check *check);
    size_t field; /* its offset in struct check */
    uint32_t min, max;
    const char *help; /* "must be ..." */
};

/* Values of `parse`; what they store, at `field`, is named first. */

/* uint32_t: a whole number from min to max. */
int check_integer_parse(const struct check_option *option, const char *name, const json_t *value,
                        struct check *check);
/* char *: min to max bytes of any kind but NUL. */
int check_bytes_parse(const struct check_option *option, const char *name, const json_t *value,
                      struct check *check);
/* char *: the same of visible ASCII only, which can go into a request as it is. */
int check_word_parse(const struct check_option *option, const char *name, const json_t *value,
                     struct check *check);

/* bool: true or false, perhaps as a string. */
int check_bool_parse(const struct check_option *option, const char *name, const json_t *value,
                     struct check *check);

#define CHECK_FIELD(name) offsetof(struct check, name)

/* A kind of check, listed in check.c by its enum check_type. */
struct check_kind {
    const char *name;
    const struct check_option *options; /* beside the common ones */
    uint32_t interval_ms;               /* the default; 0: CHECK_INTERVAL_DEFAULT_MS */
    /* Sets the defaults and refuses what does not go together: 0; -EINVAL; -ENOMEM. Or NULL. */
    int (*complete)(struct check *check, struct failure *failure);
    void (*clear)(struct check *check); /* frees what its options hold; or NULL */
    /* Does what the backend sees depend on the peer's name? NULL: it does not. */
    bool (*sends_host)(const struct check *check);
};

/* The options of all kinds. */
extern const struct check_option check_common_options[];

/* Without a name if its monitors have names of their own. */
const struct check_kind *check_kind_of(enum check_type type);

extern const struct check_kind check_http_kind;
extern const struct check_kind check_grpc_kind;
extern const struct check_kind check_http_agent_kind;

#endif
