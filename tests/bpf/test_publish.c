/* SPDX-License-Identifier: MIT */
/* Publications as readers see them; P1 to P4 are the invariants of publish.h. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "pins.h"
#include "maglev.h"
#include "publish.h"

#include <cmocka.h> /* last: its macro fail() hides the function of failure.h */

#define T0 100000ULL /* a monotonic time, ms */

static struct pins pins;
static struct bpf_state maps;
static struct publish *publish;
static struct model model;

static void open_maps(uint32_t n_upstreams, uint32_t n_peers, uint32_t n_slots)
{
    const struct bpf_state_options options = {.pin = pins.dir,
                                              .n_upstreams = n_upstreams,
                                              .n_peers = n_peers,
                                              .n_slots = n_slots};
    struct failure failure;

    assert_int_equal(bpf_state_open(&options, &maps, &failure), 0);
    assert_int_equal(publish_create(&maps, T0, &publish), 0);
}

static int set_up(void **state)
{
    (void) state;
    pins = pins_choose("publish");
    memset(&model, 0, sizeof(model));
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    model_clear(&model);
    publish_destroy(publish);
    publish = NULL;
    bpf_state_close(&maps);
    pins_remove(&pins);
    return 0;
}

static struct server *add_server(struct upstream *upstream, const char *line)
{
    struct server_spec spec;
    struct failure failure;
    struct server *server;
    struct addr addr;

    assert_int_equal(server_line_parse(line, 80, &spec, &failure), 0);
    server = model_new_server(upstream, &spec);
    assert_non_null(server);
    server->peers = calloc(1, sizeof(*server->peers));
    assert_non_null(server->peers);
    server->peers[0] =
        model_new_peer(server, addr_parse(spec.name, spec.port, &addr) == 0 ? &addr : NULL);
    assert_non_null(server->peers[0]);
    server->n_peers = 1;
    model_link_server(server);
    return server;
}

static void remove_server(struct server *server)
{
    model_unlink_server(server);
    model_free_server(server);
}

static int try_publish(struct upstream *upstream, uint64_t now_ms, struct failure *failure)
{
    struct publication *publication;
    int err = publish_prepare(publish, upstream, now_ms, &publication, failure);

    if (err == 0)
        publish_commit(publication);
    return err;
}

static void put_in_force(struct upstream *upstream, uint64_t now_ms)
{
    struct failure failure;
    int err = try_publish(upstream, now_ms, &failure);

    if (err < 0)
        print_error("%s\n", failure.text);
    assert_int_equal(err, 0);
}

static const struct durpina_view *view_of(const struct upstream *upstream)
{
    const struct durpina_upstream *u = &maps.upstreams[upstream->id];

    return &u->view[u->publish & 1];
}

static enum durpina_pick_error pick(const struct upstream *upstream,
                                    enum durpina_algorithm algorithm, uint64_t hash,
                                    struct durpina_pick *ret)
{
    const struct durpina_maps readable = bpf_state_maps(&maps);
    const struct durpina_tried nobody = {0};

    return durpina_pick(&readable, upstream->id, upstream->generation, algorithm, hash, &nobody, T0,
                        ret);
}

static void finish(const struct durpina_pick *p)
{
    const struct durpina_maps readable = bpf_state_maps(&maps);

    durpina_finish(&readable, p, DURPINA_OUTCOME_SUCCESS, T0);
}

static void assert_at_rest(const struct upstream *upstream)
{
    const struct durpina_upstream *u = &maps.upstreams[upstream->id];
    const struct durpina_table peers = view_of(upstream)->peers;

    assert_memory_equal(&u->view[0], &u->view[1], sizeof(u->view[0]));
    for (uint32_t i = 0; i < peers.length; i++) {
        const struct durpina_peer *peer = &maps.peers[maps.slots[peers.offset + i]];

        assert_memory_equal(&peer->settings[0], &peer->settings[1], sizeof(peer->settings[0]));
    }
}

