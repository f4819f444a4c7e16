/* SPDX-License-Identifier: MIT */
/*
 * Opens the pins, checks that they are what durpina_abi.h says, and maps them. Plain bpf(2) calls:
 * nginx does not need libbpf.
 *
 * A map opened for reading only cannot be mapped at all (the kernel answers EINVAL), so the pins
 * are opened read-write by the master and mapped PROT_READ; the kernel then denies
 * mprotect(PROT_WRITE) on that mapping for ever, and the descriptor is closed before any worker
 * exists.
 */
#include "ngx_http_durpina_module.h"

#include <linux/bpf.h>
#include <sys/mman.h>
#include <sys/syscall.h>

typedef struct {
    const char *name;
    size_t      value_size;
    ngx_uint_t  writable;
} ngx_http_durpina_map_type_t;

static const ngx_http_durpina_map_type_t ngx_http_durpina_map_types[] = {
    { "meta", sizeof(struct durpina_meta), 0 },
    { "upstreams", sizeof(struct durpina_upstream), 0 },
    { "peers", sizeof(struct durpina_peer), 0 },
    { "slots", sizeof(struct durpina_slots), 0 },
    { "counters", sizeof(struct durpina_counters), 1 },
    { "cursors", sizeof(struct durpina_cursor), 1 },
    { "inflight", sizeof(struct durpina_inflight), 1 },
    { "endpoints", sizeof(struct durpina_endpoint), 0 },
};

enum { META, UPSTREAMS, PEERS, SLOTS, COUNTERS, CURSORS, INFLIGHT, ENDPOINTS, MAPS };

typedef struct {
    int      fd;
    void    *addr;
    size_t   size;
    uint32_t entries;
    uint32_t id; /* of the map in this kernel, never reused */
} ngx_http_durpina_mapping_t;

static ngx_http_durpina_mapping_t ngx_http_durpina_mapped[MAPS];

static ngx_int_t ngx_http_durpina_open_map(ngx_str_t *pin, const ngx_http_durpina_map_type_t *type,
    ngx_http_durpina_mapping_t *ret, char *err, size_t size);
static ngx_int_t ngx_http_durpina_mmap(const ngx_http_durpina_map_type_t *type,
    ngx_http_durpina_mapping_t *mapping, char *err, size_t size);
static ngx_int_t ngx_http_durpina_check_meta(ngx_str_t *pin, const struct durpina_meta *meta,
    char *err, size_t size);
static void ngx_http_durpina_unmap(ngx_http_durpina_mapping_t *mappings);

static long
ngx_http_durpina_bpf(int cmd, union bpf_attr *attr)
{
    return syscall(SYS_bpf, cmd, attr, sizeof(*attr));
}

ngx_int_t
ngx_http_durpina_map(ngx_str_t *pin, char *err, size_t size)
{
    ngx_int_t                   rc = NGX_OK;
    ngx_uint_t                  i, same = 1;
    struct durpina_maps        *maps = &ngx_http_durpina.maps;
    ngx_http_durpina_mapping_t  fresh[MAPS];

    ngx_memzero(fresh, sizeof(fresh));
    for (i = 0; i < MAPS; i++) {
        fresh[i].fd = -1;
    }

    for (i = 0; i < MAPS && rc == NGX_OK; i++) {
        rc = ngx_http_durpina_open_map(pin, &ngx_http_durpina_map_types[i], &fresh[i], err, size);
        same = same && fresh[i].id == ngx_http_durpina_mapped[i].id;
    }

    if (rc == NGX_OK && !same) {
        for (i = 0; i < MAPS && rc == NGX_OK; i++) {
            rc = ngx_http_durpina_mmap(&ngx_http_durpina_map_types[i], &fresh[i], err, size);
        }

        if (rc == NGX_OK) {
            rc = ngx_http_durpina_check_meta(pin, fresh[META].addr, err, size);
        }
    }

    for (i = 0; i < MAPS; i++) {
        if (fresh[i].fd != -1) {
            (void) close(fresh[i].fd);
        }
    }

    if (rc != NGX_OK) {
        ngx_http_durpina_unmap(fresh);
        return rc;
    }

    if (same) {
        return NGX_OK;
    }

    /*
     * Workers of the old configuration have mappings of their own, and the master picks no peer.
     * With "master_process off" this is the worker, and what it has in flight lies in the old maps.
     */
    ngx_http_durpina_finish_all();
    ngx_http_durpina_inflight_release();
    ngx_http_durpina_unmap(ngx_http_durpina_mapped);
    ngx_memcpy(ngx_http_durpina_mapped, fresh, sizeof(fresh));

    maps->meta = fresh[META].addr;
    maps->upstreams = fresh[UPSTREAMS].addr;
    maps->peers = fresh[PEERS].addr;
    maps->slots = fresh[SLOTS].addr;
    maps->counters = fresh[COUNTERS].addr;
    maps->cursors = fresh[CURSORS].addr;
    maps->inflight = fresh[INFLIGHT].addr;
    maps->endpoints = fresh[ENDPOINTS].addr;
    maps->n_upstreams = ngx_min(fresh[UPSTREAMS].entries, fresh[CURSORS].entries);
    maps->n_peers = ngx_min(fresh[PEERS].entries, fresh[COUNTERS].entries);
    maps->n_slots = fresh[SLOTS].entries * DURPINA_SLOTS_PER_ROW;
    maps->n_inflight = fresh[INFLIGHT].entries;
    maps->n_endpoints = fresh[ENDPOINTS].entries;

    return NGX_OK;
}

