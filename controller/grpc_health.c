/* SPDX-License-Identifier: MIT */
#include "grpc_health.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Protocol Buffers: the low bits of a tag. */
enum wire_type { VARINT, FIXED64, BYTES, FIXED32 = 5 };

size_t grpc_health_request(const char *service, unsigned char ret[GRPC_REQUEST_MAX])
{
    size_t length = service != NULL ? strlen(service) : 0;
    unsigned char *p = ret + GRPC_PREFIX_SIZE;

    if (length > 0) {
        *p++ = 1 << 3 | BYTES;
        if (length >= 0x80)
            *p++ = (unsigned char) (0x80 | (length & 0x7f));
        *p++ = (unsigned char) (length < 0x80 ? length : length >> 7);
        memcpy(p, service, length);
        p += length;
    }
    length = (size_t) (p - ret) - GRPC_PREFIX_SIZE;
    memset(ret, 0, GRPC_PREFIX_SIZE);
    ret[3] = (unsigned char) (length >> 8);
    ret[4] = (unsigned char) length;
    return GRPC_PREFIX_SIZE + length;
}

const char *grpc_status_name(unsigned status)
{
    static const char *const names[] = {
        "ok",
        "cancelled",
        "unknown",
        "invalid argument",
        "deadline exceeded",
        "not found",
        "already exists",
        "permission denied",
        "resource exhausted",
        "failed precondition",
        "aborted",
        "out of range",
        "unimplemented",
        "internal",
        "unavailable",
        "data loss",
        "unauthenticated",
    };

    return status < sizeof(names) / sizeof(names[0]) ? names[status] : "no status of gRPC";
}

/* False: it does not end before `end`, or has more than 64 bits. */
static bool varint_read(const unsigned char **p, const unsigned char *end, uint64_t *ret)
{
    uint64_t value = 0;

    for (unsigned shift = 0; *p < end && shift < 64; shift += 7) {
        unsigned char byte = *(*p)++;

        value |= (uint64_t) (byte & 0x7f) << shift;
        if (byte < 0x80) {
            *ret = value;
            return true;
        }
    }
    return false;
}

/* One field: its value if it is a varint; others are stepped over. */
static bool field_read(const unsigned char **p, const unsigned char *end, uint64_t *ret_number,
                       uint64_t *ret_value)
{
    uint64_t tag, length;

    if (!varint_read(p, end, &tag))
        return false;
    switch (tag & 7) {
    case VARINT:
        *ret_number = tag >> 3;
        return varint_read(p, end, ret_value);
    case FIXED64:
        length = 8;
        break;
    case BYTES:
        if (!varint_read(p, end, &length))
            return false;
        break;
    case FIXED32:
        length = 4;
        break;
    default:
        return false;
    }
    if (length > (uint64_t) (end - *p))
        return false;
    *p += length;
    *ret_number = 0;
    return true;
}

int grpc_health_reply(const char *body, size_t length)
{
    const unsigned char *p = (const unsigned char *) body, *end = p + length;
    int health = GRPC_HEALTH_UNKNOWN;
    uint64_t number, value;

    /* Not compressed, which nobody asked for; the whole and nothing else. */
    if (length < GRPC_PREFIX_SIZE || p[0] != 0 ||
        ((uint32_t) p[1] << 24 | (uint32_t) p[2] << 16 | (uint32_t) p[3] << 8 | p[4]) !=
            length - GRPC_PREFIX_SIZE)
        return -EINVAL;
    for (p += GRPC_PREFIX_SIZE; p < end;) {
        if (!field_read(&p, end, &number, &value))
            return -EINVAL;
        if (number == 1)
            health = value < GRPC_HEALTHS ? (int) value : GRPC_HEALTH_UNKNOWN;
    }
    return health;
}
