# SPDX-License-Identifier: MIT
# durpina.upstream: every call, from four workers.
. "$(dirname "$0")/../lib/harness.sh"
. "$(dirname "$0")/../lib/lua.sh"

for backend in a b c; do
    start_backend "$backend"
done
free_port
front=$ret_port
lua_url=http://127.0.0.1:$front/lua
a=127.0.0.1:$port_a b=127.0.0.1:$port_b c=127.0.0.1:$port_c
start_durpinad
balancer='balancer_by_lua_block { require "durpina.balancer" "round-robin" }'

# conf OPTIONS LINES: the upstream block foo has these lines; init_worker passes these options.
conf() {
    cat <<END
http {
    lua_shared_dict upstream 1m;
    upstream foo { $2 $balancer }
    upstream bar { server 0.0.0.0; $balancer }
    upstream plain { server $a weight=4; server $b down; }
    init_worker_by_lua_block {
        local Upstream = require "durpina.upstream"
        Upstream.init("upstream", $1)
        local bar = assert(Upstream.get("bar"))
        assert(bar:add_peer("$a weight=1"))
        assert(bar:add_peer({host = "127.0.0.1", port = $port_b, weight = 7, fail_timeout = 10}))
        assert(bar:add_peer("$a weight=1"))
    }
    server {
        listen 127.0.0.1:$front reuseport;
        $lua_location
        location /foo/ { proxy_pass http://foo/; }
        location /bar/ { proxy_pass http://bar/; }
    }
}
END
}
lines="server $a weight=5; server $b weight=3 max_fails=2 fail_timeout=20s; server $c backup;"
start_nginx front 4 < <(conf '{default_port = 8080}' "$lines")

not_ok "init_worker_succeeds_in_every_worker" grep -q "init_worker_by_lua error" "$T/front.log"
like "init_raises_on_a_missing_dictionary" "$(lua 'return Upstream.init("nope")')" \
    "^raised: .*: nginx.conf needs lua_shared_dict nope 1m;"
like "init_raises_on_a_default_port_that_is_no_number" \
    "$(lua 'return Upstream.init("upstream", {default_port="80"})')" "raised: .*default_port must be"
is "init_returns_true" "$(lua 'return Upstream.init("upstream")')" true
is "init_takes_an_array_of_resolvers (defect_15)" \
    "$(lua 'return Upstream.init("upstream", {resolver={"127.0.0.1", "127.0.0.1:5353"}})')" true
is "set_resolver_takes_a_string" "$(lua 'return Upstream.set_resolver("127.0.0.53")')" true
like "set_resolver_raises_on_another_type" \
    "$(lua 'return Upstream.set_resolver(5)')" "raised: .*string or"
like "set_resolver_raises_on_a_bad_address" \
    "$(lua 'return Upstream.set_resolver("not an address")')" \
    "raised: .*not an address"

is "an_unknown_upstream_is_named" \
    "$(lua 'return Upstream.get("nope")')" "nil | unknown upstream nope"
is "the_same_object_comes_back" \
    "$(lua 'return Upstream.get("foo") == Upstream.get("foo"), Upstream.get("foo").name')" \
    "true | foo"
is "defect_3_a_placeholder_is_no_peer_and_backups_are_no_primaries" \
    "$(lua_everywhere 4 'local names = {}
        for _, up in ipairs{"foo", "bar"} do for _, p in ipairs(Upstream.get(up):get_peers()) do
            names[#names + 1] = up .. "=" .. p.name end end
        return table.concat(names, " ")')" "foo=$a foo=$b bar=$a bar=$b"
is "get_all_lists_upstreams" \
    "$(lua 'local n = {} for _, u in ipairs(Upstream.get_all()) do n[#n+1] = u.name end
    table.sort(n) return table.concat(n, " ")')" "bar foo"
is "an_upstream_without_a_balancer_of_ours_is_taken_when_asked_for" \
    "$(lua_everywhere 4 'local out = {} for i, p in ipairs(Upstream.get("plain"):get_peers()) do
        out[i] = p.name .. "=" .. p:get_weight() .. "/" .. tostring(p:is_down()) end return table.concat(out, " ")')" \
    "$a=4/false $b=1/true"
api POST /api/9/durpina/upstreams '{"name": "made"}' >/dev/null
is "an_upstream_made_by_the_API_is_found" \
    "$(lua 'local u = Upstream.get("made") return u.name, #u:get_peers()')" "made | 0"

revision=$(lua 'return Upstream.get("foo").revision')
is "get_peer_finds_by_name" "$(lua "return Upstream.get('foo'):get_peer('$b').name")" "$b"
is "get_peer_finds_backups" "$(lua "return Upstream.get('foo'):get_peer('$c').backup")" true
is "get_peer_gives_nil_for_a_stranger" "$(lua 'return Upstream.get("foo"):get_peer("nope:1")')" nil
is "get_peer_gives_nil_for_nonsense" \
    "$(lua 'local u = Upstream.get("foo") return u:get_peer(nil), u:get_peer({}), u:get_peer("")')" \
    "nil | nil | nil"

selected() {
    lua "local out = {} for i, p in ipairs(Upstream.get('foo'):get_peers($1)) do out[i] = p.name end
        return table.concat(out, ' ')"
}
is "selectors_all" "$(selected nil)=$(selected '"all"')" "$a $b=$a $b"
lua "Upstream.get('foo'):get_peer('$b'):add_fail()" >/dev/null
is "selectors_failing_and_up" "$(selected '"failing"')=$(selected '"up"')" "$b=$a $b"
lua "Upstream.get('foo'):get_peer('$b'):set_state('temporary_down')" >/dev/null
is "selectors_temporary_down" \
    "$(selected '"temporary_down"')=$(selected '"down"')=$(selected '"up"')" "$b=$b=$a"
lua "Upstream.get('foo'):get_peer('$a'):set_state('down')" >/dev/null
is "selectors_permanent_down" \
    "$(selected '"permanent_down"')=$(selected '"down"')=$(selected '"up"')" "$a=$a $b="
lua "for _, p in ipairs(Upstream.get('foo'):get_peers()) do p:set_state('up') end" >/dev/null
is "selectors_up_again" "$(selected '"up"')=$(selected '"down"')" "$a $b="
like "an_unknown_selector_raises_with_the_valid_ones" "$(selected '"broken"')" \
    'raised: .*"broken".*"all", "down", "failing", "permanent_down", "temporary_down", "up"'
like "a_change_moves_the_revision" "$(lua "return Upstream.get('foo').revision > $revision")" true

# --- add_peer, remove_peer
add() { lua "local p, err = Upstream.get('bar'):add_peer($1) return p and p.name, err"; }
is "an_equal_peer_is_the_existing_object" \
    "$(lua "local u = Upstream.get('bar') return u:add_peer('$a') == u:get_peer('$a')")" true
is "the_same_name_with_other_settings_is_refused" "$(add "'$a weight=2'")" \
    "nil | peer named $a already exists"
is "it_is_refused_after_a_runtime_weight_too_but_the_same_call_is_not" \
    "$(lua "local u = Upstream.get('bar') u:get_peer('$a'):set_weight(9) local p = u:add_peer('$a weight=1')
        return p:get_weight(), p.initial_weight, u:add_peer('$a weight=9')")" \
    "9 | 1 | nil | peer named $a already exists"
is "nor_does_a_change_over_the_API_make_the_same_call_another" "$(
    path=/api/9/http/upstreams/bar/servers/$(server_id bar "$b")
    api PATCH "$path" '{"max_fails": 5}' >/dev/null
    lua "local u = Upstream.get('bar')
        local p, err = u:add_peer{host = '127.0.0.1', port = $port_b, weight = 7, fail_timeout = 10}
        return p == u:get_peer('$b'), p and p.max_fails, err"
    api POST "${path/http/durpina}/reset" >/dev/null)" \
    "true | 5 | nil"
is "a_peer_of_the_file_with_the_same_settings_is_the_existing_one_too" \
    "$(lua "local u = Upstream.get('plain') return u:add_peer('$a weight=4') == u:get_peer('$a'),
        u:add_peer('$a weight=5')")" "true | nil | peer named $a already exists"
is "defect_1_a_string_keeps_its_words" \
    "$(lua 'local p = Upstream.get("bar"):add_peer("127.0.0.2:8080 fail_timeout=15 weight=7")
    return p.name, p:get_weight(), p.fail_timeout, p.hostname, p.port, p:get_address()')" \
    "127.0.0.2:8080 | 7 | 15 | 127.0.0.2 | 8080 | 127.0.0.2"
is "defect_2_tables_keep_port_and_weight" "$(lua 'local u = Upstream.get("bar")
    local p, q = u:add_peer{name="127.0.0.3:19183", weight=3}, u:add_peer{host="127.0.0.4", port=81}
    return p.port, p:get_weight(), p:get_address(), q.name, q:get_address()')" \
    "19183 | 3 | 127.0.0.3 | 127.0.0.4:81 | 127.0.0.4"
is "every_setting_arrives" \
    "$(lua 'local p = Upstream.get("bar"):add_peer{address="::1", port=82, max_fails=4,
        fail_timeout="1m", max_conns=6, backup=true, down=true, slow_start=2}
    return p.name, p:get_address(), p.max_fails, p.fail_timeout, p.max_conns, p.backup, p:is_down("permanent"), p.slow_start')" \
    "[::1]:82 | [::1] | 4 | 60 | 6 | true | true | 2"
is "a_missing_port_is_the_default_port" \
    "$(lua_everywhere 4 'return Upstream.get("bar"):add_peer("127.0.0.5").name')" \
    "127.0.0.5:8080"
is "a_name_is_resolved" "$(lua 'local p = Upstream.get("made"):add_peer("localhost:83")
    return p.name, p.hostname, p.port')" "localhost:83 | localhost | 83"
before=$(lua 'return #Upstream.get("bar"):get_peers(), Upstream.get("bar").revision')
like "a_bad_line_is_refused" "$(add '"x weight=1.5"')" '^nil \| .*1\.5'
like "a_bad_weight_is_refused" "$(add '{name="x", weight=65536}')" '^nil \| .*65536'
like "an_unknown_setting_is_refused" "$(add '{name="x", weigth=1}')" '^nil \| .*weigth'
like "nonsense_is_refused" "$(add 'nil')" '^nil \| '
like "a_name_that_cannot_be_one_is_refused" "$(add '"bad_host!:80"')" '^nil \| .*bad_host'
is "and_changes_nothing" \
    "$(lua 'return #Upstream.get("bar"):get_peers(), Upstream.get("bar").revision')" "$before"

is "defect_13_peers_added_by_all_workers_at_once_are_all_there" "$(
    for i in $(seq 1 24); do lua "return Upstream.get('made'):add_peer('127.0.1.$i:1 weight=$i')" >/dev/null & done
    wait
    lua 'local n, sum = 0, 0 for _, p in ipairs(Upstream.get("made"):get_peers()) do
        if p.name:find("^127.0.1") then n, sum = n + 1, sum + p:get_weight() end end return n, sum')" "24 | 300"
is "a_peer_is_removed_by_object" \
    "$(lua 'local u = Upstream.get("bar") local p = u:get_peer("127.0.0.2:8080")
    p:set_weight(50) p:add_fail()
    local ok, err = u:remove_peer(p) return ok, err, u:get_peer("127.0.0.2:8080"), p:is_down(), p:get_weight()')" \
    'true | nil | nil | true | nil | peer "127.0.0.2:8080" is not in upstream "bar" any more'
is "defect_13_a_peer_added_again_inherits_nothing" \
    "$(lua 'local p = Upstream.get("bar"):add_peer("127.0.0.2:8080 weight=2")
    return p:get_weight(), p:is_failing(), p:get_stats().requests')" "2 | false | 0"
is "a_peer_is_removed_by_name" \
    "$(lua 'return Upstream.get("bar"):remove_peer("127.0.0.2:8080")')" true
is "a_stranger_is_not_removed" "$(lua 'return Upstream.get("bar"):remove_peer("127.0.0.2:8080")')" \
    'nil | upstream "bar" has no peer named "127.0.0.2:8080"'
introduce() { api "$1" "/api/9/durpina/nginx$2" "${3:-}" >/dev/null; }
introduce POST "" '{"instance": "x", "pid": 0, "worker_uid": 33, "upstreams": [
    {"name": "short", "durpina": true, "servers": []}]}'
