#!/usr/bin/env bash
# Data files that are missing, empty, too short, no files, or hold ids the model lacks: code 3, with the
# file and, where there is one, the offset.
. "$(dirname "$0")/refuse.sh"
rm -rf ./*.toml texts run* empty* short* latin* ascii*
sed 's/^format = "random"/train = ["texts"]/' "$config" >text.toml
train=(text.toml --quiet --run-dir run --set train.steps=1)

refuse_everywhere 3 'texts: No such file or directory' "${train[@]}"
mkdir texts
refuse 3 'the folder .*texts holds no file' "${train[@]}"
: >empty.txt
refuse_everywhere 3 'empty.txt is empty' "${train[@]}" --set 'data.train=["empty.txt"]'
printf '0123456789abcdef' >short.txt
refuse 3 'short.txt: no file of at least max_seq_len \+ 1 = 17 tokens' "${train[@]}" \
    --set 'data.train=["short.txt"]'
refuse 3 'cannot read /dev/null: it is not a regular file' "${train[@]}" --set 'data.train=["/dev/null"]'
mkfifo empty.pipe
refuse 3 'empty.pipe: it is not a regular file' "${train[@]}" --set 'data.train=["empty.pipe"]'
seq 1000 >ascii.txt
refuse 3 'missing.txt: No such file' "${train[@]}" --set 'data.train=["ascii.txt", "missing.txt"]'
refuse 3 'missing.txt: No such file' "${train[@]}" --set 'data.train=["ascii.txt"]' \
    --set 'data.validation=["missing.txt"]' --set train.eval_interval=1

# A token id >= vocab_size, whatever the format: here the byte 195 at offset 100.
{
    head -c 100 ascii.txt
    printf '\303\244'
    cat ascii.txt
} >latin.txt
refuse_everywhere 3 'latin.txt, offset 100: byte value 195 is no token id; ids below vocab_size = 128' \
    "${train[@]}" --set 'data.train=["latin.txt"]' --set model.vocab_size=128
expect 0 "" one "${train[@]}" --set 'data.train=["ascii.txt"]' --set model.vocab_size=128
expect 0 "" one "${train[@]}" --run-dir run2 --set 'data.train=["latin.txt"]'

# A text that is replaced by a shorter one while it is read.
cp latin.txt shrinking.txt
start 2 text.toml --quiet --run-dir run3 --set 'data.train=["shrinking.txt"]' --set train.steps=100000 \
    --set device.pace_gflops=1.0
wait_for_steps run3 2
: >shrinking.txt
wait $pid
code=$?
[ $code = 3 ] || fail "a text that shrank: code $code: $(head -c 600 start.err)"
[ "$(grep -c '^moetrain: ' start.err)" = 1 ] || fail "one message expected: $(head -c 900 start.err)"
grep -qE 'shrinking.txt ends at offset [0-9]+' start.err || fail "$(cat start.err)"

# Evaluation has the same answers.
expect 0 "" one text.toml --quiet --run-dir run4 --set 'data.train=["ascii.txt"]' --set train.steps=1 \
    --set checkpoint.interval=1
refuse 2 'no validation data' eval text.toml --run-dir run4
refuse_everywhere 3 'missing.txt: No such file' eval text.toml --run-dir run4 --data "$PWD/missing.txt"
refuse 3 'empty.txt is empty' eval text.toml --run-dir run4 --data "$PWD/empty.txt"
