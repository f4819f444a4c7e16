# SPDX-License-Identifier: MIT
# durpina.peer: every call, and that all workers see the same.
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
start_backend both "" 127.0.0.1 '[::1]'
# A weight of 65535 needs a schedule that long.
echo 'upstreams 64; peers 1k; slots 1m;' >"$T/durpinad.conf"
start_durpinad
balancer='balancer_by_lua_block { require "durpina.balancer" "round-robin" }'
conf() {
    cat <<END
http {
    lua_shared_dict upstream 1m;
    upstream foo { server $a; server $b weight=4 max_fails=3 fail_timeout=30s; server $c down; $balancer }
    upstream dual { server $a; $balancer }
    upstream pair { server $a; server 127.0.0.1:$dead fail_timeout=60s; $balancer }
    server {
        listen 127.0.0.1:$front reuseport;
        $lua_location
        location /foo/ { proxy_pass http://foo/; }
        location /dual/ { proxy_pass http://dual/; }
        location /pair/ { proxy_pass http://pair/; }
    }
}
END
}
start_nginx front 4 < <(conf)
b() { lua "local p = Upstream.get('foo'):get_peer('$b') $1"; }
b_everywhere() { lua_everywhere 4 "local p = Upstream.get('foo'):get_peer('$b') $1"; }

is "fields_are_those_of_the_line" \
    "$(b 'return p.name, p.hostname, p.port, p.initial_weight, p.max_fails, p.fail_timeout')" \
    "$b | 127.0.0.1 | $port_b | 4 | 3 | 30"
is "get_address_has_no_port" "$(b 'return p:get_address()')" 127.0.0.1
is "get_upstream_is_the_upstream" "$(b 'return p:get_upstream() == Upstream.get("foo")')" true
is "an_object_is_the_same_as_long_as_it_is_held" \
    "$(b "return p == p:get_upstream():get_peer('$b')")" true
is "it_has_no_fields_beyond" "$(b 'return p.nonsense')" nil

# --- weights
is "set_weight_returns_true" "$(b 'return p:set_weight(7)')" true
is "every_worker_has_the_new_weight_at_once" \
    "$(b_everywhere 'return p:get_weight(), p.initial_weight')" "7 | 4"
is "digits_are_a_weight" "$(b 'return p:set_weight("9"), p:get_weight()')" "true | 9"
is "defect_15_other_weights_are_refused_and_change_nothing" "$(b 'local out = {}
    for _, w in ipairs{1.5, "abc", -1, 65536, 0/0, true, "1.5", ""} do
        local ok, err = p:set_weight(w) out[#out + 1] = tostring(ok) .. type(err) end
    local ok, err = p:set_weight(nil) out[#out + 1] = tostring(ok) .. type(err)
    return table.concat(out, " "), p:get_weight()')" \
    "$(printf 'nilstring %.0s' 1 2 3 4 5 6 7 8)nilstring | 9"
is "the_bounds_are_weights" \
    "$(b 'return p:set_weight(65535), p:get_weight(), p:set_weight(0), p:get_weight()')" \
    "true | 65535 | true | 0"
is "weight_0_drains" \
    "$(b 'return p:is_down(), p:set_state("up")'; tally 100 4 "$url/foo/")" "false | true
a=100"
is "picks_go_by_the_new_weight_at_once" \
    "$(b 'return p:set_weight(3)'; tally 100 4 "$url/foo/")" "true
a=25 b=75"

# --- states
is "set_state_down_is_permanent" "$(b 'return p:set_state("down")'
    b_everywhere 'return p:is_down(), p:is_down("any"), p:is_down("permanent"), p:is_down("down"), p:is_down("temporary")')" "true
true | true | true | true | false"
is "a_peer_that_is_down_gets_nothing" "$(tally 100 4 "$url/foo/")" "a=100"
is "set_state_up_lifts_it" "$(b 'return p:set_state("up"), p:is_down()')" "true | false"
is "set_state_temporary_down_is_temporary" "$(b 'return p:set_state("temporary_down")'
    b_everywhere 'return p:is_down(), p:is_down("temporary"), p:is_down("temp_down"), p:is_down("failed"), p:is_down("permanent")')" "true
true | true | true | true | false"
is "a_peer_that_is_temporarily_down_gets_nothing" "$(tally 100 4 "$url/foo/")" "a=100"
is "set_state_up_lifts_it_too" "$(b 'return p:set_state("up"), p:is_down()')" "true | false"
is "set_state_drain_keeps_it_in_no_sense_down" \
    "$(b 'return p:set_state("drain"), p:is_down()'; tally 100 4 "$url/foo/")" "true | false
a=100"
is "and_up_ends_it" "$(b 'return p:set_state("up")'; tally 100 4 "$url/foo/")" "true
a=25 b=75"
like "another_state_raises_with_the_valid_ones" "$(b 'return p:set_state("broken")')" \
    'raised: .*"broken".*"down", "drain", "maint", "temporary_down", "up"'
like "another_kind_of_down_raises_with_the_valid_ones" \
    "$(b 'return p:is_down("broken")')" 'raised: .*"broken".*"any"'

# --- failures
is "add_fail_counts_over_all_workers" \
    "$(b 'return p:add_fail()'; b 'return p:is_failing(), p:is_down()')" "1
true | false"
is "defect_9_max_fails_failures_take_it_out" \
    "$(b 'return p:add_fail(), p:is_down()'; b 'return p:add_fail(), p:is_down("temporary")')" \
    "2 | false
3 | true"
is "every_worker_sees_it_at_once" \
    "$(b_everywhere 'return p:is_down("temporary"), p:is_failing()')" "true | true"
is "set_state_up_forgets_failures" \
    "$(b 'return p:set_state("up"), p:is_failing(), p:add_fail()'; b 'return p:set_state("up")')" \
    "true | false | 1
true"
is "defect_7_a_failed_try_is_counted_the_last_one_too" \
    "$(for _ in 1 2 3 4; do body "$url/pair/" | tr '\n' ' '; done
    lua "local p = Upstream.get('pair'):get_peer('127.0.0.1:$dead') return p:is_down('temporary'), p:get_stats().failed")" \
    "a a a a true | 1"

# --- numbers
is "get_stats_counts" "$(lua "local s = Upstream.get('pair'):get_peer('$a'):get_stats()
    return s.requests, s.failed, s.responses['2xx'], s.responses.total, s.received > 0, type(s.header_time), s.active")" \
    "4 | 0 | 4 | 4 | true | number | 0"
curl -s -m 10 "$url/pair/delay/1000" >/dev/null &
in_flight() { [ "$(active pair)" = 1 ]; }
wait_for in_flight
is "get_active_counts_over_all_workers" \
    "$(lua_everywhere 4 "return Upstream.get('pair'):get_peer('$a'):get_active()")" 1
wait $!
is "and_it_is_given_back" "$(lua "return Upstream.get('pair'):get_peer('$a'):get_active()")" 0

# --- names
# The machine's own names may have one address only: an nginx that knows a name with two says so.
api POST /api/9/durpina/nginx '{"instance": "another", "pid": 0, "worker_uid": 33, "upstreams":
    [{"name": "dual", "durpina": true, "servers": [{"server": "two.invalid:'"$port_both"'", "weight": 3,
      "addresses": ["127.0.0.1:'"$port_both"'", "[::1]:'"$port_both"'"]}]}]}' >/dev/null
dual() { lua "local p = Upstream.get('dual'):get_peer('two.invalid:$port_both') $1"; }
is "defect_3_a_name_with_two_addresses_is_one_peer" \
    "$(lua_everywhere 4 "local u = Upstream.get('dual') local p = u:get_peer('two.invalid:$port_both')
        return #u:get_peers(), p.name, p.hostname, p.port, p:get_weight()")" \
    "2 | two.invalid:$port_both | two.invalid | $port_both | 3"
is "and_serves" "$(tally 20 2 "$url/dual/" | tr ' ' '\n' | cut -d= -f1 | tr '\n' ' ')" "a both "
is "info_lists_both_addresses" "$(lua "return Upstream.get('dual'):info()" |
    jq -c '.peers[] | select(.addresses) | [.address, .addresses]')" \
    "[\"127.0.0.1\",[\"127.0.0.1:$port_both\",\"[::1]:$port_both\"]]"
each() {
    dual "local server = p:get_upstream():_server(p.name)
        require('durpina.native').set_temp_down(server.ids[$1], server.generations[$1], $2)"
}
is "it_is_as_good_as_its_best_address" \
    "$(each 1 true; dual 'return p:is_down()'; each 2 true; dual 'return p:is_down()'
        each 1 false; dual 'return p:is_down(), p:set_state("up")')" "
