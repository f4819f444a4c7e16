#!/bin/bash
# SPDX-License-Identifier: MIT
# Peers that answer every request, and yet are slow, or lose packets, or have requests in flight that
# no connection carries: the API, the metrics, durpinactl and the log show them, and show them recover.
. "$(dirname "$0")/../lib/harness.sh"
own_network "$@"

LISTEN=10.77.0.1 FAR=10.77.0.2
DEADLINE_S=30
python3 "$ROOT/tests/lib/delay.py" "$LISTEN" "$FAR" 20 >"$T/delay.out" 2>"$T/delay.log" &
started[$!]=delay
wait_for grep -q ready "$T/delay.out" || die "there is a way that takes 20 ms"
start_backend far '' "$LISTEN"
for name in a b c lossy; do
    start_backend "$name"
done
start_durpinad
for upstream in foo bar; do
    api POST /api/9/durpina/upstreams "{\"name\":\"$upstream\"}" >"$T/created"
done
add() { # UPSTREAM ADDRESS
    api POST "/api/9/http/upstreams/$1/servers" "{\"server\":\"$2\"}" >"$T/added"
}
for address in "127.0.0.1:$port_a" "127.0.0.1:$port_b" "127.0.0.1:$port_c" "$FAR:$port_far"; do
    add foo "$address"
done
add bar "127.0.0.1:$port_lossy"
add bar "127.0.0.1:$port_a"

kernel() { # UPSTREAM FIELD ADDRESS
    peer "$1" "kernel.$2" "$3"
}
kernel_is() { # UPSTREAM FIELD ADDRESS VALUE
    [ "$(kernel "$1" "$2" "$3")" = "$4" ]
}
load() { # NAME URL: requests until it is stopped; sets load_NAME
    in_cgroup wrk -t 1 -c "${CONNECTIONS:-2}" -d 600s --timeout 60s -H "Connection: close" "$2" \
        >"$T/wrk.$1" 2>&1 &
    printf -v "load_$1" %s $!
    started[$!]=wrk
}
metric() { # FAMILY ADDRESS
    api GET /metrics | sed -n "s/^durpina_peer_kernel_$1{.*address=\"$2\"} //p" | head -n 1
}

# --- slow ----------------------------------------------------------------------------------------

for name in a b c; do
    port=port_$name
    load "$name" "http://127.0.0.1:${!port}/"
done
load far "http://$FAR:$port_far/"
ok "peer_with_long_round_trips_is_slow" \
    wait_for kernel_is foo slow "$FAR:$port_far" true
is "the_others_are_not" "$(for port in $port_a $port_b $port_c; do
    kernel foo slow "127.0.0.1:$port"
done | sort -u)" false
between "its_round_trips_take_what_the_way_takes" \
    "$(kernel foo srtt_ms "$FAR:$port_far" | cut -d. -f1)" 35 80
is "no_request_of_it_has_failed" "$(peer foo state "$FAR:$port_far")" up
is "the_metrics_say_so" "$(metric slow "$FAR:$port_far") $(metric slow "127.0.0.1:$port_a")" "1 0"
ok "and_the_log_once" [ "$(grep -c "$FAR:$port_far) is slow" "$T/durpinad.log")" -eq 1 ]
like "and_durpinactl" "$("$BUILD/durpinactl" kernel foo)" "$FAR:$port_far .* slow"

# --- lossy ---------------------------------------------------------------------------------------

nft -f - <<END || die "packets are dropped"
table inet filter {
    chain input {
        type filter hook input priority 0
        tcp dport $port_lossy ct state established numgen random mod 100 < 20 drop
    }
}
END
CONNECTIONS=50 load lossy "http://127.0.0.1:$port_lossy/"
ok "peer_that_loses_packets_is_lossy" \
    wait_for kernel_is bar lossy "127.0.0.1:$port_lossy" true
is "the_other_is_not" "$(kernel bar lossy "127.0.0.1:$port_a")" false
is "all_its_answers_are_good" "$(peer bar state "127.0.0.1:$port_lossy")" up
is "metrics_show_loss" "$(metric lossy "127.0.0.1:$port_lossy")" 1
ok "the_log_shows_it_once" \
    [ "$(grep -c "127.0.0.1:$port_lossy loses packets" "$T/durpinad.log")" -eq 1 ]
nft delete table inet filter
ok "it_recovers" wait_for kernel_is bar lossy "127.0.0.1:$port_lossy" false
ok "and_the_log_says_so" grep -q "127.0.0.1:$port_lossy does not lose packets" "$T/durpinad.log"
stop "$load_lossy" "$load_far" "$load_a" "$load_b" "$load_c"

# --- drift ---------------------------------------------------------------------------------------

# An nginx that the programs do not see: what it has in flight no counted connection carries.
free_port
start_nginx web 1 <<END
http {
    upstream bar {
        server 127.0.0.1:$port_a;
        durpina round-robin;
    }
    server {
        listen 127.0.0.1:$ret_port;
        location / { proxy_pass http://bar; }
    }
}
END
api DELETE "/api/9/http/upstreams/bar/servers/$(server_id bar "127.0.0.1:$port_lossy")" \
    >"$T/deleted"
curl -s "http://127.0.0.1:$ret_port/delay/600000" &
curl_pid=$!
started[$curl_pid]=curl
ok "request_that_no_connection_carries_is_a_drift" \
    wait_for kernel_is bar drift "127.0.0.1:$port_a" 1
is "metrics_show_the_drift" "$(metric drift "127.0.0.1:$port_a")" 1
stop "$curl_pid"
ok "drift_ends_with_it" wait_for kernel_is bar drift "127.0.0.1:$port_a" 0
is "log_shows_both" "$(grep -c "127.0.0.1:$port_a: .*request" "$T/durpinad.log")" 2

# --- metrics -------------------------------------------------------------------------------------

api GET /metrics >"$T/metrics"
ok "promtool_finds_nothing_to_say" [ -z "$(promtool check metrics <"$T/metrics" 2>&1)" ]
like "they_are_text" "$(api GET /metrics '' -i)" "Content-Type: text/plain; version=0.0.4"
is "head_has_no_body" "$(curl -s -I --unix-socket "$SOCKET" http://x/metrics | grep -c durpina)" 0
is "nobody_can_change_them" "$(api_code POST /metrics '{}')" 405
like "programs_are_listed" "$("$BUILD/durpinactl" kernel)" "observe +attached"
done_testing
