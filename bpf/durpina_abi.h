/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The shared memory of Durpina: every struct, enum and limit that durpinad, the nginx module, the
 * programs in the kernel and the tests exchange through BPF maps. There is no second definition.
 *
 *     map         element                  written by                   mapped by nginx
 *     meta        struct durpina_meta      durpinad                     PROT_READ
 *     upstreams   struct durpina_upstream  durpinad                     PROT_READ
 *     peers       struct durpina_peer      durpinad                     PROT_READ
 *     slots       struct durpina_slots     durpinad                     PROT_READ
 *     counters    struct durpina_counters  nginx workers, durpinad and  PROT_READ | PROT_WRITE
 *                                          connect.bpf.c, by atomics
 *     cursors     struct durpina_cursor    nginx workers and            PROT_READ | PROT_WRITE
 *                                          connect.bpf.c, by atomics
 *     inflight    struct durpina_inflight  the worker that owns it      PROT_READ | PROT_WRITE
 *     endpoints   struct durpina_endpoint  observe.bpf.c, by atomics;   PROT_READ
 *                                          addresses: durpinad
 *
 * and these, which nginx does not open:
 *
 *     endpoint_ids   struct durpina_address -> uint32_t              durpinad
 *     vips           struct durpina_address -> struct durpina_vip    durpinad; connect.bpf.c counts
 *     sockets        a socket -> struct durpina_socket               the programs; marks: durpinad
 *     events         ring of struct durpina_event                    observe.bpf.c
 *     kernel         struct durpina_kernel                           the programs, by atomics
 *
 * What a worker wrote last before it was killed is put right by durpinad: it gives back the tries
 * in the pages of workers that are gone.
 *
 * Rules
 *  1. Fixed width integers, no bitfields, no pointers, no implicit padding (asserted below).
 *  2. Everything a reader must see as one state lies in two copies, chosen by the low bit of
 *     durpina_upstream.publish: the view of an upstream and the settings of its peers.
 *     durpina_seq.h is the protocol. At rest both copies are equal, so a dump reads the same twice.
 *  3. Identity (names, address, ids) is written before the first publication that refers to it and
 *     never again under the same generation.
 *  4. Names end in NUL inside their array. Fields in network byte order end in _be, times in _ms
 *     or _ns.
 *  5. Every index, length and enum read from a map is bounded before use: root may write anything.
 *  6. Elements of peers and counters are whole cache lines. The first line of either is all that a
 *     pick touches.
 */
#ifndef DURPINA_ABI_H
#define DURPINA_ABI_H

#include <stddef.h>
#include <stdint.h>

#define DURPINA_MAGIC 0x00616e6970727564ULL /* "durpina" as bytes, little endian */
#define DURPINA_ABI_MAJOR 4                 /* differs: refuse */
#define DURPINA_ABI_MINOR 0                 /* differs: adopt */

#define DURPINA_NAME_SIZE 128   /* upstream and peer names, with the NUL */
#define DURPINA_ADDRESS_SIZE 48 /* "[IPv6]:port" or "unix:", with the NUL */

#define DURPINA_CACHE_LINE 64 /* of the CPUs this is laid out for; others are slower, not wrong */

#define DURPINA_WEIGHT_MAX 65535
#define DURPINA_TRIES_MAX 32 /* tries of one request, hence peers it can remember as tried */

/* Ids are indexes; this one means "none". */
#define DURPINA_NONE UINT32_MAX

/* Default capacities (durpinad.conf: upstreams, peers, slots, inflight) ... */
#define DURPINA_UPSTREAMS_DEFAULT 1024
#define DURPINA_PEERS_DEFAULT 65536
#define DURPINA_SLOTS_DEFAULT (4 * 1024 * 1024)
#define DURPINA_INFLIGHT_DEFAULT 1024 /* pages */
/* ... and those that are fixed. There are as many endpoints as peers. */
#define DURPINA_VIPS_MAX 1024
#define DURPINA_EVENTS_BYTES (256 * 1024) /* a power of two, and of whole pages */

enum durpina_family {
    DURPINA_FAMILY_NONE = 0, /* the name has no address yet */
    DURPINA_FAMILY_INET = 1,
    DURPINA_FAMILY_INET6 = 2,
    DURPINA_FAMILY_UNIX = 3, /* the path is the name behind "unix:" */
} __attribute__((packed));

/* Primaries take all traffic; backups only when no primary can be picked. */
enum durpina_tier_id {
    DURPINA_TIER_PRIMARY = 0,
    DURPINA_TIER_BACKUP = 1,
} __attribute__((packed));
#define DURPINA_TIERS 2

