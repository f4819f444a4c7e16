# SPDX-License-Identifier: MIT
# The parts as one object, each row with the targets that apply to it.

# Part, the rows it is for (field: regular expression), figure, comparison, limit.
def targets: [
    ["pick", {peers: "^3$", algorithm: "round-robin"}, "pick_ns", "<=", 25],
    ["pick", {peers: "^3$", algorithm: "hash"}, "pick_ns", "<=", 40],
    ["pick", {peers: "^100000$", algorithm: "round-robin"}, "pick_ns", "<=", 75],
    ["pick", {peers: "^100000$", algorithm: "hash"}, "pick_ns", "<=", 120],
    ["worker", {balancer: "^durpina-native"}, "ns", "<=", 80],
    ["worker", {balancer: "^durpina-lua"}, "to_constant", "<=", 1.15],
    ["proxy", {balancer: "^durpina-lua", peers: "^3$"}, "to_rotating", ">=", 0.97],
    ["proxy", {balancer: "^durpina-lua", peers: "^10000?$"}, "to_zone", ">=", 1.6],
    ["proxy", {balancer: "^durpina-native", peers: "^3$"}, "to_zone", ">=", 1],
    ["proxy", {balancer: "^durpina-native", peers: "^1000$"}, "to_zone", ">=", 1.8],
    ["proxy", {balancer: "^durpina-native", peers: "^1000$"}, "to_haproxy", ">=", 1],
    ["proxy", {balancer: "^durpina-native", peers: "^10000$"}, "to_zone", ">=", 5],
    ["publish", {peers: "^1000$"}, "in_force_p99_us", "<=", 1000],
    ["publish", {peers: "^100000$"}, "in_force_p99_us", "<=", 10000],
    ["load", {}, "changes_per_s", ">=", 990],
    ["load", {}, "controller_cores", "<=", 0.5],
    ["load", {}, "pick_busy_to_quiet", "<=", 2],
    ["storm", {}, "changes_per_s", ">=", 9900],
    ["storm", {}, "picks", ">=", 1e9],
    ["storm", {}, "torn", "<=", 0],
    ["storm", {}, "invalid", "<=", 0],
    ["storm", {}, "p999_ns", "<=", 2000],
    ["memory", {}, "bytes_per_peer", "<=", 512],
    ["checks", {}, "cores", "<=", 0.6],
    ["checks", {}, "late_percent", "<=", 1],
    ["checks", {}, "undecided", "<=", 0],
    ["checks", {}, "most_to_mean", "<=", 3],
    ["checks", {}, "resident_mb", "<=", 64],
    ["checks", {}, "out_ms", "<=", 1550],
    ["checks", {}, "back_ms", "<=", 1050],
    ["programs", {program: "^observe$"}, "verified_insns", "<=", 50000],
    ["programs", {program: "^(connect|sendmsg)"}, "verified_insns", "<=", 60000],
    ["programs", {program: "^(getpeername|recvmsg)"}, "verified_insns", "<=", 5000],
    ["cost", {program: "^observe$"}, "run_ns", "<=", 300],
    ["cost", {program: "^(connect|sendmsg)", to: "^(udp-)?(other|peer)"}, "run_ns", "<=", 300],
    ["cost", {program: "^connect", to: "^(udp-)?vip"}, "run_ns", "<=", 1000],
    ["rate", {to: "^(other|peer)$"}, "to_without", ">=", 0.95],
    ["failure", {}, "down_p99_us", "<=", 1000]
];

def matches($where): . as $row |
    all($where | to_entries[]; . as $w | $row[$w.key] | tostring | test($w.value));

def judged($part): . as $row | . + {targets: [
    targets[] | select(.[0] == $part and (.[1] as $where | $row | matches($where))) |
    .[2] as $figure | {figure: $figure, op: .[3], limit: .[4],
        met: ($row[$figure] as $value |
              if .[3] == "<=" then $value <= .[4] else $value >= .[4] end)}]};

$about[0] + (add | with_entries(.key as $part | .value |= map(judged($part))))
