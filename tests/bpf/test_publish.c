/* SPDX-License-Identifier: MIT */
/* Publications as readers see them; P1 to P3 are invariants of publish.h. */
#include "publish_scene.h"

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

static void longest_address_is_kept_whole(void **state)
{
    static const char longest[] = "[1111:2222:3333:4444:5555:6666:7777:8888]:65535";
    struct upstream *foo = model_add_upstream(&model, "foo");

    (void) state;
    open_maps(2, 10, 4096);
    add_server(foo, longest);
    put_in_force(foo, T0);
    assert_int_equal(sizeof(longest), DURPINA_ADDRESS_SIZE);
    assert_string_equal(maps.peers[0].address, longest);
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
    foo->demand[DEMANDED_HASH] = DEMAND_WANTED;
    put_in_force(foo, T0);
    hash = view_of(foo)->tier[0].hash;
    assert_int_equal(view_of(foo)->tier[0].schedule.length, 10);
    assert_int_equal(view_of(foo)->tier[1].members.length, 1);

    a->peers[0]->health = DURPINA_HEALTH_FAILED;
    assert_int_equal(publish_states(publish, foo, a->peers, 1, T0), 0);
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
    assert_int_equal(publish_states(publish, foo, a->peers, 1, T0 + PUBLISH_PAUSE_MS), 0);
    assert_at_rest(foo);
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
    /* 3 peers, 3 members and 56 turns; less than 11 are left of a row, for 30 to 25. */
    open_maps(1, 3, 64);
    a = add_server(foo, "10.0.0.1 weight=1");
    add_server(foo, "10.0.0.2 weight=30");
    add_server(foo, "10.0.0.3 weight=25");
    put_in_force(foo, T0);
    a->peers[0]->health = DURPINA_HEALTH_FAILED;
    assert_int_equal(publish_states(publish, foo, a->peers, 1, T0), -ENOSPC);
    assert_at_rest(foo);
    for (int i = 0; i < 200; i++) {
        assert_int_equal(pick(foo, DURPINA_ROUND_ROBIN, 0, &p), DURPINA_PICK_OK);
        assert_int_not_equal(p.peer, a->peers[0]->id);
        finish(&p);
    }
    /* It is known that the schedule is not what it should be. */
    assert_int_equal(publish_states(publish, foo, NULL, 0, T0), -ENOSPC);
    foo->servers->now.weight = 0;
    ((struct server *) foo->servers->hh.next)->now.weight = 25;
    assert_int_equal(publish_states(publish, foo, ((struct server *) foo->servers->hh.next)->peers,
                                    1, T0),
                     0);
    assert_int_equal(view_of(foo)->tier[0].schedule.length, 2);
}

/* What nobody has changed is not written: here by what somebody else has written. */
static void change_of_a_peer_costs_no_other_peer_a_write(void **state)
{
    struct upstream *foo = model_add_upstream(&model, "foo");
    struct publication *publication;
    struct failure failure;
    struct durpina_view view;
    struct server *a, *b;

    (void) state;
    open_maps(1, 3, 4096);
    a = add_server(foo, "10.0.0.1 weight=2");
    b = add_server(foo, "10.0.0.2");
    put_in_force(foo, T0);
    assert_int_equal(view_of(foo)->tier[0].weight, 3);
    for (int copy = 0; copy < 2; copy++)
        maps.peers[b->peers[0]->id].settings[copy].slow_start_ms = 7;
    view = *view_of(foo);

    /* Taken back: as if it had never been. */
    a->now.weight = 9;
    assert_int_equal(publish_prepare_peers(publish, foo, a->peers, 1, T0, &publication, &failure),
                     0);
    publish_abort(publication);
    a->now.weight = 2;
    assert_int_equal(publish_states(publish, foo, a->peers, 1, T0), 0);
    assert_memory_equal(view_of(foo), &view, sizeof(view));

    a->now.weight = 9;
    assert_int_equal(publish_states(publish, foo, a->peers, 1, T0), 0);
    assert_at_rest(foo);
    assert_int_equal(maps.peers[a->peers[0]->id].settings[0].weight, 9);
    assert_int_equal(maps.peers[b->peers[0]->id].settings[0].slow_start_ms, 7);
    assert_int_equal(view_of(foo)->tier[0].schedule.length, 10);
    assert_int_equal(view_of(foo)->tier[0].weight, 10);
    assert_memory_equal(&view_of(foo)->tier[0].members, &view.tier[0].members,
                        sizeof(view.tier[0].members));

    /* The first publication of another controller is one in full. */
    publish_destroy(publish);
    assert_int_equal(publish_create(&maps, T0, &publish), 0);
    assert_int_equal(publish_states(publish, foo, a->peers, 1, T0), 0);
    assert_int_equal(maps.peers[b->peers[0]->id].settings[0].slow_start_ms, 0);
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
    assert_int_equal(durpina_requests(&maps.counters[0]), 0);
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
    foo->demand[DEMANDED_HASH] = DEMAND_WANTED;
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

static void leaving_peers_are_freed_whatever_the_maps_say(void **state)
{
    struct upstream *foo = model_add_upstream(&model, "foo");
    struct upstream *bar = model_add_upstream(&model, "bar");
    uint32_t bars;

    (void) state;
    open_maps(4, 10, 2048);
    add_server(foo, "10.0.0.1");
    add_server(foo, "10.0.0.2");
    add_server(bar, "10.0.0.3");
    put_in_force(foo, T0);
    put_in_force(bar, T0);
    bars = bar->servers->peers[0]->id;
    maps.slots[view_of(foo)->peers.offset] = bars;
    maps.peers[bars].upstream = foo->id;
    for (struct server *s = foo->servers; s != NULL; s = s->hh.next)
        maps.peers[s->peers[0]->id].upstream = bar->id;

    remove_server(model_server(foo, "10.0.0.1:80"));
    put_in_force(foo, T0);
    assert_int_equal(publish_usage(publish).peers, 2);
    publish_remove(publish, foo->id, T0);
    assert_int_equal(publish_usage(publish).peers, 1);
    assert_int_equal(maps.peers[bars].settings[0].state, DURPINA_PEER_UP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(published_peers_are_picked_by_weight_and_read_as_text),
        TEST(longest_address_is_kept_whole),
        TEST(state_of_a_peer_changes_its_schedule_and_no_key_of_others),
        TEST(prepared_publication_is_not_seen_and_can_be_taken_back),
        TEST(full_map_refuses_one_request_and_changes_nothing),
        TEST(peer_that_fails_is_taken_out_even_if_slots_are_full),
        TEST(change_of_a_peer_costs_no_other_peer_a_write),
        TEST(freed_id_waits_for_grace_and_for_its_last_request),
        TEST(generation_is_never_zero),
        TEST(removed_upstream_has_no_peer_and_its_word_never_comes_back),
        TEST(next_controller_finds_what_is_in_use_and_frees_the_rest),
        TEST(garbage_in_the_maps_is_survived),
        TEST(leaving_peers_are_freed_whatever_the_maps_say),
    };

    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
