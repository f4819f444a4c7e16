#!/bin/bash
# SPDX-License-Identifier: MIT
# Virtual endpoints: any process that connects to one is sent to a peer of its upstream, by the same
# schedule as the workers of nginx.
. "$(dirname "$0")/../lib/harness.sh"
. "$(dirname "$0")/../lib/vip.sh"

own_network "$@"
join_cgroup
VIPS=/api/9/durpina/vips
SERVERS=/api/9/http/upstreams/foo/servers

for backend in a b c; do
    start_backend "$backend"
done
start_backend six "" "[::1]"
# Who listens at the very address of a virtual endpoint: connects that are left as they are.
start_backend direct 80 127.10.0.1
for port in front stream; do
    free_port
    printf -v "$port" %s "$ret_port"
done

settings="upstreams 64; peers 1k; slots 64k;"
configured="$settings
vip 127.10.0.1:80 upstream=foo;
vip [fd00::80]:80 upstream=six;
vip 127.10.0.4:80 upstream=ip algorithm=ip-hash;"
echo "$configured" >"$T/durpinad.conf"
start_durpinad
is "vip_waits_for_its_upstream" "$(vip state 127.10.0.1:80), $(vip reason 127.10.0.1:80)" \
    "pending, the upstream is not there"
is "and_connects_go_on_meanwhile" "$(vip_client 3 127.10.0.1 80 | counted)" "direct=3"

start_nginx front 3 <<END_OF_CONF
http {
    upstream foo {
        server 127.0.0.1:$port_a weight=5;
        server 127.0.0.1:$port_b weight=3;
        server 127.0.0.1:$port_c weight=2;
        durpina round-robin;
    }
    upstream ip {
        server 127.0.0.1:$port_a; server 127.0.0.1:$port_b; server 127.0.0.1:$port_c;
        durpina ip-hash;
    }
    upstream six { server [::1]:$port_six; server 127.0.0.1:$port_a; durpina round-robin; }
    server {
        listen 127.0.0.1:$front;
        location / { proxy_pass http://foo; }
        location /ip { proxy_pass http://ip/; }
    }
}
END_OF_CONF
is "vip_is_active_once_it_is" "$(vip state 127.10.0.1:80)" active

# A stream proxy that knows nothing of any of this.
mkdir "$T/stream"
cat >"$T/stream.conf" <<END_OF_CONF
load_module $NGINX_MODULES/ngx_stream_module.so;
daemon off;
worker_processes 3;
pid $T/stream.pid;
error_log $T/stream.log error;
events { worker_connections 1024; }
stream {
    server { listen 127.0.0.1:$stream reuseport; proxy_pass 127.10.0.1:80; }
}
END_OF_CONF
(cd "$T/stream" && exec "$NGINX" -e "$T/stream.log" -p "$T/stream" -c "$T/stream.conf") \
    >>"$T/stream.log" 2>&1 &
started[$!]=stream
wait_for listening "$stream" || die "the stream proxy starts"

# --- one schedule ---------------------------------------------------------------------------------

before=$(vip selected 127.10.0.1:80)
tally 300 2 http://127.10.0.1/ >"$T/curl.out" &
curl_pid=$!
vip_client 150 127.10.0.1 80 >"$T/python.out" &
python_pid=$!
vip_client 150 ::ffff:127.10.0.1 80 >"$T/mapped.out" &
mapped_pid=$!
tally 400 2 "http://127.0.0.1:$stream/" >"$T/streamed.out"
wait "$curl_pid" "$python_pid" "$mapped_pid"
# names: "a=1 b=2" and single lines alike
summed() {
    tr ' ' '\n' | awk -F= '{n[$1] += NF > 1 ? $2 : 1} END {for (k in n) print k "=" n[k]}' | sort |
        paste -sd ' '
}
is "curl_python_and_nginx_stream_share_one_schedule" \
    "$(cat "$T/curl.out" "$T/python.out" "$T/mapped.out" "$T/streamed.out" | summed)" \
    "a=500 b=300 c=200"
is "each_connect_is_counted" "$(($(vip selected 127.10.0.1:80) - before))" 1000

tally 500 2 "http://127.0.0.1:$front/" >"$T/http.out" &
http_pid=$!
tally 250 2 http://127.10.0.1/ >"$T/curl.out" &
curl_pid=$!
vip_client 250 127.10.0.1 80 >"$T/python.out"
wait "$http_pid" "$curl_pid"
is "together_with_workers_that_pick_from_it" \
    "$(cat "$T/curl.out" "$T/python.out" "$T/http.out" | summed)" "a=500 b=300 c=200"

# --- families and hash ----------------------------------------------------------------------------

is "ipv6_goes_to_ipv6_and_nowhere_else" "$(vip_client 20 fd00::80 80 | counted)" "six=20"
is "hash_of_the_source_is_that_of_nginx" "$(vip_client 5 127.10.0.4 80 127.0.0.7 | counted)" \
    "$(body "http://127.0.0.1:$front/ip")=5"

# --- states and weights ---------------------------------------------------------------------------

id_a=$(server_id foo "127.0.0.1:$port_a") id_b=$(server_id foo "127.0.0.1:$port_b")
id_c=$(server_id foo "127.0.0.1:$port_c")
api PATCH "$SERVERS/$id_a" '{"down":true}' >/dev/null
is "peer_that_is_down_is_stepped_over" "$(vip_client 100 127.10.0.1 80 | counted)" "b=60 c=40"
api PATCH "$SERVERS/$id_b" '{"drain":true}' >/dev/null
is "and_so_is_one_that_is_drained" "$(vip_client 10 127.10.0.1 80 | counted)" "c=10"
api PATCH "$SERVERS/$id_c" '{"down":true}' >/dev/null
missed=$(vip missed 127.10.0.1:80)
is "without_a_peer_a_connect_goes_on_as_it_is" "$(vip_client 4 127.10.0.1 80 | counted)" "direct=4"
is "and_is_counted" "$(($(vip missed 127.10.0.1:80) - missed))" 4
for id in "$id_a" "$id_b" "$id_c"; do
    api PATCH "$SERVERS/$id" '{"state":"up"}' >/dev/null
done
api PATCH "$SERVERS/$id_a" '{"weight":1}' >/dev/null
api PATCH "$SERVERS/$id_b" '{"weight":1}' >/dev/null
is "weights_take_effect_at_once" "$(vip_client 200 127.10.0.1 80 | counted)" "a=50 b=50 c=100"

# --- the API and durpinactl -----------------------------------------------------------------------

is "vip_is_added" "$(api POST $VIPS '{"address":"127.10.0.2:80","upstream":"foo"}' |
    jq -c '[.address, .protocol, .upstream, .algorithm, .state, .selected, .missed, .origin]')" \
    '["127.10.0.2:80","tcp","foo","round-robin","active",0,0,"api"]'
is "same_again_is_fine_and_says_where_it_is" \
    "$(api POST $VIPS '{"address":"127.10.0.2:80","upstream":"foo"}' -D - -o /dev/null |
        tr -d '\r' | sed -n 's/^Location: //p; 1s/HTTP[^ ]* //p' | paste -sd ' ')" \
    "200 OK $VIPS/127.10.0.2%3A80"
