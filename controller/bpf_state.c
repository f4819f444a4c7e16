/* SPDX-License-Identifier: MIT */
#include "bpf_state.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "durpina.skel.h"
#include "log.h"
#include "pin_dir.h"

#define ROW ((uint32_t) DURPINA_SLOTS_PER_ROW)
#define PAGE ((uint32_t) DURPINA_TRIES_PER_PAGE)
#define REMEDY "stop the nginx that use it, then: rm -r"

enum map_id {
    MAP_META,
    MAP_UPSTREAMS,
    MAP_PEERS,
    MAP_SLOTS,
    MAP_COUNTERS,
    MAP_CURSORS,
    MAP_INFLIGHT,
    N_MAPS
};

static const struct {
    const char *name;
    uint32_t value_size;
} maps[N_MAPS] = {
    [MAP_META] = {"meta", sizeof(struct durpina_meta)},
    [MAP_UPSTREAMS] = {"upstreams", sizeof(struct durpina_upstream)},
    [MAP_PEERS] = {"peers", sizeof(struct durpina_peer)},
    [MAP_SLOTS] = {"slots", sizeof(struct durpina_slots)},
    [MAP_COUNTERS] = {"counters", sizeof(struct durpina_counters)},
    [MAP_CURSORS] = {"cursors", sizeof(struct durpina_cursor)},
    [MAP_INFLIGHT] = {"inflight", sizeof(struct durpina_inflight)},
};

_Static_assert(sizeof(((struct bpf_state *) 0)->map_fds) / sizeof(int) == N_MAPS, "map_fds");

static uint32_t map_entries(enum map_id id, const struct bpf_state *state)
{
    switch (id) {
    case MAP_UPSTREAMS:
    case MAP_CURSORS:
        return state->n_upstreams;
    case MAP_PEERS:
    case MAP_COUNTERS:
        return state->n_peers;
    case MAP_SLOTS:
        return state->n_slots / ROW;
    case MAP_INFLIGHT:
        return state->n_inflight;
    default:
        return 1;
    }
}

/* Array elements are rounded up to 8 bytes; all our structs are multiples of that. */
static size_t map_bytes(enum map_id id, const struct bpf_state *state)
{
    return (size_t) map_entries(id, state) * maps[id].value_size;
}

static void *map_memory(enum map_id id, const struct bpf_state *state)
{
    void *const memory[N_MAPS] = {
        [MAP_META] = state->meta,         [MAP_UPSTREAMS] = state->upstreams,
        [MAP_PEERS] = state->peers,       [MAP_SLOTS] = state->slots,
        [MAP_COUNTERS] = state->counters, [MAP_CURSORS] = state->cursors,
        [MAP_INFLIGHT] = state->inflight,
    };

    return memory[id];
}

