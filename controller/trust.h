/* SPDX-License-Identifier: MIT */
/*
 * The authorities that a PEM text names, ready for OpenSSL. To parse those of a system takes 30 ms,
 * so the last few are kept. They are told apart by their text: a new one is in force at once.
 */
#ifndef DURPINAD_TRUST_H
#define DURPINAD_TRUST_H

#include <openssl/x509.h>
#include <stddef.h>

#define TRUST_MAX 8 /* kept at a time */

struct trust_entry;

/* Zeroed: empty. */
struct trust {
    struct trust_entry *entries; /* the last used one first */
    unsigned n;
};

/* *ret is to be given to X509_STORE_free(). 0; -EINVAL if the text has no certificate; -ENOMEM. */
int trust_get(struct trust *trust, const char *text, size_t size, X509_STORE **ret);

void trust_clear(struct trust *trust);

#endif
