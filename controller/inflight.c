/* SPDX-License-Identifier: MIT */
#include "inflight.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "log.h"
#include "process.h"

/* Workers that one check remembers; beyond, it looks some of them up more than once. */
#define OWNERS 256

/* What a check found out about the owner of pages. */
struct owner {
    struct durpina_worker worker;
    bool gone;
    bool left; /* pages are free that were not before */
    uint32_t given;
    uint32_t doubts;
};

struct inflight {
    struct durpina_maps maps;
    uint64_t pid_namespace; /* of this process; 0: unknown */
    bool told_foreign;
    struct owner owners[OWNERS];
    bool *in_doubt;         /* pages of the dead that are not free yet */
    uint32_t first_doubted; /* the page to recount first: each has its turn */
    uint32_t *owned;        /* pages, when the recount began */
    uint32_t n_owned;
    struct durpina_try (*seen)[DURPINA_TRIES_PER_PAGE]; /* in them, at the first look */
    uv_timer_t timer;
    bool started;
};

/* --- the map ---------------------------------------------------------------------------------- */

static struct durpina_try read_try(const struct durpina_try *from)
{
    union {
        struct durpina_try try;
        uint64_t word;
    } w = {.word = DURPINA_LOAD(durpina_alias(from))};

    return w.try;
}

static struct durpina_worker read_worker(const struct durpina_inflight *page)
{
    union {
        struct durpina_worker worker;
        uint64_t word;
    } w = {.word = __atomic_load_n(durpina_alias(&page->owner), __ATOMIC_ACQUIRE)};

    return w.worker;
}

static void free_try(struct durpina_try *entry)
{
    durpina_note_step(entry, DURPINA_TRY_FREE);
}

/* The owner last: who claims the page finds it as it is to be. */
static void free_page(struct durpina_inflight *page)
{
    DURPINA_STORE(&page->pid_namespace, 0);
    __atomic_store_n(durpina_alias(&page->owner), 0, __ATOMIC_RELEASE);
}

/* Workers add and subtract meanwhile. */
static void lower(uint32_t *active, uint32_t by)
{
    uint32_t old = DURPINA_LOAD(active);

    while (!__atomic_compare_exchange_n(active, &old, old > by ? old - by : 0, 0, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED))
        ;
}

static struct durpina_cursor *cursor_of(const struct inflight *inflight, uint32_t peer)
{
    uint32_t upstream = DURPINA_LOAD(&inflight->maps.peers[peer].upstream);

    return upstream < inflight->maps.n_upstreams ? &inflight->maps.cursors[upstream] : NULL;
}

/* --- owners ----------------------------------------------------------------------------------- */

static void tell(const struct owner *owner)
{
    if (!owner->gone || (!owner->left && owner->given == 0))
        return;
    if (owner->doubts == 0)
        log_notice("worker %u is gone: gave back its %u requests in flight", owner->worker.pid,
                   owner->given);
    else
        log_notice("worker %u is gone: gave back its %u requests in flight, recounting %u more",
                   owner->worker.pid, owner->given, owner->doubts);
}

static struct owner *look_up(struct inflight *inflight, struct durpina_worker worker)
{
    struct owner *owner = &inflight->owners[worker.pid % OWNERS];

    if (owner->worker.pid != worker.pid || owner->worker.started != worker.started) {
        tell(owner);
        *owner = (struct owner){
            .worker = worker,
            .gone = worker.pid > INT32_MAX || process_is_gone((pid_t) worker.pid, worker.started),
        };
    }
    return owner;
}

/* A worker that claimed its page this moment has not said so yet: it counts as one of ours. */
static bool is_foreign(struct inflight *inflight, const struct durpina_inflight *page)
{
    uint64_t pid_namespace = DURPINA_LOAD(&page->pid_namespace);
    bool foreign = pid_namespace != 0 && inflight->pid_namespace != 0 &&
                   pid_namespace != inflight->pid_namespace;

    if (foreign && !inflight->told_foreign) {
        log_warn(
            "worker %u is in another pid namespace: if such workers are killed, their requests "
            "in flight stay counted; run durpinad where it sees their pids",
            read_worker(page).pid);
        inflight->told_foreign = true;
    }
    return foreign;
}

