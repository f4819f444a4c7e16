#!/bin/bash
# SPDX-License-Identifier: MIT
# The directive `durpina ALGORITHM [args];`: each algorithm, the settings of `server` lines, every
# family of addresses, and what happens when nobody is available.
. "$(dirname "$0")/../lib/harness.sh"

for backend in a b c; do
    start_backend "$backend"
done
start_backend six "" "[::1]"
for port in front dead unknown tls spare; do
    free_port
    printf -v "$port" %s "$ret_port"
done
url=http://127.0.0.1:$front
a=127.0.0.1:$port_a b=127.0.0.1:$port_b c=127.0.0.1:$port_c

make_certificate localhost
start_durpinad
start_nginx odd 1 <<END
http {
    server { listen 127.0.0.1:$tls ssl; ssl_certificate $T/cert.pem; ssl_certificate_key $T/key.pem;
             location / { return 200 "tls \$ssl_session_reused\n"; } }
    server { listen unix:$T/back.sock; location / { return 200 "unix\n"; } }
}
END

three="server $a weight=5; server $b weight=3; server $c weight=2;"
rr="durpina round-robin;"
front_conf() { # [UPSTREAMS]
    cat <<END
http {
    log_format tries '\$upstream_addr|\$upstream_status|\$status';
    upstream rr { $three $rr }
    upstream flat { $three durpina unweighted-round-robin; }
    upstream kept { $three durpina round-robin; keepalive 8; }
    upstream pooled { $three durpina round-robin; durpina_keepalive 8; }
    upstream zoned { zone zoned 64k; $three durpina round-robin; }
    upstream ip { server $a; server $b; server $c; durpina ip-hash; }
    upstream hash { server $a; server $b; server $c; durpina consistent-hash \$arg_key; }
    upstream pieces { server $a; server $b; server $c; durpina consistent-hash k\${arg_n}; }
    upstream ketama { $three durpina consistent-hash \$arg_key ketama; }
    upstream nginx_ketama { $three hash \$arg_key consistent; }
    upstream bounded { server $a; server $b; durpina consistent-hash fixed bounded=1; }
    upstream least { server $a; server $b; durpina least-conn; }
    upstream two { server $a; server $b; server $c; durpina random-two; }
    upstream ewma { server $a; server $b; server $c; durpina peak-ewma; }
    upstream header { server $a; server $b; server $c; durpina least-time; }
    upstream last_byte { server $a; server $b; server $c; durpina least-time last_byte; }
    upstream six { server [::1]:$port_six; durpina round-robin; }
    upstream sock { server unix:$T/back.sock; durpina round-robin; }
    upstream tls { server 127.0.0.1:$tls; durpina round-robin; }
    upstream one { server $a; durpina least-conn; }
    upstream backup { server 127.0.0.1:$dead max_fails=1 fail_timeout=60s; server $b backup;
                      durpina round-robin; }
    upstream down { server $a down; server $b; durpina round-robin; }
    upstream alldown { server $a down; server $b down; durpina round-robin; }
    upstream limited { server $a max_conns=2; server $b backup max_conns=1; durpina least-conn; }
    upstream drained { server $a; server $b; $rr }
    upstream dead { server 127.0.0.1:$dead max_fails=0; server 127.0.0.2:$dead max_fails=0;
                    server 127.0.0.3:$dead max_fails=0; durpina round-robin; }
    upstream answers { server $a max_fails=0; server 127.0.0.1:$dead max_fails=0; durpina round-robin; }
    upstream slow { server $a; durpina least-time; }
    upstream empty { server 0.0.0.0; durpina round-robin; }
    ${1:-}
    server {
        listen 127.0.0.1:$front;
        access_log $T/front.access tries;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        location ~ ^/up/(\\w+)/(.*) { set \$name \$1; proxy_pass http://\$name/\$2; }
        location /tls/ { proxy_pass https://tls/; proxy_ssl_server_name on;
                         proxy_ssl_name \$arg_name; }
        location /answers/ { proxy_pass http://answers/; proxy_next_upstream http_503 error; }
        location /twice/ { proxy_pass http://dead/; proxy_next_upstream_tries 2; }
    }
}
END
}
start_nginx front 2 < <(front_conf)

patch() { api PATCH "/api/9/http/upstreams/$1/servers/$(server_id "$1" "$2")" "$3" >/dev/null; }
keys() { for i in $(seq 1 "$2"); do echo "$i=$(body "$url/up/$1/?key=k$i")"; done; }

# --- algorithms
is "round_robin_is_exact_over_all_workers" "$(tally 1000 8 "$url/up/rr/")" "a=500 b=300 c=200"
is "unweighted_round_robin_ignores_weights" "$(tally 300 4 "$url/up/flat/")" "a=100 b=100 c=100"
is "keepalive_behind_it_changes_no_share" "$(tally 100 4 "$url/up/kept/")" "a=50 b=30 c=20"
is "nor_does_durpina_keepalive" "$(tally 100 4 "$url/up/pooled/")" "a=50 b=30 c=20"
is "nor_does_a_zone" "$(tally 100 4 "$url/up/zoned/")" "a=50 b=30 c=20"
ok "which_is_said_to_have_no_effect" \
    grep -q '"zone" has no effect beside "durpina".* in upstream "zoned" in .*front.conf:' "$T/front.log"
is "ip_hash_keeps_a_client_at_its_peer" "$(tally 60 4 "$url/up/ip/" | wc -w)" 1
is "a_key_keeps_its_peer_in_every_worker" "$(tally 60 4 "$url/up/hash/?key=k1" | wc -w)" 1
keys hash 90 >"$T/before"
is "keys_are_spread" "$(cut -d= -f2 "$T/before" | sort -u | tr '\n' ' ')" "a b c "
is "a_key_of_text_and_variable_is_their_text" \
    "$(for i in $(seq 90); do echo "$i=$(body "$url/up/pieces/?n=$i")"; done)" "$(cat "$T/before")"
patch hash "$c" '{"down": true}'
keys hash 90 >"$T/after"
is "a_peer_that_is_down_moves_its_own_keys_only" \
    "$(paste -d= "$T/before" "$T/after" | awk -F= '$2 != "c" && $2 != $4 || $4 == "c"')" ""
patch hash "$c" '{"down": false}'
keys hash 90 >"$T/after"
ok "and_they_come_back" cmp "$T/before" "$T/after"
is "without_a_key_a_client_keeps_its_peer" "$(tally 60 4 "$url/up/hash/" | wc -w)" 1
between "which_is_said_at_most_once_a_worker_and_minute" \
    "$(grep -c 'without a key.*in upstream "hash"' "$T/front.log")" 1 2
ok "ketama_is_laid_out_for_who_asks_for_it_in_the_file" \
    jq -e '.tables.ring > 0' <(api GET /api/9/durpina/upstreams/ketama)
keys ketama 150 >"$T/ours"
keys nginx_ketama 150 >"$T/theirs"
ok "ketama_chooses_as_nginx_does" cmp "$T/ours" "$T/theirs"
for _ in 1 2 3 4; do curl -s "$url/up/least/delay/3000" >/dev/null & done
shared() { [ "$(peer least active "$a")" = 2 ] && [ "$(peer least active "$b")" = 2 ]; }
ok "least_conn_spreads_requests_in_flight" wait_for shared
for _ in 1 2 3 4; do curl -s "$url/up/bounded/delay/3000" >/dev/null & done
bounded() { [ "$(peer bounded active "$a")" = 2 ] && [ "$(peer bounded active "$b")" = 2 ]; }
ok "bounded_1_gives_one_key_to_all_peers_alike" wait_for bounded
for algorithm in two ewma header last_byte; do
    is "$algorithm serves" "$(tally 60 4 "$url/up/$algorithm/" | tr ' ' '\n' |
        awk -F= '{n += $2} END {print n}')" 60
    ok "and gives all back" wait_for idle "$algorithm"
done

# --- addresses
is "a_peer_with_an_IPv6_address_is_reached" "$(body "$url/up/six/")" six
is "and_logged_by_it" "$(tail -n 1 "$T/front.access")" "[::1]:$port_six|200|200"
is "a_peer_on_a_unix_socket_is_reached" "$(body "$url/up/sock/")" unix
is "and_logged_by_its_path" "$(tail -n 1 "$T/front.access")" "unix:$T/back.sock|200|200"
is "a_single_peer_serves" "$(tally 30 4 "$url/up/one/")" "a=30"

# --- settings of server lines
is "a_backup_serves_when_the_primary_fails" "$(body "$url/up/backup/")" b
is "and_both_tries_are_logged" "$(tail -n 1 "$T/front.access")" "127.0.0.1:$dead, $b|502, 200|200"
is "the_primary_is_temporarily_down" "$(peer backup state "127.0.0.1:$dead")" unavail
is "and_not_tried_again" "$(body "$url/up/backup/"; tail -n 1 "$T/front.access")" "b
$b|200|200"
is "a_line_that_is_down_gets_nothing" "$(tally 30 4 "$url/up/down/")" "b=30"
codes=$(for _ in 1 2 3 4 5; do echo "$(status "$url/up/limited/delay/700")" & done | sort | xargs)
is "max_conns_holds_over_all_workers_and_tiers" "$codes" "200 200 200 502 502"
patch drained "$a" '{"weight": 0}'
is "weight_0_drains" "$(tally 30 4 "$url/up/drained/")" "b=30"
is "all_down_is_502_without_a_try" "$(status "$url/up/alldown/")$(tail -n 1 "$T/front.access")" \
    "502alldown|502|502"
is "a_placeholder_is_no_peer" "$(status "$url/up/empty/")" 502
is "each_peer_is_tried_once" "$(status "$url/up/dead/")$(tail -n 1 "$T/front.access" |
    grep -o ":$dead" | wc -l)" 5023
is "proxy_next_upstream_tries_limits_them" "$(status "$url/twice/")$(tail -n 1 "$T/front.access" |
    grep -o ":$dead" | wc -l)" 5022
