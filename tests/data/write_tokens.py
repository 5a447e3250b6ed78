#!/usr/bin/env python3
"""The bytes of a text as token files of other layouts, written from their descriptions alone.

  write_tokens.py TEXT FOLDER
"""
import struct
import sys

text, folder = open(sys.argv[1], "rb").read(), sys.argv[2]


def save(name, *parts):
    with open(f"{folder}/{name}", "wb") as file:
        for part in parts:
            file.write(part)


def ids(kind):
    return struct.pack(f"<{len(text)}{kind}", *text)


def header(*words):
    return struct.pack("<256i", *words, *[0] * (256 - len(words)))


# Megatron: documents end behind each blank line.
ends = [i + 2 for i in range(len(text) - 1) if text[i : i + 2] == b"\n\n"]
bounds = [0] + [end for end in ends if end < len(text)] + [len(text)]
lengths = [b - a for a, b in zip(bounds, bounds[1:])]
for name, code, kind, size in (("u16", 8, "H", 2), ("i32", 4, "i", 4), ("u8", 1, "B", 1)):
    save(f"megatron-{name}.bin", ids(kind))
    save(
        f"megatron-{name}.idx",
        b"MMIDIDX\0\0",
        struct.pack("<QBQQ", 1, code, len(lengths), len(lengths) + 1),
        struct.pack(f"<{len(lengths)}i", *lengths),
        struct.pack(f"<{len(lengths)}q", *[size * a for a in bounds[:-1]]),
        struct.pack(f"<{len(lengths) + 1}q", *range(len(lengths) + 1)),
    )
save("gpt2.bin", header(20240520, 1, len(text)), ids("H"))
save("llama3.bin", header(20240801, 7, len(text)), ids("I"))
save("modded.bin", header(278895051, 1, len(text), 2), ids("H"))
save("bare.u32", ids("I"))
print(len(lengths))
