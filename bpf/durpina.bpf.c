/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The maps, without a program: durpinad creates them by this object, and the programs of the others
 * use them. */
#include "maps.bpf.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";