is "it_works" "$(vip_client 4 127.10.0.2 80 | counted)" "a=1 b=1 c=2"
is "its_address_names_it" "$(api GET $VIPS/127.10.0.2%3A80 | jq -c '[.selected, .missed]')" '[4,0]'
is "it_is_changed" \
    "$(api PATCH $VIPS/127.10.0.2:80 '{"upstream":"six","algorithm":"unweighted-round-robin"}' |
        jq -c '[.upstream, .algorithm, .selected]')" '["six","unweighted-round-robin",4]'
is "and_works_as_changed" "$(vip_client 4 127.10.0.2 80 | counted)" "a=4"
is "protocol_may_be_told_apart" "$(api POST $VIPS \
    '{"address":"127.10.0.2:80","protocol":"udp","upstream":"none"}' | jq -c '[.address, .state]')" \
    '["127.10.0.2:80/udp","pending"]'
is "its_path_may_end_in_udp" "$(api_code GET $VIPS/127.10.0.2:80/udp)" 200
is "and_in_nothing_else" "$(api_code GET $VIPS/127.10.0.2:80/tcp)" 400
is "it_is_removed" \
    "$(api DELETE $VIPS/127.10.0.2:80/udp | jq -c 'map(.address) | index("127.10.0.2:80/udp")')" null

# refuses FACT STATUS CODE METHOD PATH [BODY]
refuses() {
    is "$1" "$(api "${@:4}" | jq -r '"\(.error.status) \(.error.code)"')" "$2 $3"
}
# refuses_to_add FACT STATUS CODE ADDRESS [FIELDS]
refuses_to_add() {
    refuses "$1" "$2" "$3" POST $VIPS "{\"address\":\"$4\"${5-, \"upstream\":\"foo\"}}"
}
refuses_to_add address_of_a_peer 400 VipBadAddress "127.0.0.1:$port_a"
refuses_to_add wildcard 400 VipBadAddress 0.0.0.0:80
refuses_to_add multicast 400 VipBadAddress '[ff02::1]:80'
refuses_to_add port_0 400 VipBadAddress 127.0.0.1:0
refuses_to_add contradiction 400 VipBadAddress 127.0.0.1:9/udp \
    ', "protocol":"tcp", "upstream":"foo"'
