#!/usr/bin/env bash
# What shadow mode says of a policy is what the policy says of itself when it trains on the same counts: predicted
# time and the busiest rank, step after step, with micro-batches that are not alike, owners that move, copies that
# stay, any split of rows.
. "$(dirname "$0")/../support/run.sh"
rm -rf r.*
common=(--quiet "${costs[@]}" --set train.steps=5 --set placement.shadow=true --set placement.reshard_interval=2
    --set comm.ranks_per_node=2 --set moe.num_experts=9 --set placement.slots=3 --set 'comm.overlap="off"' --set placement.load_window=2)

# Routing is synthetic, so that all runs have the same counts. 11 sequences are 4 + 4 + 3: micro-batches of 3 + 3 + 3
# and of 1 + 1 + 0.
train() { # NAME POLICY ARGUMENTS
    ranks 3 "$config" --run-dir "r.$1.$2" "${common[@]}" --set "placement.policy=\"$2\"" --set train.global_batch_size=11 \
        --set train.micro_batch_size=3 --set 'moe.routing="synthetic"' --set 'moe.workload="burst"' --set moe.skew=2.5 \
        "${@:3}" || fail "$1 under $2 ended with $?"
}
for policy in ep eplb adaptive; do
    train dropped $policy
    train kept $policy --set placement.rematerialize=false --set 'placement.split="settled"'
done
python3 - <<'PY' || fail "shadow mode says something else than the policy"
import json
for name in ("dropped", "kept"):
    runs = {}
    for policy in ("ep", "eplb", "adaptive"):
        lines = [json.loads(line) for line in open(f"r.{name}.{policy}/metrics.jsonl")]
        runs[policy] = [line for line in lines if "loss" in line]
        assert len(runs[policy]) == 5
    assert len({line["placement"]["predicted_s"] for run in runs.values() for line in run}) > 10, "nothing differs"
    for policy, own in runs.items():
        for other in runs:
            for step in range(5):
                if other != policy:
                    said = runs[other][step]["placement"]["shadow"][policy]
                    did = own[step]["placement"] | own[step]
                    for key in said:
                        assert abs(said[key] - did[key]) <= 1e-9 * did[key], (name, policy, other, step, key, said, did)
PY
echo ok
