#!/bin/bash
# SPDX-License-Identifier: MIT
# States, reasons and history by the Lua API.
. "$(dirname "$0")/../lib/harness.sh"
. "$(dirname "$0")/../lib/lua.sh"

start_backend a
free_port
front=$ret_port
free_port
dead=$ret_port
lua_url=http://127.0.0.1:$front/lua
a=127.0.0.1:$port_a
start_durpinad
start_nginx front 2 <<END
http {
    lua_shared_dict upstream 1m;
    upstream foo { server $a; server 127.0.0.1:$dead;
                   balancer_by_lua_block { require "durpina.balancer" "round-robin" } }
    server { listen 127.0.0.1:$front reuseport; $lua_location
             location / { proxy_pass http://foo; } }
}
END
of() { lua "return Upstream.get('foo'):info()" | jq -c ".peers[] | select(.name == \"$1\") | $2"; }
state_is() { [ "$(of "$1" .state)" = "\"$2\"" ]; }
does() { lua "return Upstream.get('foo'):get_peer('$a'):$1"; }

is "without_anything_to_tell_info_is_Durpinas" "$(of "$a" keys_unsorted)" \
    '["name","address","weight","state"]'
lua "return Upstream.get('foo'):add_monitor('tcp', {id = 'm', interval = 0.05, timeout = 5000})" >/dev/null
ok "a_dead_peer_is_unhealthy" wait_for state_is "127.0.0.1:$dead" unhealthy
is "info_gives_reason_last_result_and_history" \
    "$(of "127.0.0.1:$dead" '.health[0] | [.address, .state, .reason, .monitors[0].id,
        .monitors[0].last.passed, .monitors[0].last.reason, .transitions[0].cause]')" \
    "[\"127.0.0.1:$dead\",\"unhealthy\",\"monitor m: connection refused\",\"m\",false,\"connection refused\",\"monitor m: connection refused\"]"
is "set_state_takes_maint" "$(does 'set_state("maint")')" true
is "which_is_down_for_good" "$(does 'is_down("permanent")') $(of "$a" .state)" 'true "down"'
is "and_told_as_maint" "$(of "$a" '.health[0].reason')" '"set \"maint\""'
is "nobody_is_left" "$(status "http://127.0.0.1:$front/")" 502
is "a_worker_lifts_it" "$(does 'set_state("up")')" true
is "and_the_peer_serves" "$(body "http://127.0.0.1:$front/")" a
like "other_words_raise_with_the_valid_ones" "$(does 'set_state("off")')" \
    'raised: .*"down", "drain", "maint", "temporary_down", "up"'
stop "$durpinad_pid"
is "without_a_controller_info_tells_what_the_maps_do" \
    "$(of "127.0.0.1:$dead" '[.state, has("health")]')" '["unhealthy",false]'
done_testing
