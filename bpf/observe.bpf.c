/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Counts what becomes of each TCP connection to an endpoint, whoever makes it (durpina_endpoint.h),
 * and tells durpinad of those that could not be made. A socket asks for callbacks at its connect(),
 * so sockets that are none of ours cost one look at their address, once.
 */
#include "program.bpf.h"

#include <linux/errno.h>

#include "durpina_endpoint.h"
#include "durpina_vip.h"

#define AF_INET6 10 /* <sys/socket.h> is not for BPF */

#define CALLBACKS                                                                                  \
    (BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTT_CB_FLAG | BPF_SOCK_OPS_RETRANS_CB_FLAG)

/* What is needed of the kernel's own; where it lies is known from the kernel's BTF. */
#define KERNEL_TYPE __attribute__((preserve_access_index))
struct sock {
    int sk_err;
} KERNEL_TYPE;
struct inet_sock {
    struct sock sk;
} KERNEL_TYPE;
struct inet_connection_sock {
    struct inet_sock icsk_inet;
} KERNEL_TYPE;
struct tcp_sock {
    struct inet_connection_sock inet_conn;
} KERNEL_TYPE;

static inline struct durpina_socket *remembered(struct bpf_sock_ops *ctx, uint64_t flags)
{
    struct bpf_sock *sk = ctx->sk;

    return sk ? bpf_sk_storage_get(&sockets, sk, NULL, flags) : NULL;
}

static inline struct durpina_endpoint *endpoint_of(const struct durpina_socket *s)
{
    struct durpina_endpoint *e = bpf_map_lookup_elem(&endpoints, &s->endpoint);

    return e && e->generation == s->generation ? e : NULL;
}

static inline void read_address(struct bpf_sock_ops *ctx, struct durpina_address *ret)
{
    uint16_t port_be = bpf_htons((uint16_t) bpf_ntohl(ctx->remote_port));

    if (ctx->family == AF_INET6)
        durpina_address_inet6(ret, ctx->remote_ip6[0], ctx->remote_ip6[1], ctx->remote_ip6[2],
                              ctx->remote_ip6[3], port_be, IPPROTO_TCP);
    else
        durpina_address_inet(ret, ctx->remote_ip4, port_be, IPPROTO_TCP);
}

static inline struct durpina_course course_of(struct bpf_sock_ops *ctx)
{
    return (struct durpina_course){.rtt_us = ctx->srtt_us >> 3,
                                   .min_rtt_us = ctx->rtt_min,
                                   .segments = ctx->segs_out,
                                   .sent = ctx->bytes_acked,
                                   .received = ctx->bytes_received};
}

static inline void on_connect(struct bpf_sock_ops *ctx)
{
    struct durpina_address address;
    struct durpina_course course;
    struct durpina_endpoint *e;
    struct durpina_socket *s;
    uint32_t *id;

    read_address(ctx, &address);
    id = bpf_map_lookup_elem(&endpoint_ids, &address);
    e = id ? bpf_map_lookup_elem(&endpoints, id) : NULL;
    if (!e)
        return;
    if (IS_FOREIGN(ctx, &address)) {
        COUNT_TOTAL(foreign);
        return;
    }
    s = remembered(ctx, BPF_SK_STORAGE_GET_F_CREATE);
    if (!s) {
        COUNT_TOTAL(unobserved);
        return;
    }
    if (s->exempt) {
        COUNT_TOTAL(exempt);
        return;
    }
    course = course_of(ctx);
    durpina_endpoint_try(e, *id, s, &course, bpf_ktime_get_ns());
    bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | CALLBACKS);
}

/* The connection before this one on the same socket: another program has kept its end from us. */
static inline void forget_former(struct bpf_sock_ops *ctx)
{
    struct durpina_socket *s = remembered(ctx, 0);
    struct durpina_endpoint *e = s && s->step != DURPINA_SOCKET_NEW ? endpoint_of(s) : NULL;

    if (e)
        durpina_endpoint_lost(e, s);
    if (s)
        s->step = DURPINA_SOCKET_NEW;
}

