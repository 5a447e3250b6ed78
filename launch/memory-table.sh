#!/usr/bin/env bash
# Peak memory of a rank under skewed routing over that under balanced routing, policy by policy (docs/fssdp.md):
# launch/memory-table.sh [POLICY ...]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT
peak() { # POLICY SKEW: memory_peak_bytes of the last step
    "$root/launch/local.sh" 8 "$root/configs/bench-policies.toml" --quiet --run-dir "$runs/$1.$2" \
        --set "placement.policy=\"$1\"" --set "moe.skew=$2" --set "placement.costs=\"$runs/costs.json\"" \
        --set model.hidden_size=128 --set model.num_layers=4 --set model.max_seq_len=256 --set device.pace_gflops=0.0 \
        --set train.micro_batch_size=4 --set train.steps=6
    tail -n 1 "$runs/$1.$2/metrics.jsonl" | grep -o '"memory_peak_bytes":[0-9]*' | cut -d: -f2
}
# A slow device on fast links, so that policies act whatever this machine is.
cp "$root/tests/support/costs.json" "$runs/costs.json"

printf '%-14s %14s %14s %6s\n' policy 'skew 1.0 MiB' 'skew 4.0 MiB' ratio
[ $# -gt 0 ] || set -- ep fssdp quota adaptive
for policy in "$@"; do
    even=$(peak "$policy" 1.0)
    skewed=$(peak "$policy" 4.0)
    awk -v p="$policy" -v a="$even" -v b="$skewed" \
        'BEGIN { printf "%-14s %14.1f %14.1f %6.3f\n", p, a / 1048576, b / 1048576, b / a }'
done