/*
 * The published state of a peer, what picks go by: derived by durpinad from the operator's word
 * (admin), the monitors' verdict (health) and resolution. A passive failure is not here: workers
 * keep it in durpina_counters.down_until_ms. Only DURPINA_PEER_UP takes new requests.
 */
enum durpina_peer_state {
    DURPINA_PEER_FREE = 0, /* the record is not in use */
    DURPINA_PEER_UP = 1,
    DURPINA_PEER_DOWN = 2,       /* by the operator or the `server` line */
    DURPINA_PEER_UNHEALTHY = 3,  /* a monitor's verdict */
    DURPINA_PEER_DRAINING = 4,   /* by the operator, or weight 0 */
    DURPINA_PEER_CHECKING = 5,   /* no traffic before the first passed check */
    DURPINA_PEER_UNRESOLVED = 6, /* no address */
} __attribute__((packed));

/* The operator's word; no check ever changes it. */
enum durpina_admin {
    DURPINA_ADMIN_UP = 0,
    DURPINA_ADMIN_DOWN = 1,
    DURPINA_ADMIN_DRAIN = 2,
    DURPINA_ADMIN_MAINT = 3, /* down, and not checked */
} __attribute__((packed));

/* Which of weight, max_conns and tier are not the operator's but come from what agents and SRV
 * records say besides: bits. */
enum durpina_derived {
    DURPINA_DERIVED_NONE = 0,
    DURPINA_DERIVED_WEIGHT = 1,
    DURPINA_DERIVED_MAX_CONNS = 2,
    DURPINA_DERIVED_TIER = 4,
} __attribute__((packed));

/* The monitors' verdict. */
enum durpina_health {
    DURPINA_HEALTH_UNKNOWN = 0, /* no monitor, or no verdict yet */
    DURPINA_HEALTH_PASSED = 1,
    DURPINA_HEALTH_FAILED = 2,
} __attribute__((packed));

enum durpina_algorithm {
    DURPINA_ROUND_ROBIN = 0,
    DURPINA_UNWEIGHTED_ROUND_ROBIN = 1,
    DURPINA_HASH = 2, /* Maglev: ip-hash and consistent-hash, which differ in the key only */
    DURPINA_RING = 3, /* ketama, as nginx's `hash KEY consistent` */
    DURPINA_LEAST_CONN = 4,
    DURPINA_RANDOM_TWO = 5, /* least connections of two */
    DURPINA_PEAK_EWMA = 6,
    DURPINA_LEAST_TIME_HEADER = 7,
    DURPINA_LEAST_TIME_LAST_BYTE = 8,
    DURPINA_LEAST_CONN_KERNEL = 9,  /* by the connections that the kernel counts */
    DURPINA_LEAST_TIME_KERNEL = 10, /* by these and its round trip times */
};
#define DURPINA_ALGORITHMS 11

/* What picks have asked for, whether it was there or not (durpina_cursor.asked). */
enum durpina_asked {
    DURPINA_ASKED_NONE = 0,
    DURPINA_ASKED_HASH = 1,
    DURPINA_ASKED_RING = 2,
    DURPINA_ASKED_NO_TABLE = 4, /* a pick by another algorithm */
    DURPINA_ASKED_BOUND = 8,    /* a pick with a bound, which goes by `active` of the upstream */
};

struct durpina_meta {
    uint64_t magic;
    uint32_t abi_major;
    uint32_t abi_minor;
    uint64_t layout_hash; /* DURPINA_LAYOUT_HASH */
    uint64_t epoch;       /* grows whenever an upstream is added or removed */
    uint32_t upstreams;   /* capacities */
    uint32_t peers;
    uint32_t slots;
    uint32_t controller_pid; /* 0 after an orderly stop */
    uint32_t observing;      /* 1: observe.bpf.c is attached, endpoints are counted */
    uint32_t reserved;
    char version[32];
};

/*
 * An element of the slots map. The kernel rounds elements up to 8 bytes, so a slot is not an
 * element of its own; mapped, the rows are one array of slots.
 */
#define DURPINA_SLOTS_PER_ROW 64

struct durpina_slots {
    uint32_t peers[DURPINA_SLOTS_PER_ROW]; /* ids */
};

/* A run of slots, counted in slots over all rows. */
struct durpina_table {
    uint32_t offset;
    uint32_t length;
};

