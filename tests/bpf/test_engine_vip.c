/* SPDX-License-Identifier: MIT */
/* The engine: virtual endpoints and their entries in the map. */
#include <bpf/bpf.h>

#include "engine_scene.h"

#define FILE_NAME "/etc/durpina/test.conf"
#define VIP "127.10.0.1:80"

static struct vip_spec vip_spec(const char *address, const char *name,
                                enum durpina_algorithm algorithm)
{
    struct vip_spec spec = {.algorithm = algorithm};

    OK(vip_address_parse(address, &spec.address, &scene.failure));
    OK(vip_upstream_parse(name, &spec, &scene.failure));
    return spec;
}

static int add_vip_by(const char *address, const char *name, enum durpina_algorithm algorithm)
{
    const struct vip_spec spec = vip_spec(address, name, algorithm);
    const struct vip *vip;
    bool created;

    return engine_add_vip(scene.engine, &spec, &created, &vip, &scene.failure);
}

static int add_vip(const char *address, const char *name)
{
    return add_vip_by(address, name, DURPINA_ROUND_ROBIN);
}

static int change_vip(const char *address, const char *name, enum durpina_algorithm algorithm)
{
    const struct vip_spec spec = vip_spec(address, name, algorithm);
    const struct vip *vip;

    return engine_change_vip(scene.engine, &spec, &vip, &scene.failure);
}

static int remove_vip(const char *address)
{
    const struct vip_spec spec = vip_spec(address, "any", DURPINA_ROUND_ROBIN);

    return engine_remove_vip(scene.engine, &spec.address, &scene.failure);
}

static const struct vip *vip(const char *address)
{
    const struct vip_spec spec = vip_spec(address, "any", DURPINA_ROUND_ROBIN);

    return model_vip(engine_model(scene.engine), &spec.address);
}

static int map_fd(void)
{
    return bpf_state_fd(&scene.maps, BPF_STATE_VIPS);
}

/* What a connect() finds; NULL: nothing. */
static const struct durpina_vip *entry(const char *address)
{
    const struct vip_spec spec = vip_spec(address, "any", DURPINA_ROUND_ROBIN);
    static struct durpina_vip found;

    return bpf_map_lookup_elem(map_fd(), &spec.address, &found) == 0 ? &found : NULL;
}

static void put_entry(const char *address, struct durpina_vip value)
{
    const struct vip_spec spec = vip_spec(address, "any", DURPINA_ROUND_ROBIN);

    assert_int_equal(bpf_map_update_elem(map_fd(), &spec.address, &value, BPF_ANY), 0);
}

/* As connect.bpf.c does. */
static void count(const char *address, uint64_t selected, uint64_t missed)
{
    struct durpina_vip value = *entry(address);

    value.selected += selected;
    value.missed += missed;
    put_entry(address, value);
}

static void assert_counts(const char *address, uint64_t selected, uint64_t missed)
{
    uint64_t got_selected, got_missed;

    engine_vip_counts(scene.engine, vip(address), &got_selected, &got_missed);
    assert_int_equal(got_selected, selected);
    assert_int_equal(got_missed, missed);
}

static void assert_goes_to(const char *address, const char *name)
{
    const struct durpina_vip *found = entry(address);

    assert_non_null(found);
    assert_int_equal(found->upstream, upstream(name)->id);
    assert_int_equal(found->generation, upstream(name)->generation);
    assert_int_equal(vip(address)->obstacle, VIP_CLEAR);
}

static void assert_pending(const char *address, enum vip_obstacle obstacle)
{
    assert_null(entry(address));
    assert_int_equal(vip(address)->obstacle, obstacle);
}

static void make_upstream(const char *name, const char *server_line)
{
    OK(engine_create_upstream(scene.engine, name, &scene.failure));
    OK(add(name, server_line));
}

static void vip_goes_to_its_upstream_at_once(void **state)
{
    (void) state;
    make_upstream("foo", "10.0.0.1");
    OK(add_vip_by(VIP, "foo", DURPINA_UNWEIGHTED_ROUND_ROBIN));
    assert_goes_to(VIP, "foo");
    assert_int_equal(entry(VIP)->algorithm, DURPINA_UNWEIGHTED_ROUND_ROBIN);
    OK(add_vip("[fd00::1]:80/udp", "foo"));
    assert_goes_to("[fd00::1]:80/udp", "foo");
    OK(remove_vip(VIP));
    assert_null(entry(VIP));
    assert_null(vip(VIP));
    assert_goes_to("[fd00::1]:80/udp", "foo");
}

