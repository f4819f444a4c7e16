#!/bin/bash
# SPDX-License-Identifier: MIT
# What the directive `durpina` takes and refuses, with the file, the line and the valid words.
. "$(dirname "$0")/../lib/harness.sh"

# conf TEXT: tests an upstream block of these lines, after two server lines.
conf() {
    nginx_conf conf 1 <<END
http {
    upstream x {
        server 127.0.0.1:81;
        server 127.0.0.1:82;
        $1
    }
    server { listen 127.0.0.1:1; location / { proxy_pass http://x; } }
}
END
    nginx_run conf -t 2>&1
}
# The line of TEXT's first line.
line() { grep -n 'server 127.0.0.1:82' "$T/conf.conf" | cut -d: -f1 | awk '{print $1 + 1}'; }

# refused FACT TEXT MESSAGE
refused() {
    local output
    output=$(conf "$2" | grep emerg)
    is "$1" "$output" "nginx: [emerg] $3 in $T/conf.conf:$(line)"
}
# taken TEXT...
taken() {
    local text
    for text; do
        like "$text is taken" "$(conf "$text")" "test is successful"
    done
}

words="round-robin, unweighted-round-robin, ip-hash, consistent-hash, least-conn, random-two, peak-ewma, least-time"
usage="[ketama] [bounded[=C]]"
times="[header|last_byte] [source=nginx], or source=kernel"
refused "an_unknown_algorithm_lists_the_valid_ones" "durpina least-connections;" \
    "\"durpina\": unknown algorithm \"least-connections\"; valid ones are $words"
refused "no_algorithm_is_an_error" "durpina;" 'invalid number of arguments in "durpina" directive'
refused "an_argument_where_none_is_taken" "durpina ip-hash \$uri;" \
    "\"durpina\": ip-hash takes no argument like \"\$uri\""
refused "an_unknown_argument_lists_the_valid_ones" "durpina consistent-hash \$uri consistent;" \
    "\"durpina\": unknown argument \"consistent\" of consistent-hash; valid ones are $usage"
refused "a_missing_key" "durpina consistent-hash;" \
    "\"durpina\": consistent-hash needs a key: durpina consistent-hash KEY $usage;"
refused "a_key_that_is_an_argument" "durpina consistent-hash ketama;" \
    "\"durpina\": consistent-hash needs a key: durpina consistent-hash KEY $usage;"
refused "a_key_that_is_a_bound" "durpina consistent-hash bounded=2;" \
    "\"durpina\": consistent-hash needs a key: durpina consistent-hash KEY $usage;"
for bound in 0.5 0.999 100.001 101 1.2345 -1 1e2 ""; do
    refused "bounded=${bound:-nothing}" "durpina consistent-hash \$uri bounded=$bound;" \
        "\"durpina\": bad argument \"bounded=$bound\" of consistent-hash: a number from 1 to 100 is expected, with at most three decimals"
done
refused "an_argument_twice" "durpina consistent-hash \$uri ketama ketama;" \
    "\"durpina\": argument \"ketama\" of consistent-hash does not go with those before it; valid ones are $usage"
refused "two_that_contradict_each_other" "durpina least-time header last_byte;" \
    "\"durpina\": argument \"last_byte\" of least-time does not go with those before it; valid ones are $times"
refused "a_time_that_the_kernel_does_not_see" "durpina least-time header source=kernel;" \
    "\"durpina\": argument \"source=kernel\" of least-time does not go with those before it; valid ones are $times"
refused "in_either_order" "durpina least-time source=kernel last_byte;" \
    "\"durpina\": argument \"last_byte\" of least-time does not go with those before it; valid ones are $times"
refused "two_sources" "durpina least-conn source=nginx source=kernel;" \
    "\"durpina\": argument \"source=kernel\" of least-conn does not go with those before it; valid ones are [source=nginx|kernel]"
refused "a_source_that_there_is_not" "durpina least-conn source=haproxy;" \
    "\"durpina\": unknown argument \"source=haproxy\" of least-conn; valid ones are [source=nginx|kernel]"
refused "a_source_where_none_is_taken" "durpina round-robin source=kernel;" \
    "\"durpina\": round-robin takes no argument like \"source=kernel\""
refused "the_directive_twice" "durpina least-conn; durpina least-conn;" '"durpina" directive is duplicate'

for word in ${words//, / }; do
    [ "$word" = consistent-hash ] || taken "durpina $word;"
done
taken "durpina consistent-hash \$uri;" "durpina consistent-hash \$uri\$arg_a ketama bounded;" \
    "durpina consistent-hash \$uri bounded=1 ketama;" "durpina consistent-hash \$uri bounded=100.000;" \
    "durpina least-time header;" "durpina least-time last_byte;" \
    "durpina least-time source=nginx;" "durpina least-time source=nginx last_byte;" \
    "durpina least-time source=kernel;" "durpina least-conn source=nginx;" \
    "durpina least-conn source=kernel;" \
    "durpina round-robin; keepalive 8;" "server 127.0.0.1:83 backup max_conns=5; durpina least-conn;"

like "a_second_method_is_warned_of" "$(conf "least_conn; durpina least-conn;")" \
    "\[warn\] load balancing method redefined in $T/conf.conf:$(line)"
like "and_so_is_one_that_comes_after_it" "$(conf "durpina least-conn; least_conn;")" \
    "\[warn\] load balancing method redefined in $T/conf.conf:$(line)"
like "outside_of_an_upstream_it_is_refused" "$(conf "} durpina least-conn; upstream y { server 127.0.0.1:80;")" \
    '"durpina" directive is not allowed here'
done_testing
