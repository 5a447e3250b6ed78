#!/usr/bin/env bash
# From a machine with nothing installed to a trained model: installs, builds, makes the corpus, trains
# on 4 ranks, stops once and resumes, generates. Idempotent; --no-install leaves apt alone.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

NO_INSTALL=0
for argument in "$@"; do
    case $argument in
    --no-install) NO_INSTALL=1 ;;
    *) printf 'usage: launch/quickstart.sh [--no-install]\n' >&2 && exit 2 ;;
    esac
done
export NO_INSTALL

# shellcheck disable=SC2086
install_packages $build_packages bible-kjv
[ -w "$root" ] || fail "$root cannot be written; expected a checkout of your own, for corpus/ and runs/; clone it"
say "building into $BUILD_DIR"
build program
flags=()
[ $NO_INSTALL = 0 ] || flags=(--no-install)
"$root/launch/make-corpus.sh" "$root/corpus" "${flags[@]}" || fail "the corpus could not be made"

run=$root/runs/quickstart
config=$root/configs/quickstart.toml
rm -rf "$run"

train=("$root/launch/local.sh" 4 "$config" --run-dir "$run")

steps_done() { cat "$run/metrics.jsonl" 2>/dev/null | grep -c '"loss"'; }

say "training on 4 ranks; after some steps it is asked to stop (SIGUSR1)"
"${train[@]}" & # the script itself, so that $! takes the signal
pid=$!
while kill -0 $pid 2>/dev/null && [ "$(steps_done)" -lt 50 ]; do sleep 0.2; done
kill -USR1 $pid 2>/dev/null
wait $pid
code=$?
[ $code = 75 ] || fail "expected the run to save and stop with code 75; it ended with $code"

say "starting it again: it goes on from its own checkpoint"
"${train[@]}" || fail "training ended with code $?"

checkpoint=$(ls -d "$run"/checkpoints/step-* | tail -n 1)
say "text from $checkpoint:"
say
"$BUILD_DIR/moetrain" generate --checkpoint "$checkpoint" --prompt "And the LORD said unto " \
    --tokens 240 || fail "generate ended with code $?"
say
"$BUILD_DIR/moetrain" report "$run" || fail "report ended with code $?"
say "metrics of every step: $run/metrics.jsonl"
say "next: launch/local.sh 2 configs/quickstart.toml --run-dir runs/mine --set train.steps=20"
