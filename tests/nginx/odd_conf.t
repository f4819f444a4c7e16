#!/bin/bash
# SPDX-License-Identifier: MIT
# What nginx accepts does not end it: the module brought in by a reload, values beyond the
# controller's, names in another case.
. "$(dirname "$0")/../lib/harness.sh"

start_backend a
start_backend b
free_port
front=$ret_port
url=http://127.0.0.1:$front
balancer='balancer_by_lua_block { require "durpina.balancer" "round-robin" }'

nginx_conf front 2 <<END
http { server { listen 127.0.0.1:$front; location / { return 200 "before\n"; } } }
END
sed -i '/ngx_http_durpina_module/d; /^ *durpina_/d' "$T/front.conf"
restart_nginx front 2
is "nginx runs without the module" "$(body "$url/")" before

nginx_conf front 2 <<END
http {
    upstream Foo { server 127.0.0.1:$port_a weight=200000 max_fails=3000000000 fail_timeout=365d;
                   server 127.0.0.1:$port_b weight=100000; $balancer }
    upstream other { server 127.0.0.1:$port_a weight=100000 max_conns=3000000000; }
    server {
        listen 127.0.0.1:$front;
        location / { proxy_pass http://Foo; }
        location /other { proxy_pass http://other/; }
        location /get { content_by_lua_block {
            ngx.say(tostring(require("durpina.upstream").get(ngx.var.arg_name)))
        } }
    }
}
END
said_why() { grep -q "start it first: durpinad" "$T/front.log"; }
nginx_run front -s reload
ok "a reload that brings the module in without a controller says why it fails" wait_for said_why
ok "and leaves the master" is_running "$nginx_front"
is "and the old configuration" "$(body "$url/")" before

start_durpinad
ok "with a controller it succeeds" reload_nginx front
is "weights beyond the limit keep their ratio" "$(tally 300 4 "$url/")" "a=200 b=100"
is "an upstream of nginx's own is served as ever" "$(body "$url/other")" a
is "a name in another case is no upstream" "$(body "$url/get?name=foo")" nil
is "and does not become one" "$(api GET /api/9/durpina/upstreams | jq -c .)" '["Foo"]'

cp "$T/front.conf" "$T/good.conf"
sed -i 's/upstream other /upstream "a b" { server 127.0.0.1:1; durpina round-robin; } &/' "$T/front.conf"
said_name() {
    grep -qF 'upstream name "a b" must be 1 to 127 bytes without control characters, space' "$T/front.log"
}
ok "a reload with a name that the controller does not take succeeds" reload_nginx front
ok "and says what is wrong with it" said_name
is "the other upstreams serve on" "$(tally 30 4 "$url/")" "a=20 b=10"
cp "$T/good.conf" "$T/front.conf"

kill_hard "$durpinad_pid"
ok "a later reload needs no controller" reload_nginx front
is "and goes on with the maps there are" "$(tally 30 4 "$url/")" "a=20 b=10"
done_testing
