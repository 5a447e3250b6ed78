#!/usr/bin/env bash
# checkpoint.sparse_saves: the training is that of a run without, an end in order loses nothing, and a
# start from a sparse checkpoint says what it has lost, as inspect does.
. "$(dirname "$0")/../support/run.sh"
rm -rf run*
settings=("${costs[@]}" --set placement.policy=\"ep\" --set checkpoint.interval=2 --set checkpoint.keep=20 \
    --set 'schedule.kind="constant"')
train() { ranks 2 "$config" --run-dir "$1" --quiet "${settings[@]}" "${@:2}" || fail "$1 ended with $?"; }
inspect() { "$MOETRAIN" inspect "$1/checkpoints/$2" >inspect.txt || fail "inspect $1 $2: $?"; }

train run_full --set train.steps=14
train run --set train.steps=12 --set checkpoint.sparse_saves=3 # 2 is full, then 10, and 12 as the last
"$MOETRAIN" verify run/checkpoints/step-00000008 >/dev/null || fail "step 8: $?"
mkdir -p run_lost/checkpoints && cp -r run/checkpoints/step-00000008 run_lost/checkpoints
train run --set train.steps=14 --set checkpoint.sparse_saves=3
metrics same run_full/metrics.jsonl run/metrics.jsonl
! grep -q 'are lost' run/run.log || fail "an end in order lost something: $(grep 'are lost' run/run.log)"

# Step 8 has part 3 as of step 2, part 0 of 4, part 1 of 6, part 2 of 8; 4 of the 16 experts in each.
inspect run step-00000008
grep -q 'a start from here loses 48 updates of single experts, the starts before it lost 0' inspect.txt ||
    fail "inspect: $(grep loses inspect.txt)"
grep -q 'part 3     4 experts as of step 2, 6 updates ago' inspect.txt || fail "inspect: $(cat inspect.txt)"
grep -qE '^/model/layers/1/moe/experts/gate_proj +4:3,7  2:0,4  0:1,5  6:2,6$' inspect.txt || fail "inspect: $(cat inspect.txt)"
train run_lost --set train.steps=10 --set checkpoint.sparse_saves=3
grep -q '^48 updates of single experts are lost.* 48 in all of this run so far' run_lost/run.log ||
    fail "run.log: $(cat run_lost/run.log)"
inspect run_lost step-00000010
grep -q 'loses 0 updates of single experts, the starts before it lost 48' inspect.txt || fail "inspect: $(cat inspect.txt)"
echo ok
