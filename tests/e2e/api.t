#!/bin/bash
# SPDX-License-Identifier: MIT
# The control API as its clients see it: paths, objects, who may change what, reload and restart.
. "$(dirname "$0")/../lib/harness.sh"

SERVERS=/api/9/http/upstreams/foo/servers
OURS=/api/9/durpina/upstreams

# as USER-OPTIONS... : the API as another user; the rest as api().
as() {
    local options=$1
    shift
    # shellcheck disable=SC2086
    setpriv $options --clear-groups curl -s -m 10 --unix-socket "$SOCKET" "$@"
}
WORKER="--reuid 33 --regid 33"
STRANGER="--reuid 4711 --regid 4711"

free_port
tcp_port=$ret_port
free_port
writable_port=$ret_port
cat >"$T/durpinad.conf" <<END
listen 127.0.0.1:$tcp_port;
listen 127.0.0.1:$writable_port writable;
request_timeout 500ms; max_connections 8;
END
start_durpinad -c "$T/durpinad.conf"

# --- paths ---------------------------------------------------------------------------------------

is "versions_are_listed" "$(api GET /api/)" "[1,2,3,4,5,6,7,8,9]"
is "endpoints_are_listed" "$(api GET /api/9/)" \
    '["nginx","processes","connections","http","durpina"]'
is "every_version_is_served_alike" "$(api GET /api/1/http)" "$(api GET /api/9/http/)"
is "nginx_plus_clients_find_what_they_ask_for" \
    "$(for path in nginx processes connections; do api_code GET "/api/9/$path"; done)" 200200200
like "a_method_that_is_not_possible_tells_those_that_are" \
    "$(api PUT /api/9/durpina/upstreams '{}' -i)" "405.*Allow: GET, HEAD, POST"
is "head_answers_without_a_body" "$(curl -s -m 10 -I --unix-socket "$SOCKET" http://x/api/9/nginx |
    grep -cE '200 OK|application/json|\{')" 2

# --- servers -------------------------------------------------------------------------------------

is "an_upstream_is_created" "$(api_code POST $OURS '{"name":"foo"}')" 201
answer=$(api POST $SERVERS '{"server":"127.0.0.1:8080","weight":"5","fail_timeout":"15s"}' -i)
like "a_new_server_is_answered_201" "$answer" "HTTP/1.1 201"
like "a_new_server_has_a_location" "$answer" "Location: $SERVERS/0"
is "a_server_object_has_these_fields" "$(tail -n 1 <<<"$answer")" \
    '{"id":0,"server":"127.0.0.1:8080","weight":5,"max_conns":0,"max_fails":1,"fail_timeout":"15s","slow_start":"0s","route":"","backup":false,"down":false,"drain":false,"initial_weight":5,"operator":"up","state":"up","origin":"dynamic"}'
equal='{"server":"127.0.0.1:8080","weight":5,"fail_timeout":"15s"}'
is "the_same_server_again_is_fine_and_otherwise_not" "$(api_code POST $SERVERS "$equal") $(
    api_code POST $SERVERS "${equal/5/6}") $(api GET $SERVERS | jq length)" "200 409 1"
is "a_peer_object_has_these_fields" \
    "$(api GET /api/9/http/upstreams/foo | jq -c '.peers[0] | keys_unsorted')" \
    '["id","server","name","backup","weight","state","active","max_conns","requests","responses","sent","received","fails","unavail","health_checks","downtime","kernel"]'
is "an_upstream_object_has_these_fields" \
    "$(api GET /api/9/http/upstreams | jq -c '.foo | keys_unsorted')" \
    '["peers","keepalive","zombies","zone"]'
is "fields_are_left_out" "$(api GET '/api/9/http/upstreams?fields=zone')" '{"foo":{"zone":"foo"}}'
is "no_fields_leave_names" "$(api GET '/api/9/http/upstreams?fields=')" '["foo"]'
is "fields_of_each_server" "$(api GET "$SERVERS?fields=id,weight")" '[{"id":0,"weight":5}]'