ok "nothing_stays_active" wait_for idle dead

# --- feedback
for _ in 1 2 3 4; do status "$url/answers/status/503" >/dev/null; done
is "a_response_counts_for_the_peer_that_gave_it" "$(peer answers 'responses."5xx"' "$a")" 4
is "and_not_for_the_one_tried_before_or_after_it" \
    "$(peer answers responses.total "127.0.0.1:$dead")" 0
is "both_were_tried" "$(peer answers requests "$a") $(peer answers requests "127.0.0.1:$dead")" "4 4"
body "$url/up/slow/delay/60" >/dev/null
between "a_slow_answer_shows_in_the_time" "$(peer slow header_time)" 50 500

# --- TLS
reused() { body "$url/tls/?name=$1" | grep -q "tls r"; }
body "$url/tls/?name=one" >/dev/null
ok "a_TLS_session_is_resumed" wait_for reused one
is "but_not_under_another_name" "$(body "$url/tls/?name=two")" "tls ."

# --- reloads
rr='balancer_by_lua_block { require "durpina.balancer" "round-robin" }'
nginx_conf front 2 < <(front_conf)
ok "a_reload_from_native_to_Lua_succeeds" reload_nginx front
is "and_keeps_shares" "$(tally 100 4 "$url/up/rr/")" "a=50 b=30 c=20"
is "and_runtime_weights" "$(tally 30 4 "$url/up/drained/")" "b=30"
rr="durpina round-robin;"
nginx_conf front 2 < <(front_conf)
ok "a_reload_back_succeeds" reload_nginx front
is "and_keeps_shares_too" "$(tally 100 4 "$url/up/rr/")" "a=50 b=30 c=20"
is "and_runtime_weights_too" "$(tally 30 4 "$url/up/drained/")" "b=30"

