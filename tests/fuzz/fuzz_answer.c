/* SPDX-License-Identifier: MIT */
/* DNS answers: resolve_answer.h's promises hold for any bytes. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "resolve_answer.h"

#define ENSURE(what) ((what) ? (void) 0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_addresses(const uint8_t *data, size_t size, enum answer_type type)
{
    struct addr *addresses;
    uint32_t ttl_s;
    size_t n;

    if (answer_addresses(data, size, type, &addresses, &n, &ttl_s) < 0)
        return;
    ENSURE(n > 0 && n <= size / 4 && ttl_s <= INT32_MAX);
    for (size_t i = 0; i < n; i++) {
        ENSURE(addresses[i].sa.sa_family == (type == ANSWER_A ? AF_INET : AF_INET6));
        ENSURE(addr_port(&addresses[i]) == 0);
    }
    free(addresses);
}

static bool in_order(const struct answer_srv *before, const struct answer_srv *after)
{
    return before->priority < after->priority ||
           (before->priority == after->priority && strcmp(before->target, after->target) <= 0);
}

static void read_services(const uint8_t *data, size_t size)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyz0123456789-._";
    struct answer_srv *services;
    size_t n, n_unusable = 0;
    uint32_t ttl_s;

    if (answer_services(data, size, &services, &n, &ttl_s, &n_unusable) < 0)
        return;
    ENSURE(n > 0 && n <= size / 7 && ttl_s <= INT32_MAX);
    for (size_t i = 0; i < n; i++) {
        size_t len = strnlen(services[i].target, sizeof(services[i].target));

        ENSURE(len > 0 && len < sizeof(services[i].target));
        ENSURE(strspn(services[i].target, plain) == len);
        ENSURE(services[i].port != 0);
        ENSURE(i == 0 || in_order(&services[i - 1], &services[i]));
    }
    free(services);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    read_addresses(data, size, ANSWER_A);
    read_addresses(data, size, ANSWER_AAAA);
    read_services(data, size);
    return 0;
}
