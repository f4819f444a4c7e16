# SPDX-License-Identifier: MIT
# Sourced by the tests that run real programs: `bash tests/nginx/seed.t` alone works, after `make`.
#
#     . "$(dirname "$0")/../lib/harness.sh"
#     start_backend one                          sets port_one
#     start_durpinad [FLAG...]                   sets durpinad_pid
#     start_nginx NAME [WORKERS] <<END           sets nginx_NAME (master's pid)
#     http { ... }                               the directives a test needs go in by themselves
#     END
#     is "facts are named" "$(body /path)" "expected"
#     done_testing
#
# Every test has a directory ($T), a pin directory ($PIN), a control socket ($SOCKET), a state file
# ($STATE), a cgroup (cgroup.sh) and ports of its own; all of it, and every process it started, is
# gone when it ends, however it ends.
#
# Output is TAP: what a test says in between goes through note().

set -u
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
BUILD=${DURPINA_BUILD:-$ROOT/build}
NGINX=${NGINX:-/usr/sbin/nginx}
NGINX_MODULES=${NGINX_MODULES:-/usr/lib/nginx/modules}
DEADLINE_S=${DEADLINE_S:-10}
export PATH=$PATH:/usr/sbin:/sbin LC_ALL=C
umask 022

if [ "$(id -u)" -ne 0 ]; then
    echo "Bail out! $0 needs root: it creates BPF maps and starts nginx with a user of its own"
    exit 1
fi
for built in durpinad durpinactl ngx_http_durpina_module.so; do
    if [ ! -e "$BUILD/$built" ]; then
        echo "Bail out! $BUILD/$built is missing: run make first"
        exit 1
    fi
done

