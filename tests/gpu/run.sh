#!/bin/sh
# run.sh [--quick] [--build FOLDER]: everything that needs a CUDA device, in one command: builds, or uses a build that was carried here,
# then parity with the CPU backend (searches, groups of lists, changes, exact search, overflowing scans), compute-sanitizer on small cases,
# the benchmark, and brute force by cuBLAS over the same rows beside it; one short table last. About 9 minutes, with --quick 4.
#
#   run.sh --pack FOLDER     on any machine with the CUDA toolkit: builds what run.sh --build FOLDER needs, to be carried
#
# Needs a C compiler, CMake and the CUDA toolkit; a packed build needs the driver only, and for brute force cuBLAS. Results are appended to
# bench/results/GPU/ as JSON lines.
set -eu
cd "$(dirname "$0")/../.."
quick=
build=build/gpu
pack=
while [ $# -gt 0 ]; do
    case $1 in
    --quick) quick=1 ;;
    --build) build=$2; shift ;;
    --pack) pack=1; build=$2; shift ;;
    *) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
    shift
done

tests="backend filter slab exact scan changes parity"
say() { printf 'gpu: %s\n' "$*"; }
begin=$(date +%s)
if [ -n "$quick" ]; then budget=240; else budget=540; fi
left() { echo $((budget - ($(date +%s) - begin))); }
rows=$(mktemp)
figures=$(mktemp)
trap 'rm -f "$rows" "$figures"' EXIT
failed=0
# step NAME SECONDS COMMAND...: runs it, in what is left of the time; keeps a line for the table.
step() {
    name=$1
    most=$2
    shift 2
    [ "$most" -le "$(left)" ] || most=$(left)
    if [ "$most" -lt 5 ]; then
        printf '%-28s %-8s\n' "$name" "no time" >>"$rows"
        failed=1
        return
    fi
    at=$(date +%s)
    status=0
    timeout "$most" "$@" >"$build/$name.log" 2>&1 || status=$?
    case $status in
    0) word=passed ;;
    77) word=skipped; failed=1 ;; # there is a device, and yet it was not used
    124) word=TOO-LONG; failed=1 ;;
    *) word=FAILED; failed=1 ;;
    esac
    [ "$word" = passed ] || [ "$word" = skipped ] || tail -n 20 "$build/$name.log"
    printf '%-28s %-8s %5s s\n' "$name" "$word" $(($(date +%s) - at)) >>"$rows"
    say "$name $word"
}

