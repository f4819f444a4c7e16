#!/bin/bash
# SPDX-License-Identifier: MIT
# nginx in the background, as a distribution runs it: started, reloaded, its binary upgraded, rolled
# back, upgraded again, under load.
. "$(dirname "$0")/../lib/harness.sh"
. "$ROOT/tests/lib/site.sh"

for name in a b c; do
    start_backend "$name"
done
start_durpinad
free_port
port=$ret_port
url=http://127.0.0.1:$port

# The pid that a pid file names, if its process runs.
master_of() {
    local pid
    pid=$(cat "$1" 2>/dev/null) && is_running "$pid" && echo "$pid"
}
# set_by PID WEIGHT: lets a worker of this master set the weight of a; prints what the peer has then.
set_by() {
    local answer
    for _ in $(seq 200); do
        answer=$(curl -s -D "$T/headers" "$url/weight/127.0.0.1:$port_a/$2")
        is_child_of "$1" "$(sed -n 's/^X-Worker: \([0-9]*\).*/\1/p' "$T/headers")" && break
        answer='no answer of it'
    done
    echo "$answer"
}
is_child_of() {
    [ "$(awk '/^PPid/ {print $2}' "/proc/$2/status" 2>/dev/null)" = "$1" ]
}
is_gone() {
    ! is_running "$1"
}

nginx_conf web 2 < <(foo_site "$port")
nginx_run web
wait_for master_of "$T/web.pid"
old=$(master_of "$T/web.pid")
started[$old]=web
wait_for answers "$url/"
is "nginx_in_the_background_serves" "$(tally 100 4 "$url/")" "a=50 b=30 c=20"
is "its_workers_may_change_peers" "$(set_by "$old" 6)" 6
nginx_web=$old
ok "it_reloads" reload_nginx web
is "and_new_workers_may_too" "$(set_by "$old" 7)" 7

start_load "$url/" 60 16 -H "Connection: close"
kill -USR2 "$old"
ok "new_binary_starts_beside_the_old_one" wait_for master_of "$T/web.pid.oldbin"
wait_for master_of "$T/web.pid"
new=$(master_of "$T/web.pid")
started[$new]=web
wait_for has_workers "$new" 2
is "workers_of_the_old_one_may_change_peers" "$(set_by "$old" 8)" 8
is "and_those_of_the_new_one" "$(set_by "$new" 9)" 9
kill -QUIT "$new"
wait_for is_gone "$new"
is "rolled_back_the_old_ones_still_may" "$(set_by "$old" 5)" 5

kill -USR2 "$old"
wait_for master_of "$T/web.pid.oldbin"
wait_for master_of "$T/web.pid"
new=$(master_of "$T/web.pid")
started[$new]=web
wait_for has_workers "$new" 2
kill -QUIT "$old"
ok "old_one_leaves" wait_for is_gone "$old"
end_load
is "no_request_failed" "$(load_errors)" none
note "$(load_requests) requests"
is "new_one_serves_by_the_same_weights" "$(tally 100 4 "$url/")" "a=50 b=30 c=20"
is "nothing_is_counted_as_active" "$(active foo)" 0
is "it_is_one_instance" "$(api GET /api/9/durpina/nginx | jq length)" 1
nginx_run web -s quit
ok "it_ends" wait_for is_gone "$new"
done_testing
