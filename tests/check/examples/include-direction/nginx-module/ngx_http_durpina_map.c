/* SPDX-License-Identifier: MIT */
#include <bpf/libbpf.h>
#include "model.h"
#include "durpina_abi.h"
