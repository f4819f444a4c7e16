# SPDX-License-Identifier: MIT
# Part "checks": what it costs to check many peers every second, and how soon a dead one is out.
# Sourced by run.

CHECKS_PEERS=${CHECKS_PEERS:-5000}
CHECKS_SECONDS=${CHECKS_SECONDS:-20}
CHECKS_ROUNDS=${CHECKS_ROUNDS:-5}
CHECKS_TIMEOUT_MS=500
CHECKS_WINDOW_MS=10

# An nginx that answers on every loopback address and notes when.
checks_backend() {
    bench_nginx_conf checks "" <<END
log_format when \$msec;
server {
    listen 0.0.0.0:80 backlog=16384;
    keepalive_timeout 0;
    access_log $T/checks.access when buffer=1m flush=1s;
    location / { return 200 "ok\n"; }
}
END
    restart_nginx checks 1
}

prober() {
    api GET /api/9/durpina | jq ".prober.$1"
}

has_checked() {
    [ "$(prober checks)" -ge "$1" ]
}

# ticks PID: processor time it has taken, in clock ticks.
ticks() {
    sed 's/.*) //' "/proc/$1/stat" | awk '{print $12 + $13}'
}

resident_kb() {
    awk '$1 == "VmRSS:" {print $2}' "/proc/$1/status"
}

# windows FROM TO: lines of the log between these seconds, the most that any window has over the mean.
windows() {
    awk -v from="$1" -v to="$2" -v window="$CHECKS_WINDOW_MS" '
        $1 >= from && $1 < to {n[int(($1 - from) * 1000 / window)]++; total++}
        END {
            for (i in n) if (n[i] > most) most = n[i]
            printf "%.2f\n", most / (total * window / 1000 / (to - from))
        }' "$T/checks.access"
}

mortal_state_is() {
    api GET /api/9/http/upstreams/mortal | jq -e --arg state "$1" '.peers[0].state == $state'
}

# A peer that answers no more, and answers again: each time at another moment of its interval. Each
# look at the state takes some milliseconds, which count against us.
checks_mortal() {
    local round signal began
    start_backend mortal 81 127.200.0.1
    api POST /api/9/durpina/upstreams '{"name": "mortal"}' >/dev/null
    api POST /api/9/http/upstreams/mortal/servers '{"server": "127.200.0.1:81"}' >/dev/null
    checks_monitor mortal
    for ((round = 0; round < CHECKS_ROUNDS; round++)); do
        for signal in STOP CONT; do
            sleep "1.$((RANDOM % 900 + 100))"
            began=${EPOCHREALTIME/./}
            kill "-$signal" "$backend_mortal"
            wait_for mortal_state_is "$([ $signal = STOP ] && echo unhealthy || echo up)" ||
                die "the mortal peer is seen after $signal"
            echo "$signal $(((${EPOCHREALTIME/./} - began) / 1000))"
        done
    done | awk '$2 > most[$1] {most[$1] = $2} END {print most["STOP"], most["CONT"]}'
}

checks_monitor() {
    api POST "/api/9/durpina/upstreams/$1/monitors" \
        '{"name": "http", "options": {"interval": 1, "timeout": '"$CHECKS_TIMEOUT_MS"'}}' |
        jq -e .id >/dev/null || die "monitors are added to $1"
}

part_checks() {
    local resident before after began ended first last late undecided mortal
    progress "checks: $CHECKS_PEERS peers"
    bench_durpinad 8k 1m
    resident=$(resident_kb "$durpinad_pid")
    checks_backend
    introduce checks equal "$CHECKS_PEERS"
    checks_monitor checks
    DEADLINE_S=30 wait_for has_checked $((3 * CHECKS_PEERS)) || die "all peers are checked"

    progress "checks: $CHECKS_SECONDS s"
    first=$(prober checks) late=$(prober late) undecided=$(prober undecided)
    before=$(ticks "$durpinad_pid") began=$EPOCHREALTIME
    sleep "$CHECKS_SECONDS"
    after=$(ticks "$durpinad_pid") ended=$EPOCHREALTIME
    last=$(prober checks)
    late=$(($(prober late) - late)) undecided=$(($(prober undecided) - undecided))
    resident=$(($(resident_kb "$durpinad_pid") - resident))
    is_logged() { tail -n 1 "$T/checks.access" | awk -v end="$ended" '{exit $1 < end}'; }
    wait_for is_logged || die "the log of the backends is written"

    progress "checks: a peer that dies and comes back, $CHECKS_ROUNDS times"
    mortal=$(checks_mortal)
    jq -n --argjson peers "$CHECKS_PEERS" --argjson checks $((last - first)) \
        --argjson seconds "$(awk "BEGIN {print $ended - $began}")" \
        --argjson cpu "$(awk "BEGIN {print ($after - $before) / $(getconf CLK_TCK)}")" \
        --argjson late "$late" --argjson undecided "$undecided" --argjson kb "$resident" \
        --argjson windows "$(windows "$began" "$ended")" \
        --argjson out "${mortal% *}" --argjson back "${mortal#* }" '[{
            $peers, checks_per_s: ($checks / $seconds | round), cores: ($cpu / $seconds),
            us_per_check: ($cpu * 1e6 / $checks), late_percent: ($late * 100 / $checks), $undecided,
            most_to_mean: $windows, resident_mb: ($kb / 1024), out_ms: $out, back_ms: $back}]' \
        >"$T/checks.json"
    stop "$nginx_checks"
    stop_durpinad
}
