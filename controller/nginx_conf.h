/* SPDX-License-Identifier: MIT */
/*
 * nginx's configuration syntax: words, blocks, quotes, comments, `include`. The result is a tree of
 * directives that knows file and line of each, so that whoever interprets it can name them.
 *
 *     struct nginx_conf *conf;
 *     err = nginx_conf_parse_file("/etc/durpina/durpinad.conf", &conf, &failure);
 *     for (size_t i = 0; i < conf->n_directives; i++)
 *         ... conf->directives[i].args[0] is its name ...
 *     nginx_conf_free(conf);
 *
 * Words follow ngx_conf_read_token(): quotes are special at the start of a word only and must be
 * followed by a space, ';', '{' or '}'; a backslash escapes quotes, itself, t, r and n; '#' starts
 * a comment where a word could start.
 */
#ifndef DURPINAD_NGINX_CONF_H
#define DURPINAD_NGINX_CONF_H

#include <stdbool.h>
#include <stddef.h>

#include "failure.h"

#define NGINX_CONF_DEPTH_MAX 16               /* of blocks, and of files that include one another */
#define NGINX_CONF_SIZE_MAX (4 * 1024 * 1024) /* bytes of one file */

struct nginx_directive {
    char **args; /* args[0] is the name; args[n_args] is NULL */
    size_t n_args;
    bool is_block; /* ended by a block, possibly empty, instead of ';' */
    struct nginx_directive *children;
    size_t n_children;
    const char *file; /* as included; lives as long as the tree */
    unsigned line;    /* of the name, from 1 */
};

struct nginx_conf {
    struct nginx_directive *directives;
    size_t n_directives;
    char **files; /* owned names of all files read */
    size_t n_files;
};

/*
 * Parses a file and what it includes (glob patterns, relative to the directory of path).
 * Returns 0; -EINVAL, -ENOENT, -E2BIG or another -errno with "FILE:LINE: what is wrong" in failure.
 */
int nginx_conf_parse_file(const char *path, struct nginx_conf **ret_conf, struct failure *failure);

/* The same from memory; file is the name for messages. `include` is relative to its directory. */
int nginx_conf_parse_text(const char *text, size_t len, const char *file,
                          struct nginx_conf **ret_conf, struct failure *failure);

/*
 * Splits what could stand between a directive's name and its ';' (which may be there) into words.
 * *ret_words is NULL terminated and to be freed with nginx_conf_free_words(). -EINVAL.
 */
int nginx_conf_split(const char *text, char ***ret_words, size_t *ret_n, struct failure *failure);
void nginx_conf_free_words(char **words);

/* NULL is fine. */
void nginx_conf_free(struct nginx_conf *conf);

#endif
