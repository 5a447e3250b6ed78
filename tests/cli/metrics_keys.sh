#!/usr/bin/env bash
# Every line of metrics.jsonl has the keys that are promised, of the right types; mfu is a number only
# where a peak is known.
. "$(dirname "$0")/refuse.sh"
rm -rf plain paced full text.txt full.toml
small=("$config" --quiet --set train.steps=3 --set train.eval_interval=2)
expect 0 "" ranks 2 "${small[@]}" --run-dir plain --set model.num_layers=3 --set model.first_k_dense=1 \
    --set model.dense_intermediate_size=32
expect 0 "" ranks 2 "${small[@]}" --run-dir paced --set device.pace_gflops=1.0
python3 "$MT_SOURCE/tests/cli/metrics_keys.py" types plain/metrics.jsonl paced/metrics.jsonl ||
    fail "metrics.jsonl"
# docs/metrics.md names every key and no other: those above, and what options add.
seq 4000 >text.txt
sed 's/^format = "random"/train = ["text.txt", "text.txt"]\nweights = [1, 2]\nvalidation_sets = { a = ["text.txt"] }/' \
    "$config" >full.toml
expect 0 "" ranks 2 full.toml --run-dir full "${small[@]:1}" "${costs[@]}" --set checkpoint.interval=2 \
    --set placement.shadow=true --set 'placement.policy="fssdp"'
python3 "$MT_SOURCE/tests/cli/metrics_keys.py" documented "$MT_SOURCE" {plain,paced,full}/metrics.jsonl ||
    fail "docs/metrics.md"
