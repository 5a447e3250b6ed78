#!/usr/bin/env bash
# Sizes that no machine holds: code 4 with the estimate and what there is, without a crash, a hang or the
# memory itself.
. "$(dirname "$0")/refuse.sh"
rm -rf run

# bounded ARGUMENTS...: one rank; fails when it took 1 GiB.
bounded() {
    python3 -c '
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], timeout=60)
used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
sys.exit(code if used < 1024 else f"{used} MiB were resident")' "$MOETRAIN" "$@"
}
too_large() { # KEY=VALUE...: and the message has two figures in GiB
    local set=() value
    for value in "$@"; do
        set+=(--set "$value")
    done
    expect 4 '[0-9] GiB.*[0-9] GiB.*available' bounded "$config" --quiet --run-dir run "${set[@]}"
    said_nothing_else "$@"
}
largest=(model.hidden_size=1048576 model.num_layers=4096 moe.num_experts=65536 model.num_attention_heads=64)
too_large "${largest[@]}"
too_large "${largest[@]}" model.vocab_size=1073741824 model.max_seq_len=16777216 moe.top_k=65536 \
    moe.expert_intermediate_size=1048576 model.num_key_value_heads=64 \
    train.micro_batch_size=16777216 train.global_batch_size=16777216
too_large model.num_layers=4096 moe.num_experts=65536
too_large model.num_layers=4096 moe.num_experts=4096
too_large model.hidden_size=1 model.num_attention_heads=1 model.num_key_value_heads=1 model.head_dim=2 \
    moe.num_experts=65536 model.num_layers=256 train.micro_batch_size=16777216 \
    train.global_batch_size=16777216 model.max_seq_len=16777216
too_large model.hidden_size=1048576 model.num_attention_heads=1024
too_large model.vocab_size=1073741824
too_large moe.expert_intermediate_size=1048576 moe.num_experts=65536
too_large moe.num_shared_experts=65536 moe.expert_intermediate_size=1048576
too_large model.first_k_dense=2 model.dense_intermediate_size=1048576 model.hidden_size=1048576 \
    model.num_attention_heads=1024
too_large train.micro_batch_size=16777216 train.global_batch_size=16777216
too_large model.max_seq_len=16777216

# On three ranks, and in a plan, which needs no memory but must not overflow.
set=()
for value in "${largest[@]}"; do
    set+=(--set "$value")
done
expect 4 '[0-9] GiB.*[0-9] GiB available' ranks 3 "$config" --quiet --run-dir run "${set[@]}"
said_nothing_else
expect 4 'GiB' bounded plan "$config" --ranks 64 "${set[@]}"
said_nothing_else
# More tokens than a 63-bit position in the data counts.
refuse 2 'tokens is out of range; allowed: up to 2\^63 - 1' "$config" --set train.steps=1099511627776 \
    --set train.global_batch_size=16777216 --set model.max_seq_len=16777216
