#!/bin/bash
# SPDX-License-Identifier: MIT
# A backend dies under load and comes back: no client notices, and it gets no traffic in between.
. "$(dirname "$0")/../lib/harness.sh"
. "$ROOT/tests/lib/site.sh"

fail_timeout_s=2
start_backend a
start_backend b
start_backend c
start_durpinad
free_port
port=$ret_port
start_nginx web 2 < <(foo_site "$port" "
    server 127.0.0.1:$port_a weight=5 fail_timeout=${fail_timeout_s}s;
    server 127.0.0.1:$port_b weight=3 fail_timeout=${fail_timeout_s}s;
    server 127.0.0.1:$port_c weight=2 fail_timeout=${fail_timeout_s}s;")

# field FIELD: of the peer that is killed.
field() {
    api GET /api/9/http/upstreams/foo |
        jq -r --arg s "127.0.0.1:$port_a" ".peers[] | select(.server == \$s) | .$1"
}
is_out() {
    [ "$(field state)" = unavail ]
}
has_more_than() {
    [ "$(field requests)" -gt "$1" ]
}

start_load "http://127.0.0.1:$port/" 60 64
wait_for has_more_than 100 || die "the load reaches the backend"
kill_hard "$backend_a"
ok "killed_backend_is_marked_unavailable" wait_for is_out

# Out, it gets one probing request per fail_timeout, however many requests pass by.
before=$(field requests)
began=${EPOCHREALTIME/./}
DEADLINE_S=$((4 * fail_timeout_s)) wait_for has_more_than $((before + 1))
between "dead_backend_gets_one_request_per_fail_timeout" \
    $(((${EPOCHREALTIME/./} - began) / 1000)) $((fail_timeout_s * 1000 - 100)) \
    $((2 * fail_timeout_s * 1000 + 500))

before=$(field requests)
start_backend a "$port_a"
back=${EPOCHREALTIME/./}
ok "returned_backend_gets_its_share_again" wait_for has_more_than $((before + 100))
between "it_is_back_within_fail_timeout" $(((${EPOCHREALTIME/./} - back) / 1000)) \
    0 $((fail_timeout_s * 1000 + 500))
end_load
is "no_client_saw_an_error" "$(load_errors)" none
note "$(load_requests) requests"
is "shares_are_exact_again" "$(tally 1000 16 "http://127.0.0.1:$port/")" "a=500 b=300 c=200"
is "nothing_is_counted_as_active" "$(active foo)" 0
done_testing
