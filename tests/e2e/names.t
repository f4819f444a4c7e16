#!/bin/bash
# SPDX-License-Identifier: MIT
# Names, by a real DNS server (NSD) whose zone changes and whose answers are spoiled on their way,
# under load, in a mount namespace with a hosts file and a resolv.conf of its own.
[ "${NAMES_NAMESPACE:-}" ] || NAMES_NAMESPACE=1 exec unshare -m bash "$0" "$@"
. "$(dirname "$0")/../lib/harness.sh"

SERVERS=/api/9/http/upstreams/foo/servers
FOO=/api/9/durpina/upstreams/foo

# --- the DNS server -------------------------------------------------------------------------------

free_port && dns_port=$ret_port
free_port && nsd_port=$ret_port
mkdir "$T/nsd"
: >"$T/modes"
cat >"$T/nsd.conf" <<END
server:
    server-count: 1
    ip-address: 127.0.0.1@$nsd_port
    username: ""
    zonesdir: "$T/nsd"
    database: ""
    zonelistfile: "$T/nsd/zone.list"
    xfrdfile: ""
    xfrdir: "$T/nsd"
    pidfile: "$T/nsd/pid"
    rrl-ratelimit: 0
remote-control:
    control-enable: no
zone:
    name: test
    zonefile: test.zone
END

serial=0
# zone LINE...: what the zone "test" has from now on; TTLs are 1 s.
zone() {
    serial=$((serial + 1))
    {
        echo "\$TTL 1"
        echo "@ IN SOA ns.test. root.test. $serial 3600 600 86400 1"
        echo "@ IN NS ns.test."
        echo "ns IN A 127.0.0.1"
        printf '%s\n' "$@"
    } >"$T/nsd/test.zone.new"
    mv "$T/nsd/test.zone.new" "$T/nsd/test.zone"
    [ -z "${nsd_pid:-}" ] || kill -HUP "$nsd_pid"
}

# spoil NAME MODE, or nothing to spoil nothing any more (dns_faults.pl).
spoil() {
    echo "$*" >"$T/modes.new"
    mv "$T/modes.new" "$T/modes"
}

questions() { # NAME TYPE
    grep -cx "$1 $2" "$T/questions"
}

zone "web IN A 127.0.0.1"
(cd "$T/nsd" && exec nsd -d -c "$T/nsd.conf") >>"$T/nsd.log" 2>&1 &
nsd_pid=$!
started[$nsd_pid]=nsd
(cd "$T" && exec perl "$ROOT/tests/lib/dns_faults.pl" "$dns_port" "$nsd_port" "$T/modes" \
    "$T/questions") >>"$T/faults.log" 2>&1 &
started[$!]=dns_faults
wait_for test -e "$T/questions" || die "name server starts"

# Writing in place: what is mounted over a file is that very file.
printf '127.0.0.1 localhost\n127.0.0.1 file.test\n' >"$T/hosts"
echo "nameserver 127.0.0.1" >"$T/resolv.conf"
chmod 644 "$T/hosts" "$T/resolv.conf"
mount --bind "$T/hosts" /etc/hosts && mount --bind "$T/resolv.conf" /etc/resolv.conf ||
    die "the namespace has its own /etc/hosts and /etc/resolv.conf"

# --- the site -------------------------------------------------------------------------------------

start_backend a
port=$port_a
start_backend b "$port" 127.0.0.2
start_backend c "$port" 127.0.0.3
free_port && site=$ret_port
echo "upstreams 64; peers 1k; slots 64k; resolver 127.0.0.1:$dns_port;
    resolve_min_ttl 50ms; resolve_max_ttl 200ms;" >"$T/durpinad.conf"
