#!/bin/bash
# SPDX-License-Identifier: MIT
# Under load, the programs in the kernel are attached, replaced by those of a newer build, detached,
# attached again and detached by hand: no request fails, and what is counted adds up.
. "$(dirname "$0")/../lib/harness.sh"
. "$ROOT/tests/lib/site.sh"
own_network "$@"
join_cgroup

# A newer build: another version, and programs that look at a connection at other times.
mkdir "$T/tree"
cp -r "$ROOT/Makefile" "$ROOT/bpf" "$ROOT/controller" "$ROOT/packaging" "$T/tree"
sed -i 's/^#define DURPINA_SAMPLE_NS (50/#define DURPINA_SAMPLE_NS (51/' \
    "$T/tree/bpf/durpina_endpoint.h"
newer=$T/newer/durpinad
env -u MAKEFLAGS -u MAKELEVEL make -j2 -C "$T/tree" B="$T/newer" VERSION=99.0.0 CFLAGS=-O0 \
    "$newer" >"$T/make.log" 2>&1 || die "a newer build is made" "$(tail -n 5 "$T/make.log")"

for name in a b c; do
    start_backend "$name"
done
# Who is not sent to a peer finds this one: the virtual endpoint has a listener of its own.
start_backend nobody 80 127.10.0.1
vip=http://127.10.0.1:80

# durpinad_with on|off: a controller that has the programs attached, or has not.
durpinad_with() {
    echo "upstreams 64; peers 1k; slots 64k; observe $1; connect $1; vip 127.10.0.1:80 upstream=foo;" \
        >"$T/durpinad.conf"
    start_durpinad
}
stop_controller() {
    kill -TERM "$durpinad_pid"
    wait_for none_running "$durpinad_pid"
}
restart_with() {
    stop_controller
    durpinad_with "$1"
}

# Sum over the endpoints.
endpoints() {
    bpftool -j map dump pinned "$PIN/endpoints" | jq "[.[].formatted.value.$1] | add"
}
endpoints_beyond() {
    [ "$(endpoints "$1")" -gt "$2" ]
}
endpoints_are() {
    [ "$(endpoints "$1")" -eq "$2" ]
}
links() {
    find "$PIN" -name 'link_*' -printf '%f\n' | sort | tr '\n' ' '
}
# link FIELD: of what counts connections.
link() {
    bpftool -j link show pinned "$PIN/link_observe" | jq ".$1"
}
tag() {
    bpftool -j prog show id "$1" | jq -r .tag
}

durpinad_with off
free_port
port=$ret_port
start_nginx web 2 < <(foo_site "$port")

# Python and curl, each connection anew: to the peers, and to the virtual endpoint, as fast as they
# can. Each writes a line a request: who answered, or how it failed.
cat >"$T/client.py" <<'END_PYTHON'
import http.client, sys, time
targets = sys.argv[1:]
while True:
    for target in targets:
        try:
            connection = http.client.HTTPConnection(target, timeout=10)
            connection.request("GET", "/")
            print(target, connection.getresponse().read().decode().strip(), flush=True)
        except OSError as e:
            print(target, "failed:", e, flush=True)
        connection.close()
        time.sleep(0.001)
END_PYTHON
python3 "$T/client.py" "127.0.0.1:$port_a" "127.0.0.1:$port_b" 127.10.0.1:80 >"$T/python.out" &
python_pid=$!
started[$python_pid]=python
while :; do
    curl -s -m 10 "$vip/" || echo "failed: $?"
done >"$T/curl.out" &
curl_pid=$!
started[$curl_pid]=curl
start_load "http://127.0.0.1:$port/" 60 16 -H "Connection: close"

