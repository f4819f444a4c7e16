# SPDX-License-Identifier: MIT
# Part "proxy": requests through one worker, connections kept on both sides: requests/s, and what a
# request costs the worker in CPU time. Sourced by run.
#
# The worker has a core of its own; wrk and the backends share the other one. Each balancer has its
# own process and backend, so that none runs through the timers and idle connections of another.

PROXY_SIZES=${PROXY_SIZES:-3 1000 10000}
SECONDS_EACH=${SECONDS_EACH:-1}
CONNECTIONS=${CONNECTIONS:-32}

part_proxy() {
    local size round balancer
    local balancers=($(balancers_of proxy) haproxy)
    bench_durpinad
    for size in $PROXY_SIZES; do
        progress "proxy: starting with $size peers"
        for balancer in "${balancers[@]}"; do
            start_proxy "$balancer" "$size"
        done
        for balancer in "${balancers[@]}"; do
            progress "proxy: $size peers, connections of $balancer"
            warm_up "$balancer"
        done
        for ((round = 0; round < ROUNDS; round++)); do
            progress "proxy: $size peers, round $((round + 1)) of $ROUNDS"
            for balancer in "${balancers[@]}"; do
                measure_proxy "$balancer" "$size" "$round" >&3
            done
        done
        for balancer in "${balancers[@]}"; do
            stop "${proxy_master[$balancer]}" "${proxy_backend[$balancer]}"
        done
    done 3>"$T/proxy.rounds"
    stop_durpinad
    jq -s -f "$BENCH/proxy.jq" "$T/proxy.rounds" >"$T/proxy.json"
}

# start_proxy BALANCER SIZE: sets proxy_port, proxy_master, proxy_worker, proxy_backend.
declare -A proxy_port=() proxy_master=() proxy_worker=() proxy_backend=()
start_proxy() {
    local balancer=$1 size=$2 name=${1//[^a-z]/_} backend_port
    free_port
    backend_port=$ret_port
    start_answering "${name}_back" "$backend_port"
    proxy_backend[$balancer]=$!
    free_port
    proxy_port[$balancer]=$ret_port
    if [ "$balancer" = haproxy ]; then
        haproxy_conf "$size" "$ret_port" "$backend_port" >"$T/haproxy.conf"
        (cd "$T" && exec haproxy -db -f "$T/haproxy.conf") >>"$T/haproxy.log" 2>&1 &
        proxy_master[$balancer]=$!
        started[$!]=haproxy
        proxy_worker[$balancer]=$!
    else
        proxy_nginx_conf "$name" "$balancer" "$size" "$ret_port" "$backend_port"
        restart_nginx "$name" 1
        local master=nginx_$name
        proxy_master[$balancer]=${!master}
        proxy_worker[$balancer]=$(workers "${!master}")
    fi
    taskset -acp 0 "${proxy_worker[$balancer]}" >/dev/null
    wait_for answers "http://127.0.0.1:$ret_port/" || die "$balancer answers"
}

# proxy_nginx_conf NAME BALANCER SIZE PORT BACKEND-PORT: writes $T/NAME.conf.
proxy_nginx_conf() {
    local ours=
    [[ $2 != durpina* ]] || ours=yes
    bench_nginx_conf "$1" "$ours" <<END
server {
    listen 127.0.0.1:$4 backlog=4096;
    location / {
        proxy_pass http://${2}_${3}_equal;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
    }
}
map \$connection_requests \$key { default \$connection-\$connection_requests; }
$(upstream "$2" "$3" equal "$5" key "$CONNECTIONS")
END
}

# start_answering NAME PORT: one nginx process that answers on every loopback address. This network
# namespace has no others.
start_answering() {
    mkdir -p "$T/$1"
    cat >"$T/$1.conf" <<END
daemon off;
master_process off;
pid $T/$1.pid;
error_log $T/$1.log error;
events { worker_connections 18000; }
http {
    $(temp_paths "$T/$1")
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    server {
        listen $2 backlog=4096;
        location / { return 200 "answer\\n"; }
    }
}
END
    (cd "$T/$1" && exec taskset -c "$OTHER_CORE" "$NGINX" -e "$T/$1.log" -p "$T/$1" -c "$T/$1.conf") \
        >>"$T/$1.log" 2>&1 &
    started[$!]=$1
    wait_for answers "http://127.0.0.1:$2/" || die "backend $1 answers"
}

# haproxy_conf SIZE PORT BACKEND-PORT. roundrobin takes 4,095 servers at most; static-rr any number.
# It has twice maxconn descriptors. Without the limits lifted here it would close idle connections
# beyond a quarter of these, and those not used for a few seconds.
haproxy_conf() {
    local balance=roundrobin
    [ "$1" -le 4095 ] || balance=static-rr
    cat <<END
global
    nbthread 1
    maxconn 9500
    tune.pool-high-fd-ratio 100
    tune.pool-low-fd-ratio 100
defaults
    mode http
    timeout connect 10s
    timeout client 1h
    timeout server 1h
    http-reuse always
frontend in
    bind 127.0.0.1:$2 backlog 4096
    default_backend peers
backend peers
    balance $balance
    default-server pool-max-conn -1 pool-purge-delay 1h
END
    addresses "$1" | awk -v port="$3" '{printf "    server s%d %s:%s\n", NR, $1, port}'
}

# Runs until hardly any new connection to the backend is made.
warm_up() {
    local before=-1 now=0 run
    for ((run = 0; run < 20 && now > before + before / 100; run++)); do
        before=$now
        wrk_at "${proxy_port[$1]}" 1 >"$T/wrk" || die "$1 serves" >&2
        now=$(awk '$1 == "TCP:" {print $3}' /proc/net/sockstat)
    done
}

wrk_at() {
    taskset -c "$OTHER_CORE" wrk -t 1 -c "$CONNECTIONS" -d "${2}s" "http://127.0.0.1:$1/"
}

# CPU time of a thread in nanoseconds.
cpu_ns() {
    cut -d' ' -f1 "/proc/$1/schedstat"
}

# measure_proxy BALANCER SIZE ROUND: prints one line of JSON.
measure_proxy() {
    local pid=${proxy_worker[$1]} before after
    before=$(cpu_ns "$pid")
    wrk_at "${proxy_port[$1]}" "$SECONDS_EACH" >"$T/wrk" || die "$1 serves $2 peers" >&2
    after=$(cpu_ns "$pid")
    ! grep -qE "Non-2xx|Socket errors" "$T/wrk" ||
        die "requests through $1 with $2 peers succeed" "$(cat "$T/wrk")" >&2
    awk -v balancer="$1" -v peers="$2" -v round="$3" -v cpu=$((after - before)) '
        / requests in / {n = $1}
        /^Requests\/sec/ {rps = $2}
        END {
            printf "{\"peers\": %d, \"balancer\": \"%s\", \"round\": %d, \"rps\": %s, " \
                "\"cpu_us\": %.3f}\n", peers, balancer, round, rps, cpu / n / 1000
        }' "$T/wrk"
}
