#!/usr/bin/env bash
# A stopped run goes on as if it had not been stopped, bit for bit, under every policy that remembers something:
# owners that moved, copies that stay, recent loads. And a checkpoint of one policy goes on under any other.
. "$(dirname "$0")/../support/run.sh"
rm -rf whole* parts* cross* eval*
common=(--quiet "${costs[@]}" --set model.init_std=0.3 --set placement.reshard_interval=3 --set placement.slots=2
    --set schedule.decay_steps=20 --set checkpoint.interval=5
    --set checkpoint.keep=100 --set train.micro_batch_size=1)

train() { # NAME STEPS POLICY ARGUMENTS
    local name=$1 steps=$2 policy=$3
    shift 3
    ranks 4 "$config" --run-dir "$name" "${common[@]}" --set train.steps="$steps" --set "placement.policy=\"$policy\"" "$@" ||
        fail "$name ended with $?"
}

for policy in smartmoe flexmoe eplb fssdp fsep adaptive; do
    train "whole.$policy" 10 "$policy" --set placement.rematerialize=false
    train "parts.$policy" 5 "$policy" --set placement.rematerialize=false
    train "parts.$policy" 10 "$policy" --set placement.rematerialize=false
    metrics same "whole.$policy/metrics.jsonl" "parts.$policy/metrics.jsonl"
done
for policy in ep fsdp fssdp fsep adaptive; do # fsep cuts experts whose owners had moved
    cp -r parts.eplb "cross.$policy"
    rm -rf "cross.$policy/checkpoints/step-00000010"
    train "cross.$policy" 10 "$policy" --set 'placement.slots="auto"'
    metrics close whole.eplb/metrics.jsonl "cross.$policy/metrics.jsonl" 0 1e-6
done

# What other policies would have cost, which live on their own past, is the same as well.
for name in whole parts; do
    [ $name = whole ] || train $name.shadow 5 quota --set placement.shadow=true
    train $name.shadow 10 quota --set placement.shadow=true
done
python3 -c 'import json
def shadow(run):
    lines = [json.loads(line) for line in open(run + ".shadow/metrics.jsonl")]
    return {line["step"]: line["placement"]["shadow"] for line in lines if "placement" in line}
whole, parts = shadow("whole"), shadow("parts")
assert len(whole) == 10 and len(whole[10]) >= 10, whole
assert all(whole[step] == parts[step] for step in whole), (whole, parts)' || fail "shadow policies forget"

# Experts that were cut go on whole, and are evaluated either way.
"$MOETRAIN" verify parts.fsep/checkpoints/step-00000005 >/dev/null || fail "cut experts do not verify"
for policy in ep eplb; do
    cp -r parts.fsep "cross.fsep.$policy"
    rm -rf "cross.fsep.$policy/checkpoints/step-00000010"
    train "cross.fsep.$policy" 10 "$policy"
    metrics close whole.fsep/metrics.jsonl "cross.fsep.$policy/metrics.jsonl" 0 1e-6
done
for policy in ep fsep; do
    ranks 3 eval "$config" --run-dir whole.fsep --set "placement.policy=\"$policy\"" >"eval.$policy" ||
        fail "evaluation under $policy ended with $?"
done
python3 -c 'import json
ep, fsep = (json.load(open("eval." + name))["eval_loss"] for name in ("ep", "fsep"))
assert abs(ep - fsep) <= 1e-6 * ep, (ep, fsep)' || fail "cut experts evaluate otherwise"
echo ok
