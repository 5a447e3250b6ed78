#!/usr/bin/env bash
# Every sequence is trained on exactly once an epoch, by the numbers that the ranks found in the data:
# across changes of ranks, batch size, weights and sources, a killed process, and the ends of epochs.
. "$(dirname "$0")/../support/run.sh"
rm -rf run-* ./*.u16
samples() { python3 "$MT_SOURCE/tests/train/every_sample_once.py" "$@" || fail "samples $*"; }
length=4
samples write a.u16 0 20 $length
samples write b.u16 20 14 $length
train() { # NAME RANKS STEPS BATCH ARGUMENTS
    sed 's/^format = "random"/format = "tokens"\ntoken_type = "u16"\ntrain = ["a.u16"]/' "$config" >once.toml
    ranks "$2" once.toml --run-dir "run-$1" --quiet --set train.steps="$3" --set train.global_batch_size="$4" \
        --set data.log_samples=true --set model.max_seq_len=$length --set checkpoint.interval=2 "${costs[@]}" "${@:5}"
}
# One source: 20 sequences an epoch, on 1, 3 (a batch that they do not divide) and 2 ranks.
train one 1 4 8 || fail "on 1 rank: $?"
train one 3 8 7 || fail "on 3 ranks: $?"
train one 2 12 5 || fail "on 2 ranks: $?"
samples check run-one 12 20
# A blend whose weights change, killed in between; then the second source alone joins a plain run.
two=(--set 'data.train=["a.u16", "b.u16"]')
train two 2 6 8 "${two[@]}" --set 'data.weights=[2, 1]' || fail "blend: $?"
start 3 once.toml --run-dir run-two --quiet --set train.steps=4000 --set train.global_batch_size=8 \
    --set data.log_samples=true --set model.max_seq_len=$length --set checkpoint.interval=2 "${costs[@]}" \
    "${two[@]}" --set 'data.weights=[1, 3]'
wait_for_steps run-two 9
pkill -KILL -P "$pid" && wait "$pid"
last=$(ls run-two/checkpoints | sed -n 's/^step-0*//p' | sort -n | tail -1)
train two 1 $((last + 6)) 6 "${two[@]}" --set 'data.weights=[1, 1]' || fail "after the kill: $?"
samples check run-two $((last + 6)) 20 14
# A source leaves the blend, within its epoch, and comes back in another place: it goes on where it was.
train gone 3 4 8 "${two[@]}" --set 'data.weights=[2, 1]' || fail "both: $?"
train gone 1 6 7 --set 'data.weights=[1]' || fail "without the second: $?"
train gone 2 10 6 --set 'data.train=["b.u16", "a.u16"]' --set 'data.weights=[1, 1]' || fail "with it again: $?"
samples check run-gone 10 20 14