lua 'assert(Upstream.get("short"):add_peer("127.0.0.6:81"))' >/dev/null
introduce DELETE /x
is "the_last_peer_of_an_upstream_takes_it_along" "$(lua 'local u = Upstream.get("short")
    return u:remove_peer("127.0.0.6:81"), Upstream.get("short")')" "true | nil | unknown upstream short"
like "nor_a_peer_of_another_upstream" "$(lua "local p = Upstream.get('foo'):get_peer('$a')
    return Upstream.get('bar'):remove_peer(p)")" "^nil \| .*is of upstream \"foo\""
for name in 127.0.0.3:19183 127.0.0.4:81 '[::1]:82' 127.0.0.5:8080; do
    lua "assert(Upstream.get('bar'):remove_peer('$name'))" >/dev/null
done
is "in_the_end_every_worker_sees_the_same" "$(lua_everywhere 4 'local out = {}
    for i, p in ipairs(Upstream.get("bar"):get_peers()) do out[i] = p.name .. "=" .. p:get_weight() end
    return table.concat(out, " ")')" "$a=9 $b=7"

curl -s -m 10 "http://127.0.0.1:$front/bar/delay/1500" >"$T/slow" &
in_flight() { [ "$(active bar)" = 1 ]; }
wait_for in_flight
slow=$(api GET /api/9/http/upstreams/bar | jq -r '.peers[] | select(.active == 1) | .server')
lua "assert(Upstream.get('bar'):remove_peer('$slow'))" >/dev/null
wait $!
like "a_request_in_flight_survives_the_removal_of_its_peer" "$(cat "$T/slow")" '^[ab]$'
is "and_the_peer_gets_no_new_one" "$(tally 40 4 "http://127.0.0.1:$front/bar/" | wc -w)" 1
lua "local u = Upstream.get('bar') u:add_peer('$a weight=1') u:add_peer{host='127.0.0.1', port=$port_b, weight=7}" >/dev/null