/* --- giving back ------------------------------------------------------------------------------ */

static void give_back(struct inflight *inflight, struct durpina_try *entry, struct durpina_try try)
{
    struct durpina_cursor *cursor = cursor_of(inflight, try.peer);

    durpina_note_step(entry, DURPINA_TRY_GIVING);
    lower(&inflight->maps.counters[try.peer].active, 1);
    if (cursor != NULL && try.in_upstream)
        lower(&cursor->active, 1);
    __atomic_fetch_add(&inflight->maps.counters[try.peer].unanswered, 1, __ATOMIC_RELAXED);
    free_try(entry);
}

/* Gives back what was counted for certain; what is in doubt stays. */
static void give_back_page(struct inflight *inflight, uint32_t page, struct owner *owner)
{
    struct durpina_inflight *p = &inflight->maps.inflight[page];
    uint32_t doubts = 0;

    for (uint32_t i = 0; i < DURPINA_TRIES_PER_PAGE; i++) {
        struct durpina_try try = read_try(&p->tries[i]);

        if (try.step == DURPINA_TRY_FREE)
            continue;
        if (try.step > DURPINA_TRY_GIVING || try.peer >= inflight->maps.n_peers) {
            free_try(&p->tries[i]);
        } else if (try.step == DURPINA_TRY_TAKEN) {
            give_back(inflight, &p->tries[i], try);
            owner->given++;
        } else {
            doubts++;
        }
    }
    owner->doubts += doubts;
    inflight->in_doubt[page] = doubts != 0;
    if (doubts == 0) {
        free_page(p);
        owner->left = true;
    }
}

/* --- recounting ------------------------------------------------------------------------------- */

/* What the looks say about one `active`. */
struct recount {
    uint32_t *active;
    uint32_t peer;                     /* whose it is, or DURPINA_NONE ... */
    uint32_t upstream;                 /* ... and of this upstream */
    uint32_t counted, perhaps, doubts; /* of this look */
    uint32_t low, high;                /* the surplus, of all looks */
};

static bool concerns(const struct inflight *inflight, const struct recount *recount,
                     struct durpina_try try)
{
    if (recount->peer != DURPINA_NONE)
        return try.peer == recount->peer;
    return try.in_upstream && try.peer < inflight->maps.n_peers &&
           DURPINA_LOAD(&inflight->maps.peers[try.peer].upstream) == recount->upstream;
}

static void tally(const struct inflight *inflight, struct recount *recount, bool dead,
                  struct durpina_try first, struct durpina_try second)
{
    bool same = first.step == second.step && first.turn == second.turn;

    if (same && (second.step == DURPINA_TRY_FREE || !concerns(inflight, recount, second)))
        return;
    if (same && second.step == DURPINA_TRY_TAKEN)
        recount->counted++;
    else if (same && dead)
        recount->doubts++;
    else if (concerns(inflight, recount, second) ||
             (first.step != DURPINA_TRY_FREE && concerns(inflight, recount, first)) ||
             (uint16_t) (second.turn - first.turn) > 1)
        recount->perhaps++;
}

static void narrow(struct recount *recount, uint32_t active, bool untracked)
{
    uint32_t most = active > recount->counted ? active - recount->counted : 0;
    uint32_t least = !untracked && most > recount->perhaps ? most - recount->perhaps : 0;

    if (most > recount->doubts)
        most = recount->doubts;
    if (recount->high > most)
        recount->high = most;
    if (recount->low < least)
        recount->low = least;
    /* `active` is off for another reason: no more than the dead can have left. */
    if (recount->low > recount->high)
        recount->low = recount->high;
}

