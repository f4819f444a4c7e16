#!/bin/bash
# SPDX-License-Identifier: MIT
# Whatever a client sends: an answer that names the culprit, and nothing is changed.
. "$(dirname "$0")/../lib/harness.sh"

start_durpinad
ok "upstream_is_created" test \
    "$(api_code POST /api/9/durpina/upstreams '{"name":"foo"}')" = 201
ok "server_is_added" test \
    "$(api_code POST /api/9/http/upstreams/foo/servers '{"server":"127.0.0.1:80","weight":5}')" = 201
id=$(server_id foo 127.0.0.1:80)

state() {
    api GET /api/9/durpina/upstreams/foo
    api GET /api/9/http/upstreams
    bpftool -j map dump pinned "$PIN/peers" | sha256sum
    bpftool -j map dump pinned "$PIN/upstreams" | sha256sum
}
before=$(state)

# FACT METHOD PATH STATUS CODE CULPRIT BODY; SERVERS and SERVER stand for their paths.
while IFS='|' read -r fact method path status code culprit body; do
    [ -n "$fact" ] || continue
    path=${path/#SERVERS/\/api/9/http/upstreams/foo/servers}
    path=${path/#SERVER/\/api/9/http/upstreams/foo/servers/$id}
    answer=$(api "$method" "$path" "$body" -w '\n%{http_code}')
    is "$fact" "$(tail -n 1 <<<"$answer") $(sed '$d' <<<"$answer" | jq -r .error.code)" \
        "$status $code"
    text=$(sed '$d' <<<"$answer" | jq -r .error.text)
    [ -z "$culprit" ] || like "${fact}_names_the_culprit" "$text" "$culprit"
done <<'END'
negative_weight|PATCH|SERVER|400|UpstreamBadWeight|-1|{"weight":-1}
weight_65536|PATCH|SERVER|400|UpstreamBadWeight|65536|{"weight":65536}
weight_in_words|PATCH|SERVER|400|UpstreamBadWeight|abc|{"weight":"abc"}
fractional_weight|PATCH|SERVER|400|UpstreamBadWeight|1\.5|{"weight":1.5}
weight_null|PATCH|SERVER|400|UpstreamBadWeight||{"weight":null}
weight_of_a_new_server|POST|SERVERS|400|UpstreamBadWeight|70000|{"server":"127.0.0.1:81","weight":70000}
negative_max_fails|PATCH|SERVER|400|UpstreamBadMaxFails|-1|{"max_fails":-1}
max_fails_in_words|PATCH|SERVER|400|UpstreamBadMaxFails|x|{"max_fails":"x"}
negative_max_conns|PATCH|SERVER|400|UpstreamBadMaxConns|-1|{"max_conns":-1}
bad_fail_timeout|PATCH|SERVER|400|UpstreamBadFailTimeout|soon|{"fail_timeout":"soon"}
huge_fail_timeout|PATCH|SERVER|400|UpstreamBadFailTimeout|9999999999|{"fail_timeout":"9999999999s"}
bad_slow_start|PATCH|SERVER|400|UpstreamBadSlowStart|x|{"slow_start":"x"}
unknown_state|PATCH|SERVER|400|BadState|sideways|{"state":"sideways"}
unknown_field|PATCH|SERVER|400|UpstreamConfFormatError|wieght|{"wieght":1}
id_is_immutable|PATCH|SERVER|400|UpstreamServerImmutable|id|{"id":7}
backup_is_immutable|PATCH|SERVER|400|UpstreamServerImmutable|backup|{"backup":true}
empty_name|POST|SERVERS|400|UpstreamBadAddress||{"server":""}
no_name|POST|SERVERS|400|UpstreamBadAddress|server|{"weight":1}
port_0|POST|SERVERS|400|UpstreamBadAddress|0|{"server":"127.0.0.1:0"}
port_65536|POST|SERVERS|400|UpstreamBadAddress|65536|{"server":"127.0.0.1:65536"}
port_in_words|POST|SERVERS|400|UpstreamBadAddress|http|{"server":"127.0.0.1:http"}
name_with_a_space|POST|SERVERS|400|UpstreamBadAddress||{"server":"a b:80"}
name_with_a_newline|POST|SERVERS|400|UpstreamBadAddress||{"server":"a\nb:80"}
open_bracket|POST|SERVERS|400|UpstreamBadAddress||{"server":"[::1:80"}
same_server_again|POST|SERVERS|409|EntryExists|127.0.0.1:80|{"server":"127.0.0.1:80"}
no_json|POST|SERVERS|415|JsonError||{"server":
duplicate_key|POST|SERVERS|415|JsonError||{"server":"127.0.0.1:82","server":"127.0.0.1:83"}
trailing_bytes|POST|SERVERS|415|JsonError||{"server":"127.0.0.1:82"} x
array_for_an_object|POST|SERVERS|400|UpstreamConfFormatError||[]
empty_body|POST|SERVERS|415|JsonError||
unknown_server|PATCH|/api/9/http/upstreams/foo/servers/4711|404|UpstreamServerNotFound|4711|{"weight":1}
delete_unknown_server|DELETE|/api/9/http/upstreams/foo/servers/4711|404|UpstreamServerNotFound|4711|
server_id_in_words|GET|/api/9/http/upstreams/foo/servers/one|400|UpstreamBadServerId|one|
unknown_upstream|GET|/api/9/http/upstreams/nobody|404|UpstreamNotFound|nobody|
unknown_path|GET|/api/9/http/downstreams|404|PathNotFound||
unknown_version|GET|/api/10/http/upstreams|404|PathNotFound|10|
method_of_a_list|PUT|SERVERS|405|MethodDisabled||{}
upstream_name_with_a_slash|POST|/api/9/durpina/upstreams|400|UpstreamBadName||{"name":"a/b"}
upstream_exists|POST|/api/9/durpina/upstreams|409|EntryExists|foo|{"name":"foo"}
unknown_monitor|POST|/api/9/durpina/upstreams/foo/monitors|400|MonitorBadOptions|ping|{"id":"m","name":"ping","options":{}}
monitor_with_a_broken_expression|POST|/api/9/durpina/upstreams/foo/monitors|400|MonitorBadOptions|match_body|{"id":"m","name":"http","options":{"match_body":"("}}
unknown_option_of_a_monitor|POST|/api/9/durpina/upstreams/foo/monitors|400|MonitorBadOptions|utl|{"id":"m","name":"http","options":{"utl":"/"}}
bad_resolver|PUT|/api/9/durpina/resolver|400|BadResolver|nowhere|{"servers":["nowhere"]}
END
is "a_body_without_end_is_refused" \
    "$(head -c 20000000 /dev/zero | api_code POST /api/9/http/upstreams/foo/servers @-)" 413
is "nothing_was_changed" "$(state)" "$before"
is "a_stranger_may_read" "$(setpriv --reuid nobody --regid nogroup --clear-groups \
    curl -s -o /dev/null -w '%{http_code}' --unix-socket "$SOCKET" http://x/api/9/http/upstreams)" 200
is "a_stranger_may_not_change" "$(setpriv --reuid nobody --regid nogroup --clear-groups \
    curl -s -X PATCH -d '{"weight":1}' --unix-socket "$SOCKET" \
    "http://x/api/9/http/upstreams/foo/servers/$id" | jq -r .error.code)" Forbidden
is "nothing_was_changed_by_a_stranger" "$(state)" "$before"
is "controller_still_runs" "$(api GET /api/9/durpina | jq .pid)" "$durpinad_pid"
done_testing
