#!/bin/bash
# SPDX-License-Identifier: MIT
# Redis clients as they are, and three Redis servers behind a virtual endpoint, while weights change
# and one of the servers is killed.
. "$(dirname "$0")/../lib/harness.sh"
. "$(dirname "$0")/../lib/vip.sh"

own_network "$@"
join_cgroup
VIP=127.10.0.1
SERVERS=/api/9/http/upstreams/redis/servers

echo "upstreams 64; peers 1k; slots 64k; vip $VIP:6379 upstream=redis;" >"$T/durpinad.conf"
start_durpinad
api POST /api/9/durpina/upstreams '{"name":"redis"}' >/dev/null

# start_redis NAME WEIGHT: sets port_NAME, redis_NAME (its pid) and id_NAME
start_redis() {
    local port=port_$1 id
    free_port
    printf -v "$port" %s "$ret_port"
    mkdir "$T/$1"
    (cd "$T/$1" && exec redis-server --bind 127.0.0.1 --port "${!port}" --save "" --appendonly no) \
        >>"$T/$1.log" 2>&1 &
    printf -v "redis_$1" %s $!
    started[$!]=$1
    wait_for redis-cli -p "${!port}" ping || die "redis $1 starts"
    redis-cli -p "${!port}" set name "$1" >/dev/null
    id=$(api POST $SERVERS "{\"server\":\"127.0.0.1:${!port}\", \"weight\":$2, \"max_fails\":1,
        \"fail_timeout\":\"60s\"}" | jq .id)
    printf -v "id_$1" %s "$id"
}
start_redis a 5
start_redis b 3
start_redis c 2

# so_many N: a client each, one after the other; prints which servers they got.
so_many() {
    local i
    for ((i = 0; i < $1; i++)); do
        redis-cli -h $VIP get name 2>&1
    done
}

is "clients_are_spread_by_weight" "$(so_many 100 | counted)" "a=50 b=30 c=20"
like "the_benchmark_of_redis_knows_no_difference" \
    "$(redis-benchmark -h $VIP -c 10 -n 5000 -t get -q 2>&1 | tr '\r' '\n' | tail -n 2)" \
    "GET: [0-9.]+ requests per second"

# --- weights --------------------------------------------------------------------------------------

# Python's Redis client: a connection each, one after the other, until $T/stop is there. Writes
# "START OUTCOME" a line: when it began, in ms, and the name of the server or an error.
cat >"$T/client.py" <<'END_OF_PYTHON'
import os, redis, sys, time
host, stop, out = sys.argv[1], sys.argv[2], open(sys.argv[3], "w", buffering=1)
while not os.path.exists(stop):
    began = int(time.time() * 1000)
    client = redis.Redis(host, 6379, socket_timeout=5)
    try:
        outcome = client.get("name").decode()
    except redis.ConnectionError as error:
        outcome = str(error)
    client.close()
    print(began, outcome, file=out)
END_OF_PYTHON
start_clients() {
    local i
    rm -f "$T/stop"
    client_pids=()
    for i in 1 2 3; do
        /usr/bin/python3 "$T/client.py" $VIP "$T/stop" "$T/client.$i.out" &
        client_pids+=($!)
    done
}
end_clients() {
    touch "$T/stop"
    wait "${client_pids[@]}"
}
lines_are() { # N: the clients have written so many
    [ "$(cat "$T"/client.*.out 2>/dev/null | wc -l)" -ge "$1" ]
}
outcomes() {
    cat "$T"/client.*.out | cut -d ' ' -f 2- | sort -u | paste -sd ' '
}

start_clients
for round in 1 2 3 4 5 6 7 8 9 10; do
    api PATCH "$SERVERS/$id_a" "{\"weight\":$round}" >/dev/null
    api PATCH "$SERVERS/$id_c" "{\"weight\":$((11 - round))}" >/dev/null
    wait_for lines_are $((round * 20)) || break
done
end_clients
is "no_client_notices_weights_that_change" "$(outcomes)" "a b c"
api PATCH "$SERVERS/$id_a" '{"weight":5}' >/dev/null
api PATCH "$SERVERS/$id_c" '{"weight":2}' >/dev/null
is "and_the_last_ones_count" "$(so_many 50 | counted)" "a=25 b=15 c=10"

# --- killed ---------------------------------------------------------------------------------------

is_out() { # ADDRESS
    [ "$(peer redis state "127.0.0.1:$1")" = unavail ]
}
rm -f "$T"/client.*.out
start_clients
wait_for lines_are 30
kill_hard "$redis_b"
ok "killed_server_is_taken_out_by_the_first_refused_connect" wait_for is_out "$port_b"
out_ms=$((${EPOCHREALTIME/./} / 1000))
before=$(cat "$T"/client.*.out | wc -l)
wait_for lines_are $((before + 200)) || die "the clients go on"
end_clients
refused=$(grep -h refused "$T"/client.*.out | wc -l)
note "$(cat "$T"/client.*.out | cut -d ' ' -f 2- | sort | uniq -c)"
between "who_tried_it_at_that_moment_had_to_find_out" "$refused" 1 6
is "none_is_refused_from_then_on" \
    "$(cat "$T"/client.*.out | awk -v t="$out_ms" '$1 > t && $2 != "a" && $2 != "c"')" ""
is "who_is_left_answers" "$(so_many 30 | sort -u | paste -sd ' ')" "a c"
like "the_benchmark_runs_on_those" \
    "$(redis-benchmark -h $VIP -c 10 -n 2000 -t get -k 0 -q 2>&1 | tr '\r' '\n' | tail -n 2)" \
    "GET: [0-9.]+ requests per second"
done_testing
