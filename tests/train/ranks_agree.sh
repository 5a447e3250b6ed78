#!/usr/bin/env bash
# The same 20 steps on R = 1, 2, 3, 4, 8: first loss and gradient norm within 1e-6 relative, all losses
# within 1e-4; micro-batches of 1 and of 8 sequences, uneven shares (8 sequences on 3 ranks), 8 experts on 3.
. "$(dirname "$0")/../support/run.sh"
rm -rf r*
train() { # NAME RANKS MICRO ARGUMENTS
    local name=$1 n=$2 micro=$3
    shift 3
    ranks "$n" "$config" --run-dir "$name" --quiet --set train.micro_batch_size="$micro" \
        --set 'moe.balance.window="exact"' --set moe.balance.loss_coef=0.05 \
        --set moe.balance.z_loss_coef=0.01 "$@" || fail "$name ended with $?"
}
train r1 1 8
for n in 1 2 3 4 8; do
    for micro in 1 8; do
        [ "$n.$micro" = 1.8 ] && continue
        train "r$n.$micro" "$n" "$micro"
        metrics close r1/metrics.jsonl "r$n.$micro/metrics.jsonl" 1e-6 1e-4
    done
done
# The other windows where they promise the same: `lagged` for any split; `micro` and `running` do not.
train l1 1 8 --set 'moe.balance.window="lagged"'
train l3 3 2 --set 'moe.balance.window="lagged"'
metrics close l1/metrics.jsonl l3/metrics.jsonl 1e-6 1e-4
# Everything at once: shared expert, leading dense layer, QK-norm, tied head, top-1 without renormalising.
variant=(--set 'model.qk_norm="head"' --set model.first_k_dense=1 --set model.dense_intermediate_size=48
    --set moe.num_shared_experts=1 --set model.tie_word_embeddings=true --set moe.normalize_top_k=false
    --set moe.top_k=1 --set train.steps=10)
train v1 1 8 "${variant[@]}"
train v3 3 2 "${variant[@]}"
metrics close v1/metrics.jsonl v3/metrics.jsonl 1e-6 1e-4
# Two-level sums: two nodes of two ranks.
train n4 4 2 --set comm.ranks_per_node=2
metrics close r1/metrics.jsonl n4/metrics.jsonl 1e-6 1e-4
