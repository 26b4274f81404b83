#!/bin/sh
# What `./run bench` measures, once Pados is built: Pados and its peers on Fashion-MNIST and on synthetic rows, taking turns on
# the same data; Pados alone by rows and by the spread of its weights; the machine's ceilings; a padosd under load. Everything
# goes into a fresh folder under build/bench: *.jsonl one object a line, *.txt as it was printed, and report.html, one page that
# stands alone. docs/BENCHMARKS.md has the rules.
#
#   ./run bench            every kind of peer on Fashion-MNIST, five of them on a million synthetic rows: under 40 minutes on two
#                          processors; what peers built is kept, so that the next run takes some ten minutes less
#   ./run bench --quick    three peers on Fashion-MNIST, two on 100,000 synthetic rows: under 8 minutes
#   ./run bench --all      every choice of index, context for every peer, the slow graphs on a million rows too: hours
#   --keep                 puts the lines into bench/results/MACHINE too
#   --plan                 says what would be done and how long each step takes, and does nothing
set -eu
cd "$(dirname "$0")/.."
. bench/serve.sh

mode=full
keep=''
only_plan=''
for word in "$@"; do
    case "$word" in
    --quick) mode=quick ;;
    --all) mode=all ;;
    --keep) keep=1 ;;
    --plan) only_plan=1 ;;
    *)
        echo "usage: ./run bench [--quick | --all] [--keep] [--plan]" >&2
        exit 2
        ;;
    esac
done
data=build/data/fashion_mnist
out=build/bench/$(date +%Y%m%d-%H%M%S)
venv=build/bench-venv
python=$venv/bin/python

say() { printf '\n%s\n' "$*"; }

# ------------------------------------------------------------------------------------------------------------- the plan ---
# Step, seconds with quick, as it is, with --all (- where it is left out; two Zen 4 processors, nothing built before), what it is.
# A step's last time on this machine is in build/bench/times-MODE, and is believed before these.
steps() {
    cat <<'END'
machine 10 10 10 the machine's ceilings
fashion-l2 200 840 3000 Fashion-MNIST beside its peers, by recall, batch size and context; instruction sets
fashion-cosine - - 240 the same rows by cosine
fashion-threads - 100 150 one thread against all
synthetic-100k 70 200 600 100,000 x 128 synthetic rows beside peers, with context
synthetic-1m - 780 2400 1,000,000 x 128 beside peers
rows 20 240 240 rows against cost: Pados alone on larger and larger tables, to five million rows except with quick
context 40 90 90 rows looked at by spread, attributes independent of the lists and tied to them
load 45 75 150 padosd under load: 32 clients, batches of 8, Complete Journey, profile and context
END
}

# Lines of steps() of this mode: NAME SECONDS WORDS...
planned() {
    steps | awk -v column="$(case $mode in quick) echo 2 ;; full) echo 3 ;; all) echo 4 ;; esac)" -v times="build/bench/times-$mode" '
        BEGIN { while ((getline line < times) > 0) { split(line, word, " "); last[word[1]] = word[2] } }
        $column != "-" {
            printf "%s %d", $1, $1 in last ? last[$1] : $column
            for (i = 5; i <= NF; i++) printf " %s", $i
            print ""
        }'
}

plan() {
    planned | awk '
        { sum += $2; name = $1; seconds = $2; $1 = $2 = ""; printf "  %-16s %5.1f min  %s\n", name, seconds / 60, $0 }
        END { printf "  %-16s %5.1f min\n", "all of it", sum / 60 }'
}

# begin NAME: whether NAME is part of this run; says so, and what is to go. done_with NAME: says and keeps what it took.
begin() {
    planned | awk -v name="$1" '
        $1 == name { found = 1; own = $2; words = $0; sub(/^[^ ]+ [^ ]+ /, "", words) }
        found { left += $2 }
        END {
            if (!found) exit 1
            printf "\n== %s: %s ==\n   some %.1f min, then %.1f min to go\n", name, words, own / 60, (left - own) / 60
        }' || return 1
    began=$(date +%s)
}
done_with() {
    took=$(($(date +%s) - began))
    say "$1 took $took s"
    printf '%s %s\n' "$1" "$took" >>"$out/times.txt"
    { grep -v "^$1 " "build/bench/times-$mode" 2>/dev/null || :; printf '%s %s\n' "$1" "$took"; } >"$out/times.tmp"
    mv "$out/times.tmp" "build/bench/times-$mode"
}

# ------------------------------------------------------------------------------------------------------------ the steps ---

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
    {
        status=0
        "$python" bench/compare.py --bench "$bin/pados-bench" --json "$out/$name.jsonl" --cache build/bench-cache "$@" || status=$?
        # 4: peers were left out, which the end of this run says again.
        [ $status = 0 ] || [ $status = 4 ] || echo failed >"$out/failed"
    } 2>&1 | tee "$out/$name.txt"
    [ ! -e "$out/failed" ] || stop_with "$name failed; what it printed is in $out/$name.txt"
}

# Instruction sets that can be forced here besides the one that is chosen: --also "--isa NAME" for each.
other_isas() {
    for isa in amx avx512 avx2 portable; do
        "$bin/pados-bench" --generate 64x8 --queries 8 --recall 0.9 --batch 8 --rounds 1 --seconds 0 --isa "$isa" >/dev/null 2>&1 &&
            printf -- '--also=--isa %s\n' "$isa"
    done | tail -n +2
}

# Sizes for rows against cost: five million rows where there is memory for them.
sizes() {
    case $mode in
    quick) echo 100000,300000 ;;
    all) echo 100000,300000,1000000,5000000 ;;
    *) awk '/^MemAvailable/ { print "100000,300000,1000000" ($2 > 10 * 2 ^ 20 ? ",5000000" : "") }' /proc/meminfo ;;
    esac
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

