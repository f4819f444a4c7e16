/* SPDX-License-Identifier: MIT */
#ifndef DURPINAD_CHECK_FILES_H
#define DURPINAD_CHECK_FILES_H

#include "check.h"

/*
 * Can this process, as the user that it is, read the PEM files that a check names? Each check reads
 * them again. 0; -EINVAL with MonitorBadOptions naming the path and why.
 */
int check_files(const struct check *check, struct failure *failure);

#endif