# The settings in force of a peer, as a reader of the maps finds them.
in_maps() {
    local word
    word=$(bpftool -j map dump pinned "$PIN/upstreams" | jq '.[0].formatted.value.publish')
    bpftool -j map dump pinned "$PIN/peers" | jq -c "[.[].formatted.value |
        select(.name == \"$1\") | .settings[$word % 2] | .$2] | first"
}
api PATCH $SERVERS/0 '{"weight":7}' >"$T/answer"
is "a_change_is_in_the_maps_when_it_is_answered" \
    "$(jq .weight "$T/answer") $(in_maps 127.0.0.1:8080 weight)" "7 7"
is "initial_weight_stays" "$(jq .initial_weight "$T/answer")" 5
is "reset_drops_runtime_changes" "$(api POST $OURS/foo/servers/0/reset | jq .weight)" 5
is "state_is_the_operators_word" \
    "$(for word in drain down up; do api PATCH $SERVERS/0 "{\"state\":\"$word\"}" |
        jq -c '[.state, .down, .drain]'; done | tr -d '\n')" \
    '["draining",false,true]["down",true,false]["up",false,false]'
is "lifting_drain_does_not_lift_down" "$(api PATCH $SERVERS/0 '{"down":true}' >"$T/answer"
    api PATCH $SERVERS/0 '{"drain":false}' | jq -r .state)" down
api PATCH $SERVERS/0 '{"down":false}' >"$T/answer"

api POST $SERVERS '{"server":"localhost:8081","weight":2}' >"$T/answer"
id=$(jq .id "$T/answer")
has_child() {
    [ "$(api GET $SERVERS | jq "[.[] | select(.parent == $id)] | length")" -ge 1 ]
}
ok "a_name_gets_its_addresses" wait_for has_child
child=$(api GET $SERVERS | jq "[.[] | select(.parent == $id)][0].id")
is "a_child_names_its_host" "$(api GET $SERVERS/"$child" | jq -r .host)" localhost
is "a_change_of_a_child_goes_to_its_parent" \
    "$(api PATCH $SERVERS/"$child" '{"weight":9}' | jq .id) $(api GET $SERVERS/"$id" | jq .weight)" \
    "$child 9"
answer=$(api DELETE $SERVERS/"$child")
is "a_child_is_not_deleted_alone" "$(jq -r .error.code <<<"$answer")" UpstreamServerImmutable
like "that_names_the_parent" "$(jq -r .error.text <<<"$answer")" "localhost:8081.* $id$"
is "and_the_name_stays" "$(api GET $SERVERS/"$id" | jq .id)" "$id"
is "resolve_answers_the_server" "$(api POST $OURS/foo/servers/"$id"/resolve | jq .id)" "$id"
is "delete_answers_what_remains" "$(api DELETE $SERVERS/"$id" | jq -c '[.[].server]')" \
    '["127.0.0.1:8080"]'

# --- monitors, resolver --------------------------------------------------------------------------

monitor='{"id":"m","name":"tcp","lua":false,"options":{"port":"1","interval":"1h"}}'
is "a_monitor_is_added" "$(api_code POST $OURS/foo/monitors "$monitor")" 201
is "the_same_monitor_again_is_fine" "$(api_code POST $OURS/foo/monitors "$monitor")" 200
is "the_same_id_otherwise_is_not" \
    "$(api POST $OURS/foo/monitors '{"id":"m","name":"tcp"}' | jq -r .error.code)" EntryExists
is "a_monitor_shows_its_options" "$(api GET $OURS/foo/monitors/m | jq -c .)" "$monitor"
is "monitoring_is_paused" "$(api PUT $OURS/foo/monitoring '{"active":false}' >"$T/answer"
    api GET $OURS/foo | jq .active)" false
is "a_monitor_is_removed" "$(api DELETE $OURS/foo/monitors/m)" "[]"
is "a_monitor_that_is_not_there" "$(api DELETE $OURS/foo/monitors/m | jq -r .error.code)" \
    MonitorNotFound
is "name_servers_are_set" \
    "$(api PUT /api/9/durpina/resolver '{"servers":["127.0.0.53","[::1]:5353"]}')" \
    '{"servers":["127.0.0.53","[::1]:5353"]}'
is "and_taken_back" "$(api PUT /api/9/durpina/resolver '{"servers":[]}')" '{"servers":[]}'

# --- an nginx introduces itself ------------------------------------------------------------------

introduction='{"instance":"/run/x.pid","pid":0,"worker_uid":33,"upstreams":[{"name":"bar",
    "durpina":true,"servers":[{"server":"127.0.0.1:1","addresses":["127.0.0.1:1"],"weight":1,
    "max_conns":0,"max_fails":1,"fail_timeout_ms":10000,"slow_start_ms":0,"down":false,
    "backup":false}]}]}'
