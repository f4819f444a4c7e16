/* SPDX-License-Identifier: MIT */
/* Tables on demand: when they are laid out, within a publication and by builds. */
#include "publish_scene.h"

#define MIDDLE 129 /* the fewest peers whose table of 131,071 slots is not small */
#define MIDDLE_SLOTS 131071

static struct upstream *upstream_of(unsigned n_servers, enum demand hash, enum demand ring)
{
    struct upstream *foo = model_add_upstream(&model, "foo");
    char line[64];

    for (unsigned i = 0; i < n_servers; i++) {
        snprintf(line, sizeof(line), "10.0.%u.%u", i >> 8, i & 255);
        add_server(foo, line);
    }
    foo->demand[DEMANDED_HASH] = hash;
    foo->demand[DEMANDED_RING] = ring;
    return foo;
}

static uint32_t hash_slots(const struct upstream *upstream)
{
    return publish_table_slots(publish, upstream, DEMANDED_HASH);
}

static uint32_t ring_slots(const struct upstream *upstream)
{
    return publish_table_slots(publish, upstream, DEMANDED_RING);
}

/* All peers that keys belong to, by the bits of their ids. */
static uint64_t peers_by(const struct upstream *upstream, enum durpina_algorithm algorithm)
{
    struct durpina_pick p;
    uint64_t found = 0;

    for (uint64_t key = 0; key < 4000; key++) {
        uint64_t hash = durpina_mix(key + 1);

        assert_int_equal(pick(upstream, algorithm, hash, &p), DURPINA_PICK_OK);
        found |= 1ULL << (p.peer % 64);
        finish(&p);
    }
    return found;
}

static void build(struct upstream *upstream)
{
    struct build *b;

    assert_int_equal(publish_build_begin(publish, upstream, &b), 0);
    publish_build_run(b);
    assert_int_equal(publish_build_end(b, T0), 0);
}

static void change_weight(struct server *server, uint32_t weight, uint64_t now_ms)
{
    server->now.weight = weight;
    assert_int_equal(publish_states(publish, server->upstream, server->peers, 1, now_ms), 0);
}

static void table_is_there_as_long_as_somebody_wants_it(void **state)
{
    struct upstream *foo;
    uint32_t without;

    (void) state;
    open_maps(1, 8, 65536);
    foo = upstream_of(3, DEMAND_NONE, DEMAND_NONE);
    put_in_force(foo, T0);
    assert_int_equal(hash_slots(foo), 0);
    assert_int_equal(ring_slots(foo), 0);
    without = publish_usage(publish).slots;
    assert_int_equal(without, 3 + 3 + 3);

    foo->demand[DEMANDED_HASH] = DEMAND_WANTED;
    assert_int_equal(publish_states(publish, foo, NULL, 0, T0), 0);
    assert_at_rest(foo);
    assert_int_equal(hash_slots(foo), MAGLEV_SIZE_MIN);
    assert_int_equal(ring_slots(foo), 0);
    assert_int_equal(peers_by(foo, DURPINA_HASH), 7);

    foo->demand[DEMANDED_RING] = DEMAND_WANTED;
    assert_int_equal(publish_states(publish, foo, NULL, 0, T0), 0);
    assert_at_rest(foo);
    assert_true(ring_slots(foo) > 3 * RING_POINTS_PER_WEIGHT);
    assert_int_equal(peers_by(foo, DURPINA_RING), 7);
    assert_int_equal(publish_lag(publish, foo), PUBLISH_UP_TO_DATE);

    foo->demand[DEMANDED_HASH] = foo->demand[DEMANDED_RING] = DEMAND_NONE;
    assert_int_equal(publish_states(publish, foo, NULL, 0, T0), 0);
    assert_at_rest(foo);
    assert_int_equal(publish_usage(publish).slots, without);
    assert_int_equal(peers_by(foo, DURPINA_HASH), 7); /* by the stand-in */
}

