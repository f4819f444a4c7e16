/* SPDX-License-Identifier: MIT */
/*
 * The resolver's own parts:
 *
 *     resolve.c           the resolver and the lookups of its callers
 *     resolve_schedule.c  when a name is asked for
 *     resolve_name.c      what an answer or a failure makes of what is known of a name
 *     resolve_deliver.c   what is handed out to callers, and when
 *     resolve_question.c  one host or service asked for once
 *     resolve_answer.c    what a DNS answer says
 *     resolve_dns.c       c-ares on the loop
 *     resolve_hosts.c     the hosts file
 */
#ifndef DURPINAD_RESOLVE_INTERNAL_H
#define DURPINAD_RESOLVE_INTERNAL_H

#include <uthash.h>

#include "log.h"
#include "resolve.h"
#include "resolve_question.h"

#define RESOLVE_FILES 2
#define RESOLVE_LOG_MS 60000 /* rows of failures of one name are logged as often at most */

/* Somebody's interest in a name: a caller's, or that of SRV records in one of their targets. */
struct lookup {
    struct name *name;
    struct lookup *prev, *next;         /* of those in the name */
    struct lookup *due_prev, *due_next; /* of those that are to be called */
    bool is_due;
    bool has_addresses;
    bool is_whole; /* has been called with an answer that lacks nothing */
    bool served;   /* took what it was called with */
    bool refused;  /* could not take what it was called with */
    uint16_t port;
    lookup_cb cb;
    void *user;
    struct name *owner; /* the name with the SRV records; NULL: a caller's */
};

struct name {
    struct resolver *resolver;
    bool is_service;
    bool asked;                    /* at asked_ms, on the loop's clock */
    bool settled;                  /* the first question has ended, somehow */
    bool answered;                 /* what is known is known from an answer */
    bool knows[QUESTION_FAMILIES]; /* this one has been answered, be it with nothing */
    bool is_cut;                   /* its answer was longer than the policy allows */
    bool limited;                  /* and that has been logged */
    uint64_t asked_ms;
    struct question *question; /* under way */
    struct addr *addresses;
    size_t n_addresses;
    struct answer_srv *services;
    size_t n_services;
    struct lookup **targets; /* one for each of services */
    struct lookup *lookups;
    uint64_t answered_ms;
    uint32_t ttl_ms;
    uint32_t n_failures; /* in a row */
    uint32_t n_nxdomain; /* in a row */
    const char *reason;  /* of the last failure, a literal; "" */
    bool is_reported;    /* this row of failures has been logged */
    struct log_throttle throttle;
    uv_timer_t timer;
    UT_hash_handle hh; /* by key */
    char key[];        /* 'S' for SRV records or 'A', then the host in lower case */
};

struct resolver {
    uv_loop_t *loop;
    struct dns *dns;
    struct hosts *hosts;
    struct resolve_policy policy;
    struct name *names;
    struct lookup *due;
    struct lookup *delivering; /* its callback runs; NULL: it has cancelled itself meanwhile */
    uv_timer_t deliver;        /* runs while there are lookups that are due */
    uv_fs_poll_t files[RESOLVE_FILES];
    bool closing;
    unsigned n_open; /* handles, those of names too */
};

static inline const char *name_host(const struct name *name)
{
    return name->key + 1;
}

/* --- resolve.c --- */

/* With the properties of `as`; a new name is asked for. 0 or -ENOMEM. */
int lookup_start(struct resolver *resolver, const char *host, bool is_service,
                 const struct lookup *as, struct lookup **ret);

/* --- resolve_schedule.c --- */

/* 0 to max. */
uint64_t resolver_random(uint64_t max);
uint64_t resolver_pace_ms(const struct resolver *resolver);
/* For how long a TTL is taken; UINT32_MAX: for as long as may be. */
uint32_t resolver_clamp_ttl(const struct resolver *resolver, uint32_t ttl_s);
/* Is it to be asked for at all, as things stand? */
bool name_is_wanted(const struct name *name);
/* Unless it is being asked for, or is to be sooner anyway. */
void name_ask_within(struct name *name, uint64_t delay_ms);
void name_ask_first(struct name *name, bool has_addresses);
void name_ask_at_ttl(struct name *name);
void name_ask_again(struct name *name);

/* --- resolve_name.c --- */

/* The timer of a name: asks for it; one without lookups goes. */
void name_on_time(uv_timer_t *timer);
void name_forget_answer(struct name *name);
/* One without lookups. */
void name_free(struct name *name);
/* The resolver's memory goes with its last handle. */
void resolver_on_closed(uv_handle_t *handle);

/* --- resolve_deliver.c --- */

/* To all that look at the name, or to those only that could not take it before. */
void name_hand_out(struct name *name, bool is_news);
/* Of SRV records: do all their targets know it? */
bool name_knows(const struct name *name, size_t family);
void lookup_set_due(struct lookup *lookup);
void lookup_clear_due(struct lookup *lookup);

#endif
