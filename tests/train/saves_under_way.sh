#!/usr/bin/env bash
# Saves under the following steps change nothing: not the run, not the files, not what a run that was killed
# or stopped in the middle of a save goes on to do. And a checkpoint that no start survives is left for the one before.
. "$(dirname "$0")/../support/run.sh"
rm -rf whole waited overtaking killed stopped failed
train() { # NAME ARGUMENTS
    local name=$1
    shift
    ranks 2 "$config" --run-dir "$name" --quiet "${costs[@]}" "${set[@]}" "$@"
}
same_shards() { # RUN RUN STEP
    for file in "$1/checkpoints/step-000000$3"/shard-*.h5; do
        cmp "$file" "${file/#$1/$2}" || fail "checkpoints of $1 and $2 differ at step $3"
    done
}
set=(--set train.steps=40 --set checkpoint.interval=2)
train whole || fail "whole ended with $?"
train waited --set checkpoint.async=false || fail "waited ended with $?"
metrics same whole/metrics.jsonl waited/metrics.jsonl
same_shards whole waited 38
same_shards whole waited 40
# A save a step: each finds the one before it still going on, since that takes two meetings of the ranks after steps,
# waits for it, and is counted.
train overtaking --set train.steps=6 --set checkpoint.interval=1 || fail "overtaking ended with $?"
python3 - <<'PY' || fail "saves that waited were not counted"
import json
lines = [line for line in map(json.loads, open("overtaking/metrics.jsonl")) if "loss" in line]
counts = [(line["checkpoint_s"]["overtaken"], line["checkpoint_s"]["saved"]) for line in lines]
assert counts == [(0, 0), (0, 0), (1, 1), (2, 2), (3, 3), (4, 4)], counts
PY
# Killed while saves are going on - with one every other step there always is one - then on to the end.
pids() { pgrep -f -- "^$MOETRAIN .*--run-dir $1 "; }
for steps in 3 8 15; do
    rm -rf killed
    start 2 "$config" --run-dir killed --quiet "${costs[@]}" "${set[@]}" --set device.pace_gflops=1.0
    wait_for_steps killed $steps
    # shellcheck disable=SC2046
    kill -KILL $(pids killed)
    wait $pid
    train killed || fail "after a kill near step $steps: $?"
    metrics same whole/metrics.jsonl killed/metrics.jsonl
    same_shards whole killed 40
done
# Stopped while a save is going on: 75, and what is there is whole.
start 2 "$config" --run-dir stopped --quiet "${costs[@]}" "${set[@]}" --set device.pace_gflops=1.0
wait_for_steps stopped 6
kill -USR1 $pid
wait $pid
code=$?
[ $code = 75 ] || fail "expected 75 after SIGUSR1, got $code"
[ -z "$(find stopped/checkpoints -name '.*.tmp')" ] || fail "a save was left: $(ls -A stopped/checkpoints)"
for path in stopped/checkpoints/step-*; do
    "$MOETRAIN" verify "$path" >/dev/null || fail "$path does not verify"
done
train stopped || fail "stopped ended with $?"
metrics same whole/metrics.jsonl stopped/metrics.jsonl
same_shards whole stopped 40

# Starts that are killed before their first step are counted; those that end in order are not.
rm -rf failed && cp -r whole failed && rm -r failed/checkpoints/step-00000040
cp -r waited/checkpoints/step-00000040 failed/checkpoints/
set=(--set train.steps=60 --set checkpoint.interval=0)
start 2 "$config" --run-dir failed --quiet "${costs[@]}" "${set[@]}" --set device.pace_gflops=0.00001
for _ in $(seq 200); do
    [ -s failed/checkpoints/attempts ] && break
    sleep 0.1
done
# shellcheck disable=SC2046
kill -KILL $(pids failed)
wait $pid
[ "$(cat failed/checkpoints/attempts)" = "step-00000040 1" ] || fail "a start that was killed was not counted"
expect 2 'model.hidden_size: 32 -> 40' ranks 2 "$config" --run-dir failed --quiet --set model.hidden_size=40
[ "$(cat failed/checkpoints/attempts)" = "step-00000040 1" ] || fail "a refused start was counted"
# After the third the next start takes the one before, and tells.
echo "step-00000040 3" >failed/checkpoints/attempts
train failed || fail "after three failed starts: $?"
grep -q 'step-00000040 is not used: all of the last starts' failed/run.log || fail "nothing was told"
grep -q 'resumed from failed/checkpoints/step-00000038' failed/run.log || fail "$(grep resumed failed/run.log)"
[ -d failed/checkpoints/step-00000040.failed ] || fail "the failed checkpoint is gone"
[ ! -e failed/checkpoints/attempts ] || fail "attempts are counted although a step was done"
# The last one is never given up.
rm -rf failed && cp -r whole failed && rm -r failed/checkpoints/step-00000038
echo "step-00000040 7" >failed/checkpoints/attempts
train failed || fail "the only checkpoint was given up: $?"
grep -q 'resumed from failed/checkpoints/step-00000040' failed/run.log || fail "not resumed from the only one"
echo ok
