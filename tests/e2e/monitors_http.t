#!/bin/bash
# SPDX-License-Identifier: MIT
# The monitors http and grpc against real servers, with and without TLS, and against backends that
# answer in every wrong way: each check ends in time, with the right verdict, for the reason that is.
. "$(dirname "$0")/../lib/harness.sh"

OURS=/api/9/durpina/upstreams
TIMEOUT_MS=500

declare -A port # backend => its port of 127.0.0.1

# --- certificates --------------------------------------------------------------------------------

# sign NAME EXTENSION [FROM TO]: $T/NAME.pem and .key, signed by $T/ca.pem; valid today, or from and
# to a date (YYYYMMDDHHMMSSZ).
sign() {
    openssl req -newkey rsa:2048 -nodes -keyout "$T/$1.key" -out "$T/$1.csr" -subj "/CN=$1" \
        -addext "subjectAltName=$2" 2>/dev/null
    (cd "$T" && openssl ca -batch -notext -config ca.conf -cert ca.pem -keyfile ca.key \
        -in "$1.csr" -out "$1.pem" ${3:+-startdate "$3" -enddate "$4"}) >>"$T/openssl.log" 2>&1
}

cat >"$T/ca.conf" <<END
[ca]
default_ca = test
[test]
new_certs_dir = $T
database = $T/index.txt
rand_serial = yes
default_md = sha256
default_days = 2
policy = any
copy_extensions = copy
[any]
commonName = supplied
END
: >"$T/index.txt"
openssl req -x509 -newkey rsa:2048 -nodes -keyout "$T/ca.key" -out "$T/ca.pem" -days 2 \
    -subj "/CN=test authority" 2>/dev/null
sign good "DNS:good.test, IP:127.0.0.1"
sign other "DNS:other.test"
sign expired "DNS:good.test" 20200101000000Z 20200201000000Z
sign future "DNS:good.test" 20900101000000Z 20900201000000Z
sign client "DNS:client.test"
openssl req -x509 -newkey rsa:2048 -nodes -keyout "$T/self.key" -out "$T/self.pem" -days 2 \
    -subj "/CN=good.test" -addext "subjectAltName=DNS:good.test" 2>/dev/null
