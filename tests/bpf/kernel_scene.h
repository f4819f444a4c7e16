/* SPDX-License-Identifier: MIT */
/*
 * The programs on maps of their own, with one upstream of select_scene.h in them.
 *
 *     programs_set_capacities(object);  before each bpf_object__load(), and programs_share_maps()
 *                                       if another object is loaded already
 *     programs_map(object, weights, n); afterwards: `scene` and `maps` are there
 *     programs_publish();               what was changed in `scene` is in the maps
 *     programs_unmap();
 *
 * Peer i is 127.0.0.1:8000 + i, or where programs_place() puts it.
 */
#ifndef DURPINA_TEST_KERNEL_SCENE_H
#define DURPINA_TEST_KERNEL_SCENE_H

#include "../unit/select_scene.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "durpina_address.h"

#define PROGRAM_ENDPOINTS 64
#define PROGRAM_VIPS 16

/* Most instructions that the verifier may walk through for one program, and what all of an object
 * may take to load. On an idle machine it is a quarter of either. */
#define PROGRAM_INSTRUCTIONS_MAX 60000
#define PROGRAM_LOAD_MS_MAX 1000

static struct scene *scene;
static struct {
    struct durpina_meta *meta;
    struct durpina_upstream *upstreams;
    struct durpina_peer *peers;
    struct durpina_slots *slots;
    struct durpina_counters *counters;
    struct durpina_cursor *cursors;
    struct durpina_endpoint *endpoints;
    struct durpina_kernel *kernel;
    int endpoint_ids, vips, sockets, events;
} maps;

static const struct {
    const char *name;
    uint32_t capacity;
    void *at; /* where in maps its memory is noted */
} program_maps[] = {
    {"meta", 1, &maps.meta},
    {"upstreams", SCENE_UPSTREAMS, &maps.upstreams},
    {"peers", SCENE_FIRST + SCENE_PEERS, &maps.peers},
    {"slots", 2 * SCENE_SLOTS / DURPINA_SLOTS_PER_ROW, &maps.slots},
    {"counters", SCENE_FIRST + SCENE_PEERS, &maps.counters},
    {"cursors", SCENE_UPSTREAMS, &maps.cursors},
    {"endpoints", PROGRAM_ENDPOINTS, &maps.endpoints},
    {"kernel", 1, &maps.kernel},
};

static inline void programs_set_capacities(const struct bpf_object *object)
{
    struct bpf_map *map;

    for (size_t i = 0; i < sizeof(program_maps) / sizeof(program_maps[0]); i++) {
        map = bpf_object__find_map_by_name(object, program_maps[i].name);
        if (map != NULL)
            assert_int_equal(bpf_map__set_max_entries(map, program_maps[i].capacity), 0);
    }
    map = bpf_object__find_map_by_name(object, "endpoint_ids");
    assert_int_equal(bpf_map__set_max_entries(map, PROGRAM_ENDPOINTS), 0);
    map = bpf_object__find_map_by_name(object, "vips");
    assert_int_equal(bpf_map__set_max_entries(map, PROGRAM_VIPS), 0);
}

/* Of an object that is loaded, into one that is not. */
static inline void programs_share_maps(const struct bpf_object *from, const struct bpf_object *to)
{
    struct bpf_map *map;

    bpf_object__for_each_map(map, to)
    {
        const struct bpf_map *other = bpf_object__find_map_by_name(from, bpf_map__name(map));

        if (!bpf_map__is_internal(map) && other != NULL)
            assert_int_equal(bpf_map__reuse_fd(map, bpf_map__fd(other)), 0);
    }
}

static inline size_t programs_map_size(const struct bpf_map *map)
{
    size_t size = (size_t) bpf_map__max_entries(map) * ((bpf_map__value_size(map) + 7) & ~7U);
    size_t page = (size_t) getpagesize();

    return (size + page - 1) / page * page;
}

static inline void *programs_memory(const struct bpf_object *object, const char *name)
{
    const struct bpf_map *map = bpf_object__find_map_by_name(object, name);
    void *memory =
        mmap(NULL, programs_map_size(map), PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(map), 0);

    if (memory == MAP_FAILED)
        fail_msg("%s cannot be mapped: %s", name, strerror(errno));
    return memory;
}

/* Identity, tables and settings of the scene go into the maps; counts there stay. */
static inline void programs_publish(void)
{
    scene_publish(scene);
    memcpy(maps.slots, scene->slots, sizeof(scene->slots));
    memcpy(maps.peers, scene->peers, sizeof(scene->peers));
    memcpy(maps.upstreams, scene->upstreams, sizeof(scene->upstreams));
}

