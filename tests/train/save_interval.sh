#!/usr/bin/env bash
# checkpoint.max_overhead_percent: a run whose saves may cost next to nothing saves less often than its
# interval says, tells so, and still at its end; the numbers of the training are the same.
. "$(dirname "$0")/../support/run.sh"
rm -rf run*
saves() { grep -c '^checkpoint ' "$1/run.log"; }
for percent in 0.001 0.0; do
    ranks 2 "$config" --run-dir run$percent --quiet "${costs[@]}" --set train.steps=40 --set checkpoint.interval=2 \
        --set checkpoint.max_overhead_percent=$percent || fail "$percent percent: $?"
done
[ "$(saves run0.001)" = 2 ] || fail "saved $(saves run0.001) times: $(grep -E '^(checkpoint|a save)' run0.001/run.log)"
grep -q 'one in [0-9]* steps from here' run0.001/run.log || fail "nothing was said of it"
[ -d run0.001/checkpoints/step-00000040 ] || fail "the last step was not saved"
[ "$(saves run0.0)" = 20 ] || fail "saved $(saves run0.0) times, not every other step"
# Without an interval the limit alone decides; the first step is a save, which shows what one costs.
ranks 2 "$config" --run-dir run --quiet "${costs[@]}" --set checkpoint.max_overhead_percent=0.001 || fail "no interval: $?"
ls run/checkpoints | tr '\n' ' ' | grep -q 'step-00000001 step-00000020' || fail "saved $(ls run/checkpoints)"
metrics same <(sed 1,1d run0.001/metrics.jsonl) <(sed 1,1d run0.0/metrics.jsonl)
echo ok
