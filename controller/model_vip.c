/* SPDX-License-Identifier: MIT */
/* Virtual endpoints in the model. */
#include <stdlib.h>
#include <string.h>

#include "durpina_address.h"
#include "model.h"

struct vip *model_vip(const struct model *model, const struct durpina_address *address)
{
    struct vip *vip;

    HASH_FIND(hh, model->vips, address, sizeof(*address), vip);
    return vip;
}

bool model_has_peer_at(const struct upstream *upstream, const struct durpina_address *address)
{
    struct durpina_address of_peer;

    for (const struct server *s = upstream->servers; s != NULL; s = s->hh.next)
        for (size_t i = 0; i < s->n_peers; i++)
            if (s->peers[i]->resolved &&
                addr_key(&s->peers[i]->addr, address->protocol, &of_peer) == 0 &&
                durpina_same_address(&of_peer, address))
                return true;
    return false;
}

const char *model_vip_obstacle(const struct vip *vip)
{
    static const char *const words[] = {
        [VIP_CLEAR] = NULL,
        [VIP_NO_UPSTREAM] = "the upstream is not there",
        [VIP_LOOP] = "its address is that of a peer of the upstream",
        [VIP_NO_ROOM] = "the kernel has no room for it",
    };

    return words[vip->obstacle];
}

struct vip *model_new_vip(const struct vip_spec *spec)
{
    struct vip *vip = calloc(1, sizeof(*vip));

    if (vip == NULL)
        return NULL;
    vip->address = spec->address;
    vip_address_format(&spec->address, vip->name);
    memcpy(vip->upstream, spec->upstream, sizeof(vip->upstream));
    vip->algorithm = spec->algorithm;
    return vip;
}

void model_link_vip(struct model *model, struct vip *vip)
{
    HASH_ADD(hh, model->vips, address, sizeof(vip->address), vip);
}

void model_free_vip(struct model *model, struct vip *vip)
{
    if (vip->hh.tbl != NULL)
        HASH_DEL(model->vips, vip);
    free(vip);
}
