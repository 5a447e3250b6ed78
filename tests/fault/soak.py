#!/usr/bin/env python3
"""soak.py --minutes N --seed S [--every SECONDS] [--ranks R] [--dir DIR] [--each] [--kinds A,B]

A run under a supervisor that starts it again whatever happens, while faults of all kinds come at
exponentially distributed times, `every` seconds apart in the mean: ranks killed, crashed or stopped,
jobs told to stop, also during a save and while they start, disks that are full or fail, bits that
flip between two starts. `--each`: every kind (or those of `--kinds`) once, in seeded
order, by no clock, and the run is compared with one that nobody disturbed.

Effective time is the sum of the times of the steps that the run has in the end, over all the time
that went by: what is lost are starts, steps done again, saves, and waiting for a watchdog. What this
script itself verifies between two starts does not count."""
import argparse
import errno
import random
import shutil
import signal
import tempfile
import time

import runs

SETTINGS = ["checkpoint.keep=3", 'schedule.kind="constant"', "train.replica_check_interval=3",
            f'placement.costs="{runs.SOURCE}/tests/support/costs.json"']
# name -> the codes with which a job may end: mpirun's own are those of signals; 0: it goes on
KILLED = {9, 137, 11, 139, 6, 134, 1}
KINDS = {
    "kill a rank": KILLED, "kill all ranks": KILLED, "segmentation fault of a rank": KILLED,
    "abort of a rank": KILLED, "kill in a save": KILLED, "torn write": KILLED,
    "stop request to mpirun": {75}, "stop request to a rank": {75}, "SIGTERM to a rank": {75},
    "SIGTERM to mpirun": KILLED | {75, 143}, "SIGTERM in a save": {75}, "stop request at start": {75}, "two stop requests": {75},
    "hang of a rank": {124}, "hang in a save": {124},
    "full disk": {4}, "one failed call in a save": {0, 4}, "flipped bit": KILLED,
}


