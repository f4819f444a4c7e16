-- SPDX-License-Identifier: MIT
--
-- Health monitors. The built-in ones run in the controller; those that are registered here run in
-- the workers (durpina.runner). up:add_monitor() adds both.

local parse = require "durpina.parse"
local runner = require "durpina.runner"

local type, tostring, error, pairs = type, tostring, error, pairs

local Monitor = {
    default_interval = 5, -- seconds; a changed value is used by monitors added afterwards
}

local BUILT_IN_INTERVAL = Monitor.default_interval

local BUILT_IN = {
    http = true,
    tcp = true,
    grpc = true,
    ["haproxy-agent-check"] = true,
    ["http-haproxy-agent-check"] = true,
}

-- { check, init, interval } by name.
local registered = {}

local function check_name(name, level)
    if type(name) ~= "string" or name == "" then
        error("a monitor's name is a string, not " .. tostring(name), level + 1)
    end
end

-- Makes a monitor of this name known to add_monitor(), in this worker. check: a function or
-- { check =, init =, interval = }. The same again is fine; raises on misuse.
function Monitor.register(name, check)
    check_name(name, 2)
    local given = type(check) == "table" and check or { check = check }
    if type(given.check) ~= "function" then
        error('monitor "' .. name .. '": check must be a function', 2)
    end
    if given.init ~= nil and type(given.init) ~= "function" then
        error('monitor "' .. name .. '": init must be a function', 2)
    end
    if given.interval ~= nil then
        local ms, err = parse.time_ms(given.interval)
        if not ms then
            error('monitor "' .. name .. '": interval ' .. err, 2)
        end
    end
    if BUILT_IN[name] then
        error('monitor "' .. name .. '" is built in: register yours under another name', 2)
    end
    local known = registered[name]
    if known and (known.check ~= given.check or known.init ~= given.init
                  or known.interval ~= given.interval) then
        error('monitor "' .. name .. '" is already registered with other functions', 2)
    end
    if not known then
        known = { check = given.check, init = given.init, interval = given.interval }
        registered[name] = known
        runner.add(name, known)
    end
    return true
end

-- The interval of a monitor that is added without one; nil: the controller's default for its kind.
local function default_interval(name)
    local known = registered[name]
    if known then
        return known.interval or Monitor.default_interval
    end
    return Monitor.default_interval ~= BUILT_IN_INTERVAL and Monitor.default_interval or nil
end

-- Private: what is to be sent for a monitor to be added; raises on misuse.
function Monitor._request(name, opts, level)
    check_name(name, level)
    if opts ~= nil and type(opts) ~= "table" then
        error('options of monitor "' .. name .. '" must be a table', level)
    end
    local id, options = name, {}
    for key, value in pairs(opts or {}) do
        if type(key) ~= "string" then
            error('options of monitor "' .. name .. '" have names, not ' .. tostring(key), level)
        end
        local kind = type(value)
        if (kind ~= "string" and kind ~= "number" and kind ~= "boolean") or value ~= value then
            error('option "' .. key .. '" of monitor "' .. name .. '" must be a string, a number '
                  .. 'or a boolean', level)
        end
        if key == "id" then
            id = tostring(value)
        else
            options[key] = value
        end
    end
    if options.interval == nil then
        options.interval = default_interval(name)
    end
    return { id = id, name = name, lua = registered[name] and true or nil, options = options }
end

return Monitor
