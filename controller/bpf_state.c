/* SPDX-License-Identifier: MIT */
#include "bpf_state.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/membarrier.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "durpina.skel.h"
#include "log.h"
#include "pin_dir.h"

#define ROW ((uint32_t) DURPINA_SLOTS_PER_ROW)
#define PAGE ((uint32_t) DURPINA_TRIES_PER_PAGE)
#define REMEDY "stop the nginx that use it, then: rm -r"

#define SOCKETS_STAGE "sockets_new" /* bpffs takes no dot */

/* Sizes of keys. */
#define KEY_NONE 0
#define KEY_ID sizeof(uint32_t)
#define KEY_ADDRESS sizeof(struct durpina_address)

#define MAPPED(member) offsetof(struct bpf_state, member)

static const struct {
    const char *name;
    enum bpf_map_type type;
    uint32_t key_size, value_size;
    size_t mapped; /* where struct bpf_state has its memory; 0: it is not mapped */
} maps[BPF_STATE_MAPS] = {
    [BPF_STATE_META] = {"meta", BPF_MAP_TYPE_ARRAY, KEY_ID, sizeof(struct durpina_meta),
                        MAPPED(meta)},
    [BPF_STATE_UPSTREAMS] = {"upstreams", BPF_MAP_TYPE_ARRAY, KEY_ID,
                             sizeof(struct durpina_upstream), MAPPED(upstreams)},
    [BPF_STATE_PEERS] = {"peers", BPF_MAP_TYPE_ARRAY, KEY_ID, sizeof(struct durpina_peer),
                         MAPPED(peers)},
    [BPF_STATE_SLOTS] = {"slots", BPF_MAP_TYPE_ARRAY, KEY_ID, sizeof(struct durpina_slots),
                         MAPPED(slots)},
    [BPF_STATE_COUNTERS] = {"counters", BPF_MAP_TYPE_ARRAY, KEY_ID, sizeof(struct durpina_counters),
                            MAPPED(counters)},
    [BPF_STATE_CURSORS] = {"cursors", BPF_MAP_TYPE_ARRAY, KEY_ID, sizeof(struct durpina_cursor),
                           MAPPED(cursors)},
    [BPF_STATE_INFLIGHT] = {"inflight", BPF_MAP_TYPE_ARRAY, KEY_ID, sizeof(struct durpina_inflight),
                            MAPPED(inflight)},
    [BPF_STATE_ENDPOINTS] = {"endpoints", BPF_MAP_TYPE_ARRAY, KEY_ID,
                             sizeof(struct durpina_endpoint), MAPPED(endpoints)},
    [BPF_STATE_ENDPOINT_IDS] = {"endpoint_ids", BPF_MAP_TYPE_HASH, KEY_ADDRESS, sizeof(uint32_t),
                                0},
    [BPF_STATE_VIPS] = {"vips", BPF_MAP_TYPE_HASH, KEY_ADDRESS, sizeof(struct durpina_vip), 0},
    [BPF_STATE_SOCKETS] = {"sockets", BPF_MAP_TYPE_SK_STORAGE, KEY_ID,
                           sizeof(struct durpina_socket), 0},
    [BPF_STATE_EVENTS] = {"events", BPF_MAP_TYPE_RINGBUF, KEY_NONE, 0, 0},
    [BPF_STATE_KERNEL] = {"kernel", BPF_MAP_TYPE_ARRAY, KEY_ID, sizeof(struct durpina_kernel),
                          MAPPED(kernel)},
};

static const struct bpf_state closed = {
    .dir_fd = -1,
    .map_fds = {[0 ... BPF_STATE_MAPS - 1] = -1},
};

static uint32_t map_entries(enum bpf_state_map id, const struct bpf_state *state)
{
    switch (id) {
    case BPF_STATE_UPSTREAMS:
    case BPF_STATE_CURSORS:
        return state->n_upstreams;
    case BPF_STATE_PEERS:
    case BPF_STATE_COUNTERS:
        return state->n_peers;
    case BPF_STATE_ENDPOINTS:
    case BPF_STATE_ENDPOINT_IDS:
        return state->n_endpoints;
    case BPF_STATE_SLOTS:
        return state->n_slots / ROW;
    case BPF_STATE_INFLIGHT:
        return state->n_inflight;
    case BPF_STATE_VIPS:
        return DURPINA_VIPS_MAX;
    case BPF_STATE_EVENTS:
        return DURPINA_EVENTS_BYTES;
    case BPF_STATE_SOCKETS:
        return 0; /* as many as there are */
    default:
        return 1;
    }
}

/* Array elements are rounded up to 8 bytes; all our structs are multiples of that. */
static size_t map_bytes(enum bpf_state_map id, const struct bpf_state *state)
{
    return (size_t) map_entries(id, state) * maps[id].value_size;
}