is "only_root_introduces_an_nginx" "$(as "$WORKER" -d "$introduction" http://x/api/9/durpina/nginx |
    jq -r .error.code)" Forbidden
answer=$(api POST /api/9/durpina/nginx "$introduction")
token=$(jq -r .token <<<"$answer")
epoch=$(jq -r .epoch <<<"$answer")
like "an_introduction_is_answered_with_a_token" "$token" '^[0-9a-f]{32}$'
is "its_servers_are_file_defined" "$(server_fields bar origin)" "127.0.0.1:1=file"
is "instances_are_listed" "$(api GET /api/9/durpina/nginx |
    jq -c "map(select(.epoch == $epoch) | [.instance, .worker_uid])")" '[["/run/x.pid",33]]'
# change CURL-OPTIONS...: a change by the user whose options are in $1
code_of() {
    local options=$1
    shift
    as "$options" -o /dev/null -w '%{http_code}' -X PATCH -d '{"weight":3}' "$@" "http://x$SERVERS/0"
}
is "a_worker_with_the_token_may_change" "$(code_of "$WORKER" -H "Durpina-Token: $token")" 200
is "a_worker_without_it_may_not" "$(code_of "$WORKER")" 403
is "a_worker_with_another_token_may_not" \
    "$(code_of "$WORKER" -H "Durpina-Token: ${token//[0-9]/0}")" 403
is "a_stranger_with_the_token_may_not" "$(code_of "$STRANGER" -H "Durpina-Token: $token")" 403
block='{"instance":"/run/x.pid","epoch":EPOCH,"servers":[{"server":"127.0.0.1:2",
    "addresses":["127.0.0.1:2"],"weight":1}]}'
is "an_older_epoch_changes_nothing" \
    "$(api PUT $OURS/baz/nginx "${block/EPOCH/$((epoch - 1))}") $(api_code GET $OURS/baz)" "[] 404"
is "a_worker_registers_a_block_in_the_epoch_in_force" \
    "$(as "$WORKER" -X PUT -H "Durpina-Token: $token" -d "${block/EPOCH/$epoch}" \
        http://x$OURS/baz/nginx | jq -c 'map(.server)') $(server_fields baz origin)" \
    '["127.0.0.1:2"] 127.0.0.1:2=file'
is "an_epoch_to_come_is_refused" "$(api_code PUT $OURS/baz/nginx "${block/EPOCH/99}")" 400

ring='{"instance":"/run/z.pid","pid":0,"worker_uid":33,"upstreams":[{"name":"ring","durpina":true,
    "algorithm":"consistent-hash","ketama":true,
    "servers":[{"server":"127.0.0.1:5","addresses":["127.0.0.1:5"]}]}]}'
api POST /api/9/durpina/nginx "$ring" >"$T/answer"
is "the_algorithm_of_an_upstream_decides_about_its_tables" "$(api GET $OURS/ring |
    jq -c '[.algorithm, .ketama, .tables.hash, .tables.ring > 160]')" \
    '["consistent-hash",true,0,true]'
is "an_algorithm_that_is_not_there_is_refused" \
    "$(api POST /api/9/durpina/nginx "${ring/consistent-hash/best}" | jq -r .error.text)" \
    'upstream "ring": there is no algorithm "best" with ketama'
api DELETE /api/9/durpina/nginx/%2Frun%2Fz.pid >"$T/answer"

# pid_of INSTANCE: as introduced
pid_of() {
    api GET /api/9/durpina/nginx | jq ".[] | select(.instance == \"$1\") | .pid"
}
other='{"instance":"/run/y.pid","pid":PID,"worker_uid":33,"upstreams":[{"name":"qux",
    "durpina":true,"servers":[{"server":"127.0.0.1:3","addresses":["127.0.0.1:3"]}]}]}'
api POST /api/9/durpina/nginx "${other/PID/1}" >"$T/answer"
is "a_pid_that_is_not_the_senders_is_not_known" "$(pid_of /run/y.pid)" 0
# curl takes the place of a shell whose pid it tells.
bash -c 'echo $$ >"$0/sender"; exec curl -s --unix-socket "$1" -d "${2/PID/$$}" "http://x$3"' \
    "$T" "$SOCKET" "$other" /api/9/durpina/nginx >"$T/answer"
