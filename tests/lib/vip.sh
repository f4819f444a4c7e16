# SPDX-License-Identifier: MIT
# Sourced behind harness.sh: clients of virtual endpoints.

# vip_client COUNT ADDRESS PORT [SOURCE]: so many connections, one after the other, by Python's
# sockets. Prints who answers each, or its error; also "getpeername ADDRESS" if that is not what was dialled.
# An IPv4 address in IPv6's clothes is dialled by an IPv6 socket.
vip_client() {
    /usr/bin/python3 - "$@" <<'END_OF_PYTHON'
import socket, sys
count, host, port = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for _ in range(count):
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    s.settimeout(5)
    try:
        if len(sys.argv) > 4:
            s.bind((sys.argv[4], 0))
        s.connect((host, port))
        if s.getpeername()[:2] != (host, port):
            print("getpeername", s.getpeername()[0])
        s.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while part := s.recv(4096):
            answer += part
        print(answer.split()[-1].decode())
    except OSError as error:
        print(error.strerror)
    s.close()
END_OF_PYTHON
}

# How often each line came: "a=500 b=300".
counted() {
    sort | uniq -c | awk '{printf "%s%s=%d", s, $2, $1; s = " "} END {print ""}'
}

# vip FIELD ADDRESS: a field of the virtual endpoint, "none" if it has none.
vip() {
    api GET /api/9/durpina/vips | jq -r --arg f "$1" --arg a "$2" \
        '.[] | select(.address == $a) | .[$f] // "none"'
}

vip_is() { # STATE ADDRESS
    [ "$(vip state "$2")" = "$1" ]
}
