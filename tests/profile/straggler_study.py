#!/usr/bin/env python3
"""Rehearses stragglers whose cause is known and asks the profiler: docs/profiling-results.

  straggler_study.py --build BUILD --out FILE.md [--cases N] [--clean-windows N] [--seed S]

Paced ranks behave as equal devices on few cores. Cases, in turn over --seed: 3 to 8 ranks, a random rank slowed by 5,
10, 20 or 50 %, or balanced devices of which a random one gets 1.5 or 2 times its rows. Each case is one window of 50
steps. Then runs without anything wrong, cut into windows of 50 steps: 192 rows a rank go to 24 experts of which each rank has
as many, so that all ranks have the same rows to the row (with 128 of them one had 3 % more, and was rightly named). Ends with 1
when fewer than 99 % of the cases at 10 % and above are found (rank and cause), or a clean window has a slow device. What was
found is printed, and written to --out after each run, also when it is interrupted."""
import argparse, collections, json, os, random, shutil, signal, statistics, subprocess, sys, tempfile, time

WINDOW, WARM_UP, EXPERTS, LAYERS, TOP_K = 50, 5, 24, 2, 2
CONFIG = """[run]
name = "stragglers"
[model]
hidden_size = 64
num_layers = %d
num_attention_heads = 4
max_seq_len = 48
[moe]
num_experts = %d
top_k = %d
expert_intermediate_size = 96
routing = "%s"
%s
[placement]
policy = "ep"
calibrate = false
[optimizer]
lr = 1e-3
[data]
format = "random"
[train]
steps = %d
global_batch_size = %d
micro_batch_size = 2
[device]
threads = 1
pace_gflops = %g
%s
"""


def write_trace(path, steps, ranks, hot, skew):
    share = EXPERTS // ranks  # experts of a rank are neighbours, the first ranks have one more
    bounds = [r * share + min(r, EXPERTS % ranks) for r in range(ranks + 1)]
    rest = (ranks - skew) / (ranks - 1)
    counts = []
    for r in range(ranks):
        n = bounds[r + 1] - bounds[r]
        counts += [round(100000 * (skew if r == hot else rest) / n)] * n
    with open(path, "w") as out:
        for step in range(1, steps + 1):
            for layer in range(LAYERS):
                turn = layer * (EXPERTS % ranks) % ranks  # owners turn from layer to layer
                assert turn == 0 or EXPERTS % ranks, turn
                out.write(json.dumps({"step": step, "layer": layer, "counts": counts}, separators=(",", ":")) + "\n")


