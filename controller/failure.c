/* SPDX-License-Identifier: MIT */
#include "failure.h"

#include <errno.h>
#include <stdio.h>

size_t escape_text(const char *from, char *to, size_t size)
{
    static const char hex[] = "0123456789abcdef";
    size_t at = 0;

    for (const unsigned char *c = (const unsigned char *) from; *c != '\0'; c++) {
        if (*c >= 0x20 && *c < 0x7f) {
            if (at + 1 >= size)
                break;
            to[at++] = (char) *c;
        } else {
            if (at + 4 >= size)
                break;
            to[at++] = '\\';
            to[at++] = 'x';
            to[at++] = hex[*c >> 4];
            to[at++] = hex[*c & 15];
        }
    }
    to[at] = '\0';
    return at;
}

int fail(struct failure *failure, int err, unsigned status, const char *code, const char *format,
         ...)
{
    char text[sizeof(failure->text)];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);

    failure->status = status;
    failure->code = code;
    escape_text(text, failure->text, sizeof(failure->text));
    return -err;
}

int fail_memory(struct failure *failure)
{
    return fail(failure, ENOMEM, 500, "UpstreamOutOfMemory", "out of memory");
}
