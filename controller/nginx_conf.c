/* SPDX-License-Identifier: MIT */
#include "nginx_conf.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CODE "UpstreamConfFormatError"

enum token_kind { TOKEN_WORD, TOKEN_SEMICOLON, TOKEN_OPEN, TOKEN_CLOSE, TOKEN_END };

struct parser {
    struct nginx_conf *conf;
    const char *directory; /* that `include` is relative to; its length */
    int directory_len;
    const char *at, *end; /* what is left of the text */
    const char *file;     /* NULL: messages name no place */
    unsigned line;
    unsigned depth;
    struct failure *failure;
};

struct words {
    char **items;
    size_t n;
};

static int syntax_error(const struct parser *p, unsigned line, const char *what)
{
    if (p->file == NULL)
        return fail(p->failure, EINVAL, 400, CODE, "%s", what);
    return fail(p->failure, EINVAL, 400, CODE, "%s:%u: %s", p->file, line, what);
}

static int no_memory(const struct parser *p)
{
    return fail(p->failure, ENOMEM, 500, CODE, "out of memory");
}

/* Makes room for one more element of a zero initialised array that doubles at powers of two. */
static void *grow(void *items, size_t n, size_t size)
{
    if ((n & (n - 1)) != 0)
        return items;
    return reallocarray(items, n == 0 ? 1 : 2 * n, size);
}

static int words_add(struct words *words, char *word)
{
    char **items = grow(words->items, words->n + 1, sizeof(*items));

    if (items == NULL)
        return -ENOMEM;
    words->items = items;
    items[words->n++] = word;
    items[words->n] = NULL;
    return 0;
}

