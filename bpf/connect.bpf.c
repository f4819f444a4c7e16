/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Virtual endpoints: a process that connects to one is sent to a peer of its upstream instead, and
 * is told that it talks to the address that it dialled. All hooks let the call go on whatever
 * happens: a connect() that is none of ours, a miss or an error goes where it would have gone.
 *
 * A UDP socket that is not connected is sent elsewhere datagram by datagram, to the same peer while
 * that one is available (durpina_vip.h). A socket of MPTCP is sent elsewhere like one of TCP, but
 * getpeername() tells it of the peer: the kernel asks another socket then.
 */
#include "program.bpf.h"

#include "durpina_hash.h"
#include "durpina_vip.h"

/* Set by durpinad before it loads the programs. */
const volatile uint32_t exempt_mark = 0; /* SO_MARK of sockets to leave alone; 0: none */

enum call { CALL_CONNECT, CALL_DATAGRAM, CALL_NAME };

DURPINA_INLINE void read_address(struct bpf_sock_addr *ctx, int is_inet6,
                                 struct durpina_address *ret)
{
    uint16_t port_be = (uint16_t) ctx->user_port;
    uint8_t protocol = (uint8_t) ctx->protocol;

    if (is_inet6)
        durpina_address_inet6(ret, ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2],
                              ctx->user_ip6[3], port_be, protocol);
    else
        durpina_address_inet(ret, ctx->user_ip4, port_be, protocol);
}

/* In the place of an address of the same family. */
DURPINA_INLINE void write_address(struct bpf_sock_addr *ctx, int is_inet6,
                                  const struct durpina_address *to)
{
    ctx->user_port = to->port_be;
    if (!is_inet6) {
        ctx->user_ip4 = to->addr_be[0];
    } else if (to->family == DURPINA_FAMILY_INET) {
        ctx->user_ip6[3] = to->addr_be[0]; /* the prefix of mapped addresses is there */
    } else {
        ctx->user_ip6[0] = to->addr_be[0];
        ctx->user_ip6[1] = to->addr_be[1];
        ctx->user_ip6[2] = to->addr_be[2];
        ctx->user_ip6[3] = to->addr_be[3];
    }
}

/* Of the address that the socket is bound to; one that is not bound has all zeros. */
DURPINA_INLINE uint64_t source_hash(const struct bpf_sock *sk, uint8_t family)
{
    if (family == DURPINA_FAMILY_INET)
        return durpina_hash_inet(sk->src_ip4);
    return durpina_hash_inet6(sk->src_ip6[0], sk->src_ip6[1], sk->src_ip6[2], sk->src_ip6[3]);
}

/*
 * durpina_vip_pick() as a global function: the verifier walks through it once for each program, and
 * not for each way that leads there.
 */
int durpina_dialled(struct durpina_vip *vip, const struct durpina_dial *dial,
                    struct durpina_socket *s);

__attribute__((noinline)) int
durpina_dialled(struct durpina_vip *vip, const struct durpina_dial *dial, struct durpina_socket *s)
{
    return vip && dial && s ? durpina_vip_pick(NULL, vip, dial, s) : 0;
}

/* The call is for a virtual endpoint. Returns the socket with what it is to be sent to, or NULL. */
DURPINA_INLINE struct durpina_socket *send_elsewhere(struct bpf_sock_addr *ctx, enum call call,
                                                     struct durpina_vip *vip,
                                                     struct durpina_dial *dial)
{
    struct bpf_sock *sk = ctx->sk;
    struct durpina_socket *s;

