/* SPDX-License-Identifier: MIT */
/* Messages of grpc.health.v1.Health/Check, in frames of gRPC over HTTP/2. Pure. */
#ifndef DURPINAD_GRPC_HEALTH_H
#define DURPINAD_GRPC_HEALTH_H

#include <stddef.h>

#define GRPC_PREFIX_SIZE 5 /* of a frame: a flag and the length */
#define GRPC_SERVICE_MAX 255
#define GRPC_REQUEST_MAX (GRPC_PREFIX_SIZE + 3 + GRPC_SERVICE_MAX)

enum grpc_health {
    GRPC_HEALTH_UNKNOWN,
    GRPC_HEALTH_SERVING,
    GRPC_HEALTH_NOT_SERVING,
    GRPC_HEALTH_SERVICE_UNKNOWN,
    GRPC_HEALTHS,
};

/*
 * The request for a service of at most GRPC_SERVICE_MAX bytes; NULL: for the server as a whole.
 * Returns its length.
 */
size_t grpc_health_request(const char *service, unsigned char ret[GRPC_REQUEST_MAX]);

/* What a reply tells, an enum grpc_health, new ones as unknown; -EINVAL: it is no such message. */
int grpc_health_reply(const char *body, size_t length);

const char *grpc_status_name(unsigned status);

#endif
