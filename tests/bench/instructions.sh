# SPDX-License-Identifier: MIT
# Part "instructions": those that a request through a worker takes in user space, counted by
# callgrind. They hardly vary from run to run, so they tell small differences that CPU time hides.
# Sourced by run.

INSTRUCTIONS_SIZES=${INSTRUCTIONS_SIZES:-3 1000}
INSTRUCTIONS_OF=${INSTRUCTIONS_OF:-^(nginx|nginx-zone|lua-.*|durpina-.*)\$}

part_instructions() {
    local size balancer
    bench_durpinad
    for size in $INSTRUCTIONS_SIZES; do
        for balancer in $(balancers_of proxy "$INSTRUCTIONS_OF"); do
            progress "instructions: $balancer, $size peers"
            count_instructions "$balancer" "$size" >&3
        done
    done 3>"$T/instructions.rows"
    stop_durpinad
    jq -s . "$T/instructions.rows" >"$T/instructions.json"
}

# count_instructions BALANCER SIZE: prints one line of JSON. One process, and callgrind counts only
# when all connections are there.
count_instructions() {
    local balancer=$1 size=$2 backend_port backend pid n
    free_port
    backend_port=$ret_port
    start_answering back "$backend_port"
    backend=$!
    free_port
    proxy_nginx_conf web "$balancer" "$size" "$ret_port" "$backend_port"
    rm -f "$T"/callgrind.*
    (cd "$T/web" && exec valgrind -q --tool=callgrind --instr-atstart=no \
        --vgdb-prefix="$T/vgdb" --callgrind-out-file="$T/callgrind" "$NGINX" -e "$T/web.log" -p "$T/web" -c "$T/web.conf" \
        -g "daemon off; master_process off;") >>"$T/web.log" 2>&1 &
    pid=$!
    started[$pid]=web
    wait_for answers "http://127.0.0.1:$ret_port/" || die "$balancer answers" >&2
    proxy_port[$balancer]=$ret_port
    warm_up "$balancer"
    callgrind_control --vgdb-prefix="$T/vgdb" -i on "$pid" >/dev/null 2>&1 || die "callgrind counts" >&2
    wrk_at "$ret_port" 2 >"$T/wrk"
    callgrind_control --vgdb-prefix="$T/vgdb" -d "$pid" >/dev/null 2>&1 || die "callgrind tells" >&2
    n=$(awk '/ requests in / {print $1}' "$T/wrk")
    awk -v balancer="$balancer" -v peers="$size" -v n="$n" '/^(totals|summary):/ {
        printf "{\"peers\": %d, \"balancer\": \"%s\", \"requests\": %d, \"instructions\": %d}\n",
            peers, balancer, n, $2 / n
        exit
    }' "$T"/callgrind.1
    stop "$pid" "$backend"
}
