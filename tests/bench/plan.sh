#!/bin/sh
# plan.sh RUN.SH: says what would be done and for how long, and does nothing; a quick run is shorter than the whole.
set -eu
minutes() { awk '$1 == "all" && $2 == "of" { print $4 }' "$1"; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
sh "$1" --plan --quick >"$work/quick.txt"
sh "$1" --plan >"$work/full.txt"
cat "$work/quick.txt" "$work/full.txt"
for step in machine fashion-l2 synthetic-100k rows context load; do grep -q "^  $step .* min" "$work/quick.txt"; done
grep -q '^  synthetic-1m ' "$work/full.txt"
if grep -q '^  synthetic-1m ' "$work/quick.txt"; then exit 1; fi
awk -v quick="$(minutes "$work/quick.txt")" -v full="$(minutes "$work/full.txt")" 'BEGIN { exit !(quick > 0 && quick < full) }'
if sh "$1" --sideways 2>"$work/refused.txt"; then exit 1; fi
grep -q '^usage' "$work/refused.txt"