/*
 * Schedule and members are always there and name no other peers than their state says. Hash and
 * ring are laid out when somebody may ask for them, else empty, and may lag behind the peers: they
 * may name peers that are not the upstream's any more.
 */
struct durpina_tier {
    struct durpina_table schedule; /* smooth weighted schedule of the peers that are up */
    struct durpina_table members;  /* each peer that is up and has a weight, once */
    struct durpina_table hash;     /* Maglev table of all peers with a weight, also those down */
    struct durpina_table ring;     /* of the same peers, see below */
    uint64_t weight;               /* sum of the weights of the members */
};

/*
 * A ring in its run of slots, points in ascending order of their hashes:
 *
 *     bits          of the index, 1..DURPINA_RING_BITS_MAX
 *     n             points
 *     2^bits ids    index: the first point whose hash is not below (i << (32 - bits)), or n
 *     n hashes      of the points, no two the same
 *     n ids         of their peers
 */
#define DURPINA_RING_HEADER 2
#define DURPINA_RING_BITS_MAX 24

struct durpina_view {
    struct durpina_table peers; /* every peer of the upstream, in the order of `server` lines */
    struct durpina_tier tier[DURPINA_TIERS];
};

struct durpina_upstream {
    char name[DURPINA_NAME_SIZE];
    /* The publish word: 0 while the record is free, else the revision of the upstream; its low bit
     * chooses the copy that is in force, here and in the peers' settings. */
    uint64_t publish;
    uint32_t generation;
    uint32_t reserved;
    struct durpina_view view[2];
};

struct durpina_peer_settings {
    enum durpina_peer_state state;
    enum durpina_admin admin;
    enum durpina_health health;
    enum durpina_derived derived;
    uint16_t weight;
    uint16_t initial_weight;
    uint32_t max_fails; /* 0: passive failures are not counted */
    uint32_t fail_timeout_ms;
    uint32_t max_conns; /* 0: no limit */
    uint32_t slow_start_ms;
};

/*
 * One address to connect to. A `server` name with k addresses is one server id with k peers, which
 * share settings but for state and health.
 */
struct durpina_peer {
    uint32_t generation; /* changes whenever the record gets another owner */
    uint32_t upstream;   /* its upstream's id */
    uint32_t endpoint;   /* its address in endpoints, or DURPINA_NONE */
    uint16_t port_be;
    enum durpina_family family;
    enum durpina_tier_id tier;
    struct durpina_peer_settings settings[2];
    /* The second line: what connecting needs. */
    uint32_t addr_be[4];                /* IPv4 in the first word */
    char address[DURPINA_ADDRESS_SIZE]; /* as text: "127.0.0.1:80", "[::1]:80", "unix:", "?" */
    char name[DURPINA_NAME_SIZE];       /* as in the file or the call, with its port */
    uint32_t server; /* id of the server in the API, shared by the addresses of one name */
    /* An odd number of lines: with four, the first ones would share a quarter of a cache's sets. */
    char reserved[DURPINA_CACHE_LINE - sizeof(uint32_t)];
};

/*
 * Exponentially weighted moving average of a latency; an error counts as a long one. One 8-byte
 * word, so that a sample is added by one compare and exchange.
 */
struct durpina_ewma {
    uint32_t mean;    /* in 1/16 microsecond */
    uint16_t samples; /* how many the mean stands for, in 1/256 */
    uint16_t at;      /* of the last sample, in 256 ms, modulo 2^16 */
};

/*
 * What workers count, with what durpinad adds of failures that the kernel saw, and what picks of
 * connect.bpf.c change. All fields are changed by atomics only and belong to `generation`: who
 * finds another one there changes nothing. Times are CLOCK_MONOTONIC, the same in every process.
 *
 * A try that has ended is in one of `responses` or in `unanswered`: durpina_requests() is their
 * sum. With `active` that is all there were; for the instant between the two, a try is in neither.
 */
struct durpina_counters {
    uint32_t generation;
    uint32_t active;        /* tries in flight over all workers; one word with generation */
    uint64_t down_until_ms; /* temporary down: 0, or when one probing request may go through */
    uint64_t selected_ms;   /* last pick */
    uint16_t fails;         /* failures without a pause of fail_timeout in between, */
    int16_t ahead;          /* how many more the kernel has told of than workers, */
    uint32_t fails_at_ms;   /* and the time of the last one, modulo 2^32; all three are one word */
    struct durpina_ewma header;    /* time to the response header */
    struct durpina_ewma last_byte; /* time to the end of the response */
    struct durpina_ewma connect;   /* time to connect, of new connections */
    uint32_t failed;               /* tries failed, modulo 2^32 */
    uint32_t unavail;              /* times it became temporarily down, modulo 2^32 */
    /* The second line: what only the end of a try touches. */
    uint64_t responses[5]; /* by status class, 1xx to 5xx */
    uint64_t unanswered;   /* tries that ended without a response */
    uint64_t sent;         /* bytes to the peer */
    uint64_t received;     /* bytes from the peer */
};

