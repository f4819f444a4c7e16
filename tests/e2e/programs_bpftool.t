#!/bin/bash
# SPDX-License-Identifier: MIT
# docs/bpf.md is true: each of its commands runs on a site like the one it shows, and prints the
# words that it shows there.
. "$(dirname "$0")/../lib/harness.sh"
. "$ROOT/tests/lib/site.sh"
own_network "$@"

# The site: foo has two peers that answer and one where nobody listens; a virtual endpoint leads to
# it, and a client holds a connection to the first.
for address in 10.0.0.1 10.0.0.2 10.0.0.3; do
    ip addr add "$address/32" dev lo
done
echo "upstreams 64; peers 1k; slots 64k; vip 127.10.0.1:80 upstream=foo;" >"$T/durpinad.conf"
join_cgroup
start_durpinad
start_backend a 8080 10.0.0.1
start_backend b 8080 10.0.0.2
free_port
start_nginx web 1 < <(foo_site "$ret_port" "server 10.0.0.1:8080 weight=5;
    server 10.0.0.2:8080 weight=3; server 10.0.0.3:8080 weight=2;")
tally 10 1 "http://127.0.0.1:$ret_port/" >"$T/picked"
not_ok "nobody_listens_at_the_third_peer" curl -s 10.0.0.3:8080
ok "the_virtual_endpoint_leads_to_foo" curl -sf 127.10.0.1 127.10.0.1
exec 7<>/dev/tcp/10.0.0.1/8080

# Blocks of docs/bpf.md: "    # COMMAND", which goes on while a line ends in one of |\+, then what it
# prints; "..." is what was left out. The names of directories there stand for those of this site.
awk -v dir="$T" -v pin="$PIN" -v cgroup="$CGROUP" -v build="$BUILD" '
    /^    # / {file = sprintf("%s/%03d", dir, ++n); command = 1; print substr($0, 7) >(file ".title")}
    /^    / {
        sub(/^    (# )?/, "")
        gsub("/sys/fs/bpf/durpina", pin)
        gsub("/sys/fs/cgroup", cgroup)
        gsub("/etc/durpina", dir)
        if (command) {
            sub(/^durpinad /, "& -c " dir "/durpinad.conf --pin " pin " --cgroup " cgroup " ")
            sub(/^durpina(d|ctl) /, build "/&")
            command = /[|\\+]$/
            print >(file ".command")
        } else
            print >(file ".shown")
        next
    }
    {file = ""}' "$ROOT/docs/bpf.md"

# Words of a text that do not depend on where and when: names, no numbers, no hashes.
words() {
    grep -oE '\w+' "$1" | grep -xE '[A-Za-z_]{3,}[0-9]?' | sort -u
}

for command in "$T"/*.command; do
    file=${command%.command}
    name=$(tr -cs 'A-Za-z0-9' _ <"$file.title")
    bash "$command" >"$T/printed" 2>&1
    is "${name}runs" $? 0
    [ ! -e "$file.shown" ] || is "${name}prints_what_is_shown" \
        "$(comm -23 <(words "$file.shown") <(words "$T/printed") | tr '\n' ' ')" ""
done
between "there_are_commands_of_all_maps_and_programs" "$(find "$T" -name '*.command' | wc -l)" 20 99
done_testing
