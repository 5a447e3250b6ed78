"""Whole runs under faults: starting them, hurting them, and looking at what they leave."""
import errno
import json
import mmap
import os
import pathlib
import re
import signal
import struct
import subprocess
import sys
import time

PROGRAM = os.environ["MOETRAIN"]
SOURCE = pathlib.Path(os.environ["MT_SOURCE"])
LIBRARY = pathlib.Path(os.environ["MT_BUILD"]) / "tests/fault/libmt_fault.so"
MPIRUN = ["mpirun", "-q", "--oversubscribe", "--allow-run-as-root", "--bind-to", "none",
          "--mca", "mpi_yield_when_idle", "1", "--mca", "btl_vader_single_copy_mechanism", "none",
          "--mca", "odls_base_sigkill_timeout", "0"]  # as launch/local.sh does

# The layout of struct mt_fault, interpose.h.
N_ORDER, MAX_RANKS, PREFIX_BYTES = 6, 64, 1024
FAULT_BYTES = 8 * (N_ORDER + MAX_RANKS + 1) + PREFIX_BYTES
KILL, TEAR, SHORT, SIGNAL = -1, -2, -3, -100
FOR_EVER = 1 << 40


class Unusable(Exception):
    """A state from which a run cannot go on as promised."""


class Faults:
    """Orders to the interposer in the ranks of a run."""

    def __init__(self, path, prefix):
        self.path = str(path)
        with open(self.path, "wb") as file:
            file.write(bytes(FAULT_BYTES))
        with open(self.path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), FAULT_BYTES)
        prefix = str(prefix).encode()
        start = FAULT_BYTES - PREFIX_BYTES
        self.memory[start:start + len(prefix) + 1] = prefix + b"\0"

    def order(self, at=0, n_fault=1, action=0, rank=-1):
        """From the at-th call on n_fault calls suffer `action`; at = 0: none."""
        struct.pack_into("<q", self.memory, 0, 0)
        struct.pack_into(f"<{MAX_RANKS + 1}q", self.memory, 8 * N_ORDER, *[0] * (MAX_RANKS + 1))
        struct.pack_into("<3q", self.memory, 8, n_fault, action, rank)
        struct.pack_into("<q", self.memory, 0, at)

    def n_hit(self):
        return struct.unpack_from("<q", self.memory, 8 * (N_ORDER + MAX_RANKS))[0]


