# SPDX-License-Identifier: MIT
# Monitors that are written in Lua: what their functions get, and what follows from what they do.
. "$(dirname "$0")/../lib/harness.sh"
. "$(dirname "$0")/../lib/lua.sh"

start_backend a
start_backend b
free_port
front=$ret_port
free_port
both=$ret_port
start_backend dual "$both" 127.0.0.1 '[::1]'
lua_url=http://127.0.0.1:$front/lua
a=127.0.0.1:$port_a b=127.0.0.1:$port_b
start_durpinad
balancer='balancer_by_lua_block { require "durpina.balancer" "round-robin" }'
start_nginx front 2 <<END
http {
    lua_shared_dict upstream 1m;
    lua_shared_dict told 1m;
    upstream foo { server $a; server $b; $balancer }
    upstream bar { server $a; $balancer }
    upstream many { $(printf 'server 127.0.0.1:%d; ' {1..70}) $balancer }
    upstream dual { server 127.0.0.1:$both; $balancer }
    init_worker_by_lua_block {
        local Upstream = require "durpina.upstream"
        local Monitor = require "durpina.monitor"
        Upstream.init("upstream")
        told = ngx.shared.told

        -- As Durpina's manual has it: a table, a function, and what Durpina's own tcp monitor does.
        assert(Monitor.register("line", {
            interval = "100ms",
            init = function(upstream, shared, state)
                assert(state.color ~= "red", "red is no color")
                state.inits = shared:incr("inits", 1, 0)
            end,
            check = function(upstream, peer, shared, state)
                local address = peer:get_address()
                local sock = ngx.socket.tcp()
                sock:settimeout(1000)
                local ok, err = sock:connect(address, state.port or peer.port)
                if not ok then peer:add_fail() return nil, err end
                sock:send("GET /still_alive HTTP/1.0\r\n\r\n")
                local line = sock:receive("*l")
                sock:close()
                shared:set(peer.name, line)
                shared:incr("checks", 1, 0)
            end,
        }))
        -- Does what the test says, by peer.
        doings = {
            ["false"] = function() return false end,
            ["nil and an error"] = function() return nil, "too blue" end,
            ["nil"] = function() return nil end,
            ["nothing"] = function() end,
            ["a number"] = function() return 0 end,
            ["raise"] = function() error("it broke", 0) end,
            ["raise a table"] = function() error({}) end,
            ["raise in a coroutine"] = function()
                coroutine.wrap(function() ngx.sleep(0.001) error("deep") end)()
            end,
            ["binary"] = function() return nil, "caf\195\169 \255\0\n" end,
            ["hang"] = function() ngx.sleep(60) end,
            ["add_fail"] = function(peer) peer:add_fail() end,
            ["set_weight"] = function(peer) assert(peer:set_weight(7)) end,
            ["set_state"] = function(peer) assert(peer:set_state("down")) end,
        }
        assert(Monitor.register("told", function(upstream, peer, shared, state)
            told:incr(upstream.name .. state.id .. peer.name, 1, 0)
            local doing = told:get("do " .. peer.name) or "nothing"
            return doings[doing](peer)
        end))
        assert(Monitor.register("where", function(upstream, peer, shared, state)
            told:incr("address " .. peer:get_address(), 1, 0)
        end))
        local running = 0
        assert(Monitor.register("slow", function(upstream, peer, shared, state)
            running = running + 1
            if running > (told:get("most") or 0) then told:set("most", running) end
            ngx.sleep(1)
            running = running - 1
            told:set("slow " .. peer.name, true)
        end))
        Upstream.get("foo")
    }
    server { listen 127.0.0.1:$front reuseport; $lua_location }
}
END
upstream() { lua "local u = Upstream.get('$1') $2"; }
# do_ PEER DOING
do_() { lua "told:set('do $1', '$2')" >/dev/null; }
state() { upstream foo 'return u:info()' | jq -r ".peers[] | select(.name == \"$1\") | .state"; }
has_state() { [ "$(state "$1")" = "$2" ]; }
runs() { lua "return told:get('$1') or 0"; }
runs_more_than() { [ "$(runs "$1")" -gt "$2" ]; }
# Why it became unhealthy the last time.
reason() { grep -F "peer $1 " "$T/durpinad.log" | sed -n 's/.* is unhealthy: monitor [a-z]*: //p' | tail -n 1; }
logged() { grep -c -e "$1" "$T/front.log"; }

