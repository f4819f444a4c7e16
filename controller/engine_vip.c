/* SPDX-License-Identifier: MIT */
/*
 * Virtual endpoints: which there are, and their entries in the map `vips`.
 *
 * An entry is there only while the record of its upstream is: it is taken out before the record is
 * freed and put back with the next one. It is replaced as a whole, never missing in between, so
 * that a change costs no connect(). What connect.bpf.c counts in an entry goes on with the next;
 * only what it counts between the reading and the replacement is lost.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine_internal.h"
#include "log.h"

static int map_fd(const struct engine *engine)
{
    return bpf_state_fd(engine->maps, BPF_STATE_VIPS);
}

/* --- entries ---------------------------------------------------------------------------------- */

static int put_entry(struct engine *engine, struct vip *vip, const struct upstream *upstream)
{
    struct durpina_vip entry = {.upstream = upstream->id,
                                .generation = upstream->generation,
                                .algorithm = vip->algorithm};
    int err;

    if (vip->in_map && vip->entry.upstream == entry.upstream &&
        vip->entry.generation == entry.generation && vip->entry.algorithm == entry.algorithm)
        return 0;
    engine_vip_counts(engine, vip, &entry.selected, &entry.missed);
    err = bpf_map_update_elem(map_fd(engine), &vip->address, &entry, BPF_ANY);
    if (err < 0)
        return err;
    vip->entry = entry;
    vip->in_map = true;
    return 0;
}

static void take_entry_out(struct engine *engine, struct vip *vip)
{
    struct durpina_vip last;

    if (vip->in_map && bpf_map_lookup_and_delete_elem(map_fd(engine), &vip->address, &last) == 0)
        vip->entry = last;
    vip->in_map = false;
}

void engine_vip_counts(const struct engine *engine, const struct vip *vip, uint64_t *ret_selected,
                       uint64_t *ret_missed)
{
    struct durpina_vip now = vip->entry;

    if (vip->in_map)
        (void) bpf_map_lookup_elem(map_fd(engine), &vip->address, &now);
    *ret_selected = now.selected;
    *ret_missed = now.missed;
}

static void note(struct vip *vip, enum vip_obstacle obstacle)
{
    if (obstacle == vip->obstacle)
        return;
    vip->obstacle = obstacle;
    if (obstacle == VIP_CLEAR)
        log_notice("vip %s: connects go to upstream %s", vip->name, vip->upstream);
    else
        log_warn("vip %s: connects do not go to upstream %s: %s", vip->name, vip->upstream,
                 model_vip_obstacle(vip));
}

/* Makes the entry what the model says. */
static void refresh(struct engine *engine, struct vip *vip)
{
    const struct upstream *upstream = model_upstream(&engine->model, vip->upstream);
    enum vip_obstacle obstacle = VIP_CLEAR;

    if (!engine->started)
        return; /* vips_start() looks at all of them */
    if (upstream == NULL || upstream->id == DURPINA_NONE)
        obstacle = VIP_NO_UPSTREAM;
    else if (model_has_peer_at(upstream, &vip->address))
        obstacle = VIP_LOOP;
    else if (put_entry(engine, vip, upstream) < 0)
        obstacle = VIP_NO_ROOM;
    if (obstacle != VIP_CLEAR)
        take_entry_out(engine, vip);
    note(vip, obstacle);
}

/* Those that the map had no room for may fit when others have gone. Tables come before entries, so
 * that no key of a hash moves. */
static void refresh_all(struct engine *engine)
{
    for (struct upstream *u = engine->model.upstreams; u != NULL && engine->started; u = u->hh.next)
        tables_review(u);
    for (struct vip *vip = engine->model.vips; vip != NULL; vip = vip->hh.next)
        refresh(engine, vip);
}

static bool goes_to(const struct vip *vip, const struct upstream *upstream)
{
    return strcmp(vip->upstream, upstream->name) == 0;
}

