#!/usr/bin/env python3
"""What happens to files of a checkpoint.

  damage.py flip FILE       one bit in the middle changes
  damage.py truncate FILE   the second half is lost
  damage.py hole FILE       4 KiB in the middle read as zeros
  damage.py newer MANIFEST  a later version of this program wrote it: a higher format version, sealed
  damage.py swap A B        two files take each other's names
"""
import ctypes
import os
import re
import sys


def change(path, function):
    with open(path, "rb") as file:
        data = bytearray(file.read())
    with open(path, "wb") as file:
        file.write(function(data))


def flip(data):
    data[len(data) // 2] ^= 0x10
    return data


def truncate(data):
    return data[:len(data) // 2]


def hole(data):
    middle = len(data) // 2
    assert any(data[middle:middle + 4096]), "these bytes are zeros already"
    data[middle:middle + 4096] = bytes(4096)
    return data


def newer(data):
    """The tail holds the XXH3 of all before it."""
    xxhash = ctypes.CDLL("libxxhash.so.0")
    xxhash.XXH3_64bits.restype = ctypes.c_uint64
    xxhash.XXH3_64bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    body = bytes(data[:data.rindex(b'\n "checksum"')])
    body, n = re.subn(rb'"format_version": \d+', b'"format_version": 99', body)
    assert n == 1
    return body + b'\n "checksum": "%016x"\n}\n' % xxhash.XXH3_64bits(body, len(body))


if __name__ == "__main__":
    HOW, PATH = sys.argv[1:3]
    if HOW == "swap":
        os.rename(PATH, PATH + ".other")
        os.rename(sys.argv[3], PATH)
        os.rename(PATH + ".other", sys.argv[3])
    else:
        change(PATH, {"flip": flip, "truncate": truncate, "hole": hole, "newer": newer}[HOW])
