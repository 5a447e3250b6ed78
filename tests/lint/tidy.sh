#!/usr/bin/env bash
# clang-tidy 14 over the files of src/ that the last commit or the working tree changed; with --all
# over every file: tests/lint/tidy.sh ROOT BUILD_DIR [--all]
set -u
cd "$1" || exit 1
build=$2
tool=$(command -v clang-tidy-14 || command -v clang-tidy) || {
    echo "clang-tidy 14 is not installed; tests/run.sh installs it"
    exit 1
}
if [ "${3:-}" = --all ] || ! git rev-parse -q --verify HEAD~1 >/dev/null 2>&1; then
    files=$(find src -name '*.c')
else
    files=$({ git diff --name-only HEAD~1 -- 'src/*.c'; git ls-files -o --exclude-standard -- 'src/*.c'; } | sort -u)
fi
# The compilation database is gcc's; clang does not know its warning and architecture options. One file
# a process: version 14 takes every va_list after its first file for uninitialized.
printf '%s\n' "$files" | while read -r file; do [ -f "$file" ] && printf '%s\0' "$file"; done |
    xargs -0 -r -n 1 -P 2 "$tool" --quiet -p "$build" --extra-arg=-Wno-unknown-warning-option \
        --extra-arg=-Wno-ignored-optimization-argument 2>/dev/null