static void ring_goes_by_names_as_they_were_written(void **state)
{
    const struct ring_peer peers[] = {{"10.0.0.1", 2, 0}, {"10.0.0.2:80", 1, 1}, {"[::1]", 1, 2}};
    struct upstream *foo = model_add_upstream(&model, "foo");
    struct durpina_table ring;
    uint32_t *slots, length;

    (void) state;
    open_maps(1, 8, 65536);
    add_server(foo, "10.0.0.1 weight=2");
    add_server(foo, "10.0.0.2:80");
    add_server(foo, "[::1]");
    add_server(foo, "10.0.0.4")->now.weight = 0;
    foo->demand[DEMANDED_RING] = DEMAND_WANTED;
    put_in_force(foo, T0);
    ring = view_of(foo)->tier[0].ring;
    assert_int_equal(ring_build(peers, 3, &slots, &length), 0);
    assert_int_equal(ring.length, length);
    assert_memory_equal(&maps.slots[ring.offset], slots, length * sizeof(*slots));
    free(slots);
}

static void guess_is_made_while_little_of_the_slots_is_used(void **state)
{
    struct upstream *foo;

    (void) state;
    /*
     * A quarter is 3,072: room for the table of keys, not for a ring of 3 times 160 points as well.
     */
    open_maps(2, 32, 12288);
    foo = upstream_of(3, DEMAND_GUESSED, DEMAND_GUESSED);
    put_in_force(foo, T0);
    assert_int_equal(hash_slots(foo), MAGLEV_SIZE_MIN);
    assert_int_equal(ring_slots(foo), 0);

    /* One that cannot grow goes, or it would be wrong when somebody comes to want it. */
    for (int i = 0; i < 14; i++) {
        char line[64];

        snprintf(line, sizeof(line), "10.1.0.%d", i);
        add_server(foo, line);
    }
    put_in_force(foo, T0);
    assert_int_equal(hash_slots(foo), 0);
    foo->demand[DEMANDED_HASH] = DEMAND_WANTED;
    assert_int_equal(publish_states(publish, foo, NULL, 0, T0), 0);
    assert_int_equal(hash_slots(foo), 0); /* 16,381 are more than there are */
    assert_int_equal(publish_lag(publish, foo), PUBLISH_MISSING);
}

static void guesses_that_wait_for_their_builds_share_the_quarter(void **state)
{
    struct upstream *foo, *bar;
    struct build *b;
    char line[64];

    (void) state;
    /* For one table. */
    open_maps(2, 512, 4 * MIDDLE_SLOTS + 8192);
    foo = upstream_of(MIDDLE, DEMAND_GUESSED, DEMAND_NONE);
    bar = model_add_upstream(&model, "bar");
    for (int i = 0; i < MIDDLE; i++) {
        snprintf(line, sizeof(line), "10.1.0.%d", i);
        add_server(bar, line);
    }
    bar->demand[DEMANDED_HASH] = DEMAND_GUESSED;
    put_in_force(foo, T0);
    put_in_force(bar, T0);
    assert_int_equal(publish_lag(publish, foo), PUBLISH_MISSING);
    assert_int_equal(publish_lag(publish, bar), PUBLISH_MISSING);
    assert_int_equal(publish_build_begin(publish, foo, &b), 0);
    change_weight(foo->servers, 3, T0); /* its own room does not count against it */
    publish_build_run(b);
    assert_int_equal(publish_build_end(b, T0), 0);
    assert_int_equal(publish_lag(publish, foo), PUBLISH_LAGS);
    assert_int_equal(publish_build_begin(publish, bar, &b), 0);
    assert_null(b);
    assert_int_equal(publish_lag(publish, bar), PUBLISH_UP_TO_DATE);
    assert_int_equal(hash_slots(bar), 0);
}