static void look(struct inflight *inflight, struct recount recounts[2],
                 const struct durpina_cursor *cursor)
{
    uint64_t began_ns = uv_hrtime();
    uint32_t active[2];

    for (uint32_t i = 0; i < inflight->n_owned; i++)
        for (uint32_t t = 0; t < DURPINA_TRIES_PER_PAGE; t++)
            inflight->seen[i][t] = read_try(&inflight->maps.inflight[inflight->owned[i]].tries[t]);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);

    /* A try without an entry is untracked for longer than it is active. */
    bool untracked = __atomic_load_n(&cursor->untracked, __ATOMIC_ACQUIRE) != 0;

    for (int r = 0; r < 2; r++) {
        active[r] = __atomic_load_n(recounts[r].active, __ATOMIC_ACQUIRE);
        recounts[r].counted = recounts[r].perhaps = recounts[r].doubts = 0;
    }
    untracked = untracked || __atomic_load_n(&cursor->untracked, __ATOMIC_ACQUIRE) != 0;

    for (uint32_t i = 0; i < inflight->n_owned; i++) {
        uint32_t page = inflight->owned[i];

        for (uint32_t t = 0; t < DURPINA_TRIES_PER_PAGE; t++) {
            struct durpina_try second = read_try(&inflight->maps.inflight[page].tries[t]);

            for (int r = 0; r < 2; r++)
                tally(inflight, &recounts[r], inflight->in_doubt[page], inflight->seen[i][t],
                      second);
        }
    }
    if (uv_hrtime() - began_ns > INFLIGHT_LOOK_US * 1000ULL)
        return;
    for (int r = 0; r < 2; r++)
        narrow(&recounts[r], active[r], untracked);
}

static void list_owned(struct inflight *inflight)
{
    inflight->n_owned = 0;
    for (uint32_t page = 0; page < inflight->maps.n_inflight; page++)
        if (read_worker(&inflight->maps.inflight[page]).pid != 0)
            inflight->owned[inflight->n_owned++] = page;
}

/* Tries in a page that was claimed since have been overlooked. */
static bool others_are_owned(const struct inflight *inflight)
{
    uint32_t i = 0;

    for (uint32_t page = 0; page < inflight->maps.n_inflight; page++) {
        if (i < inflight->n_owned && inflight->owned[i] == page)
            i++;
        else if (read_worker(&inflight->maps.inflight[page]).pid != 0)
            return true;
    }
    return false;
}

static bool is_decided(const struct recount recounts[2])
{
    return recounts[0].low == recounts[0].high && recounts[1].low == recounts[1].high;
}

/*
 * Takes what the tries in doubt of this peer, and of its upstream, have left too many off both
 * `active`. Done again it finds nothing left. False if time is over before that is known.
 */
static bool recount(struct inflight *inflight, uint32_t peer, uint64_t end_ns, uint32_t *ret_given)
{
    struct durpina_cursor *cursor = cursor_of(inflight, peer);
    struct recount recounts[2] = {
        {.active = &inflight->maps.counters[peer].active, .peer = peer, .high = UINT32_MAX},
        {.peer = DURPINA_NONE, .high = UINT32_MAX},
    };

    if (cursor == NULL) {
        *ret_given = 0;
        return true;
    }
    recounts[1].active = &cursor->active;
    recounts[1].upstream = (uint32_t) (cursor - inflight->maps.cursors);
    list_owned(inflight);
    do
        look(inflight, recounts, cursor);
    while (!is_decided(recounts) && uv_hrtime() < end_ns);
    if (!is_decided(recounts) || others_are_owned(inflight))
        return false;
    for (int r = 0; r < 2; r++)
        lower(recounts[r].active, recounts[r].low);
    *ret_given = recounts[0].low;
    return true;
}

/* Returns whether the page is free now. */
static bool recount_page(struct inflight *inflight, uint32_t page, uint64_t end_ns)
{
    struct durpina_inflight *p = &inflight->maps.inflight[page];
    struct owner *owner = look_up(inflight, read_worker(p));

    for (uint32_t i = 0; i < DURPINA_TRIES_PER_PAGE; i++) {
        struct durpina_try try = read_try(&p->tries[i]);
        uint32_t given = 0;

        if (try.step == DURPINA_TRY_FREE)
            continue;
        /* Read again, so bounded again. */
        if (try.peer < inflight->maps.n_peers && !recount(inflight, try.peer, end_ns, &given))
            return false;
        free_try(&p->tries[i]);
        owner->given += given;
        owner->doubts--;
    }
    inflight->in_doubt[page] = false;
    owner->left = true;
    free_page(p);
    return true;
}