# --- info, tostring
lua "local u = Upstream.get('foo') u:get_peer('$a'):set_weight(6) u:add_monitor('tcp', {interval = 3600})" >/dev/null
revision=$(lua 'return Upstream.get("foo").revision')
# "health" follows the keys of Durpina (lua_health.t).
is "info_keeps_keys_order_and_indentation" "$(lua 'return Upstream.get("foo"):info()' |
    sed '/^      "health":/d; s/^\(      "state":"[a-z_]*"\),$/\1/')" "{
  \"name\":\"foo\",
  \"revision\":$revision,
  \"peers\":[{
      \"name\":\"$a\",
      \"address\":\"127.0.0.1\",
      \"weight\":6,
      \"state\":\"up\"
    },{
      \"name\":\"$b\",
      \"address\":\"127.0.0.1\",
      \"weight\":3,
      \"state\":\"up\"
    }],
  \"monitors\":[{
      \"id\":\"tcp\",
      \"name\":\"tcp\"
    }],
  \"backups\":[{
      \"name\":\"$c\",
      \"address\":\"127.0.0.1\",
      \"weight\":1,
      \"state\":\"up\"
    }]
}"
is "info_of_an_empty_upstream_is_JSON" \
    "$(api POST /api/9/durpina/upstreams '{"name": "empty"}' >/dev/null
    lua 'return Upstream.get("empty"):info()' | jq -c 'del(.revision)')" '{"name":"empty","peers":[],"monitors":[]}'
