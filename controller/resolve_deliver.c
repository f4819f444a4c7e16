/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

#include "log.h"
#include "resolve_internal.h"

/* Has every target been asked for? */
static bool is_complete(const struct name *name)
{
    for (size_t i = 0; i < name->n_services; i++)
        if (!name->targets[i]->name->settled)
            return false;
    return true;
}

bool name_knows(const struct name *name, size_t family)
{
    for (size_t i = 0; i < name->n_services; i++)
        if (!name->targets[i]->name->knows[family])
            return false;
    return name->is_service || name->knows[family];
}

struct list {
    struct resolved *items;
    size_t n, max;
    bool is_cut;
};

static void list_add(struct list *list, const struct name *name, uint16_t port,
                     const struct answer_srv *srv, uint16_t best_priority)
{
    for (size_t i = 0; i < name->n_addresses && !list->is_cut; i++) {
        struct resolved one = {.addr = name->addresses[i]};
        bool known = false;

        addr_set_port(&one.addr, port);
        if (srv != NULL) {
            one.backup = srv->priority != best_priority;
            one.srv_weight = srv->weight != 0 ? srv->weight : 1;
        }
        for (size_t k = 0; srv != NULL && k < list->n && !known; k++)
            known = addr_equal(&list->items[k].addr, &one.addr);
        if (known)
            continue;
        list->is_cut |= list->n == list->max;
        if (list->n < list->max)
            list->items[list->n++] = one;
    }
}

/* 0; -EAGAIN: nothing to hand out (yet); -ENOMEM. ret->items is to be freed. */
static int list_make(const struct name *name, uint16_t port, struct list *ret)
{
    struct list list = {.max = name->resolver->policy.max_addresses};
    bool all_answered = true;

    if (!name->answered || !is_complete(name))
        return -EAGAIN;
    list.items = calloc(list.max, sizeof(*list.items));
    if (list.items == NULL)
        return -ENOMEM;
    if (!name->is_service)
        list_add(&list, name, port, NULL, 0);
    for (size_t i = 0; i < name->n_services; i++) {
        const struct answer_srv *srv = &name->services[i];

        list_add(&list, name->targets[i]->name, srv->port, srv, name->services[0].priority);
        all_answered &= name->targets[i]->name->answered;
    }
    if (list.n == 0 && !all_answered) {
        free(list.items);
        return -EAGAIN;
    }
    *ret = list;
    return 0;
}

static void on_deliver(uv_timer_t *timer);

void lookup_set_due(struct lookup *lookup)
{
    struct resolver *resolver = lookup->name->resolver;

    if (lookup->is_due)
        return;
    lookup->is_due = true;
    DL_APPEND2(resolver->due, lookup, due_prev, due_next);
    if (!uv_is_active((uv_handle_t *) &resolver->deliver))
        uv_timer_start(&resolver->deliver, on_deliver, 0, 0);
}

void lookup_clear_due(struct lookup *lookup)
{
    if (!lookup->is_due)
        return;
    lookup->is_due = false;
    DL_DELETE2(lookup->name->resolver->due, lookup, due_prev, due_next);
}

void name_hand_out(struct name *name, bool is_news)
{
    struct lookup *lookup;

    DL_FOREACH(name->lookups, lookup)
    {
        if (lookup->owner != NULL && is_news)
            name_hand_out(lookup->owner, true);
        else if (lookup->owner == NULL && (is_news || lookup->refused))
            lookup_set_due(lookup);
    }
}

static void note_limit(struct name *name, bool is_cut)
{
    if (is_cut && !name->limited)
        log_warn("name %s has more than the %u addresses that are used (resolve_addresses)",
                 name_host(name), name->resolver->policy.max_addresses);
    name->limited = is_cut;
}

/* One a turn: its callback may cancel or add others, or end it all. */
static void on_deliver(uv_timer_t *timer)
{
    struct resolver *resolver = timer->data;
    struct lookup *lookup = resolver->due;
    struct list list;
    int err;

    if (lookup == NULL)
        return;
    lookup_clear_due(lookup);
    if (resolver->due != NULL)
        uv_timer_start(&resolver->deliver, on_deliver, 0, 0);
    err = list_make(lookup->name, lookup->port, &list);
    if (err == -EAGAIN)
        return; /* name_hand_out() comes again when that has changed */
    resolver->delivering = lookup;
    if (err == 0) {
        note_limit(lookup->name, list.is_cut || lookup->name->is_cut);
        lookup->is_whole |=
            name_knows(lookup->name, QUESTION_IPV4) && name_knows(lookup->name, QUESTION_IPV6);
        err = lookup->cb(lookup->user, list.items, list.n);
        free(list.items);
    }
    if (resolver->delivering == lookup) {
        lookup->served = err == 0;
        lookup->refused = err != 0;
        if (lookup->refused)
            name_ask_again(lookup->name);
    }
    resolver->delivering = NULL;
}
