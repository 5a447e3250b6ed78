#!/usr/bin/env python3
"""Real runs in which one rank is held up for a reason that is known, beside those of straggler_study.py.

  cause_study.py --build BUILD [--out FILE.md] [--turns N] [--seed S]

late-data    a random rank's reads of the corpus take 40 ms longer each (a library that is preloaded)
checkpoint   a random rank's files of a checkpoint, saved every 10 steps, take 150 ms longer to reach the disk (the same)
periodic     a random rank is stopped for two thirds of a step every fifth step (SIGSTOP): a slow device, periodically

3 to 6 paced ranks, 60 steps of some 250 ms. Prints a table; what was found is kept when it is interrupted. Ends with 1 when a rank
or its cause was not the first finding, or a rank that was stopped every fifth step is not found to be slow periodically."""
import argparse, glob, json, os, random, shutil, signal, subprocess, sys, tempfile, time

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>
static void hold_up(int file, const char *part, const char *variable)
{
    const char *rank = getenv("OMPI_COMM_WORLD_RANK"), *victim = getenv("HELD_RANK"), *ms = getenv(variable);
    char link[64], path[4096] = "";
    snprintf(link, sizeof(link), "/proc/self/fd/%d", file);
    if (rank && victim && ms && strcmp(rank, victim) == 0 && readlink(link, path, sizeof(path) - 1) > 0 && strstr(path, part)) {
        struct timespec pause = {atol(ms) / 1000, atol(ms) % 1000 * 1000000};
        nanosleep(&pause, NULL);
    }
}
ssize_t pread64(int file, void *data, size_t n, off64_t at)
{
    ssize_t (*real)(int, void *, size_t, off64_t) = dlsym(RTLD_NEXT, "pread64");
    hold_up(file, "corpus", "HELD_READ_MS");
    return real(file, data, n, at);
}
ssize_t pread(int file, void *data, size_t n, off_t at) { return pread64(file, data, n, at); }
int fsync(int file)
{
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    hold_up(file, "checkpoints", "HELD_SAVE_MS");
    return real(file);
}
"""
CONFIG = """[run]
name = "causes"
[model]
hidden_size = 64
num_layers = 2
num_attention_heads = 4
max_seq_len = 48
[moe]
num_experts = 24
top_k = 2
expert_intermediate_size = 96
routing = "synthetic"
workload = "balanced"
[placement]
policy = "ep"
calibrate = false
[optimizer]
lr = 1e-3
[data]
format = "bytes"
train = ["corpus.txt"]
[train]
steps = 60
global_batch_size = %d
micro_batch_size = 2
[checkpoint]
interval = %d
async = false
[device]
threads = 1
pace_gflops = 0.45
"""
KINDS = {"late-data": ("late-data", {"HELD_READ_MS": "40"}), "checkpoint": ("checkpoint", {"HELD_SAVE_MS": "150"}),
         "periodic": ("slow-device", {})}


def process_of(run, rank):
    """The process of a rank of this run."""
    for folder in glob.glob("/proc/[0-9]*"):
        try:
            with open(folder + "/cmdline", "rb") as command, open(folder + "/environ", "rb") as environment:
                arguments = command.read().split(b"\0")
                if arguments[0].endswith(b"/moetrain") and run.encode() in arguments and \
                        b"OMPI_COMM_WORLD_RANK=%d" % rank in environment.read().split(b"\0"):
                    return int(folder[6:])
        except OSError:
            pass
    return None


def stop_now_and_then(job, run, victim):
    """Every fifth step the rank stands still for two thirds of a step."""
    seen, process = 0, None
    while job.poll() is None:
        time.sleep(0.01)
        try:
            with open(os.path.join(run, "metrics.jsonl")) as lines:
                steps = [json.loads(line) for line in lines if '"loss"' in line and line.endswith("\n")]
        except OSError:
            continue
        if len(steps) > 5 and len(steps) // 5 > seen // 5:
            process = process or process_of(run, victim)
            if process:
                usual = sorted(step["step_time_s"] for step in steps)[len(steps) // 3]
                os.kill(process, signal.SIGSTOP)
                time.sleep(0.67 * usual)
                os.kill(process, signal.SIGCONT)
        seen = len(steps)


def case(args, kind, turn):
    draw = random.Random("%d %s %d" % (args.seed, kind, turn))
    ranks = draw.choice([3, 4, 6])
    victim = draw.randrange(ranks)
    run = os.path.join(args.folder, "run")
    shutil.rmtree(run, ignore_errors=True)
    config = os.path.join(args.folder, "case.toml")
    with open(config, "w") as out:
        out.write(CONFIG % (2 * ranks, 10 if kind == "checkpoint" else 0))
    cause, held = KINDS[kind]
    environment = dict(os.environ, OMP_WAIT_POLICY="passive", HELD_RANK=str(victim), **held)
    job = subprocess.Popen(["mpirun", "-q", "--oversubscribe", "--allow-run-as-root", "--bind-to", "none", "--mca",
                            "mpi_yield_when_idle", "1", "--mca", "btl_vader_single_copy_mechanism", "none", "-x",
                            "LD_PRELOAD=" + args.shim, "-x", "HELD_RANK"] + [w for name in held for w in ("-x", name)] +
                           ["-np", str(ranks), os.path.join(args.build, "moetrain"), config, "--run-dir", run, "--quiet",
                            "--set", "run.seed=%d" % (args.seed + turn)], env=environment)
    if kind == "periodic":
        stop_now_and_then(job, run, victim)
    if job.wait(timeout=600) != 0:
        sys.exit("a run ended with %d" % job.returncode)
    line = subprocess.run([os.path.join(args.build, "tests/profile/find_windows"), run, "5", "50"], check=True,
                          capture_output=True, text=True).stdout
    found = (line.split('"')[2].split() or ["none"])[0].split(":")
    is_right = found[:2] == [str(victim), cause] and (kind != "periodic" or found[-1] == "periodic")
    return "| %s | %d | %d | %s | %s |" % (kind, ranks, victim, " ".join(found), "yes" if is_right else "no"), is_right


def main():
    parse = argparse.ArgumentParser()
    parse.add_argument("--build", required=True)
    parse.add_argument("--out")
    parse.add_argument("--turns", type=int, default=3)
    parse.add_argument("--seed", type=int, default=1)
    args = parse.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    lines = ["`cause_study.py --turns %d --seed %d`, begun %s:" % (
        args.turns, args.seed, time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())), "",
        "| held up | ranks | rank | first finding: rank, cause, share, factor, when | right |", "|---|---|---|---|---|"]
    all_right = True
    print("\n".join(lines), flush=True)
    with tempfile.TemporaryDirectory() as args.folder:
        args.shim = os.path.join(args.folder, "held.so")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", args.shim, "-x", "c", "-", "-ldl"], input=SHIM, text=True, check=True)
        with open(os.path.join(args.folder, "corpus.txt"), "w") as out:
            out.write("".join(chr(97 + (i * i + i // 7) % 26) for i in range(200000)))
        for turn in range(args.turns):
            for kind in KINDS:
                line, is_right = case(args, kind, turn)
                all_right = all_right and is_right
                lines.append(line)
                print(line, flush=True)
                if args.out:
                    with open(args.out, "w") as out:
                        out.write("\n".join(lines) + "\n")
    return 0 if all_right else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted")
