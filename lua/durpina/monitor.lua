-- SPDX-License-Identifier: MIT
--
-- Health monitors. The built-in ones run in the controller; up:add_monitor() is how they are added.

local Monitor = {
    default_interval = 5, -- seconds; a changed value is used by monitors added afterwards
}

local BUILT_IN_INTERVAL = Monitor.default_interval

-- Refused, not ignored: a monitor that never ran would look like healthy peers.
function Monitor.register(name)
    error('monitor "' .. tostring(name) .. '": monitors written in Lua come in a later version', 2)
end

-- The id and the options to send of a monitor to be added; raises on misuse.
function Monitor.options(name, opts, level)
    if type(name) ~= "string" or name == "" then
        error("a monitor's name is a string, not " .. tostring(name), level)
    end
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
    if options.interval == nil and Monitor.default_interval ~= BUILT_IN_INTERVAL then
        options.interval = Monitor.default_interval
    end
    return id, options
end

return Monitor
