# What script tests share. Sourced; runs in a folder of the test's own below the build.
# shellcheck shell=bash
set -u
config=$MT_SOURCE/configs/tiny.toml
# Runs that are to be equal to the bit plan from the same costs; these make policies act.
costs=(--set "placement.costs=\"$MT_SOURCE/tests/support/costs.json\"")
# -S: the standard library is enough, and starts in a fifth of the time.
metrics() { python3 -S "$MT_SOURCE/tests/support/metrics.py" "$@" || fail "metrics differ"; }

fail() {
    printf 'FAILED: %s\n' "$*"
    exit 1
}

mpirun_flags=(-q --oversubscribe --allow-run-as-root --bind-to none --mca mpi_yield_when_idle 1
    --mca btl_vader_single_copy_mechanism none --mca odls_base_sigkill_timeout 0) # the last as launch/local.sh does

# ranks N ARGUMENTS...: moetrain on N ranks, with a limit on its time.
ranks() {
    local n=$1
    shift
    timeout -k 10 240 mpirun "${mpirun_flags[@]}" -np "$n" "$MOETRAIN" "$@"
}

# start N ARGUMENTS...: the same in the background; $pid is mpirun itself, so that it takes signals.
start() {
    local n=$1
    shift
    mpirun "${mpirun_flags[@]}" -np "$n" "$MOETRAIN" "$@" >start.out 2>start.err &
    pid=$!
}

# processes PATTERN: those of this test, which run in its folder. Another test may have a run of the same name.
processes() {
    local pid
    for pid in $(pgrep -f -- "$1"); do
        [ "/proc/$pid/cwd" -ef . ] && echo "$pid"
    done
}
rank_pid() { processes "^$MOETRAIN .*--run-dir $1 " | sed -n "$2p"; } # RUN INDEX

# wait_for_steps RUN N: until RUN's metrics have N steps.
wait_for_steps() {
    local i
    for i in $(seq 300); do
        [ "$(grep -c '"loss"' "$1/metrics.jsonl" 2>/dev/null)" -ge "$2" ] 2>/dev/null && return
        sleep 0.1
    done
    fail "$1 did not reach step $2 in ${i} tenths of a second: $(head -c 300 start.err)"
}

# expect CODE TEXT COMMAND...: the command ends with CODE, with exactly one message on standard error,
# and TEXT (an extended regular expression) in it. TEXT "" expects nothing on standard error.
expect() {
    local code=$1 text=$2 got
    shift 2
    "$@" >out.txt 2>err.txt
    got=$?
    [ "$got" = "$code" ] || fail "expected code $code, got $got from: $* -- $(head -c 600 err.txt)"
    if [ -z "$text" ]; then
        [ ! -s err.txt ] || fail "expected silence, got: $(head -c 600 err.txt)"
        return
    fi
    [ "$(grep -c '^moetrain: ' err.txt)" = 1 ] ||
        fail "expected one message, got from $*: $(head -c 900 err.txt)"
    grep -qE -- "$text" err.txt || fail "expected \"$text\" in: $(head -c 900 err.txt)"
}

# beside COMMAND...: the command in a folder of its own, while the script goes on: for what waits more than it works.
# together: waits for all of them; the test fails, with what they said, unless each has ended well.
besides=()
beside() {
    local folder=beside.${#besides[@]}
    rm -rf "$folder" && mkdir "$folder" || fail "no folder $folder"
    (cd "$folder" && "$@") >"$folder/said.txt" 2>&1 &
    besides+=($!)
}
together() {
    local i bad=""
    for i in "${!besides[@]}"; do
        wait "${besides[i]}" || bad+=" beside.$i"
        cat "beside.$i/said.txt"
    done
    besides=()
    [ -z "$bad" ] || fail "what went on in$bad ended badly"
}
