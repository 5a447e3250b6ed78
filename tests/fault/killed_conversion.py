#!/usr/bin/env python3
"""killed_conversion.py [--every N] [--seed S]

`checkpoint convert` is killed at each system call that changes files, before it and in the middle of
it, and each is refused by the disk, once and from there on. The new checkpoint is whole or absent, the
old one untouched, nothing is left where the disk refused, and the next attempt makes the same files.
--every N: only each N-th call, from one that the seed draws."""
import argparse
import errno
import filecmp
import os
import pathlib
import random
import shutil
import subprocess
import tempfile

import runs

WAYS = {"killed": (runs.KILL, 1), "torn": (runs.TEAR, 1), "refused once": (errno.EIO, 1),
        "a full disk": (errno.ENOSPC, runs.FOR_EVER), "cut short": (runs.SHORT, 1)}


def convert(saved, made, faults=None):
    """(exit code, what it said)"""
    environment = dict(os.environ)
    if faults:
        environment.update(LD_PRELOAD=str(runs.LIBRARY), MT_FAULT=faults.path)
    done = subprocess.run([runs.PROGRAM, "checkpoint", "convert", saved, made], env=environment,
                          capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr


def same(a, b):
    names = sorted(os.listdir(a))
    return names == sorted(os.listdir(b)) and filecmp.cmpfiles(a, b, names, shallow=False)[1:] == ([], [])


def try_call(folder, saved, whole, faults, at, way):
    """False: there were not so many calls."""
    action, n_fault = WAYS[way]
    made = folder / "made" / "new"
    faults.order(at=at, n_fault=n_fault, action=action)
    code, said = convert(saved, made, faults)
    n_hit = faults.n_hit()
    faults.order()
    where = f"{way} at call {at}"
    if made.exists() and not same(made, whole):
        raise runs.Unusable(f"{where}: code {code}, the new checkpoint is not whole")
    if code == 0 and not made.exists():
        raise runs.Unusable(f"{where}: code 0, and there is no checkpoint")
    if action > 0 and n_hit > 0 and code != 0:
        if code != 4 or said.count("moetrain: ") != 1:
            raise runs.Unusable(f"{where}: code {code}: {said}")
        if n_fault == 1 and not made.exists() and os.listdir(folder / "made"):
            raise runs.Unusable(f"{where}: left {os.listdir(folder / 'made')}")
    if not made.exists() and (convert(saved, made)[0] != 0 or not same(made, whole)):
        raise runs.Unusable(f"{where}: the next attempt failed, or made something else")
    shutil.rmtree(folder / "made")
    (folder / "made").mkdir()
    return n_hit > 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="moetrain-convert-")).resolve()
    run = runs.Run(folder / "run", 2, ["train.steps=3", "checkpoint.interval=1", "checkpoint.sparse_saves=3"])
    run.start()
    if run.wait(60) != 0:
        raise runs.Unusable(run.said())
    saved, whole = run.path(2), folder / "whole"
    (folder / "made").mkdir()
    if convert(saved, whole)[0] != 0 or subprocess.run([runs.PROGRAM, "verify", whole], capture_output=True).returncode:
        raise runs.Unusable("the undisturbed conversion failed")
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    faults = runs.Faults(folder / "faults", folder / "made")
    tally = {}
    for way in WAYS:
        at = draw.randint(1, options.every)
        while try_call(folder, saved, whole, faults, at, way):
            tally[way] = tally.get(way, 0) + 1
            at += options.every
    if {path.name: path.read_bytes() for path in saved.iterdir()} != before:
        raise runs.Unusable("the source has changed")
    print(f"seed {options.seed}, {tally}: absent or whole, and the next attempt made the same files")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
