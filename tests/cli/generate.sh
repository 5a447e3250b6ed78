#!/usr/bin/env bash
# Text of a model that has learned what its data say, through the tokenizer of the data: whole words, an end
# where texts end, the same on any number of ranks - and what is refused.
. "$(dirname "$0")/refuse.sh"
rm -rf run docs.jsonl docs.bin docs.idx docs.toml
tokenizer=$MT_SOURCE/tests/text/vectors/gpt2.json
for _ in $(seq 300); do echo '{"text": "and the beginning \u2603"}'; done >docs.jsonl
one data prepare docs.jsonl -o docs --tokenizer "$tokenizer" --quiet >/dev/null || fail "prepare ended with $?"
sed 's/^format = "random"/format = "megatron"\ntrain = ["docs"]/' "$config" >docs.toml
ranks 2 docs.toml --quiet --run-dir run --set model.vocab_size=520 --set train.steps=40 --set optimizer.lr=2e-2 \
    --set checkpoint.interval=40 || fail "training ended with $?"
sample=(generate --checkpoint run/checkpoints/step-00000040 --tokenizer "$tokenizer" --tokens 15)

# generated N TEXT ARGUMENTS...: TEXT by N ranks, and a word of how fast.
generated() {
    local n=$1 text=$2
    shift 2
    ranks "$n" "${sample[@]}" "$@" >out.txt 2>err.txt || fail "generate $* ended with $?: $(cat err.txt)"
    [ "$(cat out.txt)" = "$text" ] || fail "expected \"$text\" from $*, got: $(cat out.txt)"
    grep -qE '^[0-9]+ tokens of prompt in [0-9.]+ s; [0-9]+ tokens.*: [0-9.]+ tokens/s$' err.txt ||
        fail "no rate: $(cat err.txt)"
}
generated 1 "and the beginning ☃" --prompt and --temperature 0
grep -q ', the last ends the text' err.txt || fail "the text did not end: $(cat err.txt)"
generated 3 "and the beginning ☃" --prompt "and the" --temperature 0
generated 1 "and the beginning ☃" --prompt "and the" --temperature 0.1 --top-k 20 --top-p 0.9 --seed 4
# Past the end: a second text behind the first one's end token.
generated 1 "<|endoftext|>and the beginning ☃" --prompt "<|endoftext|>and" --temperature 0

refuse_everywhere 2 'the model knows 520 tokens, more than bytes.* --tokenizer FILE' generate \
    --checkpoint run/checkpoints/step-00000040 --prompt x
refuse 2 'the prompt has 20 tokens; 1 to 16 were expected, the model.s max_seq_len' generate \
    --checkpoint run/checkpoints/step-00000040 --tokenizer bytes --prompt "twenty bytes of text"
refuse 3 'docs.idx is no tokenizer' "${sample[@]}" --prompt x --tokenizer docs.idx
refuse 3 'none/tokenizer.json: No such file' "${sample[@]}" --prompt x --tokenizer none/tokenizer.json
refuse 3 'cannot open the tokenizer nope: No such file' "${sample[@]}" --prompt x --tokenizer nope
refuse 3 'the tokenizer run is a folder; a file was expected' "${sample[@]}" --prompt x --tokenizer run
refuse 3 'offset 1 of the text: byte 0xff' "${sample[@]}" --prompt $'x\xff'
refuse 2 '--top-p 1.5 is out of range' "${sample[@]}" --prompt x --top-p 1.5
refuse 2 '--top-p 0 is out of range' "${sample[@]}" --prompt x --top-p 0
refuse 2 '--top-k -1 is not an integer of at least 0' "${sample[@]}" --prompt x --top-k -1
one "$config" --quiet --run-dir run-small --set train.steps=1 --set checkpoint.interval=1 --resume auto ||
    fail "training ended with $?"
# Asked to stop, on one rank and on two: the text so far, and code 75. Bytes have no end of the text, so
# that it does not end by itself. Evaluation has no result then.
stopped_by() { # SIGNAL PID
    local i code
    for i in $(seq 600); do
        [ $((0x0$(awk '/^SigCgt/ { print $2 }' "/proc/$2/status" 2>/dev/null) & 0x200)) != 0 ] && break
        sleep 0.1
    done
    kill "-$1" "$2" || fail "it ended by itself: $(head -c 300 start.err)"
    wait "$2"
    code=$?
    [ $code = 75 ] || fail "code $code when stopped by $1: $(head -c 300 start.err)"
}
long=(generate --checkpoint run-small/checkpoints/step-00000001 --tokenizer bytes --prompt and --tokens 100000000)
wait_for_text() { # PID
    until [ "$(stat -c %s start.out)" -gt 10 ] || ! kill -0 "$1"; do sleep 0.1; done
}
: >start.out
"$MOETRAIN" "${long[@]}" >start.out 2>start.err &
wait_for_text $!
stopped_by TERM $!
grep -aq '^and' start.out || fail "no text: $(head -c 300 start.out)"
grep -qE '^[0-9]+ tokens of prompt in .* tokens, then stopped on request' start.err || fail "$(cat start.err)"
: >start.out
start 2 "${long[@]}" --quiet
wait_for_text $pid
kill -USR1 $pid
wait $pid
code=$?
[ $code = 75 ] || fail "code $code on two ranks: $(head -c 300 start.err)"
[ "$(grep -c 'then stopped on request' start.err)" = 1 ] || fail "$(cat start.err)"
"$MOETRAIN" eval "$config" --checkpoint run-small/checkpoints/step-00000001 \
    --sequences 100000000 >start.out 2>start.err &
stopped_by USR1 $!
[ ! -s start.out ] || fail "a result of a part: $(cat start.out)"
grep -q 'stopped on request before the end: there is no result' start.err || fail "$(cat start.err)"

refuse_everywhere 2 'gpt2.json has ids up to 499, the model.s vocab_size is 256' generate --prompt x \
    --checkpoint run-small/checkpoints/step-00000001 --tokenizer "$tokenizer"
rm -rf run run-small
