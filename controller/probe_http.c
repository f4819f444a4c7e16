/* SPDX-License-Identifier: MIT */
/*
 * The http check: one request on a fresh connection, by libcurl's multi_socket interface. The URL
 * holds the peer's address, never a name, so that nothing is looked up; the name goes into Host.
 * An answer passes by its status once it is complete. What the backend may make us read is capped;
 * a body that says its length and is longer than the cap is judged without reading the rest, one
 * that does not say it is taken for endless.
 */
#include <curl/curl.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "probe_ops.h"

#define BODY_MAX (256 * 1024)
#define HEADERS_MAX (16 * 1024) /* all of them, those of 1xx answers too */
#define USER_AGENT "User-Agent: durpinad"

struct http_client {
    struct prober *prober;
    CURLM *multi;
    uv_timer_t timer;
};

/* A socket of libcurl's on the loop. */
struct http_socket {
    struct http_client *client;
    uv_poll_t poll;
    curl_socket_t fd;
};

struct http_run {
    struct probe *probe;
    CURL *easy;
    struct curl_slist *headers;
    size_t n_headers; /* bytes seen */
    size_t n_body;
    bool complete;     /* judged before the end of the answer */
    const char *fault; /* why a callback gave up, or NULL */
    int socket_err;    /* why there is no socket, or 0 */
};

/* A new easy handle costs 1 microsecond, a check 100: none is kept. */
static void run_free(struct http_run *run)
{
    run->probe->run = NULL;
    if (run->easy != NULL) {
        curl_multi_remove_handle(run->probe->prober->http->multi, run->easy);
        curl_easy_cleanup(run->easy);
    }
    curl_slist_free_all(run->headers);
    free(run);
}

static void http_cancel(struct probe *probe)
{
    run_free(probe->run);
}

/* curl's own words where they fit an operator less than these. */
static const char *reason_of(CURLcode code)
{
    switch (code) {
    case CURLE_COULDNT_CONNECT:
        return "connection failed";
    case CURLE_GOT_NOTHING:
        return "closed without an answer";
    case CURLE_PARTIAL_FILE:
        return "answer cut short";
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_WEIRD_SERVER_REPLY:
        return "answer is not HTTP";
    default:
        return curl_easy_strerror(code);
    }
}

static void finish(struct http_run *run, CURLcode code)
{
    struct probe *probe = run->probe;
    const char *fault = run->fault;
    bool complete = run->complete;
    int socket_err = run->socket_err;
    long status = 0, os_errno = 0;

    curl_easy_getinfo(run->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(run->easy, CURLINFO_OS_ERRNO, &os_errno);
    run_free(run);

    if (socket_err < 0)
        probe_done_errno(probe, socket_err);
    else if (code == CURLE_OUT_OF_MEMORY)
        probe_done_errno(probe, -ENOMEM);
    else if (fault != NULL)
        probe_done(probe, PROBE_FAILED, "%s", fault);
    else if (code == CURLE_OK || complete)
        probe_done(probe,
                   check_http_code_ok(&probe->check->http, status) ? PROBE_PASSED : PROBE_FAILED,
                   "HTTP %ld", status);
    else if (os_errno != 0 && (code == CURLE_COULDNT_CONNECT || code == CURLE_RECV_ERROR ||
                               code == CURLE_SEND_ERROR))
        probe_done_errno(probe, (int) -os_errno);
    else
        probe_done(probe, PROBE_FAILED, "%s", reason_of(code));
}

static void finish_all(struct http_client *client)
{
    CURLMsg *message;
    int n_left;

    while ((message = curl_multi_info_read(client->multi, &n_left)) != NULL) {
        struct http_run *run;

        if (message->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **) &run);
        finish(run, message->data.result);
    }
}

static void on_socket_event(uv_poll_t *poll, int status, int events)
{
    struct http_socket *socket = poll->data;
    struct http_client *client = socket->client;
    int flags = 0, n_running;

    if (status < 0)
        flags = CURL_CSELECT_ERR;
    if (events & UV_READABLE)
        flags |= CURL_CSELECT_IN;
    if (events & UV_WRITABLE)
        flags |= CURL_CSELECT_OUT;
    curl_multi_socket_action(client->multi, socket->fd, flags, &n_running);
    finish_all(client);
}

static void on_timer(uv_timer_t *timer)
{
    struct http_client *client = timer->data;
    int n_running;

    curl_multi_socket_action(client->multi, CURL_SOCKET_TIMEOUT, 0, &n_running);
    finish_all(client);
}

/* libcurl must not be called back from here, so that 0 too is for the loop. */
static int set_timer(CURLM *multi, long timeout_ms, void *user)
{
    struct http_client *client = user;

    (void) multi;
    if (timeout_ms < 0)
        uv_timer_stop(&client->timer);
    else
        uv_timer_start(&client->timer, on_timer, (uint64_t) timeout_ms, 0);
    return 0;
}