    if (IS_FOREIGN(ctx, &dial->address)) {
        COUNT_TOTAL(foreign);
        return NULL;
    }
    if (exempt_mark != 0 && sk->mark == exempt_mark) {
        COUNT_TOTAL(marked);
        return NULL;
    }
    s = bpf_sk_storage_get(&sockets, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
    if (!s) {
        COUNT_TOTAL(unobserved);
        return NULL;
    }
    if (s->exempt) {
        COUNT_TOTAL(exempt);
        return NULL;
    }
    dial->now_ms = bpf_ktime_get_ns() / 1000000;
    if (call == CALL_DATAGRAM && durpina_vip_keeps(NULL, vip, &dial->address, s, dial->now_ms))
        return s;
    if (vip->algorithm == DURPINA_HASH)
        dial->hash = source_hash(sk, dial->address.family);
    /* One that acts in a single namespace has looked already. */
    dial->elsewhere =
        netns_cookie == 0 && own_netns_cookie != 0 && bpf_get_netns_cookie(ctx) != own_netns_cookie;
    return durpina_dialled(vip, dial, s) ? s : NULL;
}

/* connect() and sendto(): where to. */
DURPINA_INLINE int redirect(struct bpf_sock_addr *ctx, int is_inet6, enum call call)
{
    struct durpina_dial dial = {.hash = 0};
    struct durpina_socket *s;
    struct durpina_vip *vip;

    read_address(ctx, is_inet6, &dial.address);
    vip = bpf_map_lookup_elem(&vips, &dial.address);
    /*
     * A connect() ends what was before. A datagram ends it only if it goes to the very peer: what
     * that one answers now may be for either. Of a connected socket it ends nothing: a send() to a
     * v4-mapped address comes by here with the peer's.
     */
    if (call == CALL_CONNECT || (!vip && ctx->sk->state != BPF_TCP_ESTABLISHED)) {
        s = bpf_sk_storage_get(&sockets, ctx->sk, NULL, 0);
        if (s && s->dialled.family != DURPINA_FAMILY_NONE &&
            (call == CALL_CONNECT || durpina_same_address(&s->sent_to, &dial.address)))
            durpina_vip_forget(s);
    }
    s = vip ? send_elsewhere(ctx, call, vip, &dial) : NULL;
    if (s)
        write_address(ctx, is_inet6, &s->sent_to);
    return GO_ON;
}

/* getpeername() and recvfrom(): from where. */
DURPINA_INLINE int disguise(struct bpf_sock_addr *ctx, int is_inet6, enum call call)
{
    struct durpina_socket *s = bpf_sk_storage_get(&sockets, ctx->sk, NULL, 0);
    struct durpina_address from;

    if (!s || s->dialled.family == DURPINA_FAMILY_NONE)
        return GO_ON;
    read_address(ctx, is_inet6, &from);
    if (!durpina_same_address(&from, &s->sent_to))
        return GO_ON;
    if (call == CALL_DATAGRAM)
        durpina_vip_answered(NULL, s);
    write_address(ctx, is_inet6, &s->dialled);
    return GO_ON;
}

SEC("cgroup/connect4")
int durpina_connect4(struct bpf_sock_addr *ctx)
{
    return redirect(ctx, 0, CALL_CONNECT);
}

SEC("cgroup/connect6")
int durpina_connect6(struct bpf_sock_addr *ctx)
{
    return redirect(ctx, 1, CALL_CONNECT);
}

SEC("cgroup/sendmsg4")
int durpina_sendmsg4(struct bpf_sock_addr *ctx)
{
    return redirect(ctx, 0, CALL_DATAGRAM);
}

SEC("cgroup/sendmsg6")
int durpina_sendmsg6(struct bpf_sock_addr *ctx)
{
    return redirect(ctx, 1, CALL_DATAGRAM);
}

SEC("cgroup/getpeername4")
int durpina_getpeername4(struct bpf_sock_addr *ctx)
{
    return disguise(ctx, 0, CALL_NAME);
}

SEC("cgroup/getpeername6")
int durpina_getpeername6(struct bpf_sock_addr *ctx)
{
    return disguise(ctx, 1, CALL_NAME);
}

SEC("cgroup/recvmsg4")
int durpina_recvmsg4(struct bpf_sock_addr *ctx)
{
    return disguise(ctx, 0, CALL_DATAGRAM);
}

SEC("cgroup/recvmsg6")
int durpina_recvmsg6(struct bpf_sock_addr *ctx)
{
    return disguise(ctx, 1, CALL_DATAGRAM);
}
