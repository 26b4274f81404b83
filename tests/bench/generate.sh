#!/bin/sh
# generate.sh PADOS-BENCH: a small table is the beginning of a large one of the same seed, another seed makes another, the bytes
# are those that every machine makes, and what is exported is what was measured.
set -eu
bench=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# make NAME ROWS SEED
make() {
    "$bench" --generate "$2x16:$3" --queries 50 --recall 0.9 --batch 50 --rounds 1 --seconds 0.01 --fused 2x8:0.3 \
        --export "$work/$1" >"$work/$1.txt"
}
# same NAME FILE BYTES: whether those after the eight of the header are a's.
same() {
    dd if="$work/a/$2" bs=8 skip=1 2>/dev/null | head -c "$3" >"$work/left"
    dd if="$work/$1/$2" bs=8 skip=1 2>/dev/null | head -c "$3" >"$work/right"
    [ -s "$work/left" ] && cmp -s "$work/left" "$work/right"
}
make a 1000 7
make b 3000 7
make c 1000 8
same b base.fbin 64000
same b query.fbin 3200
if same c base.fbin 64000; then exit 1; fi
for file in calibration.fbin truth.npy bytes.npy weights_0.npy fused_0.npy meta.json; do [ -s "$work/a/$file" ]; done
# u32 rows, u32 dimensions, then f32: 8 + 1000 * 16 * 4 bytes.
[ "$(wc -c <"$work/a/base.fbin")" = 64008 ]
[ "$(sha256sum <"$work/a/base.fbin" | cut -c 1-16)" = 2a349785f77da72e ]
