#!/usr/bin/env python3
"""tensorboard.py RUN N_FILE: TensorBoard's event files against metrics.jsonl, read by the format's own
description (TFRecord framing, protobuf wire format) and nothing of the program's."""
import glob
import json
import math
import struct
import sys

TABLE = []
for byte in range(256):
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    TABLE.append(byte)


def masked_crc(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(data):
    while data:
        n, crc = struct.unpack("<QI", data[:12])
        assert crc == masked_crc(data[:8]), "checksum of a length"
        message = data[12 : 12 + n]
        assert struct.unpack("<I", data[12 + n : 16 + n])[0] == masked_crc(message), "checksum"
        yield message
        data = data[16 + n :]


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 0x80:
            return value, at


def fields(data):
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        else:
            size = {1: 8, 5: 4}.get(key & 7)
            if size is None:
                assert key & 7 == 2, "wire type"
                size, at = varint(data, at)
            value, at = data[at : at + size], at + size
        yield key >> 3, value


def events(path):
    for message in records(open(path, "rb").read()):
        event = dict(fields(message))
        assert struct.unpack("<d", event[1])[0] > 1e9, "wall time"
        scalars = {}
        for _, value in fields(event.get(5, b"")):
            scalar = dict(fields(value))
            scalars[scalar[1].decode()] = struct.unpack("<f", scalar[2])[0] if 2 in scalar else 0.0
        yield event.get(2, 0), event.get(3), event.get(7), scalars


def flat(value, path=""):
    if isinstance(value, dict):
        for key, item in value.items():
            yield from flat(item, f"{path}/{key}" if path else key)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            if type(item) in (int, float):
                yield f"{path}/{i:03d}", item
    elif type(value) in (int, float) and path != "step":
        yield path, value


def check(run, n_file):
    lines = [json.loads(text) for text in open(f"{run}/metrics.jsonl")][1:]
    files = sorted(glob.glob(f"{run}/tensorboard/events.out.tfevents.*"))
    assert len(files) == n_file, files
    found = []
    for number, path in enumerate(files):
        (_, version, _, _), *rest = events(path)
        assert version == b"brain.Event:2", version
        if number > 0:  # goes on: what was written of later steps is void
            step, _, session, _ = rest.pop(0)
            assert dict(fields(session)) == {1: 1}, session
            found = [event for event in found if event[0] < step]
        found += [(step, scalars) for step, _, _, scalars in rest]
    assert len(found) == len(lines), f"{len(found)} events, {len(lines)} lines"
    for (step, scalars), line in zip(found, lines):
        wanted = dict(flat(line))
        assert step == line["step"] and scalars.keys() == wanted.keys(), scalars.keys() ^ wanted.keys()
        for tag, value in wanted.items():
            assert math.isclose(scalars[tag], value, rel_tol=1e-6, abs_tol=1e-37), (tag, value)


if __name__ == "__main__":
    check(sys.argv[1], int(sys.argv[2]))
