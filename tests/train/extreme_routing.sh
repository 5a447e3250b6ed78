#!/usr/bin/env bash
# A rank without tokens, more ranks than experts, an expert with all tokens, experts with none: right and
# finite on any number of ranks.
. "$(dirname "$0")/../support/run.sh"
rm -rf x*
train() { # NAME RANKS ARGUMENTS
    local name=$1 n=$2
    shift 2
    ranks "$n" "$config" --run-dir "$name" --quiet --set train.steps=8 \
        --set 'moe.balance.window="exact"' "$@" || fail "$name ended with $?"
    metrics finite "$name/metrics.jsonl"
}
pair() { # NAME RANKS ARGUMENTS: against one rank
    local name=$1 n=$2
    shift 2
    train "x1$name" 1 "$@"
    train "x$n$name" "$n" "$@"
    metrics close "x1$name/metrics.jsonl" "x$n$name/metrics.jsonl" 1e-6 1e-4
}
pair few 5 --set train.global_batch_size=2                  # three ranks without tokens
pair one 3 --set moe.num_experts=1 --set moe.top_k=1        # all tokens to one expert, two ranks own none
pair two 3 --set moe.num_experts=2 --set moe.top_k=2        # every expert gets every token
pair wide 4 --set moe.num_experts=48 --set moe.top_k=1      # experts without tokens
python3 - <<'PY' || fail "expected experts without tokens"
import json
assert any(json.loads(l).get("dead_experts", 0) > 0 for l in open("x4wide/metrics.jsonl"))
PY
