#!/bin/sh
# report.sh PADOS-BENCH PYTHON REPORT.PY: what the bench writes becomes a page with charts that needs nothing from elsewhere; a
# point is the median of its rounds.
set -eu
bench=$1 python=$2 report=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
PYTHONDONTWRITEBYTECODE=1
export PYTHONDONTWRITEBYTECODE
"$python" "$report" --about >"$work/machine.jsonl"
"$bench" --generate 3000x16 --queries 100 --recall 0.9,0.95 --batch 10,1024 --rounds 3 --seconds 0.01 --fused 4x8:0.3 \
    --json "$work/one.jsonl" >"$work/one.txt"
"$python" "$report" "$work" "$work/page.html"
"$python" "$report" --text "$work" >"$work/tables.txt"
cat "$work/tables.txt"
[ "$(grep -o '<svg' "$work/page.html" | wc -l)" -ge 4 ]
if grep -Eq '(src|href)=|@import|url\(' "$work/page.html"; then exit 1; fi
# The table's queries/s of similarity at 0.95, batch 1,024: the middle one of its three lines.
median=$(grep '"system": "pados"' "$work/one.jsonl" | grep '"batch": 1024,' | grep -v spread | grep '"recall_target": 0.95' |
    sed 's/.*"qps": \([0-9.]*\).*/\1/' | sort -g | sed -n 2p)
[ -n "$median" ]
grep "$(printf '%.0f' "$median" | sed ':a;s/\B[0-9]\{3\}\(,\|$\)/,&/;ta')" "$work/tables.txt"
