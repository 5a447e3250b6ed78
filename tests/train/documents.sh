#!/usr/bin/env bash
# Attention within documents, in the whole program: documents that fill half a sequence each train and
# evaluate like sequences of half the length; their borders come from a token or from an index alike.
. "$(dirname "$0")/../cli/refuse.sh"
rm -rf run* ./*.toml docs* mixed*
# 400 documents of 8 bytes, ended by a newline; then documents of all lengths, empty ones among them.
seq 1000000 1000399 >docs.txt && printf '0000000\n' >>docs.txt
for i in $(seq 300); do seq -s ' ' "$((i % 7 * i % 11))" && [ $((i % 5)) = 0 ] && echo; done >mixed.txt
write_pair() { # NAME: NAME.bin and NAME.idx of NAME.txt, a document a line
    python3 - "$1" <<'PY'
import struct
import sys
name = sys.argv[1]
lines = open(f"{name}.txt", "rb").read().splitlines(keepends=True)
open(f"{name}.bin", "wb").write(b"".join(lines))
ends = [0]
for line in lines:
    ends.append(ends[-1] + len(line))
marks = sorted([*range(len(lines) + 1), 3, len(lines)])  # documents without a sequence, too
open(f"{name}.idx", "wb").write(
    b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 1, len(lines), len(marks))
    + struct.pack(f"<{len(lines)}i", *map(len, lines))
    + struct.pack(f"<{len(lines)}q", *ends[:-1]) + struct.pack(f"<{len(marks)}q", *marks))
PY
}
write_pair mixed
sed 's/^format = "random"/train = ["docs.txt"]/' "$config" >text.toml
within=(--set 'data.attention="document"')
by_token=("${within[@]}" --set data.document_end=10)
mixed=("${within[@]}" --set 'data.format="megatron"' --set 'data.train=["mixed.bin"]')
train() { # NAME RANKS ARGUMENTS
    ranks "$2" text.toml --quiet --run-dir "run-$1" --set train.steps=5 --set checkpoint.interval=5 \
        --set 'moe.balance.window="exact"' "${costs[@]}" "${@:3}" || fail "$1: $?"
}
loss() { # RUN ARGUMENTS: eval_loss of the run's model
    one eval text.toml --run-dir "run-$1" --sequences 24 --data docs.txt "${@:2}" |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["eval_loss"])'
}
close() { # A B BOUND WHAT
    python3 -c "import sys; sys.exit(not abs($1 - $2) < $3)" || fail "$4: $1 and $2"
}
train token 1 "${by_token[@]}"
# Two documents a sequence, or sequences of one each: the same loss.
whole=$(loss token "${by_token[@]}")
half=$(loss token --set model.max_seq_len=8 --sequences 48)
across=$(loss token)
close "$whole" "$half" 1e-6 "documents and sequences of their length"
python3 -c "import sys; sys.exit(abs($whole - $across) < 1e-4)" || fail "attention went across: $whole, $across"
# The index tells the same documents, to the bit; also of documents longer than a sequence and empty ones.
train mixed-token 2 "${by_token[@]}" --set 'data.train=["mixed.txt"]'
train mixed-index 2 "${mixed[@]}"
metrics same run-mixed-token/metrics.jsonl run-mixed-index/metrics.jsonl
# Recomputation and halves: the same training.
train halves 2 "${mixed[@]}" --set 'comm.overlap="on"' --set 'train.recompute="layer"'
metrics close run-mixed-index/metrics.jsonl run-halves/metrics.jsonl 1e-5 1e-4
# What is not computed is not counted: two halves have half the scores of a whole.
train across 1
python3 - <<'PY' || fail "FLOPs of documents"
import json
def flops(run):
    line = [json.loads(text) for text in open(f"run-{run}/metrics.jsonl")][-1]
    return line["model_flops_per_s"] * line["step_time_s"] / (8 * 16)
score = 12 * 32 * 2  # of a pair: 12 H Dh L
assert abs(flops("across") - flops("token") - 8 * score) < 1, (flops("across"), flops("token"))
PY
one plan text.toml "${by_token[@]}" | grep -q 'at most; of which scores, less in documents  *12288' || fail "plan"
refuse 2 'needs data.document_end' text.toml --run-dir run-bad "${within[@]}"
refuse 2 'document_end = 256 is no token' text.toml --run-dir run-bad "${within[@]}" --set data.document_end=256
# Sequences given to ranks by cost: each once, the same training as by count and on one rank, and less waiting:
# in a micro-batch the scores of the rank that has most are nearer to the mean.
balanced=("${mixed[@]}" --set data.log_samples=true --set train.global_batch_size=16)
train by-one 1 "${balanced[@]}" --set 'data.balance="cost"'
train by-count 3 "${balanced[@]}" --set train.micro_batch_size=1
train by-cost 3 "${balanced[@]}" --set train.micro_batch_size=1 --set 'data.balance="cost"'
for run in by-one by-count; do
    metrics close run-$run/metrics.jsonl run-by-cost/metrics.jsonl 1e-5 1e-4
done
python3 - <<'PY' || fail "sequences by cost"
import json
text = open("mixed.txt", "rb").read()
def scores(window):
    piece = text[16 * window : 16 * window + 16].split(b"\n")
    lengths = [len(part) + 1 for part in piece[:-1]] + [len(piece[-1])]
    return sum(n * n for n in lengths)
def lines(run):
    return [json.loads(line) for line in open(f"run-{run}/samples.jsonl")]
def waiting(run):
    """Scores of the rank that has most, over the mean, by step (micro-batches are not logged)."""
    ratio = 0
    for line in lines(run):
        assert sorted(map(line["rank"].count, range(3))) == [5, 5, 6], line["rank"]
        by_rank = [sum(scores(w) for w, r in zip(line["window"], line["rank"]) if r == rank) for rank in range(3)]
        ratio += max(by_rank) / (sum(by_rank) / 3)
    return ratio / len(lines(run))
for a, b, c in zip(*map(lines, ("by-one", "by-count", "by-cost"))):
    assert a["window"] == b["window"] == c["window"] and b["rank"] != c["rank"]
print(f"by count {waiting('by-count'):.3f}, by cost {waiting('by-cost'):.3f}")
assert waiting("by-cost") < waiting("by-count")
PY
refuse 2 'balance = "cost" is for data.attention' text.toml --run-dir run-bad --set 'data.balance="cost"'