void vips_publish(const struct upstream *upstream)
{
    struct engine *engine = engine_of(upstream);

    for (struct vip *vip = engine->model.vips; vip != NULL; vip = vip->hh.next)
        if (goes_to(vip, upstream))
            refresh(engine, vip);
}

void vips_withdraw(const struct upstream *upstream)
{
    struct engine *engine = engine_of(upstream);

    for (struct vip *vip = engine->model.vips; vip != NULL; vip = vip->hh.next)
        if (goes_to(vip, upstream)) {
            take_entry_out(engine, vip);
            note(vip, VIP_NO_UPSTREAM);
        }
}

/* All keys of the map, at most DURPINA_VIPS_MAX, which it has room for. Returns their number. */
static size_t read_keys(const struct engine *engine, struct durpina_address *ret)
{
    const struct durpina_address *last = NULL;
    size_t n = 0;

    while (n < DURPINA_VIPS_MAX && bpf_map_get_next_key(map_fd(engine), last, &ret[n]) == 0)
        last = &ret[n++];
    return n;
}

void vips_start(struct engine *engine)
{
    struct durpina_address keys[DURPINA_VIPS_MAX];
    size_t n = read_keys(engine, keys);

    for (size_t i = 0; i < n; i++) {
        struct vip *vip = model_vip(&engine->model, &keys[i]);
        char name[VIP_NAME_SIZE];

        if (vip != NULL) {
            vip->in_map = bpf_map_lookup_elem(map_fd(engine), &vip->address, &vip->entry) == 0;
            continue;
        }
        vip_address_format(&keys[i], name);
        log_notice("vip %s is in the map and nowhere else: it is taken out", name);
        bpf_map_delete_elem(map_fd(engine), &keys[i]);
    }
    refresh_all(engine);
}

/* --- requests --------------------------------------------------------------------------------- */

static void remove_vip(struct engine *engine, struct vip *vip)
{
    take_entry_out(engine, vip);
    model_free_vip(&engine->model, vip);
}

static bool is_as(const struct vip *vip, const struct vip_spec *spec)
{
    return vip->algorithm == spec->algorithm && strcmp(vip->upstream, spec->upstream) == 0;
}

static void set(struct vip *vip, const struct vip_spec *spec)
{
    memcpy(vip->upstream, spec->upstream, sizeof(vip->upstream));
    vip->algorithm = spec->algorithm;
}

struct vip *engine_find_vip(const struct engine *engine, const struct durpina_address *address,
                            struct failure *failure)
{
    struct vip *vip = model_vip(&engine->model, address);
    char name[VIP_NAME_SIZE];

    if (vip == NULL) {
        vip_address_format(address, name);
        fail(failure, ENOENT, 404, "VipNotFound", "there is no vip %s", name);
    }
    return vip;
}

static int check_change(const struct engine *engine, const struct vip *vip, struct failure *failure)
{
    if (!vip->configured)
        return 0;
    return fail(failure, EBUSY, 409, "VipImmutable",
                "vip %s is in %s: change it there and send durpinad SIGHUP", vip->name,
                engine->vip_file);
}

static int check_loop(const struct engine *engine, const struct vip_spec *spec,
                      struct failure *failure)
{
    const struct upstream *upstream = model_upstream(&engine->model, spec->upstream);
    char name[VIP_NAME_SIZE];

    if (upstream == NULL || !model_has_peer_at(upstream, &spec->address))
        return 0;
    vip_address_format(&spec->address, name);
    return fail(failure, EINVAL, 400, "VipBadAddress",
                "vip %s: that is the address of a peer of upstream %s", name, upstream->name);
}

