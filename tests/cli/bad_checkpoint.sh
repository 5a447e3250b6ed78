#!/usr/bin/env bash
# Checkpoints that are damaged, incomplete, newer than the program or of another model: code 3 naming the
# file; a run that starts by itself goes back to the one before and says so in its log.
. "$(dirname "$0")/refuse.sh"
rm -rf base run* again.jsonl
checkpointed=("$config" --quiet --set train.steps=4 --set checkpoint.interval=2)
ranks 2 "${checkpointed[@]}" --run-dir base || fail "base ended with $?"
last=run/checkpoints/step-00000004
before=run/checkpoints/step-00000002
fresh() { rm -rf run && cp -r base run; }

# What happened to the last checkpoint | damage.py's words or a command | what is said.
while IFS='|' read -r name what text; do
    fresh
    if [[ $what = rm* ]] || [[ $what = :* ]]; then
        (cd "$last" && eval "$what")
    else
        (cd "$last" && damage $what) || exit 1
    fi
    refuse 3 "$text" verify $last
    refuse 3 "$text" eval "$config" --run-dir run --checkpoint $last
    refuse 3 "$text" "${checkpointed[@]}" --run-dir other --resume $last
    expect 0 "" ranks 2 "${checkpointed[@]}" --run-dir run
    grep -E 'step-00000004 is not used: ' run/run.log | grep -qE -- "$text" ||
        fail "$name: the log does not say why: $(tail -5 run/run.log)"
    grep -q "resumed from $before at step 2" run/run.log || fail "$name: not resumed: $(tail -5 run/run.log)"
    metrics same base/metrics.jsonl run/metrics.jsonl
    expect 0 "" one verify $last
    rm -rf other
done <<'CASES'
bit flipped|flip shard-00001-of-00002.h5|shard-00001-of-00002.h5 is damaged
zeros|hole shard-00000-of-00002.h5|shard-00000-of-00002.h5 is damaged
truncated|truncate shard-00000-of-00002.h5|shard-00000-of-00002.h5 has [0-9]+ bytes; [0-9]+ were expected
shard missing|rm shard-00001-of-00002.h5|shard-00001-of-00002.h5: No such file
shards swapped|swap shard-00000-of-00002.h5 shard-00001-of-00002.h5|shard-0000.-of-00002.h5 (is damaged|has)
index damaged|flip index.h5|index.h5 is damaged
manifest damaged|flip manifest.json|manifest.json is damaged
manifest cut|truncate manifest.json|manifest.json is damaged
manifest empty|: >manifest.json|manifest.json
manifest missing|rm manifest.json|manifest.json: No such file
newer format|newer manifest.json|format version 99 is newer than this program
CASES

# The last shard is that of an earlier step.
fresh
cp $before/shard-00001-of-00002.h5 $last/
refuse_everywhere 3 'shard-00001-of-00002.h5 is damaged' "${checkpointed[@]}" --run-dir other --resume $last
rm -rf other
# A file that nobody lists is no fault of the checkpoint's, but verify says so.
fresh
: >$last/notes.txt
refuse 3 'notes.txt is not part of the checkpoint' verify $last
# Inspecting looks at the files as well, without reading them.
fresh
rm $last/shard-00001-of-00002.h5
refuse 3 'shard-00001-of-00002.h5 is missing; [0-9]+ bytes were expected' inspect $last
fresh
damage truncate $last/shard-00000-of-00002.h5
refuse 3 'shard-00000-of-00002.h5 has [0-9]+ bytes; [0-9]+ bytes were expected' inspect $last
# Not one is valid: nothing is thrown away unasked.
fresh
damage flip $last/shard-00000-of-00002.h5
rm $before/shard-00000-of-00002.h5
refuse_everywhere 3 'no checkpoint in run/checkpoints is valid' "${checkpointed[@]}" --run-dir run
also 'step-00000004 is not used: .*shard-00000-of-00002.h5 is damaged'
also 'step-00000002 is not used: .*shard-00000-of-00002.h5: No such file'
[ -e $last ] || fail "the refused checkpoint is gone"
cmp base/metrics.jsonl run/metrics.jsonl || fail "the refused run was changed"

