# SPDX-License-Identifier: MIT
# The rounds of part "proxy" as rows. The ratios say how many times as many requests the worker could
# serve in the same CPU time; each is the median of the ratios within a round.
def median: sort | .[length / 2 | floor];
def third: . * 1000 | round / 1000;

(map({key: "\(.balancer) \(.peers) \(.round)", value: .cpu_us}) | from_entries) as $cpu
| def to($other): map($cpu["\($other) \(.peers) \(.round)"] / .cpu_us) | median | third;
group_by([.peers, .balancer]) | map({
    peers: .[0].peers, balancer: .[0].balancer,
    cpu_us: (map(.cpu_us) | median), cpu_us_min: (map(.cpu_us) | min),
    cpu_us_max: (map(.cpu_us) | max),
    rps: (map(.rps) | median), rps_min: (map(.rps) | min), rps_max: (map(.rps) | max),
    to_zone: to("nginx-zone"), to_haproxy: to("haproxy"), to_rotating: to("lua-rotating")})
