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
local pick, last_error = native.balance, native.last_error
local OK, BUSY, ERROR = native.OK, native.BUSY, native.ERROR

-- The module's numbers of algorithms by name, and of those that go by a key.
local methods, keyed = {}, {}
for _, name in ipairs(native.algorithms()) do
    methods[name] = native.method(name)
    keyed[name] = native.method_has_key(methods[name])
end

-- By such a number and an argument: the number of both together.
local variants = {}

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
    for known in pairs(methods) do
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

-- Returns the method with an argument that was not seen before; raises on a bad one.
local function add_variant(method, word)
    if type(word) ~= "string" then
        error("an argument of a balancer is a string, not a " .. type(word), 0)
    end
    local variant, err = native.method_option(method, word)
    if not variant then
        error(err, 0)
    end
    variants[method] = variants[method] or {}
    variants[method][word] = variant
    return variant
end

-- Returns the method with the arguments, each of which is parsed once in the life of the worker.
local function with_arguments(method, word, b, c, d, e, f)
    if word == nil then
        return method
    end
    local known = variants[method]
    local variant = known and known[word] or add_variant(method, word)
    return with_arguments(variant, b, c, d, e, f)
end

-- A key as the module takes it; nil is empty, which stands for the client's address.
local function text_of(key)
    if type(key) == "string" then
        return key
    end
    if type(key) == "number" then
        return tostring(key)
    end
    if key ~= nil then
        error("the key of consistent-hash must be a string or a number, not a " .. type(key), 3)
    end
    return ""
end

-- Picks a peer of the upstream that is being balanced, by the algorithm of this name. a to f: for
-- consistent-hash a key, a string or number, then words as behind the directive durpina. Returns
-- true; or nil and a text, and the request ends with 502. Raises on an unknown algorithm or word.
-- Not "...": LuaJIT compiles no function that takes such.
function Balancer.balance(name, a, b, c, d, e, f)
    local method, key = methods[name], ""
    if not method then
        local fn = added[name]
        if not fn then
            return unknown_algorithm(name)
        end
        return balance_in_lua(name, fn, a, b, c, d, e, f)
    end
    if keyed[name] then
        key, a, b, c, d, e, f = text_of(a), b, c, d, e, f, nil
    end
    if a ~= nil then
        method = with_arguments(method, a, b, c, d, e, f)
    end
    local rc = pick(method, key)
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
    if methods[name] or (added[name] and added[name] ~= fn) then
        error('balancer "' .. name .. '" already exists', 2)
    end
    added[name] = fn
    return true
end

return setmetatable(Balancer, {
    __call = function(_, name, a, b, c, d, e, f)
        return Balancer.balance(name, a, b, c, d, e, f)
    end,
})
