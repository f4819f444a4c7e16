/* SPDX-License-Identifier: MIT */
#include "ngx_http_durpina_keepalive.h"

#include <dlfcn.h>

typedef struct {
    ngx_str_t  name;
    ngx_uint_t offset; /* in ngx_http_durpina_keepalive_conf_t, of an ngx_uint_t or ngx_msec_t */
    ngx_uint_t is_time;
    ngx_uint_t initial;
} ngx_http_durpina_keepalive_param_t;

static ngx_int_t ngx_http_durpina_keepalive_value(ngx_str_t *text, ngx_uint_t is_time,
    ngx_uint_t *ret);
static ngx_uint_t ngx_http_durpina_keepalive_is_in_nginx(void *function);

static ngx_http_durpina_keepalive_param_t ngx_http_durpina_keepalive_params[] = {

    { ngx_string("timeout="), offsetof(ngx_http_durpina_keepalive_conf_t, timeout), 1,
      NGX_HTTP_DURPINA_KEEPALIVE_TIMEOUT },

    { ngx_string("requests="), offsetof(ngx_http_durpina_keepalive_conf_t, requests), 0,
      NGX_HTTP_DURPINA_KEEPALIVE_REQUESTS },

    { ngx_string("time="), offsetof(ngx_http_durpina_keepalive_conf_t, time), 1,
      NGX_HTTP_DURPINA_KEEPALIVE_TIME },

    { ngx_null_string, 0, 0, 0 }
};

char *
ngx_http_durpina_keepalive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_durpina_srv_conf_t *dscf = conf;

    ngx_str_t                           text, *value;
    ngx_uint_t                          i, *field;
    ngx_http_upstream_srv_conf_t       *uscf;
    ngx_http_durpina_keepalive_param_t *p;

    if (dscf->keepalive.max) {
        return "is duplicate";
    }

    uscf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_upstream_module);

    if (uscf->peer.init_upstream == NULL) {
        return "must stand behind \"durpina\" or \"balancer_by_lua*\"";
    }

    value = cf->args->elts;

    if (ngx_http_durpina_keepalive_value(&value[1], 0, &dscf->keepalive.max) != NGX_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" takes the number of idle connections for each peer and worker, "
                           "1 or more, not \"%V\"", &cmd->name, &value[1]);
        return NGX_CONF_ERROR;
    }

    for (i = 2; i < cf->args->nelts; i++) {

        for (p = ngx_http_durpina_keepalive_params; p->name.len; p++) {
            if (ngx_strncmp(value[i].data, p->name.data, p->name.len) == 0) {
                break;
            }
        }

        if (p->name.len == 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\" of \"%V\": \"timeout=\", \"requests=\" "
                               "and \"time=\" are valid", &value[i], &cmd->name);
            return NGX_CONF_ERROR;
        }

        field = (ngx_uint_t *) ((u_char *) &dscf->keepalive + p->offset);

        if (*field) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "duplicate parameter \"%V\" of \"%V\"",
                               &value[i], &cmd->name);
            return NGX_CONF_ERROR;
        }

        text.data = value[i].data + p->name.len;
        text.len = value[i].len - p->name.len;

        if (ngx_http_durpina_keepalive_value(&text, p->is_time, field) != NGX_OK) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid value in parameter \"%V\" of \"%V\": it takes %s above 0",
                               &value[i], &cmd->name, p->is_time ? "a time" : "a number");
            return NGX_CONF_ERROR;
        }
    }

    for (p = ngx_http_durpina_keepalive_params; p->name.len; p++) {
        field = (ngx_uint_t *) ((u_char *) &dscf->keepalive + p->offset);

        if (*field == 0) {
            *field = p->initial;
        }
    }

    return NGX_CONF_OK;
}

/* A number, or a time in milliseconds; above 0, so that 0 is what was not set. */
static ngx_int_t
ngx_http_durpina_keepalive_value(ngx_str_t *text, ngx_uint_t is_time, ngx_uint_t *ret)
{
    ngx_int_t n;

    n = is_time ? ngx_parse_time(text, 0) : ngx_atoi(text->data, text->len);

    if (n == NGX_ERROR || n == 0) {
        return NGX_ERROR;
    }

    *ret = n;

    return NGX_OK;
}

ngx_int_t
ngx_http_durpina_keepalive_check(ngx_conf_t *cf)
{
    char                           *what;
    void                           *lua;
    ngx_uint_t                      i;
    ngx_http_durpina_srv_conf_t    *dscf;
    ngx_http_upstream_srv_conf_t  **uscfp;
    ngx_http_upstream_main_conf_t  *umcf;

    lua = dlsym(RTLD_DEFAULT, "ngx_http_lua_ffi_balancer_set_current_peer");

    umcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_upstream_module);
    uscfp = umcf->upstreams.elts;

    for (i = 0; i < umcf->upstreams.nelts; i++) {

        if (!(uscfp[i]->flags & NGX_HTTP_UPSTREAM_CREATE)) {
            continue; /* not a block */
        }

        dscf = ngx_http_conf_upstream_srv_conf(uscfp[i], ngx_http_durpina_module);

        if (dscf->keepalive.max == 0) {
            continue;
        }

        if (!dscf->native && !ngx_http_durpina_is_lua(uscfp[i])) {
            what = "needs \"durpina\" or \"balancer_by_lua*\"";

        } else if (ngx_http_durpina_keepalive_is_in_nginx((void *) uscfp[i]->peer.init)
                   && !ngx_http_durpina_keepalive_is_in_nginx(
                           dscf->native ? (void *) ngx_http_durpina_keepalive_check : lua))
        {
            /* Of nginx's own modules, one alone stands around what balances. */
            what = "has no effect beside \"keepalive\"";

        } else {
            continue;
        }

        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"durpina_keepalive\" %s, in upstream \"%V\" in %s:%ui", what,
                      &uscfp[i]->host, uscfp[i]->file_name, uscfp[i]->line);
        return NGX_ERROR;
    }

    return NGX_OK;
}

/* Rather than in a shared object. */
static ngx_uint_t
ngx_http_durpina_keepalive_is_in_nginx(void *function)
{
    Dl_info info, nginx;

    return dladdr(function, &info) && dladdr((void *) ngx_http_upstream_create, &nginx)
           && info.dli_fbase == nginx.dli_fbase;
}
