/* SPDX-License-Identifier: MIT */
/*
 * The conversation with the controller: at each start and reload the master tells it the upstream
 * blocks (docs/api.md, "An nginx introduces itself") and gets the token that workers show later.
 */
#include "ngx_http_durpina_module.h"

#include <poll.h>
#include <sys/un.h>

/* The answer to an introduction, or an error of the API. */
#define NGX_HTTP_DURPINA_ANSWER 8192

/* A text that grows in a pool. */
typedef struct {
    ngx_pool_t *pool;
    u_char     *data;
    size_t      len;
    size_t      size;
    ngx_uint_t  failed; /* out of memory: what follows is dropped */
} ngx_http_durpina_text_t;

static void ngx_http_durpina_append(ngx_http_durpina_text_t *text, const char *fmt, ...);
static void ngx_http_durpina_append_string(ngx_http_durpina_text_t *text, ngx_str_t *value);
static void ngx_http_durpina_append_servers(ngx_http_durpina_text_t *text,
    ngx_http_upstream_srv_conf_t *uscf);
static ngx_int_t ngx_http_durpina_describe(ngx_cycle_t *cycle, ngx_pool_t *pool, ngx_str_t *ret);
static ngx_int_t ngx_http_durpina_accept(ngx_str_t *answer, char *err, size_t size);
static ngx_int_t ngx_http_durpina_wait(int fd, short events, ngx_msec_t deadline);

