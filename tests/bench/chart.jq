# SPDX-License-Identifier: MIT
# The curves of results.json for chart.awk: panel, series, peers, figure.
def curves($panel; $name; $figure): map([$panel, .[$name], .peers, .[$figure]] | @tsv) | .[];

(.pick // [] | map(select(.weights == "equal")) | curves("A pick in C, ns"; "algorithm"; "pick_ns")),
(.worker // [] | map(select(.weights == "equal")) |
    curves("peer.init + get + free in a worker, ns"; "balancer"; "ns")),
(.proxy // [] | curves("CPU of a request through a worker, µs"; "balancer"; "cpu_us"))
