-- SPDX-License-Identifier: MIT
--
-- Text to values: `server` lines, nginx times, numbers, HTTP answers. Pure Lua without nginx.
-- Every function returns nil and a text that names the culprit if the input is wrong. The
-- controller checks what it is sent again; these checks give the caller the error without a trip.

local type, tonumber, tostring, pairs, floor = type, tonumber, tostring, pairs, math.floor

local _M = {
    WEIGHT_MAX = 65535,
    TIME_MAX_MS = 2147483647,
}

local COUNT_MAX = 2147483647

-- Milliseconds a unit, in the order in which they may follow each other.
local UNITS = { { "w", 604800000 }, { "d", 86400000 }, { "h", 3600000 }, { "m", 60000 },
                { "s", 1000 }, { "ms", 1 } }
local RANK = {}
for rank, unit in ipairs(UNITS) do
    RANK[unit[1]] = rank
end
RANK[""] = RANK.s

-- nil prints as nil, strings in quotes: what a caller gave, for an error text.
local function shown(value)
    if type(value) == "string" then
        return '"' .. value:gsub("%c", "?") .. '"'
    end
    return tostring(value)
end

-- An integer from min to max, or such digits as a string.
function _M.integer(value, min, max)
    local n = value
    if type(n) == "string" and n:find("^%d+$") then
        n = tonumber(n)
    end
    -- NaN equals nothing, itself included.
    if type(n) ~= "number" or n ~= n or n < min or n > max or floor(n) ~= n then
        return nil, shown(value) .. " is not an integer from " .. min .. " to " .. max
    end
    return n
end

