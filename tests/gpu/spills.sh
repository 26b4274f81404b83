#!/bin/sh
# spills.sh NVCC KERNELS [FILE.cu]...: fails where ptxas keeps anything of a scan kernel in local memory (a stack frame or spills), on
# any target. Without files: those of the scan.
set -eu
nvcc=$1
kernels=$2
shift 2
[ $# -gt 0 ] || set -- "$kernels"/cuda/scan_*.cu
report=$(mktemp)
trap 'rm -f "$report"' EXIT
for file in "$@"; do
    for target in 80 90; do
        "$nvcc" -std=c++17 -O3 -fmad=false -gencode "arch=compute_$target,code=sm_$target" -Xptxas -v \
            -Xcompiler=-fno-strict-aliasing -D_GNU_SOURCE -I "$kernels" -c "$file" -o /dev/null 2>>"$report"
    done
done
# Two lines a kernel: "Function properties for NAME", then its bytes.
awk '/Function properties for/ { name = $NF }
     /bytes stack frame/ { kernels++; if ($1 + $5 + $9 > 0) { bad++; print name ": " $0 } }
     END { if (!kernels) { print "no kernel was reported"; exit 1 }
           print kernels " kernels, " bad + 0 " with local memory"; exit bad > 0 }' "$report"
