#!/bin/bash
# SPDX-License-Identifier: MIT
# The checks of the sources, each with an example that it must refuse.
set -u
cd "$(dirname "$0")" || exit 1
count=0

# check FACT COMMAND...: its output is shown if it fails.
check() {
    local fact=$1 output result=ok
    shift
    count=$((count + 1))
    output=$("$@" 2>&1) || result='not ok'
    echo "$result $count - $fact"
    [ "$result" = ok ] || printf '%s\n' "$output" | sed 's/^/# /'
}

# finds N COMMAND...: the command fails and prints N lines.
finds() {
    local wanted=$1 output
    shift
    output=$("$@") && return 1
    printf '%s\n' "$output"
    [ "$(wc -l <<<"$output")" -eq "$wanted" ]
}

check "includes_point_one_way" ./include-direction
check "includes_that_point_the_wrong_way_are_found" \
    finds 5 ./include-direction examples/include-direction
check "every_source_names_its_licence" ./spdx
check "sources_without_their_licence_are_found" finds 2 ./spdx examples/spdx
check "lines_fit_into_100_columns" ./columns
check "lines_that_do_not_are_found" finds 1 ./columns examples/columns
check "format_and_static_analysis_find_nothing" make -s -C ../.. lint
echo "1..$count"
