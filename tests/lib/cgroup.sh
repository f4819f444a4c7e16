# SPDX-License-Identifier: MIT
# Sourced by harness.sh: the test's own cgroup ($CGROUP, a child of the cgroup2 root) and network
# namespace. start_durpinad attaches its programs to $CGROUP, never to the root of the machine, so
# they see those processes only that a test puts there:
#
#     own_network "$@"         all of the test in a network namespace of its own; comes first
#     join_cgroup              the test itself, and so all that it starts from now on
#     leave_cgroup             back to where it was
#     in_cgroup COMMAND...     this command, or function, only
#     make_cgroup NAME         one more child; sets cgroup_NAME
#     attached                 how many programs $CGROUP has
#
# What still runs in these cgroups when the test ends is stopped, and they are removed.

cgroup2_root=$(awk '$4 == "/" && / - cgroup2 / {print $5; exit}' /proc/self/mountinfo)
cgroup_home=$cgroup2_root$(sed -n 's/^0:://p' /proc/self/cgroup)

# Ports, addresses and firewall rules are free there. Runs the test anew, once: `own_network "$@"`.
own_network() {
    if [ -z "${DURPINA_TEST_NETWORK:-}" ]; then
        trap - EXIT # the other instance has its own directory
        rm -rf "$T"
        DURPINA_TEST_NETWORK=own exec unshare --net bash "$0" "$@"
    fi
    ip link set lo up || die "the network namespace has a loopback device"
}

make_cgroup() {
    local cgroup=$cgroup2_root/${PIN##*/}-$1

    mkdir -p "$cgroup" || die "the cgroup $1 is made: is cgroup2 mounted, and writable?"
    printf -v "cgroup_$1" %s "$cgroup"
}

# Makes the test's own, and sets CGROUP.
need_cgroup() {
    [ -z "${CGROUP:-}" ] || return 0
    make_cgroup own
    CGROUP=$cgroup_own
}

join_cgroup() {
    need_cgroup
    echo $$ >"$CGROUP/cgroup.procs"
}

leave_cgroup() {
    echo $$ >"$cgroup_home/cgroup.procs"
}

in_cgroup() {
    need_cgroup
    run_in_cgroup "$CGROUP" "$@"
}

# run_in_cgroup CGROUP COMMAND...
run_in_cgroup() (
    echo "$BASHPID" >"$1/cgroup.procs" || exit
    shift
    [ "$(type -t "$1")" = function ] || set -- exec "$@"
    "$@"
)

attached() {
    bpftool cgroup show "$CGROUP" | grep -c durpina_
}

remove_cgroups() {
    local cgroup
    for cgroup in "$cgroup2_root/${PIN##*/}"-*/; do # by name: a subshell may have made them
        [ -d "$cgroup" ] || continue
        leave_cgroup
        # shellcheck disable=SC2046
        stop $(cat "$cgroup/cgroup.procs")
        # The last process of it may have ended a moment ago.
        DEADLINE_S=2 wait_for remove_cgroup "$cgroup"
    done
}

remove_cgroup() {
    [ ! -d "$1" ] || rmdir "$1"
}
