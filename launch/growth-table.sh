#!/usr/bin/env bash
# Cost as the work grows (docs/performance.md): launch/growth-table.sh [experts|few|fine|tokens|width|ranks ...]
#
# Every row is `moetrain bench step` on configs/bench-cpu.toml with one thing changed. `us/MFLOP` is the step's
# processor time, all ranks, per million FLOPs of the model's count; `ratio` is that over the table's first row.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
steps=${STEPS:-4}
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1

first=""
row() { # LABEL RANKS SETTINGS...
    local label=$1 ranks=$2 set=() setting
    shift 2
    for setting in "$@"; do
        set+=(--set "$setting")
    done
    mpirun -q -np "$ranks" --oversubscribe --allow-run-as-root --bind-to none --mca mpi_yield_when_idle 1 \
        --mca btl_vader_single_copy_mechanism none "$BUILD_DIR/moetrain" bench step "$root/configs/bench-cpu.toml" \
        --json --warm-up 1 --steps "$steps" --set device.threads=1 "${set[@]}" |
        python3 -c '
import json, sys
label, first = sys.argv[1], sys.argv[2]
r = json.load(sys.stdin)
each = r["best_cpu_s"] * r["ranks"] * 1e12 / r["model_flops"]
ratio = each / float(first or each)
print("%-30s %9.2f %9.1f %9.1f %9.1f %8.2f %8.2f %8.3f %9.1f" % (
    label, r["model_flops"] * 1e-9, r["best_step_s"] * 1e3, r["best_cpu_s"] * 1e3,
    r["tokens"] / r["best_step_s"], each, ratio, r["outside_products"], r["peak_bytes"] / 2**20))
print(each, file=sys.stderr)' "$label" "$first" 2>"$each"
    [ -n "$first" ] || first=$(cat "$each")
}
head() {
    first=""
    printf '\n%-30s %9s %9s %9s %9s %8s %8s %8s %9s\n' "$1" GFLOP 'step ms' 'CPU ms' tokens/s us/MFLOP ratio \
        outside 'peak MiB'
}
each=$(mktemp)
trap 'rm -f "$each"' EXIT

experts() { # the same FLOPs; so many tokens that updating 8 times the parameters stays small beside them
    head 'experts of 512, 16384 tokens'
    for n in 8 16 32 64; do
        steps=2 row "$n" 1 moe.num_experts="$n" train.global_batch_size=64
    done
}
few() { # 2048 tokens a step: with more experts, their update and packing take over
    head 'experts of 512, 2048 tokens'
    for n in 8 16 32 64 128 256; do
        row "$n" 1 moe.num_experts="$n"
    done
}
fine() { # the same FLOPs and the same parameters in more, narrower experts
    head 'finer experts, same parameters'
    for n in 8 16 32 64; do
        row "$n of $((4096 / n)), top-$((n / 4))" 1 moe.num_experts="$n" moe.top_k=$((n / 4)) \
            moe.expert_intermediate_size=$((4096 / n))
    done
}
tokens() {
    head 'tokens of a step'
    for n in 1 2 4 8 16 32; do
        row "$((n * 256))" 1 train.global_batch_size="$n" train.micro_batch_size=8
    done
}
width() {
    head 'width, experts twice as wide'
    for n in 128 256 384 512; do
        row "$n" 1 model.hidden_size="$n" moe.expert_intermediate_size=$((2 * n)) model.num_attention_heads=$((n / 64))
    done
}
ranks() { # waiting ranks compute nothing, but ask: their processor time counts
    head 'ranks on these cores'
    for n in 1 2 3 4 8; do
        row "$n" "$n"
    done
}
[ $# -gt 0 ] || set -- experts few fine tokens width ranks
for table in "$@"; do
    case $table in
    experts | few | fine | tokens | width | ranks) "$table" ;;
    *) fail "no table $table; expected experts, few, fine, tokens, width or ranks" ;;
    esac
done