static void published_peers_are_picked_by_weight_and_read_as_text(void **state)
{
    struct upstream *foo = model_add_upstream(&model, "foo");
    uint32_t counts[3] = {0};
    struct durpina_pick p;

    (void) state;
    open_maps(2, 10, 4096);
    add_server(foo, "10.0.0.1 weight=5 max_conns=9");
    add_server(foo, "[::1]:81 weight=3");
    add_server(foo, "unix:/run/x weight=2");
    put_in_force(foo, T0);
    assert_at_rest(foo);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(pick(foo, DURPINA_ROUND_ROBIN, 0, &p), DURPINA_PICK_OK);
        counts[p.peer]++;
        finish(&p);
    }
    assert_int_equal(counts[0], 500);
    assert_int_equal(counts[1], 300);
    assert_int_equal(counts[2], 200);
    assert_string_equal(maps.upstreams[foo->id].name, "foo");
    assert_string_equal(maps.peers[0].name, "10.0.0.1:80");
    assert_string_equal(maps.peers[0].address, "10.0.0.1:80");
    assert_int_equal(maps.peers[0].addr_be[0], htonl(0x0a000001));
    assert_int_equal(maps.peers[0].port_be, htons(80));
    assert_int_equal(maps.peers[0].settings[0].max_conns, 9);
    assert_int_equal(maps.peers[1].family, DURPINA_FAMILY_INET6);
    assert_string_equal(maps.peers[1].address, "[::1]:81");
    assert_string_equal(maps.peers[2].name, "unix:/run/x");
    assert_string_equal(maps.peers[2].address, "unix:");
}

static void state_of_a_peer_changes_its_schedule_and_no_key_of_others(void **state)
{
    struct upstream *foo = model_add_upstream(&model, "foo");
    struct durpina_table hash;
    struct server *a;
    struct durpina_pick p;

    (void) state;
    open_maps(2, 10, 65536);
    a = add_server(foo, "10.0.0.1 weight=9");
    add_server(foo, "10.0.0.2");
    add_server(foo, "10.0.0.3 backup");
    put_in_force(foo, T0);
    hash = view_of(foo)->tier[0].hash;
    assert_int_equal(view_of(foo)->tier[0].schedule.length, 10);
    assert_int_equal(view_of(foo)->tier[1].members.length, 1);

    a->peers[0]->health = DURPINA_HEALTH_FAILED;
    assert_int_equal(publish_states(publish, foo, T0), 0);
    assert_at_rest(foo);
    assert_int_equal(view_of(foo)->tier[0].schedule.length, 1);
    assert_memory_equal(&view_of(foo)->tier[0].hash, &hash, sizeof(hash));
    for (uint64_t key = 0; key < 100; key++) {
        assert_int_equal(pick(foo, DURPINA_HASH, key * 0x9e3779b97f4a7c15ULL, &p), DURPINA_PICK_OK);
        assert_int_equal(p.peer, 1);
        finish(&p);
    }
    /* A key's peer comes back to it, so the table has not moved. */
    a->now.weight = 8;
    put_in_force(foo, T0);
    assert_true(memcmp(&view_of(foo)->tier[0].hash, &hash, sizeof(hash)) != 0);
}

static void prepared_publication_is_not_seen_and_can_be_taken_back(void **state) /* P1 */
{
    struct upstream *foo = model_add_upstream(&model, "foo");
    struct publication *publication;
    struct failure failure;
    struct publish_usage used;
    uint64_t word;
    struct server *b;

    (void) state;
    open_maps(2, 10, 4096);
    add_server(foo, "10.0.0.1");
    put_in_force(foo, T0);
    used = publish_usage(publish);
    word = maps.upstreams[foo->id].publish;

    b = add_server(foo, "10.0.0.2");
    assert_int_equal(publish_prepare(publish, foo, T0, &publication, &failure), 0);
    assert_int_equal(maps.upstreams[foo->id].publish, word);
    assert_int_equal(view_of(foo)->peers.length, 1);
    assert_at_rest(foo);
    assert_int_equal(maps.peers[b->peers[0]->id].settings[0].state, DURPINA_PEER_FREE);
    publish_abort(publication);
    assert_int_equal(b->peers[0]->id, DURPINA_NONE);
    assert_int_equal(maps.upstreams[foo->id].publish, word);
    assert_int_equal(publish_usage(publish).peers, used.peers);
    assert_int_equal(publish_usage(publish).slots, used.slots);
    /* Tries again and again do not use the ids up. */
    for (int i = 0; i < 20; i++) {
        assert_int_equal(publish_prepare(publish, foo, T0, &publication, &failure), 0);
        publish_abort(publication);
    }
    put_in_force(foo, T0);
    assert_int_equal(view_of(foo)->peers.length, 2);
}

