#!/usr/bin/env bash
# 64 ranks train 5 steps with 64 experts, and agree with one rank.
. "$(dirname "$0")/../support/run.sh"
rm -rf one many
config=$MT_SOURCE/configs/many-experts.toml
ranks 64 "$config" --run-dir many --quiet --set train.steps=5 --set 'moe.balance.window="exact"' || fail "64 ranks ended with $?"
metrics steps many/metrics.jsonl 1 5
ranks 1 "$config" --run-dir one --quiet --set train.steps=5 --set 'moe.balance.window="exact"' || fail "1 rank ended with $?"
metrics close one/metrics.jsonl many/metrics.jsonl 1e-6 1e-4
# A mistake on 64 ranks is one message as well.
expect 2 'unknown key' ranks 64 "$config" --run-dir many --set train.stepz=5
