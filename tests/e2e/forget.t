#!/bin/bash
# SPDX-License-Identifier: MIT
# An nginx that has ended keeps its place until another one wants the upstream; what was answered is
# there after a kill -9 right behind the answer.
. "$(dirname "$0")/../lib/harness.sh"
. "$ROOT/tests/lib/site.sh"

for name in a b c; do
    start_backend "$name"
done
free_port
port_one=$ret_port
free_port
port_two=$ret_port
start_durpinad

one_line() {
    echo "server 127.0.0.1:$1;"
}
instances() {
    api GET /api/9/durpina/nginx | jq -r '[.[].instance | sub(".*/"; "")] | sort | join(" ")'
}

start_nginx one 1 < <(foo_site "$port_one" "$(one_line "$port_a")")
api PATCH /api/9/http/upstreams/foo/servers/0 '{"weight":7}' >/dev/null
stop "$nginx_one"
is "stopped_nginx_keeps_its_place" "$(server_fields foo weight)" "127.0.0.1:$port_a=7"
restart_nginx one 1
is "and_finds_its_runtime_weight" "$(server_fields foo weight)" "127.0.0.1:$port_a=7"

start_nginx two 1 < <(foo_site "$port_two" "$(one_line "$port_b")")
is "two_that_run_share_the_upstream" "$(server_fields foo weight)" \
    "127.0.0.1:$port_a=7 127.0.0.1:$port_b=1"
stop "$nginx_one"
reload_nginx two
is "one_that_has_ended_is_forgotten_when_another_introduces_the_upstream" \
    "$(server_fields foo weight) by $(instances)" "127.0.0.1:$port_b=1 by two.pid"
is "traffic_goes_by_it" "$(tally 20 2 "http://127.0.0.1:$port_two/")" "b=20"

restart_nginx one 1
kill_hard "$nginx_one"
path=$(jq -rn --arg n "$T/one.pid" '$n | @uri')
is "one_that_was_killed_can_be_forgotten_by_a_call" \
    "$(api_code DELETE "/api/9/durpina/nginx/$path") $(instances)" "200 two.pid"
is "and_only_once" "$(api_code DELETE "/api/9/durpina/nginx/$path")" 404
is "and_only_by_root" "$(setpriv --reuid nobody --regid nogroup --clear-groups \
    curl -s -o /dev/null -w '%{http_code}' --unix-socket "$SOCKET" -X DELETE \
    "http://x/api/9/durpina/nginx/x")" 403

# Each change is answered, the controller is killed at once, the next one must know of it.
killed_after() {
    api "$@" >/dev/null
    kill_hard "$durpinad_pid"
    start_durpinad
}
killed_after POST /api/9/durpina/upstreams '{"name":"bar"}'
killed_after POST /api/9/http/upstreams/bar/servers '{"server":"127.0.0.1:1","weight":3}'
killed_after POST /api/9/durpina/upstreams/bar/monitors '{"id":"m","name":"tcp","options":{}}'
killed_after PUT /api/9/durpina/upstreams/bar/monitoring '{"active":false}'
killed_after PUT /api/9/durpina/resolver '{"servers":["127.0.0.9"]}'
is "what_was_answered_survives_kill_9" \
    "$(api GET /api/9/durpina/upstreams/bar |
        jq -c '[.name, .active, (.servers | map([.server, .weight])), (.monitors | map(.id))]') $(
        api GET /api/9/durpina/resolver | jq -c .servers)" \
    '["bar",false,[["127.0.0.1:1",3]],["m"]] ["127.0.0.9"]'
killed_after DELETE /api/9/durpina/upstreams/bar/monitors/m
killed_after DELETE /api/9/durpina/upstreams/bar
is "and_what_was_deleted_stays_away" "$(api_code GET /api/9/durpina/upstreams/bar)" 404
done_testing
