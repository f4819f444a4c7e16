#!/bin/bash
# SPDX-License-Identifier: MIT
# Workers are killed with requests in flight: the counts are those of the living within a second, so
# peers that were full take requests again. nginx itself counts such requests for ever.
. "$(dirname "$0")/../lib/harness.sh"
. "$ROOT/tests/lib/site.sh"

kills=${KILLS:-50}
max_conns=15
held=$((2 * max_conns)) # all that the peers take

for name in a b c d; do
    start_backend "$name"
done
start_durpinad
free_port
port=$ret_port
free_port
least_conn_port=$ret_port
start_nginx web 4 < <(foo_site "$port" "
    server 127.0.0.1:$port_a max_conns=$max_conns;
    server 127.0.0.1:$port_b max_conns=$max_conns;" "
    upstream bar {
        server 127.0.0.1:$port_c;
        server 127.0.0.1:$port_d;
        durpina least-conn;
    }
    server {
        listen 127.0.0.1:$least_conn_port;
        location / { proxy_pass http://bar; }
    }")

# The truth: a request in flight of a worker that lives is a connection to a backend, since none is
# kept alive.
connections() {
    ss -Htn state established "dport = :$1" | wc -l
}
in_flight() {
    echo $(($(connections "$1") + $(connections "$2")))
}
counts_are_true() {
    [ "$(in_flight "$port_a" "$port_b")" -eq "$held" ] && [ "$(active foo)" -eq "$held" ]
}
bar_is_true() {
    [ "$(active bar)" -eq "$(in_flight "$port_c" "$port_d")" ]
}
# victim PORT PORT: a worker with requests in flight to these backends.
victim() {
    ss -Htnp state established "dport = :$1 or dport = :$2" | grep -o 'pid=[0-9]*' | sort -u |
        shuf -n 1 | tr -dc 0-9
}

# Requests that do not end by themselves: wrk sends those again whose worker was killed.
start_load "http://127.0.0.1:$port/delay/600000" 600 "$held"
wait_for counts_are_true || die "the load is held" "$(active foo) of $held active"

slowest_ms=0
late=0
over=0
for ((i = 0; i < kills; i++)); do
    pid=$(victim "$port_a" "$port_b")
    began=${EPOCHREALTIME/./}
    kill -KILL "$pid"
    DEADLINE_S=3 wait_for counts_are_true || die "counts are true after kill $i" \
        "$(in_flight "$port_a" "$port_b") connections, $(active foo) active, $held wanted"
    ms=$(((${EPOCHREALTIME/./} - began) / 1000))
    [ "$ms" -le 1000 ] || late=$((late + 1))
    [ "$ms" -le "$slowest_ms" ] || slowest_ms=$ms
    [ "$(connections "$port_a")" -eq "$max_conns" ] || over=$((over + 1))
    wait_for has_workers "$nginx_web" 4
done
is "counts_are_true_within_a_second_of_each_kill" "$late" 0
note "slowest: $slowest_ms ms"
is "max_conns_is_used_up_and_never_exceeded" "$over" 0
is "each_killed_worker_is_logged" \
    "$(grep -o 'worker [0-9]* is gone' "$T/durpinad.log" | sort -u | wc -l)" "$kills"
between "pages_of_the_killed_are_free_again" \
    "$(api GET /api/9/durpina | jq .used.inflight)" 1 $((4 * 62))

kill_hard "$durpinad_pid"
kill -KILL "$(victim "$port_a" "$port_b")"
start_durpinad
ok "a_worker_killed_while_no_durpinad_ran_is_found_at_start" wait_for counts_are_true

end_load
nothing_is_active() {
    [ "$(active foo)" -eq 0 ]
}
ok "nothing_is_active_in_the_end" wait_for nothing_is_active
is "peers_have_all_their_places" "$(tally 100 4 "http://127.0.0.1:$port/")" "a=50 b=50"

# What a killed worker had is not on both peers alike: only true counts level them again.
hold_one_more() {
    local n=$(($(active bar) + 1))
    curl -s "http://127.0.0.1:$least_conn_port/delay/600000" >/dev/null 2>&1 &
    started[$!]=curl
    wait_for has_active bar "$n" || die "a request is held"
}
shares=''
for i in 1 2 3 4 5 6 7 8; do
    while [ "$(active bar)" -lt 12 ]; do
        hold_one_more
    done
    shares+="$(connections "$port_c"):$(connections "$port_d") "
    kill -KILL "$(victim "$port_c" "$port_d")"
    wait_for bar_is_true || die "counts are true"
    wait_for has_workers "$nginx_web" 4
done
is "least_conn_goes_by_the_requests_of_the_living" "$shares" "$(printf '6:6 %.0s' 1 2 3 4 5 6 7 8)"
done_testing
