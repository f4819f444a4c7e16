/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What workers count of a peer beyond plain sums: passive failures, by nginx's max_fails and
 * fail_timeout, and latencies. Each is one 8-byte word that is changed by compare and exchange.
 */
#ifndef DURPINA_COUNTERS_H
#define DURPINA_COUNTERS_H

#include "durpina_abi.h"
#include "durpina_seq.h"

/*
 * The way of nearly all picks is one piece of code, in which what was seen stays in registers, and
 * what is rarely needed is apart from it. Compilers would rather have the code once.
 */
#define DURPINA_INLINE static inline __attribute__((always_inline))
#ifdef __bpf__
#define DURPINA_IN_KERNEL 1
#define DURPINA_APART DURPINA_INLINE /* calls take of the 512 bytes of stack that there are */
#else
#define DURPINA_IN_KERNEL 0
#define DURPINA_APART static __attribute__((noinline, unused))
#endif

/* Changes to a word that others change as well are tried again until they succeed; programs in the
 * kernel must be seen to end, and leave it at that. */
#define DURPINA_ATTEMPTS 8

static inline int durpina_may_try(uint32_t attempt)
{
    return !DURPINA_IN_KERNEL || attempt < DURPINA_ATTEMPTS;
}

/* fails, ahead and fails_at_ms change together: they are one 8-byte word. */
union durpina_fails {
    struct {
        uint16_t fails;
        int16_t ahead;
        uint32_t at_ms;
    };
    uint64_t word;
};

/* Who tells of a failure. */
enum durpina_witness {
    DURPINA_WORKER,         /* that saw it alone */
    DURPINA_WORKER_CONNECT, /* that failed to connect: the kernel will tell of it too, or has */
    DURPINA_KERNEL,         /* through durpinad: a connect() of any process that failed */
};

/* How long either waits for the other to tell of the same failure. */
#define DURPINA_AHEAD_MS 1000

/*
 * Workers read their clocks at most this far apart; nginx caches the time of each turn of its loop.
 */
#define DURPINA_CLOCK_SKEW_MS 60000U

/*
 * Is timeout_ms over since at_ms, on the clock modulo 2^32? An age close to 2^32 is a negative one.
 */
static inline int durpina_is_over(uint32_t at_ms, uint32_t timeout_ms, uint64_t now_ms)
{
    uint32_t age_ms = (uint32_t) now_ms - at_ms;

    return age_ms > timeout_ms && age_ms <= UINT32_MAX - DURPINA_CLOCK_SKEW_MS;
}

/* Two fields that change together are one 8-byte word. */
typedef uint64_t __attribute__((may_alias)) durpina_alias_u64;

static inline durpina_alias_u64 *durpina_alias(const void *p)
{
    return (durpina_alias_u64 *) (uintptr_t) p;
}

/* Failures with no pause longer than fail_timeout_ms between them, nor since the last. */
static inline uint32_t durpina_fails(const struct durpina_counters *c, uint32_t fail_timeout_ms,
                                     uint64_t now_ms)
{
    union durpina_fails f = {.word = DURPINA_LOAD(durpina_alias(&c->fails))};

    return durpina_is_over(f.at_ms, fail_timeout_ms, now_ms) ? 0 : f.fails;
}

/*
 * Tries that have ended. Each is counted after it has left `active`: who reads that first may see a
 * try twice, but none too few for longer than its end takes.
 */
static inline uint64_t durpina_requests(const struct durpina_counters *c)
{
    uint64_t n = DURPINA_LOAD(&c->unanswered);

    for (uint32_t i = 0; i < sizeof(c->responses) / sizeof(c->responses[0]); i++)
        n += DURPINA_LOAD(&c->responses[i]);
    return n;
}

/* Non-zero while passive failures keep the peer from taking requests. */
static inline int durpina_is_temp_down(const struct durpina_counters *c, uint64_t now_ms)
{
    return DURPINA_LOAD(&c->down_until_ms) > now_ms;
}

/*
 * Makes the peer temporarily down for fail_timeout_ms from now on, in every worker at once.
 */
static inline void durpina_set_temp_down(struct durpina_counters *c, uint32_t fail_timeout_ms,
                                         uint64_t now_ms)
{
    if (__atomic_exchange_n(&c->down_until_ms, now_ms + fail_timeout_ms, __ATOMIC_RELAXED) == 0)
        __atomic_fetch_add(&c->unavail, 1, __ATOMIC_RELAXED);
}