class Run:
    def __init__(self, folder, ranks, settings, config="tiny.toml"):
        self.folder = pathlib.Path(folder).resolve()
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.ranks = ranks
        self.arguments = [str(SOURCE / "configs" / config), "--run-dir", str(self.folder), "--quiet"]
        for setting in settings:
            self.arguments += ["--set", setting]
        self.checkpoints = self.folder / "checkpoints"
        self.faults = Faults(f"{self.folder}.faults", self.checkpoints)
        self.process = None
        self.log_bytes = 0

    def start(self, ranks=None):
        log = self.folder / "run.log"
        self.log_bytes = log.stat().st_size if log.exists() else 0
        self.error = open(f"{self.folder}.err", "w+")
        preload = ["-x", f"LD_PRELOAD={LIBRARY}", "-x", f"MT_FAULT={self.faults.path}"]
        self.process = subprocess.Popen(
            MPIRUN + preload + ["-np", str(ranks or self.ranks), PROGRAM] + self.arguments,
            stdout=subprocess.DEVNULL, stderr=self.error, start_new_session=True)

    def pids(self):
        """Of the ranks, in the order of their start."""
        found = []
        for entry in os.listdir("/proc"):
            try:
                if entry.isdigit() and self.is_rank(entry):
                    found.append(int(entry))
            except OSError:
                pass  # it ended meanwhile
        return sorted(found)

    def is_rank(self, pid):
        words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return words[0] == PROGRAM.encode() and str(self.folder).encode() in words and \
            " Z " not in pathlib.Path(f"/proc/{pid}/stat").read_text()

    def send(self, number, pids):
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def wait(self, seconds):
        """The exit code, once mpirun and every rank are gone."""
        end = time.monotonic() + seconds
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Unusable(f"mpirun is still there after {seconds} s") from None
        while self.pids():
            if time.monotonic() > end + 1:
                raise Unusable(f"ranks {self.pids()} are left over")
            time.sleep(0.02)
        return code

    def kill(self):
        """Whatever is left, at once."""
        self.send(signal.SIGKILL, self.pids())
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def said(self):
        self.error.seek(0)
        return self.error.read()

    def log(self):
        """What this start has logged."""
        try:
            with open(self.folder / "run.log", "rb") as file:
                file.seek(self.log_bytes)
                return file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""

    def resumed_at(self):
        """Step from which this start went on; None when it has not said so yet."""
        match = re.search(r"resumed from \S+ at step (\d+)", self.log())
        return int(match.group(1)) if match else None

    def step(self):
        """The last step in the metrics."""
        try:
            with open(self.folder / "metrics.jsonl", "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 65536))
                lines = file.read().split(b"\n")[:-1]
        except FileNotFoundError:
            return 0
        for line in reversed(lines):
            match = re.match(rb'\{"step":(\d+),', line)
            if match:
                return int(match.group(1))
        return 0

    def wait_for_step(self, step, seconds=60):
        """As long as there is another step every so many seconds, however busy the machine is."""
        seen, end = self.step(), time.monotonic() + seconds
        while seen < step:
            if self.process.poll() is not None or time.monotonic() > end:
                raise Unusable(f"step {step} was not reached: {self.said()[:500]}")
            time.sleep(0.02)
            now = self.step()
            if now > seen:
                seen, end = now, time.monotonic() + seconds

    def wait_for_first_step(self, seconds=60):
        """Of this start: the metrics may have later ones, until it has cut them."""
        end = time.monotonic() + seconds
        while not re.search(r"^step \d+/", self.log(), re.MULTILINE):
            if self.process.poll() is not None or time.monotonic() > end:
                raise Unusable(f"no step was made: {self.said()[:500]}")
            time.sleep(0.02)

    def saved(self):
        """Steps with a checkpoint of that name, newest first."""
        if not self.checkpoints.exists():
            return []
        found = (re.fullmatch(r"step-(\d{8})", path.name) for path in self.checkpoints.iterdir())
        return sorted((int(match.group(1)) for match in found if match), reverse=True)

    def path(self, step):
        return self.checkpoints / f"step-{step:08d}"

    def is_whole(self, step):
        return subprocess.run([PROGRAM, "verify", str(self.path(step))],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0

    def newest_whole(self, damaged=()):
        """0: none. A directory with the name of a checkpoint is whole, unless we damaged it."""
        for step in self.saved():
            if self.is_whole(step):
                return step
            if step not in damaged:
                raise Unusable(f"{self.path(step)} is not whole")
        return 0

    def metrics(self):
        with open(self.folder / "metrics.jsonl") as file:
            return [line for line in map(json.loads, file) if "loss" in line]


def compare(a, b):
    """Metrics and final checkpoints of two runs are the same, byte for byte but for times."""
    script = SOURCE / "tests/support/metrics.py"
    same = subprocess.run([sys.executable, script, "same", a.folder / "metrics.jsonl",
                           b.folder / "metrics.jsonl"], capture_output=True, text=True)
    if same.returncode != 0:
        raise Unusable(f"metrics differ from those of the uninterrupted run: {same.stderr[:500]}")
    if not a.saved() or a.saved()[0] != b.saved()[0]:
        raise Unusable(f"the last checkpoints are of steps {a.saved()[:1]} and {b.saved()[:1]}")
    step = a.saved()[0]
    for shard in sorted(a.path(step).glob("shard-*.h5")):
        if shard.read_bytes() != (b.path(step) / shard.name).read_bytes():
            raise Unusable(f"{shard} differs from that of the uninterrupted run")


ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EDQUOT": errno.EDQUOT}