is "that_of_the_sender_is" "$(pid_of /run/y.pid)" "$(cat "$T/sender")"
api POST /api/9/http/upstreams/qux/servers '{"server":"127.0.0.1:4"}' >"$T/answer"
id=$(jq .id "$T/answer")
api DELETE /api/9/durpina/nginx/%2Frun%2Fy.pid >"$T/answer"
is "what_a_call_has_added_stays_when_its_nginx_is_forgotten" "$(server_fields qux origin)" \
    "127.0.0.1:4=dynamic"
is "the_last_server_of_an_upstream_that_nothing_holds_takes_it_along" \
    "$(api DELETE /api/9/http/upstreams/qux/servers/"$id" "" -w '%{http_code}') $(
        api_code GET $OURS/qux)" "[]200 404"

# --- who may -------------------------------------------------------------------------------------

is "a_stranger_may_read" "$(as "$STRANGER" http://x$SERVERS/0 | jq .id)" 0
is "a_stranger_may_not_change" "$(code_of "$STRANGER")" 403
# Refused over and over: a line a second tells of all.
is_logged_once_for_many() {
    code_of "$STRANGER" >"$T/answer"
    grep -qE 'uid 4711 \(pid [0-9]+\).*and [0-9]+ more before that' "$T/durpinad.log"
}
ok "a_refused_change_is_logged_with_its_user" wait_for is_logged_once_for_many
is "tcp_is_read_only" "$(curl -s "http://127.0.0.1:$tcp_port$SERVERS/0" | jq .id) $(
    curl -s -X PATCH -d '{"weight":3}' -o /dev/null -w '%{http_code}' \
        "http://127.0.0.1:$tcp_port$SERVERS/0")" "0 403"
is "tcp_is_writable_if_it_says_so" "$(curl -s -X PATCH -d '{"weight":4}' \
    "http://127.0.0.1:$writable_port$SERVERS/0" | jq .weight)" 4
is "nobody_introduces_an_nginx_over_tcp" "$(curl -s -d "$introduction" \
    "http://127.0.0.1:$writable_port/api/9/durpina/nginx" | jq -r .error.code)" Forbidden

# logged PATTERN: there is such a record
logged() {
    grep -q "$1" "$T/durpinad.log"
}
echo "allow_user 4711; peers 1k; log_level info;" >"$T/durpinad.conf"
kill -HUP "$durpinad_pid"
ok "a_reload_names_what_needs_a_restart" wait_for logged "restart durpinad to change listen, peers"
is "a_reload_allows_a_user" "$(code_of "$STRANGER")" 200
echo "allow_group 4711;" >"$T/durpinad.conf"
: >"$T/durpinad.log"
kill -HUP "$durpinad_pid"
wait_for logged "configuration reloaded"
is "a_reload_allows_a_group" "$(code_of "--reuid 5000 --regid 4711")" 200
is "a_supplementary_group_counts" "$(setpriv --reuid 5000 --regid 5000 --groups 4711 \
    curl -s --unix-socket "$SOCKET" -X PATCH -d '{"weight":3}' "http://x$SERVERS/0" | jq .weight)" 3
is "another_group_does_not" "$(code_of "--reuid 5000 --regid 5000")" 403
echo "allow_group 5000; frob;" >"$T/durpinad.conf"
kill -HUP "$durpinad_pid"
ok "a_bad_configuration_is_named" wait_for logged "$T/durpinad.conf:1: there is no setting \"frob\""
is "and_the_former_one_stays" "$(code_of "--reuid 5000 --regid 5000")" 403

# --- name servers ---------------------------------------------------------------------------------

# reconfigure SETTINGS
reconfigure() {
    echo "log_level info; $1" >"$T/durpinad.conf"
    : >"$T/durpinad.log"
    kill -HUP "$durpinad_pid"
    wait_for logged "configuration reloaded"
}
cat >"$T/dns.pl" <<'END'
# PORT ADDRESS: a name server to which every name has this address.
use IO::Socket::INET;
my ($port, $address) = @ARGV;
my $socket = IO::Socket::INET->new(Proto => 'udp', LocalAddr => '127.0.0.1', LocalPort => $port)
    or die $!;
