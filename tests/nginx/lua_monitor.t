# SPDX-License-Identifier: MIT
# Monitors by the Lua API: added, removed, paused, refused; and what they do to peers.
. "$(dirname "$0")/../lib/harness.sh"
. "$(dirname "$0")/../lib/lua.sh"

start_backend a
start_backend b
free_port
front=$ret_port
free_port
dead=$ret_port
free_port
checked=$ret_port
lua_url=http://127.0.0.1:$front/lua
a=127.0.0.1:$port_a b=127.0.0.1:$port_b
start_durpinad
balancer='balancer_by_lua_block { require "durpina.balancer" "round-robin" }'
start_nginx front 4 <<END
http {
    lua_shared_dict upstream 1m;
    upstream good { server $a; server $b; $balancer }
    upstream bad { server $a; server 127.0.0.1:$dead; $balancer }
    upstream spare { server $a; server $b; $balancer }
    init_worker_by_lua_block {
        local Upstream = require "durpina.upstream"
        Upstream.init("upstream")
        local good = assert(Upstream.get("good"))
        assert(good:add_monitor("http", {uri = "/still_alive", interval = "100ms"}))
        assert(good:add_monitor("http", {uri = "/still_alive", interval = "100ms"}))
        assert(good:monitor())
    }
    upstream headed { server $a; $balancer }
    upstream manual { server $a; $balancer }
    server { listen 127.0.0.1:$front reuseport; $lua_location location / { proxy_pass http://bad/; } }
    server {
        listen 127.0.0.1:$checked;
        location = /check {
            if (\$http_x_probe != "yes") { return 500; }
            if (\$request_method != HEAD) { return 501; }
            return 204;
        }
    }
}
END
upstream() { lua "local u = Upstream.get('$1') $2"; }
listed() { api GET "/api/9/durpina/upstreams/$1/monitors" | jq -r '[.[] | "\(.id):\(.name)"] | join(" ")'; }
checked() { api GET "/api/9/http/upstreams/$1" | jq -e "[.peers[].health_checks.checks] | min >= $2"; }
has_run() {
    api GET /api/9/durpina/upstreams/manual/peers |
        jq -e --arg id "$1" '.[].monitors[] | select(.id == $id) | .checks > 0'
}
down() { [ "$(lua "return Upstream.get('$1'):get_peer('$2'):is_down('temporary')")" = true ]; }
up() { [ "$(lua "return Upstream.get('$1'):get_peer('$2'):is_down()")" = false ]; }
state() { upstream "$1" 'return u:info()' | jq -r ".peers[] | select(.name == \"$2\") | .state"; }

not_ok "defect_14_the_same_monitor_again_in_each_worker_succeeds" \
    grep -q "failed to run init_worker" "$T/front.log"
is "and_it_is_one_monitor" "$(listed good)" "http:http"
ok "it_runs" wait_for checked good 2
is "defect_10_healthy_peers_stay_up" "$(state good "$a") $(state good "$b")" "up up"

is "examples_of_durpinas_manual_are_accepted" "$(upstream manual 'return u:add_monitor("http"),
    u:add_monitor("http", {id="http_hello", url="/hello", interval=30}),
    u:add_monitor("http", {id="http-hello", url="/hello", ok_codes="2xx", interval="5m"}),
    u:add_monitor("tcp", {id="tcp-ping", timeout=200}), u:add_monitor("haproxy-agent-check", {timeout=200}),
    u:add_monitor("haproxy-agent-check", {id="by-http", url="/haproxy_agent_status"}),
    u:add_monitor("http-haproxy-agent-check", {url="/haproxy_agent_status"})')" \
    "true | true | true | true | true | true | true"
for id in http tcp-ping haproxy-agent-check by-http http-haproxy-agent-check; do
    ok "and_${id}_runs" wait_for has_run "$id"
done
is "tcp_needs_no_banner (defect_10)" \
    "$(upstream bad 'return u:add_monitor("tcp", {id = "t", interval = 0.1})')" true
is "an_option_is_shown_as_it_was_given" \
    "$(api GET /api/9/durpina/upstreams/bad/monitors | grep -o '"interval":[^,}]*')" '"interval":0.1'
ok "a_dead_peer_becomes_unhealthy" wait_for down bad "127.0.0.1:$dead"
is "and_info_says_so" "$(state bad "$a") $(state bad "127.0.0.1:$dead")" "up unhealthy"
is "it_gets_nothing" "$(tally 40 4 "http://127.0.0.1:$front/")" "a=40"
start_backend risen "$dead"
ok "it_comes_back" wait_for up bad "127.0.0.1:$dead"
is "the_operators_down" "$(upstream bad "return u:get_peer('$a'):set_state('down')")" true
api GET /api/9/http/upstreams/bad >"$T/now"
n=$(jq '[.peers[].health_checks.checks] | max' "$T/now")
wait_for checked bad $((n + 3))
is "defect_11_is_not_lifted_by_passing_checks" "$(state bad "$a")" down
upstream bad "u:get_peer('$a'):set_state('up')" >/dev/null

is "defect_11_two_monitors_keep_their_own_options" \
    "$(upstream spare 'return u:add_monitor("http", {id = "one", url = "/status/503", ok_codes = "5xx", interval = "100ms"}),
        u:add_monitor("http", {id = "two", url = "/", interval = 3600})'; listed spare)" "true | true
one:http two:http"
ok "and_both_run" wait_for checked spare 2
is "ok_codes_count (defect_10)" "$(state spare "$a")" up
is "url_method_port_and_headers_have_effect (defect_10)" \
    "$(upstream headed 'return u:add_monitor("http",
    {url = "/check", method = "HEAD", port = '"$checked"', ["header_X-Probe"] = "yes", interval = "100ms"})')" true
ok "with_them_the_check_passes" wait_for checked headed 3
is "and_the_peer_is_up" "$(state headed "$a")" up
is "without_the_header_it_fails" \
    "$(upstream headed 'u:remove_monitor("http") return u:add_monitor("http",
    {url = "/check", method = "HEAD", port = '"$checked"', interval = "100ms"})')" true
