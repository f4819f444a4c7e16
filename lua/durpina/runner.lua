-- SPDX-License-Identifier: MIT
--
-- Runs the checks of monitors written in Lua. The controller says which checks are due and judges
-- their results (docs/api.md, "Monitors written in Lua"); of all workers that know a monitor, one
-- runs it at a time.
--
-- One recurring timer serves all monitors of a worker. Of its ticks, one at a time asks the
-- controller, ASKING_S long: then the next one goes on, so that what it has allocated is freed. A
-- tick runs the checks it was given in light threads of its own and ends with the last of them.

local semaphore = require "ngx.semaphore"
local control = require "durpina.control"

local ngx = ngx
local type, tostring, pcall, error, pairs, ipairs, next =
    type, tostring, pcall, error, pairs, ipairs, next
local min, max = math.min, math.max
local now, exiting = ngx.now, ngx.worker.exiting

local _M = {}

local CHECKS_AT_ONCE = 64 -- in one worker
local TICK_S = 1
local ASKING_S = 5
local ASK_MAX_S = 15 -- longer than an exchange with the controller can take
local RETRY_S = 1    -- until it is asked again after it did not answer
local REAPING_S = 0.1
local REASON_MAX = 200 -- bytes; the controller keeps fewer

local registered = {} -- functions by name
local names = {}      -- of them, to be sent
local states = {}     -- of monitors that this worker runs or has run, by upstream and id
local running = {}    -- checks by number
local results = {}    -- to be sent
local worker          -- tells this Lua VM from all others; set when the timer starts
local dict, wake      -- ngx.shared of Upstream.init; a semaphore
local woken = false
local next_at = 0     -- the next ask
local asking_until = 0 -- a tick that asks is dead after that
local silent = false  -- the controller does not answer, which has been logged
local started = false

-- The dictionary of Upstream.init().
function _M.use(name)
    dict = ngx.shared[name]
end

-- --- what a check gets ---------------------------------------------------------------------------

local Shared = {}
local METHODS = { "get", "get_stale", "incr", "set", "safe_set", "add", "safe_add", "replace",
                  "delete", "ttl", "expire", "lpush", "rpush", "lpop", "rpop" }
for _, method in ipairs(METHODS) do
    Shared[method] = function(self, key, ...)
        if not dict then
            error("call Upstream.init() first: there is no shared dictionary", 2)
        end
        -- What is no key for ngx.shared is none here.
        if key ~= nil and key ~= "" then
            key = self._prefix .. tostring(key)
        end
        return dict[method](dict, key, ...)
    end
end
local shared_mt = { __index = Shared }

-- Neither an upstream's name nor an id has a space in it.
local function new_shared(upstream, id)
    return setmetatable({ _prefix = "monitor " .. upstream .. " " .. id .. " " }, shared_mt)
end

local function new_local_state(monitor)
    local state = { id = monitor.id }
    for key, value in pairs(monitor.options) do
        state[key] = value
    end
    return state
end

-- The state of a monitor in this worker: another one each time that it becomes the worker's.
local function state_of(monitor)
    local key = monitor.upstream .. " " .. monitor.id
    local state = states[key]
    if not state or state.term ~= monitor.term then
        state = { monitor = monitor, term = monitor.term, functions = registered[monitor.name],
                  shared = new_shared(monitor.upstream, monitor.id), waiting = {}, raised = {} }
        states[key] = state
    end
    return state
end

-- --- results -------------------------------------------------------------------------------------

local function wake_up()
    if not woken then
        woken = true
        wake:post()
    end
end

local function escape(byte)
    return ("\\x%02x"):format(byte:byte())
end

-- JSON that is not UTF-8, or has a NUL in it, would be refused as a whole.
local function printable(text)
    return (text:sub(1, REASON_MAX):gsub("[%c\127-\255]", escape))
end

-- passed nil: it could not be made, which says nothing of the peer.
local function finish(check, passed, reason)
    if check.done then
        return
    end
    check.done = true
    running[check.check] = nil
    results[#results + 1] = { check = check.check, passed = passed,
                              reason = reason and printable(reason) }
    wake_up()
end

local function text_of(err)
    local kind = type(err)
    return (kind == "string" or kind == "number") and tostring(err) or "raised a " .. kind
end

-- Logs a raise unless it was the same one the time before. where: the peer's name, or "init".
local function note_raise(state, where, err)
    if state.raised[where] ~= err then
        state.raised[where] = err
        ngx.log(ngx.ERR, 'durpina: monitor "', state.monitor.id, '" of upstream "',
                state.monitor.upstream, '", ', where, ": ", err)
    end
end

-- --- a check -------------------------------------------------------------------------------------

-- Has init() run once, by the first check. Returns true, or nil and why not.
local function initialise(state)
    local functions, monitor = state.functions, state.monitor
    local upstream, err = require("durpina.upstream").get(monitor.upstream)
    if not upstream then
        return nil, err
    end
    local local_state = new_local_state(monitor)
    if functions.init then
        local ok, raised = pcall(functions.init, upstream, state.shared, local_state)
        if not ok then
            raised = text_of(raised)
            note_raise(state, "init", raised)
            return false, raised
        end
    end
    state.upstream, state.local_state = upstream, local_state
    state.raised.init = nil
    return true
end

local function fail_raised(check, state, err)
    local raised = text_of(err)
    note_raise(state, "peer " .. check.peer, raised)
    finish(check, false, raised)
end

-- Judges what check() has returned, behind pcall's own result.
local function judge(check, state, ok, result, err)
    if not ok then
        return fail_raised(check, state, result)
    end
    local passed, reason = true, "passed"
    if result == false or (result == nil and err ~= nil) then
        passed, reason = false, err ~= nil and tostring(err) or "check() returned false"
    end
    state.raised["peer " .. check.peer] = nil
    finish(check, passed, reason)
