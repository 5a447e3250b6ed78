#!/usr/bin/env python3
"""Sequences whose every token is the sequence's number, and what runs made of them.

  every_sample_once.py write FILE FIRST N LENGTH   numbers FIRST .. FIRST + N - 1, as bare u16
  every_sample_once.py check RUN STEPS N...        each file of N sequences gave every number once an
                                                   epoch, whichever of the run's sources it was
"""
import json
import struct
import sys
from bisect import bisect_right
from collections import Counter


def write(path, first, n, length):
    with open(path, "wb") as file:
        for number in range(first, first + n):
            file.write(struct.pack(f"<{length}H", *[number] * length))
        file.write(struct.pack("<H", 0))  # the last sequence's last target


def check(run, n_step, *sizes):
    with open(f"{run}/samples.jsonl") as file:
        lines = [json.loads(text) for text in file]
    assert [line["step"] for line in lines] == list(range(1, n_step + 1)), "steps"
    given = [[] for _ in sizes]
    first = 0
    starts = [first := first + size for size in (0, *sizes[:-1])]
    for line in lines:
        file_of = {}
        for source, window, token in zip(line["source"], line["window"], line["first_token"]):
            file = bisect_right(starts, token) - 1
            assert token == starts[file] + window, f"step {line['step']}: {token} is not {window}"
            assert file_of.setdefault(source, file) == file, f"step {line['step']}: {source} is two"
            given[file].append(token)
        assert len(set(file_of.values())) == len(file_of), f"step {line['step']}: {file_of}"
    for source, size in enumerate(sizes):
        ids = given[source]
        for epoch in range(0, len(ids), size):
            part = Counter(ids[epoch : epoch + size])
            assert max(part.values()) == 1, f"source {source}, epoch {epoch // size}: {part}"
        print(f"source {source}: {len(ids)} sequences, {len(ids) / size:.1f} epochs of {size}")
    orders = [given[0][i : i + sizes[0]] for i in (0, sizes[0])]
    assert sorted(orders[0]) == sorted(orders[1]) and orders[0] != orders[1], "epochs of one order"
    assert any(len(set(line["rank"])) > 1 for line in lines), "one rank read everything"


if __name__ == "__main__":
    command, path, *numbers = sys.argv[1:]
    {"write": write, "check": check}[command](path, *map(int, numbers))
