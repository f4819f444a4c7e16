-- SPDX-License-Identifier: MIT
--
-- The balancer: `require "durpina.balancer" "round-robin"` in balancer_by_lua_block. On success a
-- pick makes no table and no string, and its one call into the module is compiled by the JIT.

local native = require "durpina.native"
local Upstream = require "durpina.upstream"
local Peer = require "durpina.peer"

local ngx = ngx
local type, tostring, error = type, tostring, error
local random = math.random
local balance, last_error = native.balance, native.last_error
local OK, BUSY, ERROR = native.OK, native.BUSY, native.ERROR

-- The module's numbers of algorithms.
local ALGORITHMS = {
    ["round-robin"] = 0,
    ["unweighted-round-robin"] = 1,
    ["consistent-hash"] = 2,
    ["ip-hash"] = 3,
}
local CONSISTENT_HASH, IP_HASH = 2, 3

-- Algorithms by Balancer.add.
local added = {}

-- How often an algorithm in Lua is asked again for a peer that can be taken.
local ASKS_MAX = 8

local WARN_INTERVAL_S = 60
local warned = {} -- time of the last warning by kind

local Balancer = {}

local function warn(kind, level, message)
    local now = ngx.now()
    if now - (warned[kind] or -WARN_INTERVAL_S) >= WARN_INTERVAL_S then
        warned[kind] = now
        ngx.log(level, "durpina: ", message)
    end
end

local function sorted(names)
    table.sort(names)
    return table.concat(names, ", ")
end

local function unknown_algorithm(name)
    local valid = {}
    for known in pairs(ALGORITHMS) do
        valid[#valid + 1] = known
    end
    for known in pairs(added) do
        valid[#valid + 1] = known
    end
    error('unknown balancer "' .. tostring(name) .. '"; valid ones are ' .. sorted(valid), 3)
end

-- No peer. nginx would choose one of the `server` lines by itself if it were not told to stop; this
-- code makes it answer 502 at once ("no live upstreams").
local function refuse(err)
    ngx.exit(BUSY)
    return nil, err
end

local function refused(rc)
    local err = last_error()
    if rc == ERROR then
        error(err, 3)
    end
    if rc ~= BUSY then
        local known = {}
        for i, upstream in ipairs(Upstream.get_all()) do
            known[i] = upstream.name
        end
        err = 'unknown upstream "' .. tostring(native.current_upstream()) .. '": ' .. err
              .. "; known ones are " .. sorted(known)
        warn("upstream", ngx.ERR, err)
    end
    return refuse(err)
end

-- Takes one of the peer's addresses, beginning anywhere. Returns the module's code.
local function take(peer)
    local server = peer:get_upstream():_server(peer.name)
    local n = server and #server.ids or 0
    local start = n > 1 and random(n) or 1
    local rc = BUSY
    for i = 0, n - 1 do
        local at = (start + i - 1) % n + 1
        rc = native.balance_peer(server.ids[at], server.generations[at])
        if rc == OK or rc == ERROR then
            break
        end
    end
    return rc
end

-- Asks the function until it names a peer that can be taken: one that is down, full or was tried
-- for this request before cannot. The same peer twice in a row is its last word.
local function balance_in_lua(name, fn, ...)
    local current = native.current_upstream()
    if not current then
        error("no upstream is being balanced: to be called in balancer_by_lua*", 3)
    end
    local upstream, err = Upstream.get(current)
    if not upstream then
        return refuse(err)
    end
    local last
    for _ = 1, ASKS_MAX do
        local peer
        peer, err = fn(upstream, ...)
        if peer == nil or peer == last then
            break
        end
        if not Peer._is(peer) or peer:get_upstream() ~= upstream then
            error('balancer "' .. name .. '" must return a peer of upstream "' .. upstream.name
                  .. '" or nil', 3)
        end
        local rc = take(peer)
        if rc == OK then
            return true
        end
        if rc == ERROR then
            error(last_error(), 3)
        end
        last = peer
    end
    return refuse(err or 'no peer of upstream "' .. upstream.name .. '" is available')
end

-- Picks a peer of the upstream that the current request is being sent to, by the algorithm of this
-- name. key: for consistent-hash, a string or number. Returns true; or nil and a text, and the
-- request ends with 502. Raises on an unknown algorithm.
function Balancer.balance(name, key, ...)
    local algorithm = ALGORITHMS[name]
    if not algorithm then
        local fn = added[name]
        if not fn then
            return unknown_algorithm(name)
        end
        return balance_in_lua(name, fn, key, ...)
    end
    if algorithm ~= CONSISTENT_HASH then
        key = ""
    elseif type(key) == "number" then
        key = tostring(key)
    elseif type(key) ~= "string" then
        if key ~= nil then
            error("the key of consistent-hash must be a string or a number, not a " .. type(key), 2)
        end
        -- Still the same peer for the same client, which random would not be.
        warn("key", ngx.WARN, "consistent-hash without a key goes by the client's address")
        algorithm, key = IP_HASH, ""
    end
    local rc = balance(algorithm, key)
    if rc == OK then
        return true
    end
    return refused(rc)
end

-- Adds an algorithm: fn(upstream, ...) returns one of the upstream's peers, or nil and a text if
-- nobody may take the request.
function Balancer.add(name, fn)
    if type(name) ~= "string" or name == "" then
        error("a balancer's name is a string, not " .. tostring(name), 2)
    end
    if type(fn) ~= "function" then
        error('balancer "' .. name .. '" must be a function', 2)
    end
    if ALGORITHMS[name] or (added[name] and added[name] ~= fn) then
        error('balancer "' .. name .. '" already exists', 2)
    end
    added[name] = fn
    return true
end

return setmetatable(Balancer, {
    __call = function(_, name, key, ...)
        return Balancer.balance(name, key, ...)
    end,
})
