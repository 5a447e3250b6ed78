#!/usr/bin/env bash
# What eval, generate, inspect and plan print, and that they agree with each other.
. "$(dirname "$0")/refuse.sh"
rm -rf run* ./*.toml

# total FILE: parameters by `plan`; listed FILE: elements over the tensors of the model by `inspect`.
total() { awk '/parameters, total/ { print $NF }' "$1"; }
listed() {
    python3 -c '
import math, re, sys
found = re.findall(r"^/model/\S+ +\[([0-9, ]+)\] float32  \S", open(sys.argv[1]).read(), re.M)
print(sum(math.prod(map(int, shape.split(","))) for shape in found))' "$1"
}
variants=("" "model.qk_norm=\"head\" model.tie_word_embeddings=true moe.num_shared_experts=2 moe.shared_gate=true"
    "model.qk_norm=\"projection\" model.first_k_dense=1 model.dense_intermediate_size=48 model.head_dim=6 model.attention_bias=true"
    "model.first_k_dense=2 model.dense_intermediate_size=40 moe.num_experts=5")
n=0
for variant in "${variants[@]}"; do
    set=()
    for value in $variant; do
        set+=(--set "$value")
    done
    run=run$((n += 1))
    expect 0 "" ranks $n "$config" --quiet --run-dir $run --set train.steps=1 --set checkpoint.interval=1 \
        --set 'moe.balance.window="exact"' "${set[@]}"
    said_nothing_else
    expect 0 "" one plan "$config" "${set[@]}"
    mv out.txt plan.txt
    expect 0 "" one inspect $run/checkpoints/step-00000001
    [ "$(total plan.txt)" = "$(listed out.txt)" ] ||
        fail "\"$variant\": plan counts $(total plan.txt) parameters, inspect lists $(listed out.txt)"
    expect 0 "" one verify $run/checkpoints/step-00000001
done
for command in "inspect run3" "verify run3" "generate --prompt x --checkpoint run3"; do
    # shellcheck disable=SC2086
    expect 3 'run3 is a run directory; .*; name a folder in run3/checkpoints' one $command
done
expect 0 "" one inspect run3/checkpoints/step-00000001
for word in '^step +1$' '^tokens seen +128$' '^written by +3 ranks' \
    '^/optimizer/layers/1/moe/experts/gate_proj/exp_avg +\[8, 32, 32\]' \
    '^/model/layers/0/mlp/down_proj +\[32, 48\]'; do
    grep -qE "$word" out.txt || fail "inspect lacks $word: $(head -20 out.txt)"
done

# One JSON object on standard output, the same from any number of ranks.
for n in 1 3; do
    expect 0 "" ranks $n eval "$config" --run-dir run1 --sequences 24
    mv out.txt eval$n.json
done
python3 - <<'PY' || fail "eval: $(cat eval1.json eval3.json)"
import json
import math
one, three = (json.loads(open(f"eval{n}.json").read()) for n in (1, 3))
assert one["eval_tokens"] == three["eval_tokens"] == 24 * 16
assert isinstance(one["eval_loss"], float) and 5 < one["eval_loss"] < 6
assert abs(one["eval_loss"] - three["eval_loss"]) < 1e-6
assert abs(one["perplexity"] - math.exp(one["eval_loss"])) < 1e-6 * one["perplexity"]
PY
# Text: the prompt, the tokens, a newline; the same from any number of ranks; no tokens, likeliest tokens.
sample=(generate --checkpoint run1/checkpoints/step-00000001 --prompt "In the beginning" --seed 3 --quiet)
expect 0 "" one "${sample[@]}" --tokens 30
mv out.txt text
[ "$(wc -c <text)" = 47 ] || fail "expected 16 + 30 bytes and a newline: $(cat text)"
expect 0 "" ranks 3 "${sample[@]}" --tokens 30
cmp out.txt text || fail "three ranks generate other text"
expect 0 "" one "${sample[@]}" --tokens 0
[ "$(cat out.txt)" = "In the beginning" ] || fail "$(cat out.txt)"
expect 0 "" one "${sample[@]}" --tokens 3 --temperature 0
mv out.txt text
expect 0 "" one "${sample[@]}" --tokens 3 --top-k 1
cmp out.txt text || fail "of one token another was taken than the likeliest"
expect 0 "" one "${sample[@]}" --tokens 3 --top-p 1e-6
cmp out.txt text || fail "of the fewest tokens another was taken than the likeliest"

# A reader that has seen enough ends a command as it ends every tool: without a word, by SIGPIPE - also where the
# program has to ignore that signal, or inherited that.
for command in "inspect run1/checkpoints/step-00000001" "plan $config --no-policies" \
    "generate --checkpoint run1/checkpoints/step-00000001 --prompt x --tokens 100000"; do
    for signal in default ignore; do
        # shellcheck disable=SC2086
        timeout 60 env --$signal-signal=PIPE "$MOETRAIN" $command 2>err.txt | true
        code=${PIPESTATUS[0]}
        [ $code = 141 ] && [ ! -s err.txt ] || fail "$command without a reader ended with $code: $(cat err.txt)"
    done
done

# Results that nobody can take are no success.
for command in "inspect run1/checkpoints/step-00000001" "plan $config --no-policies" \
    "generate --checkpoint run1/checkpoints/step-00000001 --prompt x --tokens 2000"; do
    # shellcheck disable=SC2086
    one $command >/dev/full 2>err.txt
    code=$?
    [ $code = 4 ] && grep -q 'cannot write the results to standard output: No space' err.txt ||
        fail "$command into a full disk ended with $code: $(cat err.txt)"
done