-- A number of seconds or nginx's time syntax ("10", "10s", "1m30s", "500ms") in milliseconds.
function _M.time_ms(value)
    local refusal = shown(value) .. ' is not a time such as 10, "10s" or "1m30s"'
    local ms
    if type(value) == "number" then
        ms = floor(value * 1000 + 0.5)
    elseif type(value) == "string" then
        local at, rank = 1, 0
        ms = 0
        repeat
            local digits, unit, next_at = value:match("^(%d+)(%a*)%s*()", at)
            local r = digits and RANK[unit]
            -- A number without unit, seconds, can only be the last.
            if not r or r <= rank or (unit == "" and next_at <= #value) then
                return nil, refusal
            end
            ms = ms + tonumber(digits) * UNITS[r][2]
            at, rank = next_at, r
        until at > #value
    end
    if not ms or ms ~= ms or ms < 0 or ms > _M.TIME_MAX_MS then
        return nil, refusal
    end
    return ms
end

-- Splits "host", "host:port", "[::1]:80" or "unix:/path" and fills default_port in. Returns the
-- name in full, the host without brackets and the port (nil for a unix socket).
function _M.server_name(text, default_port)
    if type(text) ~= "string" or text == "" or #text > 127 or text:find("[%c%s]") then
        return nil, "bad server name " .. shown(text)
    end
    if text:find("^unix:") then
        if not text:find("^unix:/") then
            return nil, "bad server name " .. shown(text) .. ": a path starts with /"
        end
        return text, text
    end
    local host, colon, port = text:match("^(%b[])(:?)(.*)$")
    if host then
        host = host:match("^%[([%x:.]+)%]$")
        if not host or not host:find(":", 1, true) or (colon == "" and port ~= "") then
            return nil, "bad server name " .. shown(text) .. ": bad IPv6 address"
        end
    else
        host, colon, port = text:match("^([^:%[%]/?#]+)(:?)([^:]*)$")
        if not host then
            return nil, "bad server name " .. shown(text)
        end
    end
    if colon == "" then
        port = default_port
    end
    local number, err = _M.integer(port, 1, 65535)
    if not number then
        return nil, "bad port in " .. shown(text) .. ": " .. err
    end
    local name = (host:find(":", 1, true) and "[" .. host .. "]" or host) .. ":" .. number
    if #name > 127 then
        return nil, "bad server name " .. shown(text) .. ": too long"
    end
    return name, host, number
end

local function integer_to(max)
    return function(value)
        return _M.integer(value, 0, max)
    end
end

local function boolean(value)
    if type(value) ~= "boolean" then
        return nil, shown(value) .. " is not true or false"
    end
    return value
end

-- "http", "_http._tcp": what stands before a host where its SRV records are.
local function service(value)
    if type(value) ~= "string" or not value:find("^[%w_-][%w_.-]*$") or #value > 63
       or value:find("..", 1, true) or value:find("%.$") then
        return nil, shown(value) .. " is no service such as http or _http._tcp"
    end
    return value
end

-- Settings of a server: their parsers for both forms; flag: a word without value in a line.
local SETTINGS = {
    weight = { parse = integer_to(_M.WEIGHT_MAX) },
    max_conns = { parse = integer_to(COUNT_MAX) },
    max_fails = { parse = integer_to(COUNT_MAX) },
    fail_timeout = { parse = _M.time_ms },
    slow_start = { parse = _M.time_ms },
    backup = { parse = boolean, flag = true },
    down = { parse = boolean, flag = true },
    drain = { parse = boolean, flag = true },
    service = { parse = service },
    resolve = { parse = boolean, flag = true }, -- nginx's word for what is done anyway
}

local function set(server, word, value, parsed_as)
    local result, err = SETTINGS[word].parse(value)
    if result == nil then
        return nil, "bad " .. parsed_as .. ": " .. err
    end
    if server[word] ~= nil and server[word] ~= result then
        return nil, parsed_as .. " is given twice"
    end
    server[word] = result
    return true
end

-- SRV records tell the port of a service: its server is named by the host alone.
local function name_service(server, host)
    if not server.service then
        return server
    end
    if server.name == host or not server.name:find("^[^%[]*%a[^%[]*:%d+$") then
        return nil, shown(host) .. " with a service must be a host name without a port"
    end
    server.name = host
    return server
end

local function server_of_line(line, default_port)
    local server, words, host = {}, 0, nil
    for word in line:gmatch("%S+") do
        words = words + 1
        if words == 1 then
            local name, err = _M.server_name(word, default_port)
            if not name then
                return nil, err
            end
            server.name, host = name, word
        else
            local key, value = word:match("^([%w_]+)=(.*)$")
            key = key or word
            local setting = SETTINGS[key]
            if not setting or (setting.flag and value) or not (setting.flag or value) then
                return nil, "unknown parameter " .. shown(word)
            end
            if server[key] ~= nil then
                return nil, key .. " is given twice"
            end
            local ok, err = set(server, key, setting.flag or value, key)
            if not ok then
                return nil, err
            end
        end
    end
    if words == 0 then
        return nil, "an empty string names no server"
    end
    return name_service(server, host)
end

-- The name of a server in table form: `name`, `host` + `port` or `address` + `port`.
local function name_of_table(t, default_port)
    local named_by
    for _, key in ipairs { "name", "host", "address" } do
        if t[key] ~= nil then
            if named_by then
                return nil, "give either " .. named_by .. " or " .. key .. ", not both"
            end
            named_by = key
        end
    end
    local text = t[named_by or "name"]
    if not named_by then
        return nil, "a server needs a name, a host or an address"
    end
    if type(text) ~= "string" then
        return nil, "bad " .. named_by .. " " .. shown(text)
    end
    local port
    if t.port ~= nil then
        local err
        port, err = _M.integer(t.port, 1, 65535)
        if not port then
            return nil, "bad port: " .. err
        end
    end
    if named_by ~= "name" then
        -- An IPv6 address stands by itself here.
        if text:find("^[%x:.]*:[%x:.]*:[%x:.]*$") then
            text = "[" .. text .. "]"
        elseif named_by == "address" and not text:find("^%d+%.%d+%.%d+%.%d+$")
               and not text:find("^%[.*%]$") then
            return nil, "bad address " .. shown(text)
        end
    end
    local name, _, found = _M.server_name(text, port or default_port)
    if not name then
        return nil, _
    end
    if port and found ~= port then
        return nil, "port " .. port .. " contradicts " .. named_by .. " " .. shown(text)
    end
    return name
end

local TABLE_KEYS = { name = true, host = true, address = true, port = true }
-- Other spellings of a setting.
local SAME = { initial_weight = "weight" }

local function server_of_table(t, default_port)
    local name, err = name_of_table(t, default_port)
    if not name then
        return nil, err
    end
    local server = { name = name }
    for key, value in pairs(t) do
        local word = SAME[key] or key
        if SETTINGS[word] then
            local ok
            ok, err = set(server, word, value, key)
            if not ok then
                return nil, err
            end
        elseif not TABLE_KEYS[key] then
            return nil, "unknown setting " .. shown(key)
        end
    end
    return name_service(server, t.port == nil and (t.name or t.host) or name)
end

-- A server as `add_peer` takes it: nginx's `server` syntax or a table. Returns a table with `name`
-- ("host:port", or the host of a service) and the settings that are given: service, weight,
-- max_conns, max_fails, backup, down, drain, and fail_timeout and slow_start in milliseconds.
function _M.server(spec, default_port)
    if type(spec) == "string" then
        return server_of_line(spec, default_port)
    end
    if type(spec) == "table" then
        return server_of_table(spec, default_port)
    end
    return nil, "a server is a string or a table, not " .. shown(spec)
end

-- A whole HTTP answer, read until the connection closed. Returns its status and body.
function _M.http_response(text)
    local status, at = text:match("^HTTP/1%.%d (%d%d%d)[^\r\n]*\r?\n()")
    if not status then
        return nil, text == "" and "empty answer" or "not an HTTP answer"
    end
    local length
    while true do
        local line, next_at = text:match("^([^\r\n]*)\r?\n()", at)
        if not line then
            return nil, "the header of the answer is cut off"
        end
        at = next_at
        if line == "" then
            break
        end
        local name, value = line:match("^([^%s:]+):%s*(.-)%s*$")
        name = name and name:lower()
        if name == "content-length" then
            length = value:find("^%d+$") and tonumber(value)
            if not length then
                return nil, "bad Content-Length in the answer"
            end
        elseif name == "transfer-encoding" then
            return nil, "unexpected Transfer-Encoding in the answer"
        end
    end
    local body = text:sub(at)
    if length and #body < length then
        return nil, "the answer is cut off"
    end
    return tonumber(status), length and body:sub(1, length) or body
end

return _M
