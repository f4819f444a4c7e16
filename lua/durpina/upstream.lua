-- SPDX-License-Identifier: MIT
--
-- Upstreams and their peers. Reads come from the maps, changes go to the controller, which
-- publishes before it answers: the next read or pick in any worker sees them.

local native = require "durpina.native"
local parse = require "durpina.parse"
local control = require "durpina.control"
local Peer = require "durpina.peer"
local Monitor = require "durpina.monitor"
local runner = require "durpina.runner"

local ngx = ngx
local type, tostring, error, ipairs = type, tostring, error, ipairs
local encode = control.json.encode

local Upstream = {}

local default_port = 80
local upstreams = {} -- by name; what they hold besides the name is valid by its revision only

local methods = {}

-- The upstream's servers as published: { generation, revision, [i] = server, by_name }; a server is
-- { name, id, backup, ids, generations }, with the addresses' records. nil if the upstream is gone.
-- Rebuilt when the revision has moved.
local function servers_of(self)
    local index = self._index
    local generation, revision, name = native.upstream(self._id)
    if generation ~= self._generation or name ~= self.name then
        self._id, self._generation = native.find_upstream(self.name)
        if not self._id then
            -- Any id will do: the names do not match.
            self._id, self._index = 0, nil
            return nil
        end
        index = nil
        generation, revision = native.upstream(self._id)
    end
    if index and index.revision == revision then
        return index
    end
    local ids = generation and native.upstream_peers(self._id, generation)
    if not ids then
        return nil
    end
    index = { revision = revision, by_name = {} }
    for i = 1, #ids do
        local record = native.peer(ids[i], 0)
        if record then
            local peer_name = native.text(record.name)
            local server = index.by_name[peer_name]
            if not server then
                server = { name = peer_name, id = record.server, backup = record.backup ~= 0,
                           ids = {}, generations = {} }
                index.by_name[peer_name] = server
                index[#index + 1] = server
            end
            server.ids[#server.ids + 1] = ids[i]
            server.generations[#server.ids] = record.generation
        end
    end
    self._index = index
    return index
end

-- Private: the published server of this name, or nil.
function methods:_server(name)
    local index = servers_of(self)
    return index and index.by_name[name]
end

local function peer_object(self, name)
    local peer = self._peers[name]
    if not peer then
        peer = Peer._new(self, name)
        self._peers[name] = peer
    end
    return peer
end

-- Backup peers are found by name too. A name without port means the default port.
function methods:get_peer(name)
    if Peer._is(name) then
        name = name.name
    end
    if self:_server(name) then
        return peer_object(self, name)
    end
    local full = parse.server_name(name, default_port)
    if full and self:_server(full) then
        return peer_object(self, full)
    end
    return nil
end

-- Private: the peer of this name, as far as this address of it goes; nil if it is gone.
function methods:_peer_at(name, address)
    local server = self:_server(name)
    if server then
        return server.ids[2] and Peer._new(self, name, address) or peer_object(self, name)
    end
end

-- Private: peers of one tier.
function methods:_tier(backup)
    local peers = {}
    for _, server in ipairs(servers_of(self) or peers) do
        if server.backup == backup then
            peers[#peers + 1] = peer_object(self, server.name)
        end
    end
    return peers
end

-- The primary peers in the order of their `server` lines.
function methods:get_peers(selector)
    local selected = Peer._selector(selector)
    local peers = {}
    for _, peer in ipairs(self:_tier(false)) do
        if selected(peer) then
            peers[#peers + 1] = peer
        end
    end
    return peers
end

local function call(self, method, segments, body)
    return control.request('upstream "' .. self.name .. '"', method, segments, body)
end

function methods:add_peer(spec)
    local server, err = parse.server(spec, default_port)
    if not server then
        return nil, err
    end
    local body = { server = server.name, service = server.service, weight = server.weight,
                   max_conns = server.max_conns, max_fails = server.max_fails,
                   backup = server.backup, down = server.down,
                   drain = server.drain,
                   fail_timeout = server.fail_timeout and server.fail_timeout .. "ms",
                   slow_start = server.slow_start and server.slow_start .. "ms" }
    local path = { "http", "upstreams", self.name, "servers" }
    local status, answer, _, code = call(self, "POST", path, body)
    if not status then
        return nil, code == "EntryExists" and "peer named " .. server.name .. " already exists"
                    or answer
    end
    -- The controller's spelling of the name counts.
    local ok, object = pcall(control.json.decode, answer)
    local name = ok and type(object) == "table" and object.server or server.name
    local peer = self:get_peer(name)
    if not peer then
        return nil, 'peer "' .. name .. '" was removed again'
    end
    return peer
end

function methods:remove_peer(peer)
    local name = peer
    if Peer._is(peer) then
        if peer:get_upstream() ~= self then
            return nil, 'peer "' .. peer.name .. '" is of upstream "' .. peer:get_upstream().name
                        .. '", not "' .. self.name .. '"'
        end
        name = peer.name
    end
    local found = self:get_peer(name)
    if not found then
        return nil, 'upstream "' .. self.name .. '" has no peer named "' .. tostring(name) .. '"'
    end
    local status, err = call(self, "DELETE", { "http", "upstreams", self.name, "servers",
                                               self:_server(found.name).id })
    if not status then
        return nil, err
    end
    return true
end

-- Whether the controller says that the call itself is wrong.
local function is_misuse(status, code)
    return status == 400 or status == 415 or code == "EntryExists"
end

function methods:add_monitor(name, opts)
    local request = Monitor._request(name, opts, 3)
    local path = { "durpina", "upstreams", self.name, "monitors" }
    local ok, err, status, code = call(self, "POST", path, request)
    if ok then
        runner.start()
        return true
    end
    if is_misuse(status, code) then
        error(err, 2)
    end
    return nil, err
end

function methods:remove_monitor(id)
    local status, err = call(self, "DELETE", { "durpina", "upstreams", self.name, "monitors", id })
    if not status then
        return nil, err
    end
    return true
end

local function set_monitoring(self, active)
    local status, err = call(self, "PUT", { "durpina", "upstreams", self.name, "monitoring" },
                             { active = active })
    if not status then
        return nil, err
    end
    return true
end

function methods:monitor()
    return set_monitoring(self, true)
end

function methods:unmonitor()
    return set_monitoring(self, false)
end

-- The monitors or peers as the controller lists them; or nil and why not.
local function list_of(self, what)
    local status, answer = call(self, "GET", { "durpina", "upstreams", self.name, what })
    if not status then
        return nil, answer
    end
    local ok, list = pcall(control.json.decode, answer)
    if not ok or type(list) ~= "table" then
        return nil, "the controller's list of " .. what .. " is not JSON"
    end
    return list
end

-- What is known of the addresses of each peer, by its name: { [name] = { { address, state, reason,
-- monitors, transitions }, ... } }, without those of which there is nothing to tell.
local function health_of(list)
    local health = {}
    for _, peer in ipairs(list) do
        local monitors, transitions = peer.monitors, peer.transitions
        if peer.reason or monitors[1] or transitions[1] then
            local told = health[peer.name] or {}
            told[#told + 1] = { address = peer.server, state = peer.state, reason = peer.reason,
                                monitors = monitors[1] and monitors,
                                transitions = transitions[1] and transitions }
            health[peer.name] = told
        end
    end
    return health
end

-- Writes an array of objects with their keys in this order, as Durpina indented it.
local function array(objects, keys)
    local written = {}
    for i, object in ipairs(objects) do
        local lines = {}
        for _, key in ipairs(keys) do
            if object[key] ~= nil then
                lines[#lines + 1] = '      "' .. key .. '":' .. encode(object[key])
            end
        end
        written[i] = "{\n" .. table.concat(lines, ",\n") .. "\n    }"
    end
    return "[" .. table.concat(written, ",") .. "]"
end

local function described(peers, health)
    local objects = {}
    for i, peer in ipairs(peers) do
        local addresses = peer:_addresses()
        objects[i] = { name = peer.name, address = peer:get_address() or "?",
                       weight = peer:get_weight() or 0, state = peer:_state(),
                       addresses = addresses[2] and addresses, health = health[peer.name] }
    end
    return array(objects, { "name", "address", "weight", "state", "addresses", "health" })
end

-- What is known of the upstream as JSON for people and scripts. Works without the controller too,
-- but then it lists the monitors that this worker saw last, and says so.
function methods:info()
    local monitors, err = list_of(self, "monitors")
    self._monitors = monitors or self._monitors
    local health = health_of(monitors and list_of(self, "peers") or {})
    local lines = {
        '  "name":' .. encode(self.name),
        '  "revision":' .. (self.revision or 0),
        '  "peers":' .. described(self:get_peers(), health),
        '  "monitors":' .. array(self._monitors, { "id", "name" }),
    }
    local backups = self:_tier(true)
    if backups[1] then
        lines[#lines + 1] = '  "backups":' .. described(backups, health)
    end
    if err then
        lines[#lines + 1] = '  "monitors_unknown":' .. encode(err)
    end
    return "{\n" .. table.concat(lines, ",\n") .. "\n}"
end

local mt = {
    __index = function(self, key)
        if key == "revision" then
            local index = servers_of(self)
            return index and index.revision
        end
        return methods[key]
    end,
    __tostring = function(self)
        local lines = { ("%s revision=%d"):format(self.name, self.revision or 0) }
        for _, tier in ipairs { self:_tier(false), self:_tier(true) } do
            for _, peer in ipairs(tier) do
                lines[#lines + 1] = "  - " .. tostring(peer)
            end
        end
        return table.concat(lines, "\n")
    end,
}

local function upstream_object(name, id, generation)
    local upstream = upstreams[name]
    if not upstream then
        -- Peers may come and go by the thousand: only those that somebody holds are kept.
        upstream = setmetatable({ name = name, _peers = setmetatable({}, { __mode = "v" }),
                                  _monitors = {}, _id = id, _generation = generation }, mt)
        upstreams[name] = upstream
    end
    return upstream
end

-- Has the controller take an upstream block of nginx.conf that has no Durpina balancer. Returns
-- true, or nil and why not; no text: there is no such block.
local function register(name)
    local block = native.upstream_block(name)
    if not block then
        return nil
    end
    local status, err = control.request('upstream "' .. name .. '"', "PUT",
                                        { "durpina", "upstreams", name, "nginx" }, block)
    if not status then
        return nil, err
    end
    return true
end

function Upstream.get(name)
    if type(name) ~= "string" then
        return nil, "unknown upstream " .. tostring(name)
    end
    local known = upstreams[name]
    if known and native.upstream(known._id) == known._generation then
        return known
    end
    local id, generation = native.find_upstream(name)
    if not id then
        local ok, err = register(name)
        if ok then
            id, generation = native.find_upstream(name)
        end
        if not id then
            return nil, "unknown upstream " .. name .. (err and ": " .. err or "")
        end
    end
    return upstream_object(name, id, generation)
end

function Upstream.get_all()
    local all = {}
    for id = 0, native.upstreams() - 1 do
        local generation, _, name = native.upstream(id)
        if generation then
            all[#all + 1] = upstream_object(name, id, generation)
        end
    end
    return all
end

local function set_resolver(resolver, level)
    local servers = type(resolver) == "string" and { resolver } or resolver
    if type(servers) ~= "table" then
        error("the resolver must be a string or an array of strings", level)
    end
    for key, server in pairs(servers) do
        if type(key) ~= "number" or type(server) ~= "string" then
            error("the resolver must be a string or an array of strings", level)
        end
    end
    local body = servers[1] and { servers = servers } or '{"servers":[]}'
    local ok, err, status, code = control.request("the resolver", "PUT",
                                                  { "durpina", "resolver" }, body)
    if not ok and is_misuse(status, code) then
        error(err, level)
    end
    return ok and true, err
end

-- Name servers of the controller: an address with optional port, or an array of them.
function Upstream.set_resolver(resolver)
    local ok, err = set_resolver(resolver, 3)
    if not ok then
        return nil, err
    end
    return true
end

function Upstream.init(shdict, options)
    if type(shdict) ~= "string" or not ngx.shared[shdict] then
        error('no shared dictionary named "' .. tostring(shdict) .. '": nginx.conf needs '
              .. "lua_shared_dict " .. tostring(shdict) .. " 1m;", 2)
    end
    options = options == nil and {} or options
    if type(options) ~= "table" then
        error("the options of Upstream.init must be a table", 2)
    end
    if options.default_port ~= nil then
        local port = type(options.default_port) == "number"
                     and parse.integer(options.default_port, 1, 65535)
        if not port then
            error("default_port must be a number from 1 to 65535", 2)
        end
        default_port = port
    end
    runner.use(shdict)
    runner.start()
    if options.resolver ~= nil then
        local ok, err = set_resolver(options.resolver, 3)
        -- Traffic needs no resolver: names that are known keep their addresses.
        if not ok then
            ngx.log(ngx.ERR, "durpina: the resolver is not set: ", err)
        end
    end
    return true
end

return Upstream
