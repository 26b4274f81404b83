#!/bin/sh
# Fashion-MNIST (Zalando Research, MIT licence; Debian package dataset-fashion-mnist) as files that Pados reads:
#   base.u8bin, query.u8bin          60,000 + 10,000 rows of 784 bytes (big-ann format: u32 rows, u32 dim, rows)
#   classes.csv                      id,class of the base rows
# Usage: make.sh FOLDER. An IDX file is a header of 16 bytes (8 for labels) and then the bytes, so no more than tail is needed.
set -eu
out=$1
from=/usr/share/datasets/fashion-mnist
[ -d "$from" ] || from=$(dirname "$(dpkg -L dataset-fashion-mnist | grep train-images)")
mkdir -p "$out"

# u32 N: four bytes, little-endian.
u32() {
    for shift in 0 8 16 24; do
        # shellcheck disable=SC2059
        printf "\\$(printf '%03o' $((($1 >> shift) & 255)))"
    done
}
# bin ROWS SOURCE TARGET
bin() {
    { u32 "$1"; u32 784; gzip -dc "$from/$2" | tail -c +17; } >"$out/$3.tmp"
    mv "$out/$3.tmp" "$out/$3"
}
bin 60000 train-images-idx3-ubyte.gz base.u8bin
bin 10000 t10k-images-idx3-ubyte.gz query.u8bin
gzip -dc "$from/train-labels-idx1-ubyte.gz" | tail -c +9 | od -An -v -tu1 -w1 |
    awk 'BEGIN { split("T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot", name, ","); print "id,class" }
         { print NR - 1 "," name[$1 + 1] }' >"$out/classes.csv.tmp"
mv "$out/classes.csv.tmp" "$out/classes.csv"
