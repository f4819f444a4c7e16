/* SPDX-License-Identifier: MIT */
/*
 * How to pick, in words: those of the directive `durpina ALGORITHM [args];` and of Lua's balancer.
 * Both are checked by the tables below, and errors list what these say.
 */
#include "ngx_http_durpina_peer.h"

/* What an algorithm's argument decides; each can be decided once. */
enum {
    VARIANT = 1,
    BOUND = 2,
    SOURCE = 4,
};

typedef struct {
    ngx_str_t              word;
    ngx_uint_t             decides;
    enum durpina_algorithm algorithm; /* with VARIANT */
} ngx_http_durpina_option_t;

typedef struct {
    ngx_str_t                        word;
    enum durpina_algorithm           algorithm;
    ngx_http_durpina_key_e           key;
    const ngx_http_durpina_option_t *options; /* ends with an empty word; NULL: none */
    const char                      *usage;
} ngx_http_durpina_algorithm_t;

static const ngx_http_durpina_option_t ngx_http_durpina_hash_options[] = {
    { ngx_string("ketama"), VARIANT, DURPINA_RING },
    { ngx_string("bounded"), BOUND, DURPINA_HASH },
    { ngx_null_string, 0, DURPINA_HASH },
};

static const ngx_http_durpina_option_t ngx_http_durpina_conn_options[] = {
    { ngx_string("source=nginx"), SOURCE, DURPINA_LEAST_CONN },
    { ngx_string("source=kernel"), SOURCE|VARIANT, DURPINA_LEAST_CONN_KERNEL },
    { ngx_null_string, 0, DURPINA_LEAST_CONN },
};

/* The kernel sees no responses: with it, the time is that of a round trip. */
static const ngx_http_durpina_option_t ngx_http_durpina_time_options[] = {
    { ngx_string("header"), VARIANT, DURPINA_LEAST_TIME_HEADER },
    { ngx_string("last_byte"), VARIANT, DURPINA_LEAST_TIME_LAST_BYTE },
    { ngx_string("source=nginx"), SOURCE, DURPINA_LEAST_TIME_HEADER },
    { ngx_string("source=kernel"), SOURCE|VARIANT, DURPINA_LEAST_TIME_KERNEL },
    { ngx_null_string, 0, DURPINA_LEAST_TIME_HEADER },
};

static const ngx_http_durpina_algorithm_t ngx_http_durpina_algorithms[] = {
    { ngx_string("round-robin"), DURPINA_ROUND_ROBIN, NGX_HTTP_DURPINA_KEY_NONE, NULL, "" },
    { ngx_string("unweighted-round-robin"), DURPINA_UNWEIGHTED_ROUND_ROBIN,
      NGX_HTTP_DURPINA_KEY_NONE, NULL, "" },
    { ngx_string("ip-hash"), DURPINA_HASH, NGX_HTTP_DURPINA_KEY_CLIENT, NULL, "" },
    { ngx_string("consistent-hash"), DURPINA_HASH, NGX_HTTP_DURPINA_KEY_TEXT,
      ngx_http_durpina_hash_options, "[ketama] [bounded[=C]]" },
    { ngx_string("least-conn"), DURPINA_LEAST_CONN, NGX_HTTP_DURPINA_KEY_NONE,
      ngx_http_durpina_conn_options, "[source=nginx|kernel]" },
    { ngx_string("random-two"), DURPINA_RANDOM_TWO, NGX_HTTP_DURPINA_KEY_NONE, NULL, "" },
    { ngx_string("peak-ewma"), DURPINA_PEAK_EWMA, NGX_HTTP_DURPINA_KEY_NONE, NULL, "" },
    { ngx_string("least-time"), DURPINA_LEAST_TIME_HEADER, NGX_HTTP_DURPINA_KEY_NONE,
      ngx_http_durpina_time_options, "[header|last_byte] [source=nginx], or source=kernel" },
};

#define NGX_HTTP_DURPINA_N_ALGORITHMS                                         \
    (sizeof(ngx_http_durpina_algorithms) / sizeof(ngx_http_durpina_algorithms[0]))

/* "bounded=1.25" is told by its first characters. */
#define NGX_HTTP_DURPINA_BOUND_WORD "bounded="
#define NGX_HTTP_DURPINA_BOUND_MAX (DURPINA_BOUND_MAX / DURPINA_BOUND_ONE)

