#!/usr/bin/env bash
# The same run twice is the same bits: metrics apart from times, and checkpoints. N steps, a stop, N more
# are 2N. On another number of ranks the loaded state is the same and the losses agree.
. "$(dirname "$0")/../support/run.sh"
rm -rf a b c d e
train() { # NAME RANKS ARGUMENTS
    local name=$1 n=$2
    shift 2
    ranks "$n" "$config" --run-dir "$name" --quiet --set checkpoint.interval=10 \
        --set checkpoint.keep=5 --set train.eval_interval=5 "${costs[@]}" "$@"
}
train a 3 || fail "a ended with $?"
train b 3 || fail "b ended with $?"
metrics same a/metrics.jsonl b/metrics.jsonl
for file in a/checkpoints/step-00000020/shard-*.h5; do
    cmp "$file" "${file/#a/b}" || fail "checkpoints differ"
done
# Any number of threads gives the same bits.
for threads in 1 2 3; do
    rm -rf "t$threads"
    ranks 1 "$config" --run-dir "t$threads" --quiet "${costs[@]}" --set device.threads=$threads ||
        fail "$threads threads ended with $?"
    metrics same t1/metrics.jsonl "t$threads/metrics.jsonl"
done
# Stopped after step 10 (by its number of steps), then on to 20.
train c 3 --set train.steps=10 --set 'schedule.kind="constant"' || fail "c ended with $?"
train c 3 --set 'schedule.kind="constant"' || fail "c ended with $?"
train d 3 --set 'schedule.kind="constant"' || fail "d ended with $?"
metrics same c/metrics.jsonl d/metrics.jsonl
metrics steps c/metrics.jsonl 1 20
for file in c/checkpoints/step-00000020/shard-*.h5; do
    cmp "$file" "${file/#c/d}" || fail "resumed checkpoints differ"
done
# Resumed on other ranks: 2 and 4 go on where 3 stopped.
for n in 2 4; do
    rm -rf e && mkdir e && cp -r d/checkpoints e/checkpoints && rm -r e/checkpoints/step-00000020
    train e "$n" --set 'schedule.kind="constant"' || fail "resume on $n ranks ended with $?"
    python3 - <<PY || fail "losses after resuming on $n ranks differ"
import json
read = lambda p: {l["step"]: l["loss"] for l in map(json.loads, open(p)) if "loss" in l}
d, e = read("d/metrics.jsonl"), read("e/metrics.jsonl")
assert sorted(e) == list(range(11, 21)), sorted(e)
assert abs(d[11] - e[11]) / d[11] < 1e-6, (d[11], e[11])
assert all(abs(d[s] - e[s]) / d[s] < 1e-4 for s in e)
PY
done
# A finished run has nothing to do, and its metrics stay.
cp d/metrics.jsonl before.jsonl
expect 0 "" train d 3 --set 'schedule.kind="constant"'
cmp before.jsonl d/metrics.jsonl || fail "a finished run was changed"
# A stop request at any time: saved, code 75, and the whole is the uninterrupted run.
rm -rf f
start 2 "$config" --run-dir f --quiet --set train.steps=400 --set device.pace_gflops=2.0
wait_for_steps f 3
kill -USR1 $pid
wait $pid
code=$?
[ $code = 75 ] || fail "expected 75 after SIGUSR1, got $code"
[ "$(ls f/checkpoints | wc -l)" = 1 ] || fail "no checkpoint after SIGUSR1"