cat "$T/client.pem" "$T/client.key" >"$T/both.pem"
chmod 644 "$T"/*.key # durpinad is no longer root when it reads them

# --- backends ------------------------------------------------------------------------------------

tls_server() { # NAME CERTIFICATE [DIRECTIVES]
    free_port
    port[$1]=$ret_port
    cat <<END
    server {
        listen 127.0.0.1:$ret_port ssl ${4:-http2};
        ssl_certificate $T/$2.pem;
        ssl_certificate_key $T/$2.key;
        ${3:-}
        location / { return 200 "\$server_protocol \$ssl_server_name \$http_host \$ssl_client_s_dn\\n"; }
    }
END
}

plain_server() { # NAME [http2]
    free_port
    port[$1]=$ret_port
    cat <<END
    server {
        listen 127.0.0.1:$ret_port ${2:-};
        location / { return 200 "\$request_method \$server_protocol\\n"; }
        location = /busy { return 503; }
    }
END
}

{
    cat <<END
daemon off;
master_process off;
pid $T/backends.pid;
error_log $T/backends.log error;
events { worker_connections 1024; }
http {
    $(mkdir "$T/backends" && temp_paths "$T/backends")
    access_log off;
END
    tls_server tls good
    tls_server tls_other other
    tls_server tls_expired expired
    tls_server tls_future future
    tls_server tls_self self
    tls_server tls_1_1 good "" " "
    tls_server tls_mutual good "ssl_client_certificate $T/ca.pem; ssl_verify_client on;"
    plain_server plain
    plain_server h2c http2
    echo "}"
} >"$T/backends.conf"
(cd "$T" && exec "$NGINX" -e "$T/backends.log" -p "$T" -c "$T/backends.conf") >>"$T/backends.log" 2>&1 &
started[$!]=backends
wait_for listening "${port[h2c]}" || die "nginx starts"

(cd "$T" && exec "$ROOT/tests/lib/evil-backends" "$T/evil.ports") >"$T/evil.out" 2>"$T/evil.log" &
started[$!]=evil
(cd "$T" && exec "$ROOT/tests/lib/grpc-health" "$T/grpc.ports" good.pem good.key ca.pem) \
    >"$T/grpc.log" 2>&1 &
started[$!]=grpc
wait_for test -e "$T/evil.ports" || die "evil backends start"
wait_for test -e "$T/grpc.ports" || die "gRPC servers start"
while read -r name number; do
    port[$name]=$number
done < <(cat "$T/evil.ports" "$T/grpc.ports")
free_port
port[nobody]=$ret_port

# --- what is checked, and what follows -----------------------------------------------------------

# FACT | BACKEND | MONITOR | OPTIONS | passed or failed | REASON [or REASON, where two race]. TLS stands for
# the options that make a check go by our authority.
TLS='"tls": true, "tls_ca": "'$T'/ca.pem"'
GOOD=$TLS', "sni": "good.test"'
CLIENT='"tls_cert": "'$T'/client.pem", "tls_key": "'$T'/client.key"'
table() {
    cat <<END
http_1_1 | plain | http | "match_body": "^GET HTTP/1[.]1$" | passed | HTTP 200
http_2_without_tls | h2c | http | "http_version": 2, "match_body": "^GET HTTP/2[.]0$" | passed | HTTP 200
http_2_post | h2c | http | "http_version": 2, "method": "POST", "body": "x", "match_body": "POST" | passed | HTTP 200
http_2_of_http_1_1 | plain | http | "http_version": 2 | failed | closed without an answer in HTTP/2
http_1_1_of_http_2 | h2c | http | | failed | answer is not HTTP
status_503 | plain | http | "url": "/busy" | failed | HTTP 503
body_that_does_not_match | plain | http | "match_body": "alive" | failed | body does not match
nobody_listens | nobody | http | | failed | connection refused
nobody_listens_to_grpc | nobody | grpc | | failed | connection refused
good_certificate_by_sni | tls | http | $GOOD, "match_body": "1.1 good.test 127.0.0.1" | passed | HTTP 200
good_certificate_by_host | tls | http | $TLS, "host": "good.test:81", "match_body": " good.test good.test:81" | passed | HTTP 200
good_certificate_of_an_address | tls | http | $TLS, "match_body": "^HTTP/1.1  127.0.0.1:" | passed | HTTP 200
tls_http_2 | tls | http | $GOOD, "http_version": 2, "match_body": "^HTTP/2.0 good.test " | passed | HTTP 200
tls_http_2_not_offered | tls_1_1 | http | $GOOD, "http_version": 2 | failed | answer is not HTTP/2
certificate_for_another_name | tls_other | http | $GOOD | failed | certificate is for another name
certificate_for_no_address | tls_other | http | $TLS | failed | certificate is for another name
expired_certificate | tls_expired | http | $GOOD | failed | certificate has expired
certificate_of_tomorrow | tls_future | http | $GOOD | failed | certificate is not valid yet
self_signed_certificate | tls_self | http | $GOOD | failed | certificate is self-signed
authority_of_nobody | tls | http | "tls": true, "sni": "good.test" | failed | certificate is of an unknown authority
expired_certificate_unverified | tls_expired | http | "tls": true, "tls_verify": false | passed | HTTP 200
self_signed_certificate_unverified | tls_self | http | "tls": true, "tls_verify": false | passed | HTTP 200
no_client_certificate | tls_mutual | http | $GOOD | failed | HTTP 400
client_certificate | tls_mutual | http | $GOOD, $CLIENT, "match_body": "CN=client" | passed | HTTP 200
tls_of_a_plain_server | plain | http | $GOOD | failed | TLS handshake failed: wrong version number
client_certificate_with_its_key | tls_mutual | http | $GOOD, "tls_cert": "$T/both.pem", "match_body": "CN=client" | passed | HTTP 200
plain_http_of_a_tls_server | tls_1_1 | http | | failed | HTTP 400
grpc_serving | grpc | grpc | | passed | health is SERVING
grpc_service_serving | grpc | grpc | "grpc_service": "my.Service" | passed | health is SERVING
grpc_reply_of_a_later_version | grpc | grpc | "grpc_service": "newer" | passed | health is SERVING
grpc_deadline_is_sent | grpc | grpc | "grpc_service": "deadline" | passed | health is SERVING
grpc_not_serving | grpc | grpc | "grpc_service": "down" | failed | health is NOT_SERVING
grpc_health_unknown | grpc | grpc | "grpc_service": "unknown" | failed | health is UNKNOWN
grpc_junk | grpc | grpc | "grpc_service": "junk" | failed | reply is not that of a health service
grpc_long_reply | grpc | grpc | "grpc_service": "long" | failed | answer of unknown length over 4 KiB
grpc_no_such_service | grpc | grpc | "grpc_service": "nosuch" | failed | grpc-status 5 (not found)
grpc_no_such_service_is_wanted | grpc | grpc | "grpc_service": "nosuch", "grpc_status": 5 | passed | grpc-status 5 (not found)
grpc_unauthenticated | grpc | grpc | "grpc_service": "locked" | failed | grpc-status 16 (unauthenticated)
grpc_serving_is_not_wanted | grpc | grpc | "grpc_status": 12 | failed | grpc-status 0 (ok)
grpc_no_health_service | grpc_bare | grpc | | failed | grpc-status 12 (unimplemented)
grpc_no_health_service_is_wanted | grpc_bare | grpc | "grpc_status": 12 | passed | grpc-status 12 (unimplemented)
grpc_slow | grpc | grpc | "grpc_service": "slow" | failed | no answer in $TIMEOUT_MS ms or no end of the answer in $TIMEOUT_MS ms
grpc_tls | grpc_tls | grpc | $GOOD | passed | health is SERVING
grpc_tls_other_name | grpc_tls | grpc | $TLS, "sni": "other.test" | failed | certificate is for another name
grpc_tls_client_certificate | grpc_mutual | grpc | $GOOD, $CLIENT | passed | health is SERVING
grpc_of_an_http_2_server | h2c | grpc | | failed | no grpc-status in the answer
grpc_of_an_http_1_1_server | plain | grpc | | failed | closed without an answer in HTTP/2
silence | silent | http | | failed | no answer in $TIMEOUT_MS ms
silence_over_tls | silent | http | "tls": true | failed | no TLS handshake in $TIMEOUT_MS ms
silence_over_http_2 | silent | grpc | | failed | no answer in $TIMEOUT_MS ms
silence_after_settings | h2_silent | grpc | | failed | no answer in $TIMEOUT_MS ms
dripping_header | drip | http | | failed | no end of the answer in $TIMEOUT_MS ms
dripping_body | drip_body | http | | failed | no end of the answer in $TIMEOUT_MS ms
endless_header | headers | http | | failed | answer header over 16 kB
endless_body | body | http | | failed | answer of unknown length over 256 KiB
endless_small_chunks | chunks | http | | failed | answer of unknown length over 256 KiB
endless_chunk_header | chunk | http | | failed | no end of the answer in 1024 KiB
endless_trailers | trailers | http | | failed | answer header over 16 kB
endless_interim_answers | continue | http | | failed | answer header over 16 kB
slow_interim_answers | slow_continue | http | | failed | no end of the answer in $TIMEOUT_MS ms
header_of_200_kb | line | http | | failed | answer header over 16 kB
status_line_of_200_kb | status_line | http | | failed | answer header over 16 kB
reset_connection | reset | http | | failed | connection reset by peer
closed_connection | closing | http | | failed | closed without an answer
garbage | garbage | http | | failed | answer is not HTTP
other_protocol | ssh | http | | failed | answer is not HTTP
redirect_to_a_file | to_file | http | "ok_codes": 200 | failed | HTTP 302
http_0_9 | http_0_9 | http | | failed | answer is not HTTP
overflowing_content_length | overflow | http | | failed | no end of the answer in $TIMEOUT_MS ms
negative_content_length | negative | http | | failed | answer is not HTTP
short_body | short | http | | failed | answer cut short
tls_garbage | tls_garbage | http | "tls": true | failed | TLS handshake failed: packet length too long
tls_alert | tls_alert | http | "tls": true | failed | TLS handshake failed: sslv3 alert handshake failure
http_2_garbage | garbage | grpc | | failed | closed without an answer in HTTP/2
http_2_pings | h2_pings | grpc | | failed | HTTP/2: Flooding was detected in this HTTP/2 session, and it must be closed
http_2_windows | h2_windows | grpc | | failed | no end of the answer in 1024 KiB
http_2_unknown_frames | h2_unknown | grpc | | failed | no end of the answer in 1024 KiB
http_2_continuations | h2_continuations | grpc | | failed | HTTP/2: Too many CONTINUATION frames following a HEADER frame or HTTP/2 stream 1 was not closed cleanly: PROTOCOL_ERROR (err 1)
END
}

# --- all at once ---------------------------------------------------------------------------------

echo "upstreams 256; peers 1k; slots 64k;" >"$T/durpinad.conf"
start_durpinad

mapfile -t rows < <(table | sed 's/ *| */|/g')
{
    for row in "${rows[@]}"; do
        IFS='|' read -r fact backend monitor options _ <<<"$row"
        jq -nc --arg name "$fact" --arg server "127.0.0.1:${port[$backend]}" --arg monitor "$monitor" \
            --argjson options "{\"interval\": 1, \"timeout\": $TIMEOUT_MS${options:+, $options}}" '
            ["/api/9/durpina/upstreams", {$name}],
            ["/api/9/http/upstreams/\($name)/servers", {$server}],
            ["/api/9/durpina/upstreams/\($name)/monitors", {id: "m", name: $monitor, $options}] |
            "url = \"http://x\(.[0])\"\ndata = \(.[1] | tojson | tojson)\n" +
            "unix-socket = \"'"$SOCKET"'\"\nwrite-out = \"%{http_code}\\n\"\noutput = \"/dev/null\"\nnext"' -r
    done
} | sed '$d' >"$T/setup.curl" # the last "next"
is "all_monitors_are_accepted" "$(curl -s -m 30 -K "$T/setup.curl" | sort | uniq -c | xargs)" \
    "$((3 * ${#rows[@]})) 201"

