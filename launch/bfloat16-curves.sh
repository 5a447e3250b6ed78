#!/usr/bin/env bash
# Loss curves of bfloat16 against float32 on the quickstart (docs/bfloat16.md): launch/bfloat16-curves.sh [SEED ...]
#
# The yardstick is float32 against itself: the same run in micro-batches of one sequence, which differs from the
# first in the order of sums only. Two runs of one seed drift apart whatever causes it, so the curves' means over the
# seeds are compared as well, with the standard error that the pairs of runs give; it falls with the number of seeds.
# LR (default 1e-3) is the learning rate. Three runs of 300 steps a seed (default: 1 2 3) on one core; RUNS=DIR keeps
# them there and goes on with those that are missing. Fails where, over the seeds, the mean validation loss of bfloat16
# is more than 1 % above float32's.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

corpus=$root/corpus
"$root/launch/make-corpus.sh" "$corpus"
runs=${RUNS:-}
if [ -z "$runs" ]; then
    runs=$(mktemp -d)
    trap 'rm -rf "$runs"' EXIT
fi
[ $# -gt 0 ] || set -- 1 2 3
train() { # NAME SEED ARGUMENTS
    local metrics=$runs/$1.$2/metrics.jsonl
    if [ -s "$metrics" ] && grep -q eval_loss "$metrics"; then
        return
    fi
    rm -rf "${runs:?}/$1.$2"
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
import math
import sys

WINDOW = 20  # steps of a mean


def read(path):
    with open(path) as file:
        lines = [json.loads(line) for line in file]
    losses = [line["loss"] for line in lines if "loss" in line]
    validation = [line["eval_loss"] for line in lines if "eval_loss" in line]
    assert len(losses) == 300
    return losses, validation[-1]


def smooth(losses):
    return [sum(losses[i - WINDOW:i]) / WINDOW for i in range(WINDOW, len(losses) + 1)]


def worst(a, b):
    return max(abs(y / x - 1) for x, y in zip(a, b))


def mean(values):
    return sum(values) / len(values)


def compare(pairs):
    """How far the second of (a, b) is above the first in the mean, and the standard error of that; relative."""
    n = len(pairs)
    base = mean([a for a, _ in pairs])
    each = [b - a for a, b in pairs]
    spread = sum((d - mean(each)) ** 2 for d in each) / (n - 1)
    return mean(each) / base, math.sqrt(spread / n) / base


def describe(name, runs, other):
    """Mean curves: the window that differs most, all windows together, the last; then the validation loss."""
    windows = list(zip(*[zip(run[0][0], run[other][0]) for run in runs]))
    at_most = max((compare(pairs) for pairs in windows), key=lambda each: abs(each[0]))
    whole = compare([(mean(run[0][0]), mean(run[other][0])) for run in runs])
    last = compare(windows[-1])
    validation = compare([(run[0][1], run[other][1]) for run in runs])
    cells = [f"{100 * difference:+.2f} +- {100 * error:.2f} %"
             for difference, error in (at_most, whole, last, validation)]
    print(f"| {name} | " + " | ".join(cells) + " |")


names = ("float32", "again", "bfloat16")
print("| seed | float32 again | bfloat16 | last 20 steps: float32, again, bfloat16 | validation: float32, again, bfloat16 |")
print("|---|---|---|---|---|")
all_runs = []
for seed in sys.argv[2:]:
    read_runs = [read(f"{sys.argv[1]}/{name}.{seed}/metrics.jsonl") for name in names]
    runs = [(smooth(losses), validation) for losses, validation in read_runs]
    all_runs.append(runs)
    curves = [curve for curve, _ in runs]
    print(f"| {seed} | {100 * worst(curves[0], curves[1]):.2f} % | {100 * worst(curves[0], curves[2]):.2f} % | "
          + ", ".join(f"{curve[-1]:.4f}" for curve in curves) + " | "
          + ", ".join(f"{validation:.4f}" for _, validation in runs) + " |")
validations = [mean([runs[i][1] for runs in all_runs]) for i in range(len(names))]
print("| mean | | | | " + ", ".join(f"{value:.4f}" for value in validations) + " |")
if len(all_runs) > 1:
    print(f"\n| mean of {len(all_runs)} seeds, beside float32's | where it differs most | all windows | last 20 steps | validation |")
    print("|---|---|---|---|---|")
    describe("float32 again", all_runs, 1)
    describe("bfloat16", all_runs, 2)
sys.exit("bfloat16 is more than 1 % worse" if validations[2] > 1.01 * validations[0] else 0)
PY
