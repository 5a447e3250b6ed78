#!/usr/bin/env bash
# What runs leave in profile/: one that ends, one that is asked for its window, one that is killed and resumed, one that
# hangs, one that records nothing. The slow ones, which sleep, go on beside the others.
. "$(dirname "$0")/../support/run.sh"
rm -rf run* beside.*
findings() { "$MT_BUILD/tests/profile/find_windows" "$1" 0 "$2" || fail "$1 cannot be read"; }
# steps RUN RANK KIND: the steps of which the file has lines of this kind (step, waits or spans), one a line
steps() {
    python3 -S - "$1/profile/rank-0000$2.jsonl" "$3" <<'PY'
import json, sys
for text in open(sys.argv[1], errors="replace"):
    try:
        line = json.loads(text)
    except ValueError:
        continue
    if sys.argv[2] in line:
        print(line[sys.argv[2]])
PY
}
has_step() { [ -n "$(steps "$1" "$2" "$3" | grep -x "$4")" ] || fail "$1: rank $2 has no line '$3' of step $4"; }
slow=(--set device.pace_gflops=0.5 --quiet)

# Asked by SIGUSR2, through mpirun: the window as it is then, of every rank; the run goes on.
asked() {
    start 2 "$config" --run-dir run_asked "${slow[@]}" --set train.steps=4000 --set profile.window=12
    wait_for_steps run_asked 75
    kill -USR2 $pid
    for _ in $(seq 100); do
        [ -n "$(steps run_asked 1 spans | awk '$1 >= 60')" ] && break
        sleep 0.1
    done
    [ "$(steps run_asked 1 spans | awk '$1 >= 60 && $1 < 100' | wc -l)" -ge 12 ] || fail "SIGUSR2 left no window"
    n=$(grep -c '"loss"' run_asked/metrics.jsonl)
    wait_for_steps run_asked $((n + 20))
    # Killed: what it left can be read.
    kill -KILL "$(rank_pid run_asked 2)"
    wait $pid && fail "a killed rank went unnoticed"
    findings run_asked 20 | grep -q finding || fail "a killed run has no finding line"
}
# And a resumed run goes on below it.
resumed() {
    start 2 "$config" --run-dir run_resumed "${slow[@]}" --set train.steps=60 --set checkpoint.interval=10
    wait_for_steps run_resumed 23
    kill -KILL "$(rank_pid run_resumed 1)"
    wait $pid
    ranks 2 "$config" --run-dir run_resumed "${slow[@]}" --set train.steps=60 --set checkpoint.interval=10 || fail "resume: $?"
    # A killed rank takes the lines with it that it had not written yet: steps before the checkpoint may be missing.
    [ "$(findings run_resumed 40 | wc -l)" = 1 ] || fail "the resumed run has not its steps in one"
    [ "$(findings run_resumed 61 | wc -l)" = 0 ] || fail "the resumed run has steps twice"
    for step in 21 40 60; do has_step run_resumed 1 step $step; done
}
# Hangs: the watchdog's last words are the window, of a rank that could not go on itself.
hangs() {
    start 3 "$config" --run-dir run_stuck "${slow[@]}" --set train.steps=4000 --set comm.watchdog_seconds=3
    wait_for_steps run_stuck 30
    kill -STOP "$(rank_pid run_stuck 2)"
    wait $pid
    [ $? = 124 ] || fail "the watchdog did not end the run: $(head -c 300 start.err)"
    n=0
    for rank in 0 1 2; do
        [ -n "$(steps run_stuck $rank spans | awk '$1 > 25')" ] && n=$((n + 1))
    done
    [ $n -ge 1 ] || fail "no rank left its last window"
    findings run_stuck 20 | grep -q finding || fail "a stuck run has no finding line"
}
for part in asked resumed hangs; do
    beside $part
done

# Ended: sums of every step, arrivals, spans of the traced step and of the last ones, the same steps on all ranks.
ranks 3 "$config" --run-dir run_ended --quiet "${costs[@]}" --set train.steps=25 --set 'profile.trace_steps=[12]' || fail "run_ended: $?"
for rank in 0 1 2; do
    [ "$(steps run_ended $rank step | wc -l)" = 25 ] || fail "rank $rank has not 25 steps"
    has_step run_ended $rank spans 12
    has_step run_ended $rank spans 25
    has_step run_ended $rank end True
    steps run_ended $rank waits >"waits.$rank"
    cmp waits.0 "waits.$rank" || fail "ranks left arrivals of different steps"
done
[ -z "$(steps run_ended 1 spans | grep -x 15)" ] || fail "step 15 was traced by nobody's wish"
findings run_ended 25 >/dev/null

# Off: no folder, and the run is the same to the bit.
ranks 3 "$config" --run-dir run_off --quiet "${costs[@]}" --set train.steps=25 --set profile.enabled=false || fail "run_off: $?"
[ ! -e run_off/profile ] || fail "profile.enabled = false leaves a folder"
metrics same run_ended/metrics.jsonl run_off/metrics.jsonl
together
