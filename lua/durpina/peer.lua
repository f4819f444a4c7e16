-- SPDX-License-Identifier: MIT
--
-- A peer: one server of an upstream with all addresses of its name. Made by durpina.upstream only.
-- The object holds its identity and nothing else: whatever can change is read from the maps, which
-- all workers share, and changed there (passive failures) or by the controller.

local native = require "durpina.native"
local parse = require "durpina.parse"
local control = require "durpina.control"

local type, tostring, tonumber, error = type, tostring, tonumber, error
local max, min = math.max, math.min
local text = native.text

-- State words by precedence. Of several addresses the best one counts: the name is as available.
local WORDS = { "up", "failing", "draining", "temp_down", "unhealthy", "down" }
local RANK = {}
for rank, word in ipairs(WORDS) do
    RANK[word] = rank
end

local PUBLISHED = {
    [native.PEER_DOWN] = RANK.down,
    [native.PEER_UNHEALTHY] = RANK.unhealthy,
    [native.PEER_CHECKING] = RANK.unhealthy,
    [native.PEER_DRAINING] = RANK.draining,
    [native.PEER_UNRESOLVED] = RANK.temp_down,
}

local function rank_of(record)
    local rank = PUBLISHED[record.state] or RANK.up
    if record.temp_down ~= 0 then
        rank = max(rank, RANK.temp_down)
    elseif record.fails > 0 then
        rank = max(rank, RANK.failing)
    end
    return rank
end

local methods = {}

-- Names `get_peers` selects by; each a function of a peer.
local SELECTORS = {
    all = function() return true end,
    up = function(peer) return methods._rank(peer) <= RANK.failing end,
    failing = function(peer) return peer:is_failing() end,
    down = function(peer) return peer:is_down() end,
    temporary_down = function(peer) return peer:is_down("temporary") end,
    permanent_down = function(peer) return peer:is_down("permanent") end,
}

-- Settings that the file or a call may change, as fields of the object.
local FIELDS = {
    initial_weight = function(record) return record.initial_weight end,
    max_fails = function(record) return record.max_fails end,
    fail_timeout = function(record) return record.fail_timeout_ms / 1000 end,
    max_conns = function(record) return record.max_conns end,
    slow_start = function(record) return record.slow_start_ms / 1000 end,
    backup = function(record) return record.backup ~= 0 end,
}

local function gone(self)
    return nil, 'peer "' .. self.name .. '" is not in upstream "' .. self._upstream.name
                .. '" any more'
end

-- The record of the server's i-th address; nil if it is gone, or not what the object is about.
local function record_of(self, server, i)
    local record = native.peer(server.ids[i], server.generations[i])
    if record and (not self._address or text(record.address) == self._address) then
        return record
    end
end

-- Calls fn(record, result) for each address of the peer, result being what it returned before.
-- Returns the last result, or nil if the peer is gone.
local function fold(self, fn, result)
    local server = self._upstream:_server(self.name)
    if not server then
        return nil
    end
    for i = 1, #server.ids do
        local record = record_of(self, server, i)
        if record then
            result = fn(record, result)
        end
    end
    return result
end

-- Settings are the same for each address: the first one's.
local function first(self)
    local server = self._upstream:_server(self.name)
    return server and native.peer(server.ids[1], server.generations[1])
end

local function best_rank(record, rank)
    return min(rank_of(record), rank)
end