static void **map_memory(enum bpf_state_map id, struct bpf_state *state)
{
    return (void **) ((char *) state + maps[id].mapped);
}

static int map_all(struct bpf_state *state, const struct pin_dir *dir, struct failure *failure)
{
    for (enum bpf_state_map id = 0; id < BPF_STATE_MAPS; id++) {
        void *memory;

        if (maps[id].mapped == 0)
            continue;
        memory = mmap(NULL, map_bytes(id, state), PROT_READ | PROT_WRITE, MAP_SHARED,
                      state->map_fds[id], 0);
        if (memory == MAP_FAILED)
            return pin_dir_refuse(failure, dir, errno, "mmap");
        *map_memory(id, state) = memory;
    }
    return 0;
}

static void sign(struct durpina_meta *meta)
{
    DURPINA_STORE(&meta->abi_minor, DURPINA_ABI_MINOR);
    strncpy(meta->version, DURPINA_VERSION, sizeof(meta->version) - 1);
    DURPINA_STORE(&meta->controller_pid, (uint32_t) getpid());
}

/* Keeps libbpf's reasons, which it prints, out of the log unless somebody asks for them. */
static int libbpf_log(enum libbpf_print_level level, const char *format, va_list args)
{
    char text[512];

    if (level == LIBBPF_DEBUG)
        return 0;
    vsnprintf(text, sizeof(text), format, args);
    text[strcspn(text, "\n")] = '\0';
    log_debug("%s", text);
    return 0;
}

/* Creates the maps from first to last; the kernel keeps them through the descriptors. */
static int create_maps(struct bpf_state *state, enum bpf_state_map first, enum bpf_state_map last)
{
    struct durpina *skel = durpina__open();
    int err = skel != NULL ? 0 : -errno;

    for (enum bpf_state_map id = 0; id < BPF_STATE_MAPS && err == 0; id++) {
        struct bpf_map *map = bpf_object__find_map_by_name(skel->obj, maps[id].name);

        if (id < first || id > last)
            err = bpf_map__set_autocreate(map, false);
        else
            err = bpf_map__set_max_entries(map, map_entries(id, state));
    }
    if (err == 0)
        err = durpina__load(skel);
    for (enum bpf_state_map id = first; id <= last && err == 0; id++) {
        int fd = bpf_object__find_map_fd_by_name(skel->obj, maps[id].name);

        state->map_fds[id] = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (state->map_fds[id] < 0)
            err = -errno;
    }
    durpina__destroy(skel);
    return err;
}

static int give_away(const struct pin_dir *dir, const struct bpf_state *state,
                     struct failure *failure)
{
    for (enum bpf_state_map id = 0; id < BPF_STATE_MAPS; id++)
        if (fchownat(dir->fd, maps[id].name, state->uid, state->gid, AT_SYMLINK_NOFOLLOW) < 0)
            return pin_dir_refuse(failure, dir, errno, "chown");
    if (fchown(dir->fd, state->uid, state->gid) < 0)
        return pin_dir_refuse(failure, dir, errno, "chown");
    return 0;
}

/* Creates all pins in PIN-new, then renames it: PIN is never there half made. */
static int create(struct pin_dir *dir, struct bpf_state *state, struct failure *failure)
{
    char path[64];
    int err = create_maps(state, 0, BPF_STATE_MAPS - 1);

    if (err < 0)
        err = pin_dir_refuse(failure, dir, -err, "creating the maps");
    else
        err = map_all(state, dir, failure);
    if (err == 0) {
        state->meta->magic = DURPINA_MAGIC;
        state->meta->abi_major = DURPINA_ABI_MAJOR;
        state->meta->layout_hash = DURPINA_LAYOUT_HASH;
        state->meta->upstreams = state->n_upstreams;
        state->meta->peers = state->n_peers;
        state->meta->slots = state->n_slots;
        sign(state->meta);
    }
    for (enum bpf_state_map id = 0; id < BPF_STATE_MAPS && err == 0; id++) {
        pin_dir_entry(dir, maps[id].name, path, sizeof(path));
        if (bpf_obj_pin(state->map_fds[id], path) < 0)
            err = pin_dir_refuse(failure, dir, errno, "pinning the maps");
    }
    if (err == 0)
        err = give_away(dir, state, failure);
    if (err == 0)
        err = pin_dir_put_in_place(dir, failure);
    if (err < 0)
        pin_dir_discard_stage(dir);
    return err;
}

