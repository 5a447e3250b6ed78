#!/usr/bin/env bash
# Loss curves of bfloat16 against float32 on the quickstart (docs/bfloat16.md): launch/bfloat16-curves.sh [SEED ...]
#
# The yardstick is float32 against itself: the same run in micro-batches of one sequence, which differs from the
# first in the order of sums only. LR (default 1e-3) is the learning rate. Three runs of 300 steps a seed on one
# core. Fails where, over the seeds, the mean validation loss of bfloat16 is more than 1 % above float32's.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

corpus=$root/corpus
"$root/launch/make-corpus.sh" "$corpus"
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT
[ $# -gt 0 ] || set -- 1 2 3
train() { # NAME SEED ARGUMENTS
    OMP_NUM_THREADS=1 "$root/launch/local.sh" 1 "$root/configs/quickstart.toml" --quiet --run-dir "$runs/$1.$2" \
        --set "run.seed=$2" --set device.threads=1 --set train.steps=300 --set train.eval_interval=300 \
        --set checkpoint.interval=0 --set "optimizer.lr=${LR:-1e-3}" "${@:3}"
}
for seed in "$@"; do
    train float32 "$seed"
    train again "$seed" --set train.micro_batch_size=1
    train bfloat16 "$seed" --set 'device.dtype="bfloat16"'
done
python3 - "$runs" "$@" <<'PY'
import json
import sys

WINDOW = 20  # steps of a mean


def read(path):
    with open(path) as file:
        lines = [json.loads(line) for line in file]
    losses = [line["loss"] for line in lines if "loss" in line]
    validation = [line["eval_loss"] for line in lines if "eval_loss" in line]
    return losses, validation[-1]


def smooth(losses):
    return [sum(losses[i - WINDOW:i]) / WINDOW for i in range(WINDOW, len(losses) + 1)]


def worst(a, b):
    return max(abs(y / x - 1) for x, y in zip(a, b))


print("| seed | float32 again | bfloat16 | last 20 steps: float32, again, bfloat16 | validation: float32, again, bfloat16 |")
print("|---|---|---|---|---|")
total = [0.0, 0.0, 0.0]
for seed in sys.argv[2:]:
    runs = [read(f"{sys.argv[1]}/{name}.{seed}/metrics.jsonl") for name in ("float32", "again", "bfloat16")]
    curves = [smooth(losses) for losses, _ in runs]
    assert all(len(losses) == 300 for losses, _ in runs)
    total = [sum_ + validation for sum_, (_, validation) in zip(total, runs)]
    print(f"| {seed} | {100 * worst(curves[0], curves[1]):.2f} % | {100 * worst(curves[0], curves[2]):.2f} % | "
          + ", ".join(f"{curve[-1]:.4f}" for curve in curves) + " | "
          + ", ".join(f"{validation:.4f}" for _, validation in runs) + " |")
mean = [value / len(sys.argv[2:]) for value in total]
print("| mean | | | | " + ", ".join(f"{value:.4f}" for value in mean) + " |")
sys.exit("bfloat16 is more than 1 % worse" if mean[2] > 1.01 * mean[0] else 0)
PY