static void vip_waits_for_its_upstream_and_outlives_it(void **state)
{
    (void) state;
    OK(add_vip(VIP, "foo"));
    assert_pending(VIP, VIP_NO_UPSTREAM);
    make_upstream("foo", "10.0.0.1");
    assert_goes_to(VIP, "foo");
    count(VIP, 7, 2);
    OK(engine_delete_upstream(scene.engine, "foo", &scene.failure));
    assert_pending(VIP, VIP_NO_UPSTREAM);
    assert_counts(VIP, 7, 2);
    make_upstream("foo", "10.0.0.1");
    assert_goes_to(VIP, "foo");
    count(VIP, 1, 0);
    assert_counts(VIP, 8, 2);
}

static void upstream_that_goes_with_its_nginx_takes_the_entry_along(void **state)
{
    (void) state;
    OK(introduce("foo", "10.0.0.1"));
    OK(add_vip(VIP, "foo"));
    assert_goes_to(VIP, "foo");
    OK(introduce("bar", "10.0.0.1"));
    assert_null(upstream("foo"));
    assert_pending(VIP, VIP_NO_UPSTREAM);
    OK(introduce("foo", "10.0.0.1"));
    assert_goes_to(VIP, "foo");
}

static void change_keeps_counts_and_tells_the_program(void **state)
{
    (void) state;
    make_upstream("foo", "10.0.0.1");
    make_upstream("bar", "10.0.0.2");
    OK(add_vip(VIP, "foo"));
    count(VIP, 5, 1);
    OK(change_vip(VIP, "bar", DURPINA_HASH));
    assert_goes_to(VIP, "bar");
    assert_int_equal(entry(VIP)->algorithm, DURPINA_HASH);
    assert_counts(VIP, 5, 1);
    OK(change_vip(VIP, "none", DURPINA_HASH));
    assert_pending(VIP, VIP_NO_UPSTREAM);
    assert_counts(VIP, 5, 1);
}

static void same_again_is_fine_and_another_is_not(void **state)
{
    const struct vip_spec spec = vip_spec(VIP, "foo", DURPINA_ROUND_ROBIN);
    const struct vip *found;
    bool created;

    (void) state;
    OK(add_vip(VIP, "foo"));
    OK(engine_add_vip(scene.engine, &spec, &created, &found, &scene.failure));
    assert_false(created);
    assert_ptr_equal(found, vip(VIP));
    assert_refused(add_vip(VIP, "bar"), 409, "EntryExists");
    assert_refused(add_vip_by(VIP, "foo", DURPINA_HASH), 409, "EntryExists");
    assert_refused(remove_vip("127.10.0.2:80"), 404, "VipNotFound");
    assert_refused(change_vip("127.10.0.2:80", "foo", DURPINA_HASH), 404, "VipNotFound");
}

static void address_of_a_peer_is_refused_and_suspends_the_vip(void **state)
{
    uint32_t id;

    (void) state;
    make_upstream("foo", "10.0.0.1:80");
    make_upstream("bar", "10.0.0.2:80");
    assert_refused(add_vip("10.0.0.1:80", "foo"), 400, "VipBadAddress");
    assert_refused(add_vip("10.0.0.1:80/udp", "foo"), 400, "VipBadAddress");
    assert_null(vip("10.0.0.1:80"));
    OK(add_vip("10.0.0.1:80", "bar"));
    assert_refused(change_vip("10.0.0.1:80", "foo", DURPINA_ROUND_ROBIN), 400, "VipBadAddress");
    assert_goes_to("10.0.0.1:80", "bar");

    OK(add("bar", "10.0.0.1:80"));
    assert_pending("10.0.0.1:80", VIP_LOOP);
    id = server("bar", "10.0.0.1:80")->id;
    OK(engine_remove_server(scene.engine, "bar", id, &scene.failure));
    assert_goes_to("10.0.0.1:80", "bar");
}