ok "and_the_peer_becomes_unhealthy" wait_for down headed "$a"
is "5m_is_an_interval (defect_10)" \
    "$(upstream headed 'return u:add_monitor("tcp", {interval = "5m"})')" true
is "remove_monitor_removes" "$(upstream spare 'return u:remove_monitor("one")'; listed spare)" "true
two:http"
like "removing_it_again_is_refused_by_name" \
    "$(upstream spare 'return u:remove_monitor("one")')" '^nil \| .*one'

like "the_same_id_with_other_options_raises" \
    "$(upstream spare 'return u:add_monitor("http", {id = "two", url = "/other"})')" "raised: .*two"
like "an_unknown_monitor_raises" \
    "$(upstream spare 'return u:add_monitor("psychic")')" "raised: .*psychic.*http.*tcp"
for monitor in haproxy-agent-check http-haproxy-agent-check grpc; do
    is "$monitor is there" \
        "$(upstream spare "return u:add_monitor('$monitor'), u:remove_monitor('$monitor')")" \
        "true | true"
done
like "a_bad_option_raises" \
    "$(upstream spare 'return u:add_monitor("http", {id = "x", interval = "soon"})')" \
    "raised: .*interval"
like "an_unknown_option_raises" \
    "$(upstream spare 'return u:add_monitor("http", {id = "x", urll = "/"})')" "raised: .*urll"
like "an_option_that_is_a_table_raises" \
    "$(upstream spare 'return u:add_monitor("http", {id = "x", url = {}})')" 'raised: .*"url"'
like "a_name_that_is_no_string_raises" \
    "$(upstream spare 'return u:add_monitor(5)')" "raised: .*name"
is "and_nothing_was_added" "$(listed spare)" "two:http"
is "the_default_interval_is_that_of_Monitor" \
    "$(lua 'local m = require "durpina.monitor" local was = m.default_interval
    m.default_interval = 77 Upstream.get("spare"):add_monitor("tcp", {id = "slow"}) m.default_interval = was return was')$(
    api GET /api/9/durpina/upstreams/spare/monitors/slow | jq .options.interval)" 577

is "unmonitor_pauses" \
    "$(upstream good 'return u:unmonitor()'; api GET /api/9/durpina/upstreams/good | jq .active)" "true
false"
is "monitor_goes_on" \
    "$(upstream good 'return u:monitor()'; api GET /api/9/durpina/upstreams/good | jq .active)" "true
true"
done_testing
