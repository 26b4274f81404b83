#!/bin/sh
# on_device.sh PADOS-BENCH SCALE: with --on-device the program beside pados-bench makes the rows, with the arguments that it was given; what it
# has no use for is refused by name, and so is the option where there is no such program.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$1" "$work/pados-bench"
# refused STATUS WORDS ARGUMENT...
refused() {
    wanted=$1
    words=$2
    shift 2
    status=0
    "$work/pados-bench" "$@" >"$work/out.txt" 2>&1 || status=$?
    [ "$status" = "$wanted" ] && grep -q -e "$words" "$work/out.txt" && return 0
    echo "pados-bench $*: status $status instead of $wanted, or not \"$words\":"
    cat "$work/out.txt"
    exit 1
}
refused 1 "$work/pados-gpu-scale: No such file" --generate 600x8 --on-device --nlist 6
cp "$2" "$work/pados-gpu-scale"
refused 2 "--export is no option here" --on-device --generate 600x8 --nlist 6 --export "$work/data"
refused 2 "--nlist 601: there are 600 rows" --on-device --generate 600x8 --nlist 601
refused 2 "--fused 2x8:0.3,0.5: wants FxV:SPREAD" --on-device --generate 600x8 --nlist 6 --fused 2x8:0.3,0.5
refused 2 "--refine i8: is none, f16 or f32" --on-device --generate 600x8 --nlist 6 --refine i8
refused 2 "--refine-in disk: is device or host" --on-device --generate 600x8 --nlist 6 --refine-in disk
refused 2 "usage: pados-gpu-scale" --on-device --generate 600x8
"$work/pados-bench" --generate 600x8:7 --on-device --nlist 30 --fused 2x8:0.3 --queries 12 --json "$work/lines.jsonl" >"$work/out.txt"
grep -q "2 columns of 8 values at equal probes" "$work/out.txt"
[ "$(grep -c '"table": "600x8", "refine_in": "device", "what": "similarity", "batch": [0-9]*, "nprobe": [0-9]*, "similarity_recall": [01][.]' "$work/lines.jsonl")" = 4 ]
# Another seed makes other rows.
"$work/pados-bench" --generate 600x8:8 --on-device --nlist 30 --queries 12 >"$work/other.txt"
grep "^nprobe" "$work/out.txt" >"$work/left"
grep "^nprobe" "$work/other.txt" >"$work/right"
if cmp -s "$work/left" "$work/right"; then exit 1; fi
