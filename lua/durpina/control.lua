-- SPDX-License-Identifier: MIT
--
-- Requests to the controller: HTTP/1.1 and JSON over its unix socket (docs/api.md). Where the phase
-- allows yielding, by a cosocket; while the worker starts or exits, by a blocking exchange of at
-- most a second; nowhere else, since a request in flight never waits for the controller.

local json = require("cjson").new()
local native = require "durpina.native"
local parse = require "durpina.parse"

local ngx = ngx
local concat = table.concat

local _M = { json = json }

local CONNECT_TIMEOUT_MS = 1000
local READ_TIMEOUT_MS = 10000 -- a name lookup may take as long
local BLOCKING_TIMEOUT_MS = 1000
local RESPONSE_MAX = 64 * 1024 * 1024
-- A controller that hangs holds up the start of a worker once, not once a call.
local HANG_MEMORY_S = 5

local hanging_until, hanging_err = 0, nil

-- In the words of the module's own exchange.
local function no_answer(err)
    return 'the controller at "' .. native.socket() .. '" does not answer: ' .. err
end

local function with_cosocket(request)
    local sock = ngx.socket.tcp()
    sock:settimeouts(CONNECT_TIMEOUT_MS, CONNECT_TIMEOUT_MS, READ_TIMEOUT_MS)
    local ok, err = sock:connect("unix:" .. native.socket())
    if not ok then
        return nil, no_answer(err)
    end
    ok, err = sock:send(request)
    if not ok then
        sock:close()
        return nil, no_answer(err)
    end
    local chunks, size = {}, 0
    while size <= RESPONSE_MAX do
        local chunk
        chunk, err = sock:receiveany(65536)
        if not chunk then
            sock:close()
            if err ~= "closed" then
                return nil, no_answer(err)
            end
            return concat(chunks)
        end
        chunks[#chunks + 1] = chunk
        size = size + #chunk
    end
    sock:close()
    return nil, no_answer("too long an answer")
end

local function blocking(request)
    ngx.update_time()
    local before = ngx.now()
    if before < hanging_until then
        return nil, hanging_err
    end
    local answer, err = native.exchange(request, BLOCKING_TIMEOUT_MS)
    if not answer then
        ngx.update_time()
        if (ngx.now() - before) * 1000 >= BLOCKING_TIMEOUT_MS * 0.9 then
            hanging_until, hanging_err = ngx.now() + HANG_MEMORY_S, err
        end
    end
    return answer, err
end

-- How to talk by phase; a phase that is not here cannot.
local EXCHANGE = {
    init_worker = blocking,
    exit_worker = blocking,
    server_rewrite = with_cosocket,
    rewrite = with_cosocket,
    access = with_cosocket,
    content = with_cosocket,
    timer = with_cosocket,
    ssl_cert = with_cosocket,
    ssl_session_fetch = with_cosocket,
    ssl_client_hello = with_cosocket,
}

-- Joins path segments below /api/9, each escaped.
local function path_of(segments)
    local escaped = {}
    for i = 1, #segments do
        escaped[i] = ngx.escape_uri(tostring(segments[i]))
    end
    return "/api/9/" .. concat(escaped, "/")
end

-- Sends one request. what: the thing asked for or changed, for error texts; segments: the path
-- below /api/9; body: a table, a JSON text or nil. Returns the status (2xx) and the answer's body;
-- or nil, a text for the user and, if the controller has answered, its status and error code.
function _M.request(what, method, segments, body)
    local phase = ngx.get_phase()
    local exchange = EXCHANGE[phase]
    if not exchange then
        return nil, phase == "init" and what .. " cannot be changed before the workers start"
                    or what .. " cannot be changed in the " .. phase .. " phase"
    end
    if type(body) == "table" then
        body = json.encode(body)
    end
    local answer, err = exchange(concat {
        method, " ", path_of(segments), " HTTP/1.1\r\nHost: durpina\r\nConnection: close\r\n",
        "Durpina-Token: ", native.token(), "\r\nContent-Type: application/json\r\n",
        "Content-Length: ", body and #body or 0, "\r\n\r\n", body or "",
    })
    local status
    if answer then
        status, answer = parse.http_response(answer)
        err = not status and no_answer(answer)
    end
    if not status then
        return nil, err .. " (is durpinad running?)"
    end
    if status >= 200 and status < 300 then
        return status, answer
    end
    local ok, decoded = pcall(json.decode, answer)
    local failure = ok and type(decoded) == "table" and decoded.error
    if type(failure) ~= "table" then
        return nil, "the controller answers " .. status, status
    end
    return nil, failure.text, status, failure.code
end

return _M