kill_hard "$durpinad_pid"
nginx_conf front 2 < <(front_conf "upstream fresh { server $a; durpina round-robin; }")
ok "a_reload_without_a_controller_succeeds" reload_nginx front
is "an_upstream_that_it_brings_is_502" "$(status "$url/up/fresh/")$(status "$url/up/fresh/")" 502502
between "which_is_explained_once_a_worker_and_minute" \
    "$(grep -c 'the controller does not know upstream "fresh": start durpinad' "$T/front.log")" 1 2
is "the_others_serve_on" "$(tally 100 4 "$url/up/rr/")" "a=50 b=30 c=20"
start_durpinad
ok "a_reload_with_a_controller_succeeds" reload_nginx front
is "and_makes_it_known" "$(body "$url/up/fresh/")" a

# --- one process
nginx_conf front 2 < <(front_conf)
nginx_run front -s stop
wait_for none_running "$nginx_front"
nginx_exec front -g "daemon off; master_process off;" >>"$T/front.log" 2>&1 &
started[$!]=front
single=$!
wait_for answers "$url/up/rr/" || die "nginx starts without a master"
is "without_a_master_process_it_serves" "$(tally 100 4 "$url/up/rr/")" "a=50 b=30 c=20"
owners() { bpftool -j map dump pinned "$PIN/inflight" | jq -r '.[].formatted.value.owner.pid | select(. != 0)'; }
is "and_notes_its_tries_in_flight" "$(owners)" "$single"
kill -TERM "$single"
wait_for none_running "$single"
is "its_page_is_given_back_when_it_exits" "$(owners)" ""
done_testing