# --- as in Durpina's manual ----------------------------------------------------------------------

is "a_registered_monitor_can_be_added" "$(upstream foo 'return u:add_monitor("line")')" true
is "and_again" "$(upstream foo 'return u:add_monitor("line")')" true
like "info_names_it" "$(upstream foo 'return u:info()' | jq -c .monitors)" '"id":"line","name":"line"'
key() { lua "return ngx.shared.upstream:get('monitor foo line $1')"; }
key_is() { [ "$(key "$1")" = "$2" ]; }
ok "its_check_talks_to_each_peer" wait_for key_is "$a" "HTTP/1.1 200 OK"
ok "and_to_the_other" wait_for key_is "$b" "HTTP/1.1 200 OK"
is "a_check_that_returns_nothing_passes" "$(state "$a") $(state "$b")" "up up"
is "init_runs_once" "$(key inits)" 1
kill_hard "$backend_b"
ok "nil_and_an_error_is_a_failed_check" wait_for has_state "$b" unhealthy
is "with_the_error_as_its_reason" "$(reason "$b")" "connection refused"
start_backend b "$port_b"
ok "it_comes_back" wait_for has_state "$b" up
upstream foo 'u:remove_monitor("line")' >/dev/null

is "a_second_monitor_of_it_has_other_options (defect_11)" \
    "$(upstream foo 'return u:add_monitor("line", {id = "blue", color = "blue", interval = 0.1}),
        u:add_monitor("line", {id = "red", color = "red", interval = 0.1})')" "true | true"
ok "an_init_that_raises_is_a_failed_check" wait_for has_state "$a" unhealthy
like "with_its_text_as_reason" "$(reason "$a")" "red is no color"
is "and_is_logged_once" "$(logged 'monitor "red" of upstream "foo", init: .*red is no color')" 1
blue_runs() { [ "$(lua "return ngx.shared.upstream:get('monitor foo blue checks') or 0")" -gt 2 ]; }
ok "the_other_one_runs_with_its_own_dictionary" wait_for blue_runs
upstream foo 'u:remove_monitor("blue") u:remove_monitor("red")' >/dev/null

# --- what a check returns ------------------------------------------------------------------------

is "options_are_the_checks_own" \
    "$(upstream foo 'return u:add_monitor("told", {interval = 0.1, timeout = 300, depth = 3, id = "t"})')" true
for doing in false "nil and an error" raise binary "raise a table" "raise in a coroutine"; do
    do_ "$b" "$doing"
    ok "${doing// /_}_fails" wait_for has_state "$b" unhealthy
    case $doing in
    false) wanted='check() returned false' ;;
    "nil and an error") wanted='too blue' ;;
    raise) wanted='it broke' ;;
    binary) wanted='caf\xc3\xa9 \xff\x00\x0a' ;;
    *) wanted=${doing/raise/raised} ;;
    esac
    is "with_its_reason" "$(reason "$b")" "$wanted"
    is "and_the_other_peer_is_not_concerned" "$(state "$a")" up
    do_ "$b" nothing
    ok "and_it_recovers" wait_for has_state "$b" up
done
for doing in nil "a number"; do
    do_ "$b" "$doing"
    n=$(runs "foot$b")
    ok "${doing// /_}_is_checked" wait_for runs_more_than "foot$b" $((n + 2))
    is "and_passes" "$(state "$b")" up
done
do_ "$b" raise
n=$(runs "foot$b")
ok "defect_11_a_check_that_raises_runs_again" wait_for runs_more_than "foot$b" $((n + 3))
is "a_raise_is_logged_once_until_it_changes" \
    "$(logged 'monitor "t" of upstream "foo", peer '"$b"': it broke')" 2
do_ "$b" nothing
wait_for has_state "$b" up
do_ "$b" hang
ok "a_check_that_hangs_fails" wait_for has_state "$b" unhealthy
is "by_its_timeout" "$(reason "$b")" "no answer in 300 ms"
n=$(runs "foot$a")
ok "and_delays_no_other" wait_for runs_more_than "foot$a" $((n + 5))
is "which_is_up" "$(state "$a")" up
n=$(runs "foot$b")
ok "it_runs_again_itself" wait_for runs_more_than "foot$b" $((n + 1))
do_ "$b" nothing
ok "and_recovers" wait_for has_state "$b" up

# --- what a check does ---------------------------------------------------------------------------