/* Forgets the failures of the peer: it is not failing nor temporarily down any more. */
static inline void durpina_clear_fails(struct durpina_counters *c)
{
    DURPINA_STORE(durpina_alias(&c->fails), 0);
    DURPINA_STORE(&c->down_until_ms, 0);
}

/*
 * Counts one failure (nginx's max_fails and fail_timeout): max_fails of them with no pause longer
 * than fail_timeout in between make the peer temporarily down for fail_timeout, and so does a
 * single one of a peer that was temporarily down before. max_fails 0: nothing but the total is
 * counted. single: the only peer of its upstream is never taken out. Returns the failures in the
 * window, this one included.
 *
 * A connect() of a worker that fails is told twice, by the worker and by the kernel, in any order.
 * Who is first counts it and notes in `ahead` that the other one is behind; the other one makes up
 * for it and counts nothing. Another process's is told by the kernel alone. Should a worker take
 * that note for its own, the kernel's word on the worker's failure counts instead: the sum is right
 * either way. What is still ahead DURPINA_AHEAD_MS after the last failure is forgotten, so a
 * witness that has gone (durpinad stopped, a worker that nobody observes) hides no failure.
 */
static inline uint32_t durpina_add_fail(struct durpina_counters *c, uint32_t max_fails,
                                        uint32_t fail_timeout_ms, int single,
                                        enum durpina_witness witness, uint64_t now_ms)
{
    union durpina_fails old, next;
    int known;

    if (witness != DURPINA_KERNEL)
        __atomic_fetch_add(&c->failed, 1, __ATOMIC_RELAXED);
    if (max_fails == 0)
        return 0;

    old.word = DURPINA_LOAD(durpina_alias(&c->fails));
    do {
        int32_t ahead = durpina_is_over(old.at_ms, DURPINA_AHEAD_MS, now_ms) ? 0 : old.ahead;

        known = (witness == DURPINA_WORKER_CONNECT && ahead > 0) ||
                (witness == DURPINA_KERNEL && ahead < 0);
        ahead += witness == DURPINA_KERNEL && ahead < INT16_MAX;
        ahead -= witness == DURPINA_WORKER_CONNECT && ahead > INT16_MIN;
        next = old;
        next.ahead = (int16_t) ahead;
        if (known)
            continue;
        if (durpina_is_over(old.at_ms, fail_timeout_ms, now_ms))
            next.fails = 1;
        else if (old.fails < UINT16_MAX)
            next.fails++;
        next.at_ms = (uint32_t) now_ms;
    } while (!__atomic_compare_exchange_n(durpina_alias(&c->fails), &old.word, next.word, 0,
                                          __ATOMIC_RELAXED, __ATOMIC_RELAXED));

    if (max_fails > UINT16_MAX)
        max_fails = UINT16_MAX;
    if (!known && !single && (next.fails >= max_fails || DURPINA_LOAD(&c->down_until_ms) != 0))
        durpina_set_temp_down(c, fail_timeout_ms, now_ms);
    return next.fails;
}

/* --- latencies --- */

#define DURPINA_EWMA_TICK_MS 256
#define DURPINA_EWMA_HALF_LIFE 27 /* ticks: the share of a sample is 1/e after 10 s */
#define DURPINA_EWMA_ONE 256      /* one sample in durpina_ewma.samples ... */
#define DURPINA_EWMA_SAMPLES_MAX                                                                   \
    (255 * DURPINA_EWMA_ONE) /* ... and the most that a mean stands for */
#define DURPINA_EWMA_US 16   /* a microsecond in durpina_ewma.mean */

/* What an error counts as, unless it took longer or the mean is more than half of it. */
#define DURPINA_ERROR_MS 1000

union durpina_ewma_word {
    struct durpina_ewma ewma;
    uint64_t word;
};

static inline struct durpina_ewma durpina_read_ewma(const struct durpina_ewma *from)
{
    union durpina_ewma_word w = {.word = DURPINA_LOAD(durpina_alias(from))};

    return w.ewma;
}

/*
 * Halves value each half life. In between it follows the parabola that starts as steep as the
 * exponential does and meets it at the half: however often it is called, the half life is the same.
 */
DURPINA_APART uint32_t durpina_decay(uint32_t value, uint32_t ticks)
{
    uint32_t halvings = ticks / DURPINA_EWMA_HALF_LIFE, rest = ticks % DURPINA_EWMA_HALF_LIFE;

    if (halvings > 31)
        return 0;
    value >>= halvings;
    return value - (uint32_t) ((uint64_t) value * rest * (97 - rest) /
                               (2 * DURPINA_EWMA_HALF_LIFE * (97 - DURPINA_EWMA_HALF_LIFE)));
}