$| = 1;
print "ready\n";
while (defined(my $client = recv($socket, my $query, 512, 0))) {
    my $question = substr($query, 12, index($query, "\0", 12) + 5 - 12);
    my $is_a = unpack('n', substr($question, -4)) == 1 ? 1 : 0;
    my $answer = $is_a ? pack('n3 N n C4', 0xc00c, 1, 1, 1, 4, split(/\./, $address)) : '';
    send($socket, pack('n6', unpack('n', $query), 0x8180, 1, $is_a, 0, 0) . $question . $answer, 0,
        $client);
}
END
for n in 1 2; do
    free_port
    dns[n]=127.0.0.1:$ret_port
    perl "$T/dns.pl" "$ret_port" "127.0.0.2$n" >"$T/dns$n" &
    started[$!]=dns
    ok "name_server_${n}_answers" wait_for grep -q ready "$T/dns$n"
done
# The address that the server has got from the name servers in force.
has_address() {
    [ "$(api GET $SERVERS | jq -r ".[] | select(.parent == $id) | .server")" = "$1" ]
}
asks() {
    api POST $OURS/foo/servers/"$id"/resolve >"$T/answer"
    wait_for has_address "127.0.0.2$1:80"
}
reconfigure "resolver ${dns[1]};"
api POST $SERVERS '{"server":"name.test"}' >"$T/answer"
id=$(jq .id "$T/answer")
ok "name_servers_of_the_configuration_are_asked" asks 1
is "none_are_set_by_that" "$(api GET /api/9/durpina/resolver)" '{"servers":[]}'
api PUT /api/9/durpina/resolver "{\"servers\":[\"${dns[2]}\"]}" >"$T/answer"
ok "those_set_by_a_call_go_before_them" asks 2
reconfigure "resolver ${dns[1]}; max_connections 9;"
ok "after_a_reload_too" asks 2
is "and_only_they_are_saved" "$(jq -c .resolver "$STATE")" "[\"${dns[2]}\"]"
api PUT /api/9/durpina/resolver '{"servers":[]}' >"$T/answer"
ok "until_they_are_taken_back" asks 1
reconfigure "resolver ${dns[2]};"
ok "a_reload_changes_those_of_the_configuration" asks 2
api DELETE $SERVERS/"$id" >"$T/answer"
kill -USR1 "$durpinad_pid"
is "usr1_changes_nothing" "$(api GET /api/9/durpina | jq .pid)" "$durpinad_pid"

# --- clients that do not end ---------------------------------------------------------------------

echo "request_timeout 500ms; max_connections 8;" >"$T/durpinad.conf"
: >"$T/durpinad.log"
kill -HUP "$durpinad_pid"
wait_for logged "configuration reloaded"
cat >"$T/drip.pl" <<'END'
use IO::Socket::UNIX;
use Time::HiRes qw(time sleep);
$SIG{PIPE} = 'IGNORE';
my ($path, $n) = @ARGV;
my @clients = map { IO::Socket::UNIX->new(Peer => $path) or die $! } 1 .. $n;
syswrite($_, "GET /api/ HTTP/1.1\r\n") for @clients;
my $begin = time;
print "dripping\n";
close STDOUT;
while (@clients && time < $begin + 10) {
    @clients = grep { syswrite($_, "X: y\r\n") } @clients;
    sleep 0.05;
}
exit(@clients ? 1 : 0);
END
setpriv --reuid 4711 --regid 4711 --clear-groups perl "$T/drip.pl" "$SOCKET" 8 >"$T/drip" &
drip=$!
started[$drip]=drip
ok "drippers_drip" wait_for grep -q dripping "$T/drip"
not_ok "they_fill_their_own_share" as "$STRANGER" http://x/api/
is "others_are_served" "$(api_code GET /api/)" 200
wait "$drip"
is "they_are_closed_at_their_deadline" "$?" 0
unset "started[$drip]"
is "their_share_is_free_again" "$(as "$STRANGER" -o /dev/null -w '%{http_code}' http://x/api/)" 200

# --- the end -------------------------------------------------------------------------------------

before=$(api GET $SERVERS)
kill_hard "$durpinad_pid"
start_durpinad
is "servers_survive_a_crash" "$(api GET $SERVERS)" "$before"
api_code POST $OURS '{"name":"late"}' >"$T/answer"
kill -TERM "$durpinad_pid"
wait "$durpinad_pid"
is "term_ends_it_in_order" "$?" 0
unset "started[$durpinad_pid]"
ok "the_maps_stay" test -e "$PIN/peers"
rm -rf "$PIN"
start_durpinad
is "the_state_file_has_it_all" "$(api GET $SERVERS | jq length) $(api GET $OURS | jq -c 'sort')" \
    "$(jq length <<<"$before") [\"bar\",\"baz\",\"foo\",\"late\"]"
done_testing
