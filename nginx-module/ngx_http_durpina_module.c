/* SPDX-License-Identifier: MIT */
#include "ngx_http_durpina_keepalive.h"

#include <sys/random.h>

#define NGX_HTTP_DURPINA_SAY_INTERVAL 60000 /* ms */

static void *ngx_http_durpina_create_main_conf(ngx_conf_t *cf);
static char *ngx_http_durpina_init_main_conf(ngx_conf_t *cf, void *conf);
static void *ngx_http_durpina_create_srv_conf(ngx_conf_t *cf);
static ngx_int_t ngx_http_durpina_postconfiguration(ngx_conf_t *cf);
static char *ngx_http_durpina_path(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
static ngx_int_t ngx_http_durpina_init_module(ngx_cycle_t *cycle);
static ngx_int_t ngx_http_durpina_init_process(ngx_cycle_t *cycle);
static void ngx_http_durpina_exit_process(ngx_cycle_t *cycle);

ngx_http_durpina_state_t ngx_http_durpina = {
    .picks = { &ngx_http_durpina.picks, &ngx_http_durpina.picks },
};

static ngx_command_t ngx_http_durpina_commands[] = {

    { ngx_string("durpina_socket"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_http_durpina_path,
      NGX_HTTP_MAIN_CONF_OFFSET,
      offsetof(ngx_http_durpina_main_conf_t, socket),
      NULL },

    { ngx_string("durpina_pin"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_http_durpina_path,
      NGX_HTTP_MAIN_CONF_OFFSET,
      offsetof(ngx_http_durpina_main_conf_t, pin),
      NULL },

    { ngx_string("durpina"),
      NGX_HTTP_UPS_CONF|NGX_CONF_1MORE,
      ngx_http_durpina_directive,
      NGX_HTTP_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("durpina_keepalive"),
      NGX_HTTP_UPS_CONF|NGX_CONF_1MORE,
      ngx_http_durpina_keepalive,
      NGX_HTTP_SRV_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};

static ngx_http_module_t ngx_http_durpina_module_ctx = {
    NULL,                              /* preconfiguration */
    ngx_http_durpina_postconfiguration, /* postconfiguration */

    ngx_http_durpina_create_main_conf, /* create main configuration */
    ngx_http_durpina_init_main_conf,   /* init main configuration */

    ngx_http_durpina_create_srv_conf,  /* create server configuration */
    NULL,                              /* merge server configuration */

    NULL,                              /* create location configuration */
    NULL                               /* merge location configuration */
};

ngx_module_t ngx_http_durpina_module = {
    NGX_MODULE_V1,
    &ngx_http_durpina_module_ctx,  /* module context */
    ngx_http_durpina_commands,     /* module directives */
    NGX_HTTP_MODULE,               /* module type */
    NULL,                          /* init master */
    ngx_http_durpina_init_module,  /* init module */
    ngx_http_durpina_init_process, /* init process */
    NULL,                          /* init thread */
    NULL,                          /* exit thread */
    ngx_http_durpina_exit_process, /* exit process */
    NULL,                          /* exit master */
    NGX_MODULE_V1_PADDING
};

static void *
ngx_http_durpina_create_main_conf(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(ngx_http_durpina_main_conf_t));
}

static char *
ngx_http_durpina_init_main_conf(ngx_conf_t *cf, void *conf)
{
    ngx_http_durpina_main_conf_t *dmcf = conf;

    if (dmcf->socket.data == NULL) {
        ngx_str_set(&dmcf->socket, NGX_HTTP_DURPINA_SOCKET);
    }
    if (dmcf->pin.data == NULL) {
        ngx_str_set(&dmcf->pin, NGX_HTTP_DURPINA_PIN);
    }

    return NGX_CONF_OK;
}

static void *
ngx_http_durpina_create_srv_conf(ngx_conf_t *cf)
{
    ngx_http_durpina_srv_conf_t *dscf;

    dscf = ngx_pcalloc(cf->pool, sizeof(ngx_http_durpina_srv_conf_t));
    if (dscf == NULL) {
        return NULL;
    }

    dscf->id = DURPINA_NONE;

    return dscf;
}

/*
 * A reload that fails in init_module ends the master. One that brings the module into a running
 * nginx has no maps to go on with: without a controller it is refused here, where the old
 * configuration stays in force.
 */
static ngx_int_t
ngx_http_durpina_postconfiguration(ngx_conf_t *cf)
{
    char                          err[512];
    ngx_http_durpina_main_conf_t *dmcf;

    if (ngx_http_durpina_keepalive_check(cf) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_durpina_wrap_lua(cf);

    if (ngx_test_config || ngx_process == NGX_PROCESS_SIGNALLER
        || ngx_is_init_cycle(cf->cycle->old_cycle) || ngx_http_durpina.token[0])
    {
        return NGX_OK;
    }

    dmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_durpina_module);

    ngx_memzero(err, sizeof(err));

    if (ngx_http_durpina_reach(dmcf, err, sizeof(err) - 1) != NGX_OK
        || ngx_http_durpina_map(&dmcf->pin, err, sizeof(err) - 1) != NGX_OK)
    {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0, "durpina: %s", err);
        return NGX_ERROR;
    }

    return NGX_OK;
}

/* An absolute path, with nginx's "unix:" allowed before that of the socket. */
static char *
ngx_http_durpina_path(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_str_t *value = cf->args->elts;
    ngx_str_t *path = (ngx_str_t *) ((u_char *) conf + cmd->offset);

    if (path->data) {
        return "is duplicate";
    }

    *path = value[1];

    if (path->len > 5 && ngx_strncmp(path->data, "unix:", 5) == 0) {
        path->data += 5;
        path->len -= 5;
    }

    if (path->len == 0 || path->data[0] != '/') {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"%V\" takes an absolute path, not \"%V\"",
                           &cmd->name, &value[1]);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}

/*
 * Runs in the master, as root. A first start needs the controller; a reload goes on with what is
 * mapped (nginx exits if this function fails then).
 */
static ngx_int_t
ngx_http_durpina_init_module(ngx_cycle_t *cycle)
{
    char                          err[512];
    ngx_uint_t                    first;
    ngx_http_durpina_main_conf_t *dmcf;

    dmcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_durpina_module);

    if (ngx_test_config || dmcf == NULL) {
        return NGX_OK;
    }

    ngx_memzero(err, sizeof(err)); /* ngx_snprintf() that ran out of space wrote no NUL */

    first = ngx_is_init_cycle(cycle->old_cycle);

    if (ngx_http_durpina_introduce(cycle, dmcf, err, sizeof(err) - 1) == NGX_OK
        && ngx_http_durpina_map(&dmcf->pin, err, sizeof(err) - 1) == NGX_OK)
    {
        return NGX_OK;
    }

    if (first) {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, 0, "durpina: %s", err);
        return NGX_ERROR;
    }

    ngx_log_error(NGX_LOG_ERR, cycle->log, 0,
                  "durpina: %s; going on with the peers known so far, changes of \"server\" lines "
                  "take effect at the next reload", err);
    return NGX_OK;
}

static ngx_int_t
ngx_http_durpina_init_process(ngx_cycle_t *cycle)
{
    uint64_t *random = &ngx_http_durpina.random;

    if (getrandom(random, sizeof(*random), 0) != sizeof(*random)) {
        *random = ((uint64_t) ngx_pid << 32) ^ ngx_current_msec;
    }

    return ngx_http_durpina_keepalive_init_process(cycle);
}

static void
ngx_http_durpina_exit_process(ngx_cycle_t *cycle)
{
    /* A fast shutdown leaves requests, and so their share of the active counts, behind. */
    ngx_http_durpina_finish_all();
    ngx_http_durpina_inflight_release();
}

ngx_uint_t
ngx_http_durpina_may_say(ngx_http_durpina_saying_e what)
{
    static ngx_msec_t said[NGX_HTTP_DURPINA_SAYINGS]; /* 0: never */

    if (said[what] && ngx_current_msec - said[what] < NGX_HTTP_DURPINA_SAY_INTERVAL) {
        return 0;
    }

    said[what] = ngx_current_msec;

    return 1;
}
