/* SPDX-License-Identifier: MIT */
#include "resolve_hosts.h"

#include <ares.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HOSTS_NAME_SIZE 256

/* A channel that asks no server: it reads the file each time, and knows what localhost is. */
struct hosts {
    ares_channel channel;
};

int hosts_create(struct hosts **ret)
{
    char lookups[] = "f";
    struct ares_options options = {.lookups = lookups};
    struct hosts *hosts = malloc(sizeof(*hosts));
    int status;

    if (hosts == NULL)
        return -ENOMEM;
    status = ares_init_options(&hosts->channel, &options, ARES_OPT_LOOKUPS);
    if (status != ARES_SUCCESS) {
        free(hosts);
        return status == ARES_ENOMEM ? -ENOMEM : -EIO;
    }
    *ret = hosts;
    return 0;
}

void hosts_destroy(struct hosts *hosts)
{
    if (hosts == NULL)
        return;
    ares_destroy(hosts->channel);
    free(hosts);
}

struct hosts_answer {
    int err;
    struct addr *addresses;
    size_t n;
};

static void on_hosts(void *user, int status, int timeouts, struct ares_addrinfo *info)
{
    struct hosts_answer *answer = user;
    const struct ares_addrinfo_node *node;
    size_t n = 0;

    (void) timeouts;
    answer->err = status == ARES_ENOMEM ? -ENOMEM : -ENOENT;
    if (status != ARES_SUCCESS)
        return;
    for (node = info->nodes; node != NULL; node = node->ai_next)
        n++;
    answer->addresses = calloc(n + 1, sizeof(*answer->addresses));
    for (node = info->nodes; node != NULL && answer->addresses != NULL; node = node->ai_next) {
        struct addr *addr = &answer->addresses[answer->n];

        if (node->ai_addrlen > sizeof(addr->un))
            continue;
        memcpy(&addr->sa, node->ai_addr, node->ai_addrlen);
        addr->len = node->ai_addrlen;
        answer->n++;
    }
    ares_freeaddrinfo(info);
    if (answer->addresses == NULL)
        answer->err = -ENOMEM;
    else if (answer->n > 0)
        answer->err = 0;
}

int hosts_look_up(struct hosts *hosts, const char *host, struct addr **ret, size_t *ret_n)
{
    const struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC,
                                              .ai_socktype = SOCK_STREAM,
                                              .ai_flags = ARES_AI_NOSORT};
    struct hosts_answer answer = {.err = -ENOENT};
    size_t len = strlen(host);
    char name[HOSTS_NAME_SIZE];

    if (len >= sizeof(name))
        return -ENOENT;
    memcpy(name, host, len + 1);
    if (len > 0 && name[len - 1] == '.')
        name[len - 1] = '\0';
    /* It only reads a file: it has answered when it returns. */
    ares_getaddrinfo(hosts->channel, name, NULL, &hints, on_hosts, &answer);
    if (answer.err < 0) {
        free(answer.addresses);
        return answer.err;
    }
    *ret = answer.addresses;
    *ret_n = answer.n;
    return 0;
}