static void on_socket_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static struct http_socket *socket_watch(struct http_client *client, curl_socket_t fd)
{
    struct http_socket *socket = calloc(1, sizeof(*socket));

    if (socket == NULL)
        return NULL;
    if (uv_poll_init(client->prober->loop, &socket->poll, fd) < 0) {
        free(socket);
        return NULL;
    }
    socket->client = client;
    socket->fd = fd;
    socket->poll.data = socket;
    curl_multi_assign(client->multi, fd, socket);
    return socket;
}

/*
 * CURL_POLL_REMOVE always comes before libcurl closes the socket; its close callback does not (7.88
 * forgets it while connecting). To refuse (-1) would end the transfers of all: a socket that
 * cannot be watched, for lack of memory, ends by the timeout of its check.
 */
static int set_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *socket_user)
{
    struct http_socket *socket = socket_user;

    (void) easy;
    if (what == CURL_POLL_REMOVE) {
        if (socket != NULL)
            uv_close((uv_handle_t *) &socket->poll, on_socket_closed);
        return 0;
    }
    if (socket == NULL)
        socket = socket_watch(user, fd);
    if (socket != NULL)
        uv_poll_start(&socket->poll,
                      (what & CURL_POLL_IN ? UV_READABLE : 0) |
                          (what & CURL_POLL_OUT ? UV_WRITABLE : 0),
                      on_socket_event);
    return 0;
}

static curl_socket_t open_socket(void *user, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct http_run *run = user;
    int fd;

    (void) purpose;
    run->socket_err = probe_socket(address->family, &fd);
    return run->socket_err < 0 ? CURL_SOCKET_BAD : fd;
}

static size_t give_up(struct http_run *run, const char *fault)
{
    run->fault = fault;
    return 0;
}

static size_t on_header(char *data, size_t size, size_t n, void *user)
{
    struct http_run *run = user;
    long status = 0;

    run->probe->missing = "end of the answer";
    run->n_headers += size * n;
    if (run->n_headers > HEADERS_MAX)
        return give_up(run, "answer header over 16 kB");

    /* 101 ends HTTP on this connection: there is no body to wait for. */
    if (n == 2 && memcmp(data, "\r\n", 2) == 0 &&
        curl_easy_getinfo(run->easy, CURLINFO_RESPONSE_CODE, &status) == CURLE_OK &&
        status == 101) {
        run->complete = true;
        return 0;
    }
    return n;
}

static size_t on_body(char *data, size_t size, size_t n, void *user)
{
    struct http_run *run = user;
    curl_off_t length = -1;

    (void) data;
    run->n_body += size * n;
    if (run->n_body <= BODY_MAX)
        return n;
    curl_easy_getinfo(run->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    if (length < 0)
        return give_up(run, "answer of unknown length over 256 KiB");
    run->complete = true;
    return 0;
}

/* "Host: " and the name as the URL would have it: with the port in use, without 80. */
static void host_header(const struct probe *probe, char *buffer, size_t size)
{
    const char *host = probe->check->http.host, *name = probe->host, *colon;
    unsigned port = addr_port(&probe->addr);
    int length;

    if (host != NULL) {
        snprintf(buffer, size, "Host: %s", host);
        return;
    }
    if (probe->addr.sa.sa_family == AF_UNIX) {
        snprintf(buffer, size, "Host: localhost");
        return;
    }
    colon = strrchr(name, ':');
    length =
        colon != NULL && strchr(colon, ']') == NULL ? (int) (colon - name) : (int) strlen(name);
    if (port == 80)
        snprintf(buffer, size, "Host: %.*s", length, name);
    else
        snprintf(buffer, size, "Host: %.*s:%u", length, name, port);
}

static int header_append(struct http_run *run, const char *line)
{
    struct curl_slist *headers = curl_slist_append(run->headers, line);

    if (headers == NULL)
        return -ENOMEM;
    run->headers = headers;
    return 0;
}

/* The options' headers come last but win: curl sends its own ones, and ours, only if not given. */
static int headers_build(struct http_run *run)
{
    /* "Name:" keeps curl from sending its own. */
    static const char *const ours[] = {"Connection: close", USER_AGENT, "Content-Type:"};
    const struct check_http *options = &run->probe->check->http;
    char host[CHECK_HOST_MAX + sizeof("Host: :65535")];

    host_header(run->probe, host, sizeof(host));
    if (header_append(run, host) < 0)
        return -ENOMEM;
    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
        size_t n = strcspn(ours[i], ":") + 1;
        bool given = false;

        for (size_t j = 0; j < options->n_headers; j++)
            given |= strncasecmp(ours[i], options->headers[j], n) == 0;
        if (!given && header_append(run, ours[i]) < 0)
            return -ENOMEM;
    }
    for (size_t j = 0; j < options->n_headers; j++) {
        if (header_append(run, options->headers[j]) < 0)
            return -ENOMEM;
    }
    return 0;
}