start_durpinad
start_nginx front 4 <<END
http {
    upstream foo { server 0.0.0.0; durpina round-robin; }
    upstream bar { server file.test:$port; durpina round-robin; }
    server {
        listen 127.0.0.1:$site;
        location / { proxy_pass http://foo; proxy_next_upstream off; }
        location /bar { proxy_pass http://bar/; }
    }
}
END

# The addresses of upstream foo (or $1) without the port, primaries only, sorted.
addresses() {
    api GET "/api/9/http/upstreams/${1:-foo}" |
        jq -r '[.peers[] | select(.backup | not) | .server | sub(":[0-9]+$"; "")] | sort | join(" ")'
}
has_addresses() { # UPSTREAM ADDRESS...
    [ "$(addresses "$1")" = "${*:2}" ]
}
# A field of the durpina view of a server's name.
name_field() { # FIELD
    api GET $FOO | jq -r ".names[0].$1"
}
fails() { # REGEX
    [[ $(name_field error) =~ $1 ]]
}
works() {
    [ "$(name_field error)" = "" ] && [ "$(name_field failures)" = 0 ]
}

# --- A records ------------------------------------------------------------------------------------

api POST $SERVERS "{\"server\":\"web.test:$port\"}" >"$T/answer"
ok "a_name_gets_its_address" wait_for has_addresses foo 127.0.0.1
zone "web IN A 127.0.0.1" "web IN A 127.0.0.2" "web IN AAAA ::1"
ok "a_changed_answer_is_followed_at_its_ttl" wait_for has_addresses foo "127.0.0.1 127.0.0.2 [::1]"
kept=$(peer foo id "127.0.0.2:$port")
curl -s "http://127.0.0.1:$site/delay/1500" >"$T/slow_1" &
slow_1=$!
curl -s "http://127.0.0.1:$site/delay/1500" >"$T/slow_2" &
slow_2=$!
wait_for has_active foo 2
zone "web IN A 127.0.0.2" "web IN A 127.0.0.3"
ok "an_address_that_goes_takes_no_more" wait_for has_addresses foo "127.0.0.2 127.0.0.3"
is "requests_go_to_the_others" "$(tally 100 4 "http://127.0.0.1:$site/")" "b=50 c=50"
wait "$slow_1" "$slow_2"
is "requests_in_flight_to_it_finish" "$(sort "$T/slow_1" "$T/slow_2" | tr '\n' ' ')" "a b "
is "who_stays_keeps_its_id" "$(peer foo id "127.0.0.2:$port")" "$kept"
is "and_its_counters" "$(peer foo requests "127.0.0.2:$port")" 51

# --- failures -------------------------------------------------------------------------------------

revision=$(api GET $FOO | jq .revision)
while read -r mode reason; do
    : >"$T/durpinad.log"
    spoil "*" "$mode"
    ok "${mode}_is_noticed" wait_for fails "$reason"
    is "${mode}_takes_no_address_away" "$(addresses)" "127.0.0.2 127.0.0.3"
    spoil
    ok "${mode}_ends" wait_for works
done <<'END'
servfail name servers failed
refused name servers failed
empty no address
truncated .
END
is "nothing_has_changed_by_all_that" "$(api GET $FOO | jq .revision)" "$revision"
between "a_row_of_failures_is_logged_once" \
    "$(grep -c "name web.test cannot be looked up" "$T/durpinad.log")" 0 1

zone "web IN A 127.0.0.1" "web IN A 127.0.0.2" "web IN A 127.0.0.3"
spoil "*" tcp
ok "a_truncated_answer_is_asked_for_over_tcp" \
    wait_for has_addresses foo "127.0.0.1 127.0.0.2 127.0.0.3"
spoil

# Half of all answers fail, for as many questions as in 10 minutes of TTLs of 30 s.
before=$(api GET $FOO | jq .revision)
spoil "*" random
: >"$T/questions"
wrk -t 1 -c 8 -d 4s "http://127.0.0.1:$site/" >"$T/wrk.txt" 2>&1
spoil
between "many_questions_were_asked_meanwhile" "$(questions web.test 1)" 20 1000
not_ok "random_failures_fail_no_request" grep -E "Non-2xx|Socket errors" "$T/wrk.txt"
is "nor_lose_a_peer_at_any_time" "$(api GET $FOO | jq .revision)" "$before"

spoil "*" silent
ok "a_silent_server_is_given_up" wait_for fails "no answer"
is "silence_takes_no_address_away" "$(addresses)" "127.0.0.1 127.0.0.2 127.0.0.3"
is "silence_changes_nothing" "$(api GET $FOO | jq .revision)" "$before"
spoil
ok "silence_ends" wait_for works

zone "other IN A 127.0.0.1"
ok "a_name_that_does_not_exist_loses_its_addresses" wait_for has_addresses foo "?"
is "its_server_stays" "$(server_fields foo state)" "web.test:$port=unavail"
ok "that_is_logged" grep -q "name web.test does not exist, by 3 answers in a row" "$T/durpinad.log"
is "requests_are_refused_at_once" "$(status "http://127.0.0.1:$site/")" 502
zone "web IN A 127.0.0.1"
ok "and_gets_them_back_when_it_exists_again" wait_for has_addresses foo 127.0.0.1
is "requests_are_served_again" "$(body "http://127.0.0.1:$site/")" a

# --- SRV records ----------------------------------------------------------------------------------

api DELETE "$SERVERS/$(server_id foo "web.test:$port")" >"$T/answer"
zone "_http._tcp.web IN SRV 10 3 $port a" "_http._tcp.web IN SRV 10 1 $port b" \
    "_http._tcp.web IN SRV 20 1 $port c" "_http._tcp.web IN SRV 10 1 0 c" \
    "a IN A 127.0.0.1" "b IN A 127.0.0.2" "c IN A 127.0.0.3" "none._tcp.web IN SRV 0 0 0 ."
api POST /api/9/durpina/upstreams '{"name":"foo"}' >"$T/answer"
is "a_service_is_added" \
    "$(api POST $SERVERS '{"server":"web.test","service":"http"}' | jq -r '.server + " " + .service')" \
    "_http._tcp.web.test http"
id=$(server_id foo _http._tcp.web.test)
ok "srv_records_name_the_peers" wait_for has_addresses foo "127.0.0.1 127.0.0.2"
is "with_weight_and_tier" \
    "$(api GET /api/9/http/upstreams/foo | jq -r '[.peers[] | "\(.server)*\(.weight)\(if .backup then "!" else "" end)"] | sort | join(" ")')" \
    "127.0.0.1:$port*3 127.0.0.2:$port*1 127.0.0.3:$port*1!"
is "requests_go_by_their_weights" "$(tally 100 4 "http://127.0.0.1:$site/")" "a=75 b=25"
is "the_service_cannot_be_changed" \
    "$(api PATCH "$SERVERS/$id" '{"service":"https"}' | jq -r .error.code)" UpstreamServerImmutable
is "a_service_with_a_port_is_refused" \
    "$(api POST $SERVERS '{"server":"web.test:80","service":"http"}' | jq -r .error.code)" \
    UpstreamBadAddress
ok "durpinactl_adds_services" "$BUILD/durpinactl" add foo "web.test service=none._tcp weight=2"
ok "target_dot_is_no_address" wait_for eval \
    'api GET $FOO | jq -e ".names[] | select(.server == \"none._tcp.web.test\") | .error | test(\"no SRV record names\")"'
zone "_http._tcp.web IN SRV 10 1 $port c" "c IN A 127.0.0.3"
ok "changed_records_are_followed" wait_for has_addresses foo "127.0.0.3 ?"
zone "_http._tcp.web IN SRV 10 1 $port gone" "c IN A 127.0.0.3"
ok "a_target_that_does_not_exist_takes_its_peers_away" wait_for has_addresses foo "? ?"

# --- files ----------------------------------------------------------------------------------------

is "a_line_of_nginx_has_what_the_hosts_file_says" "$(addresses bar)" 127.0.0.1
printf '127.0.0.1 localhost\n127.0.0.2 file.test\n' >"$T/hosts"
ok "a_changed_hosts_file_is_followed" wait_for has_addresses bar 127.0.0.2
is "its_requests_too" "$(body "http://127.0.0.1:$site/bar")" b
reload_nginx front
is "a_reload_keeps_what_is_known" "$(addresses bar)" 127.0.0.2
zone "file IN A 127.0.0.3"
printf '127.0.0.1 localhost\n' >"$T/hosts"
ok "without_a_line_there_dns_is_asked" wait_for has_addresses bar 127.0.0.3

# --- resolv.conf ---------------------------------------------------------------------------------

zone "web.corner IN A 127.0.0.2"
api DELETE "$SERVERS/$id" >"$T/answer"
api POST $SERVERS "{\"server\":\"web:$port\"}" >"$T/answer"
printf 'nameserver 127.0.0.1\nsearch corner.test\n' >"$T/resolv.conf"
ok "a_changed_search_is_followed_whoever_is_asked" wait_for has_addresses foo "127.0.0.2 ?"

# --- how often ------------------------------------------------------------------------------------

zone "often IN A 127.0.0.1"
echo "upstreams 64; peers 1k; slots 64k; resolver 127.0.0.1:$dns_port;" >"$T/durpinad.conf"
: >"$T/durpinad.log"
kill -HUP "$durpinad_pid"
wait_for grep -q "configuration reloaded" "$T/durpinad.log"
for upstream in one two; do
    api POST /api/9/durpina/upstreams "{\"name\":\"$upstream\"}" >"$T/answer"
    api POST "/api/9/http/upstreams/$upstream/servers" '{"server":"often.test"}' >"$T/answer"
done
id=$(server_id two often.test:80)
begin=${EPOCHREALTIME/./}
while [ $((${EPOCHREALTIME/./} - begin)) -lt 2500000 ]; do
    api POST "/api/9/durpina/upstreams/two/servers/$id/resolve" >"$T/answer"
done
between "whoever_asks_there_is_one_question_a_second" "$(questions often.test 1)" 2 4

echo "upstreams 64; peers 1k; slots 64k; resolver 127.0.0.1:$dns_port; resolve off;" \
    >"$T/durpinad.conf"
: >"$T/durpinad.log"
kill -HUP "$durpinad_pid"
wait_for grep -q "configuration reloaded" "$T/durpinad.log"
is "no_question_is_planned_with_resolve_off" \
    "$(api GET /api/9/durpina/upstreams/one | jq '.names[0] | has("next")')" false

done_testing
