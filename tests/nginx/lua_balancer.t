# SPDX-License-Identifier: MIT
# durpina.balancer: algorithms, algorithms in Lua, and what happens when nobody is available.
. "$(dirname "$0")/../lib/harness.sh"
. "$(dirname "$0")/../lib/lua.sh"

for backend in a b c; do
    start_backend "$backend"
done
free_port
front=$ret_port
free_port
dead=$ret_port
url=http://127.0.0.1:$front
lua_url=$url/lua
a=127.0.0.1:$port_a b=127.0.0.1:$port_b c=127.0.0.1:$port_c
start_durpinad

balance() { echo "balancer_by_lua_block { $1 }"; }
start_nginx front 4 <<END
http {
    lua_shared_dict upstream 1m;
    log_format tries '\$upstream_addr|\$status';
    upstream rr { server $a weight=5; server $b weight=3; server $c weight=2;
        $(balance 'require "durpina.balancer" "round-robin"') }
    upstream named { server $a weight=5; server $b weight=3; server $c weight=2;
        $(balance 'assert(require("durpina.balancer").balance("round-robin") == true)') }
    upstream flat { server $a weight=5; server $b weight=3; server $c weight=2;
        $(balance 'require "durpina.balancer" "unweighted-round-robin"') }
    upstream ip { server $a; server $b; server $c; $(balance 'require "durpina.balancer" "ip-hash"') }
    upstream hash { server $a; server $b weight=2; server $c;
        $(balance 'require "durpina.balancer" ("consistent-hash", ngx.var.arg_key)') }
    upstream number { server $a; server $b; server $c;
        $(balance 'require "durpina.balancer" ("consistent-hash", tonumber(ngx.var.arg_key))') }
    upstream badkey { server $a; $(balance 'require "durpina.balancer" ("consistent-hash", {})') }
    upstream unknown { server $a; $(balance 'require "durpina.balancer" "least-recently-blessed"') }
    upstream down { server $a down; server $b down;
        $(balance 'local ok, err = require "durpina.balancer" "round-robin" ngx.log(ngx.NOTICE, "told ", tostring(ok), " ", tostring(err))') }
    upstream empty { server 0.0.0.0; $(balance 'require "durpina.balancer" "round-robin"') }
    upstream gone { server $a; server $b; $(balance 'require "durpina.balancer" "round-robin"') }
    upstream dynamic { server 0.0.0.0:1; $(balance 'require "durpina.balancer" "round-robin"') }
    upstream first { server $a; server $b; server $c; $(balance 'require "durpina.balancer" ("first", 2)') }
    upstream rotate { server 127.0.0.1:$dead max_fails=0; server $b; $(balance 'require "durpina.balancer" "rotate"') }
    upstream last { server $a; server $b; $(balance 'require "durpina.balancer" "last"') }
    upstream nobody { server $a; $(balance 'require "durpina.balancer" "nobody"') }
    upstream stranger { server $a; $(balance 'require "durpina.balancer" "stranger"') }
    upstream raising { server $a; $(balance 'require "durpina.balancer" "raising"') }
    init_by_lua_block {
        require("durpina.balancer").add("last", function(up) local p = up:get_peers() return p[#p] end)
    }
    init_worker_by_lua_block {
        require("durpina.upstream").init("upstream")
        local Balancer = require "durpina.balancer"
        local turn = 0
        Balancer.add("first", function(up, n) return up:get_peers()[n] end)
        Balancer.add("rotate", function(up) turn = turn + 1 local p = up:get_peers() return p[turn % #p + 1] end)
        Balancer.add("nobody", function() return nil, "nobody is good enough" end)
        Balancer.add("stranger", function() return require("durpina.upstream").get("rr"):get_peers()[1] end)
        Balancer.add("raising", function() error("raised in the algorithm") end)
    }
    server {
        listen 127.0.0.1:$front reuseport;
        listen [::1]:$front reuseport;
        listen unix:$T/front.sock;
        access_log $T/front.access tries;
        $lua_location
        location ~ ^/up/(\\w+) { set \$name \$1; rewrite ^ / break; proxy_pass http://\$name; }
        location = /fixed { rewrite ^ / break; proxy_pass http://rr; }
    }
}
END

# Before the first pick nobody knows that these hash; their tables follow it.
has_table() { api GET "/api/9/durpina/upstreams/$1" | jq -e '.tables.hash > 0'; }
for upstream in ip hash number; do
    body "$url/up/$upstream?key=1" >/dev/null
    wait_for has_table "$upstream" || die "$upstream gets its table"
done

# --- algorithms
is "round_robin_is_exact_over_all_workers (defect_16)" \
    "$(tally 1000 16 "$url/up/rr")" "a=500 b=300 c=200"
is "any_run_of_ten_is_exact" "$(for _ in $(seq 30); do body "$url/up/rr"; done |
    awk '{w = w $1} END {for (i = 1; i + 9 <= length(w); i++) {s = substr(w, i, 10); t = s
        if (gsub("a", "", t) != 5 || gsub("b", "", t) != 3) bad++} print bad + 0}')" 0
is "balance_by_name_is_the_same" "$(tally 100 4 "$url/up/named")" "a=50 b=30 c=20"
is "unweighted_round_robin_ignores_weights" "$(tally 300 4 "$url/up/flat")" "a=100 b=100 c=100"
is "ip_hash_keeps_a_client_at_its_peer" "$(tally 100 4 "$url/up/ip" | wc -w)" 1
is "defect_9_clients_over_IPv6_and_unix_sockets_are_served_by_ip_hash" "$(
    for _ in 1 2 3 4; do body "http://[::1]:$front/up/ip"; done | sort | uniq -c | wc -l
    for _ in 1 2 3 4; do curl -s --unix-socket "$T/front.sock" http://x/up/ip; done | sort | uniq -c | wc -l)" "1
1"
is "a_key_keeps_its_peer_in_every_worker" "$(tally 100 4 "$url/up/hash?key=k1" | wc -w)" 1
keys() { for i in $(seq 1 120); do echo "$i=$(body "$url/up/hash?key=k$i")"; done; }
keys >"$T/before"
is "keys_are_spread" "$(cut -d= -f2 "$T/before" | sort -u | tr '\n' ' ')" "a b c "
lua "assert(Upstream.get('hash'):remove_peer('$c'))" >/dev/null
keys >"$T/after"
paste -d= "$T/before" "$T/after" >"$T/both"
# Of about 80; with three peers a table moves 9 in 100 at worst, a hash modulo peers half of them.
between "defect_9_a_removal_moves_hardly_any_other_key" \
    "$(awk -F= '$2 != "c" && $2 != $4' "$T/both" | wc -l)" 0 16
is "and_its_own_go_elsewhere" "$(awk -F= '$4 == "c"' "$T/both" | wc -l)" 0
is "a_number_is_a_key" "$(tally 100 4 "$url/up/number?key=17" | wc -w)" 1
is "without_a_key_the_client_keeps_a_peer" "$(tally 100 4 "$url/up/hash" | wc -w)" 1
between "which_is_said_at_most_once_a_worker_and_minute" \
    "$(grep -c "without a key" "$T/front.log")" 1 4
is "defect_15_proxy_pass_with_a_fixed_name_and_with_a_variable_are_alike" \
    "$(status "$url/fixed")$(status "$url/up/rr")" 200200

# --- errors
is "another_type_of_key_is_an_error" "$(status "$url/up/badkey")" 500
ok "that_says_so" \
    grep -q "key of consistent-hash must be a string or a number, not a table" "$T/front.log"
is "an_unknown_algorithm_is_an_error" "$(status "$url/up/unknown")" 500
ok "that_lists_the_valid_ones" \
    grep -q 'unknown balancer "least-recently-blessed"; valid ones are consistent-hash, first, ip-hash' "$T/front.log"
like "the_balancer_outside_its_phase_raises" \
    "$(lua 'return Balancer.balance("round-robin")')" "raised: .*balancer_by_lua"

like "an_algorithm_in_Lua_does_too" "$(lua 'return Balancer.balance("nobody")')" \
    "raised: .*balancer_by_lua"

# --- nobody
is "defect_6_nobody_available_is_502" "$(status "$url/up/down")$(status "$url/up/empty")" 502502
is "at_once_and_without_a_try" "$(tail -n 2 "$T/front.access" | xargs)" "down|502 empty|502"
ok "the_caller_is_told" grep -q "told nil no peer is available" "$T/front.log"
is "defect_8_all_down_after_a_change_is_502_and_no_loop" "$(lua "local u = Upstream.get('gone')
    u:get_peer('$a'):set_weight(0) u:get_peer('$b'):set_state('down')"; status "$url/up/gone")" "
502"
is "defect_8_all_removed_is_too" \
    "$(lua "local u = Upstream.get('gone') u:remove_peer('$a') u:remove_peer('$b')"; status "$url/up/gone")" "
502"
is "defect_7_a_dynamic_peer_that_is_dead_costs_no_request" "$(lua "local u = Upstream.get('dynamic')
    assert(u:add_peer('127.0.0.1:$dead fail_timeout=60s')) assert(u:add_peer('$a'))"; tally 50 4 "$url/up/dynamic")" "
a=50"
is "and_is_taken_out" \
    "$(lua "return Upstream.get('dynamic'):get_peer('127.0.0.1:$dead'):is_down('temporary')")" true

# --- algorithms in Lua
is "an_algorithm_in_Lua_names_the_peer_and_gets_its_arguments" \
    "$(tally 50 4 "$url/up/first")" "b=50"
is "its_picks_are_counted" \
    "$(lua "local s = Upstream.get('first'):get_peer('$b'):get_stats() return s.requests, s.active")" \
    "50 | 0"
is "it_is_asked_again_after_a_failed_try_and_not_given_a_tried_peer" \
    "$(tally 50 4 "$url/up/rotate")" "b=50"
is "an_algorithm_may_be_added_in_init_by_lua" "$(tally 20 4 "$url/up/last")" "b=20"
lua "Upstream.get('first'):get_peer('$b'):set_state('down')" >/dev/null
is "a_peer_that_is_down_is_not_taken" "$(status "$url/up/first")" 502
is "nil_is_502" "$(status "$url/up/nobody")" 502
is "a_peer_of_another_upstream_is_an_error" "$(status "$url/up/stranger")" 500
ok "that_says_so_too" \
    grep -q 'balancer "stranger" must return a peer of upstream "stranger" or nil' "$T/front.log"
is "a_raise_in_it_is_an_error" "$(status "$url/up/raising")" 500
like "add_refuses_a_name_that_is_taken" \
    "$(lua 'return Balancer.add("ip-hash", print)')" 'raised: .*"ip-hash" already exists'
like "add_refuses_what_is_no_function" \
    "$(lua 'return Balancer.add("x", 5)')" 'raised: .*"x" must be a function'
all_idle() { [ "$(for u in rr named flat ip hash number first rotate dynamic; do active $u; done | sort -u)" = 0 ]; }
ok "every_pick_was_given_back" wait_for all_idle
done_testing
