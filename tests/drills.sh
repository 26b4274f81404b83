#!/bin/sh
# The long forms of the drills, and one table of what came of them.
#
#   tests/drills.sh [--quick] [model|crash|cut|fail|full|soak]...
#
# Without names all of them run, one after the other: some half an hour on two cores. --quick runs the forms that ctest
# runs. PADOS_SEED repeats a run, BUILD names the build folder, and the amounts can be set: PADOS_STEPS (model), PADOS_ROUNDS
# (crash), PADOS_CUTS (cut), PADOS_STRIDE (fail), PADOS_SECONDS (soak, and the load before the cuts).
set -u
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
quick=
[ "${1:-}" = --quick ] && { quick=yes; shift; }
[ $# -gt 0 ] || set -- model crash cut fail full soak
PADOSD=$PWD/$BUILD/bin/padosd
PADOS_SEED=${PADOS_SEED:-$(date +%s)}
export PADOSD PADOS_SEED
log=$(mktemp -d)
failed=0

# long NAME VALUE: what the long form sets, unless it is set or --quick was given.
long() {
    [ -n "$quick" ] && return 0
    eval "[ -n \"\${$1:-}\" ]" || export "$1=$2"
}

drill() (
    case $1 in
    model) long PADOS_STEPS 5000; program=test_e2e_model ;;
    crash) long PADOS_ROUNDS 200; program=test_drill_crash ;;
    cut) long PADOS_CUTS 200; long PADOS_SECONDS 5; program=test_drill_cut ;;
    fail) long PADOS_STRIDE 1; program=test_drill_fail ;;
    full) program=test_drill_full ;;
    soak) long PADOS_SECONDS 600; program=test_drill_soak ;;
    *) echo "there is no drill \"$1\"" >&2; exit 2 ;;
    esac
    if [ ! -x "$BUILD/bin/$program" ]; then
        echo "$BUILD/bin/$program is not built" >"$log/$1"
        exit 1
    fi
    "$BUILD/bin/$program" >"$log/$1" 2>&1
)

for name in "$@"; do
    from=$(date +%s)
    echo "drill $name, seed $PADOS_SEED"
    if drill "$name"; then result=passed; else result=FAILED failed=1; fi
    printf '%-6s %s in %s s\n' "$name" "$result" $(($(date +%s) - from)) >>"$log/table"
    # What a drill counted; all that it said where it failed.
    if [ $result = passed ]; then
        grep -v -e '^\[' -e PADOS_SEED "$log/$name" | sed 's/^/       /' >>"$log/table"
    else
        cat "$log/$name"
    fi
done
echo
cat "$log/table"
rm -rf "$log"
exit $failed
