#!/usr/bin/env bash
# Dense models become one with experts: copies and slices begin at the dense model's loss, what is noisy or drawn
# anew does not; tensors are what docs/upcycling.md says; what cannot be done is refused.
. "$(dirname "$0")/../cli/refuse.sh"
python=python3 # one that has h5py, as in other_readers.sh
"$python" -c "import h5py" 2>/dev/null || python=/usr/bin/python3
rm -rf run* made ./*.toml text.txt
seq 3000 | sed 's/7$/7\n/' >text.txt
sed 's/^format = "random"/train = ["text.txt"]\nvalidation = ["text.txt"]/' "$config" >dense.toml
dense=(--set model.first_k_dense=2 --set model.dense_intermediate_size=48 --set optimizer.lr=2e-2)
for n in 1 2; do
    ranks 2 dense.toml --quiet --run-dir run$n "${dense[@]}" --set run.seed=$n --set train.steps=40 \
        --set checkpoint.interval=40 || fail "training ended with $?"
done
first=run1/checkpoints/step-00000040
second=run2/checkpoints/step-00000040
mkdir made
loss_of() { # CONFIG CHECKPOINT ARGUMENTS
    one eval "$1" --checkpoint "$2" --sequences 64 "${@:3}" | sed 's/.*"eval_loss": \([0-9.]*\).*/\1/'
}
dense_loss=$(loss_of dense.toml $first "${dense[@]}")

# make NAME like|unlike DENSE... ARGUMENTS: made/NAME, whose first loss is that of the first dense model, or not.
make() {
    local name=$1 relation=$2 loss
    one upcycle "${@:3}" -o "made/$name" --experts 4 --top-k 2 >out.txt || fail "$name ended with $?"
    one verify "made/$name" >/dev/null || fail "made/$name is damaged"
    loss=$(loss_of "made/$name.toml" "made/$name")
    python3 -c "
off = abs($loss - $dense_loss)
assert off < 1e-5 if '$relation' == 'like' else 1e-3 < off < 3, f'$name: $loss, the dense model has $dense_loss'
" || fail "$name does not begin as it should"
}
make copy like $first
make split-2 like $first --method split
make split-3 like $first --method split --granularity 3
make noise unlike $first --method noise --noise 0.3
make drop unlike $first --method drop --drop-ratio 0.3
make still like $first --method noise --noise 0
make whole like $first --method drop --drop-ratio 0
make several unlike $first $second
make twice like $first $first
"$python" "$MT_SOURCE/tests/cli/upcycled.py" $first $second made || fail "tensors"
one upcycle $first -o made/again --experts 4 --top-k 2 --method drop --drop-ratio 0.3 >/dev/null
cmp made/drop/shard-00000-of-00001.h5 made/again/shard-00000-of-00001.h5 || fail "the same seed drew something else"

# It trains further, on any number of ranks, from the dense model's loss.
ranks 3 made/split-2.toml --quiet --run-dir run3 --init-from made/split-2 --set train.steps=2 --set optimizer.lr=1e-4 ||
    fail "training ended with $?"
python3 -c "
import json
first = [json.loads(l) for l in open('run3/metrics.jsonl') if '\"loss\"' in l][0]
assert abs(first['loss'] - $dense_loss) < 0.3, first['loss']" || fail "the first step's loss"

to=(--experts 4 --top-k 2 -o made/none)
refuse 2 'has experts in 2 of its 2 layers; a dense model was expected' upcycle made/copy "${to[@]}"
refuse 2 'made/copy is there already' upcycle $first --experts 4 --top-k 2 -o made/copy
refuse 2 'experts 3 does not divide by 2 dense models' upcycle $first $second --experts 3 --top-k 2 -o made/none
refuse 2 'experts 0 is not an integer of at least 1; expected e.g. --experts 1$' upcycle $first --experts 0 --top-k 1 \
    -o made/none
refuse 2 'top-k 5 exceeds --experts 4' upcycle $first --experts 4 --top-k 5 -o made/none
refuse 2 'granularity 5 does not divide the dense width 48' upcycle $first "${to[@]}" --method split --granularity 5
refuse 2 'drop-ratio belongs to --method drop' upcycle $first "${to[@]}" --drop-ratio 0.1
refuse 2 'drop-ratio 1.1 is out of range' upcycle $first "${to[@]}" --method drop --drop-ratio 1.1
refuse 2 'expected copy, noise, drop or split' upcycle $first "${to[@]}" --method slice
refuse 2 '--experts E and --top-k K are both needed' upcycle $first -o made/none
refuse 2 'moe.num_experts = 131072 is out of range' upcycle $first -o made/none --experts 65536 --top-k 1 --method split
refuse 3 'nowhere/manifest.json: No such file' upcycle $first nowhere "${to[@]}"
ranks 1 dense.toml --quiet --run-dir run4 "${dense[@]}" --set model.qk_norm='"head"' --set train.steps=1 \
    --set checkpoint.interval=1 || fail "training ended with $?"
refuse 2 'model.qk_norm is "none" in .*run1.* and "head" in .*run4' upcycle $first run4/checkpoints/step-00000001 \
    "${to[@]}"
[ ! -e made/none ] && [ ! -e made/none.toml ] || fail "a refusal left something behind"
rm -rf run* made
