#!/bin/bash
# SPDX-License-Identifier: MIT
# `make demo`: the main job in a minute, on real programs. Each claim is checked; one that does not
# hold ends the demo with an error. KEEP=1 leaves everything running and says what to try.
. "$(dirname "$0")/../lib/harness.sh"
. "$ROOT/tests/lib/site.sh"

bold= plain=
[ ! -t 1 ] || bold=$'\e[1m' plain=$'\e[0m'
part() {
    printf '\n%s== %s%s\n' "$bold" "$*" "$plain"
}
tell() {
    printf '   %s\n' "$@"
}
indent() {
    sed 's/^/     /'
}

# claim WHAT GOT WANTED
claim() {
    if [ "$2" != "$3" ]; then
        tell "NOT TRUE: $1" "expected: $3" "was:      $2"
        show_logs
        exit 1
    fi
    tell "ok: $1"
}

# show COMMAND...: runs it as the reader would type it.
show() {
    printf '   $ %s\n' "$*"
    "$@" 2>&1 | indent
}

foo_fields() {
    api GET /api/9/http/upstreams/foo | jq -r "[.peers[] | \"\(.name)=\(.$1)\"] | join(\" \")"
}
state_is() {
    [ "$(api GET /api/9/http/upstreams/foo |
        jq -r --arg n "$1" '.peers[] | select(.name == $n) | .state')" = "$2" ]
}

part "A controller, three backends and an nginx with four workers"
for name in one two three four; do
    start_backend "$name"
