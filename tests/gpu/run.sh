#!/bin/sh
# run.sh [--quick] [--build FOLDER]: everything that needs a CUDA device, in one command: builds, or uses a build that was carried here,
# then parity, compute-sanitizer on small cases, the benchmark; one short table last. About 9 minutes, with --quick 4.
#
#   run.sh --pack FOLDER     on any machine with the CUDA toolkit: builds what run.sh --build FOLDER needs, to be carried
#
# Needs a C compiler, CMake and the CUDA toolkit, and cmocka where it builds the tests itself (a packed build brings it along); a packed
# build needs the driver only. Results are appended to bench/results/GPU/ as JSON lines.
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

say() { printf 'gpu: %s\n' "$*"; }
begin=$(date +%s)
rows=$(mktemp)
trap 'rm -f "$rows"' EXIT
failed=0
# step NAME COMMAND...: runs it, keeps a line for the table.
step() {
    name=$1
    shift
    at=$(date +%s)
    status=0
    "$@" >"$build/$name.log" 2>&1 || status=$?
    case $status in 0) word=passed ;; 77) word=skipped ;; *) word=FAILED; failed=1; tail -n 20 "$build/$name.log" ;; esac
    printf '%-28s %-8s %5s s\n' "$name" "$word" $(($(date +%s) - at)) >>"$rows"
    say "$name $word"
}

if [ -n "$pack" ] || [ ! -x "$build/test_gpu_parity" ]; then
    command -v cmake >/dev/null || { say "no CMake here and no packed build in $build"; exit 1; }
    [ -x /usr/local/cuda/bin/nvcc ] && PATH=$PATH:/usr/local/cuda/bin
    say "building into $build"
    mkdir -p "$build"
    cmake -S kernels -B "$build" -DCMAKE_BUILD_TYPE=Release -DPADOS_CUDA=on >"$build/configure.log" 2>&1 ||
        { cat "$build/configure.log"; exit 1; }
    cmake --build "$build" -j "${JOBS:-$(nproc)}" --target pados_cuda pados-kernels-bench >"$build/build.log" 2>&1 ||
        { tail -n 40 "$build/build.log"; exit 1; }
    for test in parity backend filter slab; do
        cmake --build "$build" -j "${JOBS:-$(nproc)}" --target "test_gpu_$test" >>"$build/build.log" 2>&1 ||
            say "test_gpu_$test was not built (without cmocka there are no tests): $build/build.log"
    done
    if [ -n "$pack" ]; then
        for library in /usr/lib/*/libcmocka.so.0; do cp -L "$library" "$build/"; done
        say "packed: carry $build ($(du -sh "$build" | cut -f 1)), then tests/gpu/run.sh --build $build"
        exit 0
    fi
fi

nvidia-smi -L >/dev/null 2>&1 || { say "no NVIDIA driver answers here (nvidia-smi): nothing was run"; exit 1; }
gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1 | tr -c 'A-Za-z0-9\n' '-' || true)
gpu=${gpu:-unknown}
results=bench/results/$gpu
mkdir -p "$results"
say "device: $gpu"

for test in backend filter slab parity; do
    [ ! -x "$build/test_gpu_$test" ] || step "$test" timeout 240 "$build/test_gpu_$test"
done

# Small cases: a sanitizer is a hundred times slower.
if command -v compute-sanitizer >/dev/null 2>&1 && [ -x "$build/test_gpu_filter" ]; then
    for tool in memcheck racecheck; do
        step "$tool-filter" timeout 120 compute-sanitizer --tool "$tool" --error-exitcode 1 "$build/test_gpu_filter"
        [ -n "$quick" ] ||
            step "$tool-backend" timeout 180 compute-sanitizer --tool "$tool" --error-exitcode 1 "$build/test_gpu_backend"
    done
else
    say "no compute-sanitizer here: memcheck and racecheck were not run"
fi

# bench ROWS DIM NLIST NPROBE
bench() {
    step "bench-$1x$2" timeout 150 "$build/pados-kernels-bench" --backend cuda --json "$results/kernels.jsonl" "$@"
    cat "$build/bench-$1x$2.log"
}
bench 200000 96 1024 16
[ -n "$quick" ] || bench 2000000 96 4096 32

say "done in $(($(date +%s) - begin)) s"
printf '\n%-28s %-8s %7s\n' "on $gpu" "" took
cat "$rows"
exit $failed