refuses_to_add unknown_algorithm 400 VipBadAlgorithm 127.0.0.1:9 \
    ', "upstream":"foo", "algorithm":"least-conn"'
refuses_to_add bad_name 400 UpstreamBadName 127.0.0.1:9 ', "upstream":"a/b"'
refuses_to_add no_upstream 400 UpstreamConfFormatError 127.0.0.1:9 ''
refuses_to_add unknown_field 400 UpstreamConfFormatError 127.0.0.1:9 ', "upstream":"foo", "weight":1'
refuses_to_add other_with_that_address 409 EntryExists 127.10.0.2:80 ', "upstream":"bar"'
refuses change_of_the_files 409 VipImmutable PATCH $VIPS/127.10.0.1:80 '{"upstream":"six"}'
refuses removal_of_the_files 409 VipImmutable DELETE $VIPS/127.10.0.1:80
refuses unknown_one 404 VipNotFound DELETE $VIPS/127.10.0.9:80
refuses no_address 400 VipBadAddress GET $VIPS/foo
like "the_file_is_named" "$(api DELETE $VIPS/127.10.0.1:80 | jq -r .error.text)" "$T/durpinad.conf"

out=$("$BUILD/durpinactl" vip add 127.10.0.3:80 algorithm=ip-hash upstream=foo)
is "durpinactl_adds_one" "$? $out" "0 added"
like "and_lists_them" "$("$BUILD/durpinactl" vips)" \
    "VIP +UPSTREAM +ALGORITHM.*127.10.0.3:80 +foo +ip-hash +active +0 +0 +api"
out=$("$BUILD/durpinactl" vip remove 127.10.0.3:80)
is "and_removes_it" "$? $out" "0 removed"
out=$("$BUILD/durpinactl" vip add 127.10.0.3:80 upstram=foo 2>&1)
is "and_says_what_is_wrong" "$? $out" \
    '2 durpinactl: vip 127.10.0.3:80: "upstram=foo" is neither upstream=NAME nor algorithm=WORD'

# --- reload and restart ---------------------------------------------------------------------------

selected_more_than() {
    [ "$(vip selected 127.10.0.1:80)" -gt "$1" ]
}
reloaded_to() { # ADDRESS STATE, or "" for none
    [ "$(vip state "$1")" = "$2" ]
}
vip_client 3000 127.10.0.1 80 >"$T/during.out" &
during_pid=$!
wait_for selected_more_than "$(vip selected 127.10.0.1:80)"
echo "$settings
vip 127.10.0.1:80 upstream=foo;
vip [fd00::80]:80 upstream=foo;
vip 127.10.0.5:80 upstream=foo;" >"$T/durpinad.conf"
kill -HUP "$durpinad_pid"
ok "reload_adds" wait_for reloaded_to 127.10.0.5:80 active
is "and_changes" "$(vip upstream '[fd00::80]:80')" foo
is "and_removes" "$(vip state 127.10.0.4:80)" ""
is "and_leaves_those_of_calls" "$(vip upstream 127.10.0.2:80)" six
kill_hard "$durpinad_pid"
start_durpinad
is "vips_survive_a_kill" "$(api GET $VIPS | jq -c 'map(.address + " " + .origin) | sort')" \
    '["127.10.0.1:80 file","127.10.0.2:80 api","127.10.0.5:80 file","[fd00::80]:80 file"]'
wait "$during_pid"
is "none_of_which_a_client_has_noticed" "$(sort -u "$T/during.out" | paste -sd ' ')" "a b c"
is "nor_the_schedule" "$(counted <"$T/during.out")" "a=750 b=750 c=1500"

# --- gone -----------------------------------------------------------------------------------------

api POST /api/9/durpina/upstreams '{"name":"brief"}' >/dev/null
api POST /api/9/http/upstreams/brief/servers "{\"server\":\"127.0.0.1:$port_b\"}" >/dev/null
echo "$settings vip 127.10.0.1:80 upstream=brief;" >"$T/durpinad.conf"
kill -HUP "$durpinad_pid"
wait_for reloaded_to 127.10.0.5:80 ""
is "other_upstream" "$(vip_client 5 127.10.0.1 80 | counted)" "b=5"
api DELETE /api/9/durpina/upstreams/brief >/dev/null
is "without_its_upstream_connects_go_on_as_they_are" "$(vip_client 5 127.10.0.1 80 | counted)" \
    "direct=5"
is "and_it_waits_again" "$(vip state 127.10.0.1:80)" pending
stop "$durpinad_pid"
echo "$settings connect off; vip 127.10.0.1:80 upstream=foo;" >"$T/durpinad.conf"
start_durpinad
is "without_the_program_it_is_off" "$(vip state 127.10.0.1:80)" off
is "and_connects_go_on_as_they_are" "$(vip_client 5 127.10.0.1 80 | counted)" "direct=5"
done_testing