done
start_durpinad
free_port
web=$ret_port
free_port
management=$ret_port
cat >"$T/seed.conf" <<END
http {
  lua_shared_dict upstream 1m;
  lua_socket_log_errors off;
  upstream foo {
    server 127.0.0.1:$port_one weight=5 fail_timeout=2s;
    server 127.0.0.1:$port_two weight=3 fail_timeout=2s;
    server 127.0.0.1:$port_three weight=2 fail_timeout=2s;
    balancer_by_lua_block { require "durpina.balancer" "round-robin" }
  }
  upstream bar {
    server 0.0.0.0;                     # placeholder: nginx wants one server; ignored by Durpina
    balancer_by_lua_block { require "durpina.balancer" "ip-hash" }
  }
  init_worker_by_lua_block {
    local Upstream = require "durpina.upstream"
    Upstream.init("upstream")
    local upfoo = Upstream.get("foo")
    upfoo:add_monitor("http", {uri="/still_alive", interval=1})
    local upbar = Upstream.get("bar")
    upbar:add_peer("127.0.0.1:$port_one weight=1")
    upbar:add_peer({host="127.0.0.1", port=$port_two, weight=7, fail_timeout=10})
    upbar:add_monitor("tcp", {interval="1s"})
    upbar:monitor()                     -- start now, not at the first request
  }
  server {
    listen 127.0.0.1:$web backlog=4096;
    add_header X-Worker \$pid always;
    location /foo { proxy_pass http://foo/; }
    location /bar { proxy_pass http://bar/; }
  }
  server {
    listen 127.0.0.1:$management;
    add_header X-Worker \$pid always;
    location ~/set_upstream_peer_weight/foo/(.*)/(\d+) {
      content_by_lua_block {
        local up = require("durpina.upstream").get("foo")
        local peer, weight = up:get_peer(ngx.var[1]), tonumber(ngx.var[2])
        if peer and weight then peer:set_weight(weight) ngx.say("weight set!")
        else ngx.status = 404 ngx.say("peer not found or weight invalid") end
      }
    }
    location ~/get_upstream_peer_weight/foo/(.*) {
      content_by_lua_block {
        ngx.say(require("durpina.upstream").get("foo"):get_peer(ngx.var[1]):get_weight())
      }
    }
  }
}
END
start_nginx web 4 <"$T/seed.conf"
sed -n '/upstream foo/,/^  }/p' "$T/seed.conf" | indent
url=http://127.0.0.1:$web

part "Weights 5:3:2 are exact, over all workers together"
tell "1,000 requests to $url/foo, 16 at a time:"
shares=$(tally 1000 16 "$url/foo")
tell "$shares"
claim "500, 300 and 200, to the last request" "$shares" "one=500 three=200 two=300"
tell "upstream bar (ip-hash) keeps this client on one peer: $(tally 20 4 "$url/bar")"

part "A weight set over the management URL is in force in every worker at once"
peer=127.0.0.1:$port_two
show curl -s "http://127.0.0.1:$management/set_upstream_peer_weight/foo/$peer/13"
each_worker "$nginx_web" "http://127.0.0.1:$management/get_upstream_peer_weight/foo/$peer" \
    >"$T/weights"
sed 's/\(.*\) \(.*\)/worker \1 has weight \2/' "$T/weights" | indent
claim "all 4 workers go by the new weight" "$(cut -d' ' -f2 "$T/weights" | xargs)" "13 13 13 13"
shares=$(tally 1000 16 "$url/foo")
claim "1,000 requests are shared 5:13:2" "$shares" "one=250 three=100 two=650"

part "A backend is killed under load (wrk, 64 connections), and comes back"
start_load "$url/foo" 60 64
kill_hard "$backend_one"
tell "killed the first backend (127.0.0.1:$port_one)"
wait_for state_is "127.0.0.1:$port_one" unavail || wait_for state_is "127.0.0.1:$port_one" unhealthy
tell "states: $(foo_fields state)"
wait_for state_is "127.0.0.1:$port_one" unhealthy
claim "the http monitor has seen it too" "$(state_is "127.0.0.1:$port_one" unhealthy; echo $?)" 0
start_backend one "$port_one"
tell "started it again"
wait_for state_is "127.0.0.1:$port_one" up
tell "states: $(foo_fields state)"
end_load
claim "no failed request among $(load_requests)" "$(load_errors)" none
claim "it has its share again" "$(tally 1000 16 "$url/foo")" "one=250 three=100 two=650"

part "A peer is added and removed at run time"
servers=http://x/api/9/http/upstreams/foo/servers
printf '   $ %s\n' "curl --unix-socket api.sock -d '{\"server\":\"127.0.0.1:$port_four\",\"weight\":5}' $servers"
api POST /api/9/http/upstreams/foo/servers "{\"server\":\"127.0.0.1:$port_four\",\"weight\":5}" |
    jq -c '{id, server, weight, state}' | indent
claim "it takes its 5 of 25 at once" "$(tally 1000 16 "$url/foo")" \
    "four=200 one=200 three=80 two=520"
id=$(server_id foo "127.0.0.1:$port_four")
printf '   $ %s\n' "curl --unix-socket api.sock -X DELETE $servers/$id"
api DELETE "/api/9/http/upstreams/foo/servers/$id" >"$T/removed"
claim "and is gone at once" "$(tally 1000 16 "$url/foo")" "one=250 three=100 two=650"

part "The controller dies; nobody notices"
kill_hard "$durpinad_pid"
claim "picks go on without it" "$(tally 1000 16 "$url/foo")" "one=250 three=100 two=650"
start_durpinad
claim "a new one finds peers and weights as they were" "$(foo_fields weight)" \
    "127.0.0.1:$port_one=5 127.0.0.1:$port_two=13 127.0.0.1:$port_three=2"

part "It is all in BPF maps, by name"
printf '   $ %s\n' "bpftool map dump pinned $PIN/peers"
bpftool -j map dump pinned "$PIN/peers" |
    jq -r '.[] | select(.formatted.value.settings[0].state != "DURPINA_PEER_FREE") |
        .key[0:2] | join(" ")' >"$T/keys"
bpftool map lookup pinned "$PIN/peers" key hex $(sed 's/0x//g' "$T/keys" | sed -n 2p) 00 00 | indent
tell "... and so on, one record a peer."

if [ "${KEEP:-}" ]; then
    cat >"$T/stop" <<END
#!/bin/bash
kill ${!started[*]}
rm -rf $T $PIN
rmdir $CGROUP
END
    chmod +x "$T/stop"
    part "Left running (KEEP=1). Try:"
    tell "curl $url/foo" \
        "curl http://127.0.0.1:$management/set_upstream_peer_weight/foo/$peer/3" \
        "curl --unix-socket $SOCKET http://x/api/9/http/upstreams/foo | jq" \
        "bpftool map dump pinned $PIN/peers | less" \
        "less $T/web.conf; less $T/durpinad.log" \
        "nginx -s reload -e $T/web.log -c $T/web.conf" \
        "$T/stop         # ends it all"
    trap - EXIT
    exit 0
fi
part "Done: cleaned up"
planned=1