ngx_int_t
ngx_http_durpina_introduce(ngx_cycle_t *cycle, ngx_http_durpina_main_conf_t *dmcf, char *err,
    size_t size)
{
    u_char                  *buffer;
    size_t                   len = 0;
    ngx_int_t                rc;
    ngx_str_t                body, answer;
    ngx_pool_t              *pool;
    ngx_http_durpina_text_t  request;

    pool = ngx_create_pool(NGX_DEFAULT_POOL_SIZE, cycle->log);
    if (pool == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(&request, sizeof(request));
    request.pool = pool;

    buffer = ngx_palloc(pool, NGX_HTTP_DURPINA_ANSWER);

    if (buffer == NULL || ngx_http_durpina_describe(cycle, pool, &body) != NGX_OK) {
        request.failed = 1;

    } else {
        ngx_http_durpina_append(&request,
                                "POST /api/9/durpina/nginx HTTP/1.1" CRLF
                                "Host: durpina" CRLF
                                "Content-Type: application/json" CRLF
                                "Content-Length: %uz" CRLF
                                "Connection: close" CRLF CRLF "%V", body.len, &body);
    }

    if (request.failed) {
        ngx_snprintf((u_char *) err, size, "no memory to describe the upstreams%Z");
        rc = NGX_ERROR;

    } else {
        rc = ngx_http_durpina_exchange((char *) dmcf->socket.data, request.data, request.len,
                                       buffer, NGX_HTTP_DURPINA_ANSWER, NGX_HTTP_DURPINA_TIMEOUT,
                                       &len, err, size);
    }

    if (rc == NGX_OK) {
        answer.data = buffer;
        answer.len = len;
        rc = ngx_http_durpina_accept(&answer, err, size);
    }

    ngx_destroy_pool(pool);

    return rc;
}

ngx_int_t
ngx_http_durpina_reach(ngx_http_durpina_main_conf_t *dmcf, char *err, size_t size)
{
    size_t len;
    u_char answer[1024];

    static const u_char request[] = "GET /api/ HTTP/1.1" CRLF "Host: durpina" CRLF
                                    "Connection: close" CRLF CRLF;

    return ngx_http_durpina_exchange((char *) dmcf->socket.data, request, sizeof(request) - 1,
                                     answer, sizeof(answer), NGX_HTTP_DURPINA_TIMEOUT, &len, err,
                                     size);
}

/* Finds "name": in a JSON text and returns what follows, or NULL. */
static u_char *
ngx_http_durpina_json_field(ngx_str_t *json, const char *name)
{
    u_char *p, *last = json->data + json->len;

    p = ngx_strlcasestrn(json->data, last, (u_char *) name, ngx_strlen(name) - 1);
    if (p == NULL) {
        return NULL;
    }

    for (p += ngx_strlen(name); p < last && (*p == ' ' || *p == ':'); p++) { /* void */ }

    return p < last ? p : NULL;
}

/* Takes token and epoch from the controller's answer. */
static ngx_int_t
ngx_http_durpina_accept(ngx_str_t *answer, char *err, size_t size)
{
    u_char *token, *epoch, *p, *to, *text, *last = answer->data + answer->len;

    if (answer->len > sizeof("HTTP/1.1 200") && ngx_strncmp(answer->data + 9, "200", 3) == 0) {
        token = ngx_http_durpina_json_field(answer, "\"token\"");
        epoch = ngx_http_durpina_json_field(answer, "\"epoch\"");

        if (token && epoch && *token == '"' && last - token > NGX_HTTP_DURPINA_TOKEN_LEN + 1
            && token[1 + NGX_HTTP_DURPINA_TOKEN_LEN] == '"')
        {
            for (p = epoch; p < last && *p >= '0' && *p <= '9'; p++) { /* void */ }

            ngx_cpystrn(ngx_http_durpina.token, token + 1, NGX_HTTP_DURPINA_TOKEN_LEN + 1);
            ngx_http_durpina.epoch = (uint64_t) ngx_atosz(epoch, p - epoch);

            return NGX_OK;
        }
    }

    text = ngx_http_durpina_json_field(answer, "\"text\"");

    if (text && *text == '"') {
        for (to = ++text, p = text; p < last && *p != '"'; *to++ = *p++) {
            if (*p == '\\' && p + 1 < last) {
                p++;
            }
        }

        ngx_snprintf((u_char *) err, size, "the controller refused the upstreams: %*s%Z",
                     (size_t) (to - text), text);

    } else {
        ngx_snprintf((u_char *) err, size,
                     "the controller gave no answer that this module understands: use a module and "
                     "a durpinad of the same version%Z");
    }

    return NGX_ERROR;
}

static ngx_int_t
ngx_http_durpina_describe(ngx_cycle_t *cycle, ngx_pool_t *pool, ngx_str_t *ret)
{
    size_t                           i;
    ngx_uint_t                       n, forks;
    ngx_core_conf_t                 *ccf;
    ngx_http_durpina_text_t          text;
    ngx_http_durpina_srv_conf_t     *dscf;
    ngx_http_upstream_srv_conf_t   **uscfp;
    ngx_http_upstream_main_conf_t   *umcf;

    ccf = (ngx_core_conf_t *) ngx_get_conf(cycle->conf_ctx, ngx_core_module);
    umcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_upstream_module);

    ngx_memzero(&text, sizeof(text));
    text.pool = pool;

    /* The pid file names this nginx: it is the same before and after a reload or an upgrade. */
    ngx_http_durpina_append(&text, "{\"instance\":");
    ngx_http_durpina_append_string(&text, &ccf->pid);

    /* A process that is about to fork into the background has no pid yet that will last. */
    forks = ngx_is_init_cycle(cycle->old_cycle) && ccf->daemon && !ngx_inherited;

    ngx_http_durpina_append(&text, ",\"pid\":%P,\"worker_uid\":%ui,\"upstreams\":[",
                            forks ? 0 : ngx_getpid(),
                            (ngx_uint_t) (geteuid() == 0 ? ccf->user : geteuid()));

    uscfp = umcf->upstreams.elts;

    for (i = 0, n = 0; i < umcf->upstreams.nelts; i++) {
        if (!(uscfp[i]->flags & NGX_HTTP_UPSTREAM_CREATE)) {
            continue; /* not a block: "proxy_pass http://address" */
        }

        ngx_http_durpina_append(&text, "%s{\"name\":", n++ ? "," : "");
        ngx_http_durpina_append_string(&text, &uscfp[i]->host);

        dscf = ngx_http_conf_upstream_srv_conf(uscfp[i], ngx_http_durpina_module);

        ngx_http_durpina_append(&text, ",\"durpina\":%s,",
                                dscf->native || ngx_http_durpina_is_lua(uscfp[i]) ? "true"
                                                                                : "false");

        if (dscf->native) {
            ngx_http_durpina_append(&text, "\"algorithm\":\"%V\",",
                                    ngx_http_durpina_method_word(dscf->method.word));

            if (dscf->method.algorithm == DURPINA_RING) {
                ngx_http_durpina_append(&text, "\"ketama\":true,");
            }
        }

        ngx_http_durpina_append_servers(&text, uscfp[i]);
        ngx_http_durpina_append(&text, "}");
    }

    ngx_http_durpina_append(&text, "]}");

    if (text.failed) {
        return NGX_ERROR;
    }

    ret->data = text.data;
    ret->len = text.len;

    return NGX_OK;
}

