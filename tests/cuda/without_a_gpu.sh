#!/usr/bin/env bash
# Where no GPU is to be had, tests/gpu.sh ends at once with its own code, one message and nothing written.
set -u
# Hides the GPUs of a machine that has some.
CUDA_VISIBLE_DEVICES="" OUT=$PWD/out BUILD_DIR=$PWD/build bash "$MT_SOURCE/tests/gpu.sh" --no-install >out.txt 2>err.txt
code=$?
fail() {
    printf '%s\n' "$*" && cat out.txt err.txt
    exit 1
}
[ $code = 77 ] || fail "tests/gpu.sh ended with $code; expected 77"
if [ -s out.txt ] || [ "$(wc -l <err.txt)" != 1 ] ||
    ! grep -q '^gpu.sh: no GPU: .*; expected .*; nothing was run' err.txt; then
    fail "expected one message that says why"
fi
if [ -e out ] || [ -e build ]; then
    fail "something was written"
fi
bash "$MT_SOURCE/tests/gpu.sh" --unknown >out.txt 2>err.txt
code=$?
if [ $code != 2 ] || ! grep -q '^usage: tests/gpu.sh' err.txt; then
    fail "an unknown option must be refused with its usage"
fi
