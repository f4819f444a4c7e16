#!/bin/bash
# SPDX-License-Identifier: MIT
# Shares are exact over all workers and all nginx instances of the host.
. "$(dirname "$0")/../lib/harness.sh"
. "$ROOT/tests/lib/site.sh"

start_backend a
start_backend b
start_backend c
start_durpinad
free_port
one=$ret_port
free_port
two=$ret_port

start_nginx first 4 < <(foo_site "$one")
is "thousand_requests_at_16_are_exact_over_4_workers" \
    "$(tally 1000 16 "http://127.0.0.1:$one/")" "a=500 b=300 c=200"
is "all_workers_took_part" "$(each_worker "$nginx_first" "http://127.0.0.1:$one/" | wc -l)" 4

# order URL...: 200 requests one after the other, over new connections, to the URLs in turn.
order() {
    local i
    for ((i = 0; i < 200; i++)); do
        printf 'url = "%s"\n' "${@:i % $# + 1:1}"
    done | curl -s -m 30 -H 'Connection: close' -K -
}

# The windows of 10 consecutive picks that do not hold 5 a, 3 b and 2 c.
wrong_windows() {
    awk '{s = s $1} END {
        for (i = 1; i <= length(s) - 9; i++) {
            w = substr(s, i, 10)
            if (gsub(/a/, "", w) != 5 || gsub(/b/, "", w) != 3 || gsub(/c/, "", w) != 2) n++
        }
        print length(s), n + 0
    }'
}

is "any_10_consecutive_picks_hold_5_3_and_2" \
    "$(order "http://127.0.0.1:$one/" | wrong_windows)" "200 0"

start_nginx second 4 < <(foo_site "$two")
is "any_10_consecutive_picks_over_two_instances_hold_5_3_and_2" \
    "$(order "http://127.0.0.1:$one/" "http://127.0.0.1:$two/" | wrong_windows)" "200 0"

tally 500 8 "http://127.0.0.1:$one/" >"$T/half" &
half=$!
tally 500 8 "http://127.0.0.1:$two/" >"$T/other-half"
wait "$half"
is "two_instances_share_one_exact_round_robin" \
    "$(cat "$T/half" "$T/other-half" | tr ' ' '\n' |
        awk -F= '{n[$1] += $2} END {print n["a"], n["b"], n["c"]}')" "500 300 200"

# A weight set in one worker of one instance is in force in all, at their next pick.
peer=127.0.0.1:$port_a
is "a_worker_sets_a_weight" "$(body "http://127.0.0.1:$one/weight/$peer/0")" 0
{
    order "http://127.0.0.1:$one/" "http://127.0.0.1:$two/"
    each_worker "$nginx_first" "http://127.0.0.1:$one/"
    each_worker "$nginx_second" "http://127.0.0.1:$two/"
} >"$T/drained"
is "no_worker_picks_the_drained_peer_again" "$(grep -c 'a$' "$T/drained")" 0
for instance in first second; do
    [ "$instance" = first ] && port=$one || port=$two
    master=nginx_$instance
    is "every_worker_of_the_${instance}_instance_reads_the_weight" \
        "$(each_worker "${!master}" "http://127.0.0.1:$port/weight/$peer" | cut -d' ' -f2 | xargs)" \
        "0 0 0 0"
done
is "another_worker_sets_it_back" "$(body "http://127.0.0.1:$two/weight/$peer/5")" 5
is "shares_are_exact_again" "$(tally 1000 16 "http://127.0.0.1:$two/")" "a=500 b=300 c=200"
done_testing
