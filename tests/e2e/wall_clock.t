#!/bin/bash
# SPDX-License-Identifier: MIT
# The wall clock of durpinad and of all workers steps by ten years, forth and back, under load: no
# peer changes its state, no check is left out or made twice, no request fails.
. "$(dirname "$0")/../lib/harness.sh"
. "$ROOT/tests/lib/site.sh"

TEN_YEARS=315360000
export WALL_CLOCK=$T/wall_clock.offset

# set_clock SECONDS: off by so much, in place, since the file is mapped.
set_clock() {
    printf '%+031d\n' "$1" 1<>"$WALL_CLOCK"
}

cc -shared -fPIC -O2 -D_GNU_SOURCE -o "$T/wall_clock.so" "$ROOT/tests/lib/wall_clock.c" ||
    die "the clock is built"
set_clock 0

# What both nginx and durpinad run with; the test's own commands keep their clock.
with_clock() {
    LD_PRELOAD=$T/wall_clock.so "$@"
}

start_backend a
start_backend b
free_port
refusing=$ret_port
with_clock start_durpinad
free_port
port=$ret_port
with_clock start_nginx web 2 < <(foo_site "$port" "
    server 127.0.0.1:$port_a fail_timeout=60s;
    server localhost:$port_b fail_timeout=60s;
    server 127.0.0.1:$refusing fail_timeout=60s;")
year() {
    curl -s -o /dev/null -D - "http://127.0.0.1:$port/" | sed -n 's/^Date: .* \(2[0-9]*\) .*/\1/p'
}

# One is unhealthy by a monitor, one temporarily down by its failures, the others are up.
api POST /api/9/durpina/upstreams '{"name": "checked"}' >/dev/null
for server in "$port_a" "$refusing"; do
    api POST /api/9/http/upstreams/checked/servers "{\"server\": \"127.0.0.1:$server\"}" >/dev/null
done
api POST /api/9/durpina/upstreams/checked/monitors \
    '{"name": "http", "options": {"interval": 0.05, "timeout": 5000, "jitter": 0.01}}' >/dev/null
states() {
    for name in foo checked; do
        api GET "/api/9/http/upstreams/$name" | jq -c '[.peers[] | [.server, .state]]'
    done
}
has_settled() {
    [ "$(states | grep -o '"unhealthy"\|"unavail"' | sort | tr '\n' ' ')" = '"unavail" "unhealthy" ' ]
}
checks() {
    api GET /api/9/durpina | jq .prober.checks
}
has_checked() {
    [ "$(checks)" -ge "$1" ]
}
verdicts() {
    api GET /api/9/http/upstreams/checked | jq -c '[.peers[].health_checks | [.fails > 0, .unhealthy]]'
}

start_load "http://127.0.0.1:$port/" 60 8
wait_for has_settled || die "peers settle" "$(states)"
before=$(states) verdicts=$(verdicts) years=$(year)
lines=$(wc -l <"$T/durpinad.log")
from=$(checks) began=${EPOCHREALTIME/./}
for offset in $TEN_YEARS -$TEN_YEARS 0 $((2 * TEN_YEARS)) -$TEN_YEARS; do
    set_clock "$offset"
    wait_for has_checked $(($(checks) + 20)) || die "checks go on at $offset"
    years+=" $(year)"
done
ms=$(((${EPOCHREALTIME/./} - began) / 1000))
made=$(($(checks) - from))
this_year=${years%% *}
is "clock_of_the_workers_has_stepped" "$years" \
    "$this_year $((this_year + 10)) $((this_year - 10)) $this_year $((this_year + 20)) $((this_year - 10))"
is "states_stay" "$(states)" "$before"
is "verdicts_stay" "$(verdicts)" "$verdicts"
is "no_line_in_the_log" "$(wc -l <"$T/durpinad.log")" "$lines"
# Two peers, every 50 ms.
between "checks_keep_their_interval" "$made" $((ms / 50)) $((ms * 2 / 50 + 4))
end_load
is "no_request_fails" "$(load_errors)" none
done_testing
