#!/bin/bash
# SPDX-License-Identifier: MIT
# The controller is killed again and again under load: traffic goes on, and what was said stays.
. "$(dirname "$0")/../lib/harness.sh"
. "$ROOT/tests/lib/site.sh"

for name in a b c d; do
    start_backend "$name"
done
start_durpinad
free_port
port=$ret_port
start_nginx web 4 < <(foo_site "$port")
is "weight_is_set" "$(body "http://127.0.0.1:$port/weight/127.0.0.1:$port_a/4")" 4
is "dynamic_peer_is_added" \
    "$(api_code POST /api/9/http/upstreams/foo/servers "{\"server\":\"127.0.0.1:$port_d\"}")" 201
is "operator_takes_a_peer_down" \
    "$(api_code PATCH "/api/9/http/upstreams/foo/servers/$(server_id foo "127.0.0.1:$port_c")" \
        '{"down":true}')" 200

# What must survive, without counters.
model() {
    api GET /api/9/http/upstreams/foo/servers |
        jq -c '[.[] | {id, server, weight, down, max_fails, fail_timeout, initial_weight, origin}]'
}
before=$(model)
note "$before"

start_load "http://127.0.0.1:$port/delay/2" 60 16
same=0
for ((i = 0; i < 20; i++)); do
    kill_hard "$durpinad_pid"
    start_durpinad
    [ "$(model)" = "$before" ] && same=$((same + 1))
done
end_load
is "20_kills_change_no_peer_and_no_weight" "$same" 20
is "no_request_failed" "$(load_errors)" none
note "$(load_requests) requests"

# Without a controller.
kill_hard "$durpinad_pid"
is "dead_controller_changes_no_share" "$(tally 160 4 "http://127.0.0.1:$port/")" "a=80 b=60 d=20"
kill_hard "$backend_b"
for ((i = 0; i < 20; i++)); do
    body "http://127.0.0.1:$port/"
done >"$T/answers"
is "passive_failure_works_without_a_controller" "$(sort -u "$T/answers" | xargs)" "a d"
start_durpinad
is "next_controller_adopts_the_counters" \
    "$(api GET /api/9/http/upstreams/foo |
        jq -c ".peers[] | select(.server == \"127.0.0.1:$port_b\") | [.fails, .unavail, .state]")" \
    '[1,1,"unavail"]'
is "next_controller_has_the_same_peers" "$(model)" "$before"
is "workers_reach_the_next_controller" \
    "$(body "http://127.0.0.1:$port/weight/127.0.0.1:$port_a/5")" 5
kill -TERM "$durpinad_pid"
ok "orderly_stop_ends" wait_for none_running "$durpinad_pid"
is "orderly_stop_leaves_the_maps" "$(body "http://127.0.0.1:$port/" | grep -c .)" 1
done_testing