static inline void tell(const struct durpina_socket *s, enum durpina_connect_end how)
{
    struct durpina_event event = {.at_ns = bpf_ktime_get_ns(),
                                  .endpoint = s->endpoint,
                                  .generation = s->generation,
                                  .how = how};

    if (bpf_ringbuf_output(&events, &event, sizeof(event), 0) < 0)
        COUNT_TOTAL(events_dropped);
}

/* What getsockopt(SO_ERROR) would return. */
static inline int error_of(struct bpf_sock_ops *ctx)
{
    struct bpf_sock *sk = ctx->sk;
    const struct tcp_sock *tcp = sk ? bpf_skc_to_tcp_sock(sk) : NULL;

    return tcp ? tcp->inet_conn.icsk_inet.sk.sk_err : 0;
}

static inline enum durpina_connect_error connect_error(int error)
{
    switch (error) {
    case 0:
        return DURPINA_ERROR_NONE;
    case ECONNABORTED: /* by ss --kill */
        return DURPINA_ERROR_LOCAL;
    case ECONNREFUSED:
        return DURPINA_ERROR_REFUSED;
    case ETIMEDOUT:
        return DURPINA_ERROR_TIMED_OUT;
    default:
        return DURPINA_ERROR_OTHER;
    }
}

static inline void on_close(struct bpf_sock_ops *ctx, struct durpina_endpoint *e,
                            struct durpina_socket *s)
{
    const struct durpina_course course = course_of(ctx);
    int error = error_of(ctx);

    durpina_endpoint_sample(e, s, &course, bpf_ktime_get_ns());
    if (s->step == DURPINA_SOCKET_CONNECTING) {
        enum durpina_connect_end how = durpina_endpoint_failed(e, s, connect_error(error));

        if (how)
            tell(s, how);
    } else {
        durpina_endpoint_closed(e, s, error == ECONNRESET || error == EPIPE);
    }
}

static inline void on_state(struct bpf_sock_ops *ctx, struct durpina_endpoint *e,
                            struct durpina_socket *s)
{
    switch (ctx->args[1]) {
    case BPF_TCP_ESTABLISHED:
        durpina_endpoint_established(e, s, bpf_ktime_get_ns());
        durpina_vip_answered(NULL, s);
        break;
    case BPF_TCP_FIN_WAIT1:
    case BPF_TCP_LAST_ACK:
        durpina_endpoint_closing(e, s);
        break;
    case BPF_TCP_CLOSE:
        on_close(ctx, e, s);
        break;
    }
}

static inline void on_rtt(struct bpf_sock_ops *ctx, struct durpina_endpoint *e,
                          struct durpina_socket *s)
{
    uint64_t now_ns = bpf_ktime_get_coarse_ns(); /* for each acknowledgement: a cheap clock */
    struct durpina_course course;

    if ((int64_t) (now_ns - s->sampled_ns) < (int64_t) DURPINA_SAMPLE_NS)
        return;
    course = course_of(ctx);
    durpina_endpoint_sample(e, s, &course, now_ns);
}

SEC("sockops")
int durpina_observe(struct bpf_sock_ops *ctx)
{
    struct durpina_endpoint *e;
    struct durpina_socket *s;
    uint32_t op = ctx->op;

    if (op == BPF_SOCK_OPS_TCP_CONNECT_CB) {
        forget_former(ctx);
        on_connect(ctx);
        return GO_ON;
    }
    if (op != BPF_SOCK_OPS_STATE_CB && op != BPF_SOCK_OPS_RTT_CB && op != BPF_SOCK_OPS_RETRANS_CB)
        return GO_ON;
    s = remembered(ctx, 0);
    e = s && s->step != DURPINA_SOCKET_NEW ? endpoint_of(s) : NULL;
    if (!e)
        return GO_ON;
    if (op == BPF_SOCK_OPS_STATE_CB)
        on_state(ctx, e, s);
    else if (op == BPF_SOCK_OPS_RETRANS_CB)
        durpina_endpoint_retransmitted(e, s, ctx->args[1]);
    else
        on_rtt(ctx, e, s);
    return GO_ON;
}
