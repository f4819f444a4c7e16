/* SPDX-License-Identifier: MIT */
#include "api_target.h"

#include <errno.h>
#include <string.h>

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Percent-decodes len bytes of text. -EINVAL: bad or NUL escape, or too long. */
static int decode(const char *text, size_t len, char *ret, size_t size)
{
    size_t at = 0;

    for (size_t i = 0; i < len; i++) {
        char c = text[i];

        if (c == '%') {
            int high = i + 2 < len ? hex_digit(text[i + 1]) : -1;
            int low = i + 2 < len ? hex_digit(text[i + 2]) : -1;

            if (high < 0 || low < 0)
                return -EINVAL;
            c = (char) (high * 16 + low);
            if (c == '\0')
                return -EINVAL;
            i += 2;
        }
        if (at + 1 >= size)
            return -EINVAL;
        ret[at++] = c;
    }
    ret[at] = '\0';
    return 0;
}

void api_encode(const char *text, char *ret, size_t size)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t at = 0;

    for (; *text != '\0' && at + 4 <= size; text++) {
        unsigned char c = (unsigned char) *text;

        /* RFC 3986, unreserved */
        if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
            strchr("-._~", c) != NULL) {
            ret[at++] = (char) c;
        } else {
            ret[at++] = '%';
            ret[at++] = hex[c >> 4];
            ret[at++] = hex[c & 15];
        }
    }
    ret[at] = '\0';
}

bool api_part_is(const struct api_part *part, const char *word)
{
    return strlen(word) == part->len && strncmp(part->text, word, part->len) == 0;
}

int api_split_path(const char *target, struct api_part parts[API_PARTS_MAX])
{
    const char *end = target + strcspn(target, "?");
    int n = 0;

    if (*target != '/')
        return -1;
    while (target < end) {
        const char *from = target + 1;
        size_t len = (size_t) (end - from);
        const char *slash = memchr(from, '/', len);

        if (slash != NULL)
            len = (size_t) (slash - from);
        target = from + len;
        if (len == 0 && target == end)
            break;
        if (n == API_PARTS_MAX)
            return -1;
        parts[n++] = (struct api_part){from, len};
    }
    return n;
}

bool api_path_matches(const char *pattern, const struct api_part *parts, int n,
                      char args[API_ARGS_MAX][API_ARG_SIZE])
{
    int n_args = 0;

    for (int i = 0; i < n; i++) {
        size_t len = strcspn(pattern, "/");

        if (len == 0)
            return false;
        if (len == 1 && *pattern == '*') {
            if (parts[i].len == 0 ||
                decode(parts[i].text, parts[i].len, args[n_args++], API_ARG_SIZE) < 0)
                return false;
        } else if (len != parts[i].len || strncmp(pattern, parts[i].text, len) != 0) {
            return false;
        }
        pattern += len + (pattern[len] == '/');
    }
    return *pattern == '\0';
}

int api_parse_fields(const char *target, char *buffer, size_t size, const char *ret[API_FIELDS_MAX])
{
    const char *at = strchr(target, '?');
    int n = 0;

    while (at != NULL) {
        const char *from = at + 1;

        at = strchr(from, '&');
        if (strncmp(from, "fields=", 7) != 0)
            continue;
        from += 7;
        if (decode(from, at != NULL ? (size_t) (at - from) : strlen(from), buffer, size) < 0)
            return -1;
        for (char *word = strtok(buffer, ","); word != NULL && n < API_FIELDS_MAX;
             word = strtok(NULL, ","))
            ret[n++] = word;
        return n;
    }
    return -1;
}

void api_keep_fields(json_t *value, const char *const *fields, int n)
{
    const char *key;
    json_t *member;
    void *next;
    size_t i;

    if (json_is_array(value)) {
        json_array_foreach(value, i, member)
        {
            api_keep_fields(member, fields, n);
        }
        return;
    }
    json_object_foreach_safe(value, next, key, member)
    {
        int at = 0;

        while (at < n && strcmp(fields[at], key) != 0)
            at++;
        if (at == n)
            json_object_del(value, key);
    }
}