static void recount_pages(struct inflight *inflight)
{
    uint64_t end_ns = uv_hrtime() + INFLIGHT_RECOUNT_US * 1000ULL;
    uint32_t n = inflight->maps.n_inflight, first = inflight->first_doubted;

    for (uint32_t i = 0; i < n && uv_hrtime() < end_ns; i++) {
        uint32_t page = (first + i) % n;

        if (inflight->in_doubt[page] && !recount_page(inflight, page, end_ns))
            inflight->first_doubted = (page + 1) % n;
    }
}

/* --- public ----------------------------------------------------------------------------------- */

void inflight_check(struct inflight *inflight)
{
    bool in_doubt = false;

    memset(inflight->owners, 0, sizeof(inflight->owners));
    for (uint32_t page = 0; page < inflight->maps.n_inflight; page++) {
        const struct durpina_inflight *p = &inflight->maps.inflight[page];
        struct durpina_worker worker = read_worker(p);
        struct owner *owner;

        inflight->in_doubt[page] = false;
        if (worker.pid == 0 || is_foreign(inflight, p))
            continue;
        owner = look_up(inflight, worker);
        if (owner->gone)
            give_back_page(inflight, page, owner);
        in_doubt = in_doubt || inflight->in_doubt[page];
    }
    if (in_doubt)
        recount_pages(inflight);
    for (size_t i = 0; i < OWNERS; i++)
        tell(&inflight->owners[i]);
}

struct inflight_usage inflight_usage(const struct durpina_maps *maps)
{
    struct inflight_usage usage = {.capacity =
                                       (uint64_t) maps->n_inflight * DURPINA_TRIES_PER_PAGE};

    for (uint32_t page = 0; page < maps->n_inflight; page++)
        if (read_worker(&maps->inflight[page]).pid != 0)
            usage.claimed += DURPINA_TRIES_PER_PAGE;
    for (uint32_t upstream = 0; upstream < maps->n_upstreams; upstream++)
        usage.untracked += DURPINA_LOAD(&maps->cursors[upstream].untracked);
    return usage;
}

int inflight_create(const struct durpina_maps *maps, struct inflight **ret)
{
    struct inflight *inflight = calloc(1, sizeof(*inflight));
    struct stat st;

    if (inflight == NULL)
        return -ENOMEM;
    inflight->maps = *maps;
    inflight->in_doubt = calloc(maps->n_inflight, sizeof(*inflight->in_doubt));
    inflight->owned = calloc(maps->n_inflight, sizeof(*inflight->owned));
    inflight->seen = calloc(maps->n_inflight, sizeof(*inflight->seen));
    if (inflight->in_doubt == NULL || inflight->owned == NULL || inflight->seen == NULL) {
        inflight_destroy(inflight);
        return -ENOMEM;
    }
    if (stat("/proc/self/ns/pid", &st) == 0)
        inflight->pid_namespace = st.st_ino;
    *ret = inflight;
    return 0;
}

static void on_timer(uv_timer_t *timer)
{
    inflight_check(timer->data);
}

void inflight_start(struct inflight *inflight, uv_loop_t *loop)
{
    uv_timer_init(loop, &inflight->timer);
    inflight->timer.data = inflight;
    inflight->started = true;
    inflight_check(inflight);
    uv_timer_start(&inflight->timer, on_timer, INFLIGHT_CHECK_MS, INFLIGHT_CHECK_MS);
}

static void release(struct inflight *inflight)
{
    free(inflight->in_doubt);
    free(inflight->owned);
    free(inflight->seen);
    free(inflight);
}

static void on_closed(uv_handle_t *handle)
{
    release(handle->data);
}

void inflight_destroy(struct inflight *inflight)
{
    if (inflight == NULL)
        return;
    if (inflight->started)
        uv_close((uv_handle_t *) &inflight->timer, on_closed);
    else
        release(inflight);
}