static inline void programs_place(uint32_t i, int family, uint16_t port)
{
    struct durpina_peer *peer = &scene->peers[SCENE_FIRST + i];

    memset(peer->addr_be, 0, sizeof(peer->addr_be));
    peer->addr_be[family == AF_INET ? 0 : 3] =
        family == AF_INET ? htonl(INADDR_LOOPBACK) : htonl(1);
    peer->family = family == AF_INET ? DURPINA_FAMILY_INET : DURPINA_FAMILY_INET6;
    peer->port_be = htons(port);
}

static inline void programs_map(const struct bpf_object *object, uint32_t n,
                                const uint32_t *weights)
{
    for (size_t i = 0; i < sizeof(program_maps) / sizeof(program_maps[0]); i++) {
        void *memory = programs_memory(object, program_maps[i].name);

        memcpy(program_maps[i].at, &memory, sizeof(memory));
    }
    maps.endpoint_ids = bpf_object__find_map_fd_by_name(object, "endpoint_ids");
    maps.vips = bpf_object__find_map_fd_by_name(object, "vips");
    maps.sockets = bpf_object__find_map_fd_by_name(object, "sockets");
    maps.events = bpf_object__find_map_fd_by_name(object, "events");
    scene = scene_create(n, weights);
    for (uint32_t i = 0; i < n; i++)
        programs_place(i, AF_INET, (uint16_t) (8000 + i));
    memcpy(maps.counters, scene->counters, sizeof(scene->counters));
    programs_publish();
}

static inline void programs_unmap(const struct bpf_object *object)
{
    for (size_t i = 0; i < sizeof(program_maps) / sizeof(program_maps[0]); i++) {
        void *memory;

        memcpy(&memory, program_maps[i].at, sizeof(memory));
        munmap(memory,
               programs_map_size(bpf_object__find_map_by_name(object, program_maps[i].name)));
    }
    scene_destroy(scene);
}

/* The maps as a reader of them sees them. */
static inline struct durpina_maps programs_readable(void)
{
    return (struct durpina_maps){.meta = maps.meta,
                                 .upstreams = maps.upstreams,
                                 .peers = maps.peers,
                                 .slots = maps.slots->peers,
                                 .counters = maps.counters,
                                 .cursors = maps.cursors,
                                 .endpoints = maps.endpoints,
                                 .n_upstreams = SCENE_UPSTREAMS,
                                 .n_peers = SCENE_FIRST + SCENE_PEERS,
                                 .n_slots = 2 * SCENE_SLOTS,
                                 .n_endpoints = PROGRAM_ENDPOINTS};
}

static inline struct durpina_address programs_address(const char *text, uint16_t port,
                                                      uint8_t protocol)
{
    struct durpina_address address;
    uint32_t words[4];

    if (inet_pton(AF_INET, text, words) == 1) {
        durpina_address_inet(&address, words[0], htons(port), protocol);
    } else {
        assert_int_equal(inet_pton(AF_INET6, text, words), 1);
        durpina_address_inet6(&address, words[0], words[1], words[2], words[3], htons(port),
                              protocol);
    }
    return address;
}

static inline void programs_add_vip(const char *text, uint16_t port, uint8_t protocol,
                                    enum durpina_algorithm algorithm)
{
    const struct durpina_address address = programs_address(text, port, protocol);
    const struct durpina_vip vip = {.upstream = SCENE_UPSTREAM,
                                    .generation = SCENE_GENERATION,
                                    .algorithm = algorithm};

    assert_int_equal(bpf_map_update_elem(maps.vips, &address, &vip, BPF_ANY), 0);
}

static inline struct durpina_vip programs_read_vip(const char *text, uint16_t port,
                                                   uint8_t protocol)
{
    const struct durpina_address address = programs_address(text, port, protocol);
    struct durpina_vip vip;

    assert_int_equal(bpf_map_lookup_elem(maps.vips, &address, &vip), 0);
    return vip;
}

static inline uint64_t programs_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t) now.tv_sec * 1000000000 + (uint64_t) now.tv_nsec;
}

static inline uint64_t programs_now_ms(void)
{
    return programs_now_ns() / 1000000;
}

/* Loads, and holds the object to the bounds above. */
static inline void programs_load(struct bpf_object *object)
{
    uint64_t began_ms = programs_now_ms();
    struct bpf_program *program;

    assert_int_equal(bpf_object__load(object), 0);
    assert_in_range(programs_now_ms() - began_ms, 0, PROGRAM_LOAD_MS_MAX);
    bpf_object__for_each_program(program, object)
    {
        struct bpf_prog_info info = {0};
        uint32_t size = sizeof(info);

        if (!bpf_program__autoload(program))
            continue;
        assert_int_equal(bpf_obj_get_info_by_fd(bpf_program__fd(program), &info, &size), 0);
        print_message("# %s: %u instructions\n", bpf_program__name(program), info.verified_insns);
        assert_in_range(info.verified_insns, 0, PROGRAM_INSTRUCTIONS_MAX);
    }
}

#endif