say "The plan ($mode):"
plan
[ -z "$only_plan" ] || exit 0
for program in pados-bench pados-load; do
    [ -x "$bin/$program" ] || stop_with "$bin/$program is not built (./run build makes it)"
done
peers_install
mkdir -p "$out"
if [ ! -s "$data/classes.csv" ]; then
    say "Fashion-MNIST becomes $data"
    sh bench/data/fashion_mnist/make.sh "$data"
fi

begin machine
"$python" bench/report.py --about >"$out/machine.jsonl"
cat "$out/machine.jsonl"
"$bin/pados-bench" --ceilings --json "$out/machine.jsonl"
done_with machine

# NAME:N is a peer's choice number N of index (bench/adapters.py). Except with --all only one is built: that which won when all of
# them were tried on these rows, and on a million rows the first.
fashion="--base $data/base.u8bin --query $data/query.u8bin --dataset fashion-mnist"
begin fashion-l2
forced=$(other_isas)
set --
[ "$mode" = quick ] || {
    old_ifs=$IFS
    IFS='
'
    # shellcheck disable=SC2086
    set -- $forced
    IFS=$old_ifs
}
case $mode in
quick) set -- --peers hnswlib:0,faiss-ivfpq:3,scann:2 --batch 64,1024 --recall 0.95,0.99 --seconds 0.3 ;;
full)
    set -- "$@" --peers hnswlib:0,faiss-ivf:2,faiss-ivfsq8:0,faiss-ivfpq:3,faiss-hnsw:0,scann:2,usearch:1,svs:1 \
        --similarity-only faiss-hnsw,usearch,svs --batch 1,64,1024,10000 --seconds 0.5
    ;;
all)
    set -- "$@" --peers hnswlib,faiss-ivf,faiss-ivfsq8,faiss-ivfpq,faiss-hnsw,scann,usearch,svs \
        --batch 1,64,1024,10000 --seconds 1
    ;;
esac
spreads=0.3,0.5,1.0 queries=5000
[ "$mode" != quick ] || spreads=0.3 queries=2000
# shellcheck disable=SC2086
compare fashion-l2 "$@" --fused-recall 0.95 -- $fashion --metric l2 --queries $queries --fused 4x32:$spreads --fused-batch 1024
done_with fashion-l2

if begin fashion-cosine; then
    # shellcheck disable=SC2086
    compare fashion-cosine --peers hnswlib:0,faiss-ivfsq8:0,scann:2 --seconds 0.5 -- $fashion --metric cosine
    done_with fashion-cosine
fi

if begin fashion-threads; then
    # shellcheck disable=SC2086
    compare fashion-threads --peers hnswlib:0,faiss-ivfsq8:0 --recall 0.95 --threads "1,$(nproc)" --seconds 0.5 \
        -- $fashion --metric l2 --queries 5000
    done_with fashion-threads
fi

begin synthetic-100k
case $mode in
quick) compare synthetic-100k --peers hnswlib:0,faiss-ivfsq8:0 --recall 0.95 --seconds 0.3 -- --generate 100000x128 --queries 1000 ;;
full)
    compare synthetic-100k --peers hnswlib:0,faiss-ivfsq8:0,faiss-ivfpq:2,scann:0 --recall 0.95 --fused-recall 0.95 --seconds 0.5 \
        -- --generate 100000x128 --queries 2000 --fused 4x32:0.3,0.5,1.0
    ;;
all)
    compare synthetic-100k --peers hnswlib,faiss-ivf,faiss-ivfsq8,faiss-ivfpq,faiss-hnsw:0,scann,usearch:1,svs:1 \
        --recall 0.9,0.95,0.99 --fused-recall 0.95 --similarity-only faiss-hnsw,usearch,svs --seconds 0.5 \
        -- --generate 100000x128 --queries 2000 --fused 4x32:0.3,0.5,1.0
    ;;
esac
done_with synthetic-100k

if begin synthetic-1m; then
    million=hnswlib:0,faiss-ivf:0,faiss-ivfsq8:0,faiss-ivfpq:0,scann:0
    [ "$mode" != all ] || million=$million,faiss-hnsw:0,usearch:1,svs:1
    compare synthetic-1m --peers "$million" --batch 1,64,1024 --recall 0.9,0.95,0.99 --seconds 0.5 \
        -- --generate 1000000x128 --queries 2000
    done_with synthetic-1m
fi

begin rows
compare rows --sizes "$(sizes)" --recall 0.95 -- --generate ROWSx128 --queries 1000 --dataset "synthetic, by rows"
done_with rows

# Rows looked at do not depend on time or threads: one short round on all processors.
begin context
ties="0 0.5 0.9" spreads=0.1,0.3,0.5,1.0
[ "$mode" != quick ] || ties="0 0.9" spreads=0.3,1.0
for tie in $ties; do
    say "With probability $tie a row's values follow its list"
    "$bin/pados-bench" --generate 100000x64 --queries 1000 --dataset "synthetic, by tie" --recall 0.95 --fused "4x32:$spreads:$tie" \
        --threads "$(nproc)" --rounds 1 --seconds 0.1 --json "$out/context.jsonl" || echo failed >"$out/failed"
done | tee "$out/context.txt"
[ ! -e "$out/failed" ] || stop_with "rows by spread failed; what it printed is in $out/context.txt"
done_with context

begin load
case $mode in quick) seconds=10 ;; full) seconds=25 ;; all) seconds=60 ;; esac
serve_guard
serve_start --set threads=0
serve_fill
load warm --seconds 5
load load
load load-mute --mute 20
serve_stop
done_with load

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
if grep -h '^LEFT OUT' "$out"/*.txt; then stop_with "these peers failed and are missing above"; fi
