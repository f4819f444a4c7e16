#!/bin/bash
# SPDX-License-Identifier: MIT
# 1,000 backends that are silent, drip a byte at a time or never end what they send are checked beside
# 1,000 good ones, and change nothing for the good.
. "$(dirname "$0")/../lib/harness.sh"

EACH=1000
SECONDS_EACH=4
INTERVAL_S=1
TIMEOUT_MS=500

echo "upstreams 64; peers 4k; slots 256k;" >"$T/durpinad.conf"
ulimit -n "$(ulimit -Hn)"
start_durpinad
start_backend good "" 0.0.0.0

# By the last part of its address: what an evil backend does.
free_port
evil_port=$ret_port
mkdir "$T/evil"
cat >"$T/evil.conf" <<END
load_module $NGINX_MODULES/ndk_http_module.so;
load_module $NGINX_MODULES/ngx_http_lua_module.so;
user www-data;
worker_processes 1;
pid $T/evil.pid;
error_log $T/evil.log alert;
events { worker_connections 16384; }
http {
    $(temp_paths "$T/evil")
    access_log off;
    server {
        listen 0.0.0.0:$evil_port backlog=16384;
        lua_check_client_abort on;
        location / {
            content_by_lua_block {
                local kind = tonumber(ngx.var.server_addr:match("%d+\$")) % 4
                if kind == 0 then
                    ngx.sleep(600)
                    return
                end
                local socket = ngx.req.socket(true)
                local text, pause = "x", 0.05
                if kind == 1 then
                    socket:send("HTTP/1.1 200 OK\r\n\r\n")
                elseif kind == 2 then
                    socket:send("HTTP/1.1 200 OK\r\n\r\n")
                    text, pause = ("x"):rep(16384), 0
                else
                    socket:send("HTTP/1.1 200 OK\r\n")
                    text, pause = "X-Header: endless\r\n", 0
                end
                while socket:send(text) do
                    ngx.sleep(pause)
                end
            }
        }
    }
}
END
restart_nginx evil 1

# introduce NAME SECOND-PART-OF-ADDRESS PORT
introduce() {
    seq 0 $((EACH - 1)) | jq -s --arg name "$1" --arg part "$2" --arg port "$3" '{
        instance: "/test/\($name)", pid: 0, worker_uid: 33, upstreams: [{
            name: $name, durpina: true, algorithm: "round-robin", servers: map(
                "127.\($part).\(. / 200 | floor).\(. % 200 + 1):\($port)" | {
                    server: ., addresses: [.], weight: 1, max_conns: 0, max_fails: 1,
                    fail_timeout_ms: 10000, slow_start_ms: 0, down: false, backup: false})}]}' \
        >"$T/introduction"
    api POST /api/9/durpina/nginx "@$T/introduction" | jq -e .token >/dev/null || die "$1 is introduced"
}

# monitor NAME TIMEOUT-MS
monitor() {
    api POST "/api/9/durpina/upstreams/$1/monitors" \
        "{\"name\": \"http\", \"options\": {\"interval\": $INTERVAL_S, \"timeout\": $2}}" |
        jq -e .id >/dev/null || die "$1 is monitored"
}

# total UPSTREAM FIELD: of the checks of all its peers.
total() {
    api GET "/api/9/http/upstreams/$1" | jq "[.peers[].health_checks.$2] | add"
}
prober() {
    api GET /api/9/durpina | jq ".prober.$1"
}
has_total() {
    [ "$(total "$1" "$2")" -ge "$3" ]
}
peers_in() {
    api GET "/api/9/http/upstreams/$1" | jq --arg state "$2" '[.peers[] | select(.state == $state)] | length'
}
has_peers_in() {
    [ "$(peers_in "$1" "$2")" -eq "$EACH" ]
}

introduce good 1 "$port_good"
introduce evil 2 "$evil_port"
monitor good 5000
monitor evil "$TIMEOUT_MS"
ok "each_evil_backend_is_found_unhealthy" wait_for has_peers_in evil unhealthy

checked=$(total good checks) evil_checked=$(total evil checks)
late=$(prober late) all=$(prober checks)
began=${EPOCHREALTIME/./}
has_checked_long_enough() {
    [ $((${EPOCHREALTIME/./} - began)) -ge $((SECONDS_EACH * 1000000)) ]
}
wait_for has_checked_long_enough
checked=$(($(total good checks) - checked)) evil_checked=$(($(total evil checks) - evil_checked))
late=$(($(prober late) - late)) all=$(($(prober checks) - all))
slots=$(((${EPOCHREALTIME/./} - began) * EACH / INTERVAL_S / 1000000))

# On a machine that is busy with other tests, too, and just after 1,000 peers have changed their state.
# A check that waited for another would wait for half a second.
between "good_backends_are_checked_in_each_interval" "$checked" $((slots * 9 / 10)) $((slots * 13 / 10))
between "evil_backends_are_checked_in_each_interval" "$evil_checked" $((slots * 9 / 10)) \
    $((slots * 13 / 10))
note "$late of $all checks began more than 50 ms after their slot"
is "no_check_of_a_good_backend_fails" "$(total good fails)" 0
is "good_backends_are_up" "$(peers_in good up)" "$EACH"
is "evil_backends_stay_out" "$(peers_in evil unhealthy)" "$EACH"
is "no_check_was_left_undecided" "$(prober undecided)" 0
done_testing
