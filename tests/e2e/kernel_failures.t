#!/bin/bash
# SPDX-License-Identifier: MIT
# A connect() that fails in any process takes the peer out in every upstream that has it, within a
# millisecond; each failure counts once, whoever tells of it and however many there are.
. "$(dirname "$0")/../lib/harness.sh"

rounds=${ROUNDS:-500}
flood=${FLOOD:-50000} # at each of two addresses

cc -O2 -D_GNU_SOURCE -I"$ROOT/bpf" -o "$T/refused" "$ROOT/tests/lib/refused.c" -lbpf ||
    die "tests/lib/refused.c compiles"
join_cgroup
start_backend live
for name in front dead quick flooded spilt; do
    free_port
    printf -v "port_$name" %s "$ret_port"
done
start_durpinad
start_nginx web 2 <<END
http {
    upstream three {
        server 127.0.0.1:$port_live max_fails=0;
        server 127.0.0.1:$port_dead max_fails=3 fail_timeout=60s;
        durpina round-robin;
    }
    upstream two {
        server 127.0.0.1:$port_live max_fails=0;
        server 127.0.0.1:$port_dead max_fails=2 fail_timeout=60s;
        durpina round-robin;
    }
    upstream one {
        server 127.0.0.1:$port_live max_fails=0;
        server 127.0.0.1:$port_dead max_fails=1 fail_timeout=60s;
        durpina round-robin;
    }
    upstream flood {
        server 127.0.0.1:$port_flooded max_fails=65535 fail_timeout=600s;
        server 127.0.0.1:$port_spilt max_fails=65535 fail_timeout=600s;
        durpina round-robin;
    }
    upstream quick {
        server 127.0.0.1:$port_live;
        server 127.0.0.1:$port_quick max_fails=1 fail_timeout=60s;
        durpina round-robin;
    }
    upstream quick_too {
        server 127.0.0.1:$port_live;
        server 127.0.0.1:$port_quick max_fails=1 fail_timeout=60s;
        durpina round-robin;
    }
    proxy_next_upstream off;
    server {
        listen 127.0.0.1:$port_front;
        location /three { proxy_pass http://three; }
        location /two { proxy_pass http://two; }
        location /one { proxy_pass http://one; }
    }
}
END

# UPSTREAM PORT FIELD: a field of the counters of that peer, as they are in the map.
counter() {
    local id
    id=$(bpftool -j map dump pinned "$PIN/peers" | jq --arg p "127.0.0.1:$2" \
        --argjson u "$(bpftool -j map dump pinned "$PIN/upstreams" |
            jq --arg u "$1" '.[].formatted | select(.value.name == $u) | .key')" \
        '.[].formatted | select(.value.address == $p and .value.upstream == $u and
            .value.settings[0].state != "DURPINA_PEER_FREE") | .key')
    bpftool -j map dump pinned "$PIN/counters" |
        jq --argjson id "$id" ".[] | select(.formatted.key == \$id) | .formatted.value.$3"
}
fails() { # of the dead peer, in three, two and one
    echo "$(counter three "$port_dead" fails) $(counter two "$port_dead" fails) $(
        counter one "$port_dead" fails)"
}
state() { # UPSTREAM PORT
    peer "$1" state "127.0.0.1:$2"
}
has_fails() {
    [ "$(fails)" = "$*" ]
}
# A new life for the dead peer: what a monitor's first passed check does as well.
forget_fails() {
    local upstream
    for upstream in three two one; do
        api POST "/api/9/durpina/upstreams/$upstream/servers/$(
            server_id "$upstream" "127.0.0.1:$port_dead")/reset" >/dev/null
        api PATCH "/api/9/http/upstreams/$upstream/servers/$(
            server_id "$upstream" "127.0.0.1:$port_dead")" '{"state":"up"}' >/dev/null
    done
    wait_for has_fails 0 0 0 || die "failures are forgotten" "$(fails)"
}
count_502() { # N PATH
    local i n=0
    for ((i = 0; i < $1; i++)); do
        [ "$(status "http://127.0.0.1:$port_front/$2")" != 502 ] || n=$((n + 1))
    done
    echo "$n"
}

# --- one failure, any process --------------------------------------------------------------------

curl -s "http://127.0.0.1:$port_dead/"
ok "failed_connect_of_curl_counts_in_every_upstream" wait_for has_fails 1 1 1
is "each_upstream_goes_by_its_own_max_fails" \
    "$(state three "$port_dead") $(state two "$port_dead") $(state one "$port_dead")" \
    "up up unavail"
is "no_worker_picks_the_peer_any_more" "$(count_502 20 one)" 0
ok "it_is_logged_once" [ "$(grep -c "peer 127.0.0.1:$port_dead .* is temporarily down" \
    "$T/durpinad.log")" -eq 1 ]

# --- nginx's own failures ------------------------------------------------------------------------

forget_fails
is "workers_and_kernel_count_a_failed_connect_once" "$(count_502 20 three)" 3
ok "in_the_other_upstreams_each_counts_once_too" wait_for has_fails 3 3 3
is "all_are_down_then" \
    "$(state three "$port_dead") $(state two "$port_dead") $(state one "$port_dead")" \
    "unavail unavail unavail"

forget_fails
curl -s "http://127.0.0.1:$port_dead/"
curl -s "http://127.0.0.1:$port_dead/"
wait_for has_fails 2 2 2
is "failures_of_curl_and_of_workers_add_up" "$(count_502 20 three)" 1
ok "none_of_them_is_counted_twice" wait_for has_fails 3 3 3

# --- a flood -------------------------------------------------------------------------------------

# Nobody reads the ring meanwhile.
kill -STOP "$durpinad_pid"
"$T/refused" "$port_flooded" "$flood" || die "connects are refused"
"$T/refused" "$port_spilt" "$flood" || die "connects are refused"
kill -CONT "$durpinad_pid"
flood_is_counted() {
    [ "$(counter flood "$port_flooded" fails) $(counter flood "$port_spilt" fails)" = \
        "$flood $flood" ]
}
before=$(api GET /api/9/durpina/kernel)
ok "a_flood_with_a_full_ring_loses_no_failure" wait_for flood_is_counted
is "the_kernel_has_counted_them_all" \
    "$(api GET /api/9/http/upstreams/flood | jq -c '[.peers[].kernel.refused]')" "[$flood,$flood]"
between "events_that_were_dropped_are_counted" \
    "$(jq .totals.events_dropped <<<"$before")" 1 $((2 * flood))

# --- how fast ------------------------------------------------------------------------------------

# What disturbs the machine for a moment is no property of the code: the best of three.
downs() {
    api GET /api/9/durpina/kernel | jq .failures.downs
}
best=999999
before=$(downs)
for attempt in 1 2 3; do
    read -r p50 p99 most < <("$T/refused" "$port_quick" "$rounds" "$PIN") || die "peers go down"
    note "attempt $attempt: median $p50 us, 99th percentile $p99 us, most $most us"
    [ "$p99" -ge "$best" ] || best=$p99
    [ "$best" -gt 1000 ] || break
done
between "peer_is_out_of_all_workers_picks_within_a_millisecond" "$best" 1 1000
is "each_time_it_was_the_kernel_s_word" "$(($(downs) - before))" $((attempt * rounds * 2))

# --- a controller that was not there -------------------------------------------------------------

forget_fails
kill_hard "$durpinad_pid"
curl -s "http://127.0.0.1:$port_dead/"
start_durpinad
curl -s "http://127.0.0.1:$port_dead/"
ok "what_failed_before_a_controller_started_is_past" wait_for has_fails 1 1 1
done_testing
