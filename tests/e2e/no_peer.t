#!/bin/bash
# SPDX-License-Identifier: MIT
# Failed tries, and what happens when nobody is left.
. "$(dirname "$0")/../lib/harness.sh"
. "$ROOT/tests/lib/site.sh"

start_backend a
free_port
dead=$ret_port # nobody listens there
free_port
dead_too=$ret_port
start_durpinad
free_port
port=$ret_port
free_port
lone=$ret_port
start_nginx web 2 < <(foo_site "$port" "
    server 127.0.0.1:$port_a;
    server 127.0.0.1:$dead max_fails=3 fail_timeout=60s;
    server 127.0.0.1:$dead_too max_fails=0;" "
    upstream lone {
        server 127.0.0.1:$dead fail_timeout=60s;
        balancer_by_lua_block { require 'durpina.balancer' 'round-robin' }
    }
    server { listen 127.0.0.1:$lone; location / { proxy_pass http://lone; } }")

fields() {
    api GET "/api/9/http/upstreams/$1" |
        jq -c ".peers[] | select(.server == \"127.0.0.1:$2\") | $3"
}

is "every_request_finds_the_live_peer" "$(tally 60 1 "http://127.0.0.1:$port/")" "a=60"
is "max_fails_3_needs_3_failures" "$(fields foo "$dead" '[.requests, .fails, .unavail, .state]')" \
    '[3,3,1,"unavail"]'
is "max_fails_0_never_takes_a_peer_out" "$(fields foo "$dead_too" '[.unavail, .state]')" '[0,"up"]'
is "variable_in_proxy_pass_picks_from_the_upstream_it_names" \
    "$(tally 20 2 "http://127.0.0.1:$port/var/")" "a=20"

is "single_peer_is_tried_each_time" \
    "$(for _ in 1 2 3; do status "http://127.0.0.1:$lone/"; echo; done | xargs)" "502 502 502"
is "single_peer_is_never_taken_out" "$(fields lone "$dead" '[.requests, .unavail, .state]')" \
    '[3,0,"up"]'

for name in "$port_a" "$dead" "$dead_too"; do
    api PATCH "/api/9/http/upstreams/foo/servers/$(server_id foo "127.0.0.1:$name")" \
        '{"state":"down"}' >>"$T/patched"
done
start=${EPOCHREALTIME/./}
is "all_down_is_502" "$(for _ in 1 2 3 4 5; do status "http://127.0.0.1:$port/"; echo; done | xargs)" \
    "502 502 502 502 502"
between "all_down_is_answered_at_once" $(((${EPOCHREALTIME/./} - start) / 5000)) 0 200
is "nothing_was_sent_to_a_peer_that_is_down" "$(tally 5 1 "http://127.0.0.1:$port/" |
    grep -c 'a=')" 0
is "nothing_is_counted_as_active" "$(active foo)" 0
api PATCH "/api/9/http/upstreams/foo/servers/$(server_id foo "127.0.0.1:$port_a")" \
    '{"state":"up"}' >>"$T/patched"
is "first_peer_that_is_up_again_serves" "$(body "http://127.0.0.1:$port/")" a
done_testing
