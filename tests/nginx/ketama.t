#!/bin/bash
# SPDX-License-Identifier: MIT
# `durpina consistent-hash KEY ketama` is nginx's `hash KEY consistent`: for the same servers, each of
# 10,000 keys goes to the same one.
. "$(dirname "$0")/../lib/harness.sh"

KEYS=10000

# One nginx is all servers: which one answers is known by where it was reached.
for i in 1 2 3 4 5; do
    free_port
    ports[i]=$ret_port
done
free_port
front=$ret_port
start_durpinad
start_nginx backends 1 <<END
http {
    server {
        $(printf 'listen 127.0.0.1:%s; ' "${ports[@]}")
        listen [::1]:${ports[1]};
        listen unix:$T/back.sock;
        location / { return 200; }
    }
}
END

p=(0 "${ports[@]}")
# Each set of servers twice: NAME_ours and NAME_nginx.
sets() {
    local name servers
    while IFS='|' read -r name servers; do
        echo "upstream ${name}_ours { $servers durpina consistent-hash \$arg_k ketama; keepalive 8; }"
        echo "upstream ${name}_nginx { $servers hash \$arg_k consistent; keepalive 8; }"
    done <<END
weighted|server 127.0.0.1:${p[1]}; server 127.0.0.1:${p[2]} weight=2; server 127.0.0.1:${p[3]} weight=3; server 127.0.0.1:${p[4]} weight=10; server 127.0.0.1:${p[5]} weight=4;
kinds|server 127.0.0.2 max_fails=0; server [::1]:${p[1]} weight=2; server unix:$T/back.sock; server 127.0.0.1:${p[1]};
down|server 127.0.0.1:${p[1]}; server 127.0.0.1:${p[2]} down; server 127.0.0.1:${p[3]}; server 127.0.0.1:${p[4]} weight=2; server 127.0.0.1:${p[5]};
END
}

start_nginx front 1 < <(
    cat <<END
http {
    log_format keys '\$arg_k \$upstream_addr';
    $(sets)
    server {
        listen 127.0.0.1:$front;
        access_log $T/keys keys;
        location ~ ^/(\\w+)\$ {
            proxy_pass http://\$1;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_next_upstream off; # port 80 is whose it is, or nobody's
        }
    }
}
END
)

all_are_logged() {
    [ "$(wc -l <"$T/keys")" -eq $KEYS ]
}

# Where upstream $1 sends each key, sorted, in the file $2.
map_keys() {
    : >"$T/keys"
    curl -s -o /dev/null "http://127.0.0.1:$front/$1?k=key-[1-$KEYS]"
    wait_for all_are_logged || die "all keys of $1 are sent"
    sort "$T/keys" >"$T/$2"
}

# Keys that $1 and $2 have at different servers, "KEY SERVER SERVER" a line.
moved() {
    join "$T/$1" "$T/$2" | awk '$2 != $3'
}

for set in weighted:5 kinds:4 down:4; do
    name=${set%:*} servers=${set#*:}
    map_keys "${name}_ours" ours
    map_keys "${name}_nginx" nginx
    is "each_key_goes_where_nginx_sends_it ($name)" "$(moved ours nginx | head -n 3)" ""
    is "all_servers_have_keys ($name)" "$(awk '{print $2}' "$T/ours" | sort -u | wc -l)" "$servers"
    [ "$name" = weighted ] && mv "$T/ours" "$T/before"
done

# At run time.
victim=127.0.0.1:${p[3]}
ok "server_is_taken_down" "$BUILD/durpinactl" down weighted_ours "$victim"
map_keys weighted_ours during
is "only_keys_of_a_server_that_is_down_move" "$(moved before during | awk '{print $2}' | sort -u)" \
    "$victim"
is "all_keys_of_a_server_that_is_down_move" "$(grep -c " $victim\$" "$T/during")" 0
ok "server_is_brought_back" "$BUILD/durpinactl" up weighted_ours "$victim"
map_keys weighted_ours after
is "keys_return" "$(moved before after | head -n 3)" ""
done_testing
