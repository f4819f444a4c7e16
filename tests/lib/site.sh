# SPDX-License-Identifier: MIT
# Sourced behind harness.sh: a site with one upstream, as most end to end tests need it.

# foo_site PORT [SERVER-LINES [HTTP-TEXT]]: an http block with the upstream foo (5:3:2 on the backends
# a, b and c unless told otherwise) in front of PORT.
#     /                     the upstream                     X-Worker: the worker's pid
#     /var/                 the same through proxy_pass http://$variable
#     /weight/PEER[/N]      get_weight(), after set_weight(N), of the worker that answers
#     /lua                  runs the body as Lua code and prints what it returns, or raises
foo_site() {
    local port=$1
    local servers=${2:-"server 127.0.0.1:$port_a weight=5; server 127.0.0.1:$port_b weight=3;
        server 127.0.0.1:$port_c weight=2;"}
    cat <<END
http {
    lua_shared_dict upstream 1m;
    upstream foo {
        $servers
        balancer_by_lua_block { require "durpina.balancer" "round-robin" }
    }
    init_worker_by_lua_block {
        local Upstream = require "durpina.upstream"
        Upstream.init("upstream")
        Upstream.get("foo")
    }
    ${3:-}
    server {
        listen 127.0.0.1:$port backlog=4096;
        add_header X-Worker \$pid always;
        location / {
            proxy_pass http://foo;
        }
        location /var/ {
            set \$where foo;
            proxy_pass http://\$where;
        }
        location ~ ^/weight/([^/]+)(?:/(.+))?\$ {
            content_by_lua_block {
                local peer = require("durpina.upstream").get("foo"):get_peer(ngx.var[1])
                if ngx.var[2] and ngx.var[2] ~= "" then
                    local done, err = peer:set_weight(ngx.var[2])
                    if not done then return ngx.say(err) end
                end
                ngx.say(peer:get_weight())
            }
        }
        location = /lua {
            content_by_lua_block {
                ngx.req.read_body()
                local code = assert(loadstring(ngx.req.get_body_data()))
                local results = { pcall(code) }
                for i = 1, table.maxn(results) do results[i] = tostring(results[i]) end
                ngx.say(table.concat(results, " "))
            }
        }
    }
}
END
}

# Runs the code in a worker of the site at PORT: "true RESULTS..." or "false ERROR".
lua() {
    curl -s -m 10 --data-binary "$2" "http://127.0.0.1:$1/lua"
}

# each_worker MASTER URL: one answer of each of its workers to URL, "PID BODY" a line.
each_worker() {
    local wanted seen='' pid body end=$((SECONDS + DEADLINE_S))
    wanted=$(workers "$1" | wc -l)
    while [ "$(wc -w <<<"$seen")" -lt "$wanted" ]; do
        [ "$SECONDS" -lt "$end" ] || return 1
        body=$(curl -s -m 5 -D "$T/headers" "$2")
        pid=$(sed -n 's/^X-Worker: \([0-9]*\).*/\1/p' "$T/headers")
        [[ " $seen " == *" $pid "* ]] && continue
        seen+=" $pid"
        echo "$pid $body"
    done
}

# --- load ----------------------------------------------------------------------------------------

# start_load URL SECONDS CONNECTIONS [WRK-OPTION...]: wrk in the background; sets load_pid.
start_load() {
    local url=$1 seconds=$2 connections=$3
    local before
    shift 3
    before=$(requests_served)
    wrk -t 1 -c "$connections" -d "${seconds}s" --timeout 10s "$@" "$url" >"$T/load.out" 2>&1 &
    load_pid=$!
    started[$load_pid]=wrk
    wait_for served_more_than "$before" || die "the load begins" "$(cat "$T/load.out")"
}

# Requests that went to peers so far, over all upstreams.
requests_served() {
    api GET /api/9/http/upstreams | jq '[.[].peers[].requests] | add // 0'
}

served_more_than() {
    [ "$(requests_served)" -gt "$1" ]
}

# Ends the load now (wrk reports on SIGINT) and waits for its report.
end_load() {
    kill -INT "$load_pid" 2>/dev/null
    wait "$load_pid"
    unset "started[$load_pid]"
}

load_requests() {
    awk '/requests in/ {print $1}' "$T/load.out"
}

# Requests that failed, in words, or "none"; "no report" if wrk did not finish.
load_errors() {
    grep -q 'requests in' "$T/load.out" || {
        echo "no report: $(cat "$T/load.out")"
        return
    }
    grep -E 'Socket errors|Non-2xx' "$T/load.out" || echo none
}
