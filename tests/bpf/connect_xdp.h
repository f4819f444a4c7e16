/* SPDX-License-Identifier: MIT */
/* What a test and connect_xdp.bpf.c tell each other. */
#ifndef DURPINA_TEST_CONNECT_XDP_H
#define DURPINA_TEST_CONNECT_XDP_H

#include <linux/bpf.h>

#include "durpina_abi.h"

struct test_call {
    /* The call: */
    uint32_t protocol;
    uint32_t no_memory; /* for what the programs remember of a socket */
    uint64_t netns_cookie;
    struct bpf_sock sk;
    /* and what is changed by it: */
    uint32_t addr_be[4]; /* IPv4 in the first word */
    uint16_t port_be;
    uint16_t has_socket; /* the programs remember something */
    uint32_t returned;
    struct durpina_socket socket;
};

#endif
