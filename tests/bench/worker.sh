# SPDX-License-Identifier: MIT
# Part "worker": what peer.init, peer.get and peer.free cost in a worker of nginx
# (nginx-module/ngx_http_bench_module.c). Sourced by run.

WORKER_SIZES=${WORKER_SIZES:-3 100 1000 10000}
WORKER_TIME=${WORKER_TIME:-30ms}

# worker_cells REGEX: lines of balancer, size and weights.
worker_cells() {
    local balancer size weights
    for balancer in $(balancers_of worker "$1"); do
        for size in $WORKER_SIZES; do
            echo "$balancer $size equal"
        done
        case $balancer in
        durpina-*-round-robin | durpina-native-least-conn)
            for weights in mixed heavy; do
                echo "$balancer 1000 $weights"
            done
            ;;
        esac
    done
}

# worker_nginx NAME WITH_DURPINA REGEX: an nginx with a location for each cell.
worker_nginx() {
    local balancer size weights
    free_port
    worker_cells "$3" >"$T/$1.cells"
    while read -r balancer size weights; do
        upstream "$balancer" "$size" "$weights" 9 bench_key
    done <"$T/$1.cells" >"$T/$1.upstreams"
    bench_nginx_conf "$1" "$2" <<END
include $T/$1.upstreams;
server {
    listen 127.0.0.1:$ret_port;
$(awk -v time="$WORKER_TIME" '{name = $1 "_" $2 "_" $3
    printf "location = /%s { bench_peer %s %s; }\n", name, name, time}' "$T/$1.cells")
}
END
    restart_nginx "$1" 1
    awk -v port="$ret_port" '{printf "url = \"http://127.0.0.1:%s/%s_%s_%s\"\n", port, $1, $2, $3}' \
        "$T/$1.cells" >"$T/$1.urls"
}

part_worker() {
    local round balancer nginx=(own)
    progress "worker: starting"
    bench_durpinad
    worker_nginx own "" '^(nginx|lua)'
    # One nginx for each: a master waits no longer than some seconds for its introduction.
    for balancer in $(balancers_of worker ^durpina); do
        nginx+=("${balancer//-/_}")
        worker_nginx "${balancer//-/_}" yes "^$balancer\$"
    done
    # The tables that hashes look into are laid out soon: one round is thrown away.
    worker_round "${nginx[@]}" >/dev/null
    for ((round = 0; round < ROUNDS; round++)); do
        progress "worker: round $((round + 1)) of $ROUNDS"
        worker_round "${nginx[@]}" | sed "s/^{/{\"round\": $round, /"
    done >"$T/worker.rounds"
    for balancer in "${nginx[@]}"; do
        balancer=nginx_$balancer
        stop "${!balancer}"
    done
    stop_durpinad
    jq -s -f "$BENCH/worker.jq" "$T/worker.rounds" >"$T/worker.json"
}

# worker_round NGINX...: all their cells once. Every location must answer.
worker_round() {
    local name
    for name; do
        curl -s -S -f -K "$T/$name.urls" || die "every cell of $name is measured" >&2
    done
}
