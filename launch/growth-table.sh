#!/usr/bin/env bash
# Cost as the work grows (docs/performance.md): launch/growth-table.sh [experts|few|fine|tokens|width|ranks ...]
#
# Every row is `moetrain bench step` on configs/bench-cpu.toml with one thing changed. `us/MFLOP` is the step's
# processor time, all ranks, per million FLOPs of the model's count; `ratio` is that over the table's first row. The
# rows of a table take turns, ROUNDS times (default 3) with STEPS steps each, and the best step of each counts: other
# programs that use the caches then disturb all rows alike. CORE=n: one rank runs on core n alone.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
steps=${STEPS:-4}
rounds=${ROUNDS:-3}
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT

n_row=0
row() { # LABEL RANKS SETTINGS...: of the table that has begun
    rows[n_row++]=$(printf '%s\n' "$@")
}
run() { # RESULT LABEL RANKS SETTINGS...
    local result=$1 ranks=$3 core=() set=() setting
    [ -z "${CORE:-}" ] || [ "$ranks" -gt 1 ] || core=(taskset -c "$CORE")
    for setting in "${@:4}"; do
        set+=(--set "$setting")
    done
    choose_messages "$ranks"
    "${core[@]}" mpirun -q -np "$ranks" --oversubscribe --allow-run-as-root --bind-to none "${message_flags[@]}" \
        "$BUILD_DIR/moetrain" bench step "$root/configs/bench-cpu.toml" --json --warm-up 1 --steps "$table_steps" \
        --set device.threads=1 "${set[@]}" >"$result"
}
head() { # TITLE [STEPS]: a table begins
    table_steps=${2:-$steps}
    n_row=0
    rows=()
    printf '\n%-30s %9s %9s %9s %9s %8s %8s %8s %9s\n' "$1" GFLOP 'step ms' 'CPU ms' tokens/s us/MFLOP ratio \
        outside 'peak MiB'
}
end() { # measures and prints the table
    local round i row=()
    for ((round = 0; round < rounds; round++)); do
        for ((i = 0; i < n_row; i++)); do
            mapfile -t row <<<"${rows[i]}"
            run "$results/$i.$round" "${row[@]}"
        done
    done
    for ((i = 0; i < n_row; i++)); do
        mapfile -t row <<<"${rows[i]}"
        printf '%s\n' "${row[0]}"
    done | python3 -c '
import json, sys
first = None
for i, label in enumerate(sys.stdin.read().splitlines()):
    runs = [json.load(open(f"{sys.argv[1]}/{i}.{n}")) for n in range(int(sys.argv[2]))]
    r = min(runs, key=lambda run: run["best_cpu_s"])
    step = min(run["best_step_s"] for run in runs)
    each = r["best_cpu_s"] * r["ranks"] * 1e12 / r["model_flops"]
    first = first or each
    print("%-30s %9.2f %9.1f %9.1f %9.1f %8.2f %8.2f %8.3f %9.1f" % (
        label, r["model_flops"] * 1e-9, step * 1e3, r["best_cpu_s"] * 1e3, r["tokens"] / step, each, each / first,
        min(run["outside_products"] for run in runs), r["peak_bytes"] / 2**20))' "$results" "$rounds"
}

experts() { # the same FLOPs; so many tokens, a micro-batch too, that reading 8 times the parameters stays small
    head 'experts of 512, 16384 tokens' $((steps < 2 ? steps : 2))
    for n in 8 16 32 64; do
        row "$n" 1 moe.num_experts="$n" train.global_batch_size=64 train.micro_batch_size=32
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
    experts | few | fine | tokens | width | ranks)
        "$table"
        end
        ;;
    *) fail "no table $table; expected experts, few, fine, tokens, width or ranks" ;;
    esac
done
