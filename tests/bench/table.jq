# SPDX-License-Identifier: MIT
# results.json as tables for people, in the markup that docs/performance.md is written in.

def pad($n): (" " * ([$n - length, 0] | max) // "") + .;
def fill($n): . + (" " * ([$n - length, 0] | max) // "");
def shown: if . == null then "" elif type != "number" then .
    elif . >= 100 then round else . * 100 | round / 100 end | tostring;

# Rows of cells, the first being the header; numbers to the right.
def table: . as $rows
    | [range($rows[0] | length)] as $columns
    | [$columns[] | . as $i | $rows | map(.[$i] | length) | max] as $widths
    | [$columns[] | . as $i | $rows[1:] | all(.[]; .[$i] | test("^[-0-9.e+]*$"))] as $right
    | ($rows | map(. as $row | [$columns[] | . as $i | $row[$i] |
        if $right[$i] then pad($widths[$i]) else fill($widths[$i]) end])) as $cells
    | ($columns | map("-" * ($widths[.] + 1) + if $right[.] then ":" else "-" end)) as $rule
    | ($cells[0] | "| " + join(" | ") + " |"), ($rule | "|" + join("|") + "|"),
      ($cells[1:][] | "| " + join(" | ") + " |");

# Targets with the numbers of peers they are for: each once, and where it is missed.
def verdicts: group_by([.figure, .op, .limit]) | map(
    "\(.[0].figure) \(.[0].op) \(.[0].limit): " + (map(select(.met | not)) |
        if . == [] then "met" elif .[0].at == null then "MISSED"
        else "MISSED at " + (map(.at | tostring) | join(", ")) end))
    | join("; ");

# One line for each of the rows that differ in these fields, with a column for each number of peers.
def by_peers($fields; $figure):
    (map(.peers) | unique) as $sizes
    | [$fields + ($sizes | map(tostring)) + ["targets"]]
      + (group_by([.[$fields[]]]) | map(. as $group
        | ($fields | map($group[0][.]))
        + ($sizes | map(. as $n | [$group[] | select(.peers == $n) | .[$figure]][0] | shown))
        + [[$group[] | .peers as $n | .targets[] | .at = $n] | verdicts]))
    | table;

def by_row($fields): [$fields + ["targets"]]
    + map(. as $row | ($fields | map($row[.] | shown)) + [.targets | verdicts]) | table;

def part($name; $title; rows):
    if has($name) then "", "### " + $title, "", (.[$name] | rows) else empty end;

"\(.date), Linux \(.machine.kernel), \(.machine.cores) x \(.machine.cpu), "
    + "\(.nginx), \(.haproxy), \(.rounds) rounds",
part("pick"; "A pick in C, ns"; by_peers(["algorithm", "weights"]; "pick_ns")),
part("pick"; "A pick and its finish in C, ns";
    map(.targets = []) | by_peers(["algorithm", "weights"]; "whole_ns")),
part("worker"; "peer.init + get + free in a worker, ns";
    map(.targets |= map(select(.figure == "ns"))) | by_peers(["balancer", "weights"]; "ns")),
part("worker"; "The same as a ratio to a constant balancer_by_lua";
    map(select(.balancer | test("lua"))) | by_peers(["balancer", "weights"]; "to_constant")),
part("proxy"; "Requests through one worker, connections kept on both sides";
    by_row(["peers", "balancer", "cpu_us", "cpu_us_min", "cpu_us_max", "rps",
            "to_zone", "to_haproxy", "to_rotating"])),
part("instructions"; "Instructions of a request in user space, by callgrind";
    by_peers(["balancer"]; "instructions")),
part("publish"; "A change of weight until it is in force, µs";
    by_row(["peers", "changes", "in_force_p50_us", "in_force_p99_us", "in_force_max_us",
            "answer_p50_us", "answer_p99_us"])),
part("load"; "While weights change";
    by_row(["peers", "changes_per_s", "late", "controller_cores", "pick_quiet_ns", "pick_busy_ns",
            "pick_busy_to_quiet"])),
part("storm"; "Changes against two picking processes";
    by_row(["seconds", "changes_per_s", "picks", "states_checked", "torn", "invalid", "overtaken",
            "p50_ns", "p99_ns", "p999_ns"])),
part("memory"; "Memory of the maps, 10,000 peers";
    by_row(["weights", "records", "slots", "bytes_per_peer", "endpoint"])),
part("checks"; "Checks of plain HTTP, one a second for each peer, beside them a peer that dies";
    by_row(["peers", "checks_per_s", "cores", "us_per_check", "late_percent", "undecided",
            "most_to_mean", "resident_mb", "out_ms", "back_ms"])),
part("programs"; "The programs in the kernel";
    by_row(["program", "verified_insns", "jited_bytes"])),
part("cost"; "Mean run time of each, ns"; by_row(["to", "program", "runs", "run_ns"])),
part("rate"; "connect() and close() of one process, a second";
    by_row(["to", "connects_per_s", "without", "to_without"])),
part("failure"; "A refused connect() until its peer is temporarily down, µs";
    by_row(["rounds", "down_p50_us", "down_p99_us", "down_max_us"])),
"",
([.[] | arrays | .[].targets[]] | "\(map(select(.met)) | length) of \(length) targets met")