/*
 * An address that peers have, in whatever number of upstreams, and what becomes of TCP connections
 * to it, of any process. Kept while a peer has the address or a connection to it is open.
 *
 *     tried = connecting + established + refused + timed_out + unreachable + abandoned
 */
struct durpina_endpoint {
    uint32_t generation; /* changes whenever the record gets another address */
    uint32_t peers;      /* that have it */
    char address[DURPINA_ADDRESS_SIZE];
    uint64_t reserved;
    /* The second line: connections. */
    uint32_t open;        /* now: established, and the socket not closed on this side; */
    uint32_t connecting;  /* now: sent a SYN; one word with open */
    uint64_t tried;       /* connect() */
    uint64_t established; /* those of them that succeeded */
    uint64_t refused;     /* by a RST, or by ICMP */
    uint64_t timed_out;   /* a SYN had to be sent again, and none was answered */
    uint64_t unreachable; /* any other error */
    uint64_t abandoned;   /* closed by the process before anything was known */
    uint64_t resets;      /* of established ones, by the other side */
    /* The third line: their course. */
    uint64_t retransmits;          /* segments sent again, SYNs included */
    uint64_t segments;             /* sent */
    uint64_t sent;                 /* bytes that the other side has acknowledged */
    uint64_t received;             /* bytes */
    struct durpina_ewma handshake; /* time to connect */
    struct durpina_ewma rtt;       /* smoothed round trip times */
    uint32_t min_rtt;              /* the least one, in 1/16 microsecond; 0: none */
    uint32_t reserved2[3];
};

/* What endpoint_ids and vips go by. IPv4-mapped IPv6 addresses are IPv4 ones here. */
struct durpina_address {
    uint32_t addr_be[4]; /* IPv4 in the first word, the others 0 */
    uint16_t port_be;
    enum durpina_family family;
    uint8_t protocol; /* IPPROTO_TCP, IPPROTO_UDP */
    uint32_t reserved;
};

/* A virtual endpoint: who connects to it is sent to a peer of the upstream. */
struct durpina_vip {
    uint32_t upstream;
    uint32_t generation; /* of it */
    enum durpina_algorithm algorithm;
    uint32_t reserved;
    uint64_t selected; /* connects that were sent to a peer */
    uint64_t missed;   /* that were left as they were: no peer, or none of this family */
};

enum durpina_socket_step {
    DURPINA_SOCKET_NEW = 0, /* counts for no endpoint */
    DURPINA_SOCKET_CONNECTING = 1,
    DURPINA_SOCKET_OPEN = 2,
    DURPINA_SOCKET_CLOSING = 3, /* on this side */
} __attribute__((packed));

/* What the programs remember of a socket, for as long as it lives. */
struct durpina_socket {
    uint32_t endpoint; /* that it counts for */
    uint32_t generation;
    uint64_t began_ns;   /* the connect() */
    uint64_t sampled_ns; /* then these were counted: */
    uint64_t sent;
    uint64_t received;
    uint32_t segments;
    enum durpina_socket_step step;
    uint8_t exempt;                 /* durpinad's own: neither counted nor sent elsewhere */
    uint8_t retransmitted;          /* the SYN, at least once */
    uint8_t probing;                /* the one try of a peer that is temporarily down */
    struct durpina_address dialled; /* the virtual endpoint; family NONE: none */
    struct durpina_address sent_to; /* instead of it */
    uint32_t peer;                  /* that is there, */
    uint32_t peer_generation;       /* as it was picked */
};

/* How a connect() ended. */
enum durpina_connect_end {
    DURPINA_CONNECT_REFUSED = 1,
    DURPINA_CONNECT_TIMED_OUT = 2,
    DURPINA_CONNECT_UNREACHABLE = 3,
};

/* A connect() that failed. */
struct durpina_event {
    uint64_t at_ns; /* CLOCK_MONOTONIC */
    uint32_t endpoint;
    uint32_t generation;
    enum durpina_connect_end how;
    uint32_t reserved;
};