void nginx_conf_free_words(char **words)
{
    for (size_t i = 0; words != NULL && words[i] != NULL; i++)
        free(words[i]);
    free(words);
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static void skip_space(struct parser *p)
{
    for (; p->at < p->end; p->at++) {
        if (*p->at == '#')
            while (p->at + 1 < p->end && p->at[1] != '\n')
                p->at++;
        else if (*p->at == '\n')
            p->line++;
        else if (!is_space(*p->at))
            return;
    }
}

/* Copies len bytes with the escapes resolved that nginx resolves; others keep their backslash. */
static char *unescape(const char *from, size_t len)
{
    char *word = malloc(len + 1), *to = word;

    if (word == NULL)
        return NULL;
    for (size_t i = 0; i < len; i++) {
        char next = from[i] == '\\' && i + 1 < len ? from[i + 1] : '\0';

        switch (next) {
        case '"':
        case '\'':
        case '\\':
            *to++ = next;
            i++;
            break;
        case 't':
            *to++ = '\t';
            i++;
            break;
        case 'r':
            *to++ = '\r';
            i++;
            break;
        case 'n':
            *to++ = '\n';
            i++;
            break;
        default:
            *to++ = from[i];
        }
    }
    *to = '\0';
    return word;
}

static int quoted_word(struct parser *p, char **ret_word)
{
    char quote = *p->at++;
    const char *start = p->at;
    unsigned line = p->line;

    for (; p->at < p->end && *p->at != quote; p->at++) {
        if (*p->at == '\\' && p->at + 1 < p->end)
            p->at++;
        if (*p->at == '\n')
            p->line++;
    }
    if (p->at == p->end)
        return syntax_error(p, line, "a quote is not closed");

    size_t len = (size_t) (p->at++ - start);

    if (p->at < p->end && !is_space(*p->at) && strchr(";{}", *p->at) == NULL)
        return syntax_error(p, p->line, "a quoted word must be followed by a space or ';'");
    *ret_word = unescape(start, len);
    return *ret_word != NULL ? 0 : no_memory(p);
}

static int plain_word(struct parser *p, char **ret_word)
{
    const char *start = p->at;

    for (; p->at < p->end; p->at++) {
        if (is_space(*p->at) || *p->at == ';' || *p->at == '{')
            break;
        if (*p->at == '\\' && p->at + 1 < p->end && p->at[1] != '\n')
            p->at++;
    }
    *ret_word = unescape(start, (size_t) (p->at - start));
    return *ret_word != NULL ? 0 : no_memory(p);
}

static int next_token(struct parser *p, enum token_kind *ret_kind, char **ret_word)
{
    static const char punctuation[] = ";{}";
    const char *found;

    skip_space(p);
    if (p->at == p->end) {
        *ret_kind = TOKEN_END;
        return 0;
    }
    found = memchr(punctuation, *p->at, 3);
    if (found != NULL) {
        p->at++;
        *ret_kind = TOKEN_SEMICOLON + (enum token_kind)(found - punctuation);
        return 0;
    }
    *ret_kind = TOKEN_WORD;
    if (*p->at == '"' || *p->at == '\'')
        return quoted_word(p, ret_word);
    return plain_word(p, ret_word);
}

/* Reads words up to whatever is not one. On failure nothing is left to free. */
static int read_words(struct parser *p, struct words *ret_words, unsigned *ret_line,
                      enum token_kind *ret_end)
{
    struct words words = {0};
    enum token_kind kind;
    char *word = NULL;
    int err;

    skip_space(p);
    *ret_line = p->line;
    while ((err = next_token(p, &kind, &word)) == 0 && kind == TOKEN_WORD) {
        if (words_add(&words, word) < 0) {
            free(word);
            err = no_memory(p);
            break;
        }
    }
    if (err < 0) {
        nginx_conf_free_words(words.items);
        return err;
    }
    *ret_words = words;
    *ret_end = kind;
    return 0;
}

struct directives {
    struct nginx_directive *items;
    size_t n;
};

static int parse_directives(struct parser *p, bool in_block, struct directives *list);
static int include(struct parser *p, const char *pattern, unsigned line, struct directives *list);

/* Takes words over, whether it fails or not. */
static int add_directive(struct parser *p, struct words *words, unsigned line, bool is_block,
                         struct directives *list)
{
    struct nginx_directive *items = grow(list->items, list->n, sizeof(*items));
    struct directives children = {0};
    int err = 0;

    if (items == NULL) {
        nginx_conf_free_words(words->items);
        return no_memory(p);
    }
    list->items = items;

    /* In the list from now on, so that whatever happens it is freed with the tree. */
    size_t index = list->n++;

    items[index] = (struct nginx_directive){.args = words->items,
                                            .n_args = words->n,
                                            .is_block = is_block,
                                            .file = p->file,
                                            .line = line};
    if (is_block) {
        err = parse_directives(p, true, &children);
        list->items[index].children = children.items;
        list->items[index].n_children = children.n;
    }
    return err;
}

static int parse_directives(struct parser *p, bool in_block, struct directives *list)
{
    unsigned opened = p->line;
    int err = 0;

    if (p->depth >= NGINX_CONF_DEPTH_MAX)
        return syntax_error(p, p->line, "blocks or included files are nested too deep");
    p->depth++;

    while (err == 0) {
        struct words words;
        enum token_kind end;
        unsigned line;

        err = read_words(p, &words, &line, &end);
        if (err < 0)
            break;
        if (words.n == 0) {
            nginx_conf_free_words(words.items);
            if (end == (in_block ? TOKEN_CLOSE : TOKEN_END))
                break;
            err = end == TOKEN_END ? syntax_error(p, opened, "a block is not closed by '}'")
                                   : syntax_error(p, p->line,
                                                  end == TOKEN_CLOSE  ? "unexpected '}'"
                                                  : end == TOKEN_OPEN ? "unexpected '{'"
                                                                      : "unexpected ';'");
        } else if (end == TOKEN_END || end == TOKEN_CLOSE) {
            nginx_conf_free_words(words.items);
            err = syntax_error(p, line, "a directive is not ended by ';'");
        } else if (end == TOKEN_SEMICOLON && strcmp(words.items[0], "include") == 0) {
            err = words.n == 2 ? include(p, words.items[1], line, list)
                               : syntax_error(p, line, "include takes one file name");
            nginx_conf_free_words(words.items);
        } else {
            err = add_directive(p, &words, line, end == TOKEN_OPEN, list);
        }
    }
    p->depth--;
    return err;
}

static int read_file(const char *path, char **ret_text, size_t *ret_len)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *text = NULL;
    size_t len = 0;
    ssize_t n;

    if (fd < 0)
        return -errno;
    do {
        char *more = realloc(text, len + 65536);

        if (more == NULL) {
            n = -1;
            errno = ENOMEM;
            break;
        }
        text = more;
        n = read(fd, text + len, 65536);
        if (n > 0)
            len += (size_t) n;
        if (len > NGINX_CONF_SIZE_MAX) {
            n = -1;
            errno = EFBIG;
        }
    } while (n > 0);

    int err = n < 0 ? -errno : 0;

    close(fd);
    if (err < 0) {
        free(text);
        return err;
    }
    *ret_text = text;
    *ret_len = len;
    return 0;
}

