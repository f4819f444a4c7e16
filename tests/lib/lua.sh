# SPDX-License-Identifier: MIT
# Sourced after harness.sh by the tests of the Lua library: runs Lua inside an nginx.
#
#     server { listen 127.0.0.1:$front reuseport; $lua_location }     in the configuration
#     lua_url=http://127.0.0.1:$front/lua
#     is "weights are numbers" "$(lua 'return 1 + 1, nil')" "2 | nil"
#
# Results are joined by " | "; a raise gives "raised: " and the text.

# shellcheck disable=SC2034  # for the tests
lua_location='location = /lua {
    content_by_lua_block {
        ngx.req.read_body()
        local fn = assert(loadstring("Upstream = require [[durpina.upstream]] "
                                     .. "Balancer = require [[durpina.balancer]] "
                                     .. ngx.req.get_body_data()))
        ngx.header["X-Worker"] = ngx.worker.id()
        local function told(ok, ...)
            local results = { ... }
            for i = 1, select("#", ...) do results[i] = tostring(results[i]) end
            ngx.say(ok and "" or "raised: ", table.concat(results, " | "))
        end
        told(pcall(setfenv(fn, setmetatable({}, { __index = _G }))))
    }
}'

# lua CODE: what it returns.
lua() {
    curl -s -m 10 --data-binary "$1" "$lua_url"
}

# lua_everywhere N CODE: each of the N workers runs it at least once; the different results, sorted.
lua_everywhere() {
    local n=$1 code=$2 i answer worker
    declare -A seen=()
    for ((i = 0; i < 400 && ${#seen[@]} < n; i++)); do
        answer=$(curl -s -m 10 -D "$T/headers" --data-binary "$code" "$lua_url")
        worker=$(tr -d '\r' <"$T/headers" | sed -n 's/^X-Worker: //p')
        seen[${worker:-none}]=1
        echo "$answer"
    done | sort -u
}