ngx_int_t
ngx_http_durpina_upstream_block(ngx_cycle_t *cycle, ngx_http_upstream_srv_conf_t *uscf,
    ngx_pool_t *pool, ngx_str_t *ret_json)
{
    ngx_core_conf_t         *ccf;
    ngx_http_durpina_text_t  text;

    ccf = (ngx_core_conf_t *) ngx_get_conf(cycle->conf_ctx, ngx_core_module);

    ngx_memzero(&text, sizeof(text));
    text.pool = pool;

    ngx_http_durpina_append(&text, "{\"instance\":");
    ngx_http_durpina_append_string(&text, &ccf->pid);
    ngx_http_durpina_append(&text, ",\"epoch\":%uL,", ngx_http_durpina.epoch);
    ngx_http_durpina_append_servers(&text, uscf);
    ngx_http_durpina_append(&text, "}");

    if (text.failed) {
        return NGX_ERROR;
    }

    ret_json->data = text.data;
    ret_json->len = text.len;

    return NGX_OK;
}

/* A line that stands there because nginx wants at least one: 0.0.0.0 with any port. */
static ngx_uint_t
ngx_http_durpina_is_placeholder(ngx_http_upstream_server_t *us)
{
    struct sockaddr_in *sin;

    if (us->naddrs != 1 || us->addrs[0].sockaddr->sa_family != AF_INET) {
        return 0;
    }

    sin = (struct sockaddr_in *) us->addrs[0].sockaddr;

    return sin->sin_addr.s_addr == INADDR_ANY;
}

static void
ngx_http_durpina_append_servers(ngx_http_durpina_text_t *text, ngx_http_upstream_srv_conf_t *uscf)
{
    ngx_uint_t                  i, j, n, heaviest = 1, divisor;
    ngx_http_upstream_server_t *us;

    ngx_http_durpina_append(text, "\"servers\":[");

    us = uscf->servers ? uscf->servers->elts : NULL;

    for (i = 0; us && i < uscf->servers->nelts; i++) {
        heaviest = ngx_max(heaviest, us[i].weight);
    }

    /* nginx has no limits. Here weights keep their ratios, and the rest is endless anyway. */
    divisor = (heaviest - 1) / DURPINA_WEIGHT_MAX + 1;

    for (i = 0, n = 0; us && i < uscf->servers->nelts; i++) {
        if (ngx_http_durpina_is_placeholder(&us[i])) {
            continue;
        }

        ngx_http_durpina_append(text, "%s{\"server\":", n++ ? "," : "");
        ngx_http_durpina_append_string(text, &us[i].name);
        ngx_http_durpina_append(text, ",\"addresses\":[");

        for (j = 0; j < us[i].naddrs; j++) {
            ngx_http_durpina_append(text, "%s", j ? "," : "");
            ngx_http_durpina_append_string(text, &us[i].addrs[j].name);
        }

        ngx_http_durpina_append(text,
                                "],\"weight\":%ui,\"max_conns\":%ui,\"max_fails\":%ui,"
                                "\"fail_timeout_ms\":%T,\"slow_start_ms\":%M,\"down\":%s,"
                                "\"backup\":%s}",
                                ngx_max(1, us[i].weight / divisor),
                                ngx_min(us[i].max_conns, INT32_MAX),
                                ngx_min(us[i].max_fails, INT32_MAX),
                                ngx_min(us[i].fail_timeout, INT32_MAX / 1000) * 1000,
                                ngx_min(us[i].slow_start, INT32_MAX),
                                us[i].down ? "true" : "false", us[i].backup ? "true" : "false");
    }

    ngx_http_durpina_append(text, "]");
}

static void
ngx_http_durpina_append(ngx_http_durpina_text_t *text, const char *fmt, ...)
{
    size_t   size;
    u_char  *p, *data;
    va_list  args;

    while (!text->failed) {
        va_start(args, fmt);
        p = ngx_vslprintf(text->data + text->len, text->data + text->size, fmt, args);
        va_end(args);

        /* One byte to spare tells "it fits" from "it was cut". */
        if (p < text->data + text->size) {
            text->len = p - text->data;
            return;
        }

        size = text->size ? text->size * 2 : 1024;

        data = ngx_palloc(text->pool, size);
        if (data == NULL) {
            text->failed = 1;
            return;
        }

        ngx_memcpy(data, text->data, text->len);
        text->data = data;
        text->size = size;
    }
}

