#!/bin/bash
# SPDX-License-Identifier: MIT
# A virtual endpoint for UDP: name servers (NSD) behind an address that answers come from.
. "$(dirname "$0")/../lib/harness.sh"
. "$(dirname "$0")/../lib/vip.sh"

own_network "$@"
join_cgroup
VIP=127.10.0.53
VIP6=fd00::53

cat >"$T/durpinad.conf" <<END_OF_CONF
upstreams 64; peers 1k; slots 64k;
vip $VIP:53/udp upstream=dns;
vip [$VIP6]:53/udp upstream=six;
END_OF_CONF
start_durpinad
for upstream in dns six; do
    api POST /api/9/durpina/upstreams "{\"name\":\"$upstream\"}" >/dev/null
done

# start_nsd NAME ADDRESS UPSTREAM: whose zone "test" has its name; sets port_NAME
start_nsd() {
    local dir=$T/$1 address=$2
    free_port
    printf -v "port_$1" %s "$ret_port"
    mkdir "$dir"
    cat >"$dir/nsd.conf" <<END_OF_CONF
server:
    server-count: 1
    ip-address: $address@$ret_port
    username: ""
    zonesdir: "$dir"
    database: ""
    zonelistfile: "$dir/zone.list"
    xfrdfile: ""
    xfrdir: "$dir"
    pidfile: "$dir/pid"
    rrl-ratelimit: 0
remote-control:
    control-enable: no
zone:
    name: test
    zonefile: test.zone
END_OF_CONF
    cat >"$dir/test.zone" <<END_OF_ZONE
\$TTL 1
@ IN SOA ns.test. root.test. 1 3600 600 86400 1
@ IN NS ns.test.
ns IN A 127.0.0.1
who IN TXT "$1"
END_OF_ZONE
    (cd "$dir" && exec nsd -d -c "$dir/nsd.conf") >>"$T/$1.log" 2>&1 &
    started[$!]=$1
    wait_for dig +tries=1 +time=1 -p "$ret_port" "@$address" who.test TXT || die "NSD $1 starts"
    [[ $address != *:* ]] || address="[$address]"
    api POST "/api/9/http/upstreams/$3/servers" "{\"server\":\"$address:$ret_port\"}" >/dev/null
}
start_nsd one 127.0.0.1 dns
start_nsd two 127.0.0.1 dns
start_nsd six ::1 six

# ask N ADDRESS: by dig, which takes no answer from another address than it has asked.
ask() {
    local i
    for ((i = 0; i < $1; i++)); do
        dig +short +tries=1 +time=2 "@$2" who.test TXT
    done | tr -d '"' | counted
}
is "dig_is_answered_in_turn" "$(ask 6 $VIP)" "one=3 two=3"
is "over_ipv6_by_a_server_of_that_family" "$(ask 3 $VIP6)" "six=3"

# Sockets that are not connected: who has answered is what recvfrom() says. A socket that has been
# sent to a server stays with it.
ask_unconnected() { # ADDRESS
    /usr/bin/python3 - "$1" <<'END_OF_PYTHON'
import socket, sys
host = sys.argv[1]
question = bytes.fromhex("123401000001000000000000") + b"\x03who\x04test\x00\x00\x10\x00\x01"
for _ in range(4):
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(2)
    servers = set()
    for _ in range(3):
        s.sendto(question, (host, 53))
        answer, sender = s.recvfrom(512)
        servers.update(n for n in ("one", "two", "six") if b"\x03" + n.encode() in answer)
        if sender[:2] != (host, 53):
            print("from", sender)
    print("+".join(servers))
END_OF_PYTHON
}
is "answers_come_from_the_address_that_was_asked" "$(ask_unconnected $VIP | counted)" "one=2 two=2"
is "and_so_over_ipv6" "$(ask_unconnected $VIP6 | counted)" "six=4"
# Java's sockets are such, and libraries' that want one kind for both families: IPv6, connected to an
# IPv4 address.
ask_connected() { # ADDRESS
    /usr/bin/python3 - "$1" <<'END_OF_PYTHON'
import socket, sys
question = bytes.fromhex("123401000001000000000000") + b"\x03who\x04test\x00\x00\x10\x00\x01"
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.settimeout(2)
s.connect((sys.argv[1], 53))
for _ in range(2):
    s.send(question)
    print(s.recvfrom(512)[1][0], s.getpeername()[0])
END_OF_PYTHON
}
is "a_connected_socket_is_told_the_address_it_dialled" \
    "$(ask_connected "::ffff:$VIP" | sort -u)" "::ffff:$VIP ::ffff:$VIP"
is "tcp_to_it_is_left_alone" \
    "$(/usr/bin/python3 -c 'import socket
try: socket.create_connection(("'$VIP'", 53))
except ConnectionRefusedError: print("refused")')" refused
api PATCH "/api/9/http/upstreams/dns/servers/$(server_id dns "127.0.0.1:$port_one")" '{"down":true}' >/dev/null
is "server_that_is_down_is_not_asked" "$(ask 4 $VIP)" "two=4"
done_testing
