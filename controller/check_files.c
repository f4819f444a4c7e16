/* SPDX-License-Identifier: MIT */
#include "check_files.h"

#include <errno.h>
#include <stdlib.h>

#include "pem_file.h"

static int file_check(const char *option, const char *path, struct failure *failure)
{
    const char *fault;
    char *text = NULL;
    size_t size;

    if (path == NULL)
        return 0;
    fault = pem_file_read(path, &text, &size);
    free(text);
    if (fault == NULL)
        return 0;
    return fail(failure, EINVAL, 400, "MonitorBadOptions", "option \"%s\": %.160s: %s", option,
                path, fault);
}

int check_files(const struct check *check, struct failure *failure)
{
    const struct check_tls *tls = &check->http.tls;
    int err;

    if (check->type != CHECK_HTTP && check->type != CHECK_GRPC && check->type != CHECK_HTTP_AGENT)
        return 0;
    err = file_check("tls_ca", tls->ca, failure);
    if (err == 0)
        err = file_check("tls_cert", tls->cert, failure);
    return err == 0 ? file_check("tls_key", tls->key, failure) : err;
}
