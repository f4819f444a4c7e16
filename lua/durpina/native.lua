-- SPDX-License-Identifier: MIT
--
-- The nginx module as Lua functions: the only file with ffi. What is declared here comes from the
-- module itself, so the two cannot disagree. Scalars and strings go out; a peer's record is the one
-- struct, and it is overwritten by the next read.

local ffi = require "ffi"
local base = require "resty.core.base"

local C = ffi.C
local ffi_string = ffi.string
local get_request = base.get_request
local tonumber = tonumber

ffi.cdef "const char *ngx_http_durpina_ffi_cdef(void); void *malloc(size_t); void free(void *);"

do
    local loaded, cdef = pcall(function() return C.ngx_http_durpina_ffi_cdef end)
    if not loaded then
        error("load_module ngx_http_durpina_module.so is missing in nginx.conf", 0)
    end
    -- A declaration cannot be repeated in one Lua VM, but this file may be loaded again.
    if not pcall(ffi.sizeof, "struct ngx_http_durpina_ffi_peer") then
        ffi.cdef(ffi_string(cdef()))
    end
end

local NGX_OK = 0

local _M = {
    OK = NGX_OK,
    ERROR = -1,
    BUSY = -3,

    -- enum durpina_peer_state
    PEER_DOWN = 2,
    PEER_UNHEALTHY = 3,
    PEER_DRAINING = 4,
    PEER_CHECKING = 5,
    PEER_UNRESOLVED = 6,

    -- enum durpina_admin
    ADMIN_UP = 0,
}

-- The module's limit of an answer to a blocking exchange.
local RESPONSE_MAX = 64 * 1024 * 1024

local err_out = ffi.new("const char *[1]")
local text_out = ffi.new("const char *[1]")
local size_out = ffi.new("size_t[1]")
local id_out = ffi.new("uint32_t[1]")
local generation_out = ffi.new("uint32_t[1]")
local revision_out = ffi.new("uint64_t[1]")
local name_out = ffi.new("char[128]")
local peer_out = ffi.new("struct ngx_http_durpina_ffi_peer")
local ids_max = 256
local ids_out = ffi.new("uint32_t[?]", ids_max)

local function request()
    return get_request() or error("no request found", 3)
end

-- Returns an array of the algorithms' names.
function _M.algorithms()
    local words = {}
    while true do
        local word = C.ngx_http_durpina_ffi_algorithm(#words)
        if word == nil then
            return words
        end
        words[#words + 1] = ffi_string(word)
    end
end

-- Returns the number that stands for the algorithm of this name, or nil and a text.
function _M.method(word)
    if C.ngx_http_durpina_ffi_method(word, #word, id_out, err_out) == NGX_OK then
        return id_out[0]
    end
    return nil, ffi_string(err_out[0])
end

-- Returns the number that stands for it with one argument more, or nil and a text.
function _M.method_option(method, word)
    if C.ngx_http_durpina_ffi_method_option(method, word, #word, id_out, err_out) == NGX_OK then
        return id_out[0]
    end
    return nil, ffi_string(err_out[0])
end

-- Whether it goes by a key.
function _M.method_has_key(method)
    return C.ngx_http_durpina_ffi_method_has_key(method) ~= 0
end

-- Picks a peer for the current request. method: as above; key: a string, empty for the client's
-- address. Returns the module's code; last_error() has the text of any but OK. Not a tail call:
-- LuaJIT does not compile one into C ("leaving loop in root trace").
function _M.balance(method, key)
    local rc = C.ngx_http_durpina_ffi_balance(request(), method, key, #key, err_out)
    return rc
end

-- The same for a peer that was chosen in Lua.
function _M.balance_peer(id, generation)
    local rc = C.ngx_http_durpina_ffi_balance_peer(request(), id, generation, err_out)
    return rc
end

function _M.last_error()
    return ffi_string(err_out[0])
end

-- Name of the upstream that is being balanced, or nil.
function _M.current_upstream()
    if C.ngx_http_durpina_ffi_current_upstream(request(), text_out, size_out) == NGX_OK then
        return ffi_string(text_out[0], size_out[0])
    end
end

-- Number of upstream records: ids are below it.
function _M.upstreams()
    return C.ngx_http_durpina_ffi_upstreams()
end

-- Returns id and generation of a published upstream, or nil.
function _M.find_upstream(name)
    if C.ngx_http_durpina_ffi_find_upstream(name, #name, id_out, generation_out) == NGX_OK then
        return id_out[0], generation_out[0]
    end
end

-- Returns generation, revision and name of the upstream with this id, or nil.
function _M.upstream(id)
    if C.ngx_http_durpina_ffi_upstream(id, name_out, generation_out, revision_out) == NGX_OK then
        return generation_out[0], tonumber(revision_out[0]), ffi_string(name_out)
    end
end

-- Returns an array of the ids of its peers, or nil if the upstream is gone.
function _M.upstream_peers(id, generation)
    while true do
        local rc = C.ngx_http_durpina_ffi_upstream_peers(id, generation, ids_out, ids_max, id_out)
        local n = id_out[0]
        if rc ~= NGX_OK then
            return nil
        end
        if n <= ids_max then
            local ids = {}
            for i = 1, n do
                ids[i] = ids_out[i - 1]
            end
            return ids
        end
        ids_max = n * 2
        ids_out = ffi.new("uint32_t[?]", ids_max)
    end
end

-- Returns the record of a peer, valid until the next call, or nil if it has another owner by now.
-- generation 0: whatever is there.
function _M.peer(id, generation)
    if C.ngx_http_durpina_ffi_peer(id, generation, peer_out) == NGX_OK then
        return peer_out
    end
end

-- A char array of such a record as a string.
_M.text = ffi_string

-- Returns the failures of the peer inside fail_timeout, or nil if it is gone.
function _M.add_fail(id, generation)
    if C.ngx_http_durpina_ffi_add_fail(id, generation, id_out) == NGX_OK then
        return id_out[0]
    end
end

-- Returns true, or false if the peer is gone.
function _M.set_temp_down(id, generation, on)
    return C.ngx_http_durpina_ffi_set_temp_down(id, generation, on and 1 or 0) == NGX_OK
end

function _M.socket()
    return ffi_string(C.ngx_http_durpina_ffi_socket())
end

function _M.token()
    return ffi_string(C.ngx_http_durpina_ffi_token())
end

-- Returns the JSON that registers the upstream block of this name, or nil if there is no such one.
function _M.upstream_block(name)
    if C.ngx_http_durpina_ffi_upstream_block(name, #name, text_out, size_out) == NGX_OK then
        return ffi_string(text_out[0], size_out[0])
    end
end

-- One blocking exchange on the control socket. Returns the whole answer, or nil and a text.
function _M.exchange(text, timeout_ms)
    -- Pages of it that are not written to cost nothing, unlike those of a Lua buffer.
    local memory = C.malloc(RESPONSE_MAX)
    if memory == nil then
        return nil, "out of memory"
    end
    memory = ffi.gc(ffi.cast("char *", memory), C.free)
    if C.ngx_http_durpina_ffi_exchange(text, #text, memory, RESPONSE_MAX, timeout_ms, size_out,
                                       err_out) ~= NGX_OK then
        return nil, ffi_string(err_out[0])
    end
    local answer = ffi_string(memory, size_out[0])
    C.free(ffi.gc(memory, nil))
    return answer
end

return _M
