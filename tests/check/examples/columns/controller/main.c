/* SPDX-License-Identifier: MIT */
/* This line has a hundred columns, counted in characters as people do: “each is one”. That fits. */
/* This line has a hundred and one columns, which is one too many: an editor may not show the end. */
