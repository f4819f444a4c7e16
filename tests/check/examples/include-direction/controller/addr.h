/* SPDX-License-Identifier: MIT */
#include <uv.h>
#include "engine.h"