int engine_add_vip(struct engine *engine, const struct vip_spec *spec, bool *ret_created,
                   const struct vip **ret, struct failure *failure)
{
    struct vip *vip = model_vip(&engine->model, &spec->address);
    int err;

    if (vip != NULL && !is_as(vip, spec))
        return fail(failure, EEXIST, 409, "EntryExists",
                    "vip %s exists already: it goes to upstream %s by %s", vip->name, vip->upstream,
                    vip_algorithm_word(vip->algorithm));
    *ret_created = vip == NULL;
    if (vip == NULL) {
        if (HASH_COUNT(engine->model.vips) >= DURPINA_VIPS_MAX)
            return fail(failure, ENOSPC, 409, "UpstreamOutOfMemory",
                        "there are %d virtual endpoints, and there can be no more",
                        DURPINA_VIPS_MAX);
        err = check_loop(engine, spec, failure);
        if (err < 0)
            return err;
        vip = model_new_vip(spec);
        if (vip == NULL)
            return fail_memory(failure);
        model_link_vip(&engine->model, vip);
        refresh_all(engine);
        engine_touch(engine, 0);
    }
    *ret = vip;
    return 0;
}

int engine_change_vip(struct engine *engine, const struct vip_spec *spec, const struct vip **ret,
                      struct failure *failure)
{
    struct vip *vip = engine_find_vip(engine, &spec->address, failure);
    int err;

    if (vip == NULL)
        return -ENOENT;
    if (!is_as(vip, spec)) {
        err = check_change(engine, vip, failure);
        if (err == 0)
            err = check_loop(engine, spec, failure);
        if (err < 0)
            return err;
        set(vip, spec);
        refresh_all(engine);
        engine_touch(engine, 0);
    }
    *ret = vip;
    return 0;
}

int engine_remove_vip(struct engine *engine, const struct durpina_address *address,
                      struct failure *failure)
{
    struct vip *vip = engine_find_vip(engine, address, failure);
    int err;

    if (vip == NULL)
        return -ENOENT;
    err = check_change(engine, vip, failure);
    if (err < 0)
        return err;
    log_notice("vip %s is removed", vip->name);
    remove_vip(engine, vip);
    refresh_all(engine);
    engine_touch(engine, 0);
    return 0;
}

/* --- configuration ---------------------------------------------------------------------------- */

/* The vips that the model lacks, not linked; NULL where it has one. 0 or -ENOMEM. */
static int make_missing(const struct engine *engine, const struct vip_spec *specs, size_t n,
                        struct vip ***ret)
{
    struct vip **made = calloc(n + 1, sizeof(struct vip *));
    bool failed = made == NULL;

    for (size_t i = 0; i < n && !failed; i++)
        if (model_vip(&engine->model, &specs[i].address) == NULL) {
            made[i] = model_new_vip(&specs[i]);
            failed = made[i] == NULL;
        }
    if (!failed) {
        *ret = made;
        return 0;
    }
    for (size_t i = 0; i < n && made != NULL; i++)
        free(made[i]);
    free(made);
    return -ENOMEM;
}

int engine_set_configured_vips(struct engine *engine, const char *file,
                               const struct vip_spec *specs, size_t n)
{
    struct vip *vip, *next, **made;
    int err = make_missing(engine, specs, n, &made);

    if (err < 0)
        return err;
    engine->vip_file = file;
    for (vip = engine->model.vips; vip != NULL; vip = vip->hh.next)
        vip->stale = vip->configured;
    for (size_t i = 0; i < n; i++) {
        if (made[i] != NULL)
            model_link_vip(&engine->model, made[i]);
        vip = model_vip(&engine->model, &specs[i].address);
        set(vip, &specs[i]);
        vip->configured = true;
        vip->stale = false;
    }
    free(made);
    HASH_ITER(hh, engine->model.vips, vip, next)
    {
        if (!vip->stale)
            continue;
        log_notice("vip %s is not in %s any more", vip->name, file);
        remove_vip(engine, vip);
    }
    refresh_all(engine);
    engine_touch(engine, engine->state_delay_ms);
    return 0;
}
