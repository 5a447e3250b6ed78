#!/usr/bin/env python3
"""Predicted against published step times on LAER's testbed: docs/laer.md.

    launch/laer-table.py [--seed N] [--set KEY=VALUE]   BUILD_DIR says where moetrain is [build]
"""
import argparse
import math
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
# One set of constants for all cells.
RANKS, NODES, EP_RANKS, STEPS, WARM_UP = 32, 4, 4, 16, 48
MACHINE = ["--device-tflops", "237", "--dense-tflops", "125", "--intra-gbytes-per-s", "216",
           "--inter-gbytes-per-s", "89", "--intra-latency-us", "5", "--inter-latency-us", "10"]
SKEW, CORRELATION = 1.7, 0.8
PUBLISHED = {  # seconds a step: Megatron, FSDP+EP, FlexMoE-like, LAER
    "wikitext 8x7b-e8k2": (43.38, 35.66, 28.51, 26.33),
    "wikitext 8x7b-e16k4": (25.98, 27.79, 24.71, 18.85),
    "wikitext 8x22b-e8k2": (39.77, 35.16, 26.50, 24.00),
    "wikitext 8x22b-e16k4": (24.12, 27.22, 25.47, 18.37),
    "C4 8x7b-e8k2": (43.96, 37.00, 28.91, 27.95),
    "C4 8x7b-e16k4": (26.49, 27.63, 24.45, 19.11),
    "C4 8x22b-e8k2": (41.64, 37.26, 26.41, 24.79),
    "C4 8x22b-e16k4": (22.35, 28.35, 27.33, 19.98),
}
MODELS = {  # layers, experts
    "8x7b-e8k2": (32, 8), "8x7b-e16k4": (24, 16), "8x22b-e8k2": (18, 8), "8x22b-e16k4": (14, 16),
}


def imbalance(counts):
    """Largest load over the mean of the ranks of an expert-parallel group."""
    per_rank = len(counts) // EP_RANKS
    loads = [sum(counts[r * per_rank:(r + 1) * per_rank]) for r in range(EP_RANKS)]
    return max(loads) * EP_RANKS / sum(loads)


def draw(seed, layers, experts, spread):
    """counts[step][layer][expert]: log-normal, first-order autoregressive over steps."""
    source = random.Random(seed)
    fresh = math.sqrt(1 - CORRELATION * CORRELATION)
    state = [[source.gauss(0, 1) for _ in range(experts)] for _ in range(layers)]
    steps = []
    for _ in range(WARM_UP + STEPS):
        state = [[CORRELATION * x + fresh * source.gauss(0, 1) for x in layer] for layer in state]
        steps.append([[round(1e6 * math.exp(spread * x)) for x in layer] for layer in state])
    return steps


def mean_imbalance(steps):
    return statistics.mean(imbalance(counts) for step in steps for counts in step)


def make_loads(seed, layers, experts):
    """With the wanted imbalance on average, by bisection of the spread."""
    low, high = 0.0, 4.0
    for _ in range(12):
        middle = (low + high) / 2
        if mean_imbalance(draw(seed, layers, experts, middle)) < SKEW:
            low = middle
        else:
            high = middle
    return draw(seed, layers, experts, high)


def write_trace(path, steps):
    with open(path, "w") as out:
        experts = len(steps[0][0])
        out.write("step,layer," + ",".join(f"expert_{e}" for e in range(experts)) + "\n")
        for s, step in enumerate(steps):
            for l, counts in enumerate(step):
                out.write(f"{s + 1},{l}," + ",".join(map(str, counts)) + "\n")


def plan(program, model, trace, ranks, nodes, settings):
    """Policy -> seconds a step."""
    command = [program, "plan", str(ROOT / "configs" / f"laer-{model}.toml"), "--ranks", str(ranks),
               "--nodes", str(nodes), "--trace", trace, "--steps", str(STEPS), "--warm-up", str(WARM_UP),
               "--set", f"train.global_batch_size={128 * ranks // RANKS}"] + MACHINE
    command += [word for setting in settings for word in ("--set", setting)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    rows = [line.split() for line in done.stdout.split("policy  ")[-1].split("\n")]
    return {row[0]: float(row[1]) for row in rows[1:] if len(row) > 10}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    options = parser.parse_args()
    program = str(pathlib.Path(os.environ.get("BUILD_DIR", "build")).resolve() / "moetrain")
    predicted = {}
    with tempfile.TemporaryDirectory() as folder:
        for model, (layers, experts) in MODELS.items():
            trace = os.path.join(folder, f"{model}.csv")
            steps = make_loads(options.seed, layers, experts)
            write_trace(trace, steps)
            alone = plan(program, model, trace, EP_RANKS, 1, options.settings)
            together = plan(program, model, trace, RANKS, NODES, options.settings)
            predicted[model] = (alone["ep"], alone["ep"], together["flexmoe"], together["fsep"],
                                together["adaptive"])
            print(f"{model}: largest / mean load of an expert-parallel rank {mean_imbalance(steps):.2f}",
                  file=sys.stderr)
    print("seconds a step, and over LAER's; predicted | published\n")
    print(f"{'':22} {'Megatron':>21} {'FSDP+EP':>21} {'FlexMoE-like':>21} {'LAER':>15}   adaptive")
    errors = [[], [], []]
    for cell, published in PUBLISHED.items():
        own = predicted[cell.split()[1]]
        text = f"{cell:22}"
        for i in range(3):
            ratios = own[i] / own[3], published[i] / published[3]
            errors[i].append(ratios[0] / ratios[1])
            text += f" {own[i]:5.1f} {ratios[0]:4.2f} |{published[i]:5.1f} {ratios[1]:4.2f}"
        print(text + f" {own[3]:5.1f} | {published[3]:5.1f}  {own[4]:7.1f} {own[4] / own[3]:4.2f}")
    means = [math.exp(statistics.mean(map(math.log, row))) for row in errors]
    print("\npredicted over published ratio, geometric mean: Megatron %.2f, FSDP+EP %.2f, "
          "FlexMoE-like %.2f" % tuple(means))


if __name__ == "__main__":
    main()