static void full_map_refuses_one_request_and_changes_nothing(void **state)
{
    struct upstream *foo = model_add_upstream(&model, "foo"), *bar, *third;
    struct durpina_upstream before;
    struct failure failure;
    struct publish_usage used;
    struct server *server;
    char line[64];

    (void) state;
    open_maps(2, 4, 2 * MAGLEV_SIZE_MIN);
    for (int i = 0; i < 4; i++) {
        snprintf(line, sizeof(line), "10.0.0.%d", i + 1);
        add_server(foo, line);
    }
    put_in_force(foo, T0);
    before = maps.upstreams[foo->id];
    used = publish_usage(publish);

    server = add_server(foo, "10.0.0.5");
    assert_int_equal(try_publish(foo, T0, &failure), -ENOSPC);
    assert_int_equal(failure.status, 409);
    assert_string_equal(failure.code, "UpstreamOutOfMemory");
    assert_non_null(strstr(failure.text, "\"peers\""));
    remove_server(server);

    foo->servers->now.weight = 60000; /* 60,003 slots */
    assert_int_equal(try_publish(foo, T0, &failure), -ENOSPC);
    assert_non_null(strstr(failure.text, "\"slots\""));
    assert_memory_equal(&maps.upstreams[foo->id], &before, sizeof(before));
    assert_int_equal(publish_usage(publish).peers, used.peers);
    assert_int_equal(publish_usage(publish).slots, used.slots);

    bar = model_add_upstream(&model, "bar");
    put_in_force(bar, T0);
    third = model_add_upstream(&model, "third");
    assert_int_equal(try_publish(third, T0, &failure), -ENOSPC);
    assert_non_null(strstr(failure.text, "\"upstreams\""));
    assert_int_equal(third->id, DURPINA_NONE);
    assert_int_equal(publish_usage(publish).upstreams, 2);
}

static void peer_that_fails_is_taken_out_even_if_slots_are_full(void **state)
{
    struct upstream *foo = model_add_upstream(&model, "foo");
    struct server *a;
    struct durpina_pick p;

    (void) state;
    /* 2 peers, 2 members and 56 turns beside those for keys; less than a row of 64 is left. */
    open_maps(1, 3, 2 + 2 + 56 + MAGLEV_SIZE_MIN);
    a = add_server(foo, "10.0.0.1 weight=5");
    add_server(foo, "10.0.0.2 weight=51");
    put_in_force(foo, T0);
    a->now.weight = 50; /* the table of keys would have to be made anew */
    a->peers[0]->health = DURPINA_HEALTH_FAILED;
    assert_int_equal(publish_states(publish, foo, T0), -ENOSPC);
    assert_at_rest(foo);
    for (int i = 0; i < 200; i++) {
        assert_int_equal(pick(foo, DURPINA_ROUND_ROBIN, 0, &p), DURPINA_PICK_OK);
        assert_int_equal(p.peer, 1);
        finish(&p);
    }
}

