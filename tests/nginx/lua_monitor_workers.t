# SPDX-License-Identifier: MIT
# Monitors that are written in Lua: over workers, instances, reloads and deaths each peer is checked
# once per interval, by one worker at a time.
. "$(dirname "$0")/../lib/harness.sh"

start_backend a
start_backend b
free_port
front=$ret_port
free_port
other=$ret_port
start_durpinad

# site PORT: an nginx whose monitor "counted" tells the backend a of each of its checks.
site() {
    cat <<END
http {
    lua_shared_dict upstream 1m;
    upstream foo {
        server 127.0.0.1:$port_a; server 127.0.0.1:$port_b;
        balancer_by_lua_block { require "durpina.balancer" "round-robin" }
    }
    init_worker_by_lua_block {
        local Upstream = require "durpina.upstream"
        Upstream.init("upstream")
        local function note(text)
            local file = io.open("$T/runs", "a")
            ngx.update_time()
            file:write(("%d %s %d\n"):format(ngx.worker.pid(), text, ngx.now() * 1000))
            file:close()
        end
        require("durpina.monitor").register("counted", {
            init = function() note("init") end,
            check = function(upstream, peer) note(peer.name) end,
        })
        assert(Upstream.get("foo"):add_monitor("counted", {interval = "400ms"}))
    }
    server { listen 127.0.0.1:$1; location / { proxy_pass http://foo; } }
}
END
}
: >"$T/runs"
chmod 666 "$T/runs"

# All since the last call of `fresh`: lines of PID PEER MS.
seen() { tail -n +$((from + 1)) "$T/runs"; }
fresh() { from=$(wc -l <"$T/runs"); }
checks() { seen | grep -v init; }
n_checks_of() { checks | grep -c ":$1 "; }
checked() { [ "$(n_checks_of "$port_a")" -ge "$1" ] && [ "$(n_checks_of "$port_b")" -ge "$1" ]; }
runners() { checks | cut -d' ' -f1 | sort -u; }
# The time from the first to the last check of a peer, over the number of intervals between them.
mean_interval() {
    checks | awk -v p=":$1 " '$0 ~ p { if (!n++) first = $3; last = $3 } END { print int((last - first) / (n - 1)) }'
}
longest_gap() {
    checks | awk -v p=":$1 " '$0 ~ p { if (last && $3 - last > gap) gap = $3 - last; last = $3 } END { print gap }'
}

# --- one nginx -----------------------------------------------------------------------------------

from=0
start_nginx front 4 < <(site "$front")
ok "monitor_runs" wait_for checked 2
fresh
ok "again_and_again" wait_for checked 8
between "each_peer_is_checked_once_per_interval_over_4_workers" "$(mean_interval "$port_a")" 350 450
between "and_the_other" "$(mean_interval "$port_b")" 350 450
runner=$(runners)
is "by_one_of_them" "$(wc -w <<<"$runner")" 1
is "in_which_init_ran_once" "$(grep -c init "$T/runs")" 1
runs_one_of() { workers "$1" | grep -qx "$2"; }
ok "which_is_a_worker" runs_one_of "$nginx_front" "$runner"

# --- its death -----------------------------------------------------------------------------------

fresh
kill -KILL "$runner"
ok "runner_that_is_killed_is_replaced" wait_for checked 3
not_ok "by_another" grep -qx "$runner" <<<"$(runners)"
checks | sed -n 1p >"$T/first"
last=$(head -n "$from" "$T/runs" | tail -n 1 | cut -d' ' -f3)
# An interval to the next slot, one to be taken over, and what a busy machine needs.
note "took over after $(($(cut -d" " -f3 "$T/first") - last)) ms"
between "within_an_interval" $(($(cut -d' ' -f3 "$T/first") - last)) 0 1000
is "its_init_has_run" "$(seen | grep -c init)" 1
runner=$(runners)
is "there_is_one_again" "$(wc -w <<<"$runner")" 1

fresh
kill -STOP "$runner"
ok "runner_that_is_stopped_is_replaced" wait_for checked 2
not_ok "by_another_one" grep -qx "$runner" <<<"$(runners)"
kill -CONT "$runner"
fresh
ok "when_it_goes_on" wait_for checked 5
not_ok "it_runs_nothing" grep -qx "$runner" <<<"$(runners)"
between "and_nothing_is_checked_twice" "$(mean_interval "$port_a")" 350 450

# --- reload --------------------------------------------------------------------------------------

old=$(workers "$nginx_front")
reload_nginx front
fresh
ok "after_a_reload_it_goes_on" wait_for checked 4
not_ok "in_a_new_worker" grep -qxF "$old" <<<"$(runners)"
between "without_a_gap" "$(longest_gap "$port_a")" 300 900
gone() { ! ls -d $(printf '/proc/%s ' $old) 2>/dev/null; }
ok "and_the_old_workers_end" wait_for gone

# --- two instances -------------------------------------------------------------------------------

start_nginx other 4 < <(site "$other")
fresh
ok "with_a_second_nginx" wait_for checked 6
between "each_peer_is_still_checked_once" "$(mean_interval "$port_a")" 350 450
is "by_one_worker_of_both" "$(runners | wc -w)" 1
runner=$(runners)
runs_one_of "$nginx_front" "$runner" && stop "$nginx_front" || stop "$nginx_other"
fresh
ok "when_the_nginx_of_the_runner_stops_the_other_one_takes_over" wait_for checked 2
not_ok "with_a_worker_of_its_own" grep -qx "$runner" <<<"$(runners)"

# --- the controller ------------------------------------------------------------------------------

kill_hard "$durpinad_pid"
fresh
start_durpinad
ok "with_another_controller_it_goes_on_by_itself" wait_for checked 3
is "with_one_runner" "$(runners | wc -w)" 1
up() { [ "$(api GET /api/9/http/upstreams/foo | jq -r '[.peers[].state] | unique | join(" ")')" = up ]; }
ok "and_peers_are_up" wait_for up
fresh
api PUT /api/9/durpina/upstreams/foo/monitoring '{"active": false}' >/dev/null
checked_twice() { checked 2; }
DEADLINE_S=1 not_ok "paused_monitors_run_nothing" wait_for checked_twice
api PUT /api/9/durpina/upstreams/foo/monitoring '{"active": true}' >/dev/null
ok "and_go_on" wait_for checked_twice
is "a_worker_without_a_token_is_refused" \
    "$(setpriv --reuid www-data --clear-groups curl -s -o /dev/null -w '%{http_code}' --unix-socket "$SOCKET" \
        -d '{"worker": "x", "names": ["counted"], "room": 9}' http://x/api/9/durpina/lua)" 403
is "questions_by_the_clock_are_not_logged" "$(grep -c 'durpina/lua' "$T/durpinad.log")" 1
done_testing