# FACT => "VERDICT DURATION REASON", once every one has been checked twice.
results() {
    for row in "${rows[@]}"; do
        api GET "$OURS/${row%%|*}/peers" | jq -r --arg fact "${row%%|*}" '.[0].monitors[0] |
            select(.checks >= 2) | "\($fact) \(.verdict) \(.last.duration) \(.last.reason)"'
    done
}

all_are_checked() {
    results >"$T/results"
    [ "$(wc -l <"$T/results")" -eq "${#rows[@]}" ]
}
DEADLINE_S=20 wait_for all_are_checked || note "not all are checked"

declare -A verdict=() duration=() reason=()
while read -r fact word ms text; do
    verdict[$fact]=$word duration[$fact]=$ms reason[$fact]=$text
done <"$T/results"
late=
for row in "${rows[@]}"; do
    IFS='|' read -r fact _ _ _ wanted text <<<"$row"
    case " or $text or " in
    *" or ${reason[$fact]:-} or "*) text=${reason[$fact]} ;;
    esac
    is "$fact" "${verdict[$fact]:-} ${reason[$fact]:-}" "$wanted $text"
    [ "${duration[$fact]:-99999}" -le $((TIMEOUT_MS + 50)) ] || late+="$fact: ${duration[$fact]} ms "
