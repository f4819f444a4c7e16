/* SPDX-License-Identifier: MIT */
#include "resolve.h"

#include <ares.h>
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* With DNS_TRIES and c-ares's doubling, a name server that is silent costs 6 s. */
#define DNS_TIMEOUT_MS 2000
#define DNS_TRIES 2
#define DNS_PORT 53

/*
 * The loop's next turn hands a finished lookup's answer out: so no callback ever runs inside
 * resolver_lookup() or inside c-ares, and may do anything.
 */
enum lookup_state {
    LOOKUP_PENDING,   /* with c-ares, on the list of pending ones */
    LOOKUP_FINISHED,  /* on the list of finished ones */
    LOOKUP_DELIVERED, /* its callback runs */
    LOOKUP_CANCELLED, /* still with c-ares, which cannot let go of a single query; on no list */
};

struct lookup {
    struct resolver *resolver;
    struct lookup *prev, *next;
    enum lookup_state state;
    bool starting; /* inside ares_getaddrinfo() */
    char *host;
    uint16_t port;
    lookup_cb cb;
    void *user;

    int status;
    const char *reason; /* a literal */
    struct addr *addresses;
    size_t n_addresses;
    uint32_t ttl_s;
};

/* A socket of c-ares's on the loop. */
struct dns_socket {
    struct resolver *resolver;
    struct dns_socket *prev, *next;
    uv_poll_t poll;
    ares_socket_t fd;
};

struct resolver {
    uv_loop_t *loop;
    ares_channel channel;
    struct dns_socket *sockets;
    struct lookup *pending;
    struct lookup *finished;
    uv_timer_t timeout; /* c-ares's own */
    uv_timer_t deliver; /* runs while there are finished lookups */
    unsigned n_open;    /* timers that still close */
    bool switching;     /* the channel is being replaced: queries it drops are asked again */
};

static void timeout_set(struct resolver *resolver);

static void on_socket_event(uv_poll_t *poll, int status, int events)
{
    struct dns_socket *socket = poll->data;
    struct resolver *resolver = socket->resolver;
    /* After an error, reading tells c-ares. */
    bool readable = status < 0 || (events & UV_READABLE), writable = events & UV_WRITABLE;

    ares_process_fd(resolver->channel, readable ? socket->fd : ARES_SOCKET_BAD,
                    writable ? socket->fd : ARES_SOCKET_BAD);
    timeout_set(resolver);
}

