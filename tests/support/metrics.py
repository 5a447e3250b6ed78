#!/usr/bin/env python3
"""Comparing runs by their metrics.jsonl.

  metrics.py same A B            equal in everything that is not a time or a memory reading
  metrics.py equal A B KEY...    the same steps, with the same value of every KEY
  metrics.py close A B FIRST ALL first loss and gradient norm within FIRST relative, all losses within ALL
  metrics.py below A KEY VALUE   the last line with KEY is below VALUE
  metrics.py steps A FIRST LAST  training steps are exactly FIRST .. LAST, in order
  metrics.py finite A            every loss, norm, balance loss is a finite number
"""
import json
import math
import re
import sys

TIMES = re.compile(r"_s$|^tokens_per_s$|^model_flops_per_s$|^mfu$|^phase_|^memory_")


def lines(path):
    with open(path) as file:
        return [json.loads(line) for line in file]


def steps(path):
    return [line for line in lines(path) if "loss" in line]


def without_times(value):
    """The value without the keys that are times, in objects within it too."""
    if isinstance(value, list):
        return [without_times(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: without_times(item) for key, item in value.items() if not TIMES.search(key)}


def relative(a, b):
    return abs(a - b) / max(abs(a), abs(b), 1e-30)


def same(a, b):
    rows_a = [without_times(line) for line in lines(a) if "run" not in line]
    rows_b = [without_times(line) for line in lines(b) if "run" not in line]
    assert rows_a, f"{a} has no steps"
    assert len(rows_a) == len(rows_b), f"{len(rows_a)} lines and {len(rows_b)}"
    for row_a, row_b in zip(rows_a, rows_b):
        assert row_a == row_b, f"\n{row_a}\n{row_b}"


def equal(a, b, *keys):
    steps_a, steps_b = steps(a), steps(b)
    assert steps_a and len(steps_a) == len(steps_b), f"{len(steps_a)} steps and {len(steps_b)}"
    for row_a, row_b in zip(steps_a, steps_b):
        for key in keys:
            assert row_a[key] == row_b[key], f"step {row_a['step']}: {key} {row_a[key]}, {row_b[key]}"


def close(a, b, first, every):
    steps_a, steps_b = steps(a), steps(b)
    assert steps_a and len(steps_a) == len(steps_b), f"{len(steps_a)} steps and {len(steps_b)}"
    differences = [relative(steps_a[0][key], steps_b[0][key]) for key in ("loss", "grad_norm")]
    for key, difference in zip(("loss", "grad_norm"), differences):
        assert difference <= float(first), f"first {key} differs by {difference:.2e}"
    worst = max(relative(x["loss"], y["loss"]) for x, y in zip(steps_a, steps_b))
    assert worst <= float(every), f"losses differ by {worst:.2e}"
    balance = relative(steps_a[0]["balance_loss"], steps_b[0]["balance_loss"])
    assert balance <= float(first), f"first balance_loss differs by {balance:.2e}"
    print(f"loss {differences[0]:.2e} gradient norm {differences[1]:.2e} losses {worst:.2e}")


def below(a, key, value):
    last = [line[key] for line in lines(a) if key in line][-1]
    assert last < float(value), f"{key} is {last}, expected below {value}"


def in_order(a, first, last):
    found = [line["step"] for line in steps(a)]
    assert found == list(range(int(first), int(last) + 1)), f"steps {found}"
    assert "run" in lines(a)[0], "the first line does not describe the run"


def finite(a):
    assert steps(a)
    for line in steps(a):
        for key in ("loss", "grad_norm", "balance_loss", "z_loss", "lr"):
            assert isinstance(line[key], (int, float)) and math.isfinite(line[key]), (key, line)


if __name__ == "__main__":
    COMMANDS = {"same": same, "equal": equal, "close": close, "below": below, "steps": in_order, "finite": finite}
    try:
        COMMANDS[sys.argv[1]](*sys.argv[2:])
    except AssertionError as error:
        sys.exit(f"metrics {' '.join(sys.argv[1:])}: {error}")