static void required_table_without_room_refuses_the_request(void **state)
{
    static const unsigned sizes[] = {3, MIDDLE};
    struct durpina_upstream before;
    struct publish_usage used;
    struct failure failure;
    struct upstream *foo;

    (void) state;
    open_maps(1, 256, 1024);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        foo = upstream_of(sizes[i], DEMAND_NONE, DEMAND_NONE);
        put_in_force(foo, T0 + i * PUBLISH_GRACE_MS);
        before = maps.upstreams[foo->id];
        used = publish_usage(publish);
        for (int t = 0; t < N_DEMANDED; t++) {
            foo->demand[t] = DEMAND_REQUIRED;
            assert_int_equal(try_publish(foo, T0 + i * PUBLISH_GRACE_MS, &failure), -ENOSPC);
            assert_int_equal(failure.status, 409);
            assert_non_null(strstr(failure.text, "\"slots\""));
            foo->demand[t] = DEMAND_NONE;
            assert_memory_equal(&maps.upstreams[foo->id], &before, sizeof(before));
            assert_int_equal(publish_usage(publish).slots, used.slots);
            /* One that has been wanted before does not stand in the way of others. */
            foo->demand[t] = DEMAND_WANTED;
            put_in_force(foo, T0 + i * PUBLISH_GRACE_MS);
            assert_int_equal(publish_usage(publish).slots, used.slots);
            assert_int_equal(publish_lag(publish, foo), PUBLISH_MISSING);
            foo->demand[t] = DEMAND_NONE;
            put_in_force(foo, T0 + i * PUBLISH_GRACE_MS);
            before = maps.upstreams[foo->id];
        }
        publish_remove(publish, foo->id, T0 + i * PUBLISH_GRACE_MS);
        model_free_upstream(foo);
    }
}

static void large_table_has_its_room_at_once_and_is_built_apart(void **state)
{
    struct publication *publication;
    struct failure failure;
    struct upstream *foo;
    uint32_t without = 3 * MIDDLE;

    (void) state;
    open_maps(1, 256, 2 * MIDDLE_SLOTS + 8192);
    foo = upstream_of(MIDDLE, DEMAND_WANTED, DEMAND_NONE);
    assert_int_equal(publish_prepare(publish, foo, T0, &publication, &failure), 0);
    publish_abort(publication);
    assert_int_equal(publish_usage(publish).slots, 0);
    put_in_force(foo, T0);
    assert_int_equal(publish_lag(publish, foo), PUBLISH_MISSING);
    assert_int_equal(publish_usage(publish).slots, without + MIDDLE_SLOTS);
    assert_int_equal(hash_slots(foo), 0);
    assert_int_equal(peers_by(foo, DURPINA_HASH), UINT64_MAX); /* by the stand-in */

    build(foo);
    assert_at_rest(foo);
    assert_int_equal(publish_lag(publish, foo), PUBLISH_UP_TO_DATE);
    assert_int_equal(hash_slots(foo), MIDDLE_SLOTS);
    assert_int_equal(publish_usage(publish).slots, without + MIDDLE_SLOTS);
    assert_int_equal(peers_by(foo, DURPINA_HASH), UINT64_MAX);

    /* One that is replaced has another run meanwhile. */
    change_weight(foo->servers, 0, T0 + PUBLISH_PAUSE_MS);
    assert_int_equal(publish_lag(publish, foo), PUBLISH_LAGS);
    build(foo);
    assert_int_equal(publish_usage(publish).slots, without - 2 + MIDDLE_SLOTS);
}

static void large_ring_gives_back_what_it_was_too_much_given(void **state)
{
    struct upstream *foo;

    (void) state;
    open_maps(1, 256, 4 * MIDDLE_SLOTS);
    foo = upstream_of(MIDDLE, DEMAND_NONE, DEMAND_WANTED);
    put_in_force(foo, T0);
    assert_int_equal(publish_lag(publish, foo), PUBLISH_MISSING);
    build(foo);
    assert_true(ring_slots(foo) > 2 * MIDDLE * RING_POINTS_PER_WEIGHT);
    assert_int_equal(publish_usage(publish).slots, 3 * MIDDLE + ring_slots(foo));
    assert_int_equal(peers_by(foo, DURPINA_RING), UINT64_MAX);
    publish_remove(publish, foo->id, T0);
    assert_int_equal(publish_usage(publish).slots, 0);
}

