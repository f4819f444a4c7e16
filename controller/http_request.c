/* SPDX-License-Identifier: MIT */
/* Requests and their answers. */
#include "http_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* One request, from its first line to the end of its answer. */
struct exchange {
    char *target;
    char *body;
    size_t body_len;
    size_t body_size;
    size_t body_max;
    bool started; /* its headers have been seen */
    bool wanted;
    bool too_large;
};

void *http_on_request_line(void *cls, const char *uri, struct MHD_Connection *mhd)
{
    struct http_server *server = cls;
    struct exchange *exchange = calloc(1, sizeof(*exchange));

    http_set_deadline(http_connection(mhd), server->limits.request_timeout_ms);
    if (exchange == NULL)
        return NULL;
    exchange->target = strdup(uri);
    if (exchange->target == NULL) {
        free(exchange);
        return NULL;
    }
    server->stats.busy++;
    return exchange;
}

void http_on_completed(void *cls, struct MHD_Connection *mhd, void **con_cls,
                       enum MHD_RequestTerminationCode code)
{
    struct http_server *server = cls;
    struct exchange *exchange = *con_cls;

    if (code == MHD_REQUEST_TERMINATED_COMPLETED_OK)
        http_set_deadline(http_connection(mhd), HTTP_KEEPALIVE_MS);
    if (exchange == NULL)
        return;
    server->stats.busy--;
    free(exchange->target);
    free(exchange->body);
    free(exchange);
    *con_cls = NULL;
}

/* An answer that is being made. */
struct streaming {
    struct http_stream stream;
    struct http_server *server;
    struct MHD_Connection *mhd;
};

static ssize_t on_more(void *cls, uint64_t at, char *buffer, size_t size)
{
    struct streaming *streaming = cls;
    size_t n = streaming->stream.read(streaming->stream.user, buffer, size);

    (void) at;
    http_set_deadline(http_connection(streaming->mhd),
                      streaming->server->limits.request_timeout_ms);
    return n > 0 ? (ssize_t) n : MHD_CONTENT_READER_END_OF_STREAM;
}

static void on_streamed(void *cls)
{
    struct streaming *streaming = cls;

    streaming->stream.close(streaming->stream.user);
    free(streaming);
}

/* NULL: out of memory, and the stream is closed. */
static struct MHD_Response *start_stream(struct http_server *server, struct MHD_Connection *mhd,
                                         const struct http_stream *stream)
{
    struct streaming *streaming = malloc(sizeof(*streaming));
    struct MHD_Response *out;

    if (streaming == NULL) {
        stream->close(stream->user);
        return NULL;
    }
    *streaming = (struct streaming){*stream, server, mhd};
    out = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, HTTP_STREAM_SIZE, on_more, streaming,
                                            on_streamed);
    if (out == NULL)
        on_streamed(streaming);
    return out;
}

static enum MHD_Result answer(struct http_server *server, struct MHD_Connection *mhd,
                              const struct http_request *request)
{
    struct http_response response = {.status = MHD_HTTP_INTERNAL_SERVER_ERROR};
    struct MHD_Response *out;
    enum MHD_Result result = MHD_NO;

    server->handler.handle(server->handler.user, request, &response);
    if (response.stream.read != NULL)
        out = start_stream(server, mhd, &response.stream);
    else
        out = MHD_create_response_from_buffer(response.body_len, response.body,
                                              MHD_RESPMEM_MUST_FREE);
    if (out == NULL) {
        free(response.body);
    } else {
        MHD_add_response_header(out, MHD_HTTP_HEADER_CONTENT_TYPE,
                                response.stream.read != NULL ? response.stream.content_type
                                                             : "application/json");
        MHD_add_response_header(out, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
        if (response.allow != NULL)
            MHD_add_response_header(out, MHD_HTTP_HEADER_ALLOW, response.allow);
        if (response.location != NULL)
            MHD_add_response_header(out, MHD_HTTP_HEADER_LOCATION, response.location);
        result = MHD_queue_response(mhd, response.status, out);
        MHD_destroy_response(out);
    }
    free(response.allow);
    free(response.location);
    http_set_deadline(http_connection(mhd), server->limits.request_timeout_ms);
    return result;
}

/* Grows by doubling, up to the limit; beyond it the body is dropped and the rest not stored. */
static int append(struct exchange *exchange, const char *data, size_t len)
{
    if (len > exchange->body_max - exchange->body_len) {
        free(exchange->body);
        exchange->body = NULL;
        exchange->body_len = exchange->body_size = 0;
        exchange->too_large = true;
        return 0;
    }
    if (len > exchange->body_size - exchange->body_len) {
        size_t size = exchange->body_size == 0 ? 4096 : exchange->body_size * 2;

        while (size < exchange->body_len + len)
            size *= 2;

        char *body = realloc(exchange->body, size);

        if (body == NULL)
            return -ENOMEM;
        exchange->body = body;
        exchange->body_size = size;
    }
    memcpy(exchange->body + exchange->body_len, data, len);
    exchange->body_len += len;
    return 0;
}

enum MHD_Result http_on_request(void *cls, struct MHD_Connection *mhd, const char *url,
                                const char *method, const char *version, const char *data,
                                size_t *len, void **con_cls)
{
    struct http_server *server = cls;
    struct exchange *exchange = *con_cls;
    struct http_request request;
    const char *length;

    (void) url; /* decoded already: "a%2Fb" cannot be told from "a/b" */
    (void) version;
    if (exchange == NULL)
        return MHD_NO;

    request = (struct http_request){
        .client = &http_connection(mhd)->client,
        .method = method,
        .target = exchange->target,
        .token = MHD_lookup_connection_value(mhd, MHD_HEADER_KIND, "Durpina-Token"),
    };
    if (!exchange->started) {
        exchange->started = true;
        exchange->body_max = server->limits.max_body;
        exchange->wanted = server->handler.wants_body(server->handler.user, &request);
        length = MHD_lookup_connection_value(mhd, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
        if (length != NULL && strtoull(length, NULL, 10) > exchange->body_max) {
            request.body_too_large = true;
            return answer(server, mhd, &request);
        }
        return MHD_YES;
    }
    if (*len != 0) {
        if (exchange->wanted && !exchange->too_large && append(exchange, data, *len) < 0)
            return MHD_NO;
        *len = 0;
        return MHD_YES;
    }
    request.body = exchange->body;
    request.body_len = exchange->body_len;
    request.body_too_large = exchange->too_large;
    return answer(server, mhd, &request);
}
