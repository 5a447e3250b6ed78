#!/usr/bin/env bash
# Every C and C++ file is as .clang-format (version 14) writes it.
set -u
cd "$1" || exit 1
tool=$(command -v clang-format-14 || command -v clang-format) || {
    echo "clang-format 14 is not installed; tests/run.sh installs it"
    exit 1
}
find src tests \( -name '*.c' -o -name '*.h' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh' \) -print0 |
    xargs -0 "$tool" --dry-run --Werror
