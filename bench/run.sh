#!/bin/sh
# What `./run bench` measures, once Pados is built: Pados and its peers on Fashion-MNIST and on synthetic rows, taking turns on
# the same data; the machine's ceilings; a padosd under load. Everything goes into a fresh folder under build/bench: *.jsonl
# one object a line, *.txt as it was printed, and report.html, one page that stands alone. docs/BENCHMARKS.md has the rules.
#
#   ./run bench            everything: hours on two processors, most of them building and tuning peers (graphs of a million rows are kept for the next run)
#   ./run bench --quick    Fashion-MNIST and 100,000 synthetic rows, three peers, 10 s of load: some 7 minutes
#   ./run bench --all      also the slow graphs (faiss-hnsw, usearch, svs) on a million rows
#   --keep                 puts the lines into bench/results/MACHINE too
set -eu
cd "$(dirname "$0")/.."
. bench/serve.sh

quick= all= keep=
for word in "$@"; do
    case "$word" in
    --quick) quick=1 ;;
    --all) all=1 ;;
    --keep) keep=1 ;;
    *)
        echo "usage: ./run bench [--quick | --all] [--keep]" >&2
        exit 2
        ;;
    esac
done
data=build/data/fashion_mnist
out=build/bench/$(date +%Y%m%d-%H%M%S)
venv=build/bench-venv
python=$venv/bin/python
seconds=60
[ -z "$quick" ] || seconds=10

say() { printf '\n%s\n' "$*"; }

# The peers, each by itself: what does not install is said and left out. hnswlib is built from source, for this machine.
peers_install() {
    [ -x "$python" ] || python3 -m venv "$venv" || stop_with "python3 -m venv failed (python3-venv makes it)"
    for package in numpy hnswlib faiss-cpu scann usearch scalable-vs; do
        "$venv/bin/pip" show -q "$package" 2>/dev/null && continue
        say "installing $package from PyPI into $venv"
        "$venv/bin/pip" install -q --disable-pip-version-check "$package" || say "$package cannot be had here: it is left out"
    done
    "$python" -c 'import numpy' 2>/dev/null || stop_with "numpy cannot be had: the comparison needs it"
}

# compare NAME OPTION... -- ARGUMENT...: Pados and peers on one data set, shown and kept. Its status is the run's, not tee's.
compare() {
    name=$1
    shift
    say "== $name =="
    { "$python" bench/compare.py --bench "$bin/pados-bench" --json "$out/$name.jsonl" --cache build/bench-cache "$@" ||
        echo failed >"$out/failed"; } 2>&1 | tee "$out/$name.txt"
    [ ! -e "$out/failed" ] || stop_with "$name failed; what it printed is in $out/$name.txt"
}

# Instruction sets that can be forced here besides the one that is chosen: --also "--isa NAME" for each.
other_isas() {
    for isa in amx avx512 avx2 portable; do
        "$bin/pados-bench" --generate 64x8 --queries 8 --recall 0.9 --batch 8 --rounds 1 --seconds 0 --isa "$isa" >/dev/null 2>&1 &&
            printf -- '--also=--isa %s\n' "$isa"
    done | tail -n +2
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

for program in pados-bench pados-load; do
    [ -x "$bin/$program" ] || stop_with "$bin/$program is not built (./run build makes it)"
done
peers_install
mkdir -p "$out"
if [ ! -s "$data/classes.csv" ]; then
    say "Fashion-MNIST becomes $data"
    sh bench/data/fashion_mnist/make.sh "$data"
fi

say "== The machine =="
"$python" bench/report.py --about >"$out/machine.jsonl"
cat "$out/machine.jsonl"
"$bin/pados-bench" --ceilings --json "$out/machine.jsonl"

fashion="--base $data/base.u8bin --query $data/query.u8bin --dataset fashion-mnist"
if [ -n "$quick" ]; then
    # shellcheck disable=SC2086
    compare fashion-l2 --peers hnswlib:0,faiss-ivfsq8:0,faiss-ivfpq:0 --batch 64,1024 --recall 0.95,0.99 --rounds 3 --seconds 0.5 \
        --fused-recall 0.95 -- $fashion --metric l2 --queries 2000 --fused 4x32:0.3
    compare synthetic-100k --peers hnswlib:0,faiss-ivfsq8:0 --recall 0.95 --rounds 3 --seconds 0.5 \
        -- --generate 100000x128 --queries 1000
else
    forced=$(other_isas)
    old_ifs=$IFS
    IFS='
'
    # shellcheck disable=SC2086
    set -- $forced
    IFS=$old_ifs
    # shellcheck disable=SC2086
    compare fashion-l2 --peers hnswlib,faiss-ivf,faiss-ivfsq8,faiss-ivfpq,faiss-hnsw:0,scann,usearch:0,svs:0 \
        --batch 1,64,1024,10000 --fused-recall 0.95 "$@" -- $fashion --metric l2 --fused 4x32:0.3,0.5,1.0
    # shellcheck disable=SC2086
    compare fashion-cosine --peers hnswlib:0,faiss-ivfsq8:0,scann:0 --seconds 0.5 -- $fashion --metric cosine
    # shellcheck disable=SC2086
    compare fashion-threads --peers hnswlib:0,faiss-ivfsq8:0 --recall 0.95 --threads "1,$(nproc)" --seconds 0.5 \
        -- $fashion --metric l2 --queries 5000
    compare synthetic-100k --peers hnswlib:0,faiss-ivfsq8:0,faiss-ivfpq:0 --recall 0.95 --fused-recall 0.95 --seconds 0.5 \
        -- --generate 100000x128 --queries 2000 --fused 4x32:0.3,0.5,1.0
    million=hnswlib:0,faiss-ivf:0,faiss-ivfsq8:0,faiss-ivfpq:0,scann:0
    [ -z "$all" ] || million=$million,faiss-hnsw:0,usearch:0,svs:0
    compare synthetic-1m --peers "$million" --batch 1,64,1024 --recall 0.9,0.95,0.99 \
        -- --generate 1000000x128 --queries 2000
    compare synthetic-5m --recall 0.95 -- --generate 5000000x128 --queries 1000
fi

say "== padosd under load: 32 clients, batches of 8, Complete Journey, profile and context =="
serve_guard
serve_start --set threads=0
serve_fill
load warm --seconds 5
load load
load load-mute --mute 20
serve_stop

say "== Summary ($out) =="
"$python" bench/report.py --text "$out"
"$python" bench/report.py "$out" "$out/report.html"
if [ -n "$keep" ]; then
    kept=bench/results/$("$python" bench/report.py --slug)
    mkdir -p "$kept"
    rm -f "$kept"/*.jsonl
    cp "$out"/*.jsonl "$kept"
    say "the lines are kept in $kept"
fi
