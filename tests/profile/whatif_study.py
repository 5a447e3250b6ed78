#!/usr/bin/env python3
"""Is the what-if right? Runs with a slowdown and without it, by turns, on paced ranks; what the report
of the slow run predicts for "as fast as the median rank" is set against what was then measured.

    whatif_study.py MOETRAIN [--ranks 3,4] [--factors 1.1,1.2,1.5] [--pace 0.02] [--steps 16] [--turns 3] [--seed 1]
                    [--out FILE.md]

Prints a line a case and the worst errors, also when it is interrupted. Gains are shares of the slow run's step; the model's own error
is a replay with every message's time taken from other steps. Both runs of a turn are the same to the
bit in all but time, so nothing but the device differs; every other turn begins with the run without the slowdown. "Varies by" is the
study's own noise: the measured gain of one turn against that of another, the largest less the smallest, and likewise
the clean step: a prediction cannot be seen to be nearer than that. Devices are paced so slowly (a step takes seconds)
that real computation is under 1 % of it; still it wants a machine that is not busy."""
import argparse
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time

MODEL = """
[run]
name = "whatif"
seed = {seed}
[model]
hidden_size = 64
num_layers = 1
num_attention_heads = 4
max_seq_len = 64
[moe]
num_experts = {experts}
top_k = 2
expert_intermediate_size = 64
routing = "synthetic"
workload = "balanced"
[placement]
policy = "ep"
[optimizer]
lr = 1e-3
[data]
format = "random"
[train]
steps = {steps}
global_batch_size = {batch}
micro_batch_size = 2
[device]
pace_gflops = {pace}
"""


def train(options, folder, name, n_rank, seed, slowdown):
    run = folder / name
    config = folder / f"{name}.toml"
    config.write_text(MODEL.format(seed=seed, experts=4 * n_rank, steps=options.steps, batch=2 * n_rank,
                                   pace=options.pace))
    environment = dict(os.environ, OMP_NUM_THREADS="1", OMPI_MCA_mpi_yield_when_idle="1",
                       OMP_WAIT_POLICY="passive")
    command = ["mpirun", "-q", "--oversubscribe", "--allow-run-as-root", "--bind-to", "none", "--mca",
               "btl_vader_single_copy_mechanism", "none", "-np", str(n_rank), options.moetrain, "train",
               str(config), "--run-dir", str(run), "--quiet"]
    if slowdown:
        command += ["--set", f"device.slowdown={{ {slowdown[0]} = {slowdown[1]} }}"]
    subprocess.run(command, check=True, env=environment, timeout=600)
    return run


def step_s(run, skip):
    """Median time of a step, the first ones left out."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return statistics.median([line["step_time_s"] for line in lines if line.get("step", 0) > skip])


def report(options, run, rank):
    """The finding line, what is gained without the rank's slowness, the model's own error."""
    text = subprocess.run([options.moetrain, "report", str(run), "--text"], check=True, text=True,
                          stdout=subprocess.PIPE).stdout
    gain = re.search(rf"^(?:->)? *(-?[\d.]+) % .* rank {rank} were as fast", text, re.M)
    model = re.search(r"the model is ([\d.]+) % off", text)
    return text.splitlines()[0], float(gain.group(1)) / 100 if gain else 0.0, float(model.group(1)) / 100


class Table:
    """Rows so far, printed as they come and kept in --out."""

    def __init__(self, options):
        self.options, self.worst_gain, self.worst_model, self.noise = options, 0.0, 0.0, 0.0
        began = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        self.lines = []
        self.add(f"`whatif_study.py --ranks {options.ranks} --factors {options.factors} --pace {options.pace} "
                 f"--steps {options.steps} --turns {options.turns} --seed {options.seed}`, begun {began}:")
        self.add("")
        self.add("| ranks | slow rank | factor | slow, s | clean, s | predicted gain | measured | off by | varies by | "
                 "clean varies by | model off | finding |")
        self.add("|---|---|---|---|---|---|---|---|---|---|---|---|")

    def add(self, line):
        print(line, flush=True)
        self.lines.append(line)
        if self.options.out:
            self.options.out.write_text("\n".join(self.lines) + "\n")

    def slow_run(self, folder, n_rank, seed, slowdown):
        """Its step, and what its report says."""
        run = train(self.options, folder, "slow", n_rank, seed, slowdown)
        return step_s(run, 2), *report(self.options, run, slowdown[0])

    def turn(self, turn, n_rank, slowdown):
        """Both runs: the clean step behind what the slow run gives."""
        seed = self.options.seed + turn
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            slow = self.slow_run(folder, n_rank, seed, slowdown) if turn % 2 == 0 else None
            clean_s = step_s(train(self.options, folder, "clean", n_rank, seed, None), 2)
            slow = slow or self.slow_run(folder, n_rank, seed, slowdown)
        return *slow, clean_s

    def case(self, n_rank, rank, factor):
        turns = [self.turn(turn, n_rank, (rank, factor)) for turn in range(self.options.turns)]
        slow, findings, predicted, model, clean = zip(*turns)
        gains = [1 - clean_s / slow_s for slow_s, clean_s in zip(slow, clean)]
        measured = statistics.mean(gains)
        off = statistics.mean(predicted) - measured
        noise, clean_noise = max(gains) - min(gains), (max(clean) - min(clean)) / statistics.mean(clean)
        self.worst_gain = max(self.worst_gain, abs(off))
        self.worst_model = max(self.worst_model, *model)
        self.noise = max(self.noise, noise)
        shown = "; ".join(dict.fromkeys(text.replace("finding: ", "") for text in findings))
        self.add(f"| {n_rank} | {rank} | {factor:.2f} | {statistics.mean(slow):.3f} | {statistics.mean(clean):.3f} | "
                 f"{statistics.mean(predicted):.1%} | {measured:.1%} | {off:+.1%} | {noise:.1%} | {clean_noise:.1%} | "
                 f"{max(model):.2%} | {shown} |")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("moetrain")
    parser.add_argument("--ranks", default="3,4")
    parser.add_argument("--factors", default="1.1,1.2,1.5")
    parser.add_argument("--pace", type=float, default=0.02)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    table = Table(options)
    try:
        for n_rank in map(int, options.ranks.split(",")):
            for i, factor in enumerate(map(float, options.factors.split(","))):
                table.case(n_rank, (1 + i) % n_rank, factor)
    finally:
        table.add("")
        table.add(f"Worst: gain {table.worst_gain:.1%} of a step off, model {table.worst_model:.2%} off; "
                  f"one turn's measured gain differs from another's by up to {table.noise:.1%}.")
    return 0 if table.worst_gain <= 0.03 and table.worst_model <= 0.02 else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted")
