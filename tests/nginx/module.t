# SPDX-License-Identifier: MIT
# One request through the module: every pick ends exactly once, however the request ends, and what
# its end means for the peer.
. "$(dirname "$0")/../lib/harness.sh"

for backend in a b c; do
    start_backend "$backend"
done
free_port
dead=$ret_port
free_port
front=$ret_port

# A TLS backend, an HTTP/2 one, one that closes idle connections at once, one on a unix socket.
make_certificate localhost
free_port
tls=$ret_port
free_port
h2=$ret_port
free_port
hasty=$ret_port
start_durpinad
start_nginx odd 1 <<END
http {
    server { listen 127.0.0.1:$tls ssl; ssl_certificate $T/cert.pem; ssl_certificate_key $T/key.pem;
             location / { return 200 "tls\n"; } }
    server { listen 127.0.0.1:$h2 http2; location / { return 200 "h2\n"; } }
    server { listen 127.0.0.1:$hasty; keepalive_timeout 100ms; location / { return 200 "hasty\n"; } }
    server { listen unix:$T/back.sock; location / { return 200 "unix\n"; } }
}
END

balancer='balancer_by_lua_block { require "durpina.balancer" "round-robin" }'
start_nginx front 2 <<END
http {
    log_format tries '\$upstream_addr|\$upstream_status|\$status';
    upstream one { server 127.0.0.1:$port_a; $balancer }
    upstream slow { server 127.0.0.1:$port_b; $balancer }
    upstream mixed { server 127.0.0.1:$dead max_fails=2 fail_timeout=2s; server 127.0.0.1:$port_a;
                     $balancer }
    upstream raising { server 127.0.0.1:$port_a;
        balancer_by_lua_block { require "durpina.balancer" "round-robin" error("after the pick") } }
    upstream twice { server 127.0.0.1:$port_a;
        balancer_by_lua_block { require "durpina.balancer" "round-robin"
                                require "durpina.balancer" "round-robin" } }
    upstream kept { server 127.0.0.1:$port_a; server 127.0.0.1:$port_b; $balancer keepalive 4; }
    upstream hasty { server 127.0.0.1:$hasty; server 127.0.0.1:$port_a backup; $balancer
                     keepalive 4; }
    upstream tls { server 127.0.0.1:$tls; $balancer keepalive 4; }
    upstream h2 { server 127.0.0.1:$h2; $balancer }
    upstream sock { server unix:$T/back.sock; $balancer }
    upstream fcgi { server 127.0.0.1:$port_c; $balancer }
    upstream status { server 127.0.0.1:$port_a; server 127.0.0.1:$port_b; $balancer }
    upstream limited { server 127.0.0.1:$port_c; $balancer }
    upstream alldown { server 127.0.0.1:$port_a down; server 127.0.0.1:$port_b down; $balancer }
    upstream dead { server 127.0.0.1:$dead fail_timeout=60s; server 127.0.0.1:$dead weight=2;
                    server 127.0.0.2:$dead; $balancer }
    server {
        listen 127.0.0.1:$front;
        access_log $T/front.access tries;
        location /one/ { proxy_pass http://one/; }
        location /slow/ { proxy_pass http://slow/; proxy_read_timeout 300ms; }
        location /patient/ { proxy_pass http://slow/; }
        location /mixed/ { proxy_pass http://mixed/; }
        location /raising/ { proxy_pass http://raising/; }
        location /twice/ { proxy_pass http://twice/; }
        location /kept/ { proxy_pass http://kept/; proxy_http_version 1.1; proxy_set_header Connection ""; }
        location /hasty/ { proxy_pass http://hasty/; proxy_http_version 1.1; proxy_set_header Connection ""; }
        location /tls/ { proxy_pass https://tls/; proxy_http_version 1.1; proxy_set_header Connection ""; }
        location /h2/ { grpc_pass grpc://h2; }
        location /sock/ { proxy_pass http://sock/; }
        location /fcgi/ { fastcgi_pass fcgi; }
        location /uwsgi/ { uwsgi_pass fcgi; }
        location /status/ { proxy_pass http://status/status/; proxy_next_upstream http_503 error; }
        location /redirected/ { proxy_pass http://status/status/; proxy_intercept_errors on;
                                error_page 404 = /one/; }
        location /limited/ { proxy_pass http://limited/; }
        location /alldown/ { proxy_pass http://alldown/; }
        location /dead/ { proxy_pass http://dead/; }
        location /variable/ { set \$to one; rewrite ^/variable(/.*) \$1 break; proxy_pass http://\$to; }
    }
}
END
url=http://127.0.0.1:$front

last_log() { tail -n 1 "$T/front.access"; }

is "a request reaches its peer" "$(body "$url/one/")" a
is "proxy_pass with a variable does too" "$(body "$url/variable/")" a
is "grpc_pass does too" "$(status "$url/h2/")" 200
is "a peer on a unix socket does too" "$(body "$url/sock/")" unix
is "TLS to the peer works, on fresh and on kept connections" \
    "$(body "$url/tls/")$(body "$url/tls/")$(body "$url/tls/")" tlstlstls
body "$url/fcgi/" >/dev/null
body "$url/uwsgi/" >/dev/null
is "fastcgi_pass and uwsgi_pass go through the balancer" "$(peer fcgi requests)" 2
ok "and give their share back" idle fcgi

body "$url/kept/" >/dev/null; body "$url/kept/" >/dev/null; body "$url/kept/" >/dev/null
is "kept connections do not change the order" "$(body "$url/kept/")" b
ok "a kept connection is not an active request" idle kept

curl -s -m 0.2 "$url/patient/delay/3000" >/dev/null
wait_for idle slow
ok "a client that goes away gives its share back" idle slow
is "and is no failure of the peer" "$(peer slow fails)" 0
is "a timeout is answered 504" "$(status "$url/slow/delay/2000")" 504
ok "and gives its share back" idle slow
is "and is a failure of the peer" "$(peer slow fails)" 1

is "a balancer that raises after its pick is answered 500" "$(status "$url/raising/")" 500
wait_for idle raising
ok "and gives its share back" idle raising
is "a balancer that picks twice serves" "$(body "$url/twice/")" a
ok "and counts once" idle twice

is "the first try at a dead peer is retried elsewhere" "$(body "$url/mixed/")" a
is "one failure of two does not take it out" "$(peer mixed state "127.0.0.1:$dead")" up
is "and it is tried again" "$(body "$url/mixed/")" a
is "max_fails failures do" "$(peer mixed state "127.0.0.1:$dead")" unavail
before=$(peer mixed requests "127.0.0.1:$dead")
for _ in 1 2 3 4 5 6; do body "$url/mixed/" >/dev/null; done
is "then it gets nothing" "$(peer mixed requests "127.0.0.1:$dead")" "$before"
probed() { body "$url/mixed/" >/dev/null; [ "$(peer mixed requests "127.0.0.1:$dead")" -gt "$before" ]; }
wait_for probed
for _ in 1 2 3 4 5 6; do body "$url/mixed/" >/dev/null; done
is "after fail_timeout it gets one request, and is out again at its failure" \
    "$(peer mixed requests "127.0.0.1:$dead")" $((before + 1))
start_backend risen "$dead"
returned() { body "$url/mixed/" | grep -qx risen; }
wait_for returned
is "a success brings it back" "$(peer mixed state "127.0.0.1:$dead")" up
ok "all tries were given back" idle mixed
stop "$backend_risen"

is "a status in proxy_next_upstream is tried elsewhere" "$(status "$url/status/503")" 503
like "on each peer once" "$(last_log)" \
    "^127.0.0.1:($port_a, 127.0.0.1:$port_b|$port_b, 127.0.0.1:$port_a)\|503, 503\|503"
is "404 is no failure" "$(status "$url/status/404")" 404
is "an error page served by another upstream" "$(body "$url/redirected/404")" a
ok "leaves nothing active behind" idle status

statuses=$(for _ in 1 2 3; do curl -s -o /dev/null -w '%{http_code}:%{time_total} ' "$url/alldown/"; done)
like "no peer available is answered 502" "$statuses" "^502:[0-9.]+ 502:[0-9.]+ 502:"
is "and no peer got a request" "$(peer alldown requests)" 0
is "all peers refusing is answered 502" "$(status "$url/dead/")" 502
tail -n 1 "$T/front.access" >"$T/tries"
is "after each was tried once" "$(grep -o ":$dead" "$T/tries" | wc -l)" 2

for _ in 1 2 3; do
    body "$url/hasty/" >/dev/null
    connections_closed() { ! ss -Htn state established "dport = :$hasty" | grep -q .; }
    wait_for connections_closed
done
is "a kept connection that the peer closed is no failure" "$(peer hasty fails)" 0

api PATCH "/api/9/http/upstreams/limited/servers/$(server_id limited "127.0.0.1:$port_c")" \
    '{"max_conns": 2}' >/dev/null
codes=$(for _ in 1 2 3 4 5 6; do echo "$(status "$url/limited/delay/500")" & done | sort | xargs)
is "max_conns holds over all workers" "$codes" "200 200 502 502 502 502"

for _ in 1 2 3 4; do curl -s "$url/patient/delay/20000" >/dev/null & done
four_active() { [ "$(active slow)" = 4 ]; }
ok "requests in flight are active" wait_for four_active
nginx_run front -s stop
ok "a fast stop of nginx gives their share back" wait_for idle slow
wait_for none_running "$nginx_front"
done_testing
