/* SPDX-License-Identifier: MIT */
#include "trust.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

struct trust_entry {
    struct trust_entry *prev, *next;
    X509_STORE *store;
    size_t size;
    char text[];
};

/* How many certificates have been added; -1: no memory. */
static int store_fill(X509_STORE *store, STACK_OF(X509_INFO) * infos)
{
    int n = 0;

    for (int i = 0; i < sk_X509_INFO_num(infos); i++) {
        const X509_INFO *info = sk_X509_INFO_value(infos, i);

        if ((info->x509 != NULL && X509_STORE_add_cert(store, info->x509) != 1) ||
            (info->crl != NULL && X509_STORE_add_crl(store, info->crl) != 1))
            return -1;
        n += info->x509 != NULL;
    }
    return n;
}

static int store_parse(const char *text, size_t size, X509_STORE **ret)
{
    X509_STORE *store = X509_STORE_new();
    BIO *bio = BIO_new_mem_buf(text, (int) size);
    STACK_OF(X509_INFO) *infos = NULL;
    char passphrase[] = ""; /* without one OpenSSL asks on the terminal */
    int n = -1;

    if (store != NULL && bio != NULL) {
        infos = PEM_X509_INFO_read_bio(bio, NULL, NULL, passphrase);
        n = infos != NULL ? store_fill(store, infos) : 0;
        /* As libcurl has it: what is named is trusted, an authority below the root too. */
        X509_STORE_set_flags(store, X509_V_FLAG_TRUSTED_FIRST | X509_V_FLAG_PARTIAL_CHAIN);
    }
    sk_X509_INFO_pop_free(infos, X509_INFO_free);
    BIO_free(bio);
    /* libcurl takes what is in the queue for an error of its own. */
    ERR_clear_error();
    if (n > 0) {
        *ret = store;
        return 0;
    }
    X509_STORE_free(store);
    return n < 0 ? -ENOMEM : -EINVAL;
}

static void entry_drop(struct trust *trust, struct trust_entry *entry)
{
    DL_DELETE(trust->entries, entry);
    trust->n--;
    X509_STORE_free(entry->store);
    free(entry);
}

static int entry_add(struct trust *trust, const char *text, size_t size)
{
    struct trust_entry *entry = malloc(sizeof(*entry) + size);
    int err;

    if (entry == NULL)
        return -ENOMEM;
    err = store_parse(text, size, &entry->store);
    if (err < 0) {
        free(entry);
        return err;
    }
    entry->size = size;
    memcpy(entry->text, text, size);
    DL_PREPEND(trust->entries, entry);
    if (++trust->n > TRUST_MAX)
        entry_drop(trust, trust->entries->prev);
    return 0;
}

int trust_get(struct trust *trust, const char *text, size_t size, X509_STORE **ret)
{
    struct trust_entry *entry;
    int err = 0;

    DL_FOREACH(trust->entries, entry)
    {
        if (entry->size == size && memcmp(entry->text, text, size) == 0)
            break;
    }
    if (entry == NULL) {
        err = entry_add(trust, text, size);
    } else {
        DL_DELETE(trust->entries, entry);
        DL_PREPEND(trust->entries, entry);
    }
    if (err < 0)
        return err;
    X509_STORE_up_ref(trust->entries->store);
    *ret = trust->entries->store;
    return 0;
}

void trust_clear(struct trust *trust)
{
    while (trust->entries != NULL)
        entry_drop(trust, trust->entries);
}