/* What the programs count that belongs to no endpoint. */
struct durpina_kernel {
    uint64_t events_dropped; /* the ring was full; the counts of the endpoint are right */
    uint64_t foreign;        /* calls to an address of ours in another network namespace */
    uint64_t unobserved;     /* calls to one that were let be for want of memory */
    uint64_t exempt;         /* of durpinad's own checks */
    uint64_t marked;         /* calls to a virtual endpoint by who bears the mark */
};

/* One cache line an upstream: what picks share. */
struct durpina_cursor {
    uint64_t round_robin[DURPINA_TIERS];
    uint64_t unweighted[DURPINA_TIERS];
    uint32_t active;          /* tries in flight that began after somebody asked for a bound */
    uint32_t untracked;       /* tries in flight that no page of inflight had room for */
    enum durpina_asked asked; /* bits, set by picks and never cleared */
    uint32_t reserved[5];
};

/*
 * How far the taking or giving back of a peer has come; in between, it may or may not be counted.
 */
enum durpina_try_step {
    DURPINA_TRY_FREE = 0,
    DURPINA_TRY_TAKING = 1,
    DURPINA_TRY_TAKEN =
        2, /* counted in `active` of the peer, and of its upstream if that one counts */
    DURPINA_TRY_GIVING = 3,
} __attribute__((packed));

/* One try in flight. One 8-byte word; written by the worker whose page it is in. */
struct durpina_try {
    uint32_t peer; /* kept when FREE */
    enum durpina_try_step step;
    uint8_t in_upstream; /* counted there as well */
    uint16_t turn;       /* grows with each try, so that two looks tell one try from the next */
};

/* A process, by what tells it from a later one with the same pid: its start, in clock ticks since
 * boot (field 22 of /proc/PID/stat) modulo 2^32. One 8-byte word; pid 0: none. */
struct durpina_worker {
    uint32_t pid;
    uint32_t started;
};

#define DURPINA_TRIES_PER_PAGE 62

/* The tries in flight of one worker; it takes as many pages as it needs. */
struct durpina_inflight {
    struct durpina_worker owner; /* taken by compare and exchange */
    uint64_t pid_namespace;      /* inode number, in which owner.pid counts; 0: not written yet */
    struct durpina_try tries[DURPINA_TRIES_PER_PAGE];
};

