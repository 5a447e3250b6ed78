#!/usr/bin/env bash
# A model whose products are cut into many tiles, packs in slabs and rows in chunks: any number of threads gives
# the same bits, on one rank and on two, and so does leaving the number to the program.
. "$(dirname "$0")/../support/run.sh"
config=$MT_SOURCE/configs/bench-cpu.toml
train() { # NAME RANKS THREADS
    rm -rf "$1"
    ranks "$2" "$config" --run-dir "$1" --quiet "${costs[@]}" --set train.steps=2 --set model.num_layers=1 \
        --set device.threads="$3" || fail "$2 ranks with $3 threads ended with $?"
}
for n in 1 2; do
    train "a$n" "$n" 1
    for threads in 2 3 '"auto"'; do
        train b "$n" "$threads"
        metrics same "a$n/metrics.jsonl" b/metrics.jsonl
    done
done
