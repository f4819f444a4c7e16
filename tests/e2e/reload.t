#!/bin/bash
# SPDX-License-Identifier: MIT
# 100 reloads under load: no request fails, and what the file, the operator and callers said is
# neither lost nor mixed up.
. "$(dirname "$0")/../lib/harness.sh"
. "$ROOT/tests/lib/site.sh"
DEADLINE_S=20

for name in a b c d e; do
    start_backend "$name"
done
start_durpinad
free_port
port=$ret_port

# The `server` lines: b's weight is $1, $2 follows.
lines() {
    printf 'server 127.0.0.1:%d weight=%d;\n' "$port_a" 5 "$port_b" "$1"
    [ -z "$2" ] || printf 'server 127.0.0.1:%d;\n' "$2"
}

start_nginx web 4 < <(foo_site "$port" "$(lines 3 "$port_c")")
is "weight_is_set_at_run_time" "$(body "http://127.0.0.1:$port/weight/127.0.0.1:$port_a/7")" 7
is "weight_of_the_next_line_is_set_too" \
    "$(body "http://127.0.0.1:$port/weight/127.0.0.1:$port_b/9")" 9
is "dynamic_peer_is_added" \
    "$(api_code POST /api/9/http/upstreams/foo/servers "{\"server\":\"127.0.0.1:$port_d\"}")" 201

# Short enough to leave the reloads some CPU, new connections so that every worker gets some.
start_load "http://127.0.0.1:$port/delay/2" 120 16 -H 'Connection: close'
reloads=0
reload_times() {
    local i
    for ((i = 0; i < $1; i++)); do
        reload_nginx web && reloads=$((reloads + 1))
    done
}
reload_times 50
is "50_reloads_keep_weights_and_dynamic_peers" "$(server_fields foo weight)" \
    "127.0.0.1:$port_a=7 127.0.0.1:$port_b=9 127.0.0.1:$port_c=1 127.0.0.1:$port_d=1"
nginx_conf web 4 < <(foo_site "$port" "$(lines 4 "$port_e")")
reload_times 50
end_load
is "100_reloads_were_done" "$reloads" 100
is "no_request_failed" "$(load_errors)" none
note "$(load_requests) requests"
is "changed_line_wins_others_stay_removed_lines_go_new_ones_come" \
    "$(server_fields foo weight | tr ' ' '\n' | sort | xargs)" \
    "$(printf '%s\n' "127.0.0.1:$port_a=7" "127.0.0.1:$port_b=4" "127.0.0.1:$port_d=1" \
        "127.0.0.1:$port_e=1" | sort | xargs)"
nothing_active() {
    [ "$(active foo)" = 0 ]
}
ok "nothing_is_counted_as_active" wait_for nothing_active
is "shares_follow" "$(tally 130 4 "http://127.0.0.1:$port/")" "a=70 b=40 d=10 e=10"
done_testing
