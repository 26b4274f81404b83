#!/bin/sh
# check.sh PADOS-BENCH COUNT WANTED ARGUMENT...: runs it with --json; it must end well, and COUNT lines must match WANTED.
set -eu
bench=$1 count=$2 wanted=$3
shift 3
json=$(mktemp)
trap 'rm -f "$json"' EXIT
"$bench" "$@" --json "$json"
cat "$json"
[ "$(grep -Ec "$wanted" "$json")" = "$count" ]
