#!/usr/bin/env bash
# clang-tidy 14 over the files of src/ that the last commit or the working tree changed:
#   tests/lint/tidy.sh ROOT BUILD_DIR [--all | --suite]
# --all: over every file, 3 to 4 minutes on two cores. --suite: over every file without the static analyzer,
# which takes nine tenths of that time, and with it over what changed.
set -u
cd "$1" || exit 1
build=$2
tool=$(command -v clang-tidy-14 || command -v clang-tidy) || {
    echo "clang-tidy 14 is not installed; tests/run.sh installs it"
    exit 1
}
every=$(find src -name '*.c')
changed=$({ git diff --name-only HEAD~1 -- 'src/*.c' || echo "$every"; git ls-files -o --exclude-standard -- 'src/*.c'; } 2>/dev/null | sort -u)

# The compilation database is gcc's; clang does not know its warning and architecture options. With the analyzer one
# file a process: version 14 takes every va_list after its first file for uninitialized.
check() { # FILES FILES_A_PROCESS [OPTIONS]
    printf '%s\n' "$1" | while read -r file; do [ -f "$file" ] && printf '%s\0' "$file"; done |
        xargs -0 -r -n "$2" -P 2 "$tool" --quiet "${@:3}" -p "$build" --extra-arg=-Wno-unknown-warning-option \
            --extra-arg=-Wno-ignored-optimization-argument 2>/dev/null
}
case ${3:-} in
--all) check "$every" 1 ;;
--suite) check "$every" 16 '--checks=-clang-analyzer-*' --extra-arg=-Wno-error && check "$changed" 1 ;;
*) check "$changed" 1 ;;
esac
