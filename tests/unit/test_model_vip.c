/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "model.h"

#include <cmocka.h> /* last: its macro fail() hides the function of failure.h */

static struct durpina_address address_of(const char *text)
{
    struct durpina_address address;
    struct failure failure;

    assert_int_equal(vip_address_parse(text, &address, &failure), 0);
    return address;
}

static struct vip *add_vip(struct model *model, const char *text)
{
    const struct vip_spec spec = {.address = address_of(text), .upstream = "foo"};
    struct vip *vip = model_new_vip(&spec);

    assert_non_null(vip);
    model_link_vip(model, vip);
    return vip;
}

static void a_vip_is_found_by_address_port_and_protocol(void **state)
{
    struct model model = {0};
    struct durpina_address tcp = address_of("127.10.0.1:53"), udp = address_of("127.10.0.1:53/udp"),
                           other = address_of("127.10.0.1:54");
    struct vip *first = add_vip(&model, "127.10.0.1:53"),
               *last = add_vip(&model, "127.10.0.1:53/udp");

    (void) state;
    assert_ptr_equal(model_vip(&model, &tcp), first);
    assert_ptr_equal(model_vip(&model, &udp), last);
    assert_null(model_vip(&model, &other));
    assert_string_equal(last->name, "127.10.0.1:53/udp");
    model_free_vip(&model, first);
    assert_null(model_vip(&model, &tcp));
    model_clear(&model);
    assert_null(model.vips);
}

static void a_peers_address_is_known_whatever_the_protocol(void **state)
{
    static const char *const peers[] = {"10.0.0.1:80", "[fd00::1]:80", "unix:/run/x"};
    struct model model = {0};
    struct upstream *upstream = model_add_upstream(&model, "foo");
    struct durpina_address address;

    (void) state;
    for (size_t i = 0; i < sizeof(peers) / sizeof(peers[0]); i++) {
        struct server_spec spec = {0};
        struct failure failure;
        struct server *server;
        struct addr addr;

        assert_int_equal(server_line_parse(peers[i], 80, &spec, &failure), 0);
        assert_int_equal(addr_parse(peers[i], 80, &addr), 0);
        server = model_new_server(upstream, &spec);
        server->peers = calloc(2, sizeof(*server->peers));
        server->peers[server->n_peers++] = model_new_peer(server, NULL);
        server->peers[server->n_peers++] = model_new_peer(server, &addr);
        model_link_server(server);
    }
    address = address_of("10.0.0.1:80");
    assert_true(model_has_peer_at(upstream, &address));
    address = address_of("[::ffff:10.0.0.1]:80/udp");
    assert_true(model_has_peer_at(upstream, &address));
    address = address_of("[fd00::1]:80");
    assert_true(model_has_peer_at(upstream, &address));
    address = address_of("10.0.0.1:81");
    assert_false(model_has_peer_at(upstream, &address));
    address = address_of("10.0.0.2:80");
    assert_false(model_has_peer_at(upstream, &address));
    model_clear(&model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_vip_is_found_by_address_port_and_protocol),
        cmocka_unit_test(a_peers_address_is_known_whatever_the_protocol),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
