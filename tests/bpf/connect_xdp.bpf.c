/* SPDX-License-Identifier: MIT */
/*
 * The inner functions of connect.bpf.c in a program that the kernel can run for a test: it cannot
 * run those of cgroups. The address and the socket that they work on come from the map `calls`, and
 * the helpers that only cgroup programs have are stood in for.
 */
#include "program.bpf.h"

#include "connect_xdp.h"

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __type(key, uint32_t);
    __type(value, struct test_call);
} calls SEC(".maps");

static inline __attribute__((always_inline)) struct test_call *this_call(void)
{
    uint32_t zero = 0;

    return bpf_map_lookup_elem(&calls, &zero);
}

static inline __attribute__((always_inline)) void *test_storage(uint64_t flags)
{
    struct test_call *call = this_call();

    if (!call || call->no_memory || (!call->has_socket && flags == 0))
        return NULL;
    call->has_socket = 1;
    return &call->socket;
}

static inline __attribute__((always_inline)) uint64_t test_cookie(void)
{
    const struct test_call *call = this_call();

    return call ? call->netns_cookie : 0;
}

#define bpf_sk_storage_get(map, sk, value, flags) test_storage(flags)
#define bpf_get_netns_cookie(ctx) test_cookie()
#include "connect.bpf.c"

/* One program for each, as there: the address takes of the 512 bytes of stack that there are. */
#define TEST_PROGRAM(name, inner, is_inet6, what)                                                  \
    SEC("xdp")                                                                                     \
    int name(struct xdp_md *xdp)                                                                   \
    {                                                                                              \
        struct test_call *call = this_call();                                                      \
        struct bpf_sock_addr ctx = {0};                                                            \
                                                                                                   \
        (void) xdp;                                                                                \
        if (!call)                                                                                 \
            return XDP_ABORTED;                                                                    \
        ctx.sk = &call->sk;                                                                        \
        ctx.protocol = call->protocol;                                                             \
        ctx.user_port = call->port_be;                                                             \
        if (is_inet6)                                                                              \
            __builtin_memcpy(ctx.user_ip6, call->addr_be, sizeof(call->addr_be));                  \
        else                                                                                       \
            ctx.user_ip4 = call->addr_be[0];                                                       \
        call->returned = (uint32_t) inner(&ctx, is_inet6, what);                                   \
        call->port_be = (uint16_t) ctx.user_port;                                                  \
        if (is_inet6)                                                                              \
            __builtin_memcpy(call->addr_be, ctx.user_ip6, sizeof(call->addr_be));                  \
        else                                                                                       \
            call->addr_be[0] = ctx.user_ip4;                                                       \
        return XDP_PASS;                                                                           \
    }

TEST_PROGRAM(test_connect4, redirect, 0, CALL_CONNECT)
TEST_PROGRAM(test_connect6, redirect, 1, CALL_CONNECT)
TEST_PROGRAM(test_sendmsg4, redirect, 0, CALL_DATAGRAM)
TEST_PROGRAM(test_name4, disguise, 0, CALL_NAME)
TEST_PROGRAM(test_name6, disguise, 1, CALL_NAME)
