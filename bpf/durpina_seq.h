/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * How durpinad publishes a state of an upstream and how a reader reads one whole state, without
 * locks, without waiting, and with either side killed at any instruction.
 *
 * Writer (one per map, durpinad)              Reader (any number, any process)
 *
 *     w = publish                             r0: w = durpina_seq_begin(&publish)   acquire
 *     durpina_seq_open()              fence       read copy w & 1, the tables it names, the
 *     write copy (w + 1) & 1                      settings copy w & 1 of the peers they name
 *     durpina_seq_publish(&publish, w + 1)    r1: durpina_seq_retry(&publish, w)    fence, reload
 *     durpina_seq_open()              fence       changed: again, at most DURPINA_SEQ_RETRIES times
 *     write copy w & 1 likewise
 *
 * Why it is right
 *  - Whole: a reader that finds w unchanged at r1 has read nothing written after w. The writer
 *    touches copy w & 1, a table named by it or a peer named by such a table only after it has
 *    stored w + 1 and passed durpina_seq_open(), a release fence. Had the reader seen one such
 *    store, the fence in durpina_seq_retry() would synchronise with that release fence (C11
 *    7.17.4), and the reload would return w + 1 or later. Values do not come back: the word is 64
 *    bits wide and only grows (10^6 publications a second wrap it after 500,000 years).
 *  - New: durpina_seq_publish() is a release store and durpina_seq_begin() an acquire load, so who
 *    sees w + 1 sees everything written for it.
 *  - Killed writer: up to the store of w + 1 readers use w, from then on w + 1, both complete.
 *    There is no odd "being written" value, so nothing is ever locked. The next controller finds
 *    the copy in force by the same word and rewrites the other one.
 *  - No waiting: a reader retries only when a publication overtook it. A pick reads for tens of
 *    nanoseconds, publications are microseconds apart; a reader that was overtaken every time takes
 *    what it read last, which is bounded (rule 5 of durpina_abi.h) and at most one publication old.
 *  - Data race freedom: what may be read while it is written is accessed through DURPINA_LOAD and
 *    DURPINA_STORE, relaxed atomics of at most 8 bytes. Strings are identity (rule 3), not state.
 *
 * A plain seqlock fails on the last two counts: a hot writer starves readers and a writer killed
 * between its two increments blocks them for ever.
 *
 * In BPF programs, which only read, an acquire load and a fence are a fetching atomic, which BPF
 * defines as full barrier, and mere compiler barriers where the CPU keeps loads in order (x86).
 */
#ifndef DURPINA_SEQ_H
#define DURPINA_SEQ_H

#include <stdint.h>

/* In the kernel, the verifier walks through each attempt before the program may run. */
#ifdef __bpf__
#define DURPINA_SEQ_RETRIES 3
#else
#define DURPINA_SEQ_RETRIES 8
#endif

#ifdef __bpf__

/* clang 14 knows no atomic loads, stores and fences for BPF. */
#define DURPINA_LOAD(p) (*(const volatile __typeof__(*(p)) *) (p))
#define DURPINA_STORE(p, v) (*(volatile __typeof__(*(p)) *) (p) = (v))

static inline void durpina_fence(void)
{
#ifdef __TARGET_ARCH_x86
    __asm__ volatile("" ::: "memory");
#else
    uint64_t word = 0;

    __sync_fetch_and_add(&word, 1);
#endif
}

static inline uint64_t durpina_seq_begin(const uint64_t *publish)
{
    uint64_t word = DURPINA_LOAD(publish);

    durpina_fence();
    return word;
}

static inline int durpina_seq_retry(const uint64_t *publish, uint64_t word)
{
    durpina_fence();
    return DURPINA_LOAD(publish) != word;
}

#else

#define DURPINA_LOAD(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define DURPINA_STORE(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)

/* Returns the publish word; 0 means that nothing is published there. */
static inline uint64_t durpina_seq_begin(const uint64_t *publish)
{
    return __atomic_load_n(publish, __ATOMIC_ACQUIRE);
}

/* Returns non-zero if a publication may have overtaken the reads made since begin returned word. */
static inline int durpina_seq_retry(const uint64_t *publish, uint64_t word)
{
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return DURPINA_LOAD(publish) != word;
}

/* To be called after a publication and before memory that readers of older words may use is
 * written. */
static inline void durpina_seq_open(void)
{
    __atomic_thread_fence(__ATOMIC_RELEASE);
}

/* Puts the copy (word & 1) in force. */
static inline void durpina_seq_publish(uint64_t *publish, uint64_t word)
{
    __atomic_store_n(publish, word, __ATOMIC_RELEASE);
}

#endif /* __bpf__ */
#endif
