# What script tests share. Sourced; runs in a folder of the test's own below the build.
# shellcheck shell=bash
set -u
config=$MT_SOURCE/configs/tiny.toml
metrics() { python3 "$MT_SOURCE/tests/support/metrics.py" "$@" || fail "metrics differ"; }

fail() {
    printf 'FAILED: %s\n' "$*"
    exit 1
}

# ranks N ARGUMENTS...: moetrain on N ranks, with a limit on its time. Background it with `&`: the
# process is mpirun itself.
mpirun_ranks() {
    local n=$1
    shift
    exec timeout -k 10 240 mpirun -q -np "$n" --oversubscribe --allow-run-as-root --bind-to none \
        --mca mpi_yield_when_idle 1 --mca btl_vader_single_copy_mechanism none \
        --mca odls_base_sigkill_timeout 60 "$MOETRAIN" "$@"
}
ranks() { (mpirun_ranks "$@"); }

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
