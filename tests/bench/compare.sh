#!/bin/sh
# compare.sh PADOS-BENCH PYTHON BENCH-FOLDER: one Pados for each size of table in turns, and what rows and weights cost, end as
# charts and tables of their own; the comparison with peers knows nothing of them.
set -eu
bench=$1 python=$2 folder=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/left"
PYTHONDONTWRITEBYTECODE=1
export PYTHONDONTWRITEBYTECODE
"$python" "$folder/compare.py" --bench "$bench" --json "$work/rows.jsonl" --sizes 1000,2000,4000 --recall 0.95 --rounds 2 --seconds 0.01 \
    -- --generate ROWSx16 --queries 100 --dataset "synthetic, by rows" >"$work/rows.txt" || { cat "$work/rows.txt"; exit 1; }
[ "$(grep -c '"rows": [124]000, .*"round": [12],' "$work/rows.jsonl")" = 6 ]
grep -q '^round 2 of 2 took .* to go$' "$work/rows.txt"
# A peer that fails is left out, loudly; the others are measured.
status=0
"$python" "$folder/compare.py" --bench "$bench" --json "$work/left/out.jsonl" --peers nobody --recall 0.9 --rounds 1 --seconds 0.01 \
    -- --generate 1000x16 --queries 100 >"$work/left/out.txt" 2>&1 || status=$?
cat "$work/left/out.txt"
[ $status = 4 ]
grep -q '^LEFT OUT: nobody ended with status 1' "$work/left/out.txt"
[ "$(grep -c '"system": "pados"' "$work/left/out.jsonl")" = 1 ]
for tie in 0 0.9; do
    "$bench" --generate 2000x16 --queries 100 --recall 0.95 --fused "4x8:0.3,1.0:$tie" --fused-batch 64,1024 --rounds 1 --seconds 0.01 \
        --dataset "synthetic, by tie" --json "$work/context.jsonl" >"$work/context.txt"
done
# Similarity in batches of 1,024 only; every spread also in those of --fused-batch.
[ "$(grep '"system": "pados",' "$work/context.jsonl" | grep -vc '"spread"')" = 2 ]
[ "$(grep '"system": "pados",' "$work/context.jsonl" | grep -c '"batch": 64,.*"spread": \(0.3\|1.0\).*"rows_scanned"')" = 4 ]
"$python" "$folder/report.py" --text "$work" >"$work/tables.txt"
cat "$work/tables.txt"
[ "$(grep -Ec '^(independent|90% tied) ' "$work/tables.txt")" = 4 ]
grep -q '^fitted power' "$work/tables.txt"
"$python" "$folder/report.py" "$work" "$work/page.html"
# Both charts, the stages' and nothing of a comparison.
grep -q 'Rows that weights make it look at' "$work/page.html"
grep -q 'rows to the power of' "$work/page.html"
if grep -q 'Recall against throughput' "$work/page.html"; then exit 1; fi