/* Ticks since the last sample; a clock that lags behind the one of that sample has none. */
static inline uint32_t durpina_ewma_age(const struct durpina_ewma *e, uint64_t now_ms)
{
    uint16_t age = (uint16_t) (now_ms / DURPINA_EWMA_TICK_MS - e->at);

    return age > UINT16_MAX - DURPINA_CLOCK_SKEW_MS / DURPINA_EWMA_TICK_MS ? 0 : age;
}

/*
 * A mean of this age as it counts now. It fades once no sample has come for a half life, so that a
 * peer that was slow once is tried again.
 */
static inline uint32_t durpina_ewma_fade(uint32_t mean, uint32_t age)
{
    return age <= DURPINA_EWMA_HALF_LIFE ? mean : durpina_decay(mean, age - DURPINA_EWMA_HALF_LIFE);
}

/* The part of a difference that one of so many samples makes; nearly always they are the most. */
static inline uint32_t durpina_ewma_part(uint64_t difference, uint32_t samples)
{
    difference *= DURPINA_EWMA_ONE;
    if (samples == DURPINA_EWMA_SAMPLES_MAX)
        return (uint32_t) (difference / DURPINA_EWMA_SAMPLES_MAX); /* a multiplication */
    return (uint32_t) (difference / samples);
}

/*
 * Adds a sample, in 1/16 microsecond. While it decays with time, the mean is that of all samples
 * alike, however many come in one tick: none is lost. One that changes nothing, as most do of a
 * peer that is always as fast, leaves the line to the other workers.
 */
static inline void durpina_add_sample(struct durpina_ewma *to, uint64_t sample, int is_error,
                                      uint64_t now_ms)
{
    union durpina_ewma_word old = {.word = DURPINA_LOAD(durpina_alias(to))}, next;

    for (uint32_t attempt = 0; durpina_may_try(attempt); attempt++) {
        uint32_t age = durpina_ewma_age(&old.ewma, now_ms);
        uint32_t samples = old.ewma.samples, mean = old.ewma.mean;
        uint64_t x = sample;

        if (age != 0) {
            samples = durpina_decay(samples, age);
            mean = durpina_ewma_fade(mean, age);
        }
        if (is_error && x < DURPINA_ERROR_MS * 1000ULL * DURPINA_EWMA_US)
            x = DURPINA_ERROR_MS * 1000ULL * DURPINA_EWMA_US;
        if (is_error && x < 2ULL * mean)
            x = 2ULL * mean;
        if (x > UINT32_MAX)
            x = UINT32_MAX;
        samples += DURPINA_EWMA_ONE;
        if (samples > DURPINA_EWMA_SAMPLES_MAX)
            samples = DURPINA_EWMA_SAMPLES_MAX;
        next.ewma.samples = (uint16_t) samples;
        /* Unsigned: BPF has no signed division before its fourth instruction set. */
        if (x >= mean)
            next.ewma.mean = mean + durpina_ewma_part(x - mean, samples);
        else
            next.ewma.mean = mean - durpina_ewma_part(mean - x, samples);
        next.ewma.at = (uint16_t) (now_ms / DURPINA_EWMA_TICK_MS);
        if (next.word == old.word ||
            __atomic_compare_exchange_n(durpina_alias(to), &old.word, next.word, 0,
                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            break;
    }
}

static inline void durpina_add_latency(struct durpina_ewma *to, uint32_t ms, int is_error,
                                       uint64_t now_ms)
{
    durpina_add_sample(to, (uint64_t) ms * 1000 * DURPINA_EWMA_US, is_error, now_ms);
}

/* The mean as it was with the last sample, in microseconds and at least 1; 0: no sample yet. */
static inline uint64_t durpina_mean_us(const struct durpina_ewma *from)
{
    struct durpina_ewma e = durpina_read_ewma(from);

    return e.samples == 0 ? 0 : e.mean / DURPINA_EWMA_US + 1;
}

/* The mean as it counts now, likewise. */
static inline uint64_t durpina_latency_us(const struct durpina_ewma *from, uint64_t now_ms)
{
    struct durpina_ewma e = durpina_read_ewma(from);

    if (e.samples == 0)
        return 0;
    return durpina_ewma_fade(e.mean, durpina_ewma_age(&e, now_ms)) / DURPINA_EWMA_US + 1;
}

#endif
