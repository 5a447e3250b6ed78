#!/usr/bin/env bash
# The main job, shortened: quickstart's model on the King James text, two ranks, a checkpoint, evaluation,
# generated text.
. "$(dirname "$0")/../support/run.sh"
rm -rf run
bash "$MT_SOURCE/launch/make-corpus.sh" "$PWD/corpus" --no-install || fail "no corpus"
data=(--set "data.train=[\"$PWD/corpus/king-james-train.txt\"]"
    --set "data.validation=[\"$PWD/corpus/king-james-validation.txt\"]")
ranks 2 "$MT_SOURCE/configs/quickstart.toml" --run-dir run --quiet "${data[@]}" --set train.steps=30 \
    --set train.global_batch_size=8 --set train.micro_batch_size=4 --set schedule.warmup_steps=5 \
    --set checkpoint.interval=30 --set train.eval_interval=15 --set train.eval_sequences=16 ||
    fail "training ended with $?"
metrics steps run/metrics.jsonl 1 30
metrics below run/metrics.jsonl eval_loss 3.0
checkpoint=run/checkpoints/step-00000030
"$MOETRAIN" eval "$MT_SOURCE/configs/quickstart.toml" "${data[@]}" --checkpoint $checkpoint \
    --sequences 16 >eval.json || fail "eval ended with $?"
python3 - <<'PY' || fail "eval and training disagree"
import json
last = [json.loads(l) for l in open("run/metrics.jsonl") if "eval_loss" in l][-1]
result = json.load(open("eval.json"))
assert result["eval_tokens"] == last["eval_tokens"] == 16 * 128, result
assert abs(result["eval_loss"] - last["eval_loss"]) < 1e-5, (result, last)
PY
"$MOETRAIN" generate --checkpoint $checkpoint --prompt "And " --tokens 40 >text.txt || fail "generate: $?"
[ "$(head -c 4 text.txt)" = "And " ] || fail "the text does not begin with its prompt"
[ "$(wc -c <text.txt)" = 45 ] || fail "expected 4 + 40 bytes and a newline"
"$MOETRAIN" generate --checkpoint $checkpoint --prompt "And " --tokens 40 | cmp - text.txt ||
    fail "the same seed gave other text"
"$MOETRAIN" verify $checkpoint >/dev/null || fail "verify: $?"
"$MOETRAIN" inspect $checkpoint | grep -q '/model/layers/0/moe/experts/gate_proj' || fail "inspect"