/* Remembers the name of a file for as long as the tree lives. */
static const char *intern(struct nginx_conf *conf, const char *file)
{
    char **files = grow(conf->files, conf->n_files, sizeof(*files));
    char *copy = strdup(file);

    if (files != NULL)
        conf->files = files;
    if (files == NULL || copy == NULL) {
        free(copy);
        return NULL;
    }
    files[conf->n_files++] = copy;
    return copy;
}

static int parse_into(struct parser *p, const char *text, size_t len, const char *file,
                      struct directives *list)
{
    struct parser inner = *p;

    inner.file = intern(p->conf, file);
    if (inner.file == NULL)
        return no_memory(p);
    inner.at = text;
    inner.end = text + len;
    inner.line = 1;
    if (memchr(text, '\0', len) != NULL)
        return fail(p->failure, EINVAL, 400, CODE, "%s: contains a NUL byte", file);
    return parse_directives(&inner, false, list);
}

static int include_file(struct parser *p, const char *path, unsigned line, struct directives *list)
{
    char *text = NULL;
    size_t len = 0;
    int err = read_file(path, &text, &len);

    if (err < 0 && p->file != NULL)
        return fail(p->failure, -err, 400, CODE, "%s:%u: include %s: %s", p->file, line, path,
                    strerror(-err));
    if (err < 0)
        return fail(p->failure, -err, 400, CODE, "%s: %s", path, strerror(-err));
    err = parse_into(p, text, len, path, list);
    free(text);
    return err;
}

static int include(struct parser *p, const char *pattern, unsigned line, struct directives *list)
{
    char *path = NULL;
    glob_t found = {0};
    int err = 0;

    if (pattern[0] == '/')
        path = strdup(pattern);
    else if (asprintf(&path, "%.*s%s", p->directory_len, p->directory, pattern) < 0)
        path = NULL;
    if (path == NULL)
        return no_memory(p);

    if (strpbrk(path, "*?[") == NULL) {
        err = include_file(p, path, line, list);
    } else if (glob(path, 0, NULL, &found) == 0) {
        for (size_t i = 0; i < found.gl_pathc && err == 0; i++)
            err = include_file(p, found.gl_pathv[i], line, list);
    }
    globfree(&found);
    free(path);
    return err;
}

static void free_directives(struct nginx_directive *directives, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        nginx_conf_free_words(directives[i].args);
        free_directives(directives[i].children, directives[i].n_children);
    }
    free(directives);
}

void nginx_conf_free(struct nginx_conf *conf)
{
    if (conf == NULL)
        return;
    free_directives(conf->directives, conf->n_directives);
    for (size_t i = 0; i < conf->n_files; i++)
        free(conf->files[i]);
    free(conf->files);
    free(conf);
}

/* text NULL: from the file. */
static int parse(const char *text, size_t len, const char *file, struct nginx_conf **ret_conf,
                 struct failure *failure)
{
    const char *slash = strrchr(file, '/');
    struct directives list = {0};
    struct parser p = {.conf = calloc(1, sizeof(*p.conf)),
                       .directory = file,
                       .directory_len = slash != NULL ? (int) (slash + 1 - file) : 0,
                       .failure = failure};
    int err;

    if (p.conf == NULL)
        return no_memory(&p);
    err = text != NULL ? parse_into(&p, text, len, file, &list) : include_file(&p, file, 0, &list);
    p.conf->directives = list.items;
    p.conf->n_directives = list.n;
    if (err < 0) {
        nginx_conf_free(p.conf);
        return err;
    }
    *ret_conf = p.conf;
    return 0;
}

int nginx_conf_parse_file(const char *path, struct nginx_conf **ret_conf, struct failure *failure)
{
    return parse(NULL, 0, path, ret_conf, failure);
}

int nginx_conf_parse_text(const char *text, size_t len, const char *file,
                          struct nginx_conf **ret_conf, struct failure *failure)
{
    return parse(text, len, file, ret_conf, failure);
}

int nginx_conf_split(const char *text, char ***ret_words, size_t *ret_n, struct failure *failure)
{
    struct parser p = {.at = text, .end = text + strlen(text), .line = 1, .failure = failure};
    enum token_kind end;
    struct words words;
    unsigned line;
    int err = read_words(&p, &words, &line, &end);

    if (err < 0)
        return err;
    if (end == TOKEN_SEMICOLON) {
        skip_space(&p);
        end = p.at == p.end ? TOKEN_END : TOKEN_SEMICOLON;
    }
    if (end != TOKEN_END || words.n == 0) {
        nginx_conf_free_words(words.items);
        return syntax_error(&p, 1, end != TOKEN_END ? "unexpected ';', '{' or '}'" : "empty");
    }
    *ret_words = words.items;
    *ret_n = words.n;
    return 0;
}