/* True if all could be set; what fails here is memory. */
static bool easy_set_target(CURL *easy, const struct probe *probe)
{
    char address[DURPINA_NAME_SIZE], url[sizeof(address) + sizeof("http:///")];

    if (probe->addr.sa.sa_family == AF_UNIX)
        return curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, probe->addr.un.sun_path) ==
                   CURLE_OK &&
               curl_easy_setopt(easy, CURLOPT_URL, "http://localhost/") == CURLE_OK;
    addr_format(&probe->addr, address, sizeof(address));
    snprintf(url, sizeof(url), "http://%s/", address);
    return curl_easy_setopt(easy, CURLOPT_URL, url) == CURLE_OK;
}

static bool easy_set_request(CURL *easy, const struct check_http *options)
{
    if (options->body != NULL) {
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, (long) strlen(options->body));
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, options->body);
    } else if (strcmp(options->method, "HEAD") == 0) {
        curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    }
    /* The path byte for byte, without curl's idea of its normal form. */
    return curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, options->method) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_REQUEST_TARGET, options->url) == CURLE_OK;
}

static bool easy_set_limits(CURL *easy, const struct check *check)
{
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_HTTP09_ALLOWED, 0L);
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
    curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L);
    /* The probe's timer ends the check; curl's own 300 s must not come before. */
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long) check->timeout_ms + 1000);
    /* Addresses need no cache, whose entries would be walked at each check. */
    curl_easy_setopt(easy, CURLOPT_DNS_CACHE_TIMEOUT, 0L);
    return curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_NOPROXY, "*") == CURLE_OK;
}

static void easy_set_callbacks(CURL *easy, struct http_run *run)
{
    curl_easy_setopt(easy, CURLOPT_PRIVATE, run);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, run);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, run);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, run);
}

static int client_create(struct prober *prober, struct http_client **ret)
{
    struct http_client *client = calloc(1, sizeof(*client));

    if (client == NULL)
        return -ENOMEM;
    /* curl counts its users: as many cleanups as inits. */
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        free(client);
        return -ENOMEM;
    }
    client->multi = curl_multi_init();
    if (client->multi == NULL) {
        curl_global_cleanup();
        free(client);
        return -ENOMEM;
    }
    curl_multi_setopt(client->multi, CURLMOPT_SOCKETFUNCTION, set_socket);
    curl_multi_setopt(client->multi, CURLMOPT_SOCKETDATA, client);
    curl_multi_setopt(client->multi, CURLMOPT_TIMERFUNCTION, set_timer);
    curl_multi_setopt(client->multi, CURLMOPT_TIMERDATA, client);
    client->prober = prober;
    prober_ref(prober);
    uv_timer_init(prober->loop, &client->timer);
    client->timer.data = client;
    *ret = client;
    return 0;
}

static void on_client_closed(uv_handle_t *handle)
{
    struct http_client *client = handle->data;

    prober_unref(client->prober);
    free(client);
}

void http_client_destroy(struct http_client *client)
{
    if (client == NULL)
        return;
    curl_multi_cleanup(client->multi);
    curl_global_cleanup();
    uv_close((uv_handle_t *) &client->timer, on_client_closed);
}

static int run_begin(struct http_run *run)
{
    struct probe *probe = run->probe;

    run->easy = curl_easy_init();
    if (run->easy == NULL || headers_build(run) < 0)
        return -ENOMEM;
    easy_set_callbacks(run->easy, run);
    curl_easy_setopt(run->easy, CURLOPT_HTTPHEADER, run->headers);
    if (!easy_set_target(run->easy, probe) || !easy_set_limits(run->easy, probe->check) ||
        !easy_set_request(run->easy, &probe->check->http))
        return -ENOMEM;
    return curl_multi_add_handle(probe->prober->http->multi, run->easy) == CURLM_OK ? 0 : -ENOMEM;
}

static void http_start(struct probe *probe)
{
    struct prober *prober = probe->prober;
    struct http_run *run;
    int err = prober->http == NULL ? client_create(prober, &prober->http) : 0;

    run = err == 0 ? calloc(1, sizeof(*run)) : NULL;
    if (run == NULL) {
        probe_done_errno(probe, -ENOMEM);
        return;
    }
    run->probe = probe;
    probe->run = run;
    err = run_begin(run);
    if (err < 0) {
        run_free(run);
        probe_done_errno(probe, err);
    }
}

const struct probe_ops probe_http_ops = {
    .start = http_start,
    .cancel = http_cancel,
};
