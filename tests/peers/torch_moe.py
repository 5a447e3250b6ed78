#!/usr/bin/env python3
"""moetrain against PyTorch on one core: the same model, weights, data and optimizer, step for step.

    tests/peers/torch_moe.py [--core 1] [--rounds 6] [--steps 4] [--modes float32,bfloat16]

needs python3 with torch, numpy and h5py (measured with torch 2.15 from PyPI) and a build of moetrain
(BUILD_DIR, default build). Not a test of CI: it takes some minutes and wants a quiet core.

1. moetrain writes its initial weights as a checkpoint, then trains a few steps from them; every
   PyTorch variant makes the same steps from the same file: both losses are printed side by side.
2. Every variant of experts (torch_model.py), with and without torch.compile, is timed; the fastest
   goes on.
3. moetrain and PyTorch in turn, A B A B, on the same core: best and median of each, ratio, memory.

PyTorch gets what makes it faster: fused AdamW, one product for q, k, v and one for gate and up, MKL's
AVX-512 kernels, an allocator that keeps its pages, huge pages, oneDNN, denormals flushed, one thread on
a core of its own; OPENBLAS_CORETYPE is unset. bfloat16 is torch.autocast.
"""
import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs/bench-cpu.toml"
MODEL = dict(layers=4, heads=4, kv_heads=4, head_dim=64, length=256, experts=8, top_k=2, theta=10000.0,
             eps=1e-5, vocab=256, batch=8, lr=1e-3, betas=(0.9, 0.95), adam_eps=1e-8, decay=0.1, clip=1.0,
             balance=0.01, seed=1)
VARIANTS = [(experts, compiled) for experts in ("loop", "function", "grouped", "bmm") for compiled in (0, 1)]
N_COMPARED = 6

# ---- The tokens of data.format = "random": Philox4x32-10 by (seed, stream, index) -----------------


def philox(key, high, low):
    import numpy as np
    mask = np.uint64(0xFFFFFFFF)
    low, high = np.asarray(low, np.uint64), np.asarray(high, np.uint64)
    c = [low & mask, low >> np.uint64(32), high & mask, high >> np.uint64(32)]
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> np.uint64(32)) ^ c[1] ^ np.uint64(k0), p1 & mask,
             (p0 >> np.uint64(32)) ^ c[3] ^ np.uint64(k1), p0 & mask]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c[1] << np.uint64(32) | c[0]


def batch(step, config):
    """token, target [B,T] of the 0-based step."""
    import numpy as np
    import torch
    stream = 0xCBF29CE484222325
    for letter in b"data.random":
        stream = (stream ^ letter) * 0x100000001B3 % 2**64
    window = np.arange(config["batch"], dtype=np.uint64)[:, None] + np.uint64(step * config["batch"])
    with np.errstate(over="ignore"):
        bits = philox(config["seed"], np.uint64(stream) + window,
                      np.arange(config["length"] + 1, dtype=np.uint64)[None])
        ids = torch.from_numpy((bits % np.uint64(config["vocab"])).astype(np.int64))
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


# ---- A process with PyTorch in it: reads "N" from standard input, makes N steps, writes their times --


def work(path, experts, compiled, dtype):
    import torch
    from torch_model import Trainer
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(1)
    trainer = Trainer(path, MODEL, experts, compiled, dtype)
    batches = [batch(i, MODEL) for i in range(64)]
    done = 0
    print(json.dumps({"torch": torch.__version__, "mkldnn": torch.backends.mkldnn.is_available()}), flush=True)
    for line in sys.stdin:
        times, cpu, losses, norms = [], [], [], []
        for _ in range(int(line)):
            start, cpu_start = time.perf_counter(), time.process_time()
            loss, norm = trainer.step(*batches[done % len(batches)])
            times.append(time.perf_counter() - start)
            cpu.append(time.process_time() - cpu_start)
            losses.append(loss)
            norms.append(norm)
            done += 1
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"times": times, "cpu": cpu, "losses": losses, "norms": norms, "peak_bytes": peak}), flush=True)


