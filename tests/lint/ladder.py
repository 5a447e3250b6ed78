#!/usr/bin/env python3
"""The ladder of rooms: a file includes only its own room or one above it (docs/architecture.md)."""
import pathlib
import re
import sys
import tempfile

import source

INCLUDE = re.compile(r'^\s*#\s*include\s+"([a-z_]+)/', re.M)
MPI = re.compile(r'^\s*#\s*include\s+<mpi\.h>', re.M)
# MPI is known to the job, to communication and to --version; nobody else.
MPI_ROOMS = {"base", "comm"}
MPI_FILES = {"src/cli/help.c"}


def check(root):
    root = pathlib.Path(root)
    for path in source.files(root, ("src",)):
        relative = path.relative_to(root)
        room = relative.parts[1]
        text = source.code_only(path.read_text(), keep_strings=True)
        if room not in source.ROOMS:
            yield f"{relative}: {room} is not a room of the ladder"
            continue
        for other in INCLUDE.findall(text):
            if other not in source.ROOMS or source.ROOMS.index(other) > source.ROOMS.index(room):
                yield f"{relative}: room {room} may not include {other}/"
        if MPI.search(text) and room not in MPI_ROOMS and str(relative) not in MPI_FILES:
            yield f"{relative}: room {room} may not include mpi.h"


def self_test():
    with tempfile.TemporaryDirectory() as folder:
        bad = pathlib.Path(folder) / "src" / "base" / "bad.c"
        bad.parent.mkdir(parents=True)
        bad.write_text('#include "base/status.h"\n#include "moe/moe.h"\n')
        assert len(list(check(folder))) == 1
        bad.write_text('#include "base/status.h"\n/* #include "moe/moe.h" */\n')
        assert not list(check(folder))


if __name__ == "__main__":
    sys.exit(source.run(check, self_test))
