/* SPDX-License-Identifier: MIT */
#include "pem_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BEGIN "-----BEGIN "

static const char *read_all(int fd, char *buffer, size_t size, size_t *ret_size)
{
    size_t n = 0;
    ssize_t more;

    while (n < size && (more = read(fd, buffer + n, size - n)) != 0) {
        if (more < 0)
            return strerrordesc_np(errno);
        n += (size_t) more;
    }
    if (memmem(buffer, n, BEGIN, strlen(BEGIN)) == NULL)
        return "no PEM file";
    *ret_size = n;
    return NULL;
}

static const char *read_text(int fd, char **ret_text, size_t *ret_size)
{
    const char *fault;
    struct stat status;
    char *text;

    if (fd < 0 || fstat(fd, &status) < 0)
        return strerrordesc_np(errno);
    if (!S_ISREG(status.st_mode))
        return "no regular file";
    if (status.st_size > PEM_FILE_MAX)
        return "too long a file";
    text = malloc((size_t) status.st_size + 1);
    if (text == NULL)
        return strerrordesc_np(ENOMEM);
    fault = read_all(fd, text, (size_t) status.st_size, ret_size);
    if (fault == NULL)
        *ret_text = text;
    else
        free(text);
    return fault;
}

const char *pem_file_read(const char *path, char **ret_text, size_t *ret_size)
{
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    const char *fault = read_text(fd, ret_text, ret_size);

    if (fd >= 0)
        close(fd);
    return fault;
}