def train(args, ranks, steps, seed, slowdown=None, skew=None):
    """One run; returns the lines of find_windows."""
    folder = args.folder
    run = os.path.join(folder, "run")
    shutil.rmtree(run, ignore_errors=True)
    routing, trace = "synthetic", 'workload = "balanced"'
    if skew:
        path = os.path.join(folder, "trace.jsonl")
        write_trace(path, steps, ranks, *skew)
        routing, trace = "replay", 'trace = "%s"' % path
    slow = "slowdown = { %d = %g }" % slowdown if slowdown else ""
    config = os.path.join(folder, "case.toml")
    with open(config, "w") as out:
        out.write(CONFIG % (LAYERS, EXPERTS, TOP_K, routing, trace, steps, 2 * ranks, args.pace_gflops, slow))
    command = ["mpirun", "-q", "--oversubscribe", "--allow-run-as-root", "--bind-to", "none", "--mca",
               "mpi_yield_when_idle", "1", "--mca", "btl_vader_single_copy_mechanism", "none", "-np", str(ranks),
               os.path.join(args.build, "moetrain"), config, "--run-dir", run, "--quiet", "--set",
               "run.seed=%d" % seed]
    subprocess.run(command, check=True, timeout=1200, env=dict(os.environ, OMP_WAIT_POLICY="passive"))
    windows = subprocess.run([os.path.join(args.build, "tests/profile/find_windows"), run, str(WARM_UP), str(WINDOW)],
                             check=True, capture_output=True, text=True).stdout
    with open(os.path.join(run, "metrics.jsonl")) as lines:
        times = sorted(line["step_time_s"] for line in map(json.loads, lines) if "loss" in line)
    return windows.splitlines(), times[len(times) // 2]


KINDS = [("slow-device", 1.05), ("slow-device", 1.1), ("slow-device", 1.2), ("slow-device", 1.5),
         ("routing-load", 1.5), ("routing-load", 2.0)]


class Study:
    """What was found so far; the table is made anew after every run, so that an interruption loses one run."""

    def __init__(self, args):
        self.args, self.began = args, time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        self.found, self.tried, self.wrong = collections.Counter(), collections.Counter(), []
        self.windows, self.alarms, self.others, self.noise = 0, [], [], []

    def case(self, case):
        draw = random.Random(self.args.seed * 1000003 + case)
        kind = cause, size = KINDS[case % len(KINDS)]
        ranks = draw.choice([4, 6, 8] if cause == "routing-load" else [3, 4, 5, 6, 8])
        victim = draw.randrange(ranks)
        given = {"skew": (victim, size)} if cause == "routing-load" else {"slowdown": (victim, size)}
        lines, step_s = train(self.args, ranks, WARM_UP + WINDOW, self.args.seed + case, **given)
        first = (lines[0].split('"')[2].split() or ["none"])[0]
        is_right = first.split(":")[:2] == [str(victim), cause]
        self.tried[kind] += 1
        self.found[kind] += is_right
        text = "case %d, %d ranks: rank %d %s x %g, found %s" % (case, ranks, victim, cause, size, first)
        self.wrong += [] if is_right else [text]
        return "%s%s (noise %.1f %%, %.0f ms a step)" % (
            text, "" if is_right else " WRONG", 100 * float(lines[0].split()[1]), step_s * 1e3)

    def clean(self, run):
        ranks = [4, 8, 3, 6][run % 4]
        n = min(self.args.clean_windows - self.windows, self.args.windows_a_run)
        lines, step_s = train(self.args, ranks, WARM_UP + n * WINDOW, self.args.seed + 5000 + run)
        for line in lines:
            self.windows += 1
            self.noise.append(float(line.split()[1]))
            if "finding: none" not in line:
                text = "clean run %d, %d ranks, from step %s: %s" % (run, ranks, line.split()[0], line.split('"')[2].strip())
                (self.alarms if ":slow-device:" in line else self.others).append(text)
        return "clean: %d of %d windows, %d slow devices, %d other findings (%d ranks, %.0f ms a step)" % (
            self.windows, self.args.clean_windows, len(self.alarms), len(self.others), ranks, step_s * 1e3)

    def big(self):
        big = [kind for kind in self.tried if kind[1] >= 1.1]
        return sum(self.found[k] for k in big), sum(self.tried[k] for k in big)

    def is_good(self):
        found, tried = self.big()
        return found >= 0.99 * tried and not self.alarms

    def table(self):
        args = self.args
        lines = ["`straggler_study.py --cases %d --clean-windows %d --windows-a-run %d --seed %d`, begun %s:" % (
            args.cases, args.clean_windows, args.windows_a_run, args.seed, self.began), ""]
        if self.tried:
            lines += ["| cause | size | cases | rank and cause right |", "|---|---|---|---|"]
            lines += ["| %s | %+.0f %% | %d | %d |" % (k[0], (k[1] - 1) * 100, self.tried[k], self.found[k])
                      for k in KINDS if k in self.tried]
            lines += ["", "%d of %d cases of 10 %% and more right." % self.big()]
        if self.windows:
            lines += ["", "| clean windows | with a slow device | with another finding | noise, median | noise, largest |",
                      "|---|---|---|---|---|", "| %d | %d | %d | %.1f %% | %.1f %% |" % (
                          self.windows, len(self.alarms), len(self.others), 100 * statistics.median(self.noise),
                          100 * max(self.noise))]
        rest = self.wrong + self.alarms + self.others
        return "\n".join(lines + ([""] + ["- " + text for text in rest] if rest else []))

    def save(self):
        if self.args.out:
            with open(self.args.out, "w") as out:
                out.write(self.table() + "\n")


def study(args, found):
    for case in range(args.cases):
        print(found.case(case), flush=True)
        found.save()
    run = 0
    while found.windows < args.clean_windows:
        print(found.clean(run), flush=True)
        found.save()
        run += 1


def main():
    parse = argparse.ArgumentParser()
    parse.add_argument("--build", required=True)
    parse.add_argument("--out")
    parse.add_argument("--cases", type=int, default=120)
    parse.add_argument("--clean-windows", type=int, default=200)
    parse.add_argument("--windows-a-run", type=int, default=10)
    parse.add_argument("--seed", type=int, default=1)
    parse.add_argument("--pace-gflops", type=float, default=0.45)
    args = parse.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    found = Study(args)
    with tempfile.TemporaryDirectory() as args.folder:
        try:
            study(args, found)
        finally:
            print(found.table(), flush=True)
    return 0 if found.is_good() else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted")