static ngx_int_t
ngx_http_durpina_open_map(ngx_str_t *pin, const ngx_http_durpina_map_type_t *type,
    ngx_http_durpina_mapping_t *ret, char *err, size_t size)
{
    long                 fd;
    char                 path[NGX_MAX_PATH];
    union bpf_attr       attr;
    struct bpf_map_info  info;

    if (pin->len + 1 + ngx_strlen(type->name) >= sizeof(path)) {
        ngx_snprintf((u_char *) err, size, "the path of durpina_pin \"%V\" is too long%Z", pin);
        return NGX_ERROR;
    }

    ngx_snprintf((u_char *) path, sizeof(path), "%V/%s%Z", pin, type->name);

    ngx_memzero(&attr, sizeof(attr));
    attr.pathname = (uintptr_t) path;

    fd = ngx_http_durpina_bpf(BPF_OBJ_GET, &attr);

    if (fd == -1) {
        if (ngx_errno == NGX_ENOENT) {
            ngx_snprintf((u_char *) err, size,
                         "no pinned map \"%s\": is durpinad running with --pin %V?%Z", path, pin);

        } else if (ngx_errno == NGX_EPERM || ngx_errno == NGX_EACCES) {
            ngx_snprintf((u_char *) err, size,
                         "opening the pinned map \"%s\" is not permitted: the nginx master must "
                         "run as root%Z", path);

        } else {
            ngx_snprintf((u_char *) err, size, "opening the pinned map \"%s\" failed: %s%Z", path,
                         strerror(ngx_errno));
        }

        return NGX_ERROR;
    }

    ret->fd = fd;

    ngx_memzero(&info, sizeof(info));
    ngx_memzero(&attr, sizeof(attr));
    attr.info.bpf_fd = fd;
    attr.info.info_len = sizeof(info);
    attr.info.info = (uintptr_t) &info;

    if (ngx_http_durpina_bpf(BPF_OBJ_GET_INFO_BY_FD, &attr) == -1) {
        ngx_snprintf((u_char *) err, size, "\"%s\" is not a BPF map: %s%Z", path,
                     strerror(ngx_errno));
        return NGX_ERROR;
    }

    if (info.type != BPF_MAP_TYPE_ARRAY || info.key_size != sizeof(uint32_t)
        || info.value_size != type->value_size || !(info.map_flags & BPF_F_MMAPABLE))
    {
        ngx_snprintf((u_char *) err, size,
                     "\"%s\" is not a map of this version of durpina (type %uD, value of %uD "
                     "bytes, expected an array of %uz): use a module and a durpinad of the same "
                     "version%Z",
                     path, info.type, info.value_size, type->value_size);
        return NGX_ERROR;
    }

    ret->id = info.id;
    ret->entries = info.max_entries;

    return NGX_OK;
}

static ngx_int_t
ngx_http_durpina_mmap(const ngx_http_durpina_map_type_t *type, ngx_http_durpina_mapping_t *mapping,
    char *err, size_t size)
{
    void   *addr;
    size_t  len;

    len = ngx_align((uint64_t) type->value_size * mapping->entries, ngx_pagesize);

    addr = mmap(NULL, len, PROT_READ | (type->writable ? PROT_WRITE : 0), MAP_SHARED, mapping->fd,
                0);

    if (addr == MAP_FAILED) {
        ngx_snprintf((u_char *) err, size, "mapping %uz bytes of the map \"%s\" failed: %s%Z", len,
                     type->name, strerror(ngx_errno));
        return NGX_ERROR;
    }

    mapping->addr = addr;
    mapping->size = len;

    return NGX_OK;
}

static ngx_int_t
ngx_http_durpina_check_meta(ngx_str_t *pin, const struct durpina_meta *meta, char *err, size_t size)
{
    if (meta->magic != DURPINA_MAGIC) {
        ngx_snprintf((u_char *) err, size, "the maps below \"%V\" are not durpinad's%Z", pin);
        return NGX_ERROR;
    }

    if (meta->abi_major != DURPINA_ABI_MAJOR || meta->layout_hash != DURPINA_LAYOUT_HASH) {
        ngx_snprintf((u_char *) err, size,
                     "the maps below \"%V\" have layout %uD.%uD (%xL), this module reads %d.%d "
                     "(%xL): use a module and a durpinad of the same version%Z", pin,
                     meta->abi_major, meta->abi_minor, meta->layout_hash,
                     DURPINA_ABI_MAJOR, DURPINA_ABI_MINOR, DURPINA_LAYOUT_HASH);
        return NGX_ERROR;
    }

    return NGX_OK;
}

static void
ngx_http_durpina_unmap(ngx_http_durpina_mapping_t *mappings)
{
    ngx_uint_t i;

    for (i = 0; i < MAPS; i++) {
        if (mappings[i].addr) {
            (void) munmap(mappings[i].addr, mappings[i].size);
            mappings[i].addr = NULL;
        }
    }
}