static int map_all(struct bpf_state *state, const struct pin_dir *dir, struct failure *failure)
{
    void *memory[N_MAPS];

    for (enum map_id id = 0; id < N_MAPS; id++) {
        memory[id] = mmap(NULL, map_bytes(id, state), PROT_READ | PROT_WRITE, MAP_SHARED,
                          state->map_fds[id], 0);
        if (memory[id] == MAP_FAILED) {
            int err = errno;

            while (id-- > 0)
                munmap(memory[id], map_bytes(id, state));
            return pin_dir_refuse(failure, dir, err, "mmap");
        }
    }
    state->meta = memory[MAP_META];
    state->upstreams = memory[MAP_UPSTREAMS];
    state->peers = memory[MAP_PEERS];
    state->slots = memory[MAP_SLOTS];
    state->counters = memory[MAP_COUNTERS];
    state->cursors = memory[MAP_CURSORS];
    state->inflight = memory[MAP_INFLIGHT];
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

/* Creates the maps; the kernel keeps them through the descriptors. */
static int create_maps(struct bpf_state *state, const struct pin_dir *dir, struct failure *failure)
{
    struct durpina *skel = durpina__open();
    int err = 0;

    if (skel == NULL)
        return pin_dir_refuse(failure, dir, errno, "BPF object");

    struct bpf_map *const created[N_MAPS] = {
        [MAP_META] = skel->maps.meta,         [MAP_UPSTREAMS] = skel->maps.upstreams,
        [MAP_PEERS] = skel->maps.peers,       [MAP_SLOTS] = skel->maps.slots,
        [MAP_COUNTERS] = skel->maps.counters, [MAP_CURSORS] = skel->maps.cursors,
        [MAP_INFLIGHT] = skel->maps.inflight,
    };

    for (enum map_id id = 0; id < N_MAPS && err == 0; id++)
        err = bpf_map__set_max_entries(created[id], map_entries(id, state));
    if (err == 0)
        err = durpina__load(skel);
    for (enum map_id id = 0; id < N_MAPS && err == 0; id++) {
        state->map_fds[id] = fcntl(bpf_map__fd(created[id]), F_DUPFD_CLOEXEC, 3);
        if (state->map_fds[id] < 0)
            err = -errno;
    }
    durpina__destroy(skel);
    if (err < 0)
        return pin_dir_refuse(failure, dir, -err, "creating the maps");
    return 0;
}

static int give_away(const struct pin_dir *dir, const struct bpf_state_options *options,
                     struct failure *failure)
{
    for (enum map_id id = 0; id < N_MAPS; id++)
        if (fchownat(dir->fd, maps[id].name, options->uid, options->gid, AT_SYMLINK_NOFOLLOW) < 0)
            return pin_dir_refuse(failure, dir, errno, "chown");
    if (fchown(dir->fd, options->uid, options->gid) < 0)
        return pin_dir_refuse(failure, dir, errno, "chown");
    return 0;
}

/* Creates all pins in PIN-new, then renames it: PIN is never there half made. */
static int create(struct pin_dir *dir, const struct bpf_state_options *options,
                  struct bpf_state *state, struct failure *failure)
{
    char path[64];
    int err = create_maps(state, dir, failure);

    if (err == 0)
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
    for (enum map_id id = 0; id < N_MAPS && err == 0; id++) {
        pin_dir_entry(dir, maps[id].name, path, sizeof(path));
        if (bpf_obj_pin(state->map_fds[id], path) < 0)
            err = pin_dir_refuse(failure, dir, errno, "pinning the maps");
    }
    if (err == 0)
        err = give_away(dir, options, failure);
    if (err == 0)
        err = pin_dir_put_in_place(dir, failure);
    if (err < 0)
        pin_dir_discard_stage(dir);
    return err;
}

static int open_map(struct pin_dir *dir, const struct bpf_state_options *options, enum map_id id,
                    int *ret_fd, struct bpf_map_info *ret_info, struct failure *failure)
{
    struct bpf_map_info info = {0};
    uint32_t info_len = sizeof(info);
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
    if (strstr(kind, "bpf-map") == NULL || (st.st_uid != 0 && st.st_uid != options->uid) ||
        bpf_obj_get_info_by_fd(fd, &info, &info_len) < 0 || info.type != BPF_MAP_TYPE_ARRAY ||
        info.key_size != sizeof(uint32_t) || info.value_size != maps[id].value_size ||
        (info.map_flags & BPF_F_MMAPABLE) == 0) {
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

static int adopt(struct pin_dir *dir, const struct bpf_state_options *options,
                 struct bpf_state *state, struct failure *failure)
{
    struct bpf_map_info info[N_MAPS];
    struct durpina_meta meta = {0};
    uint32_t key = 0;
    int err = 0;

    /* meta first: another layout is to be called that, whatever sizes it has. */
    for (enum map_id id = 0; id < N_MAPS && err == 0; id++) {
        err = open_map(dir, options, id, &state->map_fds[id], &info[id], failure);
        if (err < 0 || id != MAP_META)
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
        state->n_peers = meta.peers;
        state->n_slots = meta.slots;
    }
    /* What is in flight fits in any number of pages: meta need not know. */
    if (err == 0 && info[MAP_INFLIGHT].max_entries != state->n_inflight) {
        log_warn("%s: the capacity stays at inflight %" PRIu64 " as pinned; to have %" PRIu64
                 " " REMEDY " %s",
                 dir->path, (uint64_t) info[MAP_INFLIGHT].max_entries * PAGE,
                 (uint64_t) state->n_inflight * PAGE, dir->path);
        state->n_inflight = info[MAP_INFLIGHT].max_entries;
    }
    for (enum map_id id = 0; id < N_MAPS && err == 0; id++)
        if (info[id].max_entries != map_entries(id, state) || state->n_slots % ROW != 0)
            err =
                fail(failure, EINVAL, 500, PIN_DIR_CODE,
                     "%s: %s has another size than meta says: the pins are damaged: " REMEDY " %s",
                     dir->path, maps[id].name, dir->path);
    if (err == 0)
        err = give_away(dir, options, failure);
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
    struct bpf_state state = {
        .dir_fd = -1,
        .map_fds = {-1, -1, -1, -1, -1, -1, -1},
        .n_upstreams = options->n_upstreams,
        .n_peers = options->n_peers,
        .n_slots = (options->n_slots + ROW - 1) / ROW * ROW,
        .n_inflight = options->n_inflight / PAGE + (options->n_inflight % PAGE != 0),
    };
    int err;

    if (options->n_upstreams == 0 || options->n_peers == 0 || options->n_slots == 0 ||
        options->n_slots > UINT32_MAX - ROW || options->n_inflight == 0)
        return fail(failure, EINVAL, 500, PIN_DIR_CODE,
                    "upstreams, peers, slots and inflight must not be 0");

    libbpf_set_print(libbpf_log);
    err = pin_dir_open(options->pin, options->uid, &dir, failure);
    if (err == 0)
        err = dir.found ? adopt(&dir, options, &state, failure)
                        : create(&dir, options, &state, failure);
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
    for (enum map_id id = 0; id < N_MAPS; id++) {
        if (map_memory(id, state) != NULL)
            munmap(map_memory(id, state), map_bytes(id, state));
        if (state->map_fds[id] >= 0)
            close(state->map_fds[id]);
    }
    if (state->dir_fd >= 0)
        close(state->dir_fd);
    *state = (struct bpf_state){.dir_fd = -1, .map_fds = {-1, -1, -1, -1, -1, -1, -1}};
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
        .n_upstreams = state->n_upstreams,
        .n_peers = state->n_peers,
        .n_slots = state->n_slots,
        .n_inflight = state->n_inflight,
    };
}
