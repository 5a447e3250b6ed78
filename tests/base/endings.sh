#!/usr/bin/env bash
# Every way in which a job can end: its exit code, one message on standard error, all ranks gone. Three lanes at a
# time, since most of it is waiting: for a watchdog, or for mpirun, which takes 1 or 2 s over the ranks of a failed job.
. "$(dirname "$0")/../support/run.sh"
program=$MT_BUILD/tests/base/job_endings
bad=0
: "${MPIRUN:=mpirun}"
flags=(-q --oversubscribe --allow-run-as-root --bind-to none
    --mca btl_vader_single_copy_mechanism none)

run_mpi() { # ranks ending: standard output and error into files, the code into $code
    timeout -k 5 60 "$MPIRUN" "${flags[@]}" -np "$1" "$program" "$2" "$mark" >out.txt 2>err.txt
    code=$?
}

complain() {
    echo "FAILED $case_name: $1"
    sed 's/^/    stderr: /' err.txt
    bad=1
}

# ended CODE LINES PATTERN: what the last run must have left. LINES of standard error, the first of
# which matches the pattern (an extended regular expression).
ended() {
    [ "$code" -eq "$1" ] || complain "code $code, expected $1"
    local lines
    lines=$(wc -l <err.txt)
    [ "$lines" -eq "$2" ] || complain "$lines lines of standard error, expected $2"
    if [ -n "$3" ]; then
        head -n 1 err.txt | grep -Eq "$3" || complain "no match of: $3"
    fi
    local tries=0
    while pgrep -f -- "$mark" >/dev/null; do # ranks may take a moment to be reaped
        tries=$((tries + 1))
        if [ "$tries" -gt 50 ]; then
            complain "ranks are still alive"
            break
        fi
        sleep 0.1
    done
}

try() { # ranks ending code lines pattern
    case_name="$2 on $1 ranks"
    local began=$SECONDS
    run_mpi "$1" "$2"
    ended "$3" "$4" "$5"
    [ $((SECONDS - began)) -le 20 ] || complain "took $((SECONDS - began)) s"
    echo "done $case_name"
}

single() { # ending code lines pattern
    case_name="$1 without mpirun"
    timeout -k 5 60 "$program" "$1" "$mark" >out.txt 2>err.txt
    code=$?
    ended "$2" "$3" "$4"
    echo "done $case_name"
}

where='rank 2 \([^)]+\)'
alone() {
    try 4 slow_but_sound 0 0 '' # its ranks sleep 0.3 s of the 1 s that the watchdog gives them
}
waits() {
    try 4 hang_stopped 124 1 \
        '^moetrain: rank [013] \([^)]+\) step 7 moe\.dispatch: collective 93 \(barrier\) did not comp'
    try 4 hang_skipped 124 1 '^moetrain: rank [013] \([^)]+\): collective 94 \(barrier\)'
    try 4 stop_twice 75 1 '^moetrain: stopped at once by a second signal'
}
deaths() {
    try 4 abort_one 4 1 \
        "^moetrain: $where step 12 moe\\.dispatch: no room; room was expected; make room\$"
    try 4 assert_one 1 1 "^moetrain: $where: internal error in assert_one: '!is_odd_rank\\(\\)'"
    if ! grep -qE "__[at]san_init" "$program"; then # sanitizers tell of crashes themselves
        try 4 crash_one 1 1 "^moetrain: $where step 12 moe\\.dispatch: crashed with signal 11 \\(SIGSEGV, .*in moetrain\\+0x"
        try 1 crash_one 1 1 '^moetrain: step 12 moe\.dispatch: crashed with signal 11'
        try 4 give_up_one 1 1 "^moetrain: $where step 12 moe\\.dispatch: crashed with signal 6 \\(SIGABRT"
    fi
    try 1 abort_one 4 1 '^moetrain: step 12 moe\.dispatch: no room'
    try 1 assert_one 1 1 '^moetrain: internal error in assert_one'
}
others() {
    try 4 done 0 0 ''
    try 4 agree_all 2 2 '^moetrain: file\.toml:3:1: bad key$'
    try 4 agree_some 3 1 '^moetrain: rank 1 \([^)]+\): shard 1 is short; -; -$'
    try 4 check_same 2 1 '^moetrain: the resolved configuration of rank 2 differs'
    try 4 assert_all 1 1 '^moetrain: rank [0-3] \([^)]+\): internal error'
    try 4 assert_before_init 1 1 '^moetrain: internal error in main'
    try 4 mpi_error 1 1 '^moetrain: MPI_Bcast failed: MPI_ERR_ROOT'
    try 4 stop_once 75 0 ''
    try 4 fail_unspoken 5 1 '^moetrain: rank [0-3] \([^)]+\): loss is NaN'
    try 4 no_such_ending 2 1 "^moetrain: no ending is called 'no_such_ending'"

    # All ranks fail at once, each with its own code: the code is that of the rank that spoke.
    for _ in 1 2 3 4 5; do
        case_name="abort_all on 4 ranks"
        run_mpi 4 abort_all
        ended "$(sed -n 's/.*: code \([0-9]*\);.*/\1/p' err.txt | head -n 1)" 1 '^moetrain: rank'
        echo "done $case_name"
    done

    # A stop request that reaches mpirun is passed to the ranks, and they end by themselves.
    case_name="SIGUSR1 to mpirun"
    timeout -k 5 60 "$MPIRUN" "${flags[@]}" -np 4 "$program" stop_by_others "$mark" \
        >out.txt 2>err.txt &
    runner=$!
    for _ in $(seq 100); do
        grep -q running out.txt && break
        sleep 0.1
    done
    kill -USR1 "$(pgrep -P "$runner")"
    wait "$runner"
    code=$?
    ended 75 0 ''
    echo "done $case_name"

    # Without mpirun.
    single done 0 0 ''
    single abort_one 4 1 '^moetrain: step 12 moe\.dispatch: no room'
    single agree_all 2 2 '^moetrain: file\.toml:3:1: bad key$'
    single assert_one 1 1 '^moetrain: internal error'
    single assert_before_init 1 1 '^moetrain: internal error'
    single fail_without_mpi 2 1 '^moetrain: bad usage'
    single stop_once 75 0 ''
    single stop_twice 75 1 '^moetrain: stopped at once'
}

# lane NAME: its cases; ranks that are left are looked for by its own mark.
lane() {
    mark=moetrain-endings-$$-$1
    "$1"
    return $bad
}
lane alone || fail "a sound job was ended, or too late"
for name in waits deaths others; do
    beside lane $name
done
together
