# SPDX-License-Identifier: MIT
# Part "kernel": what the programs in the kernel cost a process that connects, and how soon a failed
# connect() is known to all. Sourced by run.

KERNEL_CONNECTS=${KERNEL_CONNECTS:-20000}
KERNEL_ROUND_MS=${KERNEL_ROUND_MS:-200}
KERNEL_FAILURES=${KERNEL_FAILURES:-1000}
KERNEL_PORT=9000

# kernel_upstream NAME SERVER...
kernel_upstream() {
    local name=$1 server
    shift
    api POST /api/9/durpina/upstreams '{"name": "'"$name"'"}' >/dev/null
    for server; do
        api POST "/api/9/http/upstreams/$name/servers" \
            '{"server": "'"$server"'", "max_fails": 1}' | jq -e .id >/dev/null ||
            die "$name takes $server"
    done
}

kernel_bench() {
    taskset -c 0 "$BUILD/bench/kernel" "$@"
}

part_kernel() {
    local address rows peers=() peers6=()
    progress "kernel: laying out"
    need_cgroup
    make_cgroup other
    # A connection leaves nothing behind that the next one would have to step over.
    sysctl -qw net.ipv4.tcp_max_tw_buckets=0 net.ipv4.ip_local_port_range="1024 65535"
    for address in 1 2 3 9 10; do
        ip addr add "fd00::$address/128" dev lo nodad
    done
    for address in 1 2 3; do
        peers+=("127.1.0.$address:$KERNEL_PORT") peers6+=("[fd00::$address]:$KERNEL_PORT")
    done
    bench_durpinad 1k 1m "vip 127.10.0.1:$KERNEL_PORT upstream=four;
        vip 127.10.0.1:$KERNEL_PORT/udp upstream=four;
        vip [fd00::10]:$KERNEL_PORT upstream=six;
        vip [fd00::10]:$KERNEL_PORT/udp upstream=six;"
    kernel_upstream four "${peers[@]}"
    kernel_upstream six "${peers6[@]}"
    # Of two, since the only peer of an upstream is never taken out. Nobody listens there.
    kernel_upstream refusing 127.2.0.1:1 127.2.0.2:1
    taskset -c "$OTHER_CORE" "$BUILD/bench/kernel" serve "$KERNEL_PORT" &
    started[$!]=serve
    wait_for listening "$KERNEL_PORT" || die "the other side of connects serves"

    kernel_bench programs "$PIN" >"$T/programs.rows" || die "the programs are attached"

    progress "kernel: $KERNEL_CONNECTS connects each"
    kernel_bench cost "$PIN" "$CGROUP" "$KERNEL_CONNECTS" \
        other="127.9.0.1:$KERNEL_PORT" peer="127.1.0.1:$KERNEL_PORT" \
        vip="127.10.0.1:$KERNEL_PORT" udp-other="127.9.0.1:$KERNEL_PORT/udp" \
        udp-vip="127.10.0.1:$KERNEL_PORT/udp" other6="[fd00::9]:$KERNEL_PORT" \
        peer6="[fd00::1]:$KERNEL_PORT" vip6="[fd00::10]:$KERNEL_PORT" \
        udp-other6="[fd00::9]:$KERNEL_PORT/udp" udp-vip6="[fd00::10]:$KERNEL_PORT/udp" \
        >"$T/cost.rows" || die "run times are measured"

    progress "kernel: $ROUNDS rounds"
    kernel_bench rate "$CGROUP" "$cgroup_other" "$ROUNDS" "$KERNEL_ROUND_MS" \
        other="127.9.0.1:$KERNEL_PORT" peer="127.1.0.1:$KERNEL_PORT" \
        vip="127.10.0.1:$KERNEL_PORT" vip6="[fd00::10]:$KERNEL_PORT" \
        >"$T/rate.rows" || die "the rate of connects is measured"

    progress "kernel: $KERNEL_FAILURES failures"
    # The one that looks spins; it is to look, not to stand in the way.
    taskset -p -c "$OTHER_CORE" "$durpinad_pid" >/dev/null
    kernel_bench failure "$PIN" "$CGROUP" refusing "$KERNEL_FAILURES" \
        >"$T/failure.rows" || die "failures are measured"
    stop_durpinad
    for rows in programs cost rate failure; do
        jq -s . "$T/$rows.rows" >"$T/$rows.json"
    done
}
