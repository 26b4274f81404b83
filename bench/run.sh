#!/bin/sh
# What `./run bench` measures, once Pados is built: Fashion-MNIST beside FAISS and hnswlib, the fused score beside
# over-fetching, and a padosd under load. Everything is kept in a fresh folder under build/bench: *.txt as it was printed,
# *.jsonl one object a line.
#
#   ./run bench            l2, cosine, ip x four peers x recall 0.9, 0.95, 0.99; spreads 0.1 to 1; 60 s of load, twice
#   ./run bench --quick    l2 and cosine, two peers, 2,000 queries, spread 0.5, 10 s of load
set -eu
cd "$(dirname "$0")/.."
. bench/serve.sh

metrics="l2 cosine ip" peers=faiss-ivf,faiss-ivfsq8,faiss-hnsw,hnswlib spreads="0.1 0.3 0.5 1.0" seconds=60 few=
case "${1:-}" in
'') ;;
--quick) metrics="l2 cosine" peers=faiss-ivf,hnswlib spreads=0.5 seconds=10 few="--queries 2000" ;;
*)
    echo "usage: ./run bench [--quick]" >&2
    exit 2
    ;;
esac
data=build/data/fashion_mnist
out=build/bench/$(date +%Y%m%d-%H%M%S)

say() { printf '\n%s\n' "$*"; }

# measure NAME OPTION...: one run of pados-bench, shown and kept. Its exit status is the run's, not tee's.
measure() {
    name=$1
    shift
    { "$bin/pados-bench" --base "$data/base.u8bin" --query "$data/query.u8bin" --dataset fashion-mnist --threads 1 --batch 1024 \
        --json "$out/$name.jsonl" "$@" || echo failed >"$out/failed"; } | tee -a "$out/$name.txt"
    [ ! -e "$out/failed" ] || stop_with "pados-bench $* failed; what it printed is in $out/$name.txt"
}

# What the server holds, in MiB: flat from one load to the next, or it leaks.
resident() { awk -v when="$1" '/^VmRSS/ { printf "resident %s: %.1f MiB\n", when, $2 / 1024 }' "/proc/$server_pid/status"; }

# load NAME OPTION...: one run of pados-load against the server at hand.
load() {
    name=$1
    shift
    "$bin/pados-load" --to "$PADOS_URL" --table products --query "$tables/households.npy" --profile shop \
        --context festival=christmas,week=w51,price_band=value --clients 32 --seconds "$seconds" "$@" >"$out/$name.txt" 2>&1 || {
        cat "$out/$name.txt"
        stop_with "the load test $name had errors"
    }
    resident "after it" >>"$out/$name.txt"
    cat "$out/$name.txt"
}

summary() {
    awk '
    function value(text, name,    at) {
        at = index(text, "\"" name "\": ")
        if (!at) return ""
        text = substr(text, at + length(name) + 4)
        sub(/^"/, "", text)
        sub(/[",}].*/, "", text)
        return text
    }
    {
        metric = value($0, "metric"); target = value($0, "recall_target"); name = value($0, "system")
        if (FILENAME ~ /fused/) {
            if (value($0, "fused_recall") == "") next
            fused[++f] = sprintf("%6.2f  %-24s %9.4f %11.0f %11.0f", value($0, "spread"), name (target != "" ? " at " sprintf("%.2f", target) : ""),
                value($0, "fused_recall"), value($0, "qps"), value($0, "rows_scanned"))
            next
        }
        if (value($0, "recall") == "") next
        key[++n] = metric " " sprintf("%.2f", target); system_[n] = name; qps[n] = value($0, "qps")
        line[n] = sprintf("%-7s %6.2f  %-14s %9.4f %11.0f", metric, target, name, value($0, "recall"), qps[n])
        if (value($0, "reached") == "false") note[n] = "  target not reached"
        if (name == "hnswlib") other[key[n]] = qps[n]
    }
    END {
        printf "%-7s %6s  %-14s %9s %11s %11s\n", "metric", "target", "system", "recall@10", "queries/s", "x hnswlib"
        for (i = 1; i <= n; i++)
            print line[i] sprintf(" %11s", key[i] in other && other[key[i]] > 0 ? sprintf("%.2f", qps[i] / other[key[i]]) : "-") note[i]
        printf "\n%6s  %-24s %9s %11s %11s\n", "spread", "fused, 4 x 32 values", "recall@10", "queries/s", "rows/query"
        for (i = 1; i <= f; i++) print fused[i]
    }' "$@"
}

for program in pados-bench pados-load; do
    [ -x "$bin/$program" ] || stop_with "$bin/$program is not built (./run build makes it)"
done
mkdir -p "$out"
if [ ! -s "$data/classes.csv" ]; then
    say "Fashion-MNIST becomes $data"
    sh bench/data/fashion_mnist/make.sh "$data"
fi

say "== Recall and throughput, one thread; answers must not depend on batch size or threads (checked under l2) =="
for metric in $metrics; do
    check=
    [ "$metric" != l2 ] || check=--check
    # shellcheck disable=SC2086
    measure "$metric" --metric "$metric" --peers "$peers" --recall 0.9,0.95,0.99 $few $check
done

say "== The fused score beside over-fetching =="
for spread in $spreads; do
    # shellcheck disable=SC2086
    measure fused --metric l2 --fused "4x32:$spread" --recall 0.95 ${few:---queries 2500}
done

say "== padosd under load: 32 clients, batches of 8, Complete Journey, profile and context =="
serve_guard
serve_start --set threads=0
serve_fill
load warm --seconds 5
load load
load load-mute --mute 20
serve_stop

say "== Summary ($out) =="
set --
for metric in $metrics; do
    set -- "$@" "$out/$metric.jsonl"
done
summary "$@" "$out/fused.jsonl"
echo
cat "$out/load.txt" "$out/load-mute.txt"
echo
echo "One thread, batch 1024. FAISS is Debian's SSE2 build: claim nothing against it that was not measured against a current one."
echo "A peer's parameter is tuned on the measured queries; Pados chooses its own from queries it is not measured on."