static void
ngx_http_durpina_append_string(ngx_http_durpina_text_t *text, ngx_str_t *value)
{
    u_char    *p;
    ngx_str_t  escaped;

    escaped.len = value->len + ngx_escape_json(NULL, value->data, value->len);

    p = ngx_pnalloc(text->pool, escaped.len);
    if (p == NULL) {
        text->failed = 1;
        return;
    }

    escaped.data = p;
    (void) ngx_escape_json(p, value->data, value->len);

    ngx_http_durpina_append(text, "\"%V\"", &escaped);
}

/* Milliseconds of CLOCK_MONOTONIC: nginx's cached time stands still in a blocking exchange. */
static ngx_msec_t
ngx_http_durpina_now(void)
{
    struct timespec ts;

    (void) clock_gettime(CLOCK_MONOTONIC, &ts);

    return (ngx_msec_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

ngx_int_t
ngx_http_durpina_exchange(const char *path, const u_char *request, size_t len, u_char *response,
    size_t response_size, ngx_msec_t timeout_ms, size_t *ret_len, char *err, size_t size)
{
    int                 fd;
    size_t              sent, got;
    ssize_t             n;
    ngx_msec_t          deadline;
    const char         *failed;
    struct sockaddr_un  sun;

    if (ngx_strlen(path) >= sizeof(sun.sun_path)) {
        ngx_snprintf((u_char *) err, size, "the path of durpina_socket \"%s\" is too long%Z", path);
        return NGX_ERROR;
    }

    ngx_memzero(&sun, sizeof(sun));
    sun.sun_family = AF_UNIX;
    ngx_cpystrn((u_char *) sun.sun_path, (u_char *) path, sizeof(sun.sun_path));

    deadline = ngx_http_durpina_now() + timeout_ms;

    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd == -1) {
        ngx_snprintf((u_char *) err, size, "socket() failed: %s%Z", strerror(ngx_errno));
        return NGX_ERROR;
    }

    /* A full backlog answers EAGAIN, and no event tells when to try again. */
    while (connect(fd, (struct sockaddr *) &sun, sizeof(sun)) == -1) {
        failed = strerror(ngx_errno);

        if (ngx_errno != NGX_EAGAIN || ngx_http_durpina_now() >= deadline) {
            ngx_snprintf((u_char *) err, size,
                         "cannot connect to the controller at \"%s\": %s; start it first: "
                         "durpinad, or systemctl start durpinad%Z", path, failed);
            (void) close(fd);
            return NGX_ERROR;
        }

        ngx_msleep(10);
    }

    failed = NULL;

    for (sent = 0; sent < len && failed == NULL; /* void */ ) {
        n = send(fd, request + sent, len - sent, MSG_NOSIGNAL);

        if (n >= 0) {
            sent += n;

        } else if (ngx_errno == NGX_EPIPE || ngx_errno == NGX_ECONNRESET) {
            break; /* a refusal may be there to be read */

        } else if (ngx_errno != NGX_EAGAIN && ngx_errno != NGX_EINTR) {
            failed = strerror(ngx_errno);

        } else if (ngx_http_durpina_wait(fd, POLLOUT, deadline) != NGX_OK) {
            failed = "no answer in time";
        }
    }

    for (got = 0; failed == NULL; /* void */ ) {
        if (got == response_size) {
            failed = "the answer is too long";
            break;
        }

        n = recv(fd, response + got, response_size - got, 0);

        if (n == 0) {
            break;
        }

        if (n > 0) {
            got += n;

        } else if (ngx_errno != NGX_EAGAIN && ngx_errno != NGX_EINTR) {
            failed = strerror(ngx_errno);

        } else if (ngx_http_durpina_wait(fd, POLLIN, deadline) != NGX_OK) {
            failed = "no answer in time";
        }
    }

    (void) close(fd);

    if (failed == NULL && got == 0) {
        failed = "it closed the connection";
    }

    if (failed) {
        ngx_snprintf((u_char *) err, size, "the controller at \"%s\" does not answer: %s%Z", path,
                     failed);
        return NGX_ERROR;
    }

    *ret_len = got;

    return NGX_OK;
}

static ngx_int_t
ngx_http_durpina_wait(int fd, short events, ngx_msec_t deadline)
{
    ngx_msec_t     now = ngx_http_durpina_now();
    struct pollfd  pfd = { fd, events, 0 };

    if (now >= deadline) {
        return NGX_ERROR;
    }

    return poll(&pfd, 1, (int) (deadline - now)) == 0 ? NGX_ERROR : NGX_OK;
}
