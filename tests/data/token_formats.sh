#!/usr/bin/env bash
# The same ids give the same training, whatever file they come from; several sources by weight give each
# sequence once, also across a change of ranks and weights.
. "$(dirname "$0")/../cli/refuse.sh"
rm -rf ./*.toml files run-* text.txt other.txt
mkdir files
seq 3000 | sed 's/7$/7\n/' >text.txt
n_document=$(python3 "$MT_SOURCE/tests/data/write_tokens.py" text.txt files) || fail "no files"
sed 's/^format = "random"/train = ["text.txt"]/' "$config" >text.toml
train() { # NAME RANKS ARGUMENTS
    ranks "$2" text.toml --run-dir "run-$1" --quiet --set train.steps=6 "${costs[@]}" "${@:3}"
}
train text 2 || fail "text ended with $?"
like_text() { # NAME ARGUMENTS
    train "$1" 2 "${@:2}" || fail "$1 ended with $?"
    metrics same run-text/metrics.jsonl "run-$1/metrics.jsonl"
}
like_text u16 --set 'data.format="megatron"' --set 'data.train=["files/megatron-u16"]'
like_text i32 --set 'data.format="megatron"' --set 'data.train=["files/megatron-i32.bin"]'
like_text gpt2 --set 'data.format="tokens"' --set 'data.train=["files/gpt2.bin"]'
like_text llama3 --set 'data.format="tokens"' --set 'data.train=["files/llama3.bin"]'
like_text modded --set 'data.format="tokens"' --set 'data.train=["files/modded.bin"]'
like_text bare --set 'data.format="tokens"' --set 'data.train=["files/bare.u32"]' --set 'data.token_type="u32"'

# What a file holds.
one data inspect files/megatron-u16.idx >out.txt || fail "inspect ended with $?"
grep -q "^documents  $n_document," out.txt || fail "documents: $(cat out.txt)"
grep -q '^ids        10 to 57: ' out.txt || fail "ids: $(cat out.txt)"
one data inspect files/gpt2.bin | grep -q '^layout     llm.c (GPT-2)' || fail "layout of gpt2.bin"
one data inspect text.txt | grep -q '^layout     text' || fail "layout of text.txt"
refuse 3 'missing.bin: No such file' data inspect missing.bin
refuse 2 '--format words is none of bytes, tokens or megatron' data inspect text.txt --format words
refuse 2 '`moetrain data` needs another word' data show text.txt
refuse 2 'unknown option -o of moetrain data inspect' data inspect text.txt -o x
cp files/megatron-u16.bin files/cut.bin
head -c 100 files/megatron-u16.idx >files/cut.idx
refuse_everywhere 3 'files/cut.idx has 100 bytes' text.toml --quiet --run-dir run-cut \
    --set 'data.format="megatron"' --set 'data.train=["files/cut"]'
refuse 3 'set data.token_type' text.toml --quiet --run-dir run-cut --set 'data.format="tokens"' \
    --set 'data.train=["files/bare.u32"]'
refuse 2 'data.weights has 2 numbers for 1 paths' text.toml --quiet --run-dir run-cut \
    --set 'data.weights=[1, 2]'

# Text and JSON lines to a pair, and trained on; what is not whole leaves nothing behind.
python3 -c 'import json
for n in range(900): print(json.dumps({"text": f"line {n} é", "body": "b"}))
print(json.dumps({"text": ""}))' >lines.jsonl
vectors=$MT_SOURCE/tests/text/vectors
one data prepare lines.jsonl text.txt -o files/own --tokenizer "$vectors/gpt2.json" >out.txt || fail "prepare"
grep -q 'files/own.idx: 901 documents' out.txt || fail "prepared: $(cat out.txt)"
one data inspect files/own >out.txt || fail "inspect of what was prepared"
grep -q '^ids        0 to ' out.txt || fail "no end of document: $(cat out.txt)"
ranks 2 text.toml --quiet --run-dir run-own --set train.steps=2 --set model.vocab_size=500 \
    --set 'data.format="megatron"' --set 'data.train=["files/own"]' || fail "training on what was prepared"
one data prepare text.txt -o files/again >/dev/null || fail "prepare of bytes"
cmp files/again.bin files/megatron-u16.bin || fail "bytes are not those of the independent writer"
refuse 2 'files/own.bin exists; it is not written over' data prepare text.txt -o files/own
refuse 2 'needs -o PREFIX' data prepare text.txt
refuse 3 'lines.jsonl, line 1: no text under the key "words"' data prepare lines.jsonl -o files/bad --key words
refuse 3 'missing: No such file' data prepare missing -o files/bad
refuse 2 '--end-of-document <x> is no token' data prepare text.txt -o files/bad --end-of-document '<x>'
echo '{"text": "no end"' >>lines.jsonl
mkfifo files/waits
for name in files/ '' . files/..; do refuse 2 'ends in no name' data prepare text.txt -o "$name"; done
refuse 3 'cannot read files/waits: it is not a regular file' data prepare files/waits -o files/bad
for kind in model json; do
    mkfifo "files/waits.$kind"
    mkdir "files/folder.$kind"
    truncate -s 1T "files/huge.$kind"
    refuse 3 'it is not a regular file' data prepare text.txt -o files/bad --tokenizer "files/waits.$kind"
    refuse 3 'it is not a regular file' data prepare text.txt -o files/bad --tokenizer "files/folder.$kind"
    refuse 3 'is too large' data prepare text.txt -o files/bad --tokenizer "files/huge.$kind"
done
truncate -s 4G files/endless.jsonl
refuse 3 'endless.jsonl, line 1: a document of more than' data prepare files/endless.jsonl -o files/bad
refuse 2 'cannot write nowhere/x.bin.unfinished: No such file' data prepare text.txt -o nowhere/x
(flock -n 9 && expect 2 'another process writes this pair' one data prepare text.txt -o files/bad) 9>files/bad.bin.unfinished ||
    fail "a pair that another writes"
one data prepare text.txt -o files/bad >/dev/null || fail "what a killed writer left behind is in the way"
cmp files/bad.bin files/again.bin && rm files/bad.*
refuse 3 'lines.jsonl, line 902: no JSON' data prepare lines.jsonl -o files/bad
(ulimit -f 8 && expect 4 'cannot write files/bad.bin' one data prepare text.txt text.txt text.txt -o files/bad) ||
    fail "a full disk"
[ -z "$(ls files | grep bad)" ] || fail "left behind: $(ls files)"

# Two sources. Stopped, resumed on other ranks, then with other weights: counts go on.
seq 9000 -1 6000 >other.txt
blend() { # STEPS RANKS WEIGHTS ARGUMENTS
    ranks "$2" text.toml --run-dir run-blend --quiet --set checkpoint.interval=1 --set train.steps="$1" \
        --set 'data.train=["text.txt", "other.txt"]' --set "data.weights=$3" "${costs[@]}" "${@:4}"
}
drawn() { python3 -c "
import json, sys
line = [l for l in map(json.loads, open('run-blend/metrics.jsonl')) if 'loss' in l][-1]
print(line['step'], *line['data_sequences'].values(), line['tokens_seen'])"; }
blend 4 1 '[3, 1]' || fail "blend ended with $?"
read -r step text other tokens <<<"$(drawn)"
sequences=$((text + other))
[ "$step" = 4 ] && [ $((text - 3 * other)) -le 3 ] && [ $((3 * other - text)) -le 3 ] || fail "shares $text $other"
blend 8 3 '[3, 1]' || fail "blend on 3 ranks ended with $?"
read -r step text other _ <<<"$(drawn)"
[ $((text + other)) = $((2 * sequences)) ] || fail "after 8 steps: $text + $other"
blend 12 2 '[1, 3]' || fail "blend with other weights ended with $?"
read -r step text2 other2 _ <<<"$(drawn)"
[ $((text2 + other2)) = $((3 * sequences)) ] || fail "after 12 steps: $text2 + $other2"
[ $((other2 - other)) -gt $((text2 - text)) ] || fail "weights did not change: $text2 $other2"
grep -q 'other sources or weights' run-blend/run.log || fail "no word about it in run.log"
# Content that changed under the same name is refused, or accepted.
sed -i 's/8/9/' other.txt
refuse 3 'other.txt of data.train has not the content' text.toml --run-dir run-blend --quiet \
    --set train.steps=16 --set 'data.train=["text.txt", "other.txt"]' --set 'data.weights=[1, 3]' "${costs[@]}"
blend 16 2 '[1, 3]' --set 'data.changed="accept"' || fail "an accepted change ended with $?"
read -r step text2 other2 _ <<<"$(drawn)"
[ $((text2 + other2)) = $((4 * sequences)) ] || fail "after 16 steps: $text2 + $other2"
