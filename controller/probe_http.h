/* SPDX-License-Identifier: MIT */
/*
 * The HTTP client of the checks: one request on a fresh connection, with the options of struct
 * check_http, by libcurl. A kind of check on top of it gives a struct http_kind and judges the
 * answer.
 *
 *  1. Nothing is looked up: the connection goes to the target's address, whatever the name in the
 *     URL, SNI and Host. No proxy, no redirect, no cookie, no reuse of connections or TLS sessions.
 *  2. A request is judged once its answer is complete, or when what is read of it suffices; else it
 *     ends as target->no_answer, which the kind may set before it starts.
 *  3. No more than HTTP_HEADERS_MAX of headers and body_max of body is taken, and a connection of
 *     which more than HTTP_READ_MAX has been read is ended (read_guard.h).
 */
#ifndef DURPINAD_PROBE_HTTP_H
#define DURPINAD_PROBE_HTTP_H

#include <curl/curl.h>

#include "probe_ops.h"
#include "trust.h"

#define HTTP_BODY_MAX (256 * 1024)
#define HTTP_HEADERS_MAX (16 * 1024)  /* all of them, those of 1xx answers and trailers too */
#define HTTP_READ_MAX (1024 * 1024)   /* bytes of the connection: TLS, frames and chunks too */
#define HTTP_GRPC_STATUS_NONE 1000000 /* more than any that is said */

struct http_answer {
    long status;
    const char *body; /* its first bytes, if the kind keeps them */
    size_t n_body;
    unsigned grpc_status; /* of the headers or trailers, or HTTP_GRPC_STATUS_NONE */
};

struct http_kind {
    size_t body_max; /* bytes */
    bool keeps_body;
    /*
     * What a body longer than body_max means. True: its first bytes suffice. False: they suffice if
     * the header says how long it is; if not, it is taken for endless, and there is no answer.
     */
    bool takes_start;
    /* The last thing a check does: calls probe_done() or probe_done_agent(). */
    void (*judge)(struct probe_target *target, const struct http_answer *answer);
};

/* The ops' start, in which target->no_answer may be set before, and cancel. */
void http_check_start(struct probe_target *target, const struct http_kind *kind);
void http_check_cancel(struct probe_target *target);

/* The rest is between the files of the client. */

/* What libcurl borrows as long as a request runs. */
struct http_request {
    CURL *easy;
    struct curl_slist *headers;
    struct curl_slist *connect_to;
    X509_STORE *authorities;     /* of tls_ca, or NULL */
    char error[CURL_ERROR_SIZE]; /* libcurl's words */
};

/*
 * Everything but the callbacks. 0; -ENOMEM; -EINVAL with ret->error if a file of ours is not as it
 * should be. To be given to http_request_free() then too.
 */
int http_request_make(const struct probe_target *target, struct trust *trust,
                      struct http_request *ret);
void http_request_free(struct http_request *request);

/* Ends the check with the words for a request that failed with `code`, not for lack of memory. */
void http_done_failed(struct probe_target *target, CURLcode code, long os_errno, long verify_result,
                      const char *error);

#endif
