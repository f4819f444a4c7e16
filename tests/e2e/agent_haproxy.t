#!/bin/bash
# SPDX-License-Identifier: MIT
# HAProxy and durpinad ask the same agents and must come to the same state, weight and limit: where
# they do not, the table names both results.
. "$(dirname "$0")/../lib/harness.sh"

INITIAL_WEIGHT=100
INITIAL_MAXCONN=50

# BEFORE | LINE | DURPINAD | HAPROXY, in printf's escapes: what the agent says at first (nothing if it is
# empty) and then, and what follows: "state weight maxconn". HAPROXY is given where it differs.
# "hold:" leaves the connection open behind LINE.
table() {
    cat <<'END'
 | \n | up 100 50
 | up\n | up 100 50
 | UP\n | up 100 50
 | uP\r\n | up 100 50
 | down\n | down 100 50
 | DOWN\n | down 100 50
 | Down\r | down 100 50
 | stopped\n | down 100 50
 | StOpPeD\n | down 100 50
 | fail\n | down 100 50
 | FAIL\r\n | down 100 50
 | failed\n | up 100 50
 | ready\n | up 100 50
 | drain\n | drain 100 50
 | DRAIN\n | drain 100 50
 | maint\n | maint 100 50
 | Maint\n | maint 100 50
 | 50%\n | up 50 50
 | 0%\n | drain 0 50
 | 100%\n | up 100 50
 | 1%\n | up 1 50
 | 300%\n | up 256 50
 | 256%\n | up 256 50
 | 99999999999999999999%\n | up 256 50
 | 007%\n | up 7 50
 | -5%\n | up 100 50
 | +5%\n | up 100 50
 | 101 %\n | up 100 50
 | 50%%\n | up 100 50
 | 50%x\n | up 100 50
 | 20% 50%x\n | up 100 50
 | 50%x 20%\n | up 20 50
 | 10% 20% 30%\n | up 30 50
 | 50\n | up 100 50
 | weight:40\n | up 40 50 | up 100 50
 | Weight:40%\n | up 40 50 | up 100 50
 | weight:256\n | up 256 50 | up 100 50
 | weight:0\n | drain 0 50 | up 100 50
 | weight:257\n | up 100 50
 | weight:-1\n | up 100 50
 | weight:\n | up 100 50
 | maxconn:30\n | up 100 30
 | MAXCONN:30\n | up 100 30
 | maxconn:0\n | up 100 0
 | maxconn:\n | up 100 50
 | maxconn: 30\n | up 100 50
 | maxconn:30x\n | up 100 50
 | maxconn:10 maxconn:20\n | up 100 20
 | maxconn:10 maxconn:\n | up 100 50
 | maxconn:-1\n | up 100 50 | up 100 4294967295
 | maxconn:2147483647\n | up 100 2147483647
 | maxconn:4294967295\n | up 100 2147483647 | up 100 4294967295
 | up ready 75% maxconn:7\n | up 75 7
 | maxconn:7,75%,ready,up\n | up 75 7
 | \tup\t75%\t\tmaxconn:7\t\n | up 75 7
 | \x20,,up , 75%,\n | up 75 50
 | down up\n | up 100 50
 | up down\n | down 100 50
 | up fail stopped up\n | up 100 50
 | ready drain maint drain\n | drain 100 50
 | maint ready\n | up 100 50
 | down drain 50%\n | down 50 50
 | down maint\n | maint 100 50
 | down # up 50% ready\n | down 100 50
 | down #up\n | down 100 50
 | #down\n | up 100 50
 | # down\n | up 100 50
 | up#down\n | up 100 50
 | down#\n | up 100 50
 | down # will be up\n | down 100 50
 | foo down bar 50% baz\n | down 50 50
 | status: down\n | down 100 50
 | down;50%\n | up 100 50
 | drained\n | up 100 50
 | do wn\n | up 100 50
 | 'down'\n | up 100 50
 | down\nup\n | down 100 50
 | down\rup\n | down 100 50
 | \ndown\n | up 100 50
 | \rdown\n | up 100 50
 | down | up 100 50
 | down 50% # no end | up 100 50
 | | up 100 50
 | hold:down | up 100 50
 | hold:down\n | down 100 50
 | hold: | up 100 50
 | \x01\x02\xff\xfe\x80\n | up 100 50
 | \xffdown\n | up 100 50
 | \x01 down\n | down 100 50
 | \x1b[31m down\n | down 100 50
 | down\v\n | up 100 50
 | down\0\n | up 100 50
 | \0down\n | up 100 50
 | down\n\0 | down 100 50
 | LONG\n | up 100 50
 | LONG down\n | down 100 50
 | TOOLONG down\n | up 100 50 | down 100 50
maint\n | \n | maint 100 50
maint\n | up\n | maint 100 50
maint\n | ready\n | up 100 50
maint\n | drain\n | drain 100 50
drain\n | up\n | drain 100 50
drain\n | ready\n | up 100 50
down\n | \n | down 100 50
down\n | ready\n | down 100 50
down\n | 50%\n | down 50 50
down\n | up\n | up 100 50
down\n | up | down 100 50
down\n | hold: | down 100 50
down maint\n | ready up\n | up 100 50
50%\n | \n | up 50 50
50%\n | up\n | up 50 50
50%\n | 100%\n | up 100 50
0%\n | ready\n | drain 0 50
maxconn:7\n | up\n | up 100 7
50% maxconn:7 drain\n | foo\n | drain 50 7
END
}

rows=()
mkdir "$T/agents"

# write_answer FILE LINE
write_answer() {
    local line=$2
    line=${line//TOOLONG/$(printf '%1100s' '')}
    line=${line//LONG/$(printf '%900s' '')}
    [[ $line != hold:* ]] || touch "$1.hold"
    printf '%b' "${line#hold:}" >"$1"
}

trim() {
    local text=${1#"${1%%[! ]*}"}
    ret_text=${text%"${text##*[! ]}"}
}

while IFS='|' read -r before line durpinad haproxy; do
    trim "$before" && before=$ret_text
    trim "$line" && line=$ret_text
    trim "$durpinad" && durpinad=$ret_text
    trim "$haproxy" && haproxy=${ret_text:-$durpinad}
    n=${#rows[@]}
    rows+=("$before|$line|$durpinad|$haproxy")
    write_answer "$T/agents/$n.1" "$before"
    write_answer "$T/agents/$n.2" "$line"
done < <(table)

# --- the agents: row N answers at 127.77.0.N+1 ---------------------------------------------------

# The client says who it is. "tell" is answered with the least number of answers that any row has had
# from one of the two in this phase; SIGUSR1 begins the second phase.
cat >"$T/agents.pl" <<'END'
use strict;
use IO::Select;
use IO::Socket::INET;

my ($directory, $port, $rows) = @ARGV;
my ($phase, %client, %count, %held) = (1);
my $listener = IO::Socket::INET->new(
    LocalAddr => "0.0.0.0", LocalPort => $port, Listen => 4096, ReuseAddr => 1) or die "$!";
my $select = IO::Select->new($listener);

sub answer {
    my ($row) = @_;
    local (@ARGV, $/) = ("$directory/$row.$phase");
    return scalar <>;
}

sub least {
    my $least;
    for my $who ("haproxy", "durpinad") {
        for my $row (0 .. $rows - 1) {
            my $n = $count{$who}{$row} || 0;
            $least = $n if !defined $least || $n < $least;
        }
    }
    return $least;
}

$SIG{USR1} = sub { $phase = 2; %count = () };
$SIG{PIPE} = "IGNORE";
while (1) {
    for my $socket ($select->can_read) {
        if ($socket == $listener) {
            my $new = $listener->accept or next;
            $select->add($new);
            next;
        }
        my $who = "";
        $who = "" unless sysread $socket, $who, 64;
        chomp $who;
        if ($who eq "tell") {
            syswrite $socket, least() . "\n";
        } elsif ($who) {
            my $row = (split /\./, $socket->sockhost)[3] - 1;
            my $text = answer($row);
            syswrite $socket, $text if length $text;
            $count{$who}{$row}++;
            next if -e "$directory/$row.$phase.hold";
        }
        $select->remove($socket);
        close $socket;
    }
}
END
free_port
agent_port=$ret_port
perl "$T/agents.pl" "$T/agents" "$agent_port" "${#rows[@]}" >>"$T/agents.log" 2>&1 &
agents=$!
started[$agents]=agents
wait_for listening "$agent_port" || die "agents start"

# ask PORT TEXT: over a connection that the other end closes
ask() {
    local connection
    exec {connection}<>"/dev/tcp/127.0.0.1/$1" || return 1
    printf '%b' "$2" >&"$connection"
    cat <&"$connection"
    exec {connection}>&-
}

all_have_asked() { # N times
    [ "$(ask "$agent_port" 'tell\n')" -ge "$1" ]
}

# --- who asks ------------------------------------------------------------------------------------

free_port
cli_port=$ret_port
{
    cat <<END
global
    stats socket ipv4@127.0.0.1:$cli_port level admin
defaults
    timeout connect 1s
    timeout client 1s
    timeout server 1s
    timeout check 1s
backend agents
    balance roundrobin
END
    for n in "${!rows[@]}"; do
        echo "    server s$n 127.77.0.$((n + 1)):8 weight $INITIAL_WEIGHT" \
            "maxconn $INITIAL_MAXCONN agent-check agent-port $agent_port agent-inter 200ms" \
            'agent-send "haproxy\n"'
    done
} >"$T/haproxy.cfg"
(cd "$T" && exec haproxy -db -f "$T/haproxy.cfg") >>"$T/haproxy.log" 2>&1 &
started[$!]=haproxy
wait_for listening "$cli_port" || die "HAProxy starts"

start_durpinad
api POST /api/9/durpina/upstreams '{"name": "agents"}' >/dev/null
for n in "${!rows[@]}"; do
    printf 'url = "http://x/api/9/http/upstreams/agents/servers"\nunix-socket = "%s"\n' "$SOCKET"
    printf 'data = "{\\"server\\": \\"127.77.0.%d:8\\", \\"weight\\": %d, \\"max_conns\\": %d}"\nnext\n' \
        $((n + 1)) "$INITIAL_WEIGHT" "$INITIAL_MAXCONN"
done | curl -s -m 20 -K - >/dev/null
ok "agent_monitor_is_added" test 201 = "$(api_code POST /api/9/durpina/upstreams/agents/monitors \
    '{"id": "agent", "name": "haproxy-agent-check", "options":
      {"interval": 0.2, "timeout": 1000, "port": '"$agent_port"', "send": "durpinad\n"}}')"

# In both: row => "state weight maxconn", one a line.
durpinad_says() {
    api GET /api/9/http/upstreams/agents | jq -r '
        {"up": "up", "draining": "drain", "unhealthy": "down", "down": "maint"} as $words |
        .peers[] | (.server | capture("\\.(?<n>[0-9]+):").n | tonumber - 1) as $row |
        "\($row)=\($words[.state] // .state) \(.weight) \(.max_conns // 0)"'
}

# Bits of the administrative state: 1 is maint, 8 drain. See "show servers state" in its manual.
haproxy_says() {
    {
        ask "$cli_port" 'show servers state agents\n'
        ask "$cli_port" 'show stat\n'
    } | awk '
        $2 == "agents" {
            state[$4] = has_bit($7, 1) ? "maint" : $6 == 0 ? "down" : \
                has_bit($7, 8) || $8 == 0 ? "drain" : "up"
            weight[$4] = $8
        }
        split($0, f, ",") > 7 && f[2] in state {
            print substr(f[2], 2) "=" state[f[2]], weight[f[2]], f[7] == "" ? 0 : f[7]
        }
        function has_bit(bits, bit) { return int(bits / bit) % 2 }'
}

# Once all have been asked twice the first answer has been taken.
ok "all_agents_are_asked" wait_for all_have_asked 2
kill -USR1 "$agents"
ok "all_agents_are_asked_again" wait_for all_have_asked 3
declare -A durpinad_of haproxy_of
look() {
    local n said
    while IFS='=' read -r n said; do durpinad_of[$n]=$said; done < <(durpinad_says)
    while IFS='=' read -r n said; do haproxy_of[$n]=$said; done < <(haproxy_says)
}

# An answer that came too late for one of the two, on a busy machine, comes again.
all_agree() {
    local n
    look
    for n in "${!rows[@]}"; do
        [[ ${rows[n]} == *"|${durpinad_of[$n]:-}|${haproxy_of[$n]:-}" ]] || return 1
    done
}

wait_for all_agree
for n in "${!rows[@]}"; do
    IFS='|' read -r before line durpinad haproxy <<<"${rows[n]}"
    is "after \"$before\" the line \"$line\" means $durpinad" \
        "durpinad: ${durpinad_of[$n]:-}, HAProxy: ${haproxy_of[$n]:-}" \
        "durpinad: $durpinad, HAProxy: $haproxy"
done
done_testing