def shim(folder):
    """MKL keeps its AVX-512 kernels from processors of other makers; on this question PyTorch's copy asks the
    dynamic linker first."""
    source, library = f"{folder}/mkl.c", f"{folder}/mkl.so"
    with open(source, "w") as f:
        f.write("int mkl_serv_intel_cpu_true(void) { return 1; }\n")
    made = subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-o", library, source], check=False)
    if made.returncode == 0:
        os.environ["MT_PEER_PRELOAD"] = library


def environment():
    env = dict(os.environ, OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", MKL_ENABLE_INSTRUCTIONS="AVX512",
               THP_MEM_ALLOC_ENABLE="1", MALLOC_MMAP_THRESHOLD_=str(2**31 - 1),
               MALLOC_TRIM_THRESHOLD_=str(2**40), MALLOC_TOP_PAD_=str(2**26), CUDA_VISIBLE_DEVICES="")
    env.pop("OPENBLAS_CORETYPE", None)
    if "MT_PEER_PRELOAD" in env:
        env["LD_PRELOAD"] = env["MT_PEER_PRELOAD"]
    return env


class Torch:
    def __init__(self, core, path, variant, dtype):
        experts, compiled = variant
        self.name = experts + (" + compile" if compiled else "")
        self.process = subprocess.Popen(
            ["taskset", "-c", core, sys.executable, __file__, "--worker", path, experts, str(compiled), dtype],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
        self.about = self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(self.process.stderr.read().strip().splitlines()[-1:])
        return json.loads(line)

    def run(self, n):
        self.process.stdin.write(f"{n}\n")
        self.process.stdin.flush()
        return self.read()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


# ---- moetrain ---------------------------------------------------------------------------------------


class Moetrain:
    def __init__(self, core, dtype):
        build = pathlib.Path(os.environ.get("BUILD_DIR", "build"))
        self.command = ["taskset", "-c", core, str(ROOT / build / "moetrain")]
        self.set = ["--set", f'device.dtype="{dtype}"', "--set", "device.threads=1"]

    def call(self, *words):
        done = subprocess.run([*self.command, *words, *self.set], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(done.stderr.strip())
        return done.stdout

    def run(self, n):
        return json.loads(self.call("bench", "step", str(CONFIG), "--json", "--warm-up", "2", "--steps", str(n)))

    def losses(self, folder, n):
        """Initial weights in a file that h5py opens, and the first losses from them."""
        first, again = f"{folder}/first", f"{folder}/again"
        self.call("train", str(CONFIG), "--quiet", "--run-dir", first, "--set", "train.steps=1",
                  "--set", "checkpoint.interval=1", "--set", "optimizer.lr=1e-30")
        checkpoint = f"{first}/checkpoints/step-00000001"
        self.call("train", str(CONFIG), "--quiet", "--run-dir", again, "--init-from", checkpoint,
                  "--set", f"train.steps={n}", "--set", 'schedule.kind="constant"')
        lines = [json.loads(line) for line in open(f"{again}/metrics.jsonl")]
        steps = [line for line in lines if "loss" in line]
        return f"{checkpoint}/index.h5", [s["loss"] for s in steps], [s["grad_norm"] for s in steps]


def compare_losses(name, ours, theirs, our_norms, their_norms):
    print(f"  {name:22s} {'step':>6s} {'moetrain':>12s} {'PyTorch':>12s} {'difference':>11s} {'grad norm':>10s}"
          f" {'PyTorch':>10s}")
    for i, (a, b) in enumerate(zip(ours, theirs)):
        print(f"  {'':22s} {i + 1:6d} {a:12.7f} {b:12.7f} {b - a:11.1e} {our_norms[i]:10.5f} {their_norms[i]:10.5f}")


def choose(core, path, dtype, variants, ours, norms):
    """The variant with the least CPU time a step, warm: on a shared machine that is the steadier clock."""
    best, best_time = None, 0.0
    for variant in variants:
        try:
            torch = Torch(core, path, variant, dtype)
            first = torch.run(N_COMPARED)
            fastest = min(torch.run(4)["cpu"])
        except (RuntimeError, BrokenPipeError) as error:
            print(f"  {variant[0]:10s} {'compiled' if variant[1] else 'eager':10s} does not run: {str(error)[:90]}")
            continue
        worst = max(abs(a - b) for a, b in zip(ours, first["losses"]))
        print(f"  {variant[0]:10s} {'compiled' if variant[1] else 'eager':10s} {fastest * 1e3:8.1f} ms of CPU a step;"
              f" first loss {first['losses'][0] - ours[0]:+.1e}, largest difference of {N_COMPARED} {worst:.1e}",
              flush=True)
        if best is None or fastest < best_time:
            if best is not None:
                best.close()
            best, best_time, losses = torch, fastest, first
        else:
            torch.close()
    compare_losses(best.name, ours, losses["losses"], norms, losses["norms"])
    return best


def race(dtype, options, folder):
    core = str(options.core)
    moetrain = Moetrain(core, dtype)
    path, ours, norms = moetrain.losses(f"{folder}/{dtype}", N_COMPARED)
    print(f"\n{dtype}: one core")
    torch = choose(core, path, dtype, options.variants, ours, norms)
    times = {"moetrain": [], "PyTorch": []}
    cpu = {"moetrain": [], "PyTorch": []}
    peak = {}
    for _ in range(options.rounds):
        report = moetrain.run(options.steps)
        times["moetrain"] += [report["best_step_s"], report["step_s"]]
        cpu["moetrain"].append(report["best_cpu_s"])
        peak["moetrain"] = report["peak_bytes"]
        report = torch.run(options.steps)
        times["PyTorch"] += [min(report["times"]), statistics.median(report["times"])]
        cpu["PyTorch"].append(min(report["cpu"]))
        peak["PyTorch"] = report["peak_bytes"]
    torch.close()
    tokens = MODEL["batch"] * MODEL["length"]
    print(f"  {'':22s} {'best ms':>9s} {'median ms':>10s} {'CPU ms':>8s} {'tokens/s':>9s} {'peak MiB':>9s}")
    for name, values in times.items():
        label = name if name == "moetrain" else f"PyTorch ({torch.name})"
        print(f"  {label:22s} {min(values) * 1e3:9.1f} {statistics.median(values[1::2]) * 1e3:10.1f}"
              f" {min(cpu[name]) * 1e3:8.1f} {tokens / min(values):9.0f} {peak[name] / 2**20:9.0f}")
    bar = 1.25 if dtype == "float32" else 1.5
    fastest = min(times["PyTorch"]) / min(times["moetrain"])
    middle = statistics.median(times["PyTorch"][1::2]) / statistics.median(times["moetrain"][1::2])
    by_cpu = min(cpu["PyTorch"]) / min(cpu["moetrain"])
    print(f"  moetrain is {fastest:.2f} times as fast by the best step, {middle:.2f} by the median,"
          f" {by_cpu:.2f} by the least\n  CPU time of a step (at least {bar}); memory {peak['moetrain'] / peak['PyTorch']:.2f} of PyTorch's", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=4, help="of each in a round")
    parser.add_argument("--modes", default="float32,bfloat16")
    parser.add_argument("--variants", default=",".join(f"{e}:{c}" for e, c in VARIANTS),
                        help="EXPERTS:0|1, e.g. loop:1,function:1; 1 = torch.compile")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        path, experts, compiled, dtype = options.worker
        work(path, experts, int(compiled), dtype)
        return
    options.variants = [(v.split(":")[0], int(v.split(":")[1])) for v in options.variants.split(",")]
    version = Moetrain(str(options.core), "float32")
    version.set = []
    about = subprocess.run([sys.executable, "-c", "import torch, sys; print(torch.__version__, sys.version.split()[0])"],
                           capture_output=True, text=True, check=True).stdout.split()
    print(f"{version.call('--version').splitlines()[0]}; PyTorch {about[0]}, Python {about[1]}; core {options.core}")
    with tempfile.TemporaryDirectory() as folder:
        shim(folder)
        for dtype in options.modes.split(","):
            race(dtype, options, folder)


if __name__ == "__main__":
    main()
