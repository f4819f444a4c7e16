# SPDX-License-Identifier: MIT
# The rounds of part "worker" as rows, with the ratio to a constant balancer_by_lua of the same
# round: one that reads the same variable, if the row is of one that does.
def median: sort | .[length / 2 | floor];
def floor_of: if . == "durpina-lua-consistent-hash" then "lua-constant-key" else "lua-constant" end;

# "nginx-least_conn_3_equal" has an underscore of its own.
map((.upstream | split("_")) as $name | {
    balancer: ($name[:-2] | join("_")), peers: ($name[-2] | tonumber), weights: $name[-1],
    round, ns})
| (map({key: "\(.balancer) \(.peers) \(.weights) \(.round)", value: .ns}) | from_entries) as $ns
| group_by([.peers, .weights, .balancer]) | map({
    peers: .[0].peers, weights: .[0].weights, balancer: .[0].balancer,
    ns: (map(.ns) | median), ns_min: (map(.ns) | min), ns_max: (map(.ns) | max),
    to_constant: (map(.ns / $ns["\(.balancer | floor_of) \(.peers) equal \(.round)"]) |
                  median * 1000 | round / 1000)})
