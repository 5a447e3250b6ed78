#!/usr/bin/env bash
# A stopped run goes on as if it had not been stopped, bit for bit, under every policy that remembers something:
# owners that moved, copies that stay, recent loads. And a checkpoint of one policy goes on under any other.
. "$(dirname "$0")/../support/run.sh"
rm -rf whole* parts* cross*
common=(--quiet "${costs[@]}" --set model.init_std=0.3 --set placement.reshard_interval=3 --set placement.slots=2
    --set schedule.decay_steps=20 --set checkpoint.interval=5
    --set checkpoint.keep=100 --set train.micro_batch_size=1)

train() { # NAME STEPS POLICY ARGUMENTS
    local name=$1 steps=$2 policy=$3
    shift 3
    ranks 4 "$config" --run-dir "$name" "${common[@]}" --set train.steps="$steps" --set "placement.policy=\"$policy\"" "$@" ||
        fail "$name ended with $?"
}

for policy in smartmoe flexmoe eplb fssdp adaptive; do
    train "whole.$policy" 10 "$policy" --set placement.rematerialize=false
    train "parts.$policy" 5 "$policy" --set placement.rematerialize=false
    train "parts.$policy" 10 "$policy" --set placement.rematerialize=false
    metrics same "whole.$policy/metrics.jsonl" "parts.$policy/metrics.jsonl"
done
for policy in ep fsdp fssdp adaptive; do
    cp -r parts.eplb "cross.$policy"
    rm -rf "cross.$policy/checkpoints/step-00000010"
    train "cross.$policy" 10 "$policy" --set 'placement.slots="auto"'
    metrics close whole.eplb/metrics.jsonl "cross.$policy/metrics.jsonl" 0 1e-6
done
echo ok
