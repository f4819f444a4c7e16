#!/bin/bash
# SPDX-License-Identifier: MIT
# bpftool shows every peer by name, as an operator reads it.
. "$(dirname "$0")/../lib/harness.sh"
. "$ROOT/tests/lib/site.sh"

start_backend a
start_backend b
start_backend c
start_durpinad
free_port
port=$ret_port
start_nginx web 1 < <(foo_site "$port")
# A server that was removed leaves a free record.
api POST /api/9/http/upstreams/foo/servers '{"server":"127.0.0.1:1"}' >"$T/added"
api DELETE "/api/9/http/upstreams/foo/servers/$(server_id foo 127.0.0.1:1)" >"$T/removed"
api PATCH "/api/9/http/upstreams/foo/servers/$(server_id foo "127.0.0.1:$port_c")" \
    '{"state":"down"}' >"$T/patched"

bpftool -j map dump pinned "$PIN/peers" |
    jq -r '.[].formatted.value | select(.settings[0].state != "DURPINA_PEER_FREE") |
        "\(.name) \(.address) \(.settings[0].weight) \(.settings[0].state)"' >"$T/peers"
is "peers_have_names_addresses_weights_and_state_words" "$(sort "$T/peers")" "$(sort <<END
127.0.0.1:$port_a 127.0.0.1:$port_a 5 DURPINA_PEER_UP
127.0.0.1:$port_b 127.0.0.1:$port_b 3 DURPINA_PEER_UP
127.0.0.1:$port_c 127.0.0.1:$port_c 2 DURPINA_PEER_DOWN
END
)"
is "both_copies_are_equal_at_rest" \
    "$(bpftool -j map dump pinned "$PIN/peers" |
        jq '[.[].formatted.value | select(.settings[0] != .settings[1])] | length')" 0
is "upstreams_have_names" \
    "$(bpftool -j map dump pinned "$PIN/upstreams" |
        jq -r '.[].formatted.value.name | select(. != "")')" foo
tally 10 1 "http://127.0.0.1:$port/" >"$T/picked"
is "counters_count" \
    "$(bpftool -j map dump pinned "$PIN/counters" |
        jq '[.[].formatted.value | .responses[], .unanswered] | add')" 10
done_testing
