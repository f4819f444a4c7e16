#!/bin/bash
# SPDX-License-Identifier: MIT
# What the kernel counts decides picks, of nginx's directive and of Lua's balancer, and falls back
# to nginx's own counts; and a try that fails to connect is one failure with two witnesses.
. "$(dirname "$0")/../lib/harness.sh"
own_network "$@"

join_cgroup
for backend in a b live idle; do
    start_backend "$backend"
done
for port in front refusing lua_refusing kept_refusing filtered; do
    free_port
    printf -v "port_$port" %s "$ret_port"
done
url=http://127.0.0.1:$port_front
a=127.0.0.1:$port_a b=127.0.0.1:$port_b

start_durpinad
balance() { echo "balancer_by_lua_block { require \"durpina.balancer\" ($1) }"; }
two="server $a; server $b;"
# The first peer has the first turn, and each further one if it fails.
failing() {
    echo "server $1 max_fails=9 fail_timeout=60s; server 127.0.0.1:$port_live max_fails=0;"
}
start_nginx front 1 <<END
http {
    lua_shared_dict upstream 1m;
    upstream conn { $two durpina least-conn source=kernel; }
    upstream time { $two durpina least-time source=kernel; }
    upstream nginx_conn { $two durpina least-conn source=nginx; }
    upstream lua_conn { $two $(balance '"least-conn", "source=kernel"') }
    upstream lua_time { $two $(balance '"least-time", "source=kernel"') }
    upstream refusing { $(failing "127.0.0.1:$port_refusing") durpina round-robin; }
    upstream lua_refusing { $(failing "127.0.0.1:$port_lua_refusing") $(balance '"round-robin"') }
    upstream kept_refusing { $(failing "127.0.0.1:$port_kept_refusing") $(balance '"round-robin"')
                             keepalive 4; }
    upstream silent { $(failing "127.0.0.1:$port_filtered") durpina round-robin; }
    upstream far { $(failing 192.0.2.1:80) durpina round-robin; }
    upstream plain { $(failing "$a") durpina round-robin; }
    upstream idle { $(failing "127.0.0.1:$port_idle") durpina round-robin; durpina_keepalive 4; }
    init_worker_by_lua_block { require("durpina.upstream").init("upstream") }
    server {
        listen 127.0.0.1:$port_front;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        location ~ ^/up/(\\w+)/ { set \$name \$1; proxy_pass http://\$name/; }
        location /hasty/ { proxy_pass http://silent/; proxy_connect_timeout 300ms; }
        location /patient/ { proxy_pass http://silent/; proxy_connect_timeout 1500ms; }
        location /tls/ { proxy_pass https://plain/; }
    }
}
END

# Connections that somebody else has to a.
hold() {
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do
        exec {fd}<>"/dev/tcp/127.0.0.1/$port_a" || die "a connection is held"
        held+=("$fd")
    done
    wait_for has_open 16 || die "it is counted" "$(peer conn kernel.open "$a")"
}
let_go() {
    for fd in "${held[@]}"; do exec {fd}>&-; done
    held=()
    wait_for has_open 0 || die "it is not counted any more" "$(peer conn kernel.open "$a")"
}
has_open() { [ "$(peer conn kernel.open "$a")" = "$1" ]; }

# --- picks
is "without_connections_peers_take_turns" "$(tally 20 1 "$url/up/conn/")" "a=10 b=10"
hold
for upstream in conn time lua_conn lua_time; do
    is "connections_of_other_processes_count_in_$upstream" "$(tally 20 1 "$url/up/$upstream/")" "b=20"
done
is "but_not_where_nginx_is_the_source" "$(tally 20 1 "$url/up/nginx_conn/")" "a=10 b=10"
not_ok "nothing_is_missed_while_connections_are_observed" grep -q source=kernel "$T/front.log"

# --- failures to connect
# Sets key_UPSTREAM to that of its first peer in the map.
find_peer() {
    local id
    id=$(bpftool -j map dump pinned "$PIN/upstreams" | jq --arg u "$1" \
        '.[].formatted | select(.value.name == $u).key')
    id=$(bpftool -j map dump pinned "$PIN/peers" |
        jq --argjson u "$id" --arg live "127.0.0.1:$port_live" '.[].formatted |
            select(.value.upstream == $u and .value.address != $live and
                .value.settings[0].state != "DURPINA_PEER_FREE").key')
    printf -v "key_$1" '%d %d 0 0' $((id & 255)) $((id >> 8))
}
failures() {
    local key=key_$1
    # shellcheck disable=SC2086
    bpftool -j map lookup pinned "$PIN/counters" key ${!key} |
        jq -r '.formatted.value | "\(.fails) fails, ahead \(.ahead)"'
}
have_failed() { [ "$(failures "$1")" = "$2" ]; }

# told UPSTREAM [PATH]: what a request leaves while the controller cannot tell of it. "ahead -1" is a
# failure that the kernel has told of, too, and that is not to be counted again.
told() {
    kill -STOP "$durpinad_pid"
    curl -s -o /dev/null "$url/${2:-up/$1}/"
    failures "$1"
    kill -CONT "$durpinad_pid"
}

for upstream in refusing lua_refusing kept_refusing silent far plain idle; do
    find_peer "$upstream"
done
nft -f - <<END || die "packets are dropped"
table inet t {
    chain in { type filter hook input priority 0; tcp dport $port_filtered drop; }
}
END
for upstream in refusing lua_refusing kept_refusing; do
    is "failure_to_connect_in_${upstream}_has_two_witnesses" "$(told "$upstream")" \
        "1 fails, ahead -1"
    ok "and_counts_once" wait_for have_failed "$upstream" "1 fails, ahead 0"
done
is "connect_given_up_before_a_second_syn_has_one" "$(told silent hasty)" "1 fails, ahead 0"
is "connect_given_up_after_it_has_two" "$(told silent patient)" "2 fails, ahead -1"
ok "and_counts_once" wait_for have_failed silent "2 fails, ahead 0"
is "connect_that_fails_at_once_has_one" "$(told far)" "1 fails, ahead 0"
is "handshake_of_tls_that_fails_has_one" "$(told plain tls)" "1 fails, ahead 0"
curl -s -o /dev/null -o /dev/null "$url/up/idle/" "$url/up/idle/"
stop "$backend_idle"
is "end_of_an_idle_connection_has_none_but_that_of_the_new_one_has_two" "$(told idle)" \
    "1 fails, ahead -1"
ok "and_counts_once" wait_for have_failed idle "1 fails, ahead 0"

# --- without the kernel
stop "$durpinad_pid"
echo "upstreams 64; peers 1k; slots 64k; observe off;" >"$T/durpinad.conf"
start_durpinad
is "while_nothing_is_observed_tries_in_flight_decide" "$(tally 20 1 "$url/up/conn/")" "a=10 b=10"
is "in_lua_as_well" "$(tally 20 1 "$url/up/lua_time/")" "a=10 b=10"
is "a_worker_says_so_once" "$(grep -c 'source=kernel.*in upstream "conn"' "$T/front.log")" 1
is "for_all_its_upstreams" "$(grep -c 'source=kernel' "$T/front.log")" 1
is "and_no_failure_has_a_second_witness" "$(told refusing)" "2 fails, ahead 0"
stop "$durpinad_pid"
echo "upstreams 64; peers 1k; slots 64k;" >"$T/durpinad.conf"
start_durpinad
let_go
hold
is "once_connections_are_observed_again_they_count" "$(tally 20 1 "$url/up/conn/")" "b=20"
done_testing
