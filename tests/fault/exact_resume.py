#!/usr/bin/env python3
"""exact_resume.py [--points N] [--steps S] [--seed S] [--ranks R]

S steps in one go against a run that is killed once near step k and started again, for N kill points k
spread over the run: metrics and the last checkpoint are compared byte by byte, times apart."""
import argparse
import random
import shutil
import signal
import tempfile
import time

import runs


def settings(options):
    return [f"train.steps={options.steps}", "checkpoint.interval=5", "checkpoint.keep=3", "device.pace_gflops=0.02",
            "train.eval_interval=10", f'placement.costs="{runs.SOURCE}/tests/support/costs.json"',
            'placement.policy="fssdp"', "placement.slots=2"]


def finish(run):
    run.start()
    if run.wait(120) != 0:
        raise runs.Unusable(f"the run did not reach its end: {run.said()[:600]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ranks", type=int, default=2)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    folder = tempfile.mkdtemp(prefix="moetrain-exact-")
    whole = runs.Run(f"{folder}/whole", options.ranks, settings(options))
    finish(whole)
    resumed = []
    for point in range(options.points):
        step = 1 + (options.steps - 2) * (2 * point + 1) // (2 * options.points)
        run = runs.Run(f"{folder}/killed{point}", options.ranks, settings(options))
        run.start()
        run.wait_for_step(step)
        time.sleep(draw.uniform(0, 0.05))
        run.send(signal.SIGKILL, run.pids())
        run.wait(30)
        finish(run)
        resumed.append(run.resumed_at() or 0)
        runs.compare(whole, run)
    print(f"seed {options.seed}, {options.ranks} ranks: {options.steps} steps and the same killed once, "
          f"{options.points} of {options.points} identical; they went on from the steps {resumed}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
