#!/bin/bash
# SPDX-License-Identifier: MIT
# Why peers are in their states: by the API, durpinactl, the log and after restarts.
. "$(dirname "$0")/../lib/harness.sh"

ctl() {
    "$BUILD/durpinactl" "$@" 2>&1
}
peers() {
    api GET "/api/9/durpina/upstreams/foo/peers$1" | jq -c "$2"
}
state_is() { # ADDRESS STATE
    [ "$(peer foo state "$1")" = "$2" ]
}
checked() { # ID N
    peers "/$1" '.monitors[0].checks' | awk -v n="$2" '{exit !($1 >= n)}'
}
log_lines() {
    grep -c "$1" "$T/durpinad.log"
}

start_backend a
free_port
dead=$ret_port
a=127.0.0.1:$port_a
start_durpinad
ctl create foo >/dev/null
ctl add foo "$a weight=4" >/dev/null
ctl add foo "127.0.0.1:$dead" >/dev/null
ctl monitors add foo http id=m uri=/still_alive interval=50ms timeout=5s >/dev/null

# --- results ---

ok "a_dead_peer_becomes_unhealthy" wait_for state_is "127.0.0.1:$dead" unhealthy
wait_for checked 0 2
is "the_last_result_is_told" "$(peers /0 '[.monitors[0] | .id, .name, .running, .verdict,
    .last.passed, .last.reason, (.checks >= 2), .fails]')" \
    '["m","http",true,"passed",true,"HTTP 200",true,0]'
like "with_its_time" "$(peers /0 .monitors[0].last.time)" '^"20[0-9-]+T[0-9:.]+Z"$'
like "and_duration_in_ms" "$(peers /0 .monitors[0].last.duration)" '^[0-9]+$'
is "a_failed_one_has_its_reason" "$(peers /1 '[.state, .verdict, .reason,
    .monitors[0].last.passed, .monitors[0].reason]')" \
    '["unhealthy","failed","monitor m: connection refused",false,"connection refused"]'
is "what_is_up_has_no_reason" "$(peers /0 'has("reason")')" false
is "health_checks_of_NGINX_Plus_sum_them_up" \
    "$(api GET /api/9/http/upstreams/foo | jq -c '.peers[1].health_checks | .checks == .fails, .unhealthy, .last_passed')" \
    $'true\n1\nfalse'
is "peers_are_listed_together" "$(peers "" '[.[] | .server]')" "[\"$a\",\"127.0.0.1:$dead\"]"
is "an_unknown_id_is_404" "$(api_code GET /api/9/durpina/upstreams/foo/peers/99)" 404
is "an_unknown_upstream_too" "$(api_code GET /api/9/durpina/upstreams/fob/peers)" 404

# --- history ---

is "a_transition_is_one_line_of_the_log" \
    "$(log_lines "peer 127.0.0.1:$dead (127.0.0.1:$dead) is unhealthy: monitor m: connection refused")" 1
wait_for checked 1 5
is "and_checks_are_none" "$(log_lines "connection refused")" 1
is "it_is_in_the_history" "$(peers /1 '[.transitions[] | .from, .to, .cause]')" \
    '["up","unhealthy","monitor m: connection refused"]'
for ((i = 0; i < 15; i++)); do
    ctl drain foo "$a" >/dev/null
    ctl up foo "$a" >/dev/null
done
is "the_last_20_are_kept_the_newest_first" "$(peers /0 '[.transitions | length, .[0].to, .[1].to]')" \
    '[20,"up","draining"]'

# --- the operator's words ---

like "maint_is_a_command" "$(ctl maint foo "$a")" "weight 4, down"
is "and_shown_as_down_and_as_what_it_is" \
    "$(api GET /api/9/http/upstreams/foo/servers/0 | jq -c '[.down, .drain, .operator, .state]')" \
    '[true,false,"maint","down"]'
is "checks_have_stopped" "$(peers /0 '[.operator, .reason, .monitors[0].running]')" \
    '["maint","set \"maint\"",false]'
ctl up foo "$a" >/dev/null
ok "up_starts_them_again" wait_for checked 0 1
is "a_bad_word_is_refused" "$(api PATCH /api/9/http/upstreams/foo/servers/0 '{"state":"off"}' |
    jq -r .error.code)" BadState

# --- durpinactl ---

like "show_says_why" "$(ctl show foo)" \
    "127.0.0.1:$dead \\(127.0.0.1:$dead\\) is unhealthy: monitor m: connection refused"
like "checks_lists_last_results" "$(ctl checks foo)" \
    "SERVER +ADDRESS +STATE +MONITOR +VERDICT.*REASON.*up +m +passed +0/[0-9]+ .*HTTP 200.*unhealthy +m +failed"
like "history_lists_transitions" "$(ctl history foo | head -n 2)" \
    "TIME +SERVER +ADDRESS +FROM +TO +CAUSE.*Z +$a +$a +down +up +set \"up\""

# --- mandatory, persistent ---

ctl monitors remove foo m >/dev/null
ctl monitors add foo tcp id=p mandatory=true persistent=true interval=50ms timeout=5s >/dev/null
ok "a_mandatory_monitor_lets_in_what_it_has_passed" wait_for state_is "$a" up
is "its_history_says_so" "$(peers /0 '[.transitions[:2][] | .to, .cause]')" \
    '["up","monitors pass","checking","monitor p has not passed it yet"]'
ctl add foo "127.0.0.1:1" >/dev/null
is "a_new_peer_has_not_been_up" "$(peers "/$(server_id foo 127.0.0.1:1)" '[.transitions[].from] | index("up")')" null
stop "$durpinad_pid"
rm -rf "$PIN"
start_durpinad
is "after_a_reboot_it_is_as_it_was" "$(peer foo state "$a") $(peer foo state "127.0.0.1:$dead")" "up unhealthy"
done_testing
