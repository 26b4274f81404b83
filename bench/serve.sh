# shellcheck shell=sh
# What demo.sh and run.sh share: a padosd of their own in a temporary folder, filled with Complete Journey. Sourced by a
# POSIX sh whose working folder is the repository's root.
#
#   serve_start [--set key=value]...   starts it and waits until it answers; sets PADOS_URL, server_pid, work
#   serve_again                        SIGKILL to it, and a start from what it left on the disk
#   serve_fill                         pushes households and products, puts the profiles shop and festive
#   serve_stop                         SIGTERM to that very process, waits, removes the folder (called at any exit)
#   stop_with MESSAGE                  says what failed, with what the step and the server last said, and ends

bin=${PADOS_BIN:-build/bin}
tables=${PADOS_TABLES:-bench/data/complete_journey/tables}
work=
server_pid=

stop_with() {
    printf '\nstopped: %s\n' "$*" >&2
    if [ -s "$work/step.log" ]; then
        echo "  the step said last:" >&2
        tail -n 10 "$work/step.log" | sed 's/^/    /' >&2
    fi
    if [ -s "$work/server.log" ]; then
        echo "  the server said last:" >&2
        tail -n 15 "$work/server.log" | sed 's/^/    /' >&2
    fi
    exit 1
}

serve_stop() {
    if [ -n "$server_pid" ]; then
        kill -TERM "$server_pid" 2>/dev/null || :
        wait "$server_pid" 2>/dev/null || :
        server_pid=
    fi
    [ -z "$work" ] || rm -rf "$work"
    work=
}

# Every way out passes here once; a signal becomes the exit status that shells give it.
serve_guard() {
    trap serve_stop EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap 'exit 129' HUP
}

# The caller's options to padosd come last and win.
serve_start() {
    for program in padosd pados; do
        [ -x "$bin/$program" ] || stop_with "$bin/$program is not built (./run build makes it)"
    done
    work=$(mktemp -d "${TMPDIR:-/tmp}/pados-demo.XXXXXX") || stop_with "no temporary folder could be made"
    PADOS_URL=ipc://$work/data.sock
    export PADOS_URL
    serve_run "$@"
}

serve_again() {
    kill -KILL "$server_pid"
    wait "$server_pid" 2>/dev/null || :
    server_pid=
    serve_run "$@"
}

serve_run() {
    # An asynchronous command of a shell script ignores SIGINT: Ctrl-C reaches the script alone, which ends the server in order.
    # It ignores SIGHUP, so that one that is kept outlives the terminal.
    (trap '' HUP; exec "$bin/padosd" --config configs/demo.conf --set "data_folder=\"$work/data\"" --set "data.url=\"$PADOS_URL\"" \
        --set "admin.url=\"ipc://$work/admin.sock\"" --set 'http.url=""' "$@") >"$work/server.log" 2>&1 </dev/null &
    server_pid=$!
    tries=0
    until "$bin/pados" --timeout 1000 hello >"$work/step.log" 2>&1; do
        kill -0 "$server_pid" 2>/dev/null || { server_pid=; stop_with "padosd ended instead of serving"; }
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || stop_with "padosd does not answer on $PADOS_URL"
        sleep 0.1
    done
}

# serve_push TABLE: its vectors, ids, attributes and schema.
serve_push() {
    "$bin/pados" push "$1" "$tables/$1.npy" --ids "$tables/$1_ids.npy" --attributes "$tables/$1.csv" \
        --schema "$tables/$1.schema" >"$work/step.log" 2>&1 || stop_with "pushing the table $1 failed"
}

serve_profiles() {
    for profile in shop festive; do
        "$bin/pados" profile put "$tables/$profile.conf" >"$work/step.log" 2>&1 ||
            stop_with "putting the profile $profile failed"
    done
}

serve_fill() {
    serve_push households
    serve_push products
    serve_profiles
}