down() { [ "$(lua "return Upstream.get('foo'):get_peer('$1'):is_down('$2')")" = true ]; }
do_ "$b" add_fail
ok "add_fail_in_a_check_counts" wait_for down "$b" temporary
do_ "$b" set_weight
weight_is() { [ "$(lua "return Upstream.get('foo'):get_peer('$1'):get_weight()")" = "$2" ]; }
ok "set_weight_in_a_check_is_in_force" wait_for weight_is "$b" 7
do_ "$b" set_state
ok "set_state_in_a_check_is_the_operators_word" wait_for down "$b" permanent
do_ "$b" nothing
upstream foo "u:get_peer('$b'):set_state('up')" >/dev/null

is "two_upstreams_with_one_address_have_checks_of_their_own" \
    "$(upstream bar 'return u:add_monitor("told", {interval = 0.1})')" true
ok "and_they_run" wait_for runs_more_than "bartold$a" 2

# The instance is one of the test, so that the name has two addresses on any machine.
api POST /api/9/durpina/nginx '{"instance": "test", "pid": 1, "worker_uid": 33, "upstreams": [
    {"name": "dual", "durpina": true, "servers": [{"server": "both:'"$both"'",
        "addresses": ["127.0.0.1:'"$both"'", "[::1]:'"$both"'"], "weight": 1, "max_conns": 0, "max_fails": 1,
        "fail_timeout_ms": 10000, "slow_start_ms": 0, "down": false, "backup": false}]}]}' >/dev/null
is "a_name_with_two_addresses" "$(upstream dual 'return u:add_monitor("where", {interval = 0.1})')" true
ok "is_checked_at_the_one" wait_for runs_more_than "address [::1]" 1
ok "and_at_the_other" wait_for runs_more_than "address 127.0.0.1" 1

# --- the dictionary ------------------------------------------------------------------------------

is "shared_is_a_dictionary_of_this_monitor" "$(lua 'require("durpina.monitor").register("dict",
    function(_, _, shared, state)
        if told:get("dict" .. state.id) then return end
        local seen = { shared:get("k") == nil, shared:set("k", 1, 0, 7), shared:add("k", 2) == false, shared:replace("k", 3),
            shared:incr("k", 1), select(2, shared:get("k")) == nil, shared:get_stale("k"), shared:safe_set("k2", 1),
            shared:safe_add("k3", 1), shared:expire("k", 100), shared:ttl("k") > 99, shared:delete("k2"),
            shared:lpush("l", 1), shared:rpush("l", 2), shared:lpop("l"), shared:rpop("l"), select(2, shared:get("")) }
        for i = 1, #seen do seen[i] = tostring(seen[i]) end
        told:set("dict" .. state.id, table.concat(seen, " "))
    end)
    local u = Upstream.get("bar")
    u:add_monitor("dict", {interval = 0.05, id = "one"}) u:add_monitor("dict", {interval = 0.05, id = "two"})
    for _ = 1, 500 do if told:get("dictone") and told:get("dicttwo") then break end ngx.sleep(0.01) end
    return told:get("dictone") == told:get("dicttwo"), told:get("dictone")')" \
    "true | true true true true 4 true 4 true true true true true 1 2 1 2 empty key"

# --- how many at once ----------------------------------------------------------------------------

