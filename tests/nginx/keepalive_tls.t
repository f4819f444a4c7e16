#!/bin/bash
# SPDX-License-Identifier: MIT
# durpina_keepalive and TLS: a connection serves only requests that would have made the same one.
. "$(dirname "$0")/../lib/harness.sh"
. "$(dirname "$0")/../lib/keepalive.sh"

make_certificate right.example
openssl req -x509 -new -key "$T/key.pem" -out "$T/other.pem" -days 2 -subj /CN=other 2>/dev/null
free_port
tls=$ret_port
free_port
timed=$ret_port
free_port
front=$ret_port
url=http://127.0.0.1:$front
native='durpina round-robin;'

start_durpinad
start_counting "server {
    listen 127.0.0.1:$tls ssl; listen 127.0.0.1:$timed ssl; ssl_certificate $T/cert.pem; ssl_certificate_key $T/key.pem;
    ssl_verify_client optional_no_ca;
    include $T/counting.locations;
    location = /client { return 200 \"\$ssl_client_s_dn \$ssl_session_reused\n\"; }
    location = /name { return 200 \"\$ssl_server_name\n\"; }
}"
start_nginx front 1 <<END
http {
    upstream tls { server 127.0.0.1:$tls; $native durpina_keepalive 8; }
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_ssl_session_reuse off;
    upstream timed {
        server 127.0.0.1:$timed;
        balancer_by_lua_block {
            require "ngx.balancer".set_timeouts(5, 5, 5)
            require "durpina.balancer" "round-robin"
        }
        durpina_keepalive 8;
    }
    server {
        listen 127.0.0.1:$front;
        proxy_ssl_name \$arg_as;
        proxy_ssl_server_name on;
        location / { proxy_pass https://tls; }
        location /other/ { proxy_pass https://tls/; }
        location /nameless/ { proxy_pass https://tls/; proxy_ssl_server_name off; }
        location /verified/ { proxy_pass https://tls/; proxy_ssl_verify on;
                              proxy_ssl_trusted_certificate $T/cert.pem; }
        location /timed/0/ { proxy_pass https://timed/; }
        location /timed/1/ { proxy_pass https://timed/; proxy_ssl_verify on;
                             proxy_ssl_trusted_certificate $T/cert.pem; }
        location /plain/ { proxy_pass http://tls/; }
        location /shown/ { proxy_pass https://tls/; proxy_ssl_certificate \$arg_with;
                           proxy_ssl_certificate_key $T/key.pem; proxy_ssl_session_reuse on; }
    }
}
END

# The number of the connection that served URL; "NAME: NUMBER of the request on it".
connection() {
    body "$url$1" | cut -d ' ' -f 1
}
request() {
    body "$url$1" | cut -d ' ' -f 2
}

a=$(connection "/?as=a.example")
b=$(connection "/?as=b.example")
is "a connection made for one name does not serve another" "$(connections "$tls")" 2
is "one for the same name is used" "$(connection "/?as=a.example") $(connection "/?as=b.example")" "$a $b"
is "a port behind the name does not matter" "$(connection "/?as=a.example:8443")" "$a"
is "the backend was asked for that name" "$(body "$url/name?as=b.example")" b.example
is "another location makes its own" "$(request "/other/?as=a.example")" 1
is "and uses that again" "$(request "/other/?as=a.example")" 2
is "so does one that sends no name" "$(request "/nameless/?as=a.example")" 1
is "for which names are the same" "$(request "/nameless/?as=b.example")" 2
is "no name is a name of its own" "$(request "/") $(request "/")" "1 2"

is "the right name is verified" "$(status "$url/verified/?as=right.example")" 200
is "an idle connection does not get a wrong name past it" \
    "$(status "$url/verified/?as=a.example")" 502
is "the right name finds its connection" "$(request "/verified/?as=right.example")" 2

# set_timeouts() gives the request a copy of its location's settings.
is "a balancer that sets timeouts uses its connections again" \
    "$(for as in a b a b; do request "/timed/0/?as=$as.example"; done | xargs)" "1 1 2 2"
is "and no other location's" "$(status "$url/timed/1/?as=a.example")" 502

is "a request without TLS does not use one with it" "$(status "$url/plain/")" 400
is "nor the other way round" "$(status "$url/?as=a.example")" 200

is "a connection with a certificate that depends on the request serves one" \
    "$(request "/shown/?as=a.example&with=$T/cert.pem") $(request "/shown/?as=a.example&with=$T/cert.pem")" \
    "1 1"
is "nor does its TLS session serve another one" \
    "$(for cert in cert other cert; do body "$url/shown/client?as=a.example&with=$T/$cert.pem"; done |
        xargs)" "CN=right.example . CN=other . CN=right.example ."

id=$(server_id tls "127.0.0.1:$tls")
between "there are idle connections" "$(connections "$tls")" 5 8
api PATCH "/api/9/http/upstreams/tls/servers/$id" '{"down":true}' >/dev/null
ok "all are closed when the peer goes down" wait_for has_connections "$tls" 0
is "nothing of it is an alert" "$(grep -c '\[alert\]\|\[emerg\]' "$T/front.log")" 0
done_testing
