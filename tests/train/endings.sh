#!/usr/bin/env bash
# The endings of a training run: divergence, a stuck rank, a killed rank, stop signals, a used directory,
# a locked directory, a full disk. In lanes: most of it waits, for a watchdog or a paced step.
. "$(dirname "$0")/../support/run.sh"
rm -rf run* beside.* start.*
slow=(--set train.steps=4000 --set device.pace_gflops=0.5 --quiet)

# begin RUN RANKS ARGUMENTS: in the background, until some steps are done.
begin() {
    local run=$1 n=$2
    shift 2
    start "$n" "$config" --run-dir "$run" "${slow[@]}" "$@"
    wait_for_steps "$run" 2
}
finish() { # CODE TEXT RUN: one message with TEXT
    wait $pid
    local got=$?
    [ $got = "$1" ] || fail "$3: expected code $1, got $got: $(head -c 600 start.err)"
    [ "$(grep -c '^moetrain: ' start.err)" = 1 ] || fail "$3: one message expected: $(cat start.err)"
    grep -qE -- "$2" start.err || fail "$3: expected \"$2\" in $(cat start.err)"
    gone "$3"
}
gone() { # RUN: no rank is left
    for _ in $(seq 50); do
        [ -n "$(processes "--run-dir $1 ")" ] || return 0
        sleep 0.1
    done
    fail "$1: ranks are left over: $(pgrep -af -- "--run-dir $1 ")"
}
begin_locally() { # RUN
    BUILD_DIR=$(dirname "$MOETRAIN") env --default-signal=INT setsid bash "$MT_SOURCE/launch/local.sh" 2 "$config" \
        --run-dir "$1" "${slow[@]}" >start.out 2>start.err &
    pid=$!
    wait_for_steps "$1" 2
}
hold_until_the_end() { # reads nothing while the run goes on: some steps in 20 s, however busy the machine
    local before=-1 now=0
    while [ "$now" != "$before" ]; do
        before=$now
        for _ in $(seq 100); do
            grep -qs '"step":3000' run_paused/metrics.jsonl && return 0
            sleep 0.2
        done
        now=$(wc -l <run_paused/metrics.jsonl)
    done
    return 1
}

trouble() {
    # Diverged: the learning rate is absurd; every rank gives up together.
    expect 5 'training diverged.*nonfinite_patience' ranks 3 "$config" --run-dir run_diverged --quiet \
        --set optimizer.lr=1e30 --set optimizer.grad_clip=0.0 --set schedule.warmup_steps=0 \
        --set train.nonfinite_patience=2
    # A stuck rank is found by the watchdog of the others.
    begin run_stuck 3 --set comm.watchdog_seconds=3
    kill -STOP "$(rank_pid run_stuck 2)"
    finish 124 'did not complete within 3 s; .*rank [0-2] has not run for [0-9]+ s' run_stuck
    # The wall-time limit: saved, 75.
    expect 75 "" ranks 2 "$config" --run-dir run_wall "${slow[@]}" --set run.wall_time_minutes=0.05
    # A disk that refuses to take more (here: a quota on the size of files, set while the run goes on).
    begin run_full 2 --set checkpoint.interval=20
    prlimit --fsize=4096:4096 --pid "$(rank_pid run_full 1)"
    prlimit --fsize=4096:4096 --pid "$(rank_pid run_full 2)"
    finish 4 'cannot write .*run_full' run_full
}
reader() {
    # A reader that takes nothing any more (a pager, Ctrl-S) does not stop the run: only lines are lost.
    mpirun "${mpirun_flags[@]}" -np 2 "$MOETRAIN" "$config" --run-dir run_paused --set train.steps=3000 \
        --set comm.watchdog_seconds=8 2>start.err | hold_until_the_end ||
        fail "a paused reader stopped the run: $(head -c 600 start.err)"
}
signals() {
    # A killed rank ends the job.
    begin run_killed 3
    kill -KILL "$(rank_pid run_killed 2)"
    wait $pid && fail "a killed rank went unnoticed"
    gone run_killed
    # SIGTERM to one rank: saved, 75.
    begin run_term 2
    kill -TERM "$(rank_pid run_term 1)"
    wait $pid
    code=$?
    [ $code = 75 ] || fail "expected 75 after SIGTERM to a rank, got $code: $(cat start.err)"
    [ "$(ls run_term/checkpoints | wc -l)" = 1 ] || fail "no checkpoint after SIGTERM"
    # Ctrl-C in a terminal, which reaches a whole process group: saved, 75. launch/local.sh killed: its ranks end as well.
    begin_locally run_interrupted
    kill -INT -- -$pid
    wait $pid
    code=$?
    [ $code = 75 ] && [ ! -s start.err ] || fail "expected 75 after Ctrl-C, got $code: $(cat start.err)"
    [ "$(ls run_interrupted/checkpoints | wc -l)" = 1 ] || fail "no checkpoint after Ctrl-C"
    begin_locally run_orphaned
    kill -KILL $pid
    wait $pid 2>/dev/null
    gone run_orphaned
}
directories() {
    # A directory in use, a directory that was used.
    begin run_locked 2
    expect 2 'run_locked is in use by host .*pid [0-9]+' ranks 2 "$config" --run-dir run_locked --quiet
    kill -USR1 $pid
    wait $pid
    expect 2 'has been used' ranks 2 "$config" --run-dir run_locked --quiet --resume never
    # The checkpoint of a stopped run is whole.
    "$MOETRAIN" verify run_locked/checkpoints/step-* >/dev/null || fail "verify: $?"
}

for lane in trouble reader signals directories; do
    beside $lane
done
together