# The runner names its run, so that it can tell what a test left behind.
RUN=${DURPINA_TEST_RUN:-durpina-test-$$}
T=$(mktemp -d "/tmp/$RUN.XXXXXX")
chmod 755 "$T"
PIN=/sys/fs/bpf/${T##*/}
PIN=${PIN//./-}
SOCKET=$T/api.sock
STATE=$T/state/state.json
mkdir "$T/state"
# Workers of nginx may not be able to read a checkout in a home directory.
cp -r "$ROOT/lua" "$T/lua"
export DURPINA_SOCKET=$SOCKET
. "$ROOT/tests/lib/cgroup.sh"

# --- processes -----------------------------------------------------------------------------------

declare -A started=() # pid => what it is

# Pids of $1 and all that descend from it.
descendants() {
    local child
    echo "$1"
    for child in $(pgrep -P "$1"); do
        descendants "$child"
    done
}

# Processes that work in a directory of this test: whatever lost its parent is found here.
strays() {
    local cwd
    for cwd in /proc/[0-9]*/cwd; do
        case $(readlink "$cwd" 2>/dev/null) in
        "$T" | "$T/"* | "$PIN" | "$PIN/"*)
            cwd=${cwd#/proc/}
            [ "${cwd%/cwd}" = $$ ] || [ "${cwd%/cwd}" = "$BASHPID" ] || echo "${cwd%/cwd}"
            ;;
        esac
    done
}

is_running() {
    [ -e "/proc/$1" ] && [ "$(sed 's/.*) //; s/ .*//' "/proc/$1/stat" 2>/dev/null)" != Z ]
}

none_running() {
    local pid
    for pid; do
        ! is_running "$pid" || return 1
    done
}

# Ends the processes: TERM, and KILL for what is still there after two seconds.
stop() {
    local pids pid
    pids=$(for pid; do descendants "$pid"; done)
    [ -n "$pids" ] || return 0
    # shellcheck disable=SC2086
    {
        kill -TERM $pids
        DEADLINE_S=2 wait_for none_running $pids || kill -KILL $pids
        DEADLINE_S=2 wait_for none_running $pids
        wait "$@"
    } 2>/dev/null
    for pid; do
        unset "started[$pid]"
    done
}

cleanup() {
    local status=$?
    trap - EXIT
    trap '' INT TERM HUP
    stop "${!started[@]}"
    # shellcheck disable=SC2046
    stop $(strays)
    remove_cgroups
    if [ "${KEEP_LOGS:-}" ]; then
        note "logs are kept in $T"
    else
        rm -rf "$T"
    fi
    rm -rf "$PIN"
    if [ "$status" -eq 0 ] && { [ "$failed" -gt 0 ] || [ "$planned" -eq 0 ]; }; then
        status=1
    fi
    exit "$status"
}
failed=0
planned=0
trap cleanup EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
trap 'exit 129' HUP

# Waits until the command succeeds, at most DEADLINE_S seconds; its output is dropped.
wait_for() {
    local end=$((${EPOCHREALTIME/./} + DEADLINE_S * 1000000))
    until "$@" >/dev/null 2>&1; do
        [ "${EPOCHREALTIME/./}" -lt "$end" ] || return 1
        sleep 0.02
    done
}

# A TCP port of 127.0.0.1 that nobody listens on and that this test has not had before.
declare -A given_ports=()
free_port() {
    local port
    while :; do
        port=$((10000 + RANDOM % 22000))
        [ -z "${given_ports[$port]:-}" ] || continue
        listening "$port" || break
    done
    given_ports[$port]=1
    ret_port=$port
}

listening() {
    ss -Hltn "sport = :$1" | grep -q .
}

# --- TAP -----------------------------------------------------------------------------------------

count=0

note() {
    printf '%s\n' "$@" | sed 's/^/# /'
}

# pass FACT / fail FACT [NOTE...]
pass() {
    count=$((count + 1))
    echo "ok $count - $1"
}

fail() {
    count=$((count + 1))
    failed=$((failed + 1))
    echo "not ok $count - $1"
    shift
    [ $# -eq 0 ] || note "$@"
}

# ok FACT COMMAND...: the command succeeds
ok() {
    local fact=$1 output
    shift
    if output=$("$@" 2>&1); then
        pass "$fact"
    else
        fail "$fact" "failed: $*" "$output"
    fi
}

# not_ok FACT COMMAND...: the command fails
not_ok() {
    local fact=$1 output
    shift
    if output=$("$@" 2>&1); then
        fail "$fact" "succeeded: $*" "$output"
    else
        pass "$fact"
    fi
}

# is FACT GOT WANTED
is() {
    if [ "$2" = "$3" ]; then
        pass "$1"
    else
        fail "$1" "got:    $2" "wanted: $3"
    fi
}

# like FACT GOT REGEX
like() {
    if [[ $2 =~ $3 ]]; then
        pass "$1"
    else
        fail "$1" "got:         $2" "should match: $3"
    fi
}

# between FACT GOT LOW HIGH
between() {
    if [ "${2:-0}" -ge "$3" ] && [ "${2:-0}" -le "$4" ]; then
        pass "$1"
    else
        fail "$1" "got: $2" "wanted: $3 to $4"
    fi
}

# Ends the test at once: what follows would make no sense.
die() {
    fail "$1" "${@:2}"
    show_logs
    exit 1
}

done_testing() {
    planned=$count
    [ "$failed" -eq 0 ] || show_logs
    echo "1..$count"
}

show_logs() {
    local log
    for log in "$T"/*.log; do
        [ -s "$log" ] || continue
        note "--- ${log##*/}"
        note "$(tail -n 20 "$log")"
    done
}

# --- programs ------------------------------------------------------------------------------------

# The controller with $T/durpinad.conf, which a test may write before: never the machine's own file.
# Its maps are small, so that dumps are short; its programs are attached to the test's own cgroup
# (cgroup.sh). It is ready when it answers on its socket. DURPINAD: another build of it.
start_durpinad() {
    [ -e "$T/durpinad.conf" ] ||
        echo "upstreams 64; peers 1k; slots 64k;" >"$T/durpinad.conf"
    need_cgroup
    (cd "$T" && exec "${DURPINAD:-$BUILD/durpinad}" -c "$T/durpinad.conf" --pin "$PIN" \
        --socket "$SOCKET" --state "$STATE" --cgroup "$CGROUP" "$@") >>"$T/durpinad.log" 2>&1 &
    durpinad_pid=$!
    started[$durpinad_pid]=durpinad
    wait_for api_is_ready "$durpinad_pid" || die "durpinad starts"
}

api_is_ready() {
    is_running "$1" && [ "$(api GET /api/9/durpina | jq .pid)" = "$1" ]
}

# Ends a process as a crash does.
kill_hard() {
    kill -KILL "$1"
    wait "$1" 2>/dev/null
    unset "started[$1]"
}

# start_backend NAME [PORT [ADDRESS...]]: an nginx that answers with its name; sets port_NAME and
# backend_NAME (its pid). Listens on 127.0.0.1 unless told otherwise. One process, so that it can be
# killed whole.
#     /                 its name                    /still_alive    200
#     /delay/MS         its name after MS ms        /status/CODE    that status
start_backend() {
    local name=$1 port=${2:-} address listen=
    shift $(($# > 2 ? 2 : $#))
    if [ -z "$port" ]; then
        free_port
        port=$ret_port
    fi
    for address in "${@:-127.0.0.1}"; do
        listen+="listen $address:$port backlog=4096 reuseport; "
    done
    mkdir -p "$T/$name"
    cat >"$T/$name.conf" <<END
load_module $NGINX_MODULES/ndk_http_module.so;
load_module $NGINX_MODULES/ngx_http_lua_module.so;
daemon off;
master_process off;
pid $T/$name.pid;
error_log $T/$name.log error;
events { worker_connections 16384; }
http {
    $(temp_paths "$T/$name")
    access_log off;
    keepalive_requests 1000000;
    default_type text/plain;
    server {
        $listen
        location / { return 200 "$name\\n"; }
        location = /still_alive { return 200 "alive\\n"; }
        location ~ ^/status/(\\d+)\$ {
            content_by_lua_block { ngx.status = ngx.var[1] ngx.say("$name") }
        }
        location ~ ^/delay/(\\d+)\$ {
            content_by_lua_block { ngx.sleep(ngx.var[1] / 1000) ngx.say("$name") }
        }
    }
}
END
    (cd "$T/$name" && exec "$NGINX" -e "$T/$name.log" -p "$T/$name" -c "$T/$name.conf") \
        >>"$T/$name.log" 2>&1 &
    started[$!]=$name
    printf -v "backend_$name" %s $!
    printf -v "port_$name" %s "$port"
    wait_for answers "http://${1:-127.0.0.1}:$port/still_alive" || die "backend $name starts"
}

temp_paths() {
    local kind
    for kind in client_body proxy fastcgi uwsgi scgi; do
        echo "${kind}_temp_path $1/$kind;"
    done
}

answers() {
    curl -s -m 2 -o /dev/null "$1"
}

# make_certificate NAME: $T/cert.pem, signed by itself, and $T/key.pem.
make_certificate() {
    openssl req -x509 -newkey rsa:2048 -nodes -keyout "$T/key.pem" -out "$T/cert.pem" -days 2 \
        -subj "/CN=$1" 2>/dev/null
    chmod 644 "$T/key.pem" # workers may have to read it
}

# nginx_conf NAME [WORKERS] <FILE: writes $T/NAME.conf from a text that begins with "http {".
# NAME is also the instance: pid file, error log ($T/NAME.log).
nginx_conf() {
    local name=$1 workers=${2:-4} text
    text=$(cat)
    mkdir -p "$T/$name"
    {
        cat <<END
load_module $NGINX_MODULES/ndk_http_module.so;
load_module $NGINX_MODULES/ngx_http_lua_module.so;
load_module $BUILD/ngx_http_durpina_module.so;
user www-data;
worker_processes $workers;
pid $T/$name.pid;
error_log $T/$name.log ${NGINX_LOG_LEVEL:-notice};
events { worker_connections 4096; }
${text%%http \{*}http {
    durpina_socket $SOCKET;
    durpina_pin $PIN;
    lua_package_path "$T/lua/?.lua;;";
    access_log off;
    $(temp_paths "$T/$name")
    keepalive_requests 1000000;
${text#*http \{}
END
    } >"$T/$name.conf"
}

# Becomes, or runs, the nginx binary on the configuration NAME.
nginx_exec() {
    local name=$1
    shift
    cd "$T/$name" && exec "$NGINX" -e "$T/$name.log" -p "$T/$name" -c "$T/$name.conf" "$@"
}

nginx_run() {
    (nginx_exec "$@")
}

# start_nginx NAME [WORKERS] <FILE: sets nginx_NAME; ready when its pid file is there and all its
# workers run.
start_nginx() {
    nginx_conf "$1" "${2:-4}"
    restart_nginx "$1" "${2:-4}"
}

# Starts what $T/NAME.conf says.
restart_nginx() {
    local name=$1
    nginx_exec "$name" -g "daemon off;" >>"$T/$name.log" 2>&1 &
    started[$!]=$name
    printf -v "nginx_$name" %s $!
    wait_for has_workers $! "${2:-4}" || die "nginx $name starts"
}

# workers MASTER: pids of its workers that take requests (not those that are shutting down).
workers() {
    local pid title
    for pid in $(pgrep -P "$1"); do
        { IFS= read -r -d "" title <"/proc/$pid/cmdline"; } 2>/dev/null || continue
        [ "$title" != "nginx: worker process" ] || echo "$pid"
    done
}

has_workers() {
    [ "$(workers "$1" | wc -l)" -eq "$2" ] && [ "$(pgrep -P "$1" | wc -l)" -ge "$2" ]
}

# reload_nginx NAME: nginx -s reload, waits until new workers have replaced the old ones.
reload_nginx() {
    local name=$1 master=nginx_$1 before n
    before=$(workers "${!master}")
    n=$(wc -w <<<"$before")
    nginx_run "$name" -s reload || return 1
    wait_for reloaded "${!master}" "$n" "$before"
}

reloaded() {
    local pid
    [ "$(workers "$1" | wc -l)" -eq "$2" ] || return 1
    for pid in $3; do
        ! workers "$1" | grep -qx "$pid" || return 1
    done
}

# --- requests ------------------------------------------------------------------------------------

# api METHOD PATH [BODY [CURL-OPTION...]]: the answer's body; api_code: its status.
api() {
    local method=$1 path=$2 body=${3:-}
    shift $(($# > 3 ? 3 : $#))
    curl -s -m 10 --unix-socket "$SOCKET" -X "$method" ${body:+--data-binary "$body"} "$@" \
        "http://x$path"
}

api_code() {
    local method=$1 path=$2 body=${3:-}
    api "$method" "$path" "$body" -o /dev/null -w '%{http_code}'
}

# body URL, status URL
body() {
    curl -s -m 10 "$1"
}

status() {
    curl -s -m 10 -o /dev/null -w '%{http_code}' "$1"
}

# tally N CONCURRENCY URL: sends N requests, prints how often each body came: "a=500 b=300".
tally() {
    seq "$1" | xargs -P "$2" -n 50 sh -c 'url=$0; for i; do printf "url = \"%s\"\n" "$url"; done |
        curl -s -m 30 -H "Connection: close" -K -' "$3" | sort | uniq -c |
        awk '{printf "%s%s=%d", s, $2, $1; s = " "} END {print ""}'
}

# The servers of upstream $1 with a field: "name=value ..." in order; server_id UPSTREAM NAME.
server_fields() {
    api GET "/api/9/http/upstreams/$1/servers" |
        jq -r --arg f "$2" '[.[] | select(has("parent") | not) | "\(.server)=\(.[$f])"] | join(" ")'
}

server_id() {
    api GET "/api/9/http/upstreams/$1/servers" |
        jq -r --arg n "$2" '[.[] | select(.server == $n and (has("parent") | not)) | .id] | first'
}

# Sum of the requests in flight over the peers of upstream $1.
active() {
    api GET "/api/9/http/upstreams/$1" | jq '[.peers[].active] | add // 0'
}

has_active() { # UPSTREAM N
    [ "$(active "$1")" -eq "$2" ]
}

idle() { # UPSTREAM
    has_active "$1" 0
}

# peer UPSTREAM FIELD [ADDRESS]: a field of the only peer, or of the one with this address.
peer() {
    api GET "/api/9/http/upstreams/$1" |
        jq -r --arg a "${3:-}" ".peers[] | select(\$a == \"\" or .server == \$a) | .$2" | head -n 1
}
