#!/usr/bin/env python3
"""reshard_pairs.py [--ranks 1,2,3,4,8,16] [--policies ep,fssdp,...] [--width N]

A run of 3 steps by R ranks under one policy is taken up by R' ranks under another, for all pairs of
rank counts, policies in turn. What the second one loads it saves again at once (reload.c): both
checkpoints, put into one shard each, must be the same bytes. Then it makes the next step, whose loss
is compared with that of the run that nobody took over. What loading takes of memory beside the store
may not grow with the tensors: of --width 256 a checkpoint has 50 times the bytes of one of 32."""
import argparse
import pathlib
import re
import shutil
import subprocess
import tempfile

import runs

COMMON = ["checkpoint.interval=1", "checkpoint.keep=100", "train.micro_batch_size=1", "train.global_batch_size=16",
          "schedule.decay_steps=20", "model.init_std=0.3", "moe.num_experts=16",
          "placement.reshard_interval=2", "comm.watchdog_seconds=120",
          f'placement.costs="{runs.SOURCE}/tests/support/costs.json"']


def placing(policy):
    """fsdp needs room for every expert; the others are to choose which to copy."""
    slots = '"auto"' if policy == "fsdp" else "2"
    return [f'placement.policy="{policy}"', f"placement.slots={slots}"]


def train(folder, ranks, policy, *settings):
    run = runs.Run(folder, ranks, COMMON + placing(policy) + list(settings))
    run.start()
    if run.wait(300) != 0:
        raise runs.Unusable(f"{folder} on {ranks} ranks under {policy}: {run.said()[:600]}")
    return run


def in_one_shard(checkpoint, folder):
    subprocess.run([runs.PROGRAM, "checkpoint", "convert", str(checkpoint), folder], check=True,
                   stdout=subprocess.DEVNULL)
    with open(f"{folder}/shard-00000-of-00001.h5", "rb") as file:
        return file.read()


def bound_kib(saved):
    """For a manifest as text and as a tree of JSON, HDF5's own, a buffer; nothing a tensor's size."""
    return 8192 + 24 * (saved.path(3) / "manifest.json").stat().st_size // 1024


def reload(saved, folder, ranks, policy):
    """What `ranks` load of step 3 of `saved`, as a checkpoint, and the most that it took, in KiB."""
    settings = COMMON + placing(policy) + ["train.steps=4"]
    program = runs.LIBRARY.parent / "reload"
    done = subprocess.run(runs.MPIRUN + ["-np", str(ranks), str(program), str(runs.SOURCE / "configs/tiny.toml"),
                                         str(saved.path(3)), folder] + settings,
                          capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise runs.Unusable(f"{ranks} ranks under {policy} cannot load: {done.stderr[:600]}")
    taken_kib = int(re.search(r"loading took (-?\d+) KiB", done.stdout).group(1))
    if taken_kib > bound_kib(saved):
        raise runs.Unusable(f"{ranks} ranks under {policy}: loading took {taken_kib} KiB, not at most "
                            f"{bound_kib(saved)}")
    return pathlib.Path(folder) / "step-00000003", taken_kib


def take_up(saved, folder, ranks, policy):
    """The run `saved` from step 3 on, in a directory of its own."""
    run = runs.Run(folder, ranks, [])
    shutil.copytree(saved.path(3), run.path(3))
    return train(folder, ranks, policy, "train.steps=4")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", default="1,2,3,4,8,16")
    parser.add_argument("--policies", default="ep,fsdp,fastermoe,smartmoe,flexmoe,eplb,fssdp,fsep,least_loaded,quota,adaptive")
    parser.add_argument("--width", type=int, default=32, help="of the model and its experts [32]")
    options = parser.parse_args()
    COMMON.extend([f"model.hidden_size={options.width}", f"moe.expert_intermediate_size={options.width}"])
    counts = [int(word) for word in options.ranks.split(",")]
    policies = options.policies.split(",")
    folder = tempfile.mkdtemp(prefix="moetrain-reshard-")
    worst, n_pair, most_kib = 0.0, 0, 0
    for i, savers in enumerate(counts):
        from_policy = policies[i % len(policies)]
        saved = train(f"{folder}/saved{i}-{savers}", savers, from_policy, "train.steps=4")
        state = in_one_shard(saved.path(3), f"{folder}/state{i}-{savers}")
        want = saved.metrics()[3]["loss"]
        kib = sum(file.stat().st_size for file in saved.path(3).iterdir()) // 1024
        for j, loaders in enumerate(counts):
            to_policy = policies[(i + j + 1) % len(policies)]
            name = f"{folder}/{i}-{savers}-{j}-{loaders}"
            again, taken_kib = reload(saved, f"{name}-again", loaders, to_policy)
            if in_one_shard(again, f"{name}-state") != state:
                raise runs.Unusable(f"{savers} ranks under {from_policy} -> {loaders} under {to_policy}: other state")
            loss = take_up(saved, f"{name}-next", loaders, to_policy).metrics()[-1]["loss"]
            difference = abs(loss - want) / want
            worst = max(worst, difference)
            most_kib = max(most_kib, taken_kib)
            n_pair += 1
            if difference > 1e-6:
                raise runs.Unusable(f"{savers} ranks under {from_policy} -> {loaders} under {to_policy}: next loss "
                                    f"{loss}, not {want}")
            print(f"{savers:2d} ranks {from_policy:12s} -> {loaders:2d} ranks {to_policy:12s} state identical, next loss "
                  f"within {difference:.1e}; a rank took {taken_kib} KiB to load {kib}, may take "
                  f"{bound_kib(saved)}", flush=True)
    print(f"{n_pair} pairs: state bit-identical in all, next loss within {worst:.1e}; loading took at most "
          f"{most_kib} KiB beside the store on any rank, of checkpoints of {kib}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