class Soak:
    def __init__(self, options, folder):
        self.draw = random.Random(options.seed)
        self.options = options
        settings = SETTINGS + [f"comm.watchdog_seconds={options.watchdog}",
                               f"checkpoint.interval={options.interval}", "train.steps=1000000"]
        if options.pace:
            settings.append(f"device.pace_gflops={options.pace}")
        self.run = runs.Run(f"{folder}/run", options.ranks, settings)
        self.folder = folder
        self.settings = settings
        self.damaged = set()
        self.tally = {}
        self.slowest_end_s = 0.0
        self.checking_s = 0.0
        self.starting_s = self.ending_s = 0.0
        self.n_redone = 0
        self.is_awaited = False  # a fault at a call that is yet to come
        self.expected = None  # step from which the present start must go on

    def newest_whole(self):
        start = time.monotonic()
        step = self.run.newest_whole(self.damaged)
        self.checking_s += time.monotonic() - start
        return step

    def one_rank(self):
        pids = self.run.pids()
        return [self.draw.choice(pids)] if pids else []

    def at_next_call(self, action, n_fault=1):
        """In the next save, or the one after it: a rank makes at least ten calls in each."""
        self.run.faults.order(at=self.draw.randint(1, 15), n_fault=n_fault, action=action,
                              rank=self.draw.randrange(self.run.ranks))
        self.is_awaited = True

    def signal_at_call(self, number):
        self.at_next_call(runs.SIGNAL - number)

    def inject(self, kind):
        send, run = self.run.send, self.run
        if kind in ("kill a rank", "flipped bit"):
            send(signal.SIGKILL, self.one_rank())
        elif kind == "kill all ranks":
            send(signal.SIGKILL, run.pids())
        elif kind == "segmentation fault of a rank":
            send(signal.SIGSEGV, self.one_rank())
        elif kind == "abort of a rank":
            send(signal.SIGABRT, self.one_rank())
        elif kind == "kill in a save":
            self.at_next_call(runs.KILL)
        elif kind == "torn write":
            self.at_next_call(runs.TEAR)
        elif kind in ("stop request to mpirun", "stop request at start"):
            send(signal.SIGUSR1, [run.process.pid])
        elif kind == "stop request to a rank":
            send(signal.SIGUSR1, self.one_rank())
        elif kind == "SIGTERM to mpirun":
            send(signal.SIGTERM, [run.process.pid])
        elif kind == "SIGTERM to a rank":
            send(signal.SIGTERM, self.one_rank())
        elif kind == "SIGTERM in a save":
            self.signal_at_call(signal.SIGTERM)
        elif kind == "two stop requests":
            rank = self.one_rank()
            send(signal.SIGTERM, rank)
            time.sleep(0.005)
            send(signal.SIGUSR1, rank)
        elif kind == "hang of a rank":
            send(signal.SIGSTOP, self.one_rank())
        elif kind == "hang in a save":
            self.signal_at_call(signal.SIGSTOP)
        elif kind == "full disk":
            run.faults.order(at=1, n_fault=runs.FOR_EVER, action=errno.ENOSPC)
        elif kind == "one failed call in a save":
            self.at_next_call(self.draw.choice([errno.EIO, errno.EDQUOT, errno.ENOSPC]))

    def flip_a_bit(self):
        """In the newest checkpoint, when there is an older one to fall back to."""
        saved = self.run.saved()
        if len(saved) < 2 or not self.run.is_whole(saved[1]):
            return
        files = sorted(self.run.path(saved[0]).iterdir())
        path = self.draw.choice(files)
        data = bytearray(path.read_bytes())
        place = self.draw.randrange(len(data))
        data[place] ^= 1 << self.draw.randrange(8)
        path.write_bytes(data)
        self.damaged.add(saved[0])

    def begin(self):
        """Starts, and expects that the run goes on from the newest whole checkpoint."""
        self.run.faults.order()
        self.damaged &= set(self.run.saved())
        self.expected = self.newest_whole()
        self.n_redone += max(0, self.run.step() - self.expected)
        self.seen = max(self.run.step(), self.expected)
        self.began = time.monotonic()
        self.run.start()

    def check_start(self):
        resumed = self.run.resumed_at()
        if resumed is not None and resumed != self.expected:
            raise runs.Unusable(f"went on at step {resumed}, not {self.expected}")
        if resumed is None and self.expected > 0 and "step " in self.run.log():
            if self.run.log().count(" tok/s ") > 0:
                raise runs.Unusable(f"started again although step {self.expected} was saved")

    def wait_until_it_trains(self):
        self.run.wait_for_first_step()
        self.starting_s += time.monotonic() - self.began
        self.run.wait_for_step(self.seen + 2)

    def end(self, kind):
        """The job's end as it should be; a fault that a run survives leaves it running."""
        codes = KINDS[kind]
        until = time.monotonic() + 300
        while self.is_awaited and self.run.faults.n_hit() == 0 and self.run.process.poll() is None:
            if time.monotonic() > until:
                raise runs.Unusable(f"{kind}: no save came for 300 s")
            time.sleep(0.01)
        self.is_awaited = False
        start = time.monotonic()
        limit = self.options.watchdog + 15 if "hang" in kind else 60
        if 0 in codes:
            step = self.run.step()
            while self.run.process.poll() is None and self.run.step() < step + 3 * self.options.interval:
                time.sleep(0.05)
            if self.run.process.poll() is None:
                self.run.faults.order()
                return False
        code = self.run.process.wait(limit)
        if "hang" not in kind and "save" not in kind and kind not in ("full disk", "torn write"):
            self.slowest_end_s = max(self.slowest_end_s, time.monotonic() - start)
        if "hang" in kind:  # the stopped rank itself can do nothing
            deadline = time.monotonic() + 5
            while self.run.pids() and time.monotonic() < deadline:
                time.sleep(0.05)
        self.run.wait(5)
        if code not in codes:
            raise runs.Unusable(f"{kind}: the job ended with code {code}, not {sorted(codes)}: "
                                f"{self.run.said()[:600]}")
        if code == 124 and "did not complete within" not in self.run.said():
            raise runs.Unusable(f"{kind}: the hang was not explained: {self.run.said()[:600]}")
        if code == 75 and kind != "two stop requests" and self.newest_whole() < self.run.step():
            raise runs.Unusable(f"{kind}: code 75, and step {self.run.step()} was not saved")
        return True

    def one_fault(self, kind, delay_s):
        if kind == "stop request at start":
            if self.run.process.poll() is None:
                self.run.send(signal.SIGUSR1, [self.run.process.pid])
                self.run.wait(30)
            self.begin()
            time.sleep(self.draw.uniform(0.6, 1.2))
        else:
            time.sleep(delay_s)
        if self.run.process.poll() is not None:
            raise runs.Unusable(f"the job ended by itself, code {self.run.process.returncode}: {self.run.said()[:600]}")
        self.inject(kind)
        start = time.monotonic()
        is_over = self.end(kind)
        self.check_start()
        if kind == "flipped bit":
            self.flip_a_bit()
        if is_over:
            self.ending_s += time.monotonic() - start
            self.begin()
            self.wait_until_it_trains()
            self.check_start()
        n, lost = self.tally.get(kind, (0, 0.0))
        self.tally[kind] = (n + 1, lost + time.monotonic() - start)

    def report(self, wall_s):
        steps = self.run.metrics()
        numbers = [line["step"] for line in steps]
        if numbers != list(range(1, len(numbers) + 1)):
            raise runs.Unusable("the metrics do not read as one run")
        useful_s = sum(line["step_time_s"] for line in steps)
        n_fault = sum(n for n, _ in self.tally.values())
        for kind, (n, seconds) in sorted(self.tally.items()):
            print(f"  {n:4d} x {kind:30s} {seconds / n:5.1f} s until it trained again")
        print(f"seed {self.options.seed}, {self.options.ranks} ranks, {n_fault} faults in {wall_s / 60:.1f} minutes, "
              f"one in {wall_s / max(n_fault, 1):.0f} s; {len(steps)} steps of {useful_s / len(steps):.3f} s")
        shares = {"starts": self.starting_s, "steps done again": self.n_redone * useful_s / len(steps),
                  "from faults to the jobs' ends": self.ending_s}
        print("lost to " + ", ".join(f"{what} {100 * s / wall_s:.1f} %" for what, s in shares.items()))
        print(f"killed and crashed jobs were gone within {self.slowest_end_s:.1f} s")
        print(f"unusable states 0; effective time {useful_s / wall_s:.4f}")

    def compare_with_undisturbed(self):
        other = runs.Run(f"{self.folder}/undisturbed", self.options.ranks,
                         self.settings[:-2] + [f"checkpoint.interval={self.options.interval}",
                                               f"train.steps={self.run.step()}"])
        other.start()
        if other.wait(600) != 0:
            raise runs.Unusable(f"the undisturbed run failed: {other.said()}")
        runs.compare(self.run, other)
        print("the run is bit-identical to one that nobody disturbed")

    def go(self):
        kinds = self.options.kinds.split(",") if self.options.kinds else list(KINDS)
        start = time.monotonic()
        self.begin()
        self.wait_until_it_trains()
        if self.options.each:
            self.draw.shuffle(kinds)
            for kind in kinds:
                self.one_fault(kind, self.draw.uniform(0.0, 0.3))
        end = start + 60 * self.options.minutes
        while not self.options.each:
            delay_s = self.draw.expovariate(1 / self.options.every)
            if time.monotonic() + delay_s > end:
                time.sleep(max(0.0, end - time.monotonic()))
                break
            self.one_fault(self.draw.choice(kinds), delay_s)
        self.run.send(signal.SIGUSR1, [self.run.process.pid])
        if self.run.wait(60) != 75:
            raise runs.Unusable(f"the last stop: {self.run.said()}")
        self.report(time.monotonic() - start - self.checking_s)
        if self.options.each:
            self.compare_with_undisturbed()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--every", type=float, default=120, help="seconds from one fault to the next, mean [120]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--interval", type=int, default=20, help="steps from one save to the next [20]")
    parser.add_argument("--pace", type=float, default=0.12, help="device.pace_gflops [0.12: a step takes 0.1 s]")
    parser.add_argument("--watchdog", type=int, default=10, help="comm.watchdog_seconds [10]")
    parser.add_argument("--each", action="store_true", help="every kind of fault once")
    parser.add_argument("--kinds", help="only these, separated by commas")
    parser.add_argument("--dir", help="where the runs go; kept [a new folder, removed]")
    options = parser.parse_args()
    folder = options.dir or tempfile.mkdtemp(prefix="moetrain-soak-")
    soak = Soak(options, folder)
    try:
        soak.go()
    finally:
        soak.run.kill()
    if not options.dir:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