static void change_during_a_build_makes_its_table_lag_again(void **state)
{
    struct upstream *foo;
    struct build *b;

    (void) state;
    open_maps(1, 256, 4 * MIDDLE_SLOTS);
    foo = upstream_of(MIDDLE, DEMAND_WANTED, DEMAND_NONE);
    put_in_force(foo, T0);
    assert_int_equal(publish_build_begin(publish, foo, &b), 0);
    assert_int_equal(publish_lag(publish, foo), PUBLISH_UP_TO_DATE);
    change_weight(foo->servers, 5, T0);
    assert_int_equal(publish_lag(publish, foo), PUBLISH_MISSING);
    publish_build_run(b);
    assert_int_equal(publish_build_end(b, T0), 0);
    assert_int_equal(hash_slots(foo), MIDDLE_SLOTS);
    assert_int_equal(publish_lag(publish, foo), PUBLISH_LAGS);
    build(foo);
    assert_int_equal(publish_lag(publish, foo), PUBLISH_UP_TO_DATE);
    assert_int_equal(publish_usage(publish).slots, MIDDLE * 2 + MIDDLE + 4 + MIDDLE_SLOTS);
}

static void build_that_nobody_needs_any_more_is_dropped(void **state)
{
    struct upstream *foo;
    struct build *b;

    (void) state;
    open_maps(1, 512, 4 * MIDDLE_SLOTS);
    foo = upstream_of(MIDDLE, DEMAND_WANTED, DEMAND_NONE);
    put_in_force(foo, T0);
    build(foo);
    change_weight(foo->servers, 5, T0);
    assert_int_equal(publish_build_begin(publish, foo, &b), 0);
    foo->demand[DEMANDED_HASH] = DEMAND_NONE;
    assert_int_equal(publish_states(publish, foo, NULL, 0, T0), 0);
    publish_build_run(b);
    assert_int_equal(publish_build_end(b, T0), 0);
    assert_int_equal(hash_slots(foo), 0);
    assert_int_equal(publish_usage(publish).slots, MIDDLE * 2 + MIDDLE + 4);

    /* And one of an upstream that is not there any more, whatever has its place. */
    foo->demand[DEMANDED_HASH] = DEMAND_WANTED;
    put_in_force(foo, T0);
    assert_int_equal(publish_build_begin(publish, foo, &b), 0);
    publish_remove(publish, foo->id, T0);
    model_free_upstream(foo);
    foo = upstream_of(3, DEMAND_NONE, DEMAND_NONE);
    put_in_force(foo, T0 + PUBLISH_GRACE_MS);
    publish_build_run(b);
    assert_int_equal(publish_build_end(b, T0 + PUBLISH_GRACE_MS), 0);
    assert_int_equal(publish_usage(publish).slots, 3 + 3 + 3);
    assert_int_equal(hash_slots(foo), 0);
}

static void table_that_has_just_been_changed_waits_for_a_build(void **state)
{
    struct upstream *foo;
    struct durpina_table hash;

    (void) state;
    open_maps(1, 8, 65536);
    foo = upstream_of(3, DEMAND_WANTED, DEMAND_NONE);
    put_in_force(foo, T0);
    hash = view_of(foo)->tier[0].hash;
    change_weight(foo->servers, 2, T0 + PUBLISH_PAUSE_MS - 1);
    assert_memory_equal(&view_of(foo)->tier[0].hash, &hash, sizeof(hash));
    assert_int_equal(publish_lag(publish, foo), PUBLISH_LAGS);
    /* The next change finds that time has passed. */
    change_weight(foo->servers, 3, T0 + PUBLISH_PAUSE_MS);
    assert_true(memcmp(&view_of(foo)->tier[0].hash, &hash, sizeof(hash)) != 0);
    assert_int_equal(publish_lag(publish, foo), PUBLISH_UP_TO_DATE);
    change_weight(foo->servers, 2, T0 + PUBLISH_PAUSE_MS);
    build(foo);
    assert_int_equal(publish_lag(publish, foo), PUBLISH_UP_TO_DATE);
}

