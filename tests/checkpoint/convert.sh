#!/usr/bin/env bash
# moetrain checkpoint convert: many shards become one with the same bits, from which the same run goes
# on; weights alone, and in bfloat16; and back. What it makes verifies, loads and reads elsewhere.
. "$(dirname "$0")/../cli/refuse.sh"
rm -rf run* one* half* back* again* weights* other* alias aaa*
python=/usr/bin/python3
for candidate in python3 /usr/bin/python3; do
    ! "$candidate" -c 'import h5py' 2>/dev/null || python=$candidate
done
train() { # NAME ARGUMENTS
    ranks 3 "$config" --run-dir "$@" --quiet "${costs[@]}" --set train.steps=4 --set checkpoint.interval=2 \
        --set 'placement.policy="fsep"' || fail "$1 ended with $?"
}
convert() { one checkpoint convert "$@" >out.txt || fail "convert $*: $?"; }
reads() { "$python" "$MT_SOURCE/tests/checkpoint/read_with_h5py.py" "$@" >out.txt || fail "h5py: $*: $?"; }
train run
saved=run/checkpoints/step-00000002

# One shard, everything in it: verified, read, resumed from with the same bits, and not another the next time.
convert $saved one
one verify one >out.txt || fail "one does not verify: $?"
reads one
[ "$(ls one | tr '\n' ' ')" = "index.h5 manifest.json shard-00000-of-00001.h5 " ] || fail "one has $(ls one)"
train run2 --resume one
metrics same <(sed -n '/"step":[34],/p' run/metrics.jsonl) <(sed -n '/"step":[34],/p' run2/metrics.jsonl)
for shard in run/checkpoints/step-00000004/shard-*.h5; do
    cmp "$shard" "${shard/#run/run2}" || fail "the run went on otherwise"
done
convert one again
diff -r one again || fail "converting twice differs"

# Weights: a third of the tensors; from them another run starts, as from the whole.
convert $saved weights --weights-only
one verify weights >out.txt || fail "weights do not verify: $?"
! one inspect weights | grep -q /optimizer/ || fail "weights hold optimizer state"
train run3 --init-from weights
train run4 --init-from $saved
metrics same run3/metrics.jsonl run4/metrics.jsonl

# bfloat16: half the size, other programs read numbers, rounded by at most 2^-8; exact in float32 and back.
convert $saved half --weights-only --dtype bfloat16
one verify half >out.txt || fail "half does not verify: $?"
one inspect half | grep -qE '^/model/norm +\[32\] bfloat16  0:0-31' || fail "inspect: $(one inspect half)"
reads half
convert half back --dtype float32 --weights-only
convert back again2 --weights-only --dtype bfloat16
cmp half/shard-00000-of-00001.h5 again2/shard-00000-of-00001.h5 || fail "bfloat16 is not exact in float32"
"$python" - <<'PY' || fail "bfloat16 differs"
import h5py
import numpy
def read(folder):
    found = {}
    with h5py.File(folder + "/index.h5") as file:
        file["model"].visititems(lambda name, item: found.update({name: item[...]})
                                 if isinstance(item, h5py.Dataset) else None)
    return found
whole, half, back = read("run/checkpoints/step-00000002"), read("half"), read("back")
assert set(whole) == set(half) == set(back) and len(whole) > 10
for name in whole:
    assert numpy.array_equal(half[name], back[name]), name
    assert numpy.abs(half[name] - whole[name]).max() <= numpy.abs(whole[name]).max() * 2.0**-8, name
assert any((half[name] != whole[name]).any() for name in whole)
PY
train run5 --init-from half
metrics close run3/metrics.jsonl run5/metrics.jsonl 1e-2 1e-2
ranks 2 eval "$config" --quiet --checkpoint half >half.json || fail "eval: $?"
ranks 2 eval "$config" --quiet --checkpoint $saved >whole.json || fail "eval: $?"
"$python" -c 'import json
half, whole = (json.load(open(n + ".json"))["eval_loss"] for n in ("half", "whole"))
assert half != whole and abs(half - whole) < 1e-2, (half, whole)' || fail "bfloat16 evaluates otherwise"

# What cannot be.
refuse 2 'one is there already' checkpoint convert $saved one
refuse 2 'expected --weights-only beside it' checkpoint convert $saved other --dtype bfloat16
refuse 2 'expected float32 or bfloat16' checkpoint convert $saved other --weights-only --dtype float16
refuse 2 '`moetrain checkpoint` needs another word' checkpoint merge $saved other
refuse 2 'new checkpoint cannot be made in nowhere: No such file.*make or permit it' checkpoint convert $saved nowhere/other
refuse_everywhere 3 'half holds weights only.*--init-from' "$config" --quiet --run-dir other --resume half --set 'placement.policy="fsep"'
# Where a new directory cannot be: in a checkpoint, however it is called; under a name that cannot be made.
long=$(printf 'a%.0s' $(seq 251))
ln -s "$saved" alias
for inside in $saved/inside alias/inside ./alias/../step-00000004/inside half/../$saved//y; do
    refuse 2 'step-0000000. is a checkpoint; a new directory outside of others' checkpoint convert half "$inside"
done
refuse 2 'cannot be made in .*deep: No such file' checkpoint convert half $saved/deep/inside
(cd $saved && refuse 2 'is a checkpoint' checkpoint convert ../../../half inside; rm out.txt err.txt)
for name in "$long" other/. other/..; do
    refuse 2 'cannot be the name of a new directory' checkpoint convert $saved "$name"
done
refuse 2 'one is there already' checkpoint convert one one/
convert $saved "${long:1}"
one verify "${long:1}" >out.txt && one verify $saved >out.txt || fail "with a long name, or beside it: $?"
rm -rf "${long:1}" alias
rm -rf other
damage flip $saved/shard-00001-of-00003.h5
refuse 3 'shard-00001-of-00003.h5 is damaged' checkpoint convert $saved other
[ ! -e other ] && [ ! -e .other.tmp ] || fail "a refused conversion leaves something"
echo ok
