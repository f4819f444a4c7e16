# SPDX-License-Identifier: MIT
# Sourced behind harness.sh: a backend that tells connections apart, and counts of them.

# start_counting [HTTP-TEXT]: an nginx in front of the ports $one, $two, $brief (which closes idle
# connections after 200 ms) and $all (on every address of the loopback).
#     /              "CONNECTION REQUEST": the number of the connection, of the request on it
#     /from          the client's address     /delay/MS    the same after MS ms
#     /status/CODE   that status              /tls         the name that TLS was asked for
start_counting() {
    local port
    for port in one two brief all; do
        free_port
        printf -v "$port" %s "$ret_port"
    done
    counting_locations >"$T/counting.locations"
    start_nginx counting 1 <<END
http {
    keepalive_timeout 60s;
    default_type text/plain;
    server {
        listen 127.0.0.1:$one; listen 127.0.0.1:$two; listen $all backlog=4096;
        include $T/counting.locations;
    }
    server { listen 127.0.0.1:$brief; keepalive_timeout 200ms; include $T/counting.locations; }
    ${1:-}
}
END
}

counting_locations() {
    cat <<'END'
location / { return 200 "$connection $connection_requests\n"; }
location = /from { return 200 "$remote_addr\n"; }
location ~ ^/status/(\d+)$ { content_by_lua_block { ngx.exit(tonumber(ngx.var[1])) } }
location ~ ^/delay/(\d+)$ {
    content_by_lua_block {
        ngx.sleep(ngx.var[1] / 1000)
        ngx.say(ngx.var.connection, " ", ngx.var.connection_requests)
    }
}
END
}

# Connections that the backend has on its port.
connections() {
    ss -Htn state established "sport = :$1" | wc -l
}

has_connections() {
    [ "$(connections "$1")" -eq "$2" ]
}