end

local function run(check, state)
    if not state.local_state then
        state.initialising = check
        local ok, err = initialise(state)
        state.initialising = nil
        if not ok then
            -- Those that waited are not to try it each for itself.
            for _, other in ipairs(state.waiting) do
                finish(other, ok, err)
            end
            state.waiting = {}
            return finish(check, ok, err)
        end
        wake_up()
    end
    local peer = state.upstream:_peer_at(check.peer, check.address)
    if not peer then
        return finish(check, nil, 'peer "' .. check.peer .. '" is gone')
    end
    judge(check, state, pcall(state.functions.check, state.upstream, peer, state.shared,
                              state.local_state))
end

-- Starts a check as a light thread of the tick that calls. threads: its checks by thread.
local function start(threads, check, state)
    if state.initialising then
        state.waiting[#state.waiting + 1] = check
        return
    end
    local thread = ngx.thread.spawn(run, check, state)
    if not check.done then
        threads[thread] = check
    end
end

-- Starts what has waited for an init() that is over.
local function start_waiting(threads)
    for _, state in pairs(states) do
        if state.waiting[1] and not state.initialising then
            local waiting = state.waiting
            state.waiting = {}
            for _, check in ipairs(waiting) do
                start(threads, check, state)
            end
        end
    end
end

-- Forgets threads that have ended and ends those whose time is over (the controller knows by
-- itself), or all. Returns the time until the next one's is.
local function reap(threads, all)
    ngx.update_time()
    local wait = ASKING_S
    for thread, check in pairs(threads) do
        if check.done or coroutine.status(thread) == "zombie" then
            local _, raised = ngx.thread.wait(thread)
            threads[thread] = nil
            -- A raise in a coroutine of ngx_lua's, once that has yielded, passes by every pcall().
            if not check.done then
                fail_raised(check, check.state, raised or "raised in a coroutine")
            end
        elseif all or now() >= check.deadline then
            ngx.thread.kill(thread)
            threads[thread] = nil
            check.done = true
            running[check.check] = nil
            if check.state.initialising == check then
                check.state.initialising = nil
            end
        else
            wait = min(wait, check.deadline - now())
        end
    end
    return wait
end

-- --- the controller ------------------------------------------------------------------------------

-- How many checks may be taken. Checks whose thread has gone with its tick, as ngx.exit() in a
-- check has it, do not count.
local function room()
    local n = 0
    for number, check in pairs(running) do
        if now() > check.deadline + TICK_S then
            running[number] = nil
        else
            n = n + 1
        end
    end
    return max(CHECKS_AT_ONCE - n, 0)
end

local function exchange(leave)
    local sent = results
    results = {}
    local body = { worker = worker, names = names, room = leave and 0 or room(), leave = leave,
                   results = sent[1] and sent or nil }
    local status, answer = control.request("monitors", "POST", { "durpina", "lua" }, body)
    local ok = status
    if ok then
        ok, answer = pcall(control.json.decode, answer)
    end
    if ok then
        silent = false
        return answer
    end
    if not leave then
        for _, result in ipairs(results) do
            sent[#sent + 1] = result
        end
        results = sent
    end
    if not silent then
        silent = true
        ngx.log(ngx.WARN, "durpina: monitors written in Lua pause: ", answer)
    end
end

-- One question: sends results, starts what is due.
local function ask(threads)
    local before = now()
    local answer = exchange()
    ngx.update_time()
    if not answer then
        next_at = now() + RETRY_S
        return
    end
    next_at = before + answer.next_ms / 1000
    for _, monitor in ipairs(answer.monitors) do
        local state = state_of(monitor)
        for _, check in ipairs(monitor.checks) do
            check.state = state
            check.deadline = now() + monitor.timeout_ms / 1000
            running[check.check] = check
            start(threads, check, state)
        end
    end
end

local function ask_for_a_while(threads)
    local stop = now() + ASKING_S
    repeat
        asking_until = now() + ASKING_S + ASK_MAX_S
        start_waiting(threads)
        local wait = min(reap(threads), next_at - now())
        if wait > 0 and not woken then
            wake:wait(wait)
        end
        woken = false
        if not exiting() and (now() >= next_at or (results[1] and not silent)) then
            ask(threads)
        end
    until exiting() or now() >= stop
end

local function tick(premature)
    if premature then
        -- The others need not wait until this process has ended.
        exchange(true)
        return wake_up()
    end
    if now() < asking_until then
        return
    end
    local threads = {}
    local ok, err = pcall(ask_for_a_while, threads)
    asking_until = 0
    if not ok then
        ngx.log(ngx.ERR, "durpina: monitors written in Lua: ", err)
    elseif not exiting() then
        -- Without a gap; if this one cannot be had, the recurring one goes on.
        ngx.timer.at(0, tick)
    end
    while next(threads) do
        ngx.sleep(max(min(reap(threads, exiting()), REAPING_S), 0.001))
    end
end

-- --- registration --------------------------------------------------------------------------------

-- Starts the timer if there is something to run. Timers cannot be before the worker is.
function _M.start()
    if started or not names[1] or ngx.get_phase() == "init" then
        return
    end
    wake = semaphore.new(0)
    worker = ngx.worker.pid() .. "-" .. ngx.now()
    started = true
    local ok, err = ngx.timer.every(TICK_S, tick)
    if not ok then
        error("monitors written in Lua cannot run: " .. err, 0)
    end
    -- Sooner; if that cannot be had, the recurring one begins.
    ngx.timer.at(0, tick)
end

-- functions: { check =, init = }.
function _M.add(name, functions)
    registered[name] = functions
    names[#names + 1] = name
    _M.start()
end

return _M
