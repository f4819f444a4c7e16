/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The BPF object that durpinad embeds: for now its maps. */
#include "maps.bpf.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";