many=$(upstream many 'u:add_monitor("slow", {interval = 0.5, timeout = 5000})
    local function n() local n = 0 for port = 1, 70 do if told:get("slow 127.0.0.1:" .. port) then n = n + 1 end end return n end
    for _ = 1, 500 do if n() == 70 then break end ngx.sleep(0.01) end
    u:remove_monitor("slow") return n(), told:get("most")')
is "of_70_slow_checks_64_run_at_once_and_all_of_them" "$many" "70 | 64"

# --- misuse --------------------------------------------------------------------------------------

register() { lua "return require('durpina.monitor').register($1)"; }
is "the_same_registration_again_is_fine" \
    "$(lua 'local m = require("durpina.monitor") return m.register("new", print), m.register("new", print)')" "true | true"
like "other_functions_are_refused" "$(lua 'local m = require("durpina.monitor") m.register("newer", print)
    return m.register("newer", function() end)')" 'raised: .*"newer".*already'
like "a_built_in_name_is_refused" "$(register '"http", print')" 'raised: .*"http".*built in'
like "a_check_that_is_no_function_is_refused" "$(register '"x", {check = 5}')" 'raised: .*"x".*check'
like "an_init_that_is_no_function_is_refused" "$(register '"x", {check = print, init = 5}')" 'raised: .*init'
like "a_bad_interval_is_refused" "$(register '"x", {check = print, interval = "soon"}')" 'raised: .*soon'
like "a_name_that_is_no_string_is_refused" "$(register '5, print')" 'raised: .*name'
like "a_name_that_was_not_registered_cannot_be_added" \
    "$(upstream bar 'return u:add_monitor("unheard")')" 'raised: .*unheard'
like "a_bad_common_option_is_refused" \
    "$(upstream bar 'return u:add_monitor("told", {id = "x", fall = 0})')" 'raised: .*fall'
is "a_built_in_name_is_refused_by_the_controller_too" \
    "$(api POST /api/9/durpina/upstreams/bar/monitors '{"name": "http", "lua": true}' | jq -r .error.code)" \
    MonitorBadOptions
long=$(printf 'x%.0s' {1..64})
is "a_name_of_64_bytes_is_refused" \
    "$(api_code POST /api/9/durpina/upstreams/bar/monitors '{"id": "x", "name": "'"$long"'", "lua": true}')" 400
is "a_name_of_63_bytes_is_not" \
    "$(api_code POST /api/9/durpina/upstreams/bar/monitors '{"id": "x", "name": "'"${long#x}"'", "lua": true}')" 201

ask() { api POST /api/9/durpina/lua "$1" | jq -r '.error.code // .next_ms'; }
for request in '{"names": [], "room": 1}' '{"worker": "", "names": [], "room": 1}' '{"worker": "'"$long"'", "names": [], "room": 1}' \
    '{"worker": "x", "names": [5], "room": 1}' '{"worker": "x", "names": "told", "room": 1}' '{"worker": "x", "names": [], "room": 1025}' \
    '{"worker": "x", "names": [], "room": 1, "leave": 1}' '{"worker": "x", "names": [], "room": 1, "more": 1}' \
    '{"worker": "x", "names": [], "room": 1, "results": [{"check": 1, "reason": 5}]}' \
    '{"worker": "x", "names": [], "room": 1, "results": [{"check": "one", "reason": ""}]}' \
    '{"worker": "x", "names": [], "room": 1, "results": [{"check": 1, "passed": 1, "reason": ""}]}'; do
    is "a_wrong_question_is_refused: ${request//$long/x...}" "$(ask "$request")" UpstreamConfFormatError
done
is "a_right_one_is_answered" "$(ask '{"worker": "'"${long#x}"'", "names": ["x"], "room": 1024,
    "results": [{"check": 1, "passed": true, "reason": "of nobody"}], "leave": true}')" 1000

# --- a worker that exits -------------------------------------------------------------------------

do_ "$b" hang
upstream foo 'u:remove_monitor("t") u:add_monitor("told", {id = "long", interval = 0.1, timeout = "1h"})' >/dev/null
ok "a_check_that_runs_for_long" wait_for runs_more_than "foolong$b" 0
old=$(workers "$nginx_front")
reload_nginx front
gone() { ! ls -d $(printf '/proc/%s ' $old) 2>/dev/null; }
ok "does_not_keep_a_worker_from_exiting" wait_for gone
ok "and_runs_in_the_next" wait_for runs_more_than "foolong$b" 1
not_ok "nothing_else_went_wrong" grep "monitors written in Lua" "$T/front.log"

# --- an nginx that allows few timers -------------------------------------------------------------

free_port
start_nginx tight 1 <<END
http {
    lua_shared_dict upstream 1m;
    lua_max_pending_timers 1;
    lua_max_running_timers 2;
    upstream tight { server $a; $balancer }
    init_worker_by_lua_block {
        local Upstream = require "durpina.upstream"
        Upstream.init("upstream")
        require("durpina.monitor").register("few", function(_, _, shared) shared:incr("runs", 1, 0) end)
        assert(Upstream.get("tight"):add_monitor("few", {interval = 0.1}))
    }
    server { listen 127.0.0.1:$ret_port; $lua_location }
}
END
lua_url=http://127.0.0.1:$ret_port/lua
few_run() { [ "$(lua 'return ngx.shared.upstream:get("monitor tight few runs") or 0')" -gt 2 ]; }
ok "one_pending_timer_is_enough" wait_for few_run
done_testing