if [ -n "$pack" ] || [ ! -x "$build/test_gpu_parity" ]; then
    command -v cmake >/dev/null || { say "no CMake here and no packed build in $build"; exit 1; }
    [ -x /usr/local/cuda/bin/nvcc ] && PATH=$PATH:/usr/local/cuda/bin
    say "building into $build"
    mkdir -p "$build"
    # A build that is carried serves any device; one that stays is for the device here, where it says which it is.
    arch=
    if [ -z "$pack" ]; then
        arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -dc '0-9' || true)
    fi
    cmake -S kernels -B "$build" -DCMAKE_BUILD_TYPE=Release -DPADOS_CUDA=on \
        ${arch:+"-DCMAKE_CUDA_ARCHITECTURES=$arch"} >"$build/configure.log" 2>&1 ||
        { cat "$build/configure.log"; exit 1; }
    targets="pados_cuda pados-kernels-bench pados-gpu-scale"
    for test in $tests; do targets="$targets test_gpu_$test"; done
    # A toolkit may come without cuBLAS.
    ! cmake --build "$build" --target help | grep pados-gpu-peer >/dev/null || targets="$targets pados-gpu-peer"
    # shellcheck disable=SC2086
    cmake --build "$build" -j "${JOBS:-$(nproc)}" --target $targets >"$build/build.log" 2>&1 ||
        { tail -n 40 "$build/build.log"; exit 1; }
    if [ -n "$pack" ]; then
        for library in /usr/lib/*/libcmocka.so.0; do [ ! -e "$library" ] || cp -L "$library" "$build/"; done
        say "packed: carry $build ($(du -sh "$build" | cut -f 1)), then tests/gpu/run.sh --build $build"
        exit 0
    fi
    printf '%-28s %-8s %5s s\n' build passed $(($(date +%s) - begin)) >>"$rows"
fi

nvidia-smi -L >/dev/null 2>&1 || { say "no NVIDIA driver answers here (nvidia-smi): nothing was run"; exit 1; }
gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1 | tr -c 'A-Za-z0-9\n' '-' || true)
gpu=${gpu:-unknown}
memory=$(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits 2>/dev/null | head -n 1 | tr -dc '0-9' || true)
memory=${memory:-0} # MiB
results=bench/results/$gpu
mkdir -p "$results"
say "device: $gpu, $memory MiB"

for test in $tests; do
    step "$test" 120 "$build/test_gpu_$test"
done

# Small cases: a sanitizer is a hundred times slower.
if command -v compute-sanitizer >/dev/null 2>&1; then
    for tool in memcheck racecheck; do
        step "$tool-filter" 60 compute-sanitizer --tool "$tool" --error-exitcode 1 "$build/test_gpu_filter"
        [ -n "$quick" ] ||
            step "$tool-backend" 90 compute-sanitizer --tool "$tool" --error-exitcode 1 "$build/test_gpu_backend"
    done
else
    say "no compute-sanitizer here: memcheck and racecheck were not run"
    printf '%-28s %-8s\n' "memcheck, racecheck" "not run" >>"$rows"
fi

rm -f "$build"/scale-*.log "$build"/peer-*.log # of an earlier run
# made PROGRAM NAME SECONDS MIB OPTION...: pados-gpu-PROGRAM over rows made on the device, if it has so many MiB.
made() {
    program=$1
    name=$2
    most=$3
    need=$4
    shift 4
    if [ "$memory" -lt "$need" ]; then
        printf '%-28s %-8s needs %s MiB of device memory\n' "$name" "not run" "$need" >>"$rows"
        return
    fi
    step "$name" "$most" "$build/pados-gpu-$program" "$@" --json "$results/scale.jsonl"
    { printf '\n%s\n' "$name: $*"; cat "$build/$name.log"; } >>"$figures"
}
# peer NAME ...: the same of brute force, which needs cuBLAS's library.
export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/usr/local/cuda/lib64"
peer() {
    if [ ! -x "$build/pados-gpu-peer" ] || ldd "$build/pados-gpu-peer" | grep -q 'not found'; then
        printf '%-28s %-8s no cuBLAS here\n' "$1" "not run" >>"$rows"
        return
    fi
    made peer "$@"
}
# Counted for an H200, of these a scale of 1M takes 15 s, of 100M 30 s, of 300M 45 s, a peer of 1M 10 s and of 100M 25 s, most of it what each batch is
# timed for: two minutes. They may take three times as long.
made scale scale-1M 60 4000 --generate 1000000x96 --nlist 4096 --fused 4x32:0.3
made scale scale-1M-host 60 4000 --generate 1000000x96 --nlist 4096 --fused 4x32:0.3 --refine-in host
peer peer-1M 40 6000 --generate 1000000x96
if [ -z "$quick" ]; then
    made scale scale-100M 240 48000 --generate 100000000x96 --nlist 65536 --fused 4x32:0.3 --queries 200
    peer peer-100M 90 48000 --generate 100000000x96
    # 394 bytes a row on the card; or 256 of them in the host's memory, pinned; or none of these.
    refine=none
    [ "$(awk '/MemAvailable/ { print int($2 / 1024) }' /proc/meminfo)" -lt 100000 ] || refine="f16 --refine-in host"
    [ "$memory" -lt 132000 ] || refine=f16
    made scale scale-300M 200 60000 --generate 300000000x128 --nlist 65536 --fused 4x32:0.3 --refine $refine --queries 50
fi

# beside SIZE: queries/s and recall of the two, a line each, out of what they have said.
beside() {
    [ ! -f "$build/scale-$1.log" ] || [ ! -f "$build/peer-$1.log" ] || awk -v size="$1" '
        function see(name, batch, rate) {
            if (!(name in line)) names[++n] = name
            line[name] = line[name] sprintf(" %11s", rate)
            if (n == 1) head = head sprintf(" %11s", batch)
        }
        $1 == "nprobe" { recall["pados"] = $4 }
        $1 == "similarity" { see("pados", $2, $4) }
        $1 == "cublas" && $3 ~ /^[0-9]+$/ { recall[$1 " " $2] = $4; see($1 " " $2, $3, $5) }
        END {
            printf "\n%-20s%s %9s\n", "queries/s, " size, head, "recall@10"
            for (i = 1; i <= n; i++) printf "%-20s%s %9s\n", names[i], line[names[i]], recall[names[i]]
        }' "$build/scale-$1.log" "$build/peer-$1.log" >>"$rows"
}
beside 1M
[ -n "$quick" ] || beside 100M

cat "$figures"
say "done in $(($(date +%s) - begin)) s"
printf '\n%-28s %-8s %7s\n' "on $gpu" "" took
cat "$rows"
exit $failed
