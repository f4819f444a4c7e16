# SPDX-License-Identifier: MIT
# The parts that need durpinad and no nginx: pick, publish, storm, memory. Sourced by run.

PUBLISH_SECONDS=${PUBLISH_SECONDS:-10}
STORM_SECONDS=${STORM_SECONDS:-60}
STORM_RATE=${STORM_RATE:-10000}
STORM_PICKS=${STORM_PICKS:-1000000000}
LOAD_RATE=1000

# bench_durpinad [PEERS [SLOTS [SETTINGS]]]: the controller with room for that.
bench_durpinad() {
    cat >"$T/durpinad.conf" <<END
upstreams 256; peers ${1:-384k}; slots ${2:-128m};
max_body_size 256m; request_timeout 60s;
${3:-}
END
    start_durpinad
}

stop_durpinad() {
    stop "$durpinad_pid"
    rm -rf "$PIN" "$T/state"
    mkdir "$T/state"
}

# introduce NAME WEIGHTS PEERS [ADDRESSES]: an upstream as an nginx would introduce it. Each server is
# a name with so many addresses, or without ADDRESSES an address itself. By the word of its algorithm
# no hash table is laid out before picks ask for one.
introduce() {
    paste -d' ' <(addresses "$3") <(weights "$2" "$3") |
        awk -v name="$1" -v per_name="${4:-0}" '
        function server(text, addresses, weight) {
            printf "%s{\"server\": \"%s\", \"addresses\": [%s], \"weight\": %d, \"max_conns\": 0, " \
                "\"max_fails\": 1, \"fail_timeout_ms\": 10000, \"slow_start_ms\": 0, " \
                "\"down\": false, \"backup\": false}", comma, text, addresses, weight
            comma = ",\n"
        }
        BEGIN {
            printf "{\"instance\": \"/bench/%s\", \"pid\": 0, \"worker_uid\": 33, \"upstreams\": [", name
            printf "{\"name\": \"%s\", \"durpina\": true, \"algorithm\": \"round-robin\", \"servers\": [\n", name
        }
        per_name == 0 {server($1 ":80", "\"" $1 ":80\"", $2)}
        per_name > 0 {list = list (list ? ", " : "") "\"" $1 ":80\""}
        per_name > 0 && NR % per_name == 0 {server("host" NR ".test:80", list, $2); list = ""}
        END {print "]}]}"}' >"$T/introduction"
    api POST /api/9/durpina/nginx "@$T/introduction" -m 60 | jq -e .token >/dev/null ||
        die "durpinad takes $1" "$(api POST /api/9/durpina/nginx "@$T/introduction" -m 60)"
}

part_pick() {
    local size pattern names=()
    progress "pick: laying out"
    bench_durpinad
    for size in 3 100 1000 10000 100000; do
        for pattern in equal mixed heavy; do
            if [ "$size" -lt 100000 ] || [ "$pattern" = equal ]; then
                names+=("${pattern}_$size")
                introduce "${pattern}_$size" "$pattern" "$size"
            fi
        done
    done
    progress "pick: $ROUNDS rounds"
    "$BUILD/bench/pick" "$PIN" "${names[@]}" >"$T/pick.json" || die "picks are measured"
    stop_durpinad
}

part_publish() {
    local size
    bench_durpinad
    for size in 1000 100000; do
        progress "publish: $size peers"
        introduce "publish_$size" mixed "$size"
        taskset -c "$OTHER_CORE" "$BUILD/bench/publish" latency "$PIN" "$SOCKET" "publish_$size" "$PUBLISH_SECONDS" \
            >"$T/publish.$size" || die "publications are measured"
    done
    progress "publish: $LOAD_RATE changes a second"
    "$BUILD/bench/publish" load "$PIN" "$SOCKET" publish_1000 "$PUBLISH_SECONDS" "$LOAD_RATE" \
        "$durpinad_pid" >"$T/publish.load" || die "the load of publications is measured"
    stop_durpinad
    jq -s . "$T"/publish.{1000,100000} >"$T/publish.json"
    jq -s . "$T/publish.load" >"$T/load.json"
}

part_storm() {
    progress "storm: $STORM_RATE changes a second for $STORM_SECONDS s and $STORM_PICKS picks"
    bench_durpinad 1k 4m
    introduce storm equal 100 5
    "$BUILD/bench/storm" "$PIN" "$SOCKET" storm "$STORM_SECONDS" "$STORM_RATE" "$STORM_PICKS" \
        >"$T/storm.raw" || die "the storm is weathered"
    stop_durpinad
    jq -s . "$T/storm.raw" >"$T/storm.json"
}

# What an upstream of 10,000 peers takes of each map, by the sizes of elements that bpftool shows.
# Schedule and members come with every upstream; a hash table comes when picks have asked for one.
part_memory() {
    local pattern map
    progress "memory: laying out"
    for pattern in equal mixed; do
        bench_durpinad 16k 8m
        introduce "memory_$pattern" "$pattern" 10000
        for map in peers counters endpoints; do
            bpftool -j map show pinned "$PIN/$map" | jq '{name: "'"$map"'", bytes: .bytes_value}'
        done | jq -s --arg weights "$pattern" --argjson used "$(api GET /api/9/durpina | jq .used)" \
            '(.[:2] | map(.bytes) | add) as $records
             | {weights: $weights, peers: $used.peers, slots: $used.slots, $records,
                bytes_per_peer: ($records + $used.slots * 4 / $used.peers | . * 10 | round / 10),
                endpoint: .[2].bytes}'
        stop_durpinad
    done | jq -s . >"$T/memory.json"
}