/* Is this the map of that name, as this durpinad would have made it but for its size? */
static bool is_map(int fd, enum bpf_state_map id, struct bpf_map_info *ret_info)
{
    uint32_t info_len = sizeof(*ret_info);

    return bpf_obj_get_info_by_fd(fd, ret_info, &info_len) == 0 &&
           ret_info->type == maps[id].type && ret_info->key_size == maps[id].key_size &&
           ret_info->value_size == maps[id].value_size &&
           (maps[id].mapped == 0 || (ret_info->map_flags & BPF_F_MMAPABLE) != 0);
}

static int open_map(struct pin_dir *dir, const struct bpf_state *state, enum bpf_state_map id,
                    int *ret_fd, struct bpf_map_info *ret_info, struct failure *failure)
{
    struct bpf_map_info info = {0};
    char path[64], self[64], kind[64] = "";
    struct stat st;
    int fd = -1;

    if (fstatat(dir->fd, maps[id].name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return fail(failure, errno, 500, PIN_DIR_CODE,
                    "%s: %s: %s: the pins are damaged: " REMEDY " %s", dir->path, maps[id].name,
                    strerror(errno), dir->path);
    pin_dir_entry(dir, maps[id].name, path, sizeof(path));
    if (S_ISREG(st.st_mode))
        fd = bpf_obj_get(path);
    if (S_ISREG(st.st_mode) && fd < 0)
        return pin_dir_refuse(failure, dir, errno, maps[id].name);

    if (fd >= 0) {
        ssize_t len;

        snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
        len = readlink(self, kind, sizeof(kind) - 1);
        kind[len > 0 ? len : 0] = '\0';
    }
    if (strstr(kind, "bpf-map") == NULL || (st.st_uid != 0 && st.st_uid != state->uid) ||
        !is_map(fd, id, &info)) {
        if (fd >= 0)
            close(fd);
        return fail(
            failure, EINVAL, 500, PIN_DIR_CODE,
            "%s: %s is not the map of this durpinad but of another layout, kind or owner: " REMEDY
            " %s",
            dir->path, maps[id].name, dir->path);
    }
    *ret_fd = fd;
    *ret_info = info;
    return 0;
}

static int adopt(struct pin_dir *dir, struct bpf_state *state, struct failure *failure)
{
    struct bpf_map_info info[BPF_STATE_MAPS];
    struct durpina_meta meta = {0};
    uint32_t key = 0;
    int err = 0;

    /* meta first: another layout is to be called that, whatever sizes it has. */
    for (enum bpf_state_map id = 0; id < BPF_STATE_MAPS && err == 0; id++) {
        err = open_map(dir, state, id, &state->map_fds[id], &info[id], failure);
        if (err < 0 || id != BPF_STATE_META)
            continue;
        if (bpf_map_lookup_elem(state->map_fds[id], &key, &meta) < 0)
            return pin_dir_refuse(failure, dir, errno, "meta");
        if (meta.magic != DURPINA_MAGIC || meta.abi_major != DURPINA_ABI_MAJOR ||
            meta.layout_hash != DURPINA_LAYOUT_HASH)
            return fail(failure, EINVAL, 500, PIN_DIR_CODE,
                        "%s: pins of another layout (ABI %u.%u, hash %llx; this durpinad has "
                        "%u.%u, %llx): " REMEDY " %s",
                        dir->path, meta.abi_major, meta.abi_minor,
                        (unsigned long long) meta.layout_hash, DURPINA_ABI_MAJOR, DURPINA_ABI_MINOR,
                        (unsigned long long) DURPINA_LAYOUT_HASH, dir->path);
        if (meta.upstreams != state->n_upstreams || meta.peers != state->n_peers ||
            meta.slots != state->n_slots)
            log_warn("%s: the capacity stays at upstreams %u, peers %u, slots %u as pinned; to "
                     "have %u, %u, %u " REMEDY " %s",
                     dir->path, meta.upstreams, meta.peers, meta.slots, state->n_upstreams,
                     state->n_peers, state->n_slots, dir->path);
        state->n_upstreams = meta.upstreams;
        state->n_peers = state->n_endpoints = meta.peers;
        state->n_slots = meta.slots;
    }
    /* What is in flight fits in any number of pages: meta need not know. */
    if (err == 0 && info[BPF_STATE_INFLIGHT].max_entries != state->n_inflight) {
        log_warn("%s: the capacity stays at inflight %" PRIu64 " as pinned; to have %" PRIu64
                 " " REMEDY " %s",
                 dir->path, (uint64_t) info[BPF_STATE_INFLIGHT].max_entries * PAGE,
                 (uint64_t) state->n_inflight * PAGE, dir->path);
        state->n_inflight = info[BPF_STATE_INFLIGHT].max_entries;
    }
    for (enum bpf_state_map id = 0; id < BPF_STATE_MAPS && err == 0; id++)
        if (info[id].max_entries != map_entries(id, state) || state->n_slots % ROW != 0)
            err =
                fail(failure, EINVAL, 500, PIN_DIR_CODE,
                     "%s: %s has another size than meta says: the pins are damaged: " REMEDY " %s",
                     dir->path, maps[id].name, dir->path);
    if (err == 0)
        err = give_away(dir, state, failure);
    if (err == 0)
        err = map_all(state, dir, failure);
    if (err == 0) {
        state->adopted = true;
        sign(state->meta);
    }
    return err;
}

int bpf_state_open(const struct bpf_state_options *options, struct bpf_state *ret,
                   struct failure *failure)
{
    struct pin_dir dir;
    struct bpf_state state = closed;
    int err;

    if (options->n_upstreams == 0 || options->n_peers == 0 || options->n_slots == 0 ||
        options->n_slots > UINT32_MAX - ROW || options->n_inflight == 0)
        return fail(failure, EINVAL, 500, PIN_DIR_CODE,
                    "upstreams, peers, slots and inflight must not be 0");

    state.n_upstreams = options->n_upstreams;
    state.n_peers = state.n_endpoints = options->n_peers;
    state.n_slots = (options->n_slots + ROW - 1) / ROW * ROW;
    state.n_inflight = options->n_inflight / PAGE + (options->n_inflight % PAGE != 0);
    state.uid = options->uid;
    state.gid = options->gid;
    libbpf_set_print(libbpf_log);
    err = pin_dir_open(options->pin, options->uid, &dir, failure);
    if (err == 0)
        err = dir.found ? adopt(&dir, &state, failure) : create(&dir, &state, failure);
    pin_dir_close_parent(&dir);
    state.dir_fd = dir.fd;
    if (err < 0) {
        bpf_state_close(&state);
        return err;
    }
    *ret = state;
    return 0;
}

void bpf_state_close(struct bpf_state *state)
{
    for (enum bpf_state_map id = 0; id < BPF_STATE_MAPS; id++) {
        if (maps[id].mapped != 0 && *map_memory(id, state) != NULL)
            munmap(*map_memory(id, state), map_bytes(id, state));
        if (state->map_fds[id] >= 0)
            close(state->map_fds[id]);
    }
    if (state->dir_fd >= 0)
        close(state->dir_fd);
    *state = closed;
}

int bpf_state_fd(const struct bpf_state *state, enum bpf_state_map map)
{
    return state->map_fds[map];
}

const char *bpf_state_map_name(enum bpf_state_map map)
{
    return maps[map].name;
}

struct durpina_maps bpf_state_maps(const struct bpf_state *state)
{
    return (struct durpina_maps){
        .meta = state->meta,
        .upstreams = state->upstreams,
        .peers = state->peers,
        .slots = state->slots,
        .counters = state->counters,
        .cursors = state->cursors,
        .inflight = state->inflight,
        .endpoints = state->endpoints,
        .n_upstreams = state->n_upstreams,
        .n_peers = state->n_peers,
        .n_slots = state->n_slots,
        .n_inflight = state->n_inflight,
        .n_endpoints = state->n_endpoints,
    };
}

/* Staged beside the pin and renamed over it: killed at any step, one of the two is there. */
int bpf_state_renew_sockets(struct bpf_state *state, struct failure *failure)
{
    const struct pin_dir dir = {.path = "sockets", .fd = state->dir_fd};
    struct bpf_state fresh = closed;
    int *fd = &fresh.map_fds[BPF_STATE_SOCKETS];
    char path[64];
    int err = create_maps(&fresh, BPF_STATE_SOCKETS, BPF_STATE_SOCKETS);

    if (err < 0)
        return pin_dir_refuse(failure, &dir, -err, "creating the map");
    pin_dir_entry(&dir, SOCKETS_STAGE, path, sizeof(path));
    if (unlinkat(dir.fd, SOCKETS_STAGE, 0) < 0 && errno != ENOENT)
        err = -errno;
    if (err == 0)
        err = bpf_obj_pin(*fd, path);
    if (err == 0 &&
        (fchownat(dir.fd, SOCKETS_STAGE, state->uid, state->gid, AT_SYMLINK_NOFOLLOW) < 0 ||
         renameat(dir.fd, SOCKETS_STAGE, dir.fd, maps[BPF_STATE_SOCKETS].name) < 0))
        err = -errno;
    if (err < 0) {
        close(*fd);
        return pin_dir_refuse(failure, &dir, -err, "pinning the new map");
    }
    close(state->map_fds[BPF_STATE_SOCKETS]);
    state->map_fds[BPF_STATE_SOCKETS] = *fd;
    return 0;
}

/* The kernel waits for all that read under RCU, as programs do; with nohz_full it does not. */
void bpf_state_await_programs(void)
{
    (void) syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0);
}
