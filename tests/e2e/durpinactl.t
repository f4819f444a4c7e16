#!/bin/bash
# SPDX-License-Identifier: MIT
# durpinactl: what it shows and changes, and how it fails.
. "$(dirname "$0")/../lib/harness.sh"

# ctl ARG...: sets out, err, code
ctl() {
    out=$("$BUILD/durpinactl" "$@" 2>"$T/err")
    code=$?
    err=$(cat "$T/err")
}

ctl list
is "without_a_controller_it_exits_3" "$code" 3
like "and_says_what_to_start" "$err" "$SOCKET.*durpinad"

start_durpinad
ctl create foo
is "an_upstream_is_created" "$code $out" "0 created"
ctl add foo '127.0.0.1:8080 weight=5 max_conns=7 fail_timeout=1m30s'
is "a_server_line_is_added" "$out" "127.0.0.1:8080: id 0, weight 5, up"
is "with_all_its_parameters" "$(api GET /api/9/http/upstreams/foo/servers/0 |
    jq -c '[.weight, .max_conns, .max_fails, .fail_timeout, .backup]')" '[5,7,1,"90s",false]'
ctl add foo '127.0.0.1 backup down'
is "a_port_is_80_unless_given" "$out" "127.0.0.1:80: id 1, weight 1, down"
ctl weight foo 127.0.0.1:8080 7
is "a_weight_is_changed" "$out" "127.0.0.1:8080: id 0, weight 7, up"
ctl weight foo 0 8
is "a_server_may_be_named_by_id" "$out" "127.0.0.1:8080: id 0, weight 8, up"
ctl up foo 127.0.0.1
is "and_without_its_port" "$out" "127.0.0.1:80: id 1, weight 1, up"
ctl drain foo 127.0.0.1:8080
is "a_server_is_drained" "$out" "127.0.0.1:8080: id 0, weight 8, draining"
ctl down foo 127.0.0.1:8080
is "a_server_is_put_down" "$out" "127.0.0.1:8080: id 0, weight 8, down"
ctl show foo
like "the_list_shows_both_weights" "$out" "127.0.0.1:8080 +127.0.0.1:8080 +primary +down +8/5 "
ctl reset foo 127.0.0.1:8080
is "reset_undoes_it_all" "$out" "127.0.0.1:8080: id 0, weight 5, up"
ctl list
like "upstreams_are_listed" "$out" "UPSTREAM +PEERS +UP.*foo +2 +2 +0"
ctl monitors add foo tcp id=m port=1 interval=1h
is "a_monitor_is_added" "$code $out" "0 added"
ctl monitors list foo
like "monitors_are_listed" "$out" 'm +tcp +\{"port":"1","interval":"1h"\}'
ctl monitors remove foo m
is "a_monitor_is_removed" "$code $out" "0 removed"
ctl --json status
is "json_is_what_the_api_says" "$(jq .pid <<<"$out")" "$durpinad_pid"
ctl status
like "status_names_the_controller" "$out" "pid $durpinad_pid.*upstreams +1 of [0-9]+"
ctl raw POST /api/9/durpina/upstreams '{"name":"bar"}'
is "raw_sends_what_it_is_given" "$code $(jq -r .name <<<"$out")" "0 bar"
ctl remove foo 127.0.0.1:80
is "a_server_is_removed" "$code $out" "0 removed"
ctl add foo 127.0.0.1:81 weight=3
is "a_server_line_needs_no_quotes" "$(server_fields foo weight)" "127.0.0.1:8080=5 127.0.0.1:81=3"
"$BUILD/durpinactl" list 2>"$T/err" >/dev/full
is "an_answer_that_cannot_be_written_is_an_error" "$? $(cat "$T/err")" \
    "1 durpinactl: the answer cannot be written: No space left on device"
ctl delete bar
is "an_upstream_is_deleted" "$code $(api GET /api/9/durpina/upstreams)" '0 ["foo"]'

# FACT CODE PATTERN ARG...: it fails like that, and prints nothing else
fails() {
    local fact=$1 wanted=$2 pattern=$3
    shift 3
    ctl "$@"
    is "$fact" "$code $out" "$wanted "
    like "${fact}_says_why" "$err" "$pattern"
}
fails a_weight_that_is_none 1 'weight "many".*UpstreamBadWeight' weight foo 0 many
fails an_unknown_server 1 'no server "nobody"' up foo nobody
fails an_unknown_upstream 1 'no upstream "fob".*UpstreamNotFound' show fob
fails a_bad_server_line 2 'wieght=5' add foo 'a:80 wieght=5'
fails an_unknown_command 2 'frobnicate' frobnicate
fails too_few_arguments 2 'Usage: durpinactl weight UPSTREAM SERVER N' weight foo
fails too_many_arguments 2 'Usage: durpinactl show UPSTREAM' show foo bar
fails an_empty_name 2 'Usage: durpinactl show UPSTREAM' show ''
fails no_command 2 'no command'
fails an_unknown_option 2 '\-\-frob' --frob list
fails a_path_that_is_none 2 'api/9' raw GET api/9
fails what_is_no_json 1 'no JSON' raw GET /metrics
fails an_option_without_value 2 'nothing' monitors add foo tcp nothing
fails another_socket 3 "$T/none" --socket "$T/none" list
out=$(setpriv --reuid 4711 --regid 4711 --clear-groups "$BUILD/durpinactl" up foo 0 2>&1)
is "a_stranger_is_refused" "$?" 1
like "and_told_what_to_do" "$out" "allow_user"
done_testing
