# SPDX-License-Identifier: MIT
# How Lua talks to the controller: phases, a controller that is gone, one that hangs.
. "$(dirname "$0")/../lib/harness.sh"
. "$(dirname "$0")/../lib/lua.sh"

start_backend a
start_backend b
free_port
front=$ret_port
url=http://127.0.0.1:$front
lua_url=$url/lua
a=127.0.0.1:$port_a b=127.0.0.1:$port_b
start_durpinad

change="local p = require('durpina.upstream').get('foo'):get_peer('$a') local ok, err = p:set_weight(5)"
tell='ngx.header["X-Said"] = tostring(ok) .. " " .. tostring(err)'
start_nginx front 2 <<END
http {
    lua_shared_dict upstream 1m;
    lua_socket_log_errors off;
    upstream foo { server $a; server $b; balancer_by_lua_block { require "durpina.balancer" "round-robin" } }
    upstream changing { server $a; balancer_by_lua_block {
        $change
        ngx.ctx.said = tostring(ok) .. " " .. tostring(err)
        require "durpina.balancer" "round-robin" } }
    init_worker_by_lua_block {
        local Upstream = require "durpina.upstream"
        Upstream.init("upstream")
        local up, err = Upstream.get("foo")
        for i = 1, 6 do
            local ok, refusal = up:add_monitor("tcp", {id = "t" .. i, interval = 3600})
            err = err or refusal
        end
        ngx.log(ngx.NOTICE, "init_worker said ", tostring(err))
    }
    server {
        listen 127.0.0.1:$front reuseport;
        $lua_location
        location /foo/ { proxy_pass http://foo/; }
        location /balancer/ {
            proxy_pass http://changing/;
            header_filter_by_lua_block { ngx.header["X-Said"] = ngx.ctx.said }
        }
        location /header/ { return 200; header_filter_by_lua_block { $change $tell } }
        location /log/ { return 200; log_by_lua_block { $change ngx.log(ngx.NOTICE, "log said ", tostring(err)) } }
        location /rewrite/ { rewrite_by_lua_block { $change $tell ngx.exit(200) } }
        location /access/ { access_by_lua_block { $change $tell ngx.exit(200) } }
        location /timer/ {
            content_by_lua_block {
                ngx.timer.at(0, function() $change ngx.log(ngx.NOTICE, "timer said ", tostring(ok)) end)
            }
        }
    }
}
END
said() { curl -s -m 10 -o /dev/null -D - "$url/$1/" | tr -d '\r' | sed -n 's/^X-Said: //p'; }
logged() { grep -q "$1" "$T/front.log"; }

ok "init_worker_changes_by_a_blocking_exchange" logged "init_worker said nil"
is "rewrite_and_access_can_change" "$(said rewrite) $(said access)" "true nil true nil"
body "$url/timer/" >/dev/null
ok "a_timer_can_too" wait_for logged "timer said true"
is "the_balancer_phase_cannot" \
    "$(said balancer)" "nil peer \"$a\" cannot be changed in the balancer phase"
is "the_header_filter_cannot" \
    "$(said header)" "nil peer \"$a\" cannot be changed in the header_filter phase"
body "$url/log/" >/dev/null
ok "the_log_phase_cannot" wait_for logged "log said peer \"$a\" cannot be changed in the log phase"
is "the_library_can_be_loaded_twice_in_one_Lua_VM" "$(lua 'package.loaded["durpina.native"] = nil
    return require("durpina.native").socket()')" "$SOCKET"
is "the_controllers_own_words_arrive" "$(lua "local control = require 'durpina.control'
    return control.request('x', 'GET', {'http', 'upstreams', 'no such/one'})")" \
    'nil | there is no upstream "no such/one" | 404 | UpstreamNotFound'

kill_hard "$durpinad_pid"
like "without_a_controller_a_change_is_refused_with_the_remedy" \
    "$(lua "return Upstream.get('foo'):get_peer('$a'):set_weight(2)")" \
    "^nil \| the controller at \"$SOCKET\" does not answer: .*is durpinad running"
is "add_monitor_does_not_raise_for_that" \
    "$(lua "return Upstream.get('foo'):add_monitor('tcp')" | cut -c1-6)" "nil | "
is "reads_go_on" \
    "$(lua "local u = Upstream.get('foo') local p = u:get_peer('$a') return #u:get_peers(), p:get_weight(), p:is_down()")" \
    "2 | 5 | false"
is "failures_and_temporary_states_go_on" "$(lua "local p = Upstream.get('foo'):get_peer('$a')
    return p:add_fail(), p:is_down('temporary'), p:set_state('up'), p:is_down()")" "1 | true | true | false"
is "requests_go_on" "$(tally 60 2 "$url/foo/")" "a=50 b=10"
like "info_says_what_it_does_not_know" \
    "$(lua "return Upstream.get('foo'):info()" | jq -r .monitors_unknown)" "does not answer"

start_durpinad
is "with_a_controller_a_change_works_again" \
    "$(lua "return Upstream.get('foo'):get_peer('$a'):set_weight(2)")" true
kill -STOP "$durpinad_pid"
start=${EPOCHREALTIME/./}
before=$(grep -c "init_worker said" "$T/front.log")
kill -KILL "$(workers "$nginx_front" | head -n 1)"
both_run() { has_workers "$nginx_front" 2 && [ "$(grep -c "init_worker said" "$T/front.log")" -gt "$before" ]; }
ok "a_worker_starts_beside_a_controller_that_hangs" wait_for both_run
between "and_waits_for_it_once (ms)" $(((${EPOCHREALTIME/./} - start) / 1000)) 900 2500
ok "which_is_said" \
    logged "init_worker said the controller at .* does not answer: no answer in time (is durpinad running?)"
is "requests_do_not_wait_at_all" "$(tally 60 2 "$url/foo/")" "a=40 b=20"
kill -CONT "$durpinad_pid"

# --- nginx without the module
sed -e '/ngx_http_durpina_module/d' -e '/durpina_/d' -e '/^    upstream/,$d' \
    -e "s|$T/front|$T/bare|" "$T/front.conf" >"$T/bare.conf"
echo 'init_by_lua_block { require "durpina.upstream" } }' >>"$T/bare.conf"
mkdir "$T/bare"
not_ok "without_the_module_nginx_does_not_start" nginx_run bare
ok "and_says_what_is_missing" \
    grep -q "load_module ngx_http_durpina_module.so is missing in nginx.conf" "$T/bare.log"
done_testing