static ngx_uint_t
ngx_http_durpina_same(const ngx_str_t *a, const ngx_str_t *b)
{
    return a->len == b->len && ngx_memcmp(a->data, b->data, a->len) == 0;
}

const ngx_str_t *
ngx_http_durpina_method_word(ngx_uint_t i)
{
    return i < NGX_HTTP_DURPINA_N_ALGORITHMS ? &ngx_http_durpina_algorithms[i].word : NULL;
}

ngx_int_t
ngx_http_durpina_method(const ngx_str_t *word, ngx_http_durpina_method_t *ret_method, char *err,
    size_t size)
{
    u_char                             *p, *last;
    ngx_uint_t                          i;
    const ngx_http_durpina_algorithm_t *a;

    for (i = 0; i < NGX_HTTP_DURPINA_N_ALGORITHMS; i++) {
        a = &ngx_http_durpina_algorithms[i];

        if (ngx_http_durpina_same(&a->word, word)) {
            ret_method->algorithm = a->algorithm;
            ret_method->key = a->key;
            ret_method->bound = 0;
            ret_method->word = i;
            ret_method->decided = 0;
            return NGX_OK;
        }
    }

    last = (u_char *) err + size - 1;
    p = ngx_slprintf((u_char *) err, last, "unknown algorithm \"%V\"; valid ones are ", word);

    for (i = 0; i < NGX_HTTP_DURPINA_N_ALGORITHMS; i++) {
        p = ngx_slprintf(p, last, "%s%V", i ? ", " : "", &ngx_http_durpina_algorithms[i].word);
    }

    *p = '\0';

    return NGX_ERROR;
}

/* C of "bounded=C", from 1 to 100 with at most three decimals. */
static ngx_int_t
ngx_http_durpina_parse_bound(const ngx_str_t *word, uint32_t *ret_bound)
{
    u_char    *c = word->data + sizeof(NGX_HTTP_DURPINA_BOUND_WORD) - 1;
    size_t     len = word->len - (sizeof(NGX_HTTP_DURPINA_BOUND_WORD) - 1);
    ngx_int_t  thousandths;

    thousandths = ngx_atofp(c, len, 3);

    if (thousandths < 1000 || thousandths > NGX_HTTP_DURPINA_BOUND_MAX * 1000) {
        return NGX_ERROR;
    }

    *ret_bound = (uint32_t) (thousandths * DURPINA_BOUND_ONE + 999) / 1000;

    return NGX_OK;
}

ngx_int_t
ngx_http_durpina_method_option(ngx_http_durpina_method_t *method, const ngx_str_t *word, char *err,
    size_t size)
{
    uint32_t                            bound = DURPINA_BOUND_DEFAULT;
    ngx_str_t                           name = *word;
    ngx_uint_t                          has_value;
    const ngx_http_durpina_option_t    *option;
    const ngx_http_durpina_algorithm_t *a = &ngx_http_durpina_algorithms[method->word];

    has_value = word->len >= sizeof(NGX_HTTP_DURPINA_BOUND_WORD) - 1
                && ngx_strncmp(word->data, NGX_HTTP_DURPINA_BOUND_WORD,
                               sizeof(NGX_HTTP_DURPINA_BOUND_WORD) - 1) == 0;
    if (has_value) {
        name.len = sizeof(NGX_HTTP_DURPINA_BOUND_WORD) - 2;
    }

    for (option = a->options; option && option->word.len; option++) {
        if (ngx_http_durpina_same(&option->word, &name)) {
            break;
        }
    }

    if (option == NULL) {
        ngx_snprintf((u_char *) err, size, "%V takes no argument like \"%V\"%Z", &a->word, word);
        return NGX_ERROR;
    }

    if (option->word.len == 0) {
        ngx_snprintf((u_char *) err, size, "unknown argument \"%V\" of %V; valid ones are %s%Z",
                     word, &a->word, a->usage);
        return NGX_ERROR;
    }

    if (method->decided & option->decides) {
        ngx_snprintf((u_char *) err, size,
                     "argument \"%V\" of %V does not go with those before it; valid ones are %s%Z",
                     word, &a->word, a->usage);
        return NGX_ERROR;
    }

    if (has_value && ngx_http_durpina_parse_bound(word, &bound) != NGX_OK) {
        ngx_snprintf((u_char *) err, size,
                     "bad argument \"%V\" of %V: a number from 1 to %d is expected, with at most "
                     "three decimals%Z", word, &a->word, NGX_HTTP_DURPINA_BOUND_MAX);
        return NGX_ERROR;
    }

    method->decided |= option->decides;

    if (option->decides & BOUND) {
        method->bound = bound;
    }

    if (option->decides & VARIANT) {
        method->algorithm = option->algorithm;
    }

    return NGX_OK;
}

