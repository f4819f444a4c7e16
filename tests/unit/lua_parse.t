# SPDX-License-Identifier: MIT
# lua/durpina/parse.lua in a plain LuaJIT, without nginx.
cd "$(dirname "$0")/../.." || exit 1
exec luajit - <<'END'
package.path = "lua/?.lua"
local parse = require "durpina.parse"
local count = 0

local function shown(value)
    if type(value) ~= "table" then
        return tostring(value)
    end
    local keys, fields = {}, {}
    for key in pairs(value) do keys[#keys + 1] = key end
    table.sort(keys)
    for i, key in ipairs(keys) do fields[i] = key .. "=" .. tostring(value[key]) end
    return table.concat(fields, " ")
end

local function is(fact, got, wanted)
    count = count + 1
    local same = shown(got) == shown(wanted)
    print((same and "ok " or "not ok ") .. count .. " - " .. fact)
    if not same then
        print("# got:    " .. shown(got) .. "\n# wanted: " .. shown(wanted))
    end
end

-- Every input of the list is refused with a text that has the culprit in it.
local function refused(fact, fn, inputs)
    local accepted = {}
    for _, input in ipairs(inputs) do
        local result, err = fn(input[1])
        if result ~= nil or type(err) ~= "string" or not err:find(input[2], 1, true) then
            accepted[#accepted + 1] = shown(input[1]) .. " -> " .. shown(result) .. " " .. shown(err)
        end
    end
    is(fact, table.concat(accepted, "; "), "")
end

local function server(spec) return parse.server(spec, 80) end
local function weight(n) return parse.integer(n, 0, parse.WEIGHT_MAX) end

is("defect_1_words_of_a_server_line_are_kept", server "localhost:8080 fail_timeout=15 weight=7",
   { name = "localhost:8080", fail_timeout = 15000, weight = 7 })
is("every_parameter_of_a_server_line_is_read",
   server "a:1 weight=0 max_conns=9 max_fails=0 fail_timeout=1m30s slow_start=500ms backup down drain",
   { name = "a:1", weight = 0, max_conns = 9, max_fails = 0, fail_timeout = 90000, slow_start = 500,
     backup = true, down = true, drain = true })
is("defect_2_a_name_carries_its_port", server { name = "h:19183" }, { name = "h:19183" })
is("defect_2_host_port_and_weight_of_a_table_are_read",
   server { host = "10.0.0.2", port = 8090, weight = 7, fail_timeout = 10 },
   { name = "10.0.0.2:8090", weight = 7, fail_timeout = 10000 })
is("a_service_is_of_a_host_without_a_port", server "example.com service=http weight=2 resolve",
   { name = "example.com", service = "http", weight = 2, resolve = true })
is("a_service_in_a_table_too", server { host = "example.com", service = "_sip._udp" },
   { name = "example.com", service = "_sip._udp" })
refused("what_is_no_service_or_has_a_port_is_refused", server,
        { { "example.com:80 service=http", "without a port" }, { "127.0.0.1 service=http", "host name" },
          { "[::1] service=http", "host name" }, { "unix:/x service=http", "host name" },
          { "a service=a..b", "a..b" }, { "a service=", "service" }, { "a service", "service" },
          { "a service=" .. ("x"):rep(64), "xxx" }, { "a resolve=1", "resolve" },
          { { host = "a", port = 80, service = "http" }, "without a port" },
          { { address = "127.0.0.1", service = "http" }, "without a port" } })
is("initial_weight_is_weight", server { name = "a:1", initial_weight = "3" },
   { name = "a:1", weight = 3 })
is("a_table_takes_every_setting",
   server { address = "::1", port = "81", max_fails = 2, fail_timeout = "1h", max_conns = 5,
            slow_start = 0.5, backup = true, down = false },
   { name = "[::1]:81", max_fails = 2, fail_timeout = 3600000, max_conns = 5, slow_start = 500,
     backup = true, down = false })
is("a_port_may_stand_beside_a_name_without_one", server { name = "a", port = 8 }, { name = "a:8" })
is("a_missing_port_is_the_default_port", parse.server("a", 8080), { name = "a:8080" })
is("a_unix_socket_has_no_port", server "unix:/run/x.sock weight=2",
   { name = "unix:/run/x.sock", weight = 2 })

refused("bad_server_lines_name_the_culprit", server, {
    { "", "empty" }, { "   ", "empty" }, { "a weight=1.5", "1.5" }, { "a weight=-1", "-1" },
    { "a weight=65536", "65536" }, { "a weight=", "weight" }, { "a weight", "weight" },
    { "a backup=1", "backup=1" }, { "a weigth=1", "weigth" }, { "a weight=1 weight=1", "twice" },
    { "a down down", "twice" }, { "a fail_timeout=1x", "1x" }, { "a:0", "a:0" }, { "a:65536", "65536" },
    { "a:b", "a:b" }, { "a:1:2", "a:1:2" }, { "::1", "::1" }, { "[::1", "[::1" }, { "[x]:1", "[x]:1" },
    { "[::1]80", "[::1]80" }, { "unix:x", "unix:x" }, { "http://a/", "http" },
    { ("x"):rep(128), "xxx" }, { "a\1b:80", "a?b" },
})
refused("bad_server_tables_name_the_culprit", server, {
    { {}, "name" }, { { name = "a", host = "b" }, "host" }, { { name = "a:1", port = 2 }, "port 2" },
    { { host = "a", port = 0 }, "port" }, { { host = "a", port = "x" }, "x" }, { { name = 5 }, "5" },
    { { address = "localhost", port = 1 }, "localhost" }, { { name = "a", weigth = 1 }, "weigth" },
    { { name = "a", weight = true }, "true" }, { { name = "a", down = "yes" }, "yes" },
    { { name = "a", weight = 1, initial_weight = 2 }, "weight" }, { { name = "a", [1] = "b" }, "1" },
    { { name = "a", fail_timeout = -1 }, "-1" }, { { name = "a", fail_timeout = 1 / 0 }, "inf" },
})
refused("a_server_is_a_string_or_a_table", server, { { nil, "nil" }, { 5, "5" }, { true, "true" } })

is("integers_and_digits_are_weights", shown(weight(0)) .. shown(weight(65535)) .. shown(weight "7"),
   "0655357")
refused("defect_15_other_weights_are_refused", weight, {
    { 1.5, "1.5" }, { "1.5", "1.5" }, { "abc", "abc" }, { -1, "-1" }, { 65536, "65536" }, { nil, "nil" },
    { 0 / 0, "nan" }, { 1 / 0, "inf" }, { true, "true" }, { {}, "table" }, { "0x10", "0x10" },
    { "1e3", "1e3" }, { " 5", " 5" }, { "", '""' },
})

local times = { [10] = 10000, [0.25] = 250, [0] = 0, ["10"] = 10000, ["5m"] = 300000, ["1m30s"] = 90000,
                ["1m30"] = 90000, ["1h 30m"] = 5400000, ["500ms"] = 500, ["1s500ms"] = 1500,
                ["1w"] = 604800000, ["1d"] = 86400000 }
for text, ms in pairs(times) do
    is("a_time_" .. tostring(text):gsub(" ", "_") .. "_is_" .. ms .. "_ms", parse.time_ms(text), ms)
end
refused("what_is_no_time_of_nginx_is_refused", parse.time_ms, {
    { "", '""' }, { "s", "s" }, { "1x", "1x" }, { "30s1m", "30s1m" }, { "1s1s", "1s1s" }, { "10 5", "10 5" },
    { "1.5s", "1.5s" }, { "-1", "-1" }, { "1M", "1M" }, { -1, "-1" }, { 0 / 0, "nan" }, { 2 ^ 31, "21" },
    { nil, "nil" }, { "30d", "30d" },
})

local function response(text)
    local status, body = parse.http_response(text)
    return shown(status) .. " " .. shown(body)
end
is("an_answer_with_length_is_read",
   response "HTTP/1.1 200 OK\r\nContent-Type: x\r\ncontent-LENGTH: 2\r\n\r\n{}", "200 {}")
is("what_follows_the_length_is_dropped", response "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab", "200 a")
is("an_answer_without_length_ends_with_the_connection", response "HTTP/1.0 404 No\r\n\r\nbody", "404 body")
refused("broken_answers_are_refused", parse.http_response, {
    { "", "empty" }, { "hello", "not an HTTP" }, { "HTTP/1.1 200 OK\r\nA: b\r\n", "cut off" },
    { "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", "cut off" },
    { "HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nab", "Content-Length" },
    { "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nab", "Content-Length" },
    { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0", "Transfer-Encoding" },
})
print("1.." .. count)
END
