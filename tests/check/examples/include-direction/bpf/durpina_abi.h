/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
#include "durpina_seq.h"
