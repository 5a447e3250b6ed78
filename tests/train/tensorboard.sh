#!/usr/bin/env bash
# Event files for TensorBoard have the numbers of metrics.jsonl, step for step, also where a run goes on.
. "$(dirname "$0")/../cli/refuse.sh"
rm -rf run
events() { python3 "$MT_SOURCE/tests/train/tensorboard.py" run "$1" || fail "event files"; }
train() { # STEPS ARGUMENTS
    ranks 2 "$config" --quiet --run-dir run --set run.tensorboard=true --set train.steps="$1" \
        --set train.eval_interval=2 --set checkpoint.interval=3 "${@:2}" || fail "$1 steps: $?"
}
train 5 --set placement.shadow=true
events 1
rm -r run/checkpoints/step-00000005 # two steps are made again, and count once
train 7
events 2
printf x >plain
rm -r run/tensorboard && cp plain run/tensorboard
refuse 4 'cannot write run/tensorboard/events.out.tfevents' "$config" --quiet --run-dir run \
    --set run.tensorboard=true --set train.steps=8
