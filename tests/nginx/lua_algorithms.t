#!/bin/bash
# SPDX-License-Identifier: MIT
# The algorithms in Lua with their arguments, and how the module and ngx_lua get along: what else a
# balancer may do, and what the phases after it see.
. "$(dirname "$0")/../lib/harness.sh"
. "$(dirname "$0")/../lib/lua.sh"

for backend in a b c; do
    start_backend "$backend"
done
for port in front dead tls; do
    free_port
    printf -v "$port" %s "$ret_port"
done
url=http://127.0.0.1:$front
lua_url=$url/lua
a=127.0.0.1:$port_a b=127.0.0.1:$port_b c=127.0.0.1:$port_c

make_certificate localhost
start_durpinad
start_nginx odd 1 <<END
http {
    server { listen 127.0.0.1:$tls ssl; ssl_certificate $T/cert.pem; ssl_certificate_key $T/key.pem;
             location / { return 200 "tls \$ssl_session_reused\n"; } }
}
END

balance() { echo "balancer_by_lua_block { $1 }"; }
durpina() { balance "require \"durpina.balancer\" ($1)"; }
three="server $a weight=5; server $b weight=3; server $c weight=2;"
start_nginx front 2 <<END
http {
    lua_shared_dict upstream 1m;
    log_format tries '\$upstream_addr|\$upstream_status|\$status';
    upstream rr { $three $(durpina '"round-robin"') }
    upstream kept { $three $(durpina '"round-robin"') keepalive 8; }
    upstream pooled { $three $(durpina '"round-robin"') durpina_keepalive 8; }
    upstream hash { server $a; server $b; server $c; $(durpina '"consistent-hash", ngx.var.arg_key') }
    upstream ketama { $three $(durpina '"consistent-hash", ngx.var.arg_key, "ketama"') }
    upstream nginx_ketama { $three hash \$arg_key consistent; }
    upstream bounded { server $a; server $b; $(durpina '"consistent-hash", "fixed", "bounded=1"') }
    upstream both { server $a; server $b; $(durpina '"consistent-hash", "fixed", "ketama", "bounded=1"') }
    upstream least { server $a; server $b; $(durpina '"least-conn"') }
    upstream two { $three $(durpina '"random-two"') }
    upstream ewma { $three $(durpina '"peak-ewma"') }
    upstream header { $three $(durpina '"least-time", "header"') }
    upstream last_byte { $three $(durpina '"least-time", "last_byte"') }
    upstream told { server $a; $(balance '
        local ok, err = pcall(require "durpina.balancer", unpack(told))
        ngx.log(ngx.NOTICE, "told ", tostring(err))
        require "durpina.balancer" "round-robin"') }
    upstream own { server $a; server $b; $(balance "require 'ngx.balancer'.set_current_peer('$c')") }
    upstream mixed { server $a; $(balance "if ngx.var.arg_own then
            require 'ngx.balancer'.set_current_peer('$c')
        else require 'durpina.balancer' 'round-robin' end") }
    upstream exits { server $a; $(balance 'require "durpina.balancer" "round-robin" ngx.exit(ngx.OK)') }
    upstream refuses { server $a; $(balance 'require "durpina.balancer" "round-robin" ngx.exit(ngx.ERROR)') }
    upstream declines { server $a; $(balance 'ngx.exit(ngx.DECLINED)') }
    upstream undecided { server $a; $(balance 'require "durpina.balancer" "round-robin"
        ngx.exit(ngx.DECLINED)') keepalive 8; }
    upstream patient { server $a; $(balance 'require "ngx.balancer".set_timeouts(1, 1, 0.2)
        require "durpina.balancer" "round-robin"') }
    upstream broken { server 127.0.0.1:$dead fail_timeout=60s; server $b; $(durpina '"round-robin"') }
    upstream added { server $a; server $b; $(durpina '"with-arguments", 1, nil, "three", false, 5, 6') }
    upstream tls { server 127.0.0.1:$tls; $(durpina '"round-robin"') }
    upstream nobody { server $a down; $(durpina '"least-conn"') }
    init_worker_by_lua_block {
        require("durpina.upstream").init("upstream")
        require("durpina.balancer").add("with-arguments", function(up, ...)
            local words = { ... }
            for i = 1, 6 do words[i] = tostring(words[i]) end
            ngx.log(ngx.NOTICE, "arguments ", table.concat(words, " "))
            return up:get_peers()[2]
        end)
    }
    server {
        listen 127.0.0.1:$front reuseport;
        access_log $T/front.access tries;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        $lua_location
        location ~ ^/up/(\\w+)/(.*) { set \$name \$1; proxy_pass http://\$name/\$2; }
        location = /told {
            access_by_lua_block {
                told = assert(loadstring("return {" .. ngx.unescape_uri(ngx.var.arg_with) .. "}"))()
            }
            proxy_pass http://told/;
        }
        location /tls/ { proxy_pass https://tls/; }
        location /phases/ {
            rewrite_by_lua_block { ngx.ctx.seen = "rewrite" }
            access_by_lua_block { ngx.ctx.seen = ngx.ctx.seen .. " access" }
            proxy_pass http://rr/status/;
            header_filter_by_lua_block {
                ngx.header["X-Seen"] = ngx.ctx.seen .. " header"
                if ngx.var.arg_refuse then ngx.exit(503) end
            }
            body_filter_by_lua_block { ngx.arg[1] = (ngx.arg[1] or ""):upper() }
            log_by_lua_block { ngx.log(ngx.NOTICE, "logged ", ngx.ctx.seen, " ", ngx.status) }
            proxy_intercept_errors on;
            error_page 404 = @missing;
        }
        location @missing {
            access_by_lua_block { ngx.ctx.again = "again" }
            content_by_lua_block { ngx.say(ngx.ctx.again) }
        }
        location /subrequests/ {
            content_by_lua_block {
                local answers = { ngx.location.capture_multi { { "/up/rr/" }, { "/up/least/" } } }
                ngx.say(answers[1].status, " ", answers[2].status)
            }
        }
    }
}
END
keys() { for i in $(seq 1 "$2"); do echo "$i=$(body "$url/up/$1/?key=k$i")"; done; }
has_ring() { api GET "/api/9/durpina/upstreams/$1" | jq -e '.tables.ring > 0'; }

# --- algorithms
for upstream in rr kept pooled; do
    is "shares_are_exact_in_$upstream" "$(tally 200 8 "$url/up/$upstream/")" "a=100 b=60 c=40"
done
body "$url/up/ketama/?key=1" >/dev/null
ok "a_ring_is_laid_out_once_picks_ask_for_it" wait_for has_ring ketama
keys ketama 150 >"$T/ours"
keys nginx_ketama 150 >"$T/theirs"
ok "ketama_chooses_as_nginx_does" cmp "$T/ours" "$T/theirs"
for upstream in bounded both least; do
    for _ in 1 2 3 4; do curl -s "$url/up/$upstream/delay/2000" >/dev/null & done
done
shared() { [ "$(peer "$1" active "$a")" = 2 ] && [ "$(peer "$1" active "$b")" = 2 ]; }
ok "least_conn_spreads_requests_in_flight" wait_for shared least
ok "bounded_1_gives_one_key_to_all_peers_alike" wait_for shared bounded
ok "bounded_goes_with_ketama" wait_for shared both
for upstream in two ewma header last_byte; do
    is "$upstream serves" "$(tally 60 4 "$url/up/$upstream/" | tr ' ' '\n' |
        awk -F= '{n += $2} END {print n}')" 60
    ok "and gives all back" wait_for idle "$upstream"
done
is "nobody_available_is_502_at_once" "$(status "$url/up/nobody/")$(tail -n 1 "$T/front.access")" \
    "502nobody|502|502"
like "latencies_are_told" "$(lua "local s = Upstream.get('rr'):get_peer('$a'):get_stats()
    return s.header_time > 0, s.response_time > 0, s.connect_time > 0")" "true | true | true"

# --- bad arguments
told() { # the arguments as Lua
    status "$url/told?with=$(jq -rn --arg a "$1" '$a | @uri')" >/dev/null
    sed -n 's/.*told \(.*\) while connecting.*/\1/p' "$T/front.log" | tail -n 1
}
is "an_argument_that_is_none_lists_the_valid_ones" "$(told '"consistent-hash", "k", "ketma"')" \
    'unknown argument "ketma" of consistent-hash; valid ones are [ketama] [bounded[=C]]'
is "one_of_another_algorithm_is_none" "$(told '"random-two", "header"')" \
    'random-two takes no argument like "header"'
is "two_that_contradict_each_other_are_refused" "$(told '"least-time", "header", "last_byte"')" \
    'argument "last_byte" of least-time does not go with those before it; valid ones are [header|last_byte] [source=nginx], or source=kernel'
is "so_is_a_time_that_the_kernel_does_not_see" "$(told '"least-time", "source=kernel", "header"')" \
    'argument "header" of least-time does not go with those before it; valid ones are [header|last_byte] [source=nginx], or source=kernel'
is "and_a_source_that_there_is_not" "$(told '"least-conn", "source=5"')" \
    'unknown argument "source=5" of least-conn; valid ones are [source=nginx|kernel]'
is "the_same_twice_too" "$(told '"consistent-hash", "k", "bounded", "bounded=2"')" \
    'argument "bounded=2" of consistent-hash does not go with those before it; valid ones are [ketama] [bounded[=C]]'
for bound in 0.999 100.001 nan ""; do
    is "bounded=$bound is out of range" "$(told "'consistent-hash', 'k', 'bounded=$bound'")" \
        "bad argument \"bounded=$bound\" of consistent-hash: a number from 1 to 100 is expected, with at most three decimals"
done
is "what_is_no_string_is_refused" "$(told '"least-time", 5')" \
    'an argument of a balancer is a string, not a number'
is "the_edges_of_the_range_are_taken" \
    "$(told '"consistent-hash", "k", "bounded=1.000"')$(told '"consistent-hash", "k", "bounded=100"')" \
    "truetrue"
is "functions_by_add_get_six_arguments" "$(body "$url/up/added/"; grep -c 'arguments 1 nil three false 5 6' "$T/front.log")" "b
1"

# --- beside ngx_lua
is "a_balancer_of_its_own_is_left_alone" "$(tally 20 4 "$url/up/own/")" "c=20"
is "one_that_does_both_too" "$(body "$url/up/mixed/?own=1")$(body "$url/up/mixed/")" ca
is "exit_OK_behind_the_pick_changes_nothing" "$(body "$url/up/exits/")" a
is "exit_ERROR_refuses_the_request" "$(status "$url/up/refuses/")" 500
ok "and_gives_its_share_back" wait_for idle refuses
is "exit_DECLINED_is_502_and_no_loop" "$(status "$url/up/declines/")$(status "$url/up/undecided/")" \
    502502
ok "and_gives_its_share_back_too" wait_for idle undecided
is "set_timeouts_holds" "$(status "$url/up/patient/delay/2000")" 504
is "a_failed_try_goes_elsewhere" "$(tally 20 4 "$url/up/broken/")" "b=20"
is "and_is_counted" "$(peer broken state "127.0.0.1:$dead")" unavail
body "$url/tls/" >/dev/null; body "$url/tls/" >/dev/null
reused() { body "$url/tls/" | grep -q "tls r"; }
ok "TLS_sessions_are_resumed" wait_for reused
is "phases_around_it_run_as_ever" \
    "$(curl -s -o /dev/null -D - "$url/phases/200" | tr -d '\r' | grep X-Seen)" \
    "X-Seen: rewrite access header"
like "the_body_filter_has_run" "$(body "$url/phases/200")" '^[ABC]$'
ok "and_the_log_phase" grep -q "logged rewrite access 200" "$T/front.log"
is "exit_in_the_header_filter_works" "$(status "$url/phases/200?refuse=1")" 503
is "an_error_page_in_Lua_works" "$(body "$url/phases/404")" again
is "subrequests_work" "$(body "$url/subrequests/")" "200 200"
for upstream in rr kept pooled added exits mixed broken tls; do
    wait_for idle "$upstream" || fail "$upstream gives all back"
done
pass "every_pick_was_given_back"
done_testing
