/* SPDX-License-Identifier: MIT */
#include "resolve_dns.h"

#include <ares.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* With DNS_TRIES and c-ares's doubling, a name server that is silent costs 6 s. */
#define DNS_TIMEOUT_MS 2000
#define DNS_TRIES 2
#define DNS_PORT 53
#define DNS_CLASS_IN 1

/*
 * The loop's next turn hands a finished query's answer out: so no callback ever runs inside
 * dns_ask() or inside c-ares, and may do anything.
 */
enum query_state {
    QUERY_PENDING,   /* with c-ares, on the list of pending ones */
    QUERY_FINISHED,  /* on the list of finished ones */
    QUERY_DELIVERED, /* its callback runs */
    QUERY_CANCELLED, /* still with c-ares, which cannot let go of a single query; on no list */
};

struct dns_query {
    struct dns *dns;
    struct dns_query *prev, *next;
    enum query_state state;
    enum answer_type type;
    dns_cb cb;
    void *user;

    int status;
    const char *reason; /* a literal */
    uint8_t *message;
    size_t len;
    char name[DNS_NAME_SIZE];
};

/* A socket of c-ares's on the loop. */
struct dns_socket {
    struct dns *dns;
    struct dns_socket *prev, *next;
    uv_poll_t poll;
    ares_socket_t fd;
};

struct dns {
    uv_loop_t *loop;
    ares_channel channel;
    struct ares_options as; /* what the channel has from resolv.conf */
    char *servers;          /* as they were set, in c-ares's form; NULL: resolv.conf */
    struct dns_socket *sockets;
    struct dns_query *pending;
    struct dns_query *finished;
    uv_timer_t timeout; /* c-ares's own */
    uv_timer_t deliver; /* runs while there are finished queries */
    unsigned n_open;    /* timers that still close */
    bool switching;     /* the channel is being replaced: queries it drops are asked again */
};

static void timeout_set(struct dns *dns);

static void on_socket_event(uv_poll_t *poll, int status, int events)
{
    struct dns_socket *socket = poll->data;
    struct dns *dns = socket->dns;
    /* After an error, reading tells c-ares. */
    bool readable = status < 0 || (events & UV_READABLE), writable = events & UV_WRITABLE;

    ares_process_fd(dns->channel, readable ? socket->fd : ARES_SOCKET_BAD,
                    writable ? socket->fd : ARES_SOCKET_BAD);
    timeout_set(dns);
}

