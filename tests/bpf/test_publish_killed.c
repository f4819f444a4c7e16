/* SPDX-License-Identifier: MIT */
/* A publisher that is killed: P4 of publish.h. */
#include "publish_scene.h"

/*
 * What the publisher publishes: all peers with the same max_conns, which is the
 * number of them, and weights whose sum is in the view; so a reader can tell a mix.
 */
#define MANY 40

static void publish_for_ever(struct upstream *foo)
{
    uint64_t now_ms = T0;
    struct failure failure;
    uint32_t n = 0;

    foo->demand[DEMANDED_HASH] = DEMAND_WANTED;
    for (unsigned turn = 0;; turn++) {
        char line[64];
        struct server *server, *next;
        bool grow = n <= 1 || (n < MANY && turn % 3 != 0);

        if (grow) {
            snprintf(line, sizeof(line), "10.%u.%u.%u weight=%u", turn >> 16 & 255, turn >> 8 & 255,
                     turn & 255, 1 + turn % 7);
            add_server(foo, line);
        } else {
            remove_server(foo->servers);
        }
        n = grow ? n + 1 : n - 1;
        HASH_ITER(hh, foo->servers, server, next)
        server->now.max_conns = n;
        now_ms += PUBLISH_GRACE_MS;
        if (try_publish(foo, now_ms, &failure) < 0)
            _exit(3);
        /* And some that concern one peer only. */
        server = foo->servers;
        for (unsigned i = 0; i < 4;
             i++, server = server->hh.next != NULL ? server->hh.next : server) {
            server->now.weight = 1 + (turn + i) % 9;
            if (publish_states(publish, foo, server->peers, 1, now_ms) < 0)
                _exit(4);
        }
    }
}

struct whole {
    uint32_t n;
    bool torn;
};

/* Reads the upstream by the protocol as a reader with all the patience in the world. */
static struct whole read_whole(const struct durpina_upstream *u)
{
    const struct durpina_maps readable = bpf_state_maps(&maps);
    struct whole whole;
    uint64_t word;

    do {
        word = durpina_seq_begin(&u->publish);
        struct durpina_table peers = durpina_table(&readable, &u->view[word & 1].peers);
        uint32_t in_hash =
            DURPINA_LOAD(&maps.slots[DURPINA_LOAD(&u->view[word & 1].tier[0].hash.offset)]);
        uint64_t weight = 0;

        whole = (struct whole){.n = peers.length, .torn = peers.length == 0};
        for (uint32_t i = 0; i < peers.length; i++) {
            uint32_t id = DURPINA_LOAD(&maps.slots[peers.offset + i]);
            const struct durpina_peer_settings *s;

            if (id >= maps.n_peers) {
                whole.torn = true;
                continue;
            }
            s = &maps.peers[id].settings[word & 1];
            whole.torn |= DURPINA_LOAD(&s->max_conns) != peers.length;
            whole.torn |= DURPINA_LOAD(&s->state) != DURPINA_PEER_UP;
            weight += DURPINA_LOAD(&s->weight);
        }
        whole.torn |= weight != DURPINA_LOAD(&u->view[word & 1].tier[0].weight);
        whole.torn |= in_hash >= maps.n_peers;
    } while (durpina_seq_retry(&u->publish, word));
    return whole;
}

static void publisher_killed_at_any_instant_leaves_a_whole_state(void **state) /* P4 */
{
    unsigned reads = 0, torn = 0;

    (void) state;
    open_maps(2, 200, 131072);
    srand(5);
    for (int round = 0; round < 30; round++) {
        struct upstream *foo = model_add_upstream(&model, "foo");
        const struct durpina_upstream *u = &maps.upstreams[0];
        uint64_t word = DURPINA_LOAD(&u->publish);
        struct timespec now, end;
        int status;
        pid_t pid;

        if (word != 0) {
            foo->id = 0;
            foo->generation = u->generation;
        }
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
            publish_for_ever(foo);

        while (DURPINA_LOAD(&u->publish) == word)
            ;
        clock_gettime(CLOCK_MONOTONIC, &end);
        end.tv_nsec += rand() % 20000000;
        do {
            torn += read_whole(u).torn;
            reads++;
            clock_gettime(CLOCK_MONOTONIC, &now);
        } while (now.tv_sec * 1000000000L + now.tv_nsec < end.tv_sec * 1000000000L + end.tv_nsec);
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));

        /* Killed: what is there is whole without waiting, can be picked from, and be taken over. */
        struct whole whole = read_whole(u);
        struct durpina_pick p;

        assert_false(whole.torn);
        foo->id = 0;
        foo->generation = u->generation;
        assert_int_equal(pick(foo, DURPINA_ROUND_ROBIN, 0, &p), DURPINA_PICK_OK);
        finish(&p);
        publish_destroy(publish);
        assert_int_equal(publish_create(&maps, T0, &publish), 0);
        assert_int_equal(publish_usage(publish).peers, whole.n);
        model_clear(&model);
    }
    print_message("%u reads beside the publisher, %u torn\n", reads, torn);
    assert_int_equal(torn, 0);
    assert_true(reads > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(publisher_killed_at_any_instant_leaves_a_whole_state),
    };

    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