/* A key that is left out looks like this: "durpina consistent-hash ketama;" */
static ngx_uint_t
ngx_http_durpina_is_option(const ngx_http_durpina_method_t *method, const ngx_str_t *word)
{
    char                      err[256];
    ngx_http_durpina_method_t copy = *method;

    return ngx_http_durpina_method_option(&copy, word, err, sizeof(err)) == NGX_OK;
}

/* KEY is most often one variable, and needs no script then: running one costs as much as a pick. */
static char *
ngx_http_durpina_compile_key(ngx_conf_t *cf, ngx_str_t *value, ngx_http_durpina_srv_conf_t *dscf)
{
    size_t                            i;
    ngx_str_t                         name = { value->len - 1, value->data + 1 };
    ngx_http_compile_complex_value_t  ccv;

    for (i = 0; i < name.len && (name.data[i] == '_' || isalnum(name.data[i])); i++) {
        /* void */
    }

    if (value->data[0] == '$' && name.len && i == name.len && !isdigit(name.data[0])) {
        dscf->key_variable = ngx_http_get_variable_index(cf, &name);

        return dscf->key_variable == NGX_ERROR ? NGX_CONF_ERROR : NGX_CONF_OK;
    }

    dscf->key = ngx_palloc(cf->pool, sizeof(ngx_http_complex_value_t));
    if (dscf->key == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));
    ccv.cf = cf;
    ccv.value = value;
    ccv.complex_value = dscf->key;

    return ngx_http_compile_complex_value(&ccv) == NGX_OK ? NGX_CONF_OK : NGX_CONF_ERROR;
}

char *
ngx_http_durpina_directive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char                              err[512];
    ngx_str_t                        *value = cf->args->elts;
    ngx_uint_t                        i = 2;
    ngx_http_durpina_method_t         method;
    ngx_http_durpina_srv_conf_t      *dscf = conf;
    ngx_http_upstream_srv_conf_t     *uscf;

    if (dscf->named) {
        return "is duplicate";
    }

    ngx_memzero(err, sizeof(err));

    if (ngx_http_durpina_method(&value[1], &method, err, sizeof(err) - 1) != NGX_OK) {
        goto failed;
    }

    if (method.key == NGX_HTTP_DURPINA_KEY_TEXT) {
        if (cf->args->nelts < 3 || ngx_http_durpina_is_option(&method, &value[2])) {
            ngx_snprintf((u_char *) err, sizeof(err) - 1, "%V needs a key: durpina %V KEY %s;%Z",
                         &value[1], &value[1], ngx_http_durpina_algorithms[method.word].usage);
            goto failed;
        }

        if (ngx_http_durpina_compile_key(cf, &value[2], dscf) != NGX_CONF_OK) {
            return NGX_CONF_ERROR;
        }

        i = 3;
    }

    for ( /* void */ ; i < cf->args->nelts; i++) {
        if (ngx_http_durpina_method_option(&method, &value[i], err, sizeof(err) - 1) != NGX_OK) {
            goto failed;
        }
    }

    dscf->method = method;
    dscf->named = 1;

    uscf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_upstream_module);

    if (uscf->peer.init_upstream) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0, "load balancing method redefined");
    }

    uscf->peer.init_upstream = ngx_http_durpina_init_upstream;
    uscf->flags = NGX_HTTP_UPSTREAM_CREATE
                  |NGX_HTTP_UPSTREAM_WEIGHT
                  |NGX_HTTP_UPSTREAM_MAX_CONNS
                  |NGX_HTTP_UPSTREAM_MAX_FAILS
                  |NGX_HTTP_UPSTREAM_FAIL_TIMEOUT
                  |NGX_HTTP_UPSTREAM_DOWN
                  |NGX_HTTP_UPSTREAM_BACKUP;

    return NGX_CONF_OK;

failed:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"%V\": %s", &cmd->name, err);

    return NGX_CONF_ERROR;
}
