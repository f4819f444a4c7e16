#!/bin/bash
# SPDX-License-Identifier: MIT
# durpina_keepalive at its limits: many peers, few connections, reloads; and what it refuses.
. "$(dirname "$0")/../lib/harness.sh"
. "$(dirname "$0")/../lib/site.sh"
. "$(dirname "$0")/../lib/keepalive.sh"

echo "upstreams 64; peers 4k; slots 512k;" >"$T/durpinad.conf"
start_durpinad
start_counting
free_port
front=$ret_port
free_port
small=$ret_port
url=http://127.0.0.1:$front
lua='balancer_by_lua_block { require "durpina.balancer" "round-robin" }'
native='durpina round-robin;'

servers=$(for i in {0..999}; do echo "server 127.1.$((i / 250)).$((i % 250 + 1)):$all;"; done)
site() {
    cat <<END
http {
    upstream native { $servers $native durpina_keepalive 1; }
    upstream lua { $servers $lua durpina_keepalive 1; }
    upstream one { server 127.0.0.1:$one; server 127.0.0.1:$two; $native durpina_keepalive 64; }
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    server {
        listen 127.0.0.1:$1 backlog=4096;
        location /native/ { proxy_pass http://native/; }
        location /lua/ { proxy_pass http://lua/; }
        location /one/ { proxy_pass http://one/; }
    }
}
END
}

# --- what is refused -----------------------------------------------------------------------------

# refused FACT DIRECTIVES WORDS: nginx -t fails with the words, and names the line.
refused() {
    nginx_conf bad 1 <<END
http {
    upstream foo {
        server 127.0.0.1:$one;
        $2
    }
}
END
    like "$1" "$(nginx_run bad -t 2>&1 | grep emerg)" "$3.* in $T/bad.conf:[0-9]+"
}

for value in 0 -1 many 1.5 ''; do
    refused "\"$value\" is no number of connections" "$native durpina_keepalive '$value';" \
        "takes the number of idle connections for each peer and worker"
done
refused "a number is needed" "$native durpina_keepalive;" "invalid number of arguments"
refused "an unknown parameter" "$native durpina_keepalive 4 size=3;" \
    'invalid parameter "size=3" of "durpina_keepalive"'
for parameter in timeout=0 timeout= timeout=soon time=0s time=x requests=0 requests=x requests=-1; do
    refused "$parameter" "$native durpina_keepalive 4 $parameter;" \
        "invalid value in parameter \"$parameter\""
done
refused "a parameter twice" "$native durpina_keepalive 4 time=1h time=2h;" 'duplicate parameter "time=2h"'
refused "the directive twice" "$native durpina_keepalive 4; durpina_keepalive 4;" "is duplicate"
refused "the directive before the method" "durpina_keepalive 4; $native" "must stand behind"
refused "the directive without a method" "durpina_keepalive 4;" "must stand behind"
refused "another method behind it" "$native durpina_keepalive 4; least_conn;" "needs \"durpina\" or"
refused "another method before it" "least_conn; durpina_keepalive 4;" "needs \"durpina\" or"
for method in "$native" "$lua"; do
    refused "\"keepalive\" beside it" "$method keepalive 4; durpina_keepalive 4;" \
        'has no effect beside "keepalive"'
    refused "also behind it" "$method durpina_keepalive 4; keepalive 4;" \
        'has no effect beside "keepalive"'
done
nginx_conf bad 1 <<END
http { upstream foo { server 127.0.0.1:$one; $native
                      durpina_keepalive 1 timeout=1ms requests=1 time=1ms; } }
END
ok "the least values are taken" nginx_run bad -t

# --- many peers ----------------------------------------------------------------------------------

start_nginx front 1 < <(site "$front")
for upstream in native lua; do
    is "$upstream: each of 1,000 peers' connections is used again" \
        "$(curl -s "$url/$upstream/?[1-3000]" | awk '{n[$2]++} END {print n[1], n[2], n[3]}')" \
        "1000 1000 1000"
done
is "all of them are idle" "$(connections "$all")" 2000

# --- few connections -----------------------------------------------------------------------------

nginx_conf small 1 < <(site "$small")
sed -i 's/worker_connections .*;/worker_connections 256;/' "$T/small.conf"
restart_nginx small 1
statuses() { curl -s -o /dev/null -w '%{http_code}\n' "$1" | sort | uniq -c | xargs; }
is "idle connections give way when worker_connections run short" \
    "$(statuses "http://127.0.0.1:$small/native/?[1-2000]")" "2000 200"
start_load "http://127.0.0.1:$small/lua/" 20 50
served=$(requests_served)
wait_for served_more_than $((served + 5000))
end_load
is "also with requests at the same time" "$(load_errors)" none
is "nothing ran out" "$(grep -c 'connections are not enough$' "$T/small.log")" 0
ok "some were closed for it" grep -q "are not enough, reusing connections" "$T/small.log"
stop "$nginx_small"

# --- reloads -------------------------------------------------------------------------------------

curl -s -Z --parallel-immediate "$url/one/delay/100?[1-32]" >/dev/null 2>&1
before=$(workers "$nginx_front")
ok "a reload" reload_nginx front
DEADLINE_S=2
ok "is not held back by idle connections" wait_for none_running $before
DEADLINE_S=10
is "which are closed" "$(connections "$all") $(connections "$one")" "0 0"
start_load "$url/one/" 60 32 -H "Connection: close"
for _ in 1 2 3 4; do
    served=$(requests_served)
    wait_for served_more_than $((served + 1000))
    reload_nginx front || fail "reload"
done
served=$(requests_served)
wait_for served_more_than $((served + 1000))
end_load
is "reloads under load fail no request" "$(load_errors)" none
is "nothing of it is an alert" "$(grep -c '\[alert\]\|\[emerg\]\|\[crit\]' "$T/front.log")" 0
done_testing
