#!/usr/bin/env bash
# A trace recorded from a run tells every step's rows per expert; replayed, it gives the same loads on any number
# of ranks; resumed, it goes on where it was; `plan` reads it.
. "$(dirname "$0")/../support/run.sh"
rm -rf run* trace.*
train() { # NAME RANKS ARGUMENTS
    local name=$1 n=$2
    shift 2
    ranks "$n" "$config" --run-dir "$name" --quiet --set train.global_batch_size=64 --set train.micro_batch_size=8 "$@" ||
        fail "$name ended with $?"
}
skewed=(--set 'moe.routing="synthetic"' --set 'moe.workload="hot_rank"' --set moe.skew=2.0 --set 'placement.policy="ep"')
for ending in csv jsonl h5; do
    train "run.$ending" 4 "${skewed[@]}" --set train.steps=6 --set "moe.trace=\"trace.$ending\""
done
# Stopped after 3 steps and gone on: the same trace.
more=(--set checkpoint.interval=3 --set 'moe.trace="trace.two.csv"')
train run.two 4 "${skewed[@]}" --set train.steps=3 "${more[@]}"
train run.two 4 "${skewed[@]}" --set train.steps=6 "${more[@]}"
cmp trace.csv trace.two.csv || fail "a resumed run recorded another trace"
# Replayed on other ranks: every expert's share as recorded, within what drawing tokens leaves (4096 rows a layer).
for n in 2 3; do
    train "run.replay.$n" "$n" --set 'moe.routing="replay"' --set 'moe.trace="trace.csv"' --set train.steps=6 \
        --set 'placement.policy="ep"'
    python3 - "run.csv/metrics.jsonl" "run.replay.$n/metrics.jsonl" <<'PY' || fail "loads on $n ranks differ"
import json, sys
loads = [[l["expert_load_max_over_mean"] for l in map(json.loads, open(p)) if "loss" in l] for p in sys.argv[1:]]
assert len(loads[0]) == len(loads[1]) == 6 and max(loads[0]) > 1.5, loads
assert all(abs(a - b) < 0.1 * a for a, b in zip(*loads)), loads
PY
done
# The wanted skew of the busiest rank, and what plan makes of the trace.
python3 - run.csv/metrics.jsonl <<'PY' || fail "the skew is not the wanted one"
import json, sys
load = [l["rank_load_max_over_mean"] for l in map(json.loads, open(sys.argv[1])) if "loss" in l]
assert all(1.8 < x < 2.2 for x in load), load
PY
for ending in csv jsonl h5; do
    "$MOETRAIN" plan "$config" --ranks 4 --trace "trace.$ending" >"plan.$ending" || fail "plan refused trace.$ending"
done
grep -q adaptive plan.csv || fail "plan says nothing of adaptive"
echo ok