#define DURPINA_ASSERT_SIZE(type, size) _Static_assert(sizeof(type) == (size), #type)
#define DURPINA_ASSERT_OFFSET(type, field, off)                                                    \
    _Static_assert(offsetof(type, field) == (off), #type "." #field)

DURPINA_ASSERT_SIZE(enum durpina_peer_state, 1);
DURPINA_ASSERT_SIZE(struct durpina_meta, 88);
DURPINA_ASSERT_OFFSET(struct durpina_meta, epoch, 24);
DURPINA_ASSERT_OFFSET(struct durpina_meta, controller_pid, 44);
DURPINA_ASSERT_SIZE(struct durpina_slots, 256);
DURPINA_ASSERT_SIZE(struct durpina_tier, 40);
DURPINA_ASSERT_SIZE(struct durpina_view, 88);
DURPINA_ASSERT_SIZE(struct durpina_upstream, 320);
DURPINA_ASSERT_OFFSET(struct durpina_upstream, publish, 128);
DURPINA_ASSERT_OFFSET(struct durpina_upstream, view, 144);
DURPINA_ASSERT_SIZE(struct durpina_peer_settings, 24);
DURPINA_ASSERT_OFFSET(struct durpina_peer_settings, weight, 4);
DURPINA_ASSERT_OFFSET(struct durpina_peer_settings, max_conns, 16);
DURPINA_ASSERT_SIZE(struct durpina_peer, 5 * DURPINA_CACHE_LINE);
DURPINA_ASSERT_OFFSET(struct durpina_peer, family, 14);
DURPINA_ASSERT_OFFSET(struct durpina_peer, settings, 16);
DURPINA_ASSERT_OFFSET(struct durpina_peer, addr_be, DURPINA_CACHE_LINE);
DURPINA_ASSERT_OFFSET(struct durpina_peer, name, 2 * DURPINA_CACHE_LINE);
DURPINA_ASSERT_SIZE(struct durpina_ewma, 8);
DURPINA_ASSERT_SIZE(struct durpina_counters, 2 * DURPINA_CACHE_LINE);
DURPINA_ASSERT_OFFSET(struct durpina_counters, active, 4);
DURPINA_ASSERT_OFFSET(struct durpina_counters, down_until_ms, 8);
DURPINA_ASSERT_OFFSET(struct durpina_counters, fails, 24);
DURPINA_ASSERT_OFFSET(struct durpina_counters, fails_at_ms, 28);
DURPINA_ASSERT_OFFSET(struct durpina_counters, header, 32);
DURPINA_ASSERT_OFFSET(struct durpina_counters, failed, 56);
DURPINA_ASSERT_OFFSET(struct durpina_counters, responses, DURPINA_CACHE_LINE);
DURPINA_ASSERT_SIZE(struct durpina_cursor, DURPINA_CACHE_LINE);
DURPINA_ASSERT_OFFSET(struct durpina_cursor, active, 32);
DURPINA_ASSERT_SIZE(enum durpina_try_step, 1);
DURPINA_ASSERT_SIZE(struct durpina_try, 8);
DURPINA_ASSERT_OFFSET(struct durpina_try, turn, 6);
DURPINA_ASSERT_SIZE(struct durpina_worker, 8);
DURPINA_ASSERT_SIZE(struct durpina_inflight, 512);
DURPINA_ASSERT_SIZE(struct durpina_endpoint, 3 * DURPINA_CACHE_LINE);
DURPINA_ASSERT_OFFSET(struct durpina_endpoint, open, DURPINA_CACHE_LINE);
DURPINA_ASSERT_OFFSET(struct durpina_endpoint, retransmits, 2 * DURPINA_CACHE_LINE);
DURPINA_ASSERT_OFFSET(struct durpina_endpoint, min_rtt, 176);
DURPINA_ASSERT_SIZE(struct durpina_address, 24);
DURPINA_ASSERT_SIZE(struct durpina_vip, 32);
DURPINA_ASSERT_SIZE(struct durpina_socket, 104);
DURPINA_ASSERT_SIZE(struct durpina_event, 24);
DURPINA_ASSERT_SIZE(struct durpina_kernel, 40);

/*
 * libbpf and the kernel compare sizes of pinned maps only; this number also tells fields of equal
 * size apart that have changed places. FNV-1a over what readers depend on.
 */
#define DURPINA_FNV(h, x) (((h) ^ (uint64_t) (x)) * 0x100000001b3ULL)
#define DURPINA_FNV3(h, a, b, c) DURPINA_FNV(DURPINA_FNV(DURPINA_FNV(h, a), b), c)
#define DURPINA_LAYOUT_PEER                                                                        \
    DURPINA_FNV3(DURPINA_FNV3(0xcbf29ce484222325ULL, offsetof(struct durpina_peer, family),        \
                              offsetof(struct durpina_peer, addr_be),                              \
                              offsetof(struct durpina_peer, settings)),                            \
                 offsetof(struct durpina_peer_settings, weight),                                   \
                 offsetof(struct durpina_peer_settings, max_fails),                                \
                 offsetof(struct durpina_peer_settings, max_conns))
#define DURPINA_LAYOUT_UPSTREAM                                                                    \
    DURPINA_FNV3(DURPINA_FNV3(DURPINA_LAYOUT_PEER, offsetof(struct durpina_upstream, publish),     \
                              offsetof(struct durpina_view, tier),                                 \
                              offsetof(struct durpina_tier, hash)),                                \
                 offsetof(struct durpina_tier, weight), DURPINA_RING_HEADER,                       \
                 offsetof(struct durpina_cursor, active))
#define DURPINA_LAYOUT_COUNTERS                                                                    \
    DURPINA_FNV3(DURPINA_FNV3(DURPINA_LAYOUT_UPSTREAM,                                             \
                              offsetof(struct durpina_counters, down_until_ms),                    \
                              offsetof(struct durpina_counters, responses),                        \
                              offsetof(struct durpina_counters, header)),                          \
                 offsetof(struct durpina_cursor, unweighted),                                      \
                 offsetof(struct durpina_inflight, pid_namespace),                                 \
                 offsetof(struct durpina_inflight, tries))
#define DURPINA_LAYOUT_HASH                                                                        \
    DURPINA_FNV3(DURPINA_FNV3(DURPINA_LAYOUT_COUNTERS, offsetof(struct durpina_peer, endpoint),    \
                              offsetof(struct durpina_counters, ahead),                            \
                              offsetof(struct durpina_endpoint, connecting)),                      \
                 offsetof(struct durpina_endpoint, min_rtt),                                       \
                 offsetof(struct durpina_address, family),                                         \
                 offsetof(struct durpina_socket, exempt))

#endif
