#!/usr/bin/env bash
# All cases of tests/kernel/ on the emulated GPU, those included that are too long for the suite:
#   tests/emulation/long.sh BUILD_DIR
# Two and a half minutes of processor time, a third of it for the suite's own at the end.
set -eu
build=${1:?usage: tests/emulation/long.sh BUILD_DIR}
ninja -C "$build" emulated_long_attention emulated_long_attention_bf16 emulated_long_adamw
for name in attention attention_bf16 adamw; do
    "$build/tests/emulation/emulated_long_$name"
done
exec ctest --test-dir "$build" --output-on-failure -L emu
