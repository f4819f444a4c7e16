#!/bin/bash
# SPDX-License-Identifier: MIT
# Without a privilege, without its cgroup, or with the programs in the kernel turned off: durpinad
# starts, says once what is missing and what that costs, and nginx works.
. "$(dirname "$0")/../lib/harness.sh"
. "$ROOT/tests/lib/site.sh"

for name in a b c; do
    start_backend "$name"
done
free_port
port=$ret_port
need_cgroup

# without CAPABILITIES: a durpinad that starts as root has none of them, "-name,-name". root's
# CAP_SYS_ADMIN stands for all that bpf(2) asks for, so it goes as well.
without() {
    printf '#!/bin/sh\nexec setpriv --bounding-set "%s,-sys_admin" -- "%s" "$@"\n' \
        "$1" "$BUILD/durpinad" >"$T/lesser-durpinad"
    chmod +x "$T/lesser-durpinad"
    DURPINAD=$T/lesser-durpinad
}

missing() {
    grep -h "not attached" "$T/durpinad.log"
}
# serves FACT: what nginx does with this controller.
serves() {
    start_nginx web 2 < <(foo_site "$port")
    is "$1_nginx_works" "$(tally 100 4 "http://127.0.0.1:$port/")" "a=50 b=30 c=20"
    stop "$nginx_web"
}
ladder() {
    "${DURPINAD:-$BUILD/durpinad}" -t -v -c "$T/durpinad.conf" --pin "$PIN" --cgroup "$CGROUP" "$@" 2>&1
}
next_start() {
    stop "$durpinad_pid"
    rm -rf "$PIN" "$T/state"
    mkdir "$T/state"
    rm -f "$T/durpinad.log" "$T/durpinad.conf"
    DURPINAD=
}

# --- all of it -------------------------------------------------------------------------------------

start_durpinad
is "with_all_it_needs_nothing_is_missing" "$(missing)" ""
hooks=$(attached)
not_ok "and_something_is_attached" [ "$hooks" -eq 0 ]
is "the_api_tells_each_as_attached" \
    "$(api GET /api/9/durpina/kernel | jq '[.. | objects | select(.attached == true)] | length')" \
    "$hooks"
ladder >"$T/ladder"
is "durpinad_t_v_has_a_line_for_each" \
    "$(grep -cE '\b(observe|(connect|getpeername|sendmsg|recvmsg)[46])\b' "$T/ladder")" "$hooks"
serves "with_all"
next_start

# --- privileges ------------------------------------------------------------------------------------

for capability in net_admin perfmon; do
    name=CAP_${capability^^}
    without "-$capability"
    start_durpinad
    is "without_${capability}_it_says_so_once" "$(missing | grep -c "$name")" 1
    like "and_what_that_costs" "$(missing)" "Without: ."
    like "and_the_remedy" "$(missing)" "start durpinad as root"
    is "and_nothing_is_attached" "$(attached)" 0
    like "durpinad_t_v_names_$name" "$(ladder)" "$name"
    serves "without_$capability"
    next_start
done

# Maps are not optional.
without -bpf
echo "upstreams 64; peers 1k; slots 64k;" >"$T/durpinad.conf"
refused=$(cd "$T" && timeout 10 "$DURPINAD" -c "$T/durpinad.conf" --pin "$PIN" --socket "$SOCKET" \
    --state "$STATE" --cgroup "$CGROUP" 2>&1)
is "without_cap_bpf_it_refuses_to_start" "$?" 1
like "and_names_the_privilege" "$refused" "CAP_BPF"
rm -rf "$PIN"
DURPINAD=

# --- cgroups ---------------------------------------------------------------------------------------

own=$CGROUP
for CGROUP in "$T" "$own/none"; do
    [ "$CGROUP" = "$T" ] && what=a_directory_elsewhere || what=no_directory
    start_durpinad
    is "${what}_as_cgroup_is_said_once" "$(missing | wc -l)" 1
    like "with_its_name" "$(missing)" "cgroup $CGROUP"
    like "and_the_remedy" "$(missing)" "--cgroup|another|mount"
    like "durpinad_t_v_says_so_of_$what" "$(ladder)" "cgroup $CGROUP"
    serves "$what"
    next_start
done
CGROUP=$own

# --- off -------------------------------------------------------------------------------------------

start_durpinad
stop "$durpinad_pid"
is "the_programs_outlive_durpinad" "$(attached)" "$hooks"
echo "upstreams 64; peers 1k; slots 64k; connect off;" >"$T/durpinad.conf"
start_durpinad
is "connect_off_leaves_observe" "$(bpftool -j cgroup show "$CGROUP" | jq -r '.[].name')" \
    durpina_observe
is "what_is_off_is_not_missing" "$(missing)" ""
stop "$durpinad_pid"
echo "upstreams 64; peers 1k; slots 64k; observe off; connect off;" >"$T/durpinad.conf"
start_durpinad
is "off_leaves_nothing" "$(attached)" 0
is "nor_a_pin" "$(find "$PIN" -name 'link_*')" ""
is "nor_a_complaint" "$(missing)" ""
serves "off"
done_testing
