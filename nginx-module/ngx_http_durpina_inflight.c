/* SPDX-License-Identifier: MIT */
/*
 * Where this worker notes its tries in flight, so that durpinad can give them back if it is killed:
 * entries of the pages that it claims in the map `inflight` (durpina_abi.h), as many as it needs at
 * its busiest. It returns them when it exits in order.
 */
#include "ngx_http_durpina_module.h"

#include <sys/stat.h>

/* Without a free page, tries are not noted; how long until a page is looked for again. */
#define NGX_HTTP_DURPINA_CLAIM_RETRY 1000 /* ms */

static struct {
    struct durpina_worker  self; /* pid 0: not known yet */
    uint64_t               pid_namespace;
    struct durpina_try   **free; /* a stack, with room for every entry there is */
    uint32_t               n_free;
    ngx_msec_t             retry_at; /* 0: at once */
} ngx_http_durpina_inflight;

static ngx_int_t ngx_http_durpina_claim_page(void);
static ngx_int_t ngx_http_durpina_know_self(void);
static ngx_int_t ngx_http_durpina_started(uint32_t *ret_started);

struct durpina_try *
ngx_http_durpina_inflight_get(void)
{
    if (ngx_http_durpina_inflight.n_free == 0 && ngx_http_durpina_claim_page() != NGX_OK) {
        return NULL;
    }

    return ngx_http_durpina_inflight.free[--ngx_http_durpina_inflight.n_free];
}

void
ngx_http_durpina_inflight_put(struct durpina_try *entry)
{
    if (entry) {
        ngx_http_durpina_inflight.free[ngx_http_durpina_inflight.n_free++] = entry;
    }
}

static ngx_int_t
ngx_http_durpina_claim_page(void)
{
    uint32_t                 i, n, start, t;
    uint64_t                 expected;
    struct durpina_inflight *page;
    union {
        struct durpina_worker owner;
        uint64_t              word;
    } self;

    n = ngx_http_durpina.maps.n_inflight;

    if (ngx_http_durpina_inflight.retry_at
        && (ngx_msec_int_t) (ngx_http_durpina_inflight.retry_at - ngx_current_msec) > 0)
    {
        return NGX_DECLINED;
    }

    ngx_http_durpina_inflight.retry_at = ngx_current_msec + NGX_HTTP_DURPINA_CLAIM_RETRY;

    if (ngx_http_durpina_inflight.free == NULL) {
        ngx_http_durpina_inflight.free = ngx_alloc((size_t) n * DURPINA_TRIES_PER_PAGE
                                                   * sizeof(struct durpina_try *), ngx_cycle->log);
    }

    if (ngx_http_durpina_inflight.free == NULL || ngx_http_durpina_know_self() != NGX_OK) {
        return NGX_DECLINED;
    }

    self.owner = ngx_http_durpina_inflight.self;
    start = durpina_place(ngx_http_durpina_random(), n);

    for (i = 0; i < n; i++) {
        page = &ngx_http_durpina.maps.inflight[start];

        if (++start == n) {
            start = 0;
        }

        expected = 0;

        if (DURPINA_LOAD(durpina_alias(&page->owner)) != 0
            || !__atomic_compare_exchange_n(durpina_alias(&page->owner), &expected, self.word, 0,
                                            __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
        {
            continue;
        }

        DURPINA_STORE(&page->pid_namespace, ngx_http_durpina_inflight.pid_namespace);

        for (t = DURPINA_TRIES_PER_PAGE; t > 0; t--) {
            ngx_http_durpina_inflight_put(&page->tries[t - 1]);
        }

        ngx_http_durpina_inflight.retry_at = 0;

        return NGX_OK;
    }

    if (ngx_http_durpina_may_say(NGX_HTTP_DURPINA_SAY_NO_PAGE)) {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "durpina: all %uD pages of the map \"inflight\" are in use: if this worker "
                      "is killed, its requests in flight will stay counted (\"inflight\" in "
                      "durpinad.conf)", n);
    }

    return NGX_DECLINED;
}

void
ngx_http_durpina_inflight_release(void)
{
    uint32_t                 i;
    struct durpina_worker   *self = &ngx_http_durpina_inflight.self;
    struct durpina_inflight *page;

    for (i = 0; self->pid && i < ngx_http_durpina.maps.n_inflight; i++) {
        page = &ngx_http_durpina.maps.inflight[i];

        if (DURPINA_LOAD(durpina_alias(&page->owner)) == *durpina_alias(self)) {
            DURPINA_STORE(&page->pid_namespace, 0);
            __atomic_store_n(durpina_alias(&page->owner), 0, __ATOMIC_RELEASE);
        }
    }

    if (ngx_http_durpina_inflight.free) {
        ngx_free(ngx_http_durpina_inflight.free);
    }

    ngx_memzero(&ngx_http_durpina_inflight, sizeof(ngx_http_durpina_inflight));
}

/* Asked by the worker itself at its first need: the master has another pid. */
static ngx_int_t
ngx_http_durpina_know_self(void)
{
    uint32_t    started;
    struct stat st;

    if (ngx_http_durpina_inflight.self.pid) {
        return NGX_OK;
    }

    if (ngx_http_durpina_started(&started) != NGX_OK || stat("/proc/self/ns/pid", &st) == -1) {
        if (ngx_http_durpina_may_say(NGX_HTTP_DURPINA_SAY_NO_PAGE)) {
            ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, ngx_errno,
                          "durpina: cannot read /proc/self: if this worker is killed, its requests "
                          "in flight will stay counted");
        }

        return NGX_ERROR;
    }

    ngx_http_durpina_inflight.pid_namespace = st.st_ino;
    ngx_http_durpina_inflight.self.started = started;
    ngx_http_durpina_inflight.self.pid = (uint32_t) getpid();

    return NGX_OK;
}

/* Field 22 of /proc/self/stat. The second one is the name, which may hold spaces and brackets. */
static ngx_int_t
ngx_http_durpina_started(uint32_t *ret_started)
{
    int                 fd;
    char                text[1024], *p;
    ssize_t             n;
    ngx_uint_t          field;
    unsigned long long  started;

    fd = open("/proc/self/stat", O_RDONLY|O_CLOEXEC);
    if (fd == -1) {
        return NGX_ERROR;
    }

    n = read(fd, text, sizeof(text) - 1);

    (void) close(fd);

    if (n <= 0) {
        return NGX_ERROR;
    }

    text[n] = '\0';
    p = strrchr(text, ')');

    for (field = 2; p && field < 22; field++) {
        p = strchr(p + 1, ' ');
    }

    if (p == NULL || sscanf(p, " %llu", &started) != 1) {
        return NGX_ERROR;
    }

    *ret_started = (uint32_t) started;

    return NGX_OK;
}