static void hash_has_its_table_laid_out(void **state)
{
    (void) state;
    make_upstream("foo", "10.0.0.1");
    OK(add("foo", "10.0.0.2"));
    scene.maps.cursors[upstream("foo")->id].asked = DURPINA_ASKED_NO_TABLE;
    AWAIT(upstream("foo")->demand[DEMANDED_HASH] == DEMAND_NONE);
    assert_int_equal(engine_table_slots(scene.engine, upstream("foo"), DEMANDED_HASH), 0);
    OK(add_vip_by(VIP, "foo", DURPINA_HASH));
    AWAIT(engine_table_slots(scene.engine, upstream("foo"), DEMANDED_HASH) > 0);
    OK(change_vip(VIP, "foo", DURPINA_ROUND_ROBIN));
    assert_int_equal(upstream("foo")->demand[DEMANDED_HASH], DEMAND_NONE);
}

static void as_many_as_the_map_holds_and_no_more(void **state)
{
    char address[32];

    (void) state;
    make_upstream("foo", "10.0.0.1");
    for (int i = 1; i <= DURPINA_VIPS_MAX; i++) {
        snprintf(address, sizeof(address), "127.10.0.1:%d", i);
        OK(add_vip(address, "foo"));
    }
    assert_goes_to(address, "foo");
    assert_refused(add_vip("127.10.0.2:1", "foo"), 409, "UpstreamOutOfMemory");
    assert_null(vip("127.10.0.2:1"));

    /* The configuration's are taken beyond; who does not fit waits. */
    const struct vip_spec spec = vip_spec("127.10.0.2:1", "foo", DURPINA_ROUND_ROBIN);

    OK(engine_set_configured_vips(scene.engine, FILE_NAME, &spec, 1));
    assert_pending("127.10.0.2:1", VIP_NO_ROOM);
    OK(remove_vip(address));
    assert_goes_to("127.10.0.2:1", "foo");
}

/* --- the configuration's ---------------------------------------------------------------------- */

static void configured_ones_are_changed_in_the_file_only(void **state)
{
    const struct vip_spec spec = vip_spec(VIP, "foo", DURPINA_ROUND_ROBIN);

    (void) state;
    make_upstream("foo", "10.0.0.1");
    OK(engine_set_configured_vips(scene.engine, FILE_NAME, &spec, 1));
    assert_goes_to(VIP, "foo");
    assert_refused(remove_vip(VIP), 409, "VipImmutable");
    assert_non_null(strstr(scene.failure.text, FILE_NAME));
    assert_refused(change_vip(VIP, "bar", DURPINA_ROUND_ROBIN), 409, "VipImmutable");
    OK(add_vip(VIP, "foo"));
    assert_goes_to(VIP, "foo");
}

static void reload_touches_nothing_that_stays(void **state)
{
    struct vip_spec specs[] = {vip_spec("127.10.0.1:1", "foo", DURPINA_ROUND_ROBIN),
                               vip_spec("127.10.0.1:2", "foo", DURPINA_ROUND_ROBIN),
                               vip_spec("127.10.0.1:3", "foo", DURPINA_ROUND_ROBIN)};

    (void) state;
    make_upstream("foo", "10.0.0.1");
    make_upstream("bar", "10.0.0.2");
    OK(add_vip("127.10.0.1:9", "foo"));
    OK(engine_set_configured_vips(scene.engine, FILE_NAME, specs, 2));
    count("127.10.0.1:1", 3, 0);
    count("127.10.0.1:2", 4, 0);
    count("127.10.0.1:9", 5, 0);

    /* The first stays, the second is changed, the third is new; then the second goes. */
    specs[1] = vip_spec("127.10.0.1:2", "bar", DURPINA_ROUND_ROBIN);
    OK(engine_set_configured_vips(scene.engine, FILE_NAME, specs, 3));
    assert_goes_to("127.10.0.1:1", "foo");
    assert_goes_to("127.10.0.1:2", "bar");
    assert_goes_to("127.10.0.1:3", "foo");
    assert_goes_to("127.10.0.1:9", "foo");
    assert_counts("127.10.0.1:1", 3, 0);
    assert_counts("127.10.0.1:2", 4, 0);
    specs[1] = specs[2];
    OK(engine_set_configured_vips(scene.engine, FILE_NAME, specs, 2));
    assert_null(vip("127.10.0.1:2"));
    assert_null(entry("127.10.0.1:2"));
    assert_counts("127.10.0.1:1", 3, 0);
    assert_counts("127.10.0.1:9", 5, 0);
}