# More answers to the curl of the virtual endpoint are from peers (or from nobody else) since now.
served_by() {
    local from=$1
    shift
    tail -n +"$((from + 1))" "$T/curl.out" | grep -cx "$@" | grep -qvx '[0-4]'
}
lines() {
    wc -l <"$T/curl.out"
}
now=$(lines)
wait_for served_by "$now" nobody
is "without_programs_nothing_is_attached" "$(attached)" 0
is "nor_pinned" "$(links)" ""
is "nor_counted" "$(endpoints tried)" 0

restart_with on
now=$(lines)
ok "attached_under_load_it_sends_connects_to_peers" wait_for served_by "$now" '[abc]'
ok "and_counts_connections" wait_for endpoints_beyond established 100
first_link=$(link id) first_prog=$(link prog_id)
first_tag=$(tag "$first_prog")
n_links=$(links | wc -w)
is "each_link_is_pinned" "$(attached)" "$n_links"
between "there_is_one_for_each_hook" "$n_links" 9 9

stop_controller
before=$(endpoints tried)
ok "without_a_controller_it_goes_on_counting" wait_for endpoints_beyond tried "$((before + 100))"
now=$(lines)
ok "and_sending_connects_to_peers" wait_for served_by "$now" '[abc]'
before=$(endpoints tried)
DURPINAD=$newer durpinad_with on
is "a_newer_build_runs" "$(api GET /api/9/durpina | jq -r .version)" 99.0.0
is "it_adopts_the_link" "$(link id)" "$first_link"
not_ok "and_replaces_its_program" [ "$(link prog_id)" = "$first_prog" ]
not_ok "by_that_of_the_newer_build" [ "$(tag "$(link prog_id)")" = "$first_tag" ]
is "once" "$(attached)" "$n_links"
ok "counts_go_on_from_where_they_were" endpoints_beyond tried "$((before - 1))"
before=$(endpoints established)
ok "and_grow" wait_for endpoints_beyond established "$((before + 100))"

restart_with off
is "off_detaches" "$(attached)" 0
is "and_removes_the_pins" "$(links)" ""
now=$(lines)
ok "connects_go_where_they_were_meant_to" wait_for served_by "$now" nobody
between "nothing_is_counted_below_zero" "$(endpoints open)" 0 1000

restart_with on
not_ok "attached_anew_it_is_another_link" [ "$(link id)" = "$first_link" ]
now=$(lines)
ok "which_sends_connects_to_peers" wait_for served_by "$now" '[abc]'
before=$(endpoints established)
ok "and_counts" wait_for endpoints_beyond established "$((before + 100))"

end_load
stop "$python_pid" "$curl_pid"
ok "when_the_load_is_over_no_connection_is_open" wait_for endpoints_are open 0
is "nor_being_made" "$(endpoints connecting)" 0
is "none_has_failed_in_the_kernel" \
    "$(endpoints refused) $(endpoints timed_out) $(endpoints unreachable)" "0 0 0"
is "each_try_has_ended" "$(endpoints tried)" "$(($(endpoints established) + $(endpoints abandoned)))"
is "nginx_served_all" "$(load_errors)" none
between "of_many" "$(load_requests)" 500 1000000
is "python_was_served" "$(grep -c failed "$T/python.out")" 0
is "curl_was_served" "$(grep -c failed "$T/curl.out")" 0
is "by_peers_and_the_listener_only" "$(grep -vcx '[abc]\|nobody' "$T/curl.out")" 0

start_load "http://127.0.0.1:$port/" 60 16 -H "Connection: close"
for name in $(links); do
    bpftool link detach pinned "$PIN/$name"
done
is "detached_by_hand_nothing_is_attached" "$(attached)" 0
is "and_the_virtual_endpoint_is_gone" "$(body "$vip/")" nobody
says_detached() { grep -q "observe is not attached any more" "$T/durpinad.log"; }
ok "durpinad_notices" wait_for says_detached
restart_with on
is "and_attaches_anew_when_it_is_restarted" "$(attached)" "$n_links"
end_load
is "nginx_served_all_the_while" "$(load_errors)" none
done_testing
