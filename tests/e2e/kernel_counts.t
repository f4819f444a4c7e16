#!/bin/bash
# SPDX-License-Identifier: MIT
# What the kernel counts is true: as many connections as ss lists, at any time, whoever made them, and
# whoever is killed, reloaded or restarted meanwhile. CHURN_S=60 churns for a minute.
. "$(dirname "$0")/../lib/harness.sh"
own_network "$@"
. "$ROOT/tests/lib/site.sh"

churn_s=${CHURN_S:-10}
processes=8
each=1250 # 10,000 connections

cc -O2 -D_GNU_SOURCE -o "$T/churn" "$ROOT/tests/lib/churn.c" ||
    die "tests/lib/churn.c compiles"
start_backend one
start_backend two
for name in front dead silent; do
    free_port
    printf -v "port_$name" %s "$ret_port"
done
nft -f - <<END || die "SYNs to one port are dropped"
table inet filter {
    chain input { type filter hook input priority 0; tcp dport $port_silent drop; }
}
END
# A SYN is given up after three seconds.
sysctl -qw net.ipv4.tcp_syn_retries=1
start_durpinad
api POST /api/9/durpina/upstreams '{"name":"all"}' >"$T/created"
for port in "$port_one" "$port_two" "$port_dead" "$port_silent"; do
    api POST /api/9/http/upstreams/all/servers \
        "{\"server\":\"127.0.0.1:$port\",\"max_fails\":0}" >"$T/added"
done

# FIELD...: of the peers in order, a line each.
counted() {
    api GET /api/9/http/upstreams/all |
        jq -r --arg f "$*" '.peers[].kernel as $k | [$f | split(" ")[] | $k[.]] | join(" ")'
}
nothing_is_open() {
    [ "$(counted connecting open | sort -u)" = "0 0" ]
}
# That of each peer: all that were tried had one end.
all_have_ended() {
    api GET /api/9/http/upstreams/all | jq -e '[.peers[].kernel | .tried == .connecting +
        .established + .refused + .timed_out + .unreachable + .abandoned] | all'
}
start_churn() { # COUNT N HOLD PORT...
    local i count=$1
    shift
    churners=()
    for ((i = 0; i < count; i++)); do
        (cd "$T" && echo "$BASHPID" >"$CGROUP/cgroup.procs" && exec "$T/churn" "$@") \
            >"$T/churn.$i" 2>&1 &
        churners+=($!)
        started[$!]=churn
    done
}
all_are_done() {
    [ "$(cat "$T"/churn.? | grep -c done)" -eq "$processes" ]
}

# --- ten thousand connections, half of them of processes that are killed -------------------------

start_churn "$processes" "$each" 100 "$port_one" "$port_two" "$port_dead" "$port_silent"
wait_for all_are_done || die "connections are made" "$(cat "$T"/churn.?)"
is "each_connect_is_counted_once" "$(counted tried | paste -sd+ | bc)" $((processes * each))
between "some_are_open" "$(counted open | paste -sd+ | bc)" 100 $((processes * 100))
for pid in "${churners[@]:0:processes/2}"; do
    kill_hard "$pid"
done
stop "${churners[@]:processes/2}"
ok "nothing_is_open_in_the_end" wait_for nothing_is_open
ok "what_was_tried_was_established_or_has_failed" all_have_ended
# What a process gives up is its own doing; it had to wait where SYNs are dropped.
is "each_end_is_told_from_the_others" "$(counted established refused timed_out abandoned |
    awk '{print ($1 > 0), ($2 > 0), (NR == 4 ? ($3 + $4 > 0) : ($3 > 0))}' | paste -sd,)" \
    "1 0 0,1 0 0,0 1 0,0 0 1"

# --- as ss sees it, while everything changes -----------------------------------------------------

start_load_on_nginx() {
    echo $$ >"$CGROUP/cgroup.procs"
    start_nginx web 4 <<END
http {
    upstream all {
        server 127.0.0.1:$port_one;
        server 127.0.0.1:$port_two;
        durpina least-conn;
        durpina_keepalive 8;
    }
    server {
        listen 127.0.0.1:$port_front backlog=4096;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        location / { proxy_pass http://all; }
    }
}
END
    start_load "http://127.0.0.1:$port_front/delay/20" 600 20
    leave_cgroup
}
frozen() {
    grep -qx "frozen $1" "$CGROUP/cgroup.events"
}
freeze() { # 1 or 0
    echo "$1" >"$CGROUP/cgroup.freeze"
    wait_for frozen "$1" || die "the processes stop"
}
# Sockets that have connected to the ports: connecting and open, a line each.
listed() {
    local port
    for port in "$port_one" "$port_two" "$port_dead" "$port_silent"; do
        echo "$(ss -Htn state syn-sent "dport = :$port" | wc -l) $(
            ss -Htn state established state close-wait "dport = :$port" | wc -l)"
    done
}
# Timers and backends go on when all others stand still, so both looks of durpinad must agree.
sample() {
    local before after now
    freeze 1
    for _ in 1 2 3 4 5 6 7 8; do
        before=$(counted connecting open)
        now=$(listed)
        after=$(counted connecting open)
        [ "$before" != "$after" ] || break
    done
    freeze 0
    samples=$((samples + 1))
    [ "$before" = "$now" ] || differ+="sample $samples: ${before//$'\n'/, }; ss: ${now//$'\n'/, }"$'\n'
}
victim() {
    workers "$nginx_web" | shuf -n 1
}

start_load_on_nginx
start_churn 4 0 50 "$port_one" "$port_two" "$port_dead" "$port_silent"
samples=0
differ=''
end=$((SECONDS + churn_s))
while [ "$SECONDS" -lt "$end" ]; do
    sample
    case $((samples % 5)) in
    1) kill -KILL "$(victim)" && wait_for has_workers "$nginx_web" 4 ;;
    2) reload_nginx web ;;
    3) kill_hard "$durpinad_pid" && start_durpinad ;;
    4) stop "$durpinad_pid" && start_durpinad ;;
    0) kill_hard "${churners[0]}" && churners=("${churners[@]:1}") ;;
    esac
    [ ${#churners[@]} -gt 1 ] ||
        start_churn 4 0 50 "$port_one" "$port_two" "$port_dead" "$port_silent"
done
note "$samples samples, $(counted tried | paste -sd+ | bc) connections"
is "counts_equal_those_of_ss_at_each_sample" "$differ" ""
between "there_were_samples" "$samples" $((churn_s / 3)) 1000
end_load
# shellcheck disable=SC2154
stop "$nginx_web" $(cat "$CGROUP/cgroup.procs")
ok "nothing_is_open_when_all_have_gone" wait_for nothing_is_open
ok "and_all_that_was_tried_has_ended" all_have_ended
done_testing