# Back to an older one, or on from elsewhere, in a folder that has later steps: another course of training, whose steps
# the next start must not take for those of the one before. That one's are kept beside.
steps_of() { # RUN: the steps of its metrics
    python3 -c 'import json, sys
print(*(line["step"] for line in map(json.loads, open(sys.argv[1])) if "loss" in line))' "$1/metrics.jsonl"
}
fresh
expect 0 "" one "${checkpointed[@]}" --run-dir run --set train.steps=5 --set optimizer.lr=5e-4 --resume $before
grep -q '1 checkpoint of the one before is kept beside, as .left' run/run.log || fail "the log does not tell of it"
[ -e $last.left ] && [ -e $last ] || fail "the later checkpoint was not kept beside: $(ls run/checkpoints)"
! cmp -s $last/shard-00000-of-00002.h5 $last.left/shard-00000-of-00002.h5 || fail "both courses have saved the same"
[ "$(steps_of run)" = "1 2 3 4 5" ] || fail "metrics of steps $(steps_of run)"
fresh
expect 0 "" one "${checkpointed[@]}" --run-dir run --set train.steps=5 --resume base/checkpoints/step-00000004
[ -e $last.left ] || fail "the checkpoint of another course was not kept beside"
fresh
expect 0 "" one "${checkpointed[@]}" --run-dir run --set train.steps=5 --set checkpoint.keep=9 \
    --resume "$PWD/$last/"
[ ! -e $last.left ] || fail "the run's own newest was set aside"
# A start that fails changes nothing.
fresh
damage flip $before/shard-00000-of-00002.h5
refuse 3 'shard-00000-of-00002.h5 is damaged' "${checkpointed[@]}" --run-dir run --resume $before
[ -e $last ] && [ ! -e $last.left ] || fail "a refused start has set a checkpoint aside"

# Other models, and other configurations of this one.
fresh
wider=(--set model.hidden_size=64)
refuse_everywhere 2 'model.hidden_size: 32 -> 64' "${checkpointed[@]}" --run-dir run "${wider[@]}"
refuse 2 'run.seed: 1 -> 2' "${checkpointed[@]}" --run-dir run --set run.seed=2
refuse 2 'moe.num_experts: 8 -> 16' "${checkpointed[@]}" --run-dir run --set moe.num_experts=16
refuse_everywhere 3 'of another model.*/model/embed_tokens is \[256,32\], not \[256,64\]' \
    "${checkpointed[@]}" --run-dir other --init-from $last "${wider[@]}"
rm -rf other
refuse 3 'of another model.*/model/embed_tokens' eval "$config" --run-dir run --checkpoint $last "${wider[@]}"
refuse 3 'of another model.*/model/lm_head' eval "$config" --run-dir run --set model.tie_word_embeddings=true
# Nothing there.
for command in inspect verify; do
    refuse 3 'nowhere/manifest.json: No such file' $command nowhere
    refuse 3 'manifest.json: Not a directory' $command "$config"
done
refuse_everywhere 3 'nowhere/manifest.json: No such file' "${checkpointed[@]}" --run-dir other --resume nowhere
refuse 3 'nowhere/manifest.json: No such file' generate --checkpoint nowhere --prompt x
refuse 3 'no valid checkpoint in nowhere/checkpoints' eval "$config" --run-dir nowhere
# A prompt that the model has no ids for.
rm -rf run
expect 0 "" one "$config" --quiet --run-dir run --set model.vocab_size=100 --set train.steps=1 \
    --set checkpoint.interval=1
refuse 3 'byte 1 of the prompt is 122; expected ids below .*100' generate --prompt Az \
    --checkpoint run/checkpoints/step-00000001