static void file_takes_over_what_a_call_has_added(void **state)
{
    const struct vip_spec spec = vip_spec(VIP, "bar", DURPINA_ROUND_ROBIN);

    (void) state;
    make_upstream("bar", "10.0.0.2");
    OK(add_vip(VIP, "foo"));
    OK(engine_set_configured_vips(scene.engine, FILE_NAME, &spec, 1));
    assert_goes_to(VIP, "bar");
    assert_refused(remove_vip(VIP), 409, "VipImmutable");
    OK(engine_set_configured_vips(scene.engine, FILE_NAME, NULL, 0));
    assert_null(vip(VIP));
}

/* --- restarts --------------------------------------------------------------------------------- */

static void what_a_call_has_added_survives_a_restart(void **state)
{
    (void) state;
    make_upstream("foo", "10.0.0.1");
    OK(add_vip_by(VIP, "foo", DURPINA_HASH));
    OK(add_vip("127.10.0.2:80", "later"));
    count(VIP, 9, 4);
    restart_engine();
    assert_goes_to(VIP, "foo");
    assert_int_equal(entry(VIP)->algorithm, DURPINA_HASH);
    assert_counts(VIP, 9, 4);
    assert_pending("127.10.0.2:80", VIP_NO_UPSTREAM);
    make_upstream("later", "10.0.0.1");
    assert_goes_to("127.10.0.2:80", "later");
}

static void start_makes_the_map_what_the_model_says(void **state)
{
    struct durpina_vip value;

    (void) state;
    make_upstream("foo", "10.0.0.1");
    OK(add_vip("127.10.0.1:1", "foo"));
    OK(add_vip("127.10.0.1:2", "foo"));
    OK(add_vip("127.10.0.1:3", "foo"));
    count("127.10.0.1:2", 6, 1);
    value = *entry("127.10.0.1:2");
    stop_engine();

    /* As somebody with bpftool might leave it. */
    {
        const struct bpf_state_options maps = {.pin = scene.pins.dir,
                                               .n_upstreams = 4,
                                               .n_peers = 64,
                                               .n_slots = 65536,
                                               .n_inflight = DURPINA_TRIES_PER_PAGE};
        const struct vip_spec gone = vip_spec("127.10.0.1:3", "foo", DURPINA_ROUND_ROBIN);

        OK(bpf_state_open(&maps, &scene.maps, &scene.failure));
        put_entry("127.10.0.9:9", value);
        value.upstream = 77;
        value.algorithm = (enum durpina_algorithm) 4711;
        put_entry("127.10.0.1:2", value);
        assert_int_equal(bpf_map_delete_elem(map_fd(), &gone.address), 0);
        bpf_state_close(&scene.maps);
    }
    start_engine();
    assert_null(entry("127.10.0.9:9"));
    assert_goes_to("127.10.0.1:1", "foo");
    assert_goes_to("127.10.0.1:2", "foo");
    assert_int_equal(entry("127.10.0.1:2")->algorithm, DURPINA_ROUND_ROBIN);
    assert_counts("127.10.0.1:2", 6, 1);
    assert_goes_to("127.10.0.1:3", "foo");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(vip_goes_to_its_upstream_at_once),
        TEST(vip_waits_for_its_upstream_and_outlives_it),
        TEST(upstream_that_goes_with_its_nginx_takes_the_entry_along),
        TEST(change_keeps_counts_and_tells_the_program),
        TEST(same_again_is_fine_and_another_is_not),
        TEST(address_of_a_peer_is_refused_and_suspends_the_vip),
        TEST(hash_has_its_table_laid_out),
        TEST(as_many_as_the_map_holds_and_no_more),
        TEST(configured_ones_are_changed_in_the_file_only),
        TEST(reload_touches_nothing_that_stays),
        TEST(file_takes_over_what_a_call_has_added),
        TEST(what_a_call_has_added_survives_a_restart),
        TEST(start_makes_the_map_what_the_model_says),
    };

    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