static void on_timeout(uv_timer_t *timer)
{
    struct dns *dns = timer->data;

    ares_process_fd(dns->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    timeout_set(dns);
}

static void timeout_set(struct dns *dns)
{
    struct timeval tv;

    if (ares_timeout(dns->channel, NULL, &tv) == NULL) {
        uv_timer_stop(&dns->timeout);
        return;
    }
    /* One more: c-ares compares microseconds, and would find itself early. */
    uv_timer_start(&dns->timeout, on_timeout,
                   (uint64_t) tv.tv_sec * 1000 + (uint64_t) tv.tv_usec / 1000 + 1, 0);
}

static void on_socket_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static struct dns_socket *socket_watch(struct dns *dns, ares_socket_t fd)
{
    struct dns_socket *socket = calloc(1, sizeof(*socket));

    if (socket == NULL)
        return NULL;
    if (uv_poll_init(dns->loop, &socket->poll, fd) < 0) {
        free(socket);
        return NULL;
    }
    socket->dns = dns;
    socket->fd = fd;
    socket->poll.data = socket;
    DL_APPEND(dns->sockets, socket);
    return socket;
}

/* c-ares says what it waits for; neither: it is about to close the socket. */
static void on_socket_state(void *user, ares_socket_t fd, int readable, int writable)
{
    struct dns *dns = user;
    struct dns_socket *socket;

    DL_SEARCH_SCALAR(dns->sockets, socket, fd, fd);
    if (!readable && !writable) {
        if (socket != NULL) {
            DL_DELETE(dns->sockets, socket);
            uv_close((uv_handle_t *) &socket->poll, on_socket_closed);
        }
        return;
    }
    if (socket == NULL)
        socket = socket_watch(dns, fd);
    /* Unwatched for lack of memory, the query ends by its timeout. */
    if (socket != NULL)
        uv_poll_start(&socket->poll, (readable ? UV_READABLE : 0) | (writable ? UV_WRITABLE : 0),
                      on_socket_event);
}

static int error_of(int ares_status)
{
    return ares_status == ARES_ENOMEM ? -ENOMEM : -EIO;
}

/* 0 or -errno. servers: c-ares's own comma separated form, NULL: resolv.conf. */
static int channel_open(struct dns *dns, const char *servers, ares_channel *ret,
                        struct ares_options *ret_options)
{
    struct ares_options options = {
        .timeout = DNS_TIMEOUT_MS,
        .tries = DNS_TRIES,
        .sock_state_cb = on_socket_state,
        .sock_state_cb_data = dns,
    };
    ares_channel channel;
    int mask;
    int status = ares_init_options(&channel, &options,
                                   ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB);

    if (status != ARES_SUCCESS)
        return error_of(status);
    if (servers != NULL) {
        status = ares_set_servers_ports_csv(channel, servers);
        if (status != ARES_SUCCESS) {
            ares_destroy(channel);
            return status == ARES_ENOMEM ? -ENOMEM : -EINVAL;
        }
    }
    status = ares_save_options(channel, ret_options, &mask);
    if (status != ARES_SUCCESS) {
        ares_destroy_options(ret_options);
        ares_destroy(channel);
        return error_of(status);
    }
    *ret = channel;
    return 0;
}

int dns_create(uv_loop_t *loop, struct dns **ret)
{
    struct dns *dns;
    int err;

    if (ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS)
        return -ENOMEM;
    dns = calloc(1, sizeof(*dns));
    err = dns == NULL ? -ENOMEM : 0;
    if (err == 0) {
        dns->loop = loop;
        err = channel_open(dns, NULL, &dns->channel, &dns->as);
    }
    if (err < 0) {
        free(dns);
        ares_library_cleanup();
        return err;
    }
    uv_timer_init(loop, &dns->timeout);
    uv_timer_init(loop, &dns->deliver);
    dns->timeout.data = dns;
    dns->deliver.data = dns;
    dns->n_open = 2;
    *ret = dns;
    return 0;
}

/* --- queries ---------------------------------------------------------------------------------- */

static void query_free(struct dns_query *query)
{
    free(query->message);
    free(query);
}

static void on_deliver(uv_timer_t *timer)
{
    struct dns *dns = timer->data;
    struct dns_query *query = dns->finished;

    /* One a turn: its callback may cancel or add others, or end it all. */
    DL_DELETE(dns->finished, query);
    query->state = QUERY_DELIVERED;
    if (dns->finished != NULL)
        uv_timer_start(&dns->deliver, on_deliver, 0, 0);
    query->cb(query->user, query->status, query->reason, query->message, query->len);
    query_free(query);
}

static void finish(struct dns_query *query, int status, const char *reason)
{
    struct dns *dns = query->dns;

    query->status = status;
    query->reason = reason;
    query->state = QUERY_FINISHED;
    DL_DELETE(dns->pending, query);
    DL_APPEND(dns->finished, query);
    uv_timer_start(&dns->deliver, on_deliver, 0, 0);
}

static void finish_failed(struct dns_query *query, int ares_status)
{
    switch (ares_status) {
    case ARES_ENOTFOUND:
        finish(query, -ENOENT, "no such name");
        break;
    case ARES_ENODATA:
        finish(query, -ENODATA, "the name has no address");
        break;
    case ARES_EBADNAME:
        finish(query, -EINVAL, "not a host name");
        break;
    case ARES_ETIMEOUT:
        finish(query, -EAGAIN, "no answer from the name servers");
        break;
    case ARES_ECONNREFUSED: /* c-ares's word for SERVFAIL from all of them, too */
    case ARES_ESERVFAIL:
        finish(query, -EAGAIN, "the name servers failed or cannot be reached");
        break;
    default:
        finish(query, -EAGAIN, ares_strerror(ares_status));
        break;
    }
}

static void on_answer(void *user, int status, int timeouts, unsigned char *message, int len)
{
    struct dns_query *query = user;

    (void) timeouts;
    if (query->state == QUERY_CANCELLED) {
        query_free(query);
        return;
    }
    if (status == ARES_EDESTRUCTION && query->dns->switching)
        return; /* stays pending: channel_switch() asks again */
    if (status != ARES_SUCCESS) {
        finish_failed(query, status);
        return;
    }
    query->message = malloc((size_t) len + 1);
    if (query->message == NULL) {
        finish(query, -EAGAIN, "out of memory");
        return;
    }
    memcpy(query->message, message, (size_t) len);
    query->len = (size_t) len;
    finish(query, 0, "");
}

int dns_ask(struct dns *dns, const char *name, enum answer_type type, dns_cb cb, void *user,
            struct dns_query **ret)
{
    struct dns_query *query = calloc(1, sizeof(*query));

    if (query == NULL)
        return -ENOMEM;
    query->dns = dns;
    query->type = type;
    query->cb = cb;
    query->user = user;
    DL_APPEND(dns->pending, query);
    if (snprintf(query->name, sizeof(query->name), "%s", name) >= (int) sizeof(query->name))
        finish_failed(query, ARES_EBADNAME);
    else
        ares_query(dns->channel, query->name, DNS_CLASS_IN, type, on_answer, query);
    timeout_set(dns);
    *ret = query;
    return 0;
}

void dns_cancel(struct dns_query *query)
{
    if (query == NULL)
        return;
    switch (query->state) {
    case QUERY_PENDING:
        DL_DELETE(query->dns->pending, query);
        query->state = QUERY_CANCELLED;
        break;
    case QUERY_FINISHED:
        DL_DELETE(query->dns->finished, query);
        if (query->dns->finished == NULL)
            uv_timer_stop(&query->dns->deliver);
        query_free(query);
        break;
    case QUERY_DELIVERED:
    case QUERY_CANCELLED:
        break;
    }
}

/* --- name servers ----------------------------------------------------------------------------- */

/* c-ares's form: "127.0.0.1:53,[::1]:53". */
static int servers_format(const char *const *servers, size_t n, char **ret)
{
    char *text = calloc(n, DURPINA_NAME_SIZE + 1);
    size_t used = 0;

    if (text == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        struct addr addr;
        char one[DURPINA_NAME_SIZE];

        if (addr_parse(servers[i], DNS_PORT, &addr) < 0 || addr_port(&addr) == 0) {
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
static void channel_switch(struct dns *dns, ares_channel channel)
{
    struct dns_query *again, *query, *next;

    dns->switching = true;
    ares_destroy(dns->channel);
    dns->switching = false;
    dns->channel = channel;

    again = dns->pending;
    dns->pending = NULL;
    DL_FOREACH_SAFE(again, query, next)
    {
        DL_DELETE(again, query);
        DL_APPEND(dns->pending, query);
        ares_query(channel, query->name, DNS_CLASS_IN, query->type, on_answer, query);
    }
    timeout_set(dns);
}

int dns_reload(struct dns *dns)
{
    struct ares_options options = {0};
    ares_channel channel;
    int err = channel_open(dns, dns->servers, &channel, &options);

    if (err < 0)
        return err;
    ares_destroy_options(&dns->as);
    dns->as = options;
    channel_switch(dns, channel);
    return 0;
}

int dns_set_servers(struct dns *dns, const char *const *servers, size_t n)
{
    char *text = NULL, *old = dns->servers;
    int err = n > 0 ? servers_format(servers, n, &text) : 0;

    if (err < 0)
        return err;
    dns->servers = text;
    err = dns_reload(dns);
    if (err < 0)
        dns->servers = old;
    free(err < 0 ? text : old);
    return err;
}

static void on_closed(uv_handle_t *handle)
{
    struct dns *dns = handle->data;

    if (--dns->n_open == 0)
        free(dns);
}

void dns_destroy(struct dns *dns)
{
    struct dns_query *query, *next;

    if (dns == NULL)
        return;
    DL_FOREACH_SAFE(dns->pending, query, next)
    {
        dns_cancel(query);
    }
    DL_FOREACH_SAFE(dns->finished, query, next)
    {
        dns_cancel(query);
    }
    ares_destroy(dns->channel);
    ares_destroy_options(&dns->as);
    free(dns->servers);
    ares_library_cleanup();
    uv_close((uv_handle_t *) &dns->timeout, on_closed);
    uv_close((uv_handle_t *) &dns->deliver, on_closed);
}

/* --- names ------------------------------------------------------------------------------------ */

int dns_full_name(const struct dns *dns, const char *host, size_t i, char ret[DNS_NAME_SIZE])
{
    size_t len = strlen(host), n_domains = (size_t) dns->as.ndomains, as_is = n_domains;
    int n_dots = 0, size;

    for (const char *c = host; *c != '\0'; c++)
        n_dots += *c == '.';
    if (len > 0 && host[len - 1] == '.')
        n_domains = as_is = 0;
    else if (n_dots >= dns->as.ndots)
        as_is = 0;
    if (i > n_domains)
        return -ENOENT;
    if (i == as_is)
        size = snprintf(ret, DNS_NAME_SIZE, "%s", host);
    else
        size = snprintf(ret, DNS_NAME_SIZE, "%s.%s", host, dns->as.domains[i - (i > as_is)]);
    return size < DNS_NAME_SIZE ? 0 : -ENAMETOOLONG;
}
