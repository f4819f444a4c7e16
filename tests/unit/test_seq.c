/* SPDX-License-Identifier: MIT */
/*
 * durpina_seq.h with a real writer and real readers, in threads and in processes that are killed.
 */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "durpina_seq.h"

#define WORDS 32
#define PUBLICATIONS 200000
#define READERS 2

/* Each copy of state number n holds n in every word. */
struct shared {
    uint64_t publish;
    uint64_t copies[2][WORDS];
    int n_served; /* readers that have seen a whole state */
    int stop;
};

static void write_copy(struct shared *shared, uint64_t word, uint64_t value)
{
    for (int i = 0; i < WORDS; i++)
        DURPINA_STORE(&shared->copies[word & 1][i], value);
}

static void publish_next(struct shared *shared)
{
    uint64_t word = shared->publish + 1;

    durpina_seq_open();
    write_copy(shared, word, word);
    durpina_seq_publish(&shared->publish, word);
    durpina_seq_open();
    write_copy(shared, word + 1, word);
}

/* Returns 0 for a whole state, 1 for a torn one, -1 if it was overtaken. */
static int read_once(const struct shared *shared, uint64_t *ret_word)
{
    uint64_t word = durpina_seq_begin(&shared->publish), values[WORDS];

    for (int i = 0; i < WORDS; i++)
        values[i] = DURPINA_LOAD(&shared->copies[word & 1][i]);
    if (durpina_seq_retry(&shared->publish, word))
        return -1;
    *ret_word = word;
    for (int i = 0; i < WORDS; i++)
        if (values[i] != word)
            return 1;
    return 0;
}

static struct shared *map_shared(void)
{
    struct shared *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    assert_true(shared != MAP_FAILED);
    publish_next(shared);
    return shared;
}

struct reader {
    pthread_t thread;
    struct shared *shared;
    uint64_t whole, torn, backward;
};

static void *read_all(void *arg)
{
    struct reader *reader = arg;
    uint64_t last = 0, word = 0;

    while (!__atomic_load_n(&reader->shared->stop, __ATOMIC_ACQUIRE)) {
        int result = read_once(reader->shared, &word);

        if (result == 0 && reader->whole++ == 0)
            __atomic_fetch_add(&reader->shared->n_served, 1, __ATOMIC_RELAXED);
        reader->torn += result == 1;
        reader->backward += result == 0 && word < last;
        if (result == 0)
            last = word;
    }
    return NULL;
}

static void readers_see_whole_states_in_order(void **state)
{
    struct shared *shared = map_shared();
    struct reader readers[READERS] = {0};

    (void) state;
    for (int i = 0; i < READERS; i++) {
        readers[i].shared = shared;
        assert_int_equal(pthread_create(&readers[i].thread, NULL, read_all, &readers[i]), 0);
    }
    for (int i = 0; i < PUBLICATIONS || DURPINA_LOAD(&shared->n_served) < READERS; i++)
        publish_next(shared);
    __atomic_store_n(&shared->stop, 1, __ATOMIC_RELEASE);
    for (int i = 0; i < READERS; i++) {
        pthread_join(readers[i].thread, NULL);
        assert_int_equal(readers[i].torn, 0);
        assert_int_equal(readers[i].backward, 0);
    }
    munmap(shared, sizeof(*shared));
}

static void killed_writer_leaves_a_whole_state_and_no_waiting_reader(void **state)
{
    struct shared *shared = map_shared();

    (void) state;
    for (int round = 0; round < 100; round++) {
        uint64_t before = shared->publish, word;
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0)
            for (;;)
                publish_next(shared);
        while (DURPINA_LOAD(&shared->publish) < before + 1 + (uint64_t) round * 7)
            ;
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        /* Nobody writes: the first read succeeds. */
        assert_int_equal(read_once(shared, &word), 0);
        /* The next writer goes on from the word alone. */
        publish_next(shared);
        assert_int_equal(read_once(shared, &word), 0);
        assert_int_equal(word, shared->publish);
    }
    munmap(shared, sizeof(*shared));
}

static void overtaken_reader_is_told(void **state)
{
    struct shared *shared = map_shared();
    uint64_t word = durpina_seq_begin(&shared->publish);

    (void) state;
    assert_false(durpina_seq_retry(&shared->publish, word));
    publish_next(shared);
    assert_true(durpina_seq_retry(&shared->publish, word));
    munmap(shared, sizeof(*shared));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readers_see_whole_states_in_order),
        cmocka_unit_test(killed_writer_leaves_a_whole_state_and_no_waiting_reader),
        cmocka_unit_test(overtaken_reader_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
