#!/bin/bash
# What other programs see: h5ls and h5dump (package hdf5-tools) and h5py (python3-h5py) read every
# tensor of index.h5 at full shape, also of a copy and from elsewhere; a missing shard reads as NaN,
# never as zeros.
set -euo pipefail
export LC_ALL=C

fail()
{
    echo "FAILED: $1" >&2
    exit 1
}

command -v h5dump >/dev/null || fail "h5dump is missing; install the package hdf5-tools"
python=/usr/bin/python3
for candidate in python3 /usr/bin/python3; do
    ! "$candidate" -c 'import h5py' 2>/dev/null || python=$candidate
done
"$python" -c 'import h5py' || fail "h5py is missing; install the package python3-h5py"
rm -rf run copy && mkdir run
timeout -k 5 60 mpirun -q -np 3 --oversubscribe --allow-run-as-root --bind-to none \
    "$MT_BUILD/tests/checkpoint/save_example" run/checkpoints
checkpoint=run/checkpoints/step-00000001
index=$checkpoint/index.h5

# values FILE DATASET: the numbers, one a line.
values()
{
    h5dump -y -w 1 -m '%.9g' -d "$2" "$1" |
        awk '/^   }/ { inside = 0 } inside && NF { sub(/,$/, "", $1); print $1 } /^   DATA {/ { inside = 1 }'
}

# bits FILE DATASET NAME: the numbers as they are, into a file, in a twentieth of the time.
bits()
{
    h5dump -b LE -o "$3" -d "$2" "$1" >/dev/null
}

names=$(h5ls -r "$index" | awk '$2 == "Dataset" { print $1 }')
[ "$(wc -w <<<"$names")" -eq 48 ] || fail "index.h5 lists $(wc -w <<<"$names") datasets, not 16 x 3"
h5ls -r "$index" | grep -q '^/model/1/dense *Dataset {40, 5000}' || fail "a shape is wrong"
for name in $names; do
    n=$(h5ls "$index$name" | sed 's/.*{\(.*\)}.*/\1/; s/, /*/g')
    values "$index" "$name" >got
    [ "$(wc -l <got)" -eq $((n)) ] || fail "$name has $(wc -l <got) values, not $((n))"
    ! grep -qi nan got || fail "$name has NaN although no shard is missing"
    ! grep -qx 0 got || fail "$name has zeros although none was written"
done

h5dump -a /format -a /step -a /config "$index" >attributes
grep -q '"moetrain-checkpoint"' attributes || fail "the attribute format is wrong"
grep -q '(0): 1$' attributes || fail "the attribute step is wrong"
grep -q 'name = ' attributes || fail "the attribute config is wrong"

# Cut experts: shards hold other pieces, the index shows the same numbers. On 4 ranks, as on 3 every
# piece would be a whole matrix.
timeout -k 5 60 mpirun -q -np 4 --oversubscribe --allow-run-as-root --bind-to none \
    "$MT_BUILD/tests/checkpoint/save_example" run/cut cut
cut=run/cut/step-00000001/index.h5
[ "$(h5ls -r "$cut")" = "$(h5ls -r "$index")" ] || fail "with cut experts the index lists other datasets"
for name in $names; do
    bits "$index" "$name" want
    bits "$cut" "$name" got
    cmp -s got want || fail "$name reads otherwise with cut experts"
done

# Experts saved in turn: three files of four are those of earlier steps under second names.
timeout -k 5 60 mpirun -q -np 3 --oversubscribe --allow-run-as-root --bind-to none \
    "$MT_BUILD/tests/checkpoint/save_example" run/sparse sparse
sparse=run/sparse/step-00000003
[ "$(h5ls -r $sparse/index.h5)" = "$(h5ls -r "$index")" ] || fail "a sparse checkpoint's index lists other datasets"
[ "$(stat -c %h $sparse/experts-0-of-4-00000-of-00003.h5)" -ge 2 ] || fail "the parts are not linked"
[ -z "$(h5dump -y -w 1 $sparse/index.h5 | grep -i nan)" ] || fail "h5dump misses something in a sparse checkpoint"
for name in /model/1/dense $(grep -m 1 expert <<<"$names"); do
    bits run/sparse/step-00000001/index.h5 "$name" want
    bits "$index" "$name" got
    cmp -s got want || fail "$name of a full save in turn reads otherwise"
    bits $sparse/index.h5 "$name" got
    ! cmp -s got want || fail "$name of a sparse checkpoint is all of step 1"
done

for saved in run/checkpoints/step-00000001 run/cut/step-00000001 $sparse; do
    "$python" "$(dirname "$0")/read_with_h5py.py" $saved >said || fail "h5py reads $saved otherwise"
    cat said
done
grep -qE 'without each of 15 shards; [1-9][0-9]* experts are of earlier steps' said || fail "nothing was saved in turn"

bits "$index" /model/1/dense want
cp -r $checkpoint copy
rm -rf run
bits copy/index.h5 /model/1/dense got
cmp -s got want || fail "a copy reads otherwise"
(cd / && bits "$OLDPWD/copy/index.h5" /model/1/dense "$OLDPWD/got")
cmp -s got want || fail "a copy reads otherwise from another folder"

rm copy/shard-00001-of-00003.h5
values copy/index.h5 /model/1/dense >got
! grep -qx 0 got || fail "a missing shard reads as zeros"
grep -qi nan got || fail "a missing shard is not seen"
echo ok