static void table_without_room_for_another_one_serves_on(void **state)
{
    struct upstream *foo;
    struct durpina_table hash;
    struct build *b;

    (void) state;
    open_maps(1, 8, MAGLEV_SIZE_MIN + 500);
    foo = upstream_of(3, DEMAND_WANTED, DEMAND_NONE);
    put_in_force(foo, T0);
    hash = view_of(foo)->tier[0].hash;
    change_weight(foo->servers, 2, T0 + PUBLISH_PAUSE_MS);
    assert_int_equal(view_of(foo)->tier[0].schedule.length, 4);
    assert_memory_equal(&view_of(foo)->tier[0].hash, &hash, sizeof(hash));
    assert_int_equal(publish_lag(publish, foo), PUBLISH_LAGS);
    assert_int_equal(publish_build_begin(publish, foo, &b), -ENOSPC);
    assert_int_equal(publish_lag(publish, foo), PUBLISH_LAGS);
}

static void next_owner_of_a_record_has_asked_for_nothing(void **state)
{
    struct upstream *foo;
    struct durpina_pick p;

    (void) state;
    open_maps(1, 8, 65536);
    foo = upstream_of(1, DEMAND_NONE, DEMAND_NONE);
    put_in_force(foo, T0);
    assert_int_equal(pick(foo, DURPINA_RING, 7, &p), DURPINA_PICK_OK);
    finish(&p);
    assert_int_equal(maps.cursors[0].asked, DURPINA_ASKED_RING);
    publish_remove(publish, foo->id, T0);
    model_free_upstream(foo);
    foo = upstream_of(1, DEMAND_NONE, DEMAND_NONE);
    put_in_force(foo, T0 + PUBLISH_GRACE_MS);
    assert_int_equal(foo->id, 0);
    assert_int_equal(maps.cursors[0].asked, DURPINA_ASKED_NONE);
}

static void peer_costs_no_more_than_512_bytes_of_the_maps(void **state)
{
    struct publication *publication;
    struct failure failure;
    struct upstream *foo;

    (void) state;
    open_maps(1, 1024, 65536);
    foo = upstream_of(1000, DEMAND_NONE, DEMAND_NONE);
    put_in_force(foo, T0);
    /* At the height of a change of all tables there are two of each. */
    remove_server(foo->servers);
    assert_int_equal(publish_prepare(publish, foo, T0, &publication, &failure), 0);
    assert_true(publish_usage(publish).slots * sizeof(uint32_t) / 1000 +
                    sizeof(struct durpina_peer) + sizeof(struct durpina_counters) <=
                512);
    publish_commit(publication);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(table_is_there_as_long_as_somebody_wants_it),
        TEST(ring_goes_by_names_as_they_were_written),
        TEST(guess_is_made_while_little_of_the_slots_is_used),
        TEST(guesses_that_wait_for_their_builds_share_the_quarter),
        TEST(required_table_without_room_refuses_the_request),
        TEST(large_table_has_its_room_at_once_and_is_built_apart),
        TEST(large_ring_gives_back_what_it_was_too_much_given),
        TEST(change_during_a_build_makes_its_table_lag_again),
        TEST(build_that_nobody_needs_any_more_is_dropped),
        TEST(table_that_has_just_been_changed_waits_for_a_build),
        TEST(table_without_room_for_another_one_serves_on),
        TEST(next_owner_of_a_record_has_asked_for_nothing),
        TEST(peer_costs_no_more_than_512_bytes_of_the_maps),
    };

    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