done
is "no_check_lasts_longer_than_its_timeout" "$late" ""
# The machine may be busy; one endless backend that holds up the rest makes all late.
between "checks_begin_in_time_beside_them" \
    "$(api GET /api/9/durpina | jq '.prober | 100 * .late / .checks | floor')" 0 10

# What is read, what comes in until the guard looks at a call, and what lies in the buffers of
# both sockets: far below what an endless backend sends in a timeout.
between "no_backend_is_read_without_end" "$(sort -t= -k2n "$T/evil.out" | tail -n 1 | cut -d= -f2)" \
    0 100000000

no_connection_is_open() {
    ! ss -Htn state established "( $(printf 'or dport = :%s ' "${port[@]}" | cut -c4-))" | grep -q .
}
ok "monitoring_is_paused" test 200 = "$(for row in "${rows[@]}"; do
    api_code PUT "$OURS/${row%%|*}/monitoring" '{"active": false}'
    echo
done | sort -u)"
ok "no_connection_is_left_open" wait_for no_connection_is_open

# --- files ---------------------------------------------------------------------------------------

refused() { # OPTIONS
    api POST $OURS/http_1_1/monitors \
        '{"id": "refused", "name": "http", "options": {"tls": true, '"$1"'}}' | jq -r .error.text
}
echo hello >"$T/text"
install -m 600 "$T/client.key" "$T/secret.key"
like "absent_file_is_refused" "$(refused '"tls_ca": "'"$T"'/absent"')" \
    'tls_ca.*/absent: No such file or directory'
like "file_of_another_kind_is_refused" "$(refused '"tls_ca": "'"$T"'/text"')" \
    'tls_ca.*/text: no PEM file'
like "file_that_only_root_can_read_is_refused" \
    "$(refused '"tls_cert": "'"$T"'/client.pem", "tls_key": "'"$T"'/secret.key"')" \
    'tls_key.*/secret.key: Permission denied'

# A file that is gone later says nothing of the peer.
cp "$T/ca.pem" "$T/ca2.pem"
api POST $OURS '{"name": "later"}' >/dev/null
api POST /api/9/http/upstreams/later/servers '{"server": "127.0.0.1:'"${port[tls]}"'"}' >/dev/null
api POST $OURS/later/monitors '{"id": "m", "name": "http", "options":
    {"interval": 0.1, "tls": true, "sni": "good.test", "tls_ca": "'"$T"'/ca2.pem"}}' >/dev/null
undecided() {
    api GET /api/9/durpina | jq .prober.undecided
}
has_verdict() {
    [ "$(api GET $OURS/later/peers | jq -r '.[0].verdict')" = "$1" ]
}
more_are_undecided() {
    [ "$(undecided)" -gt "$before" ]
}
ok "file_is_read" wait_for has_verdict passed
before=$(undecided)
rm "$T/ca2.pem"
ok "check_whose_file_is_gone_cannot_be_made" wait_for more_are_undecided
ok "and_verdict_stays" has_verdict passed
ok "and_log_says_why" grep -q "cannot check.*ca2.pem" "$T/durpinad.log"
mkfifo -m 666 "$T/ca2.pem"
before=$(undecided)
ok "nor_one_that_nobody_writes_to" wait_for more_are_undecided
rm "$T/ca2.pem"
cp "$T/self.pem" "$T/ca2.pem"
ok "another_file_is_in_force_at_the_next_check" wait_for has_verdict failed

done_testing