false

true

false | true"
is "temporary_down_is_for_all_its_addresses" \
    "$(dual 'return p:set_state("temporary_down"), p:is_down()'; tally 20 2 "$url/dual/")" "true | true
a=20"
is "and_so_is_down" \
    "$(dual 'return p:set_state("up"), p:is_down(), p:set_state("down")'; tally 20 2 "$url/dual/")" \
    "true | false | true
a=20"
is "and_up" "$(dual 'return p:set_state("up"), p:is_down()')" "true | false"
is "resolve_of_an_address_is_true" "$(b 'return p:resolve(), p:resolve(true)')" "true | true"
is "resolve_of_a_name_is_true" \
    "$(lua "local p = assert(Upstream.get('dual'):add_peer('localhost:$port_both'))
        return p:resolve(true), p:resolve(), p:get_address() ~= nil, p:get_upstream():remove_peer(p)")" \
    "true | true | true | true"
is "a_name_that_cannot_be_looked_up_keeps_its_addresses" \
    "$(dual 'p:resolve(true) return p:get_address(), #p:_addresses()')" "127.0.0.1 | 2"
is "a_name_without_address_says_so" \
    "$(lua "local u = Upstream.get('dual') local p = assert(u:add_peer('nowhere.invalid:80'))
    return p:get_address()")" 'nil | peer "nowhere.invalid:80" has not been resolved'