-- Rank of its state word; a peer that is gone takes no request: down.
function methods:_rank()
    local rank = fold(self, best_rank, #WORDS)
    return rank or RANK.down
end

-- The state as a word, as info() prints it.
function methods:_state()
    return WORDS[self:_rank()]
end

local function address_of(record)
    local address = text(record.address)
    return address ~= "?" and address or nil
end

local function add_address(record, addresses)
    addresses[#addresses + 1] = address_of(record)
    return addresses
end

-- Its addresses with ports, as text.
function methods:_addresses()
    return fold(self, add_address, {}) or {}
end

-- The address without its port ("127.0.0.1", "[::1]", "unix:/path"), the first one of several.
function methods:get_address()
    local addresses = fold(self, add_address, {})
    if not addresses then
        return gone(self)
    end
    local address = addresses[1]
    if not address then
        return nil, 'peer "' .. self.name .. '" has not been resolved'
    end
    return address:find("^unix:") and address or (address:gsub(":%d+$", ""))
end

function methods:get_weight()
    local record = first(self)
    if not record then
        return gone(self)
    end
    return record.weight
end

function methods:get_upstream()
    return self._upstream
end

-- Sends a request about this server to the controller; path: what follows its id.
local function call(self, method, path, body)
    local server = self._upstream:_server(self.name)
    if not server then
        return gone(self)
    end
    local segments = { path and "durpina" or "http", "upstreams", self._upstream.name, "servers",
                       server.id, path }
    local status, err = control.request('peer "' .. self.name .. '"', method, segments, body)
    if not status then
        return nil, err
    end
    return true
end

-- n: 0 to 65535 as a number or digits; 0 drains.
function methods:set_weight(n)
    local weight, err = parse.integer(n, 0, parse.WEIGHT_MAX)
    if not weight then
        return nil, "bad weight: " .. err
    end
    return call(self, "PATCH", nil, { weight = weight })
end

-- Makes each address temporarily down, or forgets its failures; false if the peer is gone.
local function set_temp_down(self, on)
    local server = self._upstream:_server(self.name)
    local found = false
    for i = 1, server and #server.ids or 0 do
        if record_of(self, server, i) then
            found = native.set_temp_down(server.ids[i], server.generations[i], on) or found
        end
    end
    return found
end

local function say(self, word)
    return call(self, "PATCH", nil, { state = word })
end

local STATES = {
    up = function(self)
        local record = first(self)
        if not record then
            return gone(self)
        end
        -- Without an operator's word to take back it works in every phase and without controller.
        if record.admin ~= native.ADMIN_UP then
            local ok, err = say(self, "up")
            if not ok then
                return nil, err
            end
        end
        if not set_temp_down(self, false) then
            return gone(self)
        end
        return true
    end,
    down = function(self) return say(self, "down") end,
    drain = function(self) return say(self, "drain") end,
    maint = function(self) return say(self, "maint") end,
    temporary_down = function(self)
        if not set_temp_down(self, true) then
            return gone(self)
        end
        return true
    end,
}

-- The keys of a table as a text for an error.
local function names(t)
    local list = {}
    for name in pairs(t) do
        list[#list + 1] = '"' .. name .. '"'
    end
    table.sort(list)
    return table.concat(list, ", ")
end

function methods:set_state(state)
    local set = STATES[state]
    if not set then
        error('unknown peer state "' .. tostring(state) .. '"; valid ones are ' .. names(STATES), 2)
    end
    return set(self)
end

local function is_any(rank) return rank >= RANK.temp_down end
local function is_permanent(rank) return rank == RANK.down end
local function is_temporary(rank) return rank == RANK.temp_down or rank == RANK.unhealthy end

local KINDS = {
    any = is_any,
    permanent = is_permanent,
    down = is_permanent,
    temporary = is_temporary,
    temp_down = is_temporary,
    failed = is_temporary,
}

function methods:is_down(kind)
    local test = KINDS[kind == nil and "any" or kind]
    if not test then
        error('unknown kind of down "' .. tostring(kind) .. '"; valid ones are ' .. names(KINDS), 2)
    end
    return test(self:_rank())
end

local function has_failed(record, failing)
    return failing or record.fails > 0
end

function methods:is_failing()
    return fold(self, has_failed, false) or false
end

-- Counts a failure of each address. Returns the failures inside fail_timeout.
function methods:add_fail()
    local server = self._upstream:_server(self.name)
    local fails
    for i = 1, server and #server.ids or 0 do
        local n = record_of(self, server, i)
                  and native.add_fail(server.ids[i], server.generations[i])
        fails = n and max(n, fails or 0) or fails
    end
    if not fails then
        return gone(self)
    end
    return fails
end

-- Has its name looked up if it has no address yet, or in any case with force.
function methods:resolve(force)
    local addresses = fold(self, add_address, {})
    if not addresses then
        return gone(self)
    end
    if addresses[1] and not force then
        return true
    end
    return call(self, "POST", "resolve")
end

local function add_active(record, active)
    return active + record.active
end

-- Connections in use over all workers.
function methods:get_active()
    local active = fold(self, add_active, 0)
    if not active then
        return gone(self)
    end
    return active
end

local COUNTERS = { "active", "fails", "requests", "failed", "unavail", "sent", "received" }
local CLASSES = { "1xx", "2xx", "3xx", "4xx", "5xx" }
-- Moving means of an address, by the names they have in the table.
local MEANS = { header_time = "header_us", response_time = "last_byte_us",
                connect_time = "connect_us" }

local function add_stats(record, stats)
    for _, name in ipairs(COUNTERS) do
        stats[name] = (stats[name] or 0) + tonumber(record[name])
    end
    for i, class in ipairs(CLASSES) do
        local n = tonumber(record.responses[i - 1])
        stats.responses[class] = (stats.responses[class] or 0) + n
        stats.responses.total = stats.responses.total + n
    end
    for name, field in pairs(MEANS) do
        local us = tonumber(record[field])
        if us > 0 then
            stats[name] = max(stats[name] or 0, us / 1000)
        end
    end
    return stats
end

-- Counters summed over its addresses, and moving means of the slowest one of them in milliseconds
-- (nil before the first sample).
function methods:get_stats()
    local stats = fold(self, add_stats, { responses = { total = 0 } })
    if not stats then
        return gone(self)
    end
    return stats
end

local mt = {
    __index = function(self, key)
        local method = methods[key]
        if method then
            return method
        end
        local field = FIELDS[key]
        local record = field and first(self)
        return record and field(record)
    end,
    __tostring = function(self)
        local stats = self:get_stats()
        if not stats then
            return self.name .. " removed"
        end
        local addresses = table.concat(self:_addresses(), ",")
        return ("%s %s weight=%d%s %s fails=%d active=%d"):format(
            self.name, addresses == "" and "?" or addresses, self:get_weight() or 0,
            self.backup and " backup" or "", self:_state(), stats.fails, stats.active)
    end,
}

local Peer = {}

-- Private: for durpina.upstream. With an address ("127.0.0.1:80") the object is about that one
-- alone, in what is told and counted for each.
function Peer._new(upstream, name, address)
    local _, hostname, port = parse.server_name(name)
    hostname = hostname or name -- of SRV records, which tell the port of each address
    return setmetatable({ name = name, hostname = hostname, port = port, _upstream = upstream,
                          _address = address }, mt)
end

-- Private: the function behind a selector of get_peers; raises on another word.
function Peer._selector(selector)
    local fn = SELECTORS[selector == nil and "all" or selector]
    if not fn then
        error('unknown selector "' .. tostring(selector) .. '"; valid ones are '
              .. names(SELECTORS), 3)
    end
    return fn
end

-- Private: whether an object is a peer.
function Peer._is(object)
    return type(object) == "table" and getmetatable(object) == mt
end

return Peer
