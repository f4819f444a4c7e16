/* SPDX-License-Identifier: MIT */
#ifndef DURPINAD_PEM_FILE_H
#define DURPINAD_PEM_FILE_H

#include <stddef.h>

#define PEM_FILE_MAX (1024 * 1024) /* bytes; the authorities of a system take a quarter of that */

/*
 * Reads a PEM file whole, and never waits for one: a path of today may be a FIFO tomorrow.
 * *ret_text is to be freed. Returns NULL, or why it cannot be read.
 */
const char *pem_file_read(const char *path, char **ret_text, size_t *ret_size);

#endif
