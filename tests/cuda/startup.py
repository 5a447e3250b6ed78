#!/usr/bin/env python3
"""What the GPU's module costs those who do not use it: the start of the program with the module
beside it and without.

startup.py MOETRAIN MODULE [--rounds N] [--gpu]: copies the program to two folders, puts the module
into one as libmoetrain_cuda.so, and runs `--help` and one step of training on the CPU in both, in
turn. Prints a table: the median of the processor time with the module over that without, and the
noise, which is the same ratio between odd and even runs without it. --gpu adds a step on the GPU,
by the clock, over the same step on the CPU ($MT_CUDA_MODULE, or what finds itself beside the
program). Ends with 1 when a run that should not has loaded a library of CUDA."""
import argparse
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

CONFIG = """
[model]
hidden_size = 16
num_layers = 1
num_attention_heads = 2
num_key_value_heads = 1
max_seq_len = 16
[moe]
num_experts = 4
top_k = 2
expert_intermediate_size = 16
[optimizer]
lr = 1e-3
[data]
format = "random"
[train]
steps = 1
global_batch_size = 1
micro_batch_size = 1
[checkpoint]
interval = 0
"""
OF_CUDA = ("/libcuda.", "/libcudart", "/libcublas", "/libnccl", "/libmoetrain_")


class Failure(Exception):
    """A run that did not end well, or loaded what it must not."""


def spent():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(program, arguments, folder, by_clock=False):
    """Seconds of one run: of processors, or by the clock."""
    if len(arguments) > 1:
        shutil.rmtree(folder / "run", ignore_errors=True)
        arguments = arguments + ["--run-dir", str(folder / "run")]
    before, begin = spent(), time.monotonic()
    done = subprocess.run([program] + arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failure(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr[-300:]}")
    return time.monotonic() - begin if by_clock else spent() - before


def loaded(program, arguments, folder):
    """Libraries of CUDA that were initialised: with a driver, looked for by others too."""
    trace = folder / "trace"
    for old in folder.glob("trace.*"):
        old.unlink()
    os.environ["LD_DEBUG"], os.environ["LD_DEBUG_OUTPUT"] = "files", str(trace)
    try:
        run(program, arguments, folder)
    finally:
        del os.environ["LD_DEBUG"], os.environ["LD_DEBUG_OUTPUT"]
    lines = [line for file in folder.glob("trace.*")
             for line in file.read_text(errors="replace").splitlines()]
    if not any("calling init" in line for line in lines):
        raise Failure("LD_DEBUG says nothing; expected the libraries that were loaded")
    return sorted({line.split()[-1] for line in lines
                   if "calling init" in line and any(name in line for name in OF_CUDA)})


def compare(without, beside, arguments, folder, rounds):
    """Medians of runs in turn: with over without, and without over without."""
    plain, more = [], []
    for _ in range(rounds):
        plain.append(run(without, arguments, folder))
        more.append(run(beside, arguments, folder))
        plain.append(run(without, arguments, folder))
    ratio = statistics.median(more) / statistics.median(plain)
    return ratio, statistics.median(plain[::2]) / statistics.median(plain[1::2])


def place(program, folder, module=None):
    folder.mkdir()
    shutil.copy(program, folder / "moetrain")
    if module:
        shutil.copy(module, folder / "libmoetrain_cuda.so")
    return str(folder / "moetrain")


def main():
    options = argparse.ArgumentParser()
    options.add_argument("program")
    options.add_argument("module")
    options.add_argument("--rounds", type=int, default=100)
    options.add_argument("--gpu", action="store_true")
    given = options.parse_args()
    of_the_gpu = os.environ.pop("MT_CUDA_MODULE", None)
    is_clean = True
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        (folder / "step.toml").write_text(CONFIG)
        step = [str(folder / "step.toml"), "--quiet", "--set"]
        on_cpu = step + ["device.kind=\"cpu\""]
        without = place(given.program, folder / "without")
        beside = place(given.program, folder / "beside", given.module)
        print("| run | with the module beside it, over without | noise | CUDA loaded |")
        print("|---|---|---|---|")
        for name, arguments in (("--help", ["--help"]), ("one step on the CPU", on_cpu)):
            found = loaded(beside, arguments, folder)
            ratio, noise = compare(without, beside, arguments, folder, given.rounds)
            is_clean = is_clean and not found
            print(f"| {name} | {ratio:.3f} | {noise:.3f} | {', '.join(found) or 'none'} |")
        if given.gpu:
            if of_the_gpu:
                os.environ["MT_CUDA_MODULE"] = of_the_gpu
            on_gpu = step + ["device.kind=\"cuda\""]
            rounds = max(1, given.rounds // 10)
            times = [[run(beside, arguments, folder, by_clock=True) for _ in range(rounds)]
                     for arguments in (on_gpu, on_cpu)]
            ratio = statistics.median(times[0]) / statistics.median(times[1])
            print(f"\nA run of one step on the GPU takes {ratio:.1f} times as long as on the CPU, "
                  "by the clock: driver, context, libraries and memory.")
    return 0 if is_clean else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(f"startup.py: {failure}")