state_of() { lua "return Upstream.get('foo'):info()" | jq -r ".peers[] | select(.name == \"$1\") | .state"; }
words=
for change in "add_fail()" "set_state('temporary_down')" "set_state('up')" "set_state('drain')" \
    "set_state('temporary_down')" "set_state('down')" "set_state('up')"; do
    lua "Upstream.get('foo'):get_peer('$b'):$change" >/dev/null
    words+=" $(state_of "$b")"
done
is "info_prints_the_state_words_by_precedence" \
    "$words" " failing temp_down up draining temp_down down up"
is "tostring_has_one_line_a_peer" \
    "$(lua 'return tostring(Upstream.get("foo"))')" "foo revision=$(lua 'return Upstream.get("foo").revision')
  - $a 127.0.0.1:$port_a weight=6 up fails=0 active=0
  - $b 127.0.0.1:$port_b weight=3 up fails=0 active=0
  - $c 127.0.0.1:$port_c weight=1 backup up fails=0 active=0"
is "monitor_and_unmonitor_return_true" \
    "$(lua 'local u = Upstream.get("foo") return u:unmonitor(), u:monitor()')" "true | true"

# --- reload
lua "Upstream.get('foo'):get_peer('$b'):set_weight(11)" >/dev/null
conf nil "server $a weight=2; server $b weight=3 max_fails=2 fail_timeout=20s;" >"$T/reloaded"
nginx_conf front 4 <"$T/reloaded"
reload_nginx front
is "defect_4_a_changed_line_wins_and_a_runtime_weight_and_a_dynamic_peer_stay" \
    "$(lua_everywhere 4 'local out = {} for _, up in ipairs{"foo", "bar"} do for _, p in ipairs(Upstream.get(up):get_peers()) do
        out[#out + 1] = p.name .. "=" .. p:get_weight() end end return table.concat(out, " ")' |
        tr ' ' '\n' | sort | tr '\n' ' ')" "$(printf '%s\n' "$a=2" "$b=11" "$a=1" "$b=7" | sort | tr '\n' ' ')"
not_ok "init_worker_succeeds_at_a_reload" grep -q "init_worker_by_lua error" "$T/front.log"
is "defect_4_a_line_that_is_gone_takes_its_peer_along" \
    "$(lua "return Upstream.get('foo'):get_peer('$c')")" nil
done_testing