static void freed_id_waits_for_grace_and_for_its_last_request(void **state) /* P3 */
{
    struct upstream *foo = model_add_upstream(&model, "foo");
    struct durpina_pick late;
    struct failure failure;
    struct server *server;
    uint32_t generation;

    (void) state;
    open_maps(1, 1, 2048);
    server = add_server(foo, "10.0.0.1");
    put_in_force(foo, T0);
    generation = maps.peers[0].generation;
    assert_true(generation != 0);
    assert_int_equal(pick(foo, DURPINA_ROUND_ROBIN, 0, &late), DURPINA_PICK_OK);
    remove_server(server);
    put_in_force(foo, T0);
    assert_int_equal(maps.peers[0].settings[0].state, DURPINA_PEER_FREE);
    assert_int_equal(maps.peers[0].settings[1].state, DURPINA_PEER_FREE);

    add_server(foo, "10.0.0.2");
    assert_int_equal(try_publish(foo, T0 + PUBLISH_GRACE_MS - 1, &failure), -ENOSPC);
    assert_int_equal(try_publish(foo, T0 + PUBLISH_GRACE_MS, &failure), -ENOSPC);
    finish(&late);
    assert_int_equal(maps.counters[0].active, 0);
    assert_int_equal(try_publish(foo, T0 + PUBLISH_GRACE_MS - 1, &failure), -ENOSPC);
    put_in_force(foo, T0 + PUBLISH_GRACE_MS);
    assert_int_equal(foo->servers->peers[0]->id, 0);
    assert_int_equal(maps.peers[0].generation, generation + 1);
    assert_int_equal(maps.counters[0].generation, generation + 1);
    assert_int_equal(maps.counters[0].requests, 0);
    assert_string_equal(maps.peers[0].name, "10.0.0.2:80");
    finish(&late); /* of an owner that is gone */
    assert_int_equal(maps.counters[0].active, 0);
}

static void generation_is_never_zero(void **state) /* P3 */
{
    struct upstream *foo = model_add_upstream(&model, "foo");

    (void) state;
    open_maps(1, 1, 2048);
    maps.peers[0].generation = UINT32_MAX;
    publish_destroy(publish);
    assert_int_equal(publish_create(&maps, T0, &publish), 0);
    add_server(foo, "10.0.0.1");
    put_in_force(foo, T0 + PUBLISH_GRACE_MS);
    assert_int_equal(maps.peers[0].generation, 1);
}

static void removed_upstream_has_no_peer_and_its_word_never_comes_back(void **state)
{
    struct upstream *foo = model_add_upstream(&model, "foo"), *bar;
    struct durpina_pick p;
    uint64_t epoch, word;
    uint32_t generation;

    (void) state;
    open_maps(1, 4, 2048);
    epoch = maps.meta->epoch;
    add_server(foo, "10.0.0.1");
    put_in_force(foo, T0);
    put_in_force(foo, T0);
    assert_int_equal(maps.meta->epoch, epoch + 1);
    word = maps.upstreams[0].publish;
    generation = foo->generation;

    publish_remove(publish, foo->id, T0);
    assert_int_equal(maps.meta->epoch, epoch + 2);
    assert_int_equal(pick(foo, DURPINA_ROUND_ROBIN, 0, &p), DURPINA_PICK_NO_UPSTREAM);
    assert_int_equal(publish_usage(publish).slots, 0);
    assert_int_equal(publish_usage(publish).upstreams, 0);

    bar = model_add_upstream(&model, "bar");
    add_server(bar, "10.0.0.2");
    put_in_force(bar, T0 + PUBLISH_GRACE_MS);
    assert_int_equal(bar->id, 0);
    assert_true(maps.upstreams[0].publish > word);
    assert_int_equal(bar->generation, generation + 1);
    assert_int_equal(pick(foo, DURPINA_ROUND_ROBIN, 0, &p), DURPINA_PICK_NO_UPSTREAM);
    assert_int_equal(pick(bar, DURPINA_ROUND_ROBIN, 0, &p), DURPINA_PICK_OK);
}

