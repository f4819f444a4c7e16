#!/bin/bash
# SPDX-License-Identifier: MIT
# Starting in the wrong order, twice, without rights or on somebody else's pins: refused with the
# remedy, and nothing is touched.
. "$(dirname "$0")/../lib/harness.sh"
. "$ROOT/tests/lib/site.sh"

for name in a b c; do
    start_backend "$name"
done
free_port
port=$ret_port

# --- nginx without a controller ------------------------------------------------------------------

nginx_conf web 2 < <(foo_site "$port")
ok "nginx_t_needs_no_controller" nginx_run web -t
not_ok "nginx_t_creates_no_pin" test -e "$PIN"
nginx_run web -g 'daemon off;' >"$T/web.out" 2>&1
is "first_start_without_a_controller_fails" "$?" 1
is "it_says_so_in_one_line" "$(grep -c '\[emerg\]' "$T/web.log")" 1
like "the_line_says_what_to_run" "$(grep '\[emerg\]' "$T/web.log")" "durpinad"

start_durpinad
restart_nginx web 2
is "it_starts_once_the_controller_runs" "$(tally 10 1 "http://127.0.0.1:$port/")" "a=5 b=3 c=2"
kill_hard "$durpinad_pid"
: >"$T/web.log"
ok "reload_without_a_controller_goes_on" reload_nginx web
is "reloaded_workers_pick_from_the_maps" "$(tally 10 1 "http://127.0.0.1:$port/")" "a=5 b=3 c=2"
is "reload_without_a_controller_is_logged_once" "$(grep -c '\[error\].*durpina' "$T/web.log")" 1
not_ok "no_worker_failed" grep -E '\[(emerg|alert|crit)\]' "$T/web.log"

# --- controller ----------------------------------------------------------------------------------

# durpinad_run [OPTION...]: the answer of a durpinad that is expected to refuse; sets refused.
durpinad_run() {
    refused=$(cd "$T" && timeout 10 "$BUILD/durpinad" -c "$T/durpinad.conf" --pin "$PIN" \
        --socket "$T/other.sock" --state "$T/other/state.json" --cgroup "$CGROUP" "$@" 2>&1)
    status=$?
    is "${FACT}_is_refused" "$((status == 0 || status == 124))" 0
    is "${FACT}_is_one_line" "$(wc -l <<<"$refused")" 1
    not_ok "${FACT}_leaves_no_socket" test -e "$T/other.sock"
    not_ok "${FACT}_leaves_no_state" test -e "$T/other/state.json"
}

start_durpinad
peers() {
    bpftool -j map dump pinned "$PIN/peers" | sha256sum
}
before=$(peers)
FACT=second_controller durpinad_run
like "second_controller_names_the_first" "$refused" "$durpinad_pid"
is "first_controller_answers_still" "$(api GET /api/9/durpina | jq .pid)" "$durpinad_pid"
FACT=same_state_file durpinad_run --pin "$PIN-other" --state "$STATE"
like "same_state_file_names_the_first" "$refused" "$STATE: in use .*$durpinad_pid"
not_ok "same_state_file_leaves_no_pin" test -e "$PIN-other"
kill -TERM "$durpinad_pid"
wait_for none_running "$durpinad_pid"

FACT=state_on_a_device durpinad_run --state /dev/null
like "state_on_a_device_is_named" "$refused" "/dev/null is no file"

# The same pins with other capacities.
echo "upstreams 64; peers 2k; slots 64k;" >"$T/durpinad.conf"
start_durpinad
like "other_capacity_is_a_warning_with_the_remedy" "$(grep 'warn:' "$T/durpinad.log")" \
    "peers 1024.*rm -r $PIN"
is "maps_keep_the_capacity_they_have" "$(peers)" "$before"
echo "upstreams 64; peers 1k; slots 64k;" >"$T/durpinad.conf"
kill -TERM "$durpinad_pid"
wait_for none_running "$durpinad_pid"

# Pins of another layout: one word of the layout hash in meta.
flip() {
    local bytes
    bytes=$(bpftool -j map lookup pinned "$PIN/meta" key 0 0 0 0 |
        jq -r --argjson at 16 '.value | .[$at] = (if .[$at] == "0x55" then "0xaa" else "0x55" end) |
            map(.[2:]) | join(" ")')
    # shellcheck disable=SC2086
    bpftool map update pinned "$PIN/meta" key 0 0 0 0 value hex $bytes
}
ok "layout_is_changed" flip
FACT=other_layout durpinad_run
like "other_layout_names_the_pins" "$refused" "$PIN"
is "other_layout_changes_nothing" "$(peers)" "$before"
rm -rf "$PIN"

# Something that is no map of ours where a pin should be.
mkdir "$PIN"
bpftool map create "$PIN/meta" type hash key 4 value 4 entries 1 name stranger
FACT=foreign_map durpinad_run
like "foreign_map_is_named" "$refused" "$PIN"
ok "foreign_map_stays" test -e "$PIN/meta"
rm -rf "$PIN"

FACT=pin_directory_outside_bpffs durpinad_run --pin "$T/pins"
like "pin_directory_outside_bpffs_says_bpffs" "$refused" "bpf"

refused=$(cd / && setpriv --reuid nobody --regid nogroup --clear-groups -- "$BUILD/durpinad" \
    -c /dev/null --pin "$PIN" --socket "$T/other.sock" --state "$T/other/state.json" 2>&1)
is "no_privilege_is_refused" "$(($? == 0))" 0
like "no_privilege_says_root" "$refused" "root|privilege|permitted|CAP_"
not_ok "no_privilege_creates_nothing" test -e "$PIN"

echo "peers many;" >"$T/durpinad.conf"
FACT=bad_configuration durpinad_run
like "bad_configuration_names_file_and_line" "$refused" "$T/durpinad.conf:1: peers"
not_ok "durpinad_t_refuses_it_too" "$BUILD/durpinad" -t -c "$T/durpinad.conf"
echo "peers 1k;" >"$T/durpinad.conf"
ok "durpinad_t_accepts_a_good_one" "$BUILD/durpinad" -t -c "$T/durpinad.conf"
not_ok "durpinad_t_creates_no_pin" test -e "$PIN"

echo "upstreams 64; peers 1k; slots 64k;" >"$T/durpinad.conf"
rm -f "$STATE"
start_durpinad
is "controller_runs_without_root" "$(awk '/^Uid:/ {print ($2 != 0 && $3 != 0 && $4 != 0)}' \
    "/proc/$durpinad_pid/status")" 1
is "controller_cannot_gain_privileges" "$(awk '/^NoNewPrivs:/ {print $2}' \
    "/proc/$durpinad_pid/status")" 1
done_testing
