#!/usr/bin/env bash
# Training on the emulated device against the CPU, beyond the suite's time: every policy and exchange, halves,
# recomputation, documents, bfloat16, and the first steps of the quickstart on 1, 2 and 4 ranks:
#   tests/emulation/train_long.sh BUILD_DIR [quickstart|parts]
# Prints a line a run: the largest relative difference of a loss, and of a gradient norm. Some minutes of processor time.
set -u
build=$(realpath "${1:?usage: tests/emulation/train_long.sh BUILD_DIR}")
which=${2:-all}
MT_SOURCE=$(realpath "$(dirname "$0")/../..")
MOETRAIN=$build/moetrain
folder=$(mktemp -d)
cd "$folder" || exit 1
trap 'rm -rf "$folder"' EXIT
. "$MT_SOURCE/tests/support/run.sh"
module=$build/tests/emulation/libmoetrain_emulated.so
n_failed=0

difference() { # BOUND
    python3 - "$1" <<'PY'
import json, sys
cpu, gpu = ([json.loads(line) for line in open(f"{name}/metrics.jsonl")] for name in ("cpu", "gpu"))
cpu, gpu = ([line for line in lines if "loss" in line] for lines in (cpu, gpu))
assert len(cpu) == len(gpu) > 0
largest = [max(abs(a[key] - b[key]) / abs(a[key]) for a, b in zip(cpu, gpu)) for key in ("loss", "grad_norm")]
print(f"{len(cpu)} steps, loss {largest[0]:.1e}, norm {largest[1]:.1e}", "" if largest[0] <= float(sys.argv[1]) else "FAILED")
sys.exit(largest[0] > float(sys.argv[1]))
PY
}

compare() { # NAME BOUND RANKS CONFIG ARGUMENTS...
    local name=$1 bound=$2 n=$3 file=$4
    shift 4
    rm -rf cpu gpu
    printf '%-44s %d ranks  ' "$name" "$n"
    if ranks "$n" "$file" --run-dir cpu --quiet "${costs[@]}" --set checkpoint.interval=0 "$@" >cpu.txt 2>&1 &&
        MT_CUDA_MODULE=$module ranks "$n" "$file" --run-dir gpu --quiet "${costs[@]}" --set checkpoint.interval=0 \
            --set 'device.kind="cuda"' "$@" >gpu.txt 2>&1 && difference "$bound"; then
        return
    fi
    tail -qc 400 cpu.txt gpu.txt 2>/dev/null
    n_failed=$((n_failed + 1))
}

tiny() { # NAME RANKS ARGUMENTS...
    local name=$1 n=$2
    shift 2
    compare "$name" 1e-4 "$n" "$config" --set train.steps=3 --set model.num_layers=2 --set train.global_batch_size=4 "$@"
}

if [ "$which" != quickstart ]; then
    tiny "micro-batches, window exact" 1 --set train.micro_batch_size=1 --set 'moe.balance.window="exact"'
    for recompute in attention layer; do
        tiny "recompute $recompute" 1 --set "train.recompute=\"$recompute\"" --set moe.num_shared_experts=1
    done
    tiny "dense layer, biases, qk_norm projection" 1 --set model.first_k_dense=1 --set model.dense_intermediate_size=32 \
        --set model.attention_bias=true --set 'model.qk_norm="projection"'
    tiny "most tokens to few experts" 2 --set 'moe.routing="synthetic"' --set 'moe.workload="hot_set"' --set moe.skew=4.0
    for policy in fssdp fsep fsdp least_loaded quota fastermoe smartmoe flexmoe eplb adaptive; do
        tiny "policy $policy" 2 --set "placement.policy=\"$policy\""
    done
    for exchange in direct hierarchical leader deduplicated; do
        tiny "exchange $exchange, 2 nodes, halves" 4 --set comm.ranks_per_node=2 --set "comm.all_to_all=\"$exchange\"" \
            --set 'comm.overlap="on"' --set train.global_batch_size=8
    done
    tiny "3 ranks, one without tokens" 3 --set train.global_batch_size=2 --set 'placement.policy="fssdp"'
    for recompute in none layer; do
        tiny "shared experts aside, halves, recompute $recompute" 2 --set comm.ranks_per_node=1 --set moe.num_shared_experts=1 \
            --set moe.shared_gate=true --set "train.recompute=\"$recompute\""
    done
    tiny "shared experts, most tokens to few experts" 4 --set moe.num_shared_experts=1 --set 'train.recompute="layer"' \
        --set 'moe.routing="synthetic"' --set 'moe.workload="hot_set"' --set moe.skew=4.0 --set 'placement.policy="ep"'
    tiny "shared experts, 3 ranks, one without tokens" 3 --set train.global_batch_size=2 --set moe.num_shared_experts=1
    compare "bfloat16" 1e-2 1 "$config" --set train.steps=3 --set 'device.dtype="bfloat16"'
    cat "$MT_SOURCE"/docs/*.md >text.txt
    compare "bfloat16, a curve on text" 1e-2 1 "$config" --set train.steps=150 --set 'device.dtype="bfloat16"' \
        --set 'data.format="bytes"' --set 'data.train=["text.txt"]' --set 'data.validation=[]'
fi
if [ "$which" != parts ]; then
    cat "$MT_SOURCE"/docs/*.md >text.txt
    cp "$MT_SOURCE/configs/quickstart.toml" .
    for n in 1 2 4; do
        compare "quickstart" 1e-4 "$n" quickstart.toml --set 'data.train=["text.txt"]' \
            --set 'data.validation=[]' --set train.steps="${MT_STEPS:-3}" --set train.eval_interval=0
    done
fi
[ "$n_failed" = 0 ] || fail "$n_failed runs"