static void on_timeout(uv_timer_t *timer)
{
    struct resolver *resolver = timer->data;

    ares_process_fd(resolver->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    timeout_set(resolver);
}

static void timeout_set(struct resolver *resolver)
{
    struct timeval tv;

    if (ares_timeout(resolver->channel, NULL, &tv) == NULL) {
        uv_timer_stop(&resolver->timeout);
        return;
    }
    /* One more: c-ares compares microseconds, and would find itself early. */
    uv_timer_start(&resolver->timeout, on_timeout,
                   (uint64_t) tv.tv_sec * 1000 + (uint64_t) tv.tv_usec / 1000 + 1, 0);
}

static void on_socket_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static struct dns_socket *socket_watch(struct resolver *resolver, ares_socket_t fd)
{
    struct dns_socket *socket = calloc(1, sizeof(*socket));

    if (socket == NULL)
        return NULL;
    if (uv_poll_init(resolver->loop, &socket->poll, fd) < 0) {
        free(socket);
        return NULL;
    }
    socket->resolver = resolver;
    socket->fd = fd;
    socket->poll.data = socket;
    DL_APPEND(resolver->sockets, socket);
    return socket;
}

/* c-ares says what it waits for; neither: it is about to close the socket. */
static void on_socket_state(void *user, ares_socket_t fd, int readable, int writable)
{
    struct resolver *resolver = user;
    struct dns_socket *socket;

    DL_SEARCH_SCALAR(resolver->sockets, socket, fd, fd);
    if (!readable && !writable) {
        if (socket != NULL) {
            DL_DELETE(resolver->sockets, socket);
            uv_close((uv_handle_t *) &socket->poll, on_socket_closed);
        }
        return;
    }
    if (socket == NULL)
        socket = socket_watch(resolver, fd);
    /* Unwatched for lack of memory, the query ends by its timeout. */
    if (socket != NULL)
        uv_poll_start(&socket->poll, (readable ? UV_READABLE : 0) | (writable ? UV_WRITABLE : 0),
                      on_socket_event);
}

/* 0 or -errno. servers: c-ares's own comma separated form, NULL: resolv.conf. */
static int channel_open(struct resolver *resolver, const char *servers, ares_channel *ret)
{
    char lookups[] = "fb"; /* the hosts file, then DNS */
    struct ares_options options = {
        .timeout = DNS_TIMEOUT_MS,
        .tries = DNS_TRIES,
        .lookups = lookups,
        .sock_state_cb = on_socket_state,
        .sock_state_cb_data = resolver,
    };
    ares_channel channel;
    int status = ares_init_options(&channel, &options,
                                   ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS |
                                       ARES_OPT_SOCK_STATE_CB);

    if (status != ARES_SUCCESS)
        return status == ARES_ENOMEM ? -ENOMEM : -EIO;
    if (servers != NULL) {
        status = ares_set_servers_ports_csv(channel, servers);
        if (status != ARES_SUCCESS) {
            ares_destroy(channel);
            return status == ARES_ENOMEM ? -ENOMEM : -EINVAL;
        }
    }
    *ret = channel;
    return 0;
}

int resolver_create(uv_loop_t *loop, struct resolver **ret)
{
    struct resolver *resolver;
    int err;

    if (ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS)
        return -ENOMEM;
    resolver = calloc(1, sizeof(*resolver));
    if (resolver == NULL) {
        ares_library_cleanup();
        return -ENOMEM;
    }
    resolver->loop = loop;
    err = channel_open(resolver, NULL, &resolver->channel);
    if (err < 0) {
        free(resolver);
        ares_library_cleanup();
        return err;
    }
    uv_timer_init(loop, &resolver->timeout);
    uv_timer_init(loop, &resolver->deliver);
    resolver->timeout.data = resolver;
    resolver->deliver.data = resolver;
    resolver->n_open = 2;
    *ret = resolver;
    return 0;
}

static void lookup_free(struct lookup *lookup)
{
    free(lookup->addresses);
    free(lookup->host);
    free(lookup);
}

static void on_deliver(uv_timer_t *timer)
{
    struct resolver *resolver = timer->data;
    struct lookup *lookup = resolver->finished;

    /* One a turn: its callback may cancel or add others, or end the resolver. */
    DL_DELETE(resolver->finished, lookup);
    lookup->state = LOOKUP_DELIVERED;
    if (resolver->finished != NULL)
        uv_timer_start(&resolver->deliver, on_deliver, 0, 0);
    lookup->cb(lookup->user, lookup->status, lookup->reason, lookup->addresses, lookup->n_addresses,
               lookup->ttl_s);
    lookup_free(lookup);
}

static void finish(struct lookup *lookup, int status, const char *reason)
{
    struct resolver *resolver = lookup->resolver;

    lookup->status = status;
    lookup->reason = reason;
    lookup->state = LOOKUP_FINISHED;
    DL_DELETE(resolver->pending, lookup);
    DL_APPEND(resolver->finished, lookup);
    uv_timer_start(&resolver->deliver, on_deliver, 0, 0);
}

static void finish_failed(struct lookup *lookup, int ares_status)
{
    switch (ares_status) {
    case ARES_ENOTFOUND:
        finish(lookup, -ENOENT, "no such name");
        break;
    case ARES_ENODATA:
        finish(lookup, -ENOENT, "the name has no address");
        break;
    case ARES_EBADNAME:
        finish(lookup, -ENOENT, "not a host name");
        break;
    case ARES_ETIMEOUT:
        finish(lookup, -EAGAIN, "no answer from the name servers");
        break;
    case ARES_ECONNREFUSED: /* c-ares's word for SERVFAIL from all of them, too */
    case ARES_ESERVFAIL:
        finish(lookup, -EAGAIN, "the name servers failed or cannot be reached");
        break;
    default:
        finish(lookup, -EAGAIN, ares_strerror(ares_status));
        break;
    }
}

/* IPv4 and IPv6 in the order of the families' first address, which is RFC 6724's; then by bytes:
 * name servers rotate their answers, and the order here must not. */
static void addresses_sort(struct addr *addresses, size_t n)
{
    const sa_family_t first = addresses[0].sa.sa_family;

    for (size_t i = 1; i < n; i++) {
        struct addr moved = addresses[i];
        size_t j = i;

        for (; j > 0; j--) {
            const struct addr *before = &addresses[j - 1];
            int order = (before->sa.sa_family != first) - (moved.sa.sa_family != first);

            if (order == 0)
                order = moved.sa.sa_family == AF_INET
                            ? memcmp(&before->in.sin_addr, &moved.in.sin_addr,
                                     sizeof(moved.in.sin_addr))
                            : memcmp(&before->in6.sin6_addr, &moved.in6.sin6_addr,
                                     sizeof(moved.in6.sin6_addr));
            if (order <= 0)
                break;
            addresses[j] = *before;
        }
        addresses[j] = moved;
    }
}

static size_t addresses_unique(struct addr *addresses, size_t n)
{
    size_t kept = 0;

    for (size_t i = 0; i < n; i++) {
        if (kept == 0 || !addr_equal(&addresses[kept - 1], &addresses[i]))
            addresses[kept++] = addresses[i];
    }
    return kept;
}

static void finish_answered(struct lookup *lookup, const struct ares_addrinfo *info)
{
    const struct ares_addrinfo_node *node;
    int ttl = INT32_MAX;
    size_t n = 0;

    for (node = info->nodes; node != NULL; node = node->ai_next)
        n++;
    lookup->addresses = calloc(n > 0 ? n : 1, sizeof(*lookup->addresses));
    if (lookup->addresses == NULL) {
        finish(lookup, -EAGAIN, "out of memory");
        return;
    }
    n = 0;
    for (node = info->nodes; node != NULL; node = node->ai_next) {
        struct addr *addr = &lookup->addresses[n];

        if (node->ai_addrlen > sizeof(addr->un))
            continue;
        memcpy(&addr->sa, node->ai_addr, node->ai_addrlen);
        addr->len = node->ai_addrlen;
        addr_set_port(addr, lookup->port);
        if (node->ai_ttl < ttl)
            ttl = node->ai_ttl;
        n++;
    }
    if (n == 0) {
        finish_failed(lookup, ARES_ENODATA);
        return;
    }
    addresses_sort(lookup->addresses, n);
    lookup->n_addresses = addresses_unique(lookup->addresses, n);
    /* What is there at once is from the hosts file (or localhost): no server set a time. */
    lookup->ttl_s = lookup->starting ? UINT32_MAX : (uint32_t) (ttl > 0 ? ttl : 0);
    finish(lookup, 0, "");
}

static void on_answer(void *user, int status, int timeouts, struct ares_addrinfo *info)
{
    struct lookup *lookup = user;

    (void) timeouts;
    if (lookup->state == LOOKUP_CANCELLED)
        lookup_free(lookup);
    else if (status == ARES_EDESTRUCTION && lookup->resolver->switching)
        ; /* stays pending: resolver_set_servers() asks again */
    else if (status == ARES_SUCCESS)
        finish_answered(lookup, info);
    else
        finish_failed(lookup, status);
    if (info != NULL)
        ares_freeaddrinfo(info);
}

/* c-ares 1.18 sends IPv4 addresses to the name server. */
static bool finish_literal(struct lookup *lookup)
{
    struct addr addr = {0};

    if (inet_pton(AF_INET, lookup->host, &addr.in.sin_addr) == 1) {
        addr.len = sizeof(addr.in);
        addr.in.sin_family = AF_INET;
    } else if (inet_pton(AF_INET6, lookup->host, &addr.in6.sin6_addr) == 1) {
        addr.len = sizeof(addr.in6);
        addr.in6.sin6_family = AF_INET6;
    } else {
        return false;
    }
    addr_set_port(&addr, lookup->port);
    lookup->addresses = malloc(sizeof(addr));
    if (lookup->addresses == NULL) {
        finish(lookup, -EAGAIN, "out of memory");
        return true;
    }
    *lookup->addresses = addr;
    lookup->n_addresses = 1;
    lookup->ttl_s = UINT32_MAX;
    finish(lookup, 0, "");
    return true;
}

static void lookup_ask(struct lookup *lookup)
{
    const struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct resolver *resolver = lookup->resolver;

    if (finish_literal(lookup))
        return;
    lookup->starting = true;
    ares_getaddrinfo(resolver->channel, lookup->host, NULL, &hints, on_answer, lookup);
    lookup->starting = false;
    timeout_set(resolver);
}

int resolver_lookup(struct resolver *resolver, const char *host, uint16_t port, lookup_cb cb,
                    void *user, struct lookup **ret)
{
    struct lookup *lookup = calloc(1, sizeof(*lookup));

    if (lookup == NULL)
        return -ENOMEM;
    lookup->host = strdup(host);
    if (lookup->host == NULL) {
        free(lookup);
        return -ENOMEM;
    }
    lookup->resolver = resolver;
    lookup->port = port;
    lookup->cb = cb;
    lookup->user = user;
    DL_APPEND(resolver->pending, lookup);
    lookup_ask(lookup);
    *ret = lookup;
    return 0;
}

void lookup_cancel(struct lookup *lookup)
{
    if (lookup == NULL)
        return;
    switch (lookup->state) {
    case LOOKUP_PENDING:
        DL_DELETE(lookup->resolver->pending, lookup);
        lookup->state = LOOKUP_CANCELLED;
        break;
    case LOOKUP_FINISHED:
        DL_DELETE(lookup->resolver->finished, lookup);
        if (lookup->resolver->finished == NULL)
            uv_timer_stop(&lookup->resolver->deliver);
        lookup_free(lookup);
        break;
    case LOOKUP_DELIVERED:
    case LOOKUP_CANCELLED:
        break;
    }
}

/* "1.2.3.4:53,[::1]:5353" */
static int servers_format(const char *const *servers, size_t n, char **ret)
{
    char *text = calloc(n, DURPINA_NAME_SIZE + 1);
    size_t used = 0;

    if (text == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        char one[DURPINA_NAME_SIZE];
        struct addr addr;

        if (addr_parse(servers[i], DNS_PORT, &addr) < 0 || addr.sa.sa_family == AF_UNIX) {
            free(text);
            return -EINVAL;
        }
        addr_format(&addr, one, sizeof(one));
        used += (size_t) sprintf(text + used, "%s%s", i > 0 ? "," : "", one);
    }
    *ret = text;
    return 0;
}

/* c-ares 1.18 refuses other servers while it has queries: a new channel takes them over. */
static void channel_switch(struct resolver *resolver, ares_channel channel)
{
    ares_channel old = resolver->channel;
    struct lookup *lookup, *next, *again;

    resolver->switching = true;
    ares_destroy(old);
    resolver->switching = false;
    resolver->channel = channel;

    again = resolver->pending;
    resolver->pending = NULL;
    DL_FOREACH_SAFE(again, lookup, next)
    {
        DL_DELETE(again, lookup);
        DL_APPEND(resolver->pending, lookup);
        lookup_ask(lookup);
    }
    timeout_set(resolver);
}

int resolver_set_servers(struct resolver *resolver, const char *const *servers, size_t n)
{
    char *text = NULL;
    ares_channel channel;
    int err = n > 0 ? servers_format(servers, n, &text) : 0;

    if (err == 0)
        err = channel_open(resolver, text, &channel);
    free(text);
    if (err == 0)
        channel_switch(resolver, channel);
    return err;
}

static void on_closed(uv_handle_t *handle)
{
    struct resolver *resolver = handle->data;

    if (--resolver->n_open == 0)
        free(resolver);
}

void resolver_destroy(struct resolver *resolver)
{
    struct lookup *lookup, *next;

    if (resolver == NULL)
        return;
    DL_FOREACH_SAFE(resolver->pending, lookup, next)
    {
        lookup_cancel(lookup);
    }
    DL_FOREACH_SAFE(resolver->finished, lookup, next)
    {
        lookup_cancel(lookup);
    }
    ares_destroy(resolver->channel);
    ares_library_cleanup();
    uv_close((uv_handle_t *) &resolver->timeout, on_closed);
    uv_close((uv_handle_t *) &resolver->deliver, on_closed);
}
