#!/usr/bin/env python3
"""random_kills.py --kills N --seed S [--ranks R] [--sparse N] [--set KEY=VALUE] [--dir DIR]

A run of a small model is killed N times at random: one rank or all, at a random moment of its life
or at a random system call of a save. After each kill every directory with the name of a checkpoint
must be whole, the next start must go on from the newest of them, and none may be older than the one
before. In the end the run must equal, bit for bit, one that nobody disturbed. With --sparse experts are
saved in turn (checkpoint.sparse_saves): then the run says how many of their updates it has lost, and is
compared by its loss."""
import argparse
import random
import re
import shutil
import signal
import tempfile
import time

import runs

SETTINGS = ["checkpoint.interval=2", "checkpoint.keep=2", 'schedule.kind="constant"',
            "comm.watchdog_seconds=20", f'placement.costs="{runs.SOURCE}/tests/support/costs.json"']


def hurt(run, draw, tally):
    """Kills the run in one of the ways; returns when it is gone, with the seconds that took."""
    way = draw.choice(["call", "torn call", "moment", "moment of all"])
    tally[way] = tally.get(way, 0) + 1
    if "call" in way:
        run.faults.order(at=draw.randint(1, 200), action=runs.TEAR if "torn" in way else runs.KILL,
                         rank=draw.randrange(run.ranks))
        run.start()
        code = run.process.wait(60)
    else:
        run.faults.order()
        run.start()
        time.sleep(draw.uniform(0.0, 2.0))
        pids = run.pids()
        if way == "moment of all":
            run.process.kill()
        run.send(signal.SIGKILL, pids if way == "moment of all" else draw.sample(pids, min(1, len(pids))))
        if not pids:
            run.process.kill()  # nothing but mpirun was there
        code = run.process.wait(60)
    start = time.monotonic()
    while run.pids():
        if time.monotonic() - start > 5:
            raise runs.Unusable(f"ranks are left over 5 s after mpirun's end: {run.pids()}")
        time.sleep(0.02)
    if code == 0:
        raise runs.Unusable("a killed run ended with code 0")
    run.faults.order()
    # Three kills in a row before a first step are no checkpoint's fault (decision 14), only ours.
    (run.checkpoints / "attempts").unlink(missing_ok=True)


def lost_updates(run):
    """Of all the run's starts together, as the last one said; 0: none was from a sparse checkpoint."""
    said = re.findall(r"; (\d+) in all of this run so far", (run.folder / "run.log").read_text())
    return max(map(int, said), default=0)


def conclude(options, run, undisturbed):
    """What came of the kills: the same bits, or how far the loss is off."""
    if not options.sparse:
        runs.compare(run, undisturbed)
        return f"{run.step()} steps bit-identical to a run that nobody disturbed"
    ours, theirs = (sum(line["loss"] for line in x.metrics()[-20:]) / 20 for x in (run, undisturbed))
    return (f"{lost_updates(run)} expert updates lost in {run.step()} steps; mean loss of the last 20 "
            f"{ours:.5f}, {theirs:.5f} in a run that nobody disturbed")


def go(options, folder):
    draw = random.Random(options.seed)
    common = SETTINGS + options.settings
    settings = common + ([f"checkpoint.sparse_saves={options.sparse}"] if options.sparse else [])
    run = runs.Run(f"{folder}/killed", options.ranks, settings + ["train.steps=1000000"])
    newest, n_resumed, tally = 0, 0, {}
    for kill in range(options.kills):
        hurt(run, draw, tally)
        resumed = run.resumed_at()
        if resumed is not None and resumed != newest:
            raise runs.Unusable(f"kill {kill}: resumed at {resumed}, the last commit is {newest}")
        n_resumed += resumed is not None
        now = run.newest_whole()
        if now < newest:
            raise runs.Unusable(f"kill {kill}: the newest checkpoint went from {newest} to {now}")
        newest = now
        if kill % 50 == 49:
            print(f"{kill + 1} kills: {tally}, {n_resumed} resumed, newest step {newest}", flush=True)
    run.start()
    run.wait_for_first_step()  # mpirun takes no signals before; the metrics may have later steps until they are cut
    run.wait_for_step(newest + 3)
    run.send(signal.SIGUSR1, [run.process.pid])
    code = run.wait(30)
    if code != 75 or run.resumed_at() != (newest or None):
        raise runs.Unusable(f"the last start: code {code}, resumed at {run.resumed_at()}: {run.said()}")
    undisturbed = runs.Run(f"{folder}/undisturbed", options.ranks,
                           common + [f"train.steps={run.step()}"])
    undisturbed.start()
    if undisturbed.wait(600) != 0:
        raise runs.Unusable(f"the undisturbed run failed: {undisturbed.said()}")
    end = conclude(options, run, undisturbed)
    print(f"seed {options.seed}, {options.ranks} ranks, {options.kills} kills ({tally}): {n_resumed} resumed, "
          f"always from the last commit; 0 unusable states; {end}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--sparse", type=int, default=0, help="checkpoint.sparse_saves [0]")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--dir", help="where the runs go; kept [a new folder, removed]")
    options = parser.parse_args()
    folder = options.dir or tempfile.mkdtemp(prefix="moetrain-kills-")
    go(options, folder)
    if not options.dir:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
