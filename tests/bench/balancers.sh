# SPDX-License-Identifier: MIT
# What is compared, and the nginx that runs it. Sourced by run.

# addresses N: N loopback addresses, all of them of this machine.
addresses() {
    seq 0 $(($1 - 1)) | awk '{printf "127.%d.%d.%d\n", 1 + $1 / 62500, $1 / 250 % 250, $1 % 250 + 1}'
}

# weights PATTERN N: N weights, one a line.
weights() {
    awk -v pattern="$1" -v n="$2" 'BEGIN {
        split("5 3 2", mixed, " ")
        for (i = 0; i < n; i++)
            print pattern == "mixed" ? mixed[i % 3 + 1] : pattern == "heavy" && i == 0 ? 1000 : 1
    }'
}

# The balancers: name, the parts it takes part in, what its upstream block holds beside the `server`
# lines. NAME, SIZE, PORT and KEY (a variable) are filled in. nginx's keepalive must come behind the
# balancer, so it has a column of its own; `durpina_keepalive` is the one of ours.
balancers() {
    cat <<'END'
nginx                               | worker proxy | keepalive         |
nginx-zone                          | worker proxy | keepalive         | zone NAME SIZEk;
nginx-least_conn                    | worker proxy | keepalive         | least_conn;
nginx-hash-consistent               | worker proxy | keepalive         | hash $KEY consistent;
nginx-random-two                    | worker proxy | keepalive         | random two least_conn;
lua-constant                        | worker proxy | keepalive         | balancer_by_lua_block { require("ngx.balancer").set_current_peer("127.1.0.1", PORT) }
lua-rotating                        | worker proxy | keepalive         | balancer_by_lua_block { require("rotating")(SIZE, PORT) }
lua-constant-key                    | worker       | keepalive         | balancer_by_lua_block { local key = ngx.var.KEY require("ngx.balancer").set_current_peer("127.1.0.1", PORT) }
durpina-lua-round-robin             | worker proxy | durpina_keepalive | balancer_by_lua_block { require "durpina.balancer" "round-robin" }
durpina-lua-consistent-hash         | worker       | durpina_keepalive | balancer_by_lua_block { require("durpina.balancer").balance("consistent-hash", ngx.var.KEY) }
durpina-lua-least-conn              | worker       | durpina_keepalive | balancer_by_lua_block { require "durpina.balancer" "least-conn" }
durpina-native-round-robin          | worker proxy | durpina_keepalive | durpina round-robin;
durpina-native-unweighted-round-robin | worker     | durpina_keepalive | durpina unweighted-round-robin;
durpina-native-ip-hash              | worker       | durpina_keepalive | durpina ip-hash;
durpina-native-consistent-hash      | worker       | durpina_keepalive | durpina consistent-hash $KEY;
durpina-native-ketama               | worker       | durpina_keepalive | durpina consistent-hash $KEY ketama;
durpina-native-bounded              | worker       | durpina_keepalive | durpina consistent-hash $KEY bounded;
durpina-native-least-conn           | worker       | durpina_keepalive | durpina least-conn;
durpina-native-random-two           | worker       | durpina_keepalive | durpina random-two;
durpina-native-peak-ewma            | worker       | durpina_keepalive | durpina peak-ewma;
durpina-native-least-time           | worker       | durpina_keepalive | durpina least-time;
END
}

# balancers_of PART [REGEX]: the names.
balancers_of() {
    balancers | awk -F' *[|] *' -v part="$1" -v regex="${2:-.}" \
        'index(" " $2 " ", " " part " ") && $1 ~ regex {print $1}'
}

# upstream BALANCER SIZE WEIGHTS PORT KEY [KEEPALIVE]: the block, named BALANCER_SIZE_WEIGHTS.
# KEEPALIVE: idle connections that nginx keeps in all, and ours for each peer; without it none.
upstream() {
    local name=$1_$2_$3 row
    row=$(balancers | awk -v name="$1" '$1 == name')
    echo "upstream $name {"
    paste -d' ' <(addresses "$2") <(weights "$3" "$2") |
        awk -v port="$4" '{printf "server %s:%s weight=%s;\n", $1, port, $2}'
    # A shared zone takes less than a kilobyte a peer.
    awk -F' *[|] *' -v name="$name" -v size="$(($2 + 100))" -v peers="$2" -v port="$4" -v key="$5" \
        -v keepalive="${6:-0}" '{
        text = $4
        gsub("NAME", name, text)
        gsub("SIZEk", size "k", text)
        gsub("SIZE", peers, text)
        gsub("PORT", port, text)
        gsub("KEY", key, text)
        print text
        if (keepalive && $3 == "keepalive")
            print "keepalive " peers + keepalive "; keepalive_timeout 1h; keepalive_requests 1000000000;"
        if (keepalive && $3 == "durpina_keepalive")
            print "durpina_keepalive " keepalive " timeout=1h requests=1000000000;"
    }' <<<"$row"
    echo "}"
}

# A balancer that does nothing but rotate through a Lua table of the peers.
mkdir -p "$T/lua"
cat >"$T/lua/rotating.lua" <<'END'
local set_current_peer = require("ngx.balancer").set_current_peer
local lists, at = {}, {}

local function list(n)
    local addresses = {}
    for i = 0, n - 1 do
        addresses[i + 1] = ("127.1.%d.%d"):format(i / 250, i % 250 + 1)
    end
    lists[n], at[n] = addresses, 0
    return addresses
end

return function(n, port)
    local addresses = lists[n] or list(n)
    local i = at[n] % n + 1
    at[n] = i
    set_current_peer(addresses[i], port)
end
END

# bench_nginx_conf NAME WITH_DURPINA <HTTP: writes $T/NAME.conf with one worker.
bench_nginx_conf() {
    local name=$1 durpina=$2 text
    text=$(cat)
    mkdir -p "$T/$name"
    {
        cat <<END
load_module $NGINX_MODULES/ndk_http_module.so;
load_module $NGINX_MODULES/ngx_http_lua_module.so;
load_module $BUILD/bench/ngx_http_bench_module.so;
${durpina:+load_module $BUILD/ngx_http_durpina_module.so;}
user www-data;
worker_processes 1;
pid $T/$name.pid;
error_log $T/$name.log error;
events { worker_connections 18000; }
http {
    ${durpina:+durpina_socket $SOCKET; durpina_pin $PIN;}
    lua_package_path "$T/lua/?.lua;;";
    access_log off;
    $(temp_paths "$T/$name")
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
END
        printf '%s\n}\n' "$text"
    } >"$T/$name.conf"
}
