#!/bin/bash
# SPDX-License-Identifier: MIT
# durpina_keepalive: connections are kept for each peer, and for no longer than they may be.
. "$(dirname "$0")/../lib/harness.sh"
. "$(dirname "$0")/../lib/keepalive.sh"

start_durpinad
start_counting
free_port
front=$ret_port
url=http://127.0.0.1:$front
lua='balancer_by_lua_block { require "durpina.balancer" "round-robin" }'
native='durpina round-robin;'

start_nginx front 1 <<END
http {
    upstream native { server 127.0.0.1:$one; server 127.0.0.1:$two; $native durpina_keepalive 2; }
    upstream lua { server 127.0.0.1:$one; server 127.0.0.1:$two; $lua durpina_keepalive 2; }
    upstream single { server 127.0.0.1:$one; $native durpina_keepalive 1; }
    upstream few { server 127.0.0.1:$one; $native durpina_keepalive 4 requests=3; }
    upstream short { server 127.0.0.1:$one; $native durpina_keepalive 4 timeout=700ms; }
    upstream young { server 127.0.0.1:$one; $native durpina_keepalive 4 time=300ms; }
    upstream brief { server 127.0.0.1:$brief; $native durpina_keepalive 4; }
    upstream bound { server 127.0.0.1:$one; $native durpina_keepalive 4; }
    upstream failing { server 127.0.0.1:$all max_fails=1; server 127.0.0.1:$two max_fails=0;
                       $native durpina_keepalive 4; }
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    server {
        listen 127.0.0.1:$front;
        location ~ ^/bound/(?<address>[0-9.]+)/ {
            rewrite ^/[^/]*/[^/]*/(.*) /\$1 break;
            proxy_bind \$address;
            proxy_pass http://bound;
        }
        location ^~ /closing/ { proxy_pass http://single/; proxy_set_header Connection close; }
        location ^~ /http10/ { proxy_pass http://single/; proxy_http_version 1.0; }
        location ^~ /failing/ { proxy_pass http://failing/; proxy_next_upstream http_503 error; }
        location /status { stub_status; }
        location ~ ^/(?<name>[a-z]+)/ {
            rewrite ^/[^/]*/(.*) /\$1 break;
            proxy_pass http://\$name;
        }
    }
}
END

# fill UPSTREAM: idle connections to both of its peers, as many as it keeps.
fill() {
    curl -s -Z --parallel-immediate "$url/$1/delay/100?[1-12]" >/dev/null 2>&1
}
patch() {
    api PATCH "/api/9/http/upstreams/$1/servers/$(server_id "$1" "$2")" "$3" >/dev/null
}
# Waits until so many requests to the upstream are in flight: in_flight UPSTREAM N
in_flight() {
    wait_for has_active "$1" "$2"
}
# closed_in_time WHAT: the first peer's idle connections within a second, the other one's stay.
closed_in_time() {
    DEADLINE_S=1
    ok "idle connections to a peer that $1 are closed" wait_for has_connections "$one" 0
    DEADLINE_S=10
    is "those to the other peer stay" "$(connections "$two")" 2
}

for upstream in native lua; do
    note "upstream $upstream"
    first=$(body "$url/$upstream/") second=$(body "$url/$upstream/")
    is "the next request to a peer uses the connection of the last one" \
        "$(body "$url/$upstream/") $(body "$url/$upstream/")" "${first% *} 2 ${second% *} 2"
    fill "$upstream"
    is "as many as configured are kept for each peer" \
        "$(connections "$one") $(connections "$two")" "2 2"
    like "they are not counted as clients that wait" "$(body "$url/status")" "Waiting: 0"

    patch "$upstream" "127.0.0.1:$one" '{"down":true}'
    closed_in_time "goes down"
    patch "$upstream" "127.0.0.1:$one" '{"down":false}'
    fill "$upstream"
    is "it has idle connections again when it is up" "$(connections "$one")" 2
    patch "$upstream" "127.0.0.1:$one" '{"drain":true}'
    closed_in_time "drains"
    patch "$upstream" "127.0.0.1:$one" '{"state":"up"}'
    fill "$upstream"
    patch "$upstream" "127.0.0.1:$one" '{"weight":0}'
    closed_in_time "has weight 0"
    patch "$upstream" "127.0.0.1:$one" '{"weight":1}'
    fill "$upstream"
    patch "$upstream" "127.0.0.1:$one" '{"weight":3}'
    patch "$upstream" "127.0.0.1:$two" '{"weight":3}'
    body "$url/$upstream/delay/500" >/dev/null # longer than it takes to notice the change
    is "another weight closes none" "$(connections "$one") $(connections "$two")" "2 2"

    curl -s "$url/$upstream/delay/1500?[1-2]" -Z --parallel-immediate >"$T/slow" 2>/dev/null &
    in_flight "$upstream" 2
    api DELETE "/api/9/http/upstreams/$upstream/servers/$(server_id "$upstream" "127.0.0.1:$one")" \
        >/dev/null
    wait $!
    is "requests in flight to a removed peer are answered" "$(wc -l <"$T/slow")" 2
    closed_in_time "was removed, in use then or not,"

    api DELETE "/api/9/http/upstreams/$upstream/servers/$(server_id "$upstream" "127.0.0.1:$two")" \
        >/dev/null
    ok "the last peer's are closed too" wait_for has_connections "$two" 0
done

first=$(body "$url/single/")
body "$url/single/delay/500" >/dev/null &
in_flight single 1
second=$(body "$url/single/")
wait $!
is "of two connections that come to be idle" "$(connections "$one")" 1
is "the newer one is kept" "$(body "$url/single/")" "${first% *} 3"
is "and the older one was another" "$([ "${second% *}" != "${first% *}" ] && echo "${second#* }")" 1
body "$url/closing/" >/dev/null
ok "a connection that the backend was asked to close is not kept" wait_for has_connections "$one" 0
body "$url/http10/" >/dev/null
ok "nor is one of HTTP/1.0" wait_for has_connections "$one" 0

numbers() { for _ in 1 2 3 4 5; do body "$url/$1/" | cut -d ' ' -f 2; done | xargs; }
is "requests= ends a connection after so many" "$(numbers few)" "1 2 3 1 2"

wait_for has_connections "$one" 1
body "$url/short/" >/dev/null
is "a connection is kept" "$(connections "$one")" 2
DEADLINE_S=1
ok "timeout= closes it" wait_for has_connections "$one" 1
DEADLINE_S=10

first=$(body "$url/young/")
until_new() { [ "$(body "$url/young/delay/50")" = "${first%% *} 1" ] || ! body "$url/young/" | grep -q "^${first%% *} "; }
ok "time= ends a connection in use" wait_for until_new

first=$(body "$url/brief/")
is "a connection that the backend closes after 200 ms" "$(connections "$brief")" 1
ok "is closed here too" wait_for has_connections "$brief" 0
second=$(body "$url/brief/")
is "and is not used again" "$([ "${second% *}" != "${first% *}" ] && echo "${second#* }")" 1
is "nothing went wrong with it" "$(grep -c 'prematurely closed\|reset by peer' "$T/front.log")" 0

first=$(body "$url/bound/127.0.0.5/from")
is "proxy_bind is kept apart" "$first $(body "$url/bound/127.0.0.6/from") $(body "$url/bound/127.0.0.5/from")" \
    "127.0.0.5 127.0.0.6 127.0.0.5"
is "and one of the same address is used" "$(body "$url/bound/127.0.0.6/" | cut -d ' ' -f 2)" 2
is "but no unbound one" "$(body "$url/bound/from")" 127.0.0.1

fill failing
is "a peer that is about to fail has idle connections" "$(connections "$all")" 4
body "$url/failing/status/503" >/dev/null
ok "they are closed when it becomes temporarily down" wait_for has_connections "$all" 0

done_testing
