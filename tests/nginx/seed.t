#!/bin/bash
# SPDX-License-Identifier: MIT
# The seed configuration (seed.conf) runs as it stands: only hosts, ports and load_module differ.
. "$(dirname "$0")/../lib/harness.sh"

mapfile -t localhost < <(getent ahosts localhost | awk '$2 == "STREAM" {print $1}' |
    sed 's/.*:.*/[&]/' | sort -u)
start_backend one "" "${localhost[@]}"
start_backend five "" 127.0.0.2
start_backend seven "" 127.0.0.3
start_backend ten "" 127.0.0.4
# The tcp monitor of bar looks at one port of all its peers.
free_port
health=$ret_port
start_backend health "$health" "${localhost[@]}" 127.0.0.4
free_port
port=$ret_port
free_port
management=$ret_port

start_durpinad
sed -e "s/server localhost:8080;/server localhost:$port_one;/" \
    -e "s/server host1:8080/server 127.0.0.2:$port_five/" \
    -e "s/server host2:8080/server 127.0.0.3:$port_seven/" \
    -e "s/\"localhost:8080 /\"localhost:$port_one /" \
    -e "s/host=\"10.0.0.2\", port=8090/host=\"127.0.0.4\", port=$port_ten/" \
    -e "s/port=10000/port=$health/" \
    -e "s/listen 80;/listen 127.0.0.1:$port;/" \
    -e "s/listen 8080;/listen 127.0.0.1:$management;/" \
    "$(dirname "$0")/seed.conf" >"$T/adapted.conf"
start_nginx seed 4 <"$T/adapted.conf"

# localhost may have two addresses: each is a peer with the weight of the name.
n=${#localhost[@]}
is "round_robin_gives_1_5_and_7" "$(tally $(((12 + n) * 10)) 8 "http://127.0.0.1:$port/foo")" \
    "five=50 one=$((n * 10)) seven=70"
is "management_url_sets_a_weight" \
    "$(body "http://127.0.0.1:$management/set_upstream_peer_weight/foo/127.0.0.3:$port_seven/0")" \
    "weight set!"
is "the_weight_is_in_force" "$(tally $(((5 + n) * 10)) 8 "http://127.0.0.1:$port/foo")" \
    "five=50 one=$((n * 10))"
is "management_url_refuses_an_unknown_peer" \
    "$(status "http://127.0.0.1:$management/set_upstream_peer_weight/foo/nobody:1/3")" 404

like "ip_hash_keeps_a_client_on_one_peer" "$(tally 50 8 "http://127.0.0.1:$port/bar")" \
    "^(one|ten)=50$"
is "placeholder_is_no_peer_and_dynamic_peers_are" "$(server_fields bar weight)" \
    "localhost:$port_one=1 127.0.0.4:$port_ten=7"
is "monitors_are_there_once" \
    "$(for up in foo bar; do
        api GET "/api/9/durpina/upstreams/$up/monitors" | jq -r '.[].name'
    done | xargs)" "http tcp"

peer_is() {
    [ "$(api GET "/api/9/http/upstreams/$1" |
        jq -r --arg s "$2" '.peers[] | select(.server == $s) | .state')" = "$3" ]
}
monitored() {
    api GET /api/9/http/upstreams/bar | jq -e 'all(.peers[]; .health_checks.checks > 0)'
}
ok "monitor_of_bar_started_by_itself" wait_for monitored
kill_hard "$backend_five"
ok "http_monitor_takes_a_dead_peer_out" wait_for peer_is foo "127.0.0.2:$port_five" unhealthy
is "nothing_is_sent_to_it" "$(tally 20 4 "http://127.0.0.1:$port/foo")" "one=20"
start_backend five "$port_five" 127.0.0.2
ok "http_monitor_lets_it_come_back" wait_for peer_is foo "127.0.0.2:$port_five" up
ok "reload_succeeds" reload_nginx seed
is "reload_keeps_the_weight" "$(tally $(((5 + n) * 10)) 8 "http://127.0.0.1:$port/foo")" \
    "five=50 one=$((n * 10))"
not_ok "nginx_logged_no_error" grep -E '\[(error|crit|alert|emerg)\]' "$T/seed.log"
done_testing