static void next_controller_finds_what_is_in_use_and_frees_the_rest(void **state)
{
    struct upstream *foo = model_add_upstream(&model, "foo");
    struct durpina_view view;
    uint32_t *ids;
    size_t n;

    (void) state;
    open_maps(2, 10, 4096);
    add_server(foo, "10.0.0.1 weight=2");
    add_server(foo, "10.0.0.2 weight=3");
    put_in_force(foo, T0);
    maps.peers[5].generation = 3; /* left by one that was killed before it published */
    maps.peers[5].settings[0].state = DURPINA_PEER_UP;
    publish_destroy(publish);

    assert_int_equal(publish_create(&maps, T0, &publish), 0);
    assert_int_equal(publish_usage(publish).upstreams, 1);
    assert_int_equal(publish_usage(publish).peers, 2);
    assert_int_equal(publish_usage(publish).slots, 2 + 5 + 2 + MAGLEV_SIZE_MIN);
    assert_int_equal(maps.peers[5].settings[0].state, DURPINA_PEER_FREE);
    assert_int_equal(publish_adopted_peers(publish, foo->id, &ids, &n), 0);
    assert_int_equal(n, 2);
    free(ids);
    view = *view_of(foo);
    put_in_force(foo, T0);
    assert_memory_equal(view_of(foo), &view, sizeof(view)); /* the same tables serve on */
}

static void garbage_in_the_maps_is_survived(void **state)
{
    struct upstream *foo = model_add_upstream(&model, "foo");
    uint32_t *ids;
    size_t n;

    (void) state;
    open_maps(4, 10, 2048);
    srand(4);
    add_server(foo, "10.0.0.1");
    add_server(foo, "10.0.0.2");
    for (int round = 0; round < 200; round++) {
        uint32_t *words[] = {(uint32_t *) maps.upstreams, (uint32_t *) maps.peers, maps.slots};
        size_t sizes[] = {4 * sizeof(*maps.upstreams) / 4, 10 * sizeof(*maps.peers) / 4, 2048};

        for (int k = 0; k < 3; k++)
            for (int i = 0; i < 60; i++)
                words[k][(size_t) rand() % sizes[k]] =
                    rand() % 2 ? (uint32_t) rand() % 16 : (uint32_t) rand() * 3U;
        publish_destroy(publish);
        assert_int_equal(publish_create(&maps, T0, &publish), 0);
        for (uint32_t id = 0; id < 4; id++) {
            if (maps.upstreams[id].publish == 0)
                continue;
            assert_int_equal(publish_adopted_peers(publish, id, &ids, &n), 0);
            assert_in_range(n, 0, 10);
            free(ids);
            publish_remove(publish, id, T0);
        }
        assert_int_equal(publish_usage(publish).slots, 0);
        assert_int_equal(publish_usage(publish).peers, 0);
        foo->id = foo->servers->peers[0]->id = DURPINA_NONE;
        ((struct server *) foo->servers->hh.next)->peers[0]->id = DURPINA_NONE;
        for (uint32_t i = 0; i < 10; i++)
            maps.counters[i].active = 0;
        put_in_force(foo, T0 + PUBLISH_GRACE_MS);
        assert_at_rest(foo);
    }
}

/* What the publisher of the next test publishes: all peers with the same max_conns, which is the
 * number of them; so a reader can tell a mix. */
#define MANY 40

static void publish_for_ever(struct upstream *foo)
{
    uint64_t now_ms = T0;
    struct failure failure;
    uint32_t n = 0;

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
        }
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(published_peers_are_picked_by_weight_and_read_as_text),
        TEST(state_of_a_peer_changes_its_schedule_and_no_key_of_others),
        TEST(prepared_publication_is_not_seen_and_can_be_taken_back),
        TEST(full_map_refuses_one_request_and_changes_nothing),
        TEST(peer_that_fails_is_taken_out_even_if_slots_are_full),
        TEST(freed_id_waits_for_grace_and_for_its_last_request),
        TEST(generation_is_never_zero),
        TEST(removed_upstream_has_no_peer_and_its_word_never_comes_back),
        TEST(next_controller_finds_what_is_in_use_and_frees_the_rest),
        TEST(garbage_in_the_maps_is_survived),
        TEST(publisher_killed_at_any_instant_leaves_a_whole_state),
    };

    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
