#!/bin/sh
# peers.sh PADOS-BENCH PYTHON PEERS.PY: a peer reaches its target on what Pados exports, knows which fetches can reach the fused one,
# and comes back from the cache as it was built. 77, skipped, where the peers are not installed.
set -eu
bench=$1 python=$2 peers=$3
"$python" -c 'import numpy, faiss, hnswlib' 2>/dev/null || exit 77
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
PYTHONDONTWRITEBYTECODE=1
export PYTHONDONTWRITEBYTECODE
"$bench" --generate 5000x16 --queries 200 --recall 0.9 --rounds 1 --seconds 0.01 --fused 4x8:0.2,1.0 --export "$work/data" >"$work/pados.txt"
for peer in hnswlib faiss-ivf; do
    for time in first second; do
        "$python" "$peers" "$peer" "$work/data" --choices 0 --batch 1,64 --recall 0.9,0.95 --fused-recall 0.9 --rounds 1 --seconds 0.01 \
            --cache "$work/cache" --json "$work/$peer-$time.jsonl" >"$work/$peer-$time.txt" || { cat "$work/$peer-$time.txt"; exit 1; }
    done
    cat "$work/$peer-second.txt"
    # Two targets in two batches, two spreads.
    [ "$(grep -c '"reached": true' "$work/$peer-first.jsonl")" = 6 ]
    [ "$(grep -c '"fused_recall": \(0.9\|1\)' "$work/$peer-first.jsonl")" = 2 ]
    [ "$(grep -c '"build_cached": false' "$work/$peer-first.jsonl")" = 6 ]
    [ "$(grep -c '"build_cached": true' "$work/$peer-second.jsonl")" = 6 ]
    # The same index with the same parameters gives the same recall.
    for time in first second; do sed 's/.*"recall_target": \([^}]*\), "round".*/\1/' "$work/$peer-$time.jsonl" >"$work/$time"; done
    cmp "$work/first" "$work/second"
done
