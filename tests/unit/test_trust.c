/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <string.h>

#include "trust.h"

#include <cmocka.h>

#define TEXT_SIZE 2048

static struct trust trust;

static int clear(void **state)
{
    (void) state;
    trust_clear(&trust);
    assert_null(trust.entries);
    return 0;
}

/* A certificate signed by itself, in PEM. */
static void certificate_write(const char *name, char text[TEXT_SIZE])
{
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    X509 *certificate = X509_new();
    BIO *bio = BIO_new(BIO_s_mem());
    int n;

    X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_ASC,
                               (const unsigned char *) name, -1, -1, 0);
    X509_set_issuer_name(certificate, X509_get_subject_name(certificate));
    X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, key);
    assert_true(X509_sign(certificate, key, NULL) > 0);
    assert_int_equal(PEM_write_bio_X509(bio, certificate), 1);
    n = BIO_read(bio, text, TEXT_SIZE - 1);
    assert_in_range(n, 1, TEXT_SIZE - 1);
    text[n] = '\0';
    BIO_free(bio);
    X509_free(certificate);
    EVP_PKEY_free(key);
}

static X509_STORE *get(const char *text)
{
    X509_STORE *store = NULL;

    assert_int_equal(trust_get(&trust, text, strlen(text), &store), 0);
    assert_non_null(store);
    return store;
}

static int n_authorities(const X509_STORE *store)
{
    return sk_X509_OBJECT_num(X509_STORE_get0_objects((X509_STORE *) store));
}

static void same_text_is_parsed_once_and_another_is_another(void **state)
{
    char one[TEXT_SIZE], two[TEXT_SIZE], both[3 * TEXT_SIZE];
    X509_STORE *first, *again, *second, *together;

    (void) state;
    certificate_write("one", one);
    certificate_write("two", two);
    snprintf(both, sizeof(both), "%shello\n%s", one, two);
    first = get(one);
    second = get(two);
    again = get(one);
    together = get(both);
    assert_ptr_equal(first, again);
    assert_ptr_not_equal(first, second);
    assert_int_equal(n_authorities(first), 1);
    assert_int_equal(n_authorities(together), 2);
    X509_STORE_free(first);
    X509_STORE_free(again);
    X509_STORE_free(second);
    X509_STORE_free(together);
}

static void text_without_a_certificate_is_refused(void **state)
{
    static const char *const texts[] = {
        "",
        "hello",
        "-----BEGIN CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n",
    };
    X509_STORE *store;

    (void) state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        assert_int_equal(trust_get(&trust, texts[i], strlen(texts[i]), &store), -EINVAL);
    assert_int_equal(trust.n, 0);
    assert_int_equal(ERR_peek_error(), 0);
}

static void only_the_last_used_are_kept(void **state)
{
    char texts[TRUST_MAX + 1][TEXT_SIZE];
    X509_STORE *stores[TRUST_MAX + 1], *again;

    (void) state;
    for (int i = 0; i <= TRUST_MAX; i++)
        certificate_write("name", texts[i]);
    for (int i = 0; i < TRUST_MAX; i++)
        stores[i] = get(texts[i]);
    again = get(texts[0]);
    assert_ptr_equal(again, stores[0]);
    X509_STORE_free(again);
    stores[TRUST_MAX] = get(texts[TRUST_MAX]);
    assert_int_equal(trust.n, TRUST_MAX);

    again = get(texts[0]);
    assert_ptr_equal(again, stores[0]);
    X509_STORE_free(again);
    again = get(texts[1]);
    assert_ptr_not_equal(again, stores[1]);
    X509_STORE_free(again);
    /* What is no longer kept is still good for who has it. */
    assert_int_equal(n_authorities(stores[1]), 1);
    for (int i = 0; i <= TRUST_MAX; i++)
        X509_STORE_free(stores[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(same_text_is_parsed_once_and_another_is_another, clear),
        cmocka_unit_test_teardown(text_without_a_certificate_is_refused, clear),
        cmocka_unit_test_teardown(only_the_last_used_are_kept, clear),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