is "and_info_prints_a_question_mark" "$(lua "return Upstream.get('dual'):info()" |
    jq -c '[.peers[] | select(.name == "nowhere.invalid:80") | .address, .state]')" '["?","temp_down"]'
lua "assert(Upstream.get('dual'):remove_peer('nowhere.invalid:80'))" >/dev/null

# --- reload
is "defect_5_a_peer_down_in_the_file_can_be_set_up" \
    "$(lua "local p = Upstream.get('foo'):get_peer('$c') return p:is_down('permanent'), p:set_state('up'), p:is_down()")" \
    "true | true | false"
reload_nginx front
is "defect_5_and_stays_up_when_workers_start" \
    "$(lua_everywhere 4 "return Upstream.get('foo'):get_peer('$c'):is_down()")" false
is "a_runtime_weight_stays_too" "$(b_everywhere 'return p:get_weight()')" 3
is "a_tostring_for_logs" "$(b 'return tostring(p)')" "$b $b weight=3 up fails=0 active=0"

# --- a removed peer
is "an_object_of_a_removed_peer_says_so" \
    "$(b 'local gone = p.name .. "\" is not in upstream \"foo\" any more"
    assert(p:get_upstream():remove_peer(p))
    local out = {}
    for i, call in ipairs{"get_address", "get_weight", "add_fail", "get_active", "get_stats", "resolve"} do
        local ok, err = p[call](p) out[i] = tostring(ok) .. tostring(err:find(gone, 1, true) ~= nil) end
    for _, state in ipairs{"up", "down", "drain", "temporary_down"} do
        local ok, err = p:set_state(state) out[#out + 1] = tostring(ok) .. tostring(err:find(gone, 1, true) ~= nil) end
    local ok, err = p:set_weight(1) out[#out + 1] = tostring(ok) .. tostring(err:find(gone, 1, true) ~= nil)
    return table.concat(out, " "), p:is_down(), p:is_failing()')" \
    "$(printf 'niltrue %.0s' 1 2 3 4 5 6 7 8 9 10)niltrue | true | false"
done_testing
