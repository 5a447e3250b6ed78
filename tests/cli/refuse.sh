# What the tests of refusals share. Sourced.
# shellcheck shell=bash
. "$MT_SOURCE/tests/support/run.sh"

# one ARGUMENTS...: moetrain without mpirun, with a limit on its time.
one() { timeout -k 5 60 "$MOETRAIN" "$@"; }

# The last command said nothing beside its message: no results, no lecture of mpirun, MPI or a sanitizer.
said_nothing_else() {
    [ ! -s out.txt ] || fail "standard output of a refusal: $(head -c 300 out.txt) from: $*"
    ! grep -iE 'mpirun|orte|pmix|mpi_|\[[^ ]*:[0-9]+\]|runtime error|sanitizer' err.txt ||
        fail "more than one message: $(head -c 900 err.txt) from: $*"
}

# refuse CODE TEXT ARGUMENTS...: on one rank without mpirun.
refuse() {
    expect "$1" "$2" one "${@:3}"
    said_nothing_else "$@"
}

# refuse_everywhere CODE TEXT ARGUMENTS...: the same on three ranks, too.
refuse_everywhere() {
    refuse "$@"
    expect "$1" "$2" ranks 3 "${@:3}"
    said_nothing_else "$@"
}

# also TEXT: the last message has it as well.
also() { grep -qE -- "$1" err.txt || fail "expected \"$1\" in: $(head -c 2000 err.txt)"; }

# damage HOW PATH: what happens to files.
damage() {
    python3 -S "$MT_SOURCE/tests/cli/damage.py" "$@" || fail "damage $*"
}
