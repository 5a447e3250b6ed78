#!/usr/bin/env python3
"""Rehearses stragglers whose cause is known and asks the profiler: docs/profiling-results.

  straggler_study.py --build BUILD --out FILE.md [--cases N] [--clean-windows N] [--seed S]

Paced ranks behave as equal devices on few cores. Cases, in turn over --seed: 3 to 8 ranks, a random rank slowed by 5,
10, 20 or 50 %, or balanced devices of which a random one gets 1.5 or 2 times its rows. Each case is one window of 50
steps. Then runs without anything wrong, cut into windows of 50 steps. Ends with 1 when fewer than 99 % of the cases at
10 % and above are found (rank and cause), or a clean window has a slow device."""
import argparse, json, os, random, shutil, subprocess, sys, tempfile

WINDOW, WARM_UP, EXPERTS, LAYERS, TOP_K = 50, 5, 24, 2, 2
CONFIG = """[run]
name = "stragglers"
[model]
hidden_size = 64
num_layers = %d
num_attention_heads = 4
max_seq_len = 32
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


def train(args, folder, ranks, steps, seed, slowdown=None, skew=None):
    """One run; returns the lines of find_windows."""
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


def study_cases(args, folder, say):
    found, tried, wrong = {}, {}, []
    for case in range(args.cases):
        draw = random.Random(args.seed * 1000003 + case)
        cause, size = KINDS[case % len(KINDS)]
        ranks = draw.choice([4, 6, 8] if cause == "routing-load" else [3, 4, 5, 6, 8])
        victim = draw.randrange(ranks)
        wanted = "%d:%s" % (victim, cause)
        given = {"skew": (victim, size)} if cause == "routing-load" else {"slowdown": (victim, size)}
        lines, step_s = train(args, folder, ranks, WARM_UP + WINDOW, args.seed + case, **given)
        first = (lines[0].split('"')[2].split() or ["none"])[0]
        is_right = first.rsplit(":", 2)[0] == wanted
        tried[cause, size] = tried.get((cause, size), 0) + 1
        found[cause, size] = found.get((cause, size), 0) + is_right
        if not is_right:
            wrong.append("case %d: %d ranks, wanted %s x %g, found %s" % (case, ranks, wanted, size, first))
        say("case %d/%d: %d ranks, %s x %g: %s %s (%.0f ms a step)" %
            (case + 1, args.cases, ranks, wanted, size, first, "" if is_right else "WRONG", step_s * 1e3))
    return found, tried, wrong


def study_clean(args, folder, say):
    alarms, windows, others, run = [], 0, 0, 0
    while windows < args.clean_windows:
        ranks = [4, 8, 3, 6][run % 4]
        n = min(args.clean_windows - windows, args.windows_a_run)
        lines, step_s = train(args, folder, ranks, WARM_UP + n * WINDOW, args.seed + 5000 + run)
        for line in lines:
            windows += 1
            if ":slow-device:" in line.split('"')[2]:
                alarms.append("run %d, %d ranks: %s" % (run, ranks, line))
                say(alarms[-1])
            others += "finding: none" not in line
        say("clean: %d of %d windows, %d alarms (%d ranks, %.0f ms a step)" %
            (windows, args.clean_windows, len(alarms), ranks, step_s * 1e3))
        run += 1
    return alarms, windows, others


def main():
    parse = argparse.ArgumentParser()
    parse.add_argument("--build", required=True)
    parse.add_argument("--out")
    parse.add_argument("--cases", type=int, default=120)
    parse.add_argument("--clean-windows", type=int, default=200)
    parse.add_argument("--windows-a-run", type=int, default=20)
    parse.add_argument("--seed", type=int, default=1)
    parse.add_argument("--pace-gflops", type=float, default=0.3)
    args = parse.parse_args()
    def say(text):
        print(text, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        found, tried, wrong = study_cases(args, folder, say)
        alarms, windows, others = study_clean(args, folder, say)
    big = [kind for kind in tried if kind[1] >= 1.1]
    n_found, n_tried = sum(found[k] for k in big), sum(tried[k] for k in big)
    lines = ["| cause | size | cases | rank and cause right |", "|---|---|---|---|"]
    lines += ["| %s | %+.0f %% | %d | %d |" % (k[0], (k[1] - 1) * 100, tried[k], found[k]) for k in KINDS if k in tried]
    lines += ["", "%d of %d cases of 10 %% and more right; %d of %d clean windows with a slow device, %d with any finding." %
              (n_found, n_tried, len(alarms), windows, others)]
    lines += [""] + ["- " + text for text in wrong + alarms] if wrong or alarms else []
    say("\n".join(lines))
    if args.out:
        with open(args.out, "w") as out:
            out.write("\n".join(lines) + "\n")
    return 0 if n_found >= 0.99 * n_tried and not alarms else 1


if __name__ == "__main__":
    sys.exit(main())
